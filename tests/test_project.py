"""The project stands up on a fresh machine: lock, versions, citation, workflow, commands, a light core."""

import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable, Iterable, Sequence
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import vlmmem

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LOCK = (ROOT / "requirements.txt").read_text(encoding="utf-8")
SUPPORTED = [
    found[1] for c in PROJECT["project"]["classifiers"] if (found := re.search(r"Python :: (3\.\d+)$", c)) is not None
]


def tracked() -> list[Path]:
    """The files of the project, without what make made."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [path for line in listed.stdout.splitlines() if (path := ROOT / line).is_file()]


# --- The lock ---------------------------------------------------------------------------------------------------


def entries(lock: str) -> list[tuple[Requirement, int]]:
    """The requirements of a lock, each with the number of its hashes."""
    joined = lock.replace("\\\n", " ")
    found = []
    for line in joined.splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            requirement, *hashes = re.split(r"\s+--hash=", line.strip())
            found.append((Requirement(requirement), len(hashes)))
    return found


def on(python: str) -> dict[str, str]:
    """The markers of a Linux machine with that Python."""
    return {
        "python_version": python,
        "python_full_version": f"{python}.9",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "platform_system": "Linux",
        "sys_platform": "linux",
        "os_name": "posix",
        "platform_machine": "x86_64",
        "extra": "",
    }


def lock_problems(lock: str, wanted: Iterable[str]) -> list[str]:
    """What keeps ``pip install --require-hashes -r`` from installing what is wanted on every supported Python."""
    problems = [
        f"{number}: {line.strip()}; a lock holds for every machine"
        for number, line in enumerate(lock.splitlines(), start=1)
        if re.search(r"index-url|find-links|file:|https?:|^-|(^|\s)/\w|(^|\s)(torch|nvidia\S*)==", line)
    ]
    locked = entries(lock)
    problems += [f"{requirement}: no hash" for requirement, hashes in locked if not hashes]
    for python in SUPPORTED:
        here: dict[str, str] = {}
        for requirement, _ in locked:
            if requirement.marker is not None and not requirement.marker.evaluate(on(python)):
                continue
            name = canonicalize_name(requirement.name)
            pin = re.fullmatch(r"==([^*]+)", str(requirement.specifier))
            if pin is None:
                problems.append(f"{requirement}: not one version")
            elif name in here:
                problems.append(f"{name}: two versions on Python {python}")
            else:
                here[name] = pin[1]
        for want in map(Requirement, wanted):
            name = canonicalize_name(want.name)
            if want.marker is not None and not want.marker.evaluate(on(python)):
                continue
            if name not in here:
                problems.append(f"{want.name}: not locked for Python {python}; 'make lock' writes it")
            elif not want.specifier.contains(here[name], prereleases=True):
                problems.append(f"{want}: {here[name]} is locked for Python {python}; 'make lock' writes the right one")
    return problems


def groups() -> list[str]:
    """What pyproject.toml asks for."""
    return [requirement for group in PROJECT["dependency-groups"].values() for requirement in group]


def needed_by_installed(lock: str) -> list[str]:
    """What the installed distributions of the lock need on this Python, extras aside."""
    needs = []
    for requirement, _ in entries(lock):
        if requirement.marker is None or requirement.marker.evaluate():
            for need in map(Requirement, metadata.requires(requirement.name) or []):
                if need.marker is None or need.marker.evaluate({"extra": ""}):
                    need.marker = None
                    needs.append(str(need))
    return needs


def test_the_lock_is_complete() -> None:
    assert SUPPORTED == ["3.11", "3.12", "3.13"]
    assert lock_problems(LOCK, groups()) == []


def test_what_is_installed_is_what_is_locked() -> None:
    different = [
        f"{requirement}: {metadata.version(requirement.name)} is installed; 'make install' brings the locked one"
        for requirement, _ in entries(LOCK)
        if requirement.marker is None or requirement.marker.evaluate()
        if not requirement.specifier.contains(metadata.version(requirement.name), prereleases=True)
    ]
    assert different == []
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert [
        line for line in lock_problems(LOCK, needed_by_installed(LOCK)) if line.split("Python ")[-1][:4] == here
    ] == []


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (r"\nruff==[^#]*", "\n", "ruff: not locked"),
        (r"(\npytest==)[\d.]+", r"\g<1>8.0.0", "pytest==9.2.0: 8.0.0 is locked"),
        (r"(\nruff==[\d.]+) \\(\n +--hash=\S+( \\)?)+", r"\g<1>", "no hash"),
        (r"(\nnumpy==[\d.]+) ; python_full_version >= '3.12'", r"\g<1>", "numpy: two versions on Python 3.11"),
        (r"(\nnumpy==[\d.]+) ; python_full_version < '3.12'", r"\g<1> ; python_version < '3'", "numpy: not locked"),
        (r"^", "--index-url https://example.org/simple\n", "a lock holds for every machine"),
        (r"^", "ruff @ file:///tmp/ruff.whl\n", "a lock holds for every machine"),
        (r"^", "torch==2.13.0 --hash=sha256:0\n", "a lock holds for every machine"),
        (r"\nruff==[\d.]+", "\nruff>=0.1", "ruff>=0.1: not one version"),
    ],
)
def test_a_faulty_lock_is_noticed(old: str, new: str, said: str) -> None:
    faulty, count = re.subn(old, new, LOCK, count=1)
    assert count == 1
    # An address is refused before pip's grammar is asked.
    try:
        problems = lock_problems(faulty, groups())
    except ValueError as error:
        problems = [f"{error}; a lock holds for every machine"]
    assert any(said in problem for problem in problems), problems


# --- Each version in one place ----------------------------------------------------------------------------------

ELSEWHERE = {
    "pyproject.toml": "the pins, with their reasons",
    "requirements.txt": "made from it",
    "tools/oracle-requirements.txt": "an environment of its own",
    "tests/test_project.py": "planted faults",
}


def version_problems(texts: Iterable[tuple[str, str]]) -> list[str]:
    """Places that name a version of a locked tool, beside the one place."""
    names = {canonicalize_name(requirement.name) for requirement, _ in entries(LOCK)}
    stated = re.compile(r"(?<![\w.-])([\w.-]+)(?:\[[^]\n]*\])?[ \t]*[=~]=[ \t]*\d[\w.]*|^\s*rev:\s*\S+", re.MULTILINE)
    return [
        f"{name}:{text.count(chr(10), 0, found.start()) + 1}: {found[0].strip()}; pyproject.toml says it"
        for name, text in texts
        if name not in ELSEWHERE
        for found in stated.finditer(text)
        if found[1] is None or canonicalize_name(found[1]) in names
    ]


def test_versions_stand_in_one_place() -> None:
    texts = [
        (str(path.relative_to(ROOT)), path.read_text(encoding="utf-8"))
        for path in tracked()
        if path.suffix in {".md", ".yml", ".yaml", ".toml", ".txt", ".py", ".sh", ".cff", ""}
    ]
    assert {"Makefile", ".ci/run", ".github/workflows/checks.yml", ".pre-commit-config.yaml"} <= {n for n, _ in texts}
    assert version_problems(texts) == []


@pytest.mark.parametrize("text", ["run: pip install ruff==0.1", "  rev: v1.0", "uv pip install 'jupyter-book == 1.0'"])
def test_a_second_version_is_noticed(text: str) -> None:
    assert version_problems([("Makefile", f"all:\n{text}\n")]) == [
        f"Makefile:2: {found}; pyproject.toml says it"
        for found in [re.sub(r"^.*?(ruff|rev|jupyter)|'$", r"\1", text.strip())]
    ]


# --- CITATION.cff and the workflow, against the schemas that check-jsonschema carries ---------------------------


def schema(name: str) -> Any:
    """A schema that check-jsonschema vendors: citation-file-format (1.2.0) or github-workflows."""
    file = resources.files("check_jsonschema") / "builtin_schemas" / "vendor" / f"{name}.json"
    return json.loads(file.read_text(encoding="utf-8"))


def schema_problems(name: str, content: Any) -> list[str]:
    """One line for each place that the schema does not allow."""
    rules = schema(name)
    checker = jsonschema.validators.validator_for(rules)(rules, format_checker=jsonschema.FormatChecker())
    return [f"{error.json_path}: {error.message}" for error in checker.iter_errors(content)]


def citation_problems(citation: Any) -> list[str]:
    """Where CITATION.cff breaks its schema or differs from the package."""
    problems = schema_problems("citation-file-format", citation)
    for key, right in {
        "version": vlmmem.__version__,
        "license": PROJECT["project"]["license"],
        "title": yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["title"],
    }.items():
        if citation.get(key) != right:
            problems.append(f"CITATION.cff: {key} is {citation.get(key)!r}; {right!r} would be right")
    return problems


CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
WORKFLOW = ROOT / ".github" / "workflows" / "checks.yml"


def test_citation() -> None:
    assert schema("citation-file-format")["$id"] == "https://citation-file-format.github.io/1.2.0/schema.json"
    assert citation_problems(CITATION) == []
    assert "MIT License" in (ROOT / "LICENSE").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "fault",
    [
        {"authors": []},
        {"cff-version": "1.1.0"},
        {"license": "MTI"},
        {"date-released": "20 November"},
        {"version": "9.9.9"},
        {"title": "Another"},
        {"colour": "red"},
    ],
    ids=lambda fault: next(iter(fault)),
)
def test_a_faulty_citation_is_noticed(fault: dict[str, Any]) -> None:
    assert citation_problems(CITATION | fault) != []


@pytest.mark.parametrize("missing", ["authors", "title", "message", "cff-version"])
def test_an_incomplete_citation_is_noticed(missing: str) -> None:
    assert citation_problems({key: value for key, value in CITATION.items() if key != missing}) != []


def workflow_problems(text: str) -> list[str]:
    """Where a workflow breaks its schema, floats an action, has commands of its own, or misses a Python."""
    # GitHub's YAML has no boolean `on`.
    workflow = yaml.load(re.sub(r"^on:", '"on":', text, flags=re.MULTILINE), yaml.SafeLoader)
    problems = schema_problems("github-workflows", workflow)
    pythons = set()
    for name, job in workflow["jobs"].items():
        pythons |= set(job.get("strategy", {}).get("matrix", {}).get("python", []))
        for step in job["steps"]:
            if "uses" in step and not re.search(r"@(v\d+\.\d+\.\d+|[0-9a-f]{40})$", step["uses"]):
                problems.append(f"{name}: {step['uses']}: not one version")
            if "run" in step and not re.fullmatch(r"make [a-z]+|\.ci/run", step["run"]):
                problems.append(f"{name}: {step['run']}: not a command of the project")
    if pythons != set(SUPPORTED):
        problems.append(f"Python {sorted(pythons)} are tested; {SUPPORTED} are supported")
    return problems


def test_workflow() -> None:
    assert workflow_problems(WORKFLOW.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("actions/checkout@v4.2.2", "actions/checkout@main"),
        ("run: make test", "run: pip install . && pytest"),
        ('"3.12", ', ""),
        ("runs-on", "run-on"),
    ],
)
def test_a_faulty_workflow_is_noticed(old: str, new: str) -> None:
    text = WORKFLOW.read_text(encoding="utf-8")
    assert old in text
    assert workflow_problems(text.replace(old, new)) != []


# --- Commands ---------------------------------------------------------------------------------------------------

COMMANDS = ["book", "test", "check", "mutants", "oracle", "fix", "accept", "lab", "help", "lock"]


def make(*arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run make, without what an outer make says to its children."""
    clean = {name: value for name, value in os.environ.items() if name not in {"MAKEFLAGS", "MAKELEVEL", "MFLAGS"}}
    return subprocess.run(
        ["make", "--no-print-directory", *arguments], cwd=folder, capture_output=True, text=True, check=False, env=clean
    )


def commands_missing(makefile: str, folder: Path) -> list[str]:
    """Commands that ``make help`` does not list, or that .ci/run names and make does not know."""
    (folder / "Makefile").write_text(makefile, encoding="utf-8")
    listed = {line.split()[1] for line in make("help", folder=folder).stdout.splitlines()}
    called = set(re.findall(r"^step make (\w+)", (ROOT / ".ci" / "run").read_text(encoding="utf-8"), re.MULTILINE))
    assert called >= {"test", "mutants", "oracle"}
    return sorted(({*COMMANDS} | called) - listed)


def test_help_lists_the_commands(tmp_path: Path) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert commands_missing(makefile, tmp_path) == []
    assert commands_missing(re.sub(r"^lab:(.*)##.*", r"lab:\1", makefile, flags=re.MULTILINE), tmp_path) == ["lab"]


def test_hook_is_the_quick_gate() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert [(repo["repo"], [hook["entry"] for hook in repo["hooks"]]) for repo in hooks] == [("local", ["make check"])]


def fake_python(folder: Path, name: str, version: str) -> Path:
    """A program that says it is that Python."""
    path = folder / name
    path.write_text(f'#!/bin/sh\ncase "$2" in *version_info*) echo {version};; *) exit 1;; esac\n', encoding="utf-8")
    path.chmod(0o755)
    return path


def chosen_python(folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """What tools/python.sh answers where only that folder has Pythons."""
    for tool in ("sh", "sed", "dirname"):
        target = shutil.which(tool)
        assert target is not None
        if not (folder / tool).exists():
            (folder / tool).symlink_to(target)
    return subprocess.run(
        [ROOT / "tools" / "python.sh"],
        env={"PATH": str(folder), **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_first_supported_python_is_chosen(tmp_path: Path) -> None:
    fake_python(tmp_path, "python3", "3.9")
    fake_python(tmp_path, "python3.11", "3.11")
    assert chosen_python(tmp_path).stdout.strip() == str(tmp_path / "python3.11")
    fake_python(tmp_path, "python3.13", "3.13")
    assert chosen_python(tmp_path).stdout.strip() == str(tmp_path / "python3.13")
    fake_python(tmp_path, "python3", "3.12")
    assert chosen_python(tmp_path).stdout.strip() == str(tmp_path / "python3")


@pytest.mark.parametrize("version", ["2.7", "3.10", "3.15", "4.0"])
def test_any_other_python_gets_one_line(tmp_path: Path, version: str) -> None:
    path = fake_python(tmp_path, "python3", version)
    for variables in ({}, {"PYTHON": str(path)}):
        answer = chosen_python(tmp_path, **variables)
        assert answer.returncode == 2
        assert answer.stdout == ""
        assert re.fullmatch(
            rf"vlmmem: needs Python 3\.11 to 3\.14; \S*python3 is {re.escape(version)}; name another with: .*\n",
            answer.stderr,
        )


def test_no_python_at_all_gets_one_line(tmp_path: Path) -> None:
    answer = chosen_python(tmp_path)
    assert (answer.returncode, answer.stderr.count("\n")) == (2, 1)
    assert "none of python3 python3.14" in answer.stderr


def test_no_chromium_gets_one_line() -> None:
    answer = subprocess.run(
        [ROOT / "tools" / "chromium.sh"],
        env={"PATH": os.environ["PATH"], "CHROMIUM": "/no/such/browser"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (answer.returncode, answer.stdout) == (2, "")
    assert answer.stderr == ("vlmmem: CHROMIUM=/no/such/browser is no program; name one that is, or leave it unset\n")


# --- The core needs the standard library only -------------------------------------------------------------------

OUTER = ("charts", "notebook", "sphinx")
"""Rooms that only the book enters; all others are the core."""

IMPORT_ALL = """
import importlib, pkgutil, sys
sys.path.insert(0, sys.argv[1])
import vlmmem
outer = tuple("vlmmem." + room for room in sys.argv[2].split(","))
names = [m.name for m in pkgutil.walk_packages(vlmmem.__path__, "vlmmem.") if not m.name.startswith(outer)]
for name in names:
    if not name.endswith("__main__"):
        importlib.import_module(name)
for name in vlmmem.__all__:
    getattr(vlmmem, name)
from vlmmem.cli import main
for line in ("figures --json", "figure footprint:13b-total", "cite footprint:13b-total", "explain 99.0GB", "coverage"):
    if main(line.split()):
        sys.exit(f"vlmmem {line}")
"""


def core_problem(folder: Path) -> str:
    """The last line of an error where the core in a folder needs more than the standard library; else nothing.

    -S leaves site-packages off the path, so that nothing else can be imported.
    """
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", IMPORT_ALL, str(folder), ",".join(OUTER)],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stderr.strip().splitlines()[-1] if done.returncode else ""


@pytest.mark.slow
def test_the_core_needs_the_standard_library_only() -> None:
    assert PROJECT["project"]["dependencies"] == []
    assert core_problem(ROOT) == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("room", "planted"),
    [
        ("units.py", "import numpy\n"),
        ("cli/__init__.py", "import yaml\n"),
        (
            "memory/weights.py",
            "def __getattr__(name: str) -> object:\n    import pandas\n    return pandas\nimport packaging\n",
        ),
    ],
)
def test_a_heavy_core_is_noticed(tmp_path: Path, room: str, planted: str) -> None:
    shutil.copytree(ROOT / "vlmmem", tmp_path / "vlmmem", ignore=shutil.ignore_patterns("__pycache__"))
    path = tmp_path / "vlmmem" / room
    text = path.read_text(encoding="utf-8")
    path.write_text(text + "\n" + planted, encoding="utf-8")
    assert core_problem(tmp_path).startswith("ModuleNotFoundError: No module named ")


# --- Speed, side by side with bare Python -----------------------------------------------------------------------


def seconds(program: Sequence[str]) -> float:
    """Processor time of one run, which another program on the machine disturbs less than the time on the wall."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COV_"))}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *program], env=clean, cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def cost(program: Sequence[str], runs: int = 11) -> float:
    """Time of a program as a multiple of bare Python's start: the median of interleaved runs, after one to warm up."""
    seconds(program)
    pairs = [(seconds(program), seconds(["-c", "pass"])) for _ in range(runs)]
    return statistics.median(one for one, _ in pairs) / statistics.median(bare for _, bare in pairs)


def promise(measure: Callable[[], float], limit: float) -> float:
    """The cost, measured again where a busy machine may be to blame."""
    return min(value for _ in range(3) if (value := measure()) < limit or _ == 2)


FIGURE = "import sys; from vlmmem.cli import main; sys.exit(main(['figure', 'footprint:13b-total']))"


@pytest.mark.slow
def test_import_costs_less_than_half_of_bare_python() -> None:
    assert promise(lambda: cost(["-c", "import vlmmem"]) - 1, 0.5) < 0.5


@pytest.mark.slow
def test_a_figure_answers_within_four_times_bare_python() -> None:
    assert promise(lambda: cost(["-c", FIGURE]), 4) < 4


@pytest.mark.slow
def test_slowness_is_noticed() -> None:
    assert cost(["-c", "import vlmmem, asyncio"], runs=5) - 1 > 0.5
    assert cost(["-c", f"import altair; {FIGURE}"], runs=3) > 4


# --- The package ------------------------------------------------------------------------------------------------


def files_missing(names: Iterable[str], wanted: Iterable[Path]) -> list[str]:
    """Files of the package that a wheel lacks."""
    return sorted({str(path.relative_to(ROOT)) for path in wanted} - set(names))


@pytest.mark.slow
def test_the_wheel_stands_alone(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path], cwd=ROOT, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        info = next(name for name in names if name.endswith("/METADATA"))
        said = archive.read(info).decode()
        scripts = archive.read(info.replace("METADATA", "entry_points.txt")).decode()
    wanted = [path for path in tracked() if path.is_relative_to(ROOT / "vlmmem")]
    assert files_missing(names, wanted) == []
    assert files_missing([name for name in names if not name.endswith("llama.json")], wanted) != []
    # what it requires belongs to an extra
    assert all("; extra ==" in line for line in said.splitlines() if line.startswith("Requires-Dist"))
    assert f"Version: {vlmmem.__version__}\n" in said
    assert "vlmmem = vlmmem.cli:main" in scripts
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    assert core_problem(tmp_path / "installed") == ""


# --- The picture of the house -----------------------------------------------------------------------------------


def picture_problems(text: str) -> list[str]:
    """Where the picture in CONTRIBUTING.md and the folders differ."""
    picture = re.search(r"^```\n(book/.*?)^```", text, re.MULTILINE | re.DOTALL)
    if picture is None:
        return ["CONTRIBUTING.md: no picture of the house"]
    folder = ""
    drawn = set()
    for line in picture[1].splitlines():
        name = line.split()[0]
        folder = folder if line.startswith("  ") else name
        drawn.add(name if name == folder else folder + name)
    own = [path for path in tracked() if path.is_relative_to(ROOT / "vlmmem") and path.suffix in {".py", ".json"}]
    rooms = set()
    for path in own:
        parts = path.relative_to(ROOT).parts
        rooms.add("vlmmem/" + (parts[1] if len(parts) == 2 else f"{parts[1]}/"))
    return [f"CONTRIBUTING.md: {name} is not in the picture" for name in sorted(rooms - drawn)] + [
        f"CONTRIBUTING.md: {name} is in the picture and nowhere else"
        for name in sorted(drawn)
        if not (ROOT / name).exists()
    ]


def test_the_picture_is_true() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert picture_problems(text) == []
    assert picture_problems(text.replace("  units.py ", "  unit.py ")) == [
        "CONTRIBUTING.md: vlmmem/units.py is not in the picture",
        "CONTRIBUTING.md: vlmmem/unit.py is in the picture and nowhere else",
    ]
