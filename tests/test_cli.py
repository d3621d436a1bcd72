"""The command line: exit codes, one line for bad input, and JSON as the interface names it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmmem import __version__, catalog, ledger
from vlmmem.cli import main
from vlmmem.ledger.explain import MOST

FIGURE_FIELDS = [
    "id",
    "document",
    "line",
    "section",
    "kind",
    "documented",
    "unit",
    "formula",
    "convention",
    "computed",
    "verdict",
    "correct",
    "note",
    "sources",
]


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code and both streams."""
    try:
        code = main(list(arguments))
    except SystemExit as end:  # --help and --version
        code = end.code if isinstance(end.code, int) else -1
    said = capsys.readouterr()
    return code, said.out, said.err


def as_json(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> object:
    got, out, err = run(capsys, *arguments, "--json")
    assert (got, err) == (code, "")
    return json.loads(out)


def test_figures_are_all_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert as_json(capsys, "figures") == [item.json() for item in ledger.load().figures]
    code, out, err = run(capsys, "figures")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert [line.split()[:3] for line in lines] == [
        [item.id, f"L{item.line}", item.verdict] for item in ledger.load().figures
    ]


def test_figures_of_a_document_and_a_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    found = as_json(capsys, "figures", "--document", "inference", "--verdict", "wrong")
    assert found == [item.json() for item in ledger.figures("inference", "wrong")]
    assert found != []
    assert as_json(capsys, "figures", "--document", "estimation", "--verdict", "convention") == []
    assert run(capsys, "figures", "--document", "estimation", "--verdict", "convention") == (0, "", "")


@pytest.mark.parametrize("figure_id", ["footprint:13b-total", "inference:70b-kv", "footprint:overhead-share"])
def test_a_figure_as_json(capsys: pytest.CaptureFixture[str], figure_id: str) -> None:
    found = as_json(capsys, "figure", figure_id)
    assert found == ledger.figure(figure_id).json()
    assert isinstance(found, dict)
    assert list(found)[: len(FIGURE_FIELDS)] == FIGURE_FIELDS


def test_a_figure_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    item = ledger.figure("inference:70b-kv")
    code, out, err = run(capsys, "figure", item.id)
    assert (code, err) == (0, "")
    facts = dict(line.split(None, 1) for line in out.splitlines())
    assert facts["figure"] == item.id
    assert facts["printed"] == "0.50 GB  (inference line 92, " + item.section + ")"
    assert facts["verdict"] == "contradicted (copied shape)"
    assert facts["formula"].endswith("(calc_kv_cache_memory_gb)")
    assert facts["computed"] == "1.25 GB"
    assert facts["right"] == item.correct
    assert facts["note"] == item.note
    assert "convention" not in facts


@pytest.mark.slow
def test_figures_of_every_kind_can_be_shown(capsys: pytest.CaptureFixture[str]) -> None:
    kinds = {(item.kind, item.verdict): item for item in ledger.load().figures}
    for item in kinds.values():
        code, out, err = run(capsys, "figure", item.id)
        assert (code, err) == (0, "")
        assert item.note in out
        assert all(source in out for source in item.sources)


def test_an_accepted_export_that_is_not_the_packages_is_not_used(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vlmmem.published.key", lambda: "another")
    assert as_json(capsys, "figure", "footprint:13b-total") == ledger.figure("footprint:13b-total").json()


def test_explain(capsys: pytest.CaptureFixture[str]) -> None:
    case = ("99.0GB", "--model", "llama-2-13b", "--context", "8192", "--batch", "10")
    code, out, err = run(capsys, "explain", *case)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith("In the ledger: footprint:13b-8k-x10 (line 136), convention. ")
    assert lines[1].split() == ["convention", "rule", "case", "gives", "also", "prints"]
    assert lines[2].startswith("kib-read-as-kb  total  model=llama-2-13b context=8k batch=10 ")
    assert lines[2].endswith("2 of 16 cells")
    assert lines[-1].startswith("By luck: ")
    found = as_json(capsys, "explain", *case)
    assert isinstance(found, dict)
    assert found["hits"][0]["convention"] == "kib-read-as-kb"
    assert found["figures"] == ["footprint:13b-8k-x10"]


def test_explain_shows_as_many_as_asked(capsys: pytest.CaptureFixture[str]) -> None:
    case = ("26GB", "--model", "llama-2-13b")
    code, out, _ = run(capsys, "explain", *case, "--most", "1")
    hits = as_json(capsys, "explain", *case)
    assert isinstance(hits, dict)
    assert code == 0
    assert f"... and {len(hits['hits']) - 1} more (--most shows more)" in out.splitlines()


def test_where_nothing_explains_it_the_answer_is_no(capsys: pytest.CaptureFixture[str]) -> None:
    case = ("114.5GB", "--model", "opt-30b", "--context", "32768", "--batch", "1")
    code, out, err = run(capsys, "explain", *case)
    assert (code, err) == (1, "")
    assert out.splitlines()[-1].startswith("No convention prints 114.5GB (")
    found = as_json(capsys, "explain", *case, code=1)
    assert isinstance(found, dict)
    assert found["hits"] == []


def test_cite(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "cite", "footprint:13b-total")
    assert (code, err) == (0, "")
    assert out.startswith("103.3 GB (96.2 GiB): ")
    assert run(capsys, "cite", "footprint:13b-total", "--format", "text") == (0, out, "")
    code, marked, err = run(capsys, "cite", "footprint:13b-total", "--format", "markdown")
    assert (code, err) == (0, "")
    assert "vlmmem `footprint:13b-total`" in marked
    code, linked, err = run(capsys, "cite", "footprint:13b-total", "--book", "https://example.org")
    assert "https://example.org/book/ledger.html#footprint-13b-total" in linked
    assert as_json(capsys, "cite", "footprint:13b-total", "--format", "markdown") == {
        "id": "footprint:13b-total",
        "format": "markdown",
        "citation": marked.rstrip("\n"),
    }


def test_the_catalogue(capsys: pytest.CaptureFixture[str]) -> None:
    for command, entries in (("models", catalog.models()), ("gpus", catalog.gpus()), ("formats", catalog.formats())):
        found = as_json(capsys, command)
        assert isinstance(found, list)
        assert [entry["id"] for entry in found] == [item.id for item in entries]
        code, out, err = run(capsys, command)
        assert (code, err) == (0, "")
        assert [line.split()[0] for line in out.splitlines()[1:]] == [entry["id"] for entry in found]


def test_sizes_in_json_are_bytes(capsys: pytest.CaptureFixture[str]) -> None:
    models = as_json(capsys, "models")
    gpus = as_json(capsys, "gpus")
    assert isinstance(models, list)
    assert isinstance(gpus, list)
    for entry in models:
        assert type(entry["weights_bytes"]) is int
        assert entry["parameters"] == sum(entry["parameters_by_part"].values())
    by_id = {entry["id"]: entry for entry in models}
    assert by_id["llama-2-13b"]["kv_bytes_per_token"] == 819_200
    assert by_id["llama-2-13b"]["parameters"] == 13_015_864_320
    assert all(type(entry["memory_bytes"]) is int for entry in gpus)


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--version") == (0, f"vlmmem {__version__}\n", "")
    code, out, err = run(capsys, "--help")
    assert (code, err) == (0, "")
    for command in ("figures", "figure", "explain", "cite", "coverage", "models", "gpus", "formats"):
        assert f"\n    {command} " in out
        assert run(capsys, command, "--help")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "the following arguments are required: COMMAND; 'vlmmem --help' shows what is right"),
        (["figur"], "argument COMMAND: invalid choice: 'figur' (choose from "),
        (["figure"], "the following arguments are required: id; 'vlmmem figure --help' shows what is right"),
        (["figures", "--colour"], "unrecognized arguments: --colour; 'vlmmem --help' shows what is right"),
        (["figures", "--document"], "argument --document: expected one argument; 'vlmmem figures --help' shows"),
        (
            ["figures", "--document", "footprints"],
            "document 'footprints' is not known; one of footprint, inference, estimation",
        ),
        (["figures", "--verdict", "right"], "verdict 'right' is not known; one of wrong, contradicted, "),
        (
            ["figure", "footprint:13b-totl"],
            "figure 'footprint:13b-totl' is not in the ledger; nearest: footprint:13b-total",
        ),
        (["figure", "@@@@"], "figure '@@@@' is not in the ledger; nearest: none"),
        (["figure", "a\nb\x1b[31m"], "figure 'a\\nb\\x1b[31m' is not in the ledger; nearest: "),
        (["cite", "inference:70b"], "figure 'inference:70b' is not in the ledger; nearest: inference:70b-kv"),
        (["cite", "inference:70b-kv", "--format", "pdf"], "format 'pdf' is not known; one of text, markdown"),
        (["explain", "99.0"], "'99.0': a value with its unit is needed, such as 99.0GB or 800KB"),
        (["explain", "9" * 4000 + "GB"], f"{'9' * 20}...: 4000 characters; a number of up to 300 is needed"),
        (["explain", "99GB", "--model", "llama-9"], "model 'llama-9' is not in the catalogue; near are "),
        (
            ["explain", "99GB", "--context", "8k"],
            "argument --context: '8k' is no count; a whole number above zero is needed; 'vlmmem explain --help'",
        ),
        (["explain", "99GB", "--batch", "0"], "argument --batch: '0' is no count; a whole number above zero is needed"),
        (["explain", "99GB", "--most", "-1"], "argument --most: '-1' is no count; a whole number above zero"),
        (
            ["explain", "99GB", "--batch", "9" * 40],
            f"--batch is {'9' * 40}; a whole number from 1 to {MOST:,} is needed",
        ),
        (["explain", "99GB", "--context", "9" * 5000], f"argument --context: {'9' * 40!r} is no count; "),
    ],
)
def test_bad_input_gets_one_line(capsys: pytest.CaptureFixture[str], arguments: list[str], line: str) -> None:
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith(f"vlmmem: error: {line}")
    assert err.count("\n") == 1


def test_a_broken_ledger_gets_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> ledger.Ledger:
        return ledger.read(Path("/nowhere/figures"))

    monkeypatch.setattr("vlmmem.published.key", lambda: "another")
    monkeypatch.setattr(ledger, "load", broken)
    assert run(capsys, "figures") == (
        2,
        "",
        "vlmmem: error: figures: no figures; files such as footprint/NAME.json are needed\n",
    )


_WORDS = st.sampled_from(
    [
        "figures",
        "figure",
        "explain",
        "cite",
        "coverage",
        "--text",
        "models",
        "gpus",
        "formats",
        "--json",
        "--document",
        "footprint",
        "--verdict",
        "wrong",
        "footprint:13b-total",
        "99.0GB",
        "800KB",
        "26 GB",
        "0GB",
        "--model",
        "llama-2-13b",
        "--context",
        "8192",
        "--batch",
        "10",
        "-1",
        "--most",
        "--format",
        "markdown",
        "--",
        "-h",
        "--version",
        "",
    ]
) | st.text(max_size=12)


@pytest.mark.slow
@given(st.lists(_WORDS, max_size=6))
def test_any_arguments_end_as_the_interface_says(arguments: list[str]) -> None:
    # an open search takes seconds; its case is given here
    if "explain" in arguments:
        arguments = [*arguments, "--model=llama-2-13b", "--context=8192", "--batch=10"]
    with pytest.MonkeyPatch.context() as patch:
        from io import StringIO

        out, err = StringIO(), StringIO()
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", err)
        try:
            code = main(arguments)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else -1
            assert code == 0
    assert code in (0, 1, 2)
    if code == 2:
        assert out.getvalue() == ""
        assert err.getvalue().startswith("vlmmem: error: ")
        assert err.getvalue().count("\n") == 1
    else:
        assert err.getvalue() == ""


def _process(*arguments: str, **options: object) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "vlmmem.cli", *arguments]
    return subprocess.run(command, check=False, timeout=60, **options)  # type: ignore[call-overload, no-any-return]


def test_a_terminal_without_the_sign_gets_its_code() -> None:
    done = _process(
        "figure",
        "footprint:13b-total",
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert rb"tokens \xd7 10 requests" in done.stdout


def test_an_argument_that_is_no_text_gets_one_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "vlmmem.cli", "figure", b"\xff"], check=False, timeout=60, capture_output=True
    )
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"vlmmem: error: figure '\\udcff' is not in the ledger")
    assert done.stderr.count(b"\n") == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full to write to")
def test_a_full_disk_gets_one_line() -> None:
    with Path("/dev/full").open("wb") as full:
        done = _process("figure", "footprint:13b-total", stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 2
    assert done.stderr == b"vlmmem: error: the output cannot be written (No space left on device)\n"


def test_a_reader_that_has_seen_enough_ends_it_in_silence() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = _process("figures", "--json", stdout=writing, stderr=subprocess.PIPE)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")
