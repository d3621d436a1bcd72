"""record: a frozen dataclass with slots that does not import `dataclasses`.

`dataclasses` imports `inspect`, which alone takes longer than Python's own start. A record is made without it; what
`dataclasses` has to say of it (`fields`, `replace`, `asdict`, `is_dataclass`) works as ever, and imports the module
when it is asked. To a type checker a record is a dataclass.
"""

from typing import TYPE_CHECKING

__all__ = ["record", "replace"]

if TYPE_CHECKING:
    from dataclasses import dataclass as record
    from dataclasses import replace
else:

    def replace(item, /, **changes):
        """A record like another but for some fields; it is checked as any new one.

        >>> from vlmmem.workload import Workload
        >>> replace(Workload(8192), batch=4)
        Workload(context=8192, batch=4, images=0, image_size=None)
        """
        return type(item)(**{name: getattr(item, name) for name in item.__slots__} | changes)

    class _Fields:
        """The fields as `dataclasses` keeps them, made when somebody looks."""

        def __init__(self, defaults):
            self.defaults = defaults

        def __get__(self, _instance, owner):
            import dataclasses

            made = {}
            for name, annotation in owner.__annotations__.items():
                has_default = name in self.defaults
                field = dataclasses.field(default=self.defaults[name]) if has_default else dataclasses.field()
                field.name, field.type, field._field_type, field.kw_only = name, annotation, dataclasses._FIELD, False
                made[name] = field
            owner.__dataclass_fields__ = made
            return made

    class _Params:
        """What the decorator was told, as `dataclasses` asks it."""

        init = repr = frozen = True
        order = unsafe_hash = False

        def __init__(self, eq):
            self.eq = eq

    def _refuse(_self, name, *_):
        from dataclasses import FrozenInstanceError

        raise FrozenInstanceError(f"cannot change field {name!r}")

    def _repr(self):
        return f"{type(self).__qualname__}({', '.join(f'{name}={getattr(self, name)!r}' for name in self.__slots__)})"

    def _equal(self, other):
        if type(other) is not type(self):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    def _hash(self):
        return hash(tuple(getattr(self, name) for name in self.__slots__))

    def _getstate(self):
        return [getattr(self, name) for name in self.__slots__]

    def _setstate(self, state):
        for name, value in zip(self.__slots__, state, strict=True):
            object.__setattr__(self, name, value)

    def record(cls=None, /, *, frozen=True, slots=True, eq=True):
        """Make a class a record: its annotated names are fields, in their order; a value beside one is its default.

        `frozen` and `slots` are always true; named as a dataclass names them. Records are equal where their fields
        are, or, without `eq`, where they are one.

        Raises:
            TypeError: a field without a default stands behind one that has one, or a default can change.

        >>> @record(frozen=True, slots=True)
        ... class Point:
        ...     x: int
        ...     y: int = 0
        >>> Point(3), Point(3) == Point(3, 0)
        (Point(x=3, y=0), True)
        """
        if cls is None:
            return lambda found: record(found, frozen=frozen, slots=slots, eq=eq)
        if not (frozen and slots):
            raise TypeError("a record is frozen and has slots")
        names = tuple(cls.__annotations__)
        defaults = {name: cls.__dict__[name] for name in names if name in cls.__dict__}
        first = next(iter(defaults), None)
        for name in names[names.index(first) :] if defaults else ():
            if name not in defaults:
                raise TypeError(f"field {name!r} has no default and stands behind {first!r}, which has one")
        if any(type(value) in (list, dict, set) for value in defaults.values()):
            raise TypeError("a default that can change would be shared by all records")
        body = {name: value for name, value in cls.__dict__.items() if name not in ("__dict__", "__weakref__", *names)}
        body |= {"__slots__": names, "__match_args__": names, "__qualname__": cls.__qualname__}
        body.setdefault("__repr__", _repr)
        body |= {"__setattr__": _refuse, "__delattr__": _refuse, "__getstate__": _getstate, "__setstate__": _setstate}
        if eq:
            body.setdefault("__eq__", _equal)
            if "__hash__" not in cls.__dict__ or cls.__dict__["__hash__"] is None:
                body["__hash__"] = _hash
        body["__dataclass_fields__"], body["__dataclass_params__"] = _Fields(defaults), _Params(eq)
        made = type(cls)(cls.__name__, cls.__bases__, body)
        made.__init__ = _init(made, names, defaults)
        return made

    def _init(made, names, defaults):
        """The function that fills the slots: written out, as calls are many."""
        known = {f"_set_{name}": made.__dict__[name].__set__ for name in names}
        known |= {f"_default_{name}": value for name, value in defaults.items()}
        taken = ", ".join(f"{name}=_default_{name}" if name in defaults else name for name in names)
        lines = [f" _set_{name}(self, {name})" for name in names]
        if hasattr(made, "__post_init__"):
            lines.append(" self.__post_init__()")
        source = f"def __init__(self, {taken}):\n" + ("\n".join(lines) or " pass")
        exec(source, known)
        init = known["__init__"]
        init.__qualname__ = f"{made.__qualname__}.__init__"
        return init
