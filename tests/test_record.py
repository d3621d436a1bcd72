"""record: what a frozen dataclass with slots does, without importing dataclasses."""

import copy
import dataclasses
import pickle
import subprocess
import sys

import pytest

from vlmmem.layers import Tensor
from vlmmem.record import record


@record(frozen=True, slots=True)
class Point:
    """A record with a default, a check and a property."""

    x: int
    y: int = 0

    def __post_init__(self) -> None:
        if self.x < 0:
            raise ValueError("x is negative")

    @property
    def both(self) -> int:
        return self.x + self.y


@record(frozen=True, slots=True, eq=False)
class Alone:
    x: int = 1


def test_it_is_a_dataclass_to_whoever_asks() -> None:
    point = Point(1, y=2)
    assert dataclasses.is_dataclass(Point)
    assert [field.name for field in dataclasses.fields(point)] == ["x", "y"]
    assert [field.default for field in dataclasses.fields(Point)] == [dataclasses.MISSING, 0]
    assert dataclasses.asdict(point) == {"x": 1, "y": 2}
    assert dataclasses.replace(point, y=5) == Point(1, 5)
    assert (point.both, repr(point)) == (3, "Point(x=1, y=2)")


def test_it_cannot_be_changed() -> None:
    point = Point(1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        point.x = 2  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        del point.x
    with pytest.raises(dataclasses.FrozenInstanceError):
        point.z = 2  # type: ignore[attr-defined]
    assert not hasattr(point, "__dict__")


def test_what_is_equal() -> None:
    assert Point(1) == Point(1, 0)
    assert Point(1) != Point(2)
    assert Point(1).__eq__(1) is NotImplemented
    assert hash(Point(1)) == hash(Point(1, 0))
    alone = Alone()
    assert alone == alone
    assert alone != Alone()


def test_its_arguments_are_checked() -> None:
    for arguments in ((), (1, 2, 3)):
        with pytest.raises(TypeError):
            Point(*arguments)
    with pytest.raises(ValueError, match="negative"):
        Point(-1)


def test_it_is_copied_and_kept() -> None:
    point = Tensor("a", (1, 2))
    assert copy.deepcopy(point) == pickle.loads(pickle.dumps(point)) == point


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"__annotations__": {"a": int, "b": int}, "a": 1}, "field 'b' has no default and stands behind 'a'"),
        ({"__annotations__": {"a": list}, "a": []}, "a default that can change"),
    ],
)
def test_what_is_no_record(body: dict[str, object], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        record(type("Wrong", (), body))


def test_neither_frozen_nor_slots_can_be_left_out() -> None:
    with pytest.raises(TypeError, match="frozen and has slots"):
        record(frozen=False, slots=True)(type("Wrong", (), {}))


def test_the_light_core_does_not_import_dataclasses() -> None:
    code = "import sys, vlmmem.layers; print('dataclasses' in sys.modules or 'inspect' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
