"""Mutation testing: changes each operator and constant of vlmmem/memory in turn, and wants a test to fail.

``python tools/mutants.py`` (``make mutants``) runs the room's quick tests once, noting which functions each
calls. For every mutant a forked child changes the code in memory and runs the tests that call it, the fastest
first, up to the first failure. A mutant that no test notices is run once more in a fresh process and then
reported, unless tests/mutants.toml says why no test can notice it. An explanation that no mutant needs is
reported too.

Not changed: annotations, docstrings, decorators, ``__all__``, and ``raise`` statements, whose words are for
people.
"""

import argparse
import ast
import copy
import functools
import gc
import importlib.abc
import importlib.util
import json
import os
import signal
import sys
import tempfile
import time
import tomllib
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Any, NoReturn

import pytest
from _pytest.doctest import DoctestItem

SECONDS_A_MUTANT = 60
"""A child that takes longer hangs, and a hang is noticed."""

ASKED_BY_NAME = ("vlmmem/memory/activations.py", "vlmmem/memory/vision.py")
"""Modules of many hundred changes, each of which calls for many tests: a run of them takes a quarter of an hour, and is
started with their names, ``python tools/mutants.py FILE``."""

HELD_ELSEWHERE = {"vlmmem/memory/weights.py": ("tests/test_quantization.py", "tests/test_parallelism.py")}
"""Modules whose rules other files of tests hold too, beside their own: stored formats, and what a GPU of many holds."""

NOTICED, SURVIVED, UNREACHED = "noticed", "survived", "reached by no test"

_BINARY: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Div: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
_COMPARISON: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_CALLED = {"max": "min", "min": "max", "any": "all", "all": "any"}


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change of one file."""

    file: str
    function: str
    """Qualified name, empty at module level."""
    line: int
    before: str
    after: str
    place: "_Place | None" = field(repr=False, compare=False)
    """The node that changes; None for the control, which changes nothing."""
    change: int = field(repr=False, compare=False, default=0)
    source: str = field(repr=False, compare=False, default="")

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What an explanation names: no line number, which every edit above would change."""
        return self.file, self.function, self.before, self.after

    def code(self) -> CodeType:
        """The changed module, compiled."""
        tree = ast.parse(self.source, self.file)
        if self.place is not None:
            _change(tree, self.place, self.change)
        return compile(tree, self.file, "exec")


def mutants_of(file: str, source: str) -> list[Mutant]:
    """Every mutant of a module, in the order of its lines."""
    tree = ast.parse(source, file)
    found = []
    for place in _places(tree, ()):
        for change in range(_changes(_at(tree, place))):
            changed = ast.parse(source, file)
            _change(changed, place, change)
            said = _said(tree, place), _said(changed, place)
            found.append(Mutant(file, _function(tree, place), _line(tree, place), *said, place, change, source))
    return found


def control_of(file: str, source: str) -> Mutant:
    """No change at all: where a test notices it, the tester is at fault, and nothing that it says holds."""
    return Mutant(file, "", 1, "", "", None, source=source)


# A place is the way from the module to a node: field names, and indices in fields that are lists.
_Place = tuple[str | int, ...]


def _at(tree: ast.AST, place: _Place) -> ast.AST:
    found: Any = tree
    for step in place:
        found = found[step] if isinstance(step, int) else getattr(found, step)
    assert isinstance(found, ast.AST)
    return found


_UNTOUCHED = {"annotation", "returns", "decorator_list", "type_params"}


def _places(node: ast.AST, place: _Place) -> Iterator[_Place]:
    if isinstance(node, ast.Raise | ast.Import | ast.ImportFrom) or _is_text(node) or _is_public_list(node):
        return
    if _changes(node):
        yield place
    for name, value in ast.iter_fields(node):
        if name in _UNTOUCHED:
            continue
        for index, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if isinstance(child, ast.AST):
                yield from _places(child, (*place, name) if index is None else (*place, name, index))


def _is_text(node: ast.AST) -> bool:
    """A docstring, or a string below an attribute that documents it."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _is_public_list(node: ast.AST) -> bool:
    return isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets)


def _is_bare_condition(node: ast.AST) -> bool:
    """A condition without an operator of its own that could be changed."""
    test = getattr(node, "test", None)
    plain = not isinstance(test, ast.Compare | ast.BoolOp | ast.UnaryOp)
    return isinstance(node, ast.If | ast.IfExp | ast.While) and plain


def _changes(node: ast.AST) -> int:
    """How many mutants the node itself gives, its children aside."""
    match node:
        case ast.BinOp() | ast.AugAssign():
            return int(type(node.op) in _BINARY)
        case ast.Compare():
            return len(node.ops)
        case ast.BoolOp():
            return 1
        case ast.UnaryOp():
            return int(isinstance(node.op, ast.Not | ast.USub))
        case ast.Constant():
            return int(isinstance(node.value, bool | int | float | str))
        case ast.Call():
            return int(isinstance(node.func, ast.Name) and node.func.id in _CALLED)
        case ast.If() | ast.IfExp() | ast.While():
            return int(_is_bare_condition(node))
        case _:
            return 0


def _change(tree: ast.Module, place: _Place, change: int) -> None:
    """Change the tree in place."""
    node: Any = _at(tree, place)
    replacement: ast.AST = node
    match node:
        case ast.BinOp() | ast.AugAssign():
            node.op = _BINARY[type(node.op)]()
        case ast.Compare():
            node.ops[change] = _COMPARISON[type(node.ops[change])]()
        case ast.BoolOp():
            node.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        case ast.UnaryOp():
            replacement = node.operand
        case ast.Constant(value=bool(value)):
            node.value = not value
        case ast.Constant(value=str(value)):
            node.value = value + "?"
        case ast.Constant(value=int() | float() as value):
            node.value = value + 1
        case ast.Call(func=ast.Name(id=name) as function):
            function.id = _CALLED[name]
        case _:
            node.test = ast.UnaryOp(ast.Not(), node.test)
    if replacement is not node:
        parent: Any = _at(tree, place[:-2]) if isinstance(place[-1], int) else _at(tree, place[:-1])
        if isinstance(place[-1], int):
            getattr(parent, str(place[-2]))[place[-1]] = replacement
        else:
            setattr(parent, place[-1], replacement)
    ast.fix_missing_locations(tree)


def _nodes_on(tree: ast.Module, place: _Place) -> list[tuple[_Place, ast.AST]]:
    """The nodes from the module down to the place, each with its own place."""
    return [
        (place[:end], _at(tree, place[:end]))
        for end in range(len(place) + 1)
        if end == len(place) or not isinstance(place[end], int)
    ]


def _line(tree: ast.Module, place: _Place) -> int:
    lines = [node.lineno for _, node in _nodes_on(tree, place) if hasattr(node, "lineno")]
    return int(lines[-1])


def _function(tree: ast.Module, place: _Place) -> str:
    """The qualified name as Python gives it; empty for what runs on import, as defaults do."""
    names: list[str] = []
    last = 0
    for here, node in _nodes_on(tree, place):
        in_body = len(here) < len(place) and place[len(here)] == "body"
        if isinstance(node, ast.FunctionDef) and in_body:
            names += [node.name]
            last = len(names)
            names += ["<locals>"]
        elif isinstance(node, ast.ClassDef) and in_body:
            names += [node.name]
    return ".".join(names[:last])


def _said(tree: ast.Module, place: _Place) -> str:
    """The statement around the place, on one line; of a compound statement the part before its colon."""
    statements = [(here, node) for here, node in _nodes_on(tree, place) if isinstance(node, ast.stmt)]
    _, statement = statements[-1]
    if isinstance(statement, ast.If | ast.For | ast.While | ast.With | ast.FunctionDef | ast.ClassDef | ast.Try):
        statement = copy.copy(statement)
        statement.body = [ast.Pass()]
        if hasattr(statement, "orelse"):
            statement.orelse = []
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            statement.decorator_list = []
        return ast.unparse(statement).splitlines()[0]
    return " ".join(ast.unparse(statement).split())


class Runner:
    """A pytest plugin: instead of running the collected tests once, runs them against each mutant.

    Args:
        root: the folder that files are named from.
        mutants: what to try.
        workers: children at a time.
    """

    def __init__(self, root: Path, mutants: Sequence[Mutant], workers: int) -> None:
        self.root = root
        self.mutants = mutants
        self.workers = workers
        self.files = {str(root / mutant.file): mutant.file for mutant in mutants}
        self.tests_by_function: dict[tuple[str, str], dict[int, float]] = defaultdict(dict)
        self.names: list[str] = []
        self.caches: list[Any] = []
        self.doctested: dict[int, str] = {}
        self.results: list[str] = []

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Run every test once as it stands, then the mutants."""
        if session.testsfailed:
            return True
        self.names = [item.nodeid for item in session.items]
        self.doctested = {
            number: item.dtest.globs["__name__"]
            for number, item in enumerate(session.items)
            if isinstance(item, DoctestItem)
        }
        for number, item in enumerate(session.items):
            began = time.perf_counter()
            called = self._run_traced(item, session.items[number + 1 : number + 2])
            for function in called:
                self.tests_by_function[function][number] = time.perf_counter() - began
        if not session.testsfailed:
            # The children say nothing, and find what they would otherwise search for, each anew.
            session.config.pluginmanager.unregister(name="terminalreporter")
            self.caches = [thing for thing in gc.get_objects() if isinstance(thing, functools._lru_cache_wrapper)]
            gc.freeze()
            jobs = [functools.partial(self._child, session, mutant) for mutant in self.mutants]
            self.results = _in_children(self.workers, jobs)
        return True

    def _run_traced(self, item: pytest.Item, following: list[pytest.Item]) -> set[tuple[str, str]]:
        called: set[tuple[str, str]] = set()

        def trace(frame: FrameType, event: str, _argument: object) -> None:
            file = self.files.get(frame.f_code.co_filename)
            if file is not None and event == "call":
                called.add((file, frame.f_code.co_qualname))

        sys.setprofile(trace)
        try:
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following[0] if following else None)
        finally:
            sys.setprofile(None)
        return called

    def tests_of(self, mutant: Mutant) -> list[int]:
        """The tests that can notice the mutant, the fastest first."""
        cost: dict[int, float] = {}
        for (file, function), tests in self.tests_by_function.items():
            # A generator or lambda inside a function has a longer name.
            mine = not mutant.function or f"{function}.".startswith(f"{mutant.function}.")
            if file == mutant.file and mine:
                cost |= tests
        return sorted(cost, key=lambda number: cost[number])

    def names_of(self, mutant: Mutant) -> list[str]:
        """The same tests as arguments of pytest."""
        return [self.names[number] for number in self.tests_of(mutant)]

    def _child(self, session: pytest.Session, mutant: Mutant) -> int:
        tests = self.tests_of(mutant)
        if not tests:
            return 3
        try:
            _apply(mutant, self.root)
            for cache in self.caches:
                cache.cache_clear()
        except Exception:
            # It does not even load.
            return 1
        for test in tests:
            item = session.items[test]
            if isinstance(item, DoctestItem):
                # The first run has emptied them.
                item.dtest.globs.update(vars(sys.modules[self.doctested[test]]))
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
            if session.testsfailed:
                return 1
        return 0


def _in_children(workers: int, jobs: Sequence[Any]) -> list[str]:
    """Each job in a forked child of its own; what its exit code says."""
    results = [NOTICED] * len(jobs)
    running: dict[int, int] = {}
    waiting = list(enumerate(jobs))[::-1]
    while waiting or running:
        while waiting and len(running) < workers:
            number, job = waiting.pop()
            with warnings.catch_warnings():
                # Python 3.12 warns of forks beside threads: no thread here holds a lock that a test needs.
                warnings.simplefilter("ignore", DeprecationWarning)
                child = os.fork()
            if child == 0:
                signal.alarm(SECONDS_A_MUTANT)
                silence = os.open(os.devnull, os.O_WRONLY)
                os.dup2(silence, 1)
                os.dup2(silence, 2)
                code = 1
                try:
                    code = job()
                finally:
                    os._exit(code)
            running[child] = number
        ended, status = os.wait()
        number = running.pop(ended)
        code = os.waitstatus_to_exitcode(status)
        results[number] = {0: SURVIVED, 3: UNREACHED}.get(code, NOTICED)
    return results


def _apply(mutant: Mutant, root: Path) -> None:
    """Change the loaded module, and the functions that others imported from it before."""
    path = str(root / mutant.file)
    module = next(m for m in list(sys.modules.values()) if getattr(m, "__file__", None) == path)
    old = dict(vars(module))
    exec(mutant.code(), vars(module))
    for name, was in old.items():
        now = vars(module)[name]
        if isinstance(was, FunctionType) and isinstance(now, FunctionType) and was.__module__ == module.__name__:
            was.__code__, was.__defaults__, was.__kwdefaults__ = (
                now.__code__,
                now.__defaults__,
                now.__kwdefaults__,
            )
        elif now is not was and not name.startswith("__"):
            _replace_everywhere(module, name, was, now)


def _replace_everywhere(module: ModuleType, name: str, was: object, now: object) -> None:
    for other in list(sys.modules.values()):
        if other is not module and getattr(other, "__dict__", {}).get(name) is was:
            setattr(other, name, now)


class _Changed(importlib.abc.Loader, importlib.abc.MetaPathFinder):
    """Imports the changed module in place of the real one."""

    def __init__(self, mutant: Mutant, root: Path) -> None:
        self.code = mutant.code()
        self.path = root / mutant.file
        self.name = ".".join(Path(mutant.file).with_suffix("").parts).removesuffix(".__init__")

    def find_spec(self, fullname: str, *_where: object) -> Any:
        if fullname != self.name:
            return None
        return importlib.util.spec_from_file_location(fullname, self.path, loader=self)

    def exec_module(self, module: ModuleType) -> None:
        exec(self.code, vars(module))


def _start_afresh(root: Path, mutant: Mutant, tests: Sequence[str]) -> NoReturn:
    """Become a process that never loaded the real module; it ends with 0 where the tests pass."""
    with tempfile.TemporaryFile("w+", encoding="utf-8") as task:
        json.dump([mutant.file, mutant.line, mutant.before, mutant.after, list(tests)], task)
        task.seek(0)
        os.dup2(task.fileno(), 0)
    os.execv(sys.executable, [sys.executable, __file__, "--root", str(root), "--afresh"])


def _afresh(root: Path) -> int:
    file, line, before, after, tests = json.load(sys.stdin)
    source = (root / file).read_text(encoding="utf-8")
    mutant = next(m for m in mutants_of(file, source) if (m.line, m.before, m.after) == (line, before, after))
    sys.meta_path.insert(0, _Changed(mutant, root))
    return int(pytest.main([*_OPTIONS, "-x", *tests]))


_OPTIONS = [
    "-q",
    "--no-header",
    "--tb=native",
    "--assert=plain",
    "-p",
    "no:cacheprovider",
    "-p",
    "no:xdist",
    "-p",
    "no:nbval",
]
"""One process, nothing written."""


def explanations(file: Path) -> dict[tuple[str, str, str, str], str]:
    """The survivors that are explained: [[survivor]] tables with file, function, before, after and reason."""
    entries = tomllib.loads(file.read_text(encoding="utf-8")).get("survivor", []) if file.exists() else []
    for number, entry in enumerate(entries, start=1):
        for name in ("file", "function", "before", "after", "reason"):
            if not isinstance(entry.get(name), str) or (name != "function" and not entry[name].strip()):
                raise SystemExit(f"{file}: survivor {number}: {name!r} is missing; a string is needed")
    return {(e["file"], e["function"], e["before"], e["after"]): e["reason"] for e in entries}


def _as_table(mutant: Mutant) -> str:
    names = ("file", "function", "before", "after")
    return "[[survivor]]\n" + "\n".join(
        f"{name} = {json.dumps(value)}" for name, value in zip(names, mutant.key, strict=True)
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Test the mutants of a folder; 0 where every survivor is explained and every explanation is needed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", help="modules to change, from the root (default: all of --folder)")
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parent.parent)
    parser.add_argument("--folder", default="vlmmem/memory")
    parser.add_argument("--tests", nargs="+", help="default: each module's own and the doctests")
    parser.add_argument("--marked", default="not slow and not book and not browser")
    parser.add_argument("--explained", type=Path, default=Path("tests/mutants.toml"))
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--afresh", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    root = given.root.resolve()
    os.chdir(root)
    sys.path.insert(0, str(root))
    sys.dont_write_bytecode = True
    if given.afresh:
        return _afresh(root)

    began = time.perf_counter()
    found = sorted(str(path.relative_to(root)) for path in (root / given.folder).rglob("*.py"))
    files = given.files or [file for file in found if file not in ASKED_BY_NAME]
    sources = [(file, (root / file).read_text(encoding="utf-8")) for file in files]
    controls = [control_of(file, source) for file, source in sources]
    mutants = [mutant for file, source in sources for mutant in mutants_of(file, source)]
    holding = [test for file in files for test in (f"tests/test_{Path(file).stem}.py", *HELD_ELSEWHERE.get(file, ()))]
    given.tests = given.tests or [*(test for test in holding if (root / test).exists()), given.folder]
    runner = Runner(root, [*controls, *mutants], given.workers)
    chosen = [*_OPTIONS, "-m", given.marked]
    code = pytest.main([*chosen, *given.tests], plugins=[runner])
    if code or not runner.results:
        print("mutants: the tests do not pass as they stand; 'make check' says why", file=sys.stderr)
        return 1
    for control, result in zip(controls, runner.results, strict=False):
        if result == NOTICED:
            print(
                f"{control.file}: a test notices a change that is none; it depends on what ran before", file=sys.stderr
            )
            return 1

    results = dict(zip(mutants, runner.results[len(controls) :], strict=True))
    doubtful = [mutant for mutant, result in results.items() if result == SURVIVED]
    jobs = [functools.partial(_start_afresh, root, m, runner.names_of(m)) for m in doubtful]
    results |= zip(doubtful, _in_children(given.workers, jobs), strict=True)
    survivors = [(mutant, result) for mutant, result in results.items() if result != NOTICED]
    explained = explanations(root / given.explained)
    problems = []
    for mutant, result in survivors:
        if mutant.key not in explained:
            problems.append(
                f"{mutant.file}:{mutant.line}: a change is {result}; "
                f"let a test notice it, or let {given.explained} say why none can:\n{_as_table(mutant)}"
            )
    if not given.files:
        needed = {key for key in explained if key[0] not in ASKED_BY_NAME}
        for file, function, before, after in needed - {mutant.key for mutant, _ in survivors}:
            problems.append(
                f"{given.explained}: {file}: {function}: {before} -> {after}: no such change survives; take it out"
            )
    print("\n", *problems, sep="\n")
    print(
        f"\nmutants: {len(mutants)} in {len(files)} files, {len(mutants) - len(survivors)} noticed, "
        f"{len(survivors)} survive, {len(problems)} problems; {time.perf_counter() - began:.0f} s"
    )
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
