"""What modules need of typing while they run, made in half the time: types are the type checker's matter.

typing takes 2 ms to load, a tenth of `ps`. Its NamedTuple compiles each annotation and each class anew, which for the
seventy classes of an `up` takes longer than to plan it. Names that only annotations use are bare classes here.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any as Any
    from typing import BinaryIO as BinaryIO
    from typing import NamedTuple as NamedTuple
    from typing import NoReturn as NoReturn
    from typing import Protocol as Protocol
    from typing import TextIO as TextIO
    from typing import TypeVar as TypeVar
else:
    from _collections import _tuplegetter  # what collections.namedtuple makes its fields of

    _Function = type(lambda: None)
    Any = BinaryIO = NoReturn = TextIO = Protocol = object

    def TypeVar(name, *_constraints, **_more):
        return object

    _new = tuple.__new__

    class _Tuple(tuple):
        """What all tuple classes share (the methods of collections.namedtuple)."""

        __slots__ = ()

        @classmethod
        def _make(cls, iterable):
            made = tuple.__new__(cls, iterable)
            if len(made) != len(cls._fields):
                raise TypeError(f"Expected {len(cls._fields)} arguments, got {len(made)}")
            return made

        def _replace(self, /, **changed):
            made = tuple.__new__(type(self), map(changed.pop, self._fields, self))
            if changed:
                raise ValueError(f"Got unexpected field names: {list(changed)!r}")
            return made

        def _asdict(self):
            return dict(zip(self._fields, self, strict=True))

        def __repr__(self):
            shown = ", ".join(f"{field}={value!r}" for field, value in zip(self._fields, self, strict=True))
            return f"{type(self).__name__}({shown})"

        def __getnewargs__(self):
            return tuple(self)

    _literal = (  # by number of fields: eval takes a third of a millisecond for each
        lambda _cls: _new(_cls, ()),
        lambda _cls, a: _new(_cls, (a,)),
        lambda _cls, a, b: _new(_cls, (a, b)),
        lambda _cls, a, b, c: _new(_cls, (a, b, c)),
        lambda _cls, a, b, c, d: _new(_cls, (a, b, c, d)),
        lambda _cls, a, b, c, d, e: _new(_cls, (a, b, c, d, e)),
        lambda _cls, a, b, c, d, e, f: _new(_cls, (a, b, c, d, e, f)),
        lambda _cls, a, b, c, d, e, f, g: _new(_cls, (a, b, c, d, e, f, g)),
        lambda _cls, a, b, c, d, e, f, g, h: _new(_cls, (a, b, c, d, e, f, g, h)),
        lambda _cls, a, b, c, d, e, f, g, h, i: _new(_cls, (a, b, c, d, e, f, g, h, i)),
        lambda _cls, a, b, c, d, e, f, g, h, i, j: _new(_cls, (a, b, c, d, e, f, g, h, i, j)),
        lambda _cls, a, b, c, d, e, f, g, h, i, j, k: _new(_cls, (a, b, c, d, e, f, g, h, i, j, k)),
        lambda _cls, a, b, c, d, e, f, g, h, i, j, k, l: _new(_cls, (a, b, c, d, e, f, g, h, i, j, k, l)),
        lambda _cls, a, b, c, d, e, f, g, h, i, j, k, l, m: _new(_cls, (a, b, c, d, e, f, g, h, i, j, k, l, m)),
    )
    _makers = {count: made.__code__ for count, made in enumerate(_literal)}  # the code of a __new__ with so many fields

    def _code(count):
        if count not in _makers:
            names = "".join(f"_{n}, " for n in range(count))
            _makers[count] = eval(f"lambda _cls, {names}: _new(_cls, ({names}))").__code__
        return _makers[count]

    class _Maker(type):
        """`class X(NamedTuple):` with fields, defaults and methods → a tuple class (typing.NamedTuple)."""

        def __new__(cls, name, _bases, space):
            fields = tuple(space.setdefault("__annotations__", {}))
            defaults = tuple(space[field] for field in fields if field in space)
            code = _code(len(fields)).replace(co_varnames=("_cls", *fields))
            for index, field in enumerate(fields):
                space[field] = _tuplegetter(index, "")
            space["__new__"] = _Function(code, _space, "__new__", defaults)
            space["__match_args__"] = space["_fields"] = fields
            space["_field_defaults"] = dict(zip(fields[len(fields) - len(defaults) :], defaults, strict=True))
            space["__slots__"] = ()
            return type(name, (_Tuple,), space)

    _space = {"_new": _new, "__builtins__": {}, "__name__": __name__}
    NamedTuple = type.__new__(_Maker, "NamedTuple", (), {})
