"""What modules need of typing while they run, made in half the time: types are the type checker's matter.

typing takes 2 ms to load, a tenth of `ps`; and its NamedTuple compiles each annotation, which for the seventy classes
of an `up` takes longer than to plan it. Names that only annotations use are bare classes here.
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
    from collections import namedtuple

    Any = BinaryIO = NoReturn = TextIO = Protocol = object

    def TypeVar(name, *_constraints, **_more):
        return object

    _OWN = frozenset(("__annotations__", "__dict__", "__module__", "__qualname__", "__slots__", "__weakref__"))

    class _Maker(type):
        """`class X(NamedTuple):` with fields, defaults and methods → a tuple class (typing.NamedTuple)."""

        def __new__(cls, name, _bases, space):
            fields = space.get("__annotations__", {})
            defaults = [space[field] for field in fields if field in space]
            made = namedtuple(name, fields, defaults=defaults, module=space["__module__"])
            made.__annotations__ = fields
            made.__qualname__ = space["__qualname__"]
            for key, value in space.items():
                if key not in _OWN and key not in fields:
                    setattr(made, key, value)
            return made

    NamedTuple = type.__new__(_Maker, "NamedTuple", (), {})
