"""`$VARIABLES` in values. Owns their grammar, which is docker compose's; knows nothing of files.

Only values are interpolated, never keys. Later phases see text in which `$$` has become `$`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from kapelle.compose.tree import Map, Seq
from kapelle.light import Any, NamedTuple

_NAME_START = frozenset("_abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_NAME = _NAME_START | frozenset("0123456789")
MAX_NESTING = 100  # of ${A:-${B:-…}}


class Invalid(Exception):
    """The text is no valid template."""


class Required(Exception):
    """A `${NAME:?message}` whose variable is missing."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(name, message)
        self.name = name
        self.message = message


class Use(NamedTuple):
    """One use of a variable: how it was written and what stands in for it."""

    name: str
    operator: str  # "", ":-", "-", ":?", "?", ":+", "+"
    word: str  # as written


Lookup = Callable[[str], str | None]


def substitute(text: str, lookup: Lookup, missing: Callable[[str], None] | None = None) -> str:
    """`text` with its variables replaced. `missing` is told each plain use of a variable that is not set.

    Raises Invalid, Required.
    """
    if "$" not in text:
        return text
    value, end = _until(text, 0, lookup, missing, nested=0)
    assert end == len(text)
    return value


def uses(text: str) -> list[Use]:
    """Every variable a text uses, in order, the ones inside defaults included. Raises Invalid."""
    found: list[Use] = []
    if "$" in text:
        _scan(text, found, 0)
    return found


def _until(
    text: str, index: int, lookup: Lookup, missing: Callable[[str], None] | None, nested: int
) -> tuple[str, int]:
    """Expand from `index` to the end."""
    if nested > MAX_NESTING:
        raise Invalid(text)
    out: list[str] = []
    while True:
        dollar = text.find("$", index)
        if dollar < 0:
            out.append(text[index:])
            return "".join(out), len(text)
        out.append(text[index:dollar])
        following = text[dollar + 1 : dollar + 2]
        if following == "$":
            out.append("$")
            index = dollar + 2
        elif following == "{":
            end = closing(text, dollar + 2)
            out.append(_braced(text[dollar + 2 : end], lookup, missing, nested))
            index = end + 1
        elif following in _NAME_START and following:
            end = dollar + 2
            while end < len(text) and text[end] in _NAME:
                end += 1
            out.append(_plain(text[dollar + 1 : end], lookup, missing))
            index = end
        else:
            out.append("$")
            index = dollar + 1


def _plain(name: str, lookup: Lookup, missing: Callable[[str], None] | None) -> str:
    value = lookup(name)
    if value is None:
        if missing is not None:
            missing(name)
        return ""
    return value


def closing(text: str, index: int) -> int:
    """The index of the brace that closes the one before `index`. Raises Invalid."""
    depth = 1
    while index < len(text):
        char = text[index]
        if char == "$" and text[index + 1 : index + 2] == "{":
            depth += 1
            index += 1
        elif char == "\n":
            raise Invalid(text)
        elif char == "}":
            depth -= 1
            if depth == 0:
                return index
        index += 1
    raise Invalid(text)


def split(body: str) -> tuple[str, str, str]:
    """What stands between the braces → name, operator, word. Raises Invalid."""
    end = 0
    while end < len(body) and body[end] in _NAME:
        end += 1
    name, rest = body[:end], body[end:]
    if not name or name[0] not in _NAME_START:
        raise Invalid(body)
    if not rest:
        return name, "", ""
    operator = rest[:2] if rest[:2] in (":-", ":?", ":+") else rest[:1]
    if operator not in (":-", ":?", ":+", "-", "?", "+"):
        raise Invalid(body)
    return name, operator, rest[len(operator) :]


def _braced(body: str, lookup: Lookup, missing: Callable[[str], None] | None, nested: int) -> str:
    name, operator, word = split(body)
    if not operator:
        return _plain(name, lookup, missing)
    value = lookup(name)
    has = value is not None and (operator[0] != ":" or value != "")
    # the reference of 2.40 evaluates the word even when it is not used: its own missing variables are told
    expanded = _until(word, 0, lookup, missing, nested + 1)[0]
    if operator[-1] == "-":
        return str(value) if has else expanded
    if operator[-1] == "+":
        return expanded if has else ""
    if has:
        return str(value)
    raise Required(name, expanded)


def _scan(text: str, found: list[Use], nested: int) -> None:
    if nested > MAX_NESTING:
        raise Invalid(text)
    index = 0
    while (dollar := text.find("$", index)) >= 0:
        following = text[dollar + 1 : dollar + 2]
        index = dollar + 2
        if following == "{":
            end = closing(text, dollar + 2)
            name, operator, word = split(text[dollar + 2 : end])
            found.append(Use(name, operator, word))
            _scan(word, found, nested + 1)
            index = end + 1
        elif following and following in _NAME_START:
            end = dollar + 2
            while end < len(text) and text[end] in _NAME:
                end += 1
            found.append(Use(text[dollar + 1 : end], "", ""))
            index = end
        elif following != "$":
            index = dollar + 1


Found = Callable[[Exception, tuple[str | int, ...], Any], None]


def interpolate(tree: Any, lookup: Lookup, missing: Callable[[str, Any], None], wrong: Found) -> None:
    """Replace in all values of `tree`, in place. `missing(name, mark)`; `wrong(error, path, mark)` may raise."""
    _walk(tree, lookup, missing, wrong, ())


def _walk(
    tree: Any, lookup: Lookup, missing: Callable[[str, Any], None], wrong: Found, path: tuple[str | int, ...]
) -> None:
    pairs: Any = list(tree.items()) if isinstance(tree, Map) else enumerate(tree)
    for key, value in pairs:
        kind = type(value)
        if kind is str:
            if "$" in value:
                mark = tree.at.get(key) if isinstance(tree, Map) else tree.at[key]

                def told(name: str, mark: Any = mark) -> None:
                    missing(name, mark)

                try:
                    tree[key] = substitute(value, lookup, told)
                except (Invalid, Required) as error:
                    wrong(error, (*path, key), mark)
        elif kind is Map or kind is Seq:
            _walk(value, lookup, missing, wrong, (*path, key))


def lookup_in(*layers: Mapping[str, str]) -> Lookup:
    """Look a name up in several mappings, the first that has it wins."""

    def look(name: str) -> str | None:
        for layer in layers:
            value = layer.get(name)
            if value is not None:
                return value
        return None

    return look
