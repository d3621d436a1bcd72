"""The notebooks of a build, executed side by side and afresh.

myst-nb executes one after the other. Here they run on all cores into a cache that is made empty for this build and
removed after it, and myst-nb takes the outputs from there. A cache that outlives a build would publish old numbers: its
key is the cells, not the package that they call. What fails here, myst-nb executes again and reports.
"""

import logging
import os
from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any

from vlmmem.charts import UNDRAWN

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment


def execute_side_by_side(app: "Sphinx", environment: "BuildEnvironment", docnames: list[str]) -> None:
    """Execute the notebooks among the pages that are to be read, where the configuration says "force"."""
    from shutil import rmtree

    from jupyter_cache import get_cache
    from jupyter_cache.executors import load_executor
    from myst_nb.core.read import is_myst_markdown_notebook

    env: Any = environment  # where myst-nb keeps its settings
    config = env.mystnb_config
    paths = [Path(env.doc2path(name)) for name in docnames]
    notebooks = [path for path in paths if path.suffix == ".md" and is_myst_markdown_notebook(path.read_text("utf-8"))]
    if config.execution_mode != "force" or len(notebooks) < 2:
        return
    folder = mkdtemp(prefix="vlmmem-outputs-")
    app.connect("build-finished", lambda *_: rmtree(folder, ignore_errors=True))
    cache = get_cache(folder)
    for path in notebooks:
        cache.add_nb_to_project(str(path), read_data={"name": "myst_nb_md", "type": "plugin"})
    executor = load_executor("local-parallel", cache, logging.getLogger(__name__))
    os.environ[UNDRAWN] = "1"
    try:
        executor.run_and_cache(timeout=config.execution_timeout)
    finally:
        del os.environ[UNDRAWN]
    env.mystnb_config = replace(config, execution_mode="cache", execution_cache_path=folder)


def setup(app: "Sphinx") -> None:
    """Execute before the pages are read."""
    app.connect("env-before-read-docs", execute_side_by_side)
