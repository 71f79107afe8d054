"""The tuple classes behave as typing's."""

from __future__ import annotations

import pickle
import typing

import pytest

from kapelle.light import NamedTuple


class Ours(NamedTuple):
    """Words."""

    first: int
    second: str = "b"

    @property
    def both(self) -> str:
        return f"{self.first}{self.second}"

    def more(self) -> Ours:
        return self._replace(first=self.first + 1)


class Theirs(typing.NamedTuple):
    """Words."""

    first: int
    second: str = "b"


def test_fields_defaults_and_methods_are_there() -> None:
    made = Ours(1)
    assert made == (1, "b")
    assert (made.both, made.more().first, made._asdict()) == ("1b", 2, {"first": 1, "second": "b"})
    assert Ours._fields == Theirs._fields
    assert Ours._field_defaults == Theirs._field_defaults
    assert (Ours.__doc__, Ours.__module__, Ours.__qualname__) == (Theirs.__doc__, __name__, "Ours")
    assert repr(made) == "Ours(first=1, second='b')"
    assert hash(made) == hash(Theirs(1))
    assert pickle.loads(pickle.dumps(made)) == made
    match made:
        case Ours(first, second):
            assert (first, second) == (1, "b")


def test_what_typing_refuses_is_refused() -> None:
    for wrong in ((), (1, "b", 3)):
        with pytest.raises(TypeError):
            Ours(*wrong)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            Ours._make(wrong)
    with pytest.raises(ValueError, match="other"):
        Ours(1)._replace(other=2)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        Ours(first=1, other=2)  # type: ignore[call-arg]
    with pytest.raises(AttributeError):
        Ours(1).first = 2  # type: ignore[misc]
    with pytest.raises(AttributeError):
        Ours(1).new = 2  # type: ignore[attr-defined]
