"""The mutation tester: a weak test, a missing test and a stale explanation turn it red."""

import subprocess
import sys
from pathlib import Path

import pytest

from tools import mutants

MODULE = '''\
"""A room of its own."""

__all__ = ["padded"]

BLOCK = 16


def padded(tokens: int, spare: int = 0) -> int:
    """Tokens in whole blocks."""
    if tokens < 0:
        raise ValueError(f"tokens: {tokens - 1 + 1} was given")
    return -(-(tokens + spare) // BLOCK) * BLOCK
'''
STRONG = """\
import pytest
from toy.room import padded

def test_padded():
    assert [padded(0), padded(1), padded(16), padded(17), padded(17, 20)] == [0, 16, 16, 32, 48]
    with pytest.raises(ValueError):
        padded(-1)
"""
WEAK = """\
from toy.room import padded

def test_padded():
    assert padded(16) == 16
"""
ABSENT = "def test_nothing():\n    pass\n"
ONCE = """\
from toy.room import padded

RUNS = []

def test_padded():
    RUNS.append(padded(1))
    assert RUNS == [16]
"""
FAILING = "def test_nothing():\n    assert 0\n"


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """A folder with one module and its strong test."""
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "__init__.py").write_text("", encoding="utf-8")
    (tmp_path / "toy" / "room.py").write_text(MODULE, encoding="utf-8")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_room.py").write_text(STRONG, encoding="utf-8")
    return tmp_path


def run(folder: Path, *more: str) -> tuple[int, str]:
    """The exit code and the output of the tester on the toy."""
    command = [sys.executable, mutants.__file__, "--root", str(folder), "--folder", "toy", "--tests", "tests"]
    done = subprocess.run([*command, *more], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_what_is_changed() -> None:
    changed = {(m.function, m.after) for m in mutants.mutants_of("toy/room.py", MODULE)}
    assert changed == {
        ("", "BLOCK = 17"),
        ("", "def padded(tokens: int, spare: int=1) -> int:"),
        ("padded", "if tokens <= 0:"),
        ("padded", "if tokens < 1:"),
        ("padded", "return -(-(tokens + spare) // BLOCK) // BLOCK"),
        ("padded", "return -(-(tokens + spare) * BLOCK) * BLOCK"),
        ("padded", "return -(-(tokens - spare) // BLOCK) * BLOCK"),
        ("padded", "return -((tokens + spare) // BLOCK) * BLOCK"),
        ("padded", "return -(tokens + spare) // BLOCK * BLOCK"),
    }


@pytest.mark.parametrize(
    ("source", "after"),
    [
        ("a = b ** 2", ["a = b * 2", "a = b ** 3"]),
        ("a = b % c", ["a = b // c"]),
        ("a += 1", ["a -= 1", "a += 2"]),
        ("a = not b", ["a = b"]),
        ("a = b and c", ["a = b or c"]),
        ("a = b if c else d", ["a = b if not c else d"]),
        ("a = b < c <= d", ["a = b <= c <= d", "a = b < c < d"]),
        ("a = max(b, c)", ["a = min(b, c)"]),
        ("a = 'bf16'", ["a = 'bf16?'"]),
        ("a = True", ["a = False"]),
        ("a: int | str = b", []),
        ("@dataclass(frozen=True)\nclass A:\n    '''Text.'''", []),
    ],
)
def test_each_operator(source: str, after: list[str]) -> None:
    assert [mutant.after for mutant in mutants.mutants_of("x.py", source)] == after


@pytest.mark.slow
def test_strong_tests_notice_all(toy: Path) -> None:
    code, output = run(toy)
    assert code == 0, output


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tests", "said"),
    [
        (WEAK, "toy/room.py:10: a change is survived"),
        (ABSENT, "reached by no test"),
        (FAILING, "do not pass as they stand"),
        (ONCE, "a test notices a change that is none"),
    ],
)
def test_weak_tests_are_named(toy: Path, tests: str, said: str) -> None:
    (toy / "tests" / "test_room.py").write_text(tests, encoding="utf-8")
    code, output = run(toy)
    assert code == 1
    assert said in output


@pytest.mark.slow
def test_doctests_are_tests(toy: Path) -> None:
    (toy / "tests" / "test_room.py").write_text(ABSENT, encoding="utf-8")
    (toy / "pytest.ini").write_text("[pytest]\naddopts = --doctest-modules\npythonpath = .\n", encoding="utf-8")
    strong = ">>> [padded(0), padded(1), padded(16), padded(17), padded(17, 20)]\n    [0, 16, 16, 32, 48]\n"
    weak = ">>> padded(16)\n    16\n"
    for examples, right in ((strong, 0), (weak, 1)):
        module = MODULE.replace("blocks.", f"blocks.\n\n    {examples}    ").replace("tokens < 0:", "False:")
        (toy / "toy" / "room.py").write_text(module, encoding="utf-8")
        code, output = run(toy, "--tests", "toy")
        assert code == right, output


@pytest.mark.slow
def test_explanations(toy: Path) -> None:
    module = toy / "toy" / "room.py"
    # Whether at least 2 or at least 3: a block is 16.
    module.write_text(MODULE.replace("BLOCK = 16", "BLOCK = max(16, 2)"), encoding="utf-8")
    code, output = run(toy)
    assert code == 1
    table = output[output.index("[[survivor]]") : output.index("\n\nmutants:")]
    explained = toy / "tests" / "mutants.toml"
    explained.write_text(f'{table}\nreason = "16 is more than either"\n', encoding="utf-8")
    code, output = run(toy)
    assert code == 0, output
    module.write_text(MODULE, encoding="utf-8")
    code, output = run(toy)
    assert code == 1
    assert "no such change survives; take it out" in output
    explained.write_text(f"{table}\n", encoding="utf-8")
    code, output = run(toy)
    assert code == 1
    assert "'reason' is missing" in output
