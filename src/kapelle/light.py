"""NamedTuple as typing has it, made in half the time: types are the type checker's matter, no command looks at them.

typing.NamedTuple compiles each annotation, which for the seventy classes of an `up` takes longer than to plan it.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple as NamedTuple
else:
    from collections import namedtuple

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
