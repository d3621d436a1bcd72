"""What the built site needs besides its pages, so that no page asks another host for anything.

MathJax comes from the wheel that carries it, Vega from vl-convert; both are installed, locked by hash, and copied into
the site. The ledger's export is published beside the pages.
"""

import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from shutil import copyfile
from typing import TYPE_CHECKING, Any

from docutils import nodes
from sphinx.errors import ExtensionError

from vlmmem import charts
from vlmmem.cite.downloads import DOWNLOADS, download
from vlmmem.sphinx.mime import CHART

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

MATHJAX = ("sphinx-mathjax-offline", "sphinx-mathjax-offline/static/mathjax/tex-svg.js")
"""The wheel that carries MathJax 3.2.2, and the file in it: one script, fonts inside."""

EXPORTED = ("figures.json",)
PUBLISHED = (*EXPORTED, *DOWNLOADS)
"""Files that the build writes at the root of the site."""

_BUNDLE = """
import sys, vl_convert
script = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", sys.argv[1])
open(sys.argv[2], "w", encoding="utf-8").write("(()=>{" + script + "})();")
"""


def mathjax() -> Path:
    """The installed MathJax script."""
    name, file = MATHJAX
    try:
        path = Path(str(distribution(name).locate_file(file)))
    except PackageNotFoundError:
        raise ExtensionError(f"MathJax is not there: install {name}, as requirements.txt does") from None
    if not path.is_file():
        raise ExtensionError(f"MathJax is not there: {name} has no {file}")
    return path


def _has_chart(doctree: nodes.document) -> bool:
    return any(CHART in node.get("classes", ()) for node in doctree.findall(nodes.raw))


def start_bundle(app: "Sphinx", doctree: nodes.document) -> None:
    """Start writing the Vega bundle when the first chart is seen: it takes seconds, in which the pages are read."""
    if getattr(app, "vlmmem_bundle", None) or app.builder.format != "html" or not _has_chart(doctree):
        return
    target = Path(app.outdir, "_static", "vega.js")
    target.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-c", _BUNDLE, charts.VEGALITE, str(target)]
    app.vlmmem_bundle = subprocess.Popen(command)  # type: ignore[attr-defined]


def prepare_page(
    app: "Sphinx", pagename: str, templatename: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Give a page that has charts the scripts that draw them, and take away what would load from elsewhere."""
    if doctree is not None and _has_chart(doctree):
        app.add_js_file("vega.js", priority=700)
        app.add_js_file("vlmmem-charts.js", priority=710)
    # sphinx-thebe writes the address of a CDN into every page, twice, and the second time is an error. In place: the
    # list is the builder's own, to which add_js_file adds.
    scripts = context.get("script_files", [])
    scripts[:] = [
        script
        for script in scripts
        if "thebe" not in str(getattr(script, "filename", script) or "")
        and "thebe" not in str(getattr(script, "attributes", {}).get("body", ""))
    ]


def drop_thebe(app: "Sphinx", doctree: nodes.document, docname: str) -> None:
    """Take away the settings of a remote kernel, which sphinx-thebe adds to every page."""
    for node in list(doctree.findall(nodes.raw)):
        if "x-thebe-config" in node.astext() or node.astext().startswith("<script>kernelName"):
            node.parent.remove(node)


def say_status(app: "Sphinx", doctree: nodes.document, docname: str) -> None:
    """Words for the pictographs of myst-nb's table of execution times: not every reader's fonts have them."""
    words = {"✅": "done", "❌": "failed"}
    for text in list(doctree.findall(nodes.Text)):
        if text.astext() in words:
            text.parent.replace(text, nodes.Text(words[text.astext()]))


def finish(app: "Sphinx", exception: Exception | None) -> None:
    """Write MathJax, wait for Vega, publish the export."""
    bundle: subprocess.Popen[bytes] | None = getattr(app, "vlmmem_bundle", None)
    if bundle is not None and bundle.wait() and exception is None:
        raise ExtensionError("vl-convert could not write the Vega bundle; see its message above")
    if exception is not None or app.builder.format != "html":
        return
    out = Path(app.outdir)
    target = out / "_static" / "mathjax" / "tex-svg.js"
    target.parent.mkdir(parents=True, exist_ok=True)
    copyfile(mathjax(), target)
    from vlmmem.cite.export import as_text, published

    content = published()
    for name in EXPORTED:
        (out / name).write_text(as_text(content[name]), encoding="utf-8")
    for name in DOWNLOADS:
        (out / name).write_text(download(name), encoding="utf-8")


def outdated(
    app: "Sphinx", env: "BuildEnvironment", added: set[str], changed: set[str], removed: set[str]
) -> list[str]:
    """Every page, where the package or its data changed since the last build: any page may show their values."""
    from hashlib import sha256

    import vlmmem

    digest = sha256()
    for path in sorted(Path(vlmmem.__file__).parent.rglob("*")):
        if path.suffix in (".py", ".json"):
            digest.update(path.read_bytes())
    before = getattr(env, "vlmmem_package", None)
    env.vlmmem_package = digest.hexdigest()  # type: ignore[attr-defined]
    return [] if before == env.vlmmem_package else sorted(env.found_docs)  # type: ignore[attr-defined]


def setup(app: "Sphinx") -> None:
    """Connect to the build's events."""
    app.connect("env-get-outdated", outdated)
    app.connect("doctree-read", start_bundle)
    app.connect("doctree-resolved", drop_thebe, priority=900)
    app.connect("doctree-resolved", say_status, priority=900)
    app.connect("html-page-context", prepare_page, priority=900)
    app.connect("build-finished", finish)
