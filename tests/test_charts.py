"""Charts: one output for JupyterLab, GitHub and the book, the same on every machine."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from vlmmem import charts

pytestmark = pytest.mark.slow  # altair and vl-convert take seconds to start

ALT = "Two bars, of one and three GiB."


def chart(values: list[dict[str, Any]] | None = None) -> Any:
    import altair as alt

    rows = [{"model": "a", "GiB": 1}, {"model": "b", "GiB": 3}] if values is None else values
    data = alt.Data(values=rows)  # type: ignore[no-untyped-call]
    return alt.Chart(data).mark_bar(clip=True).encode(x="GiB:Q", y="model:N")


def test_an_output_holds_specification_svg_and_words() -> None:
    output = charts.bundle(chart(), ALT)
    assert set(output) == {charts.MIME, "image/svg+xml", "text/plain"}
    assert output["text/plain"] == f"Chart: {ALT}"
    assert f"<title>{ALT}</title>" in output["image/svg+xml"]
    assert output[charts.MIME]["$schema"].startswith("https://vega.github.io/schema/vega-lite/v6.")


def test_a_build_draws_its_own_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(charts.UNDRAWN, "1")
    output = charts.bundle(chart(), ALT)
    assert set(output) == {charts.MIME, "text/plain"}
    assert 'src="data:image/svg+xml;base64,' in charts.html(output[charts.MIME])


def test_notebooks_accept_the_output() -> None:
    import nbformat

    output = nbformat.v4.new_output("display_data", data=charts.bundle(chart(), ALT))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("", outputs=[output])])
    nbformat.validate(notebook)


def test_the_media_type_of_altair_is_still_rejected() -> None:
    """The reason for a media type of our own: if this fails, Altair's will do."""
    import nbformat

    with pytest.raises(nbformat.ValidationError):
        nbformat.v4.new_output("display_data", data={"application/vnd.vegalite.v6.json": {"a": 1}})


def test_the_second_drawing_is_the_first() -> None:
    first, second = (charts.bundle(chart(), ALT) for _ in range(2))
    assert first == second


def test_the_fonts_of_the_machine_do_not_matter(tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    settings = tmp_path / "fonts.conf"
    settings.write_text(f'<?xml version="1.0"?><fontconfig><dir>{tmp_path / "none"}</dir></fontconfig>')
    spec = charts.specification(chart(), ALT)
    program = "import json, sys; from vlmmem import charts; print(charts.svg(json.load(sys.stdin)), end='')"
    bare = subprocess.run(
        [sys.executable, "-c", program],
        input=json.dumps(spec),
        env={"FONTCONFIG_FILE": str(settings), "PYTHONPATH": str(Path(charts.__file__).parent.parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert bare.stdout == charts.svg(spec)


def test_another_font_would_be_noticed() -> None:
    spec = charts.specification(chart(), ALT)
    other = {**spec, "config": {**spec["config"], "font": "DejaVu Sans Mono, monospace"}}
    assert charts.svg(other) != charts.svg(spec)


def test_a_chart_needs_words() -> None:
    with pytest.raises(ValueError, match="a chart needs alt"):
        charts.bundle(chart(), " ")


def test_a_script_cannot_end_early() -> None:
    spec = charts.specification(chart([{"model": "</script>", "GiB": 1}]), 'say "no" </figure>')
    piece = charts.html(spec)
    script = piece.partition('<script type="application/json">')[2].removesuffix("</script></figure>")
    assert "</" not in script
    assert json.loads(script) == spec
    assert 'alt="say &quot;no&quot; &lt;/figure&gt;"' in piece


def test_the_id_is_that_of_the_specification() -> None:
    spec = charts.specification(chart(), ALT)
    assert charts.html(spec).partition("<img")[0] == charts.html(dict(reversed(spec.items()))).partition("<img")[0]
    assert charts.html(spec).partition("<img")[0] != charts.html({**spec, "width": 7}).partition("<img")[0]


def test_the_book_draws_the_specification() -> None:
    from types import SimpleNamespace

    from vlmmem.sphinx.mime import VegaLite

    spec = charts.specification(chart(), ALT)
    nodes = VegaLite.handle_mime(None, SimpleNamespace(mime_type=charts.MIME, content=spec), inline=False)
    assert nodes is not None
    assert nodes[0].astext() == charts.html(spec)
    assert VegaLite.handle_mime(None, SimpleNamespace(mime_type="text/plain", content="x"), inline=False) is None


def test_the_renderer_is_registered() -> None:
    from importlib.metadata import entry_points

    (entry,) = entry_points(group="myst_nb.mime_renderers", name="vlmmem")
    assert entry.load().__name__ == "VegaLite"
