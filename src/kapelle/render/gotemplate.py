"""The part of Go's text/template that `--format` users write, over JSON-like values.

A mapping is a map: a missing key prints `<no value>`. A `Struct` is a structure: a missing field is an error.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from kapelle.errors import UsageError
from kapelle.light import Any, NamedTuple


class Struct(dict[str, Any]):
    """A value with a fixed set of fields; a callable one is a method."""


class _Missing:
    """What a map has for a key that it does not have."""

    def __bool__(self) -> bool:
        return False


_MISSING = _Missing()


class Node(NamedTuple):
    kind: str  # text, print, if, range, with
    text: str = ""
    pipe: Pipe | None = None
    body: tuple[Node, ...] = ()
    other: tuple[Node, ...] = ()


class Pipe(NamedTuple):
    names: tuple[str, ...]  # variables that are set: $x, $i
    declares: bool
    commands: tuple[tuple[Any, ...], ...]
    source: str


# ---- reading ---------------------------------------------------------------------------------------------------

_ACTION = re.compile(r"\{\{(-?)((?:\s*/\*.*?\*/\s*)|(?:\"(?:\\.|[^\"\\])*\"|`[^`]*`|[^}\"`]|\}(?!\}))*?)(-?)\}\}", re.S)
_TOKEN = re.compile(
    r"""\s*(?:(?P<string>"(?:\\.|[^"\\])*"|`[^`]*`)|(?P<number>-?\d+(?:\.\d+)?)|(?P<field>(?:\.[A-Za-z_]\w*)+)"""
    r"""|(?P<variable>\$\w*(?:\.[A-Za-z_]\w*)*)|(?P<word>[A-Za-z_]\w*)|(?P<mark>:=|[|(),=.]))"""
)


def parse(template: str) -> tuple[Node, ...]:
    """The template's tree. UsageError with Docker's words for a mistake."""
    tokens = list(_pieces(template))
    position = 0

    def block(ends: tuple[str, ...]) -> tuple[tuple[Node, ...], str]:
        nonlocal position
        nodes: list[Node] = []
        while position < len(tokens):
            kind, text = tokens[position]
            position += 1
            if kind == "text":
                nodes.append(Node("text", text))
                continue
            word = text.split(None, 1)[0] if text.split() else ""
            if word in ("end", "else"):
                if word not in ends:
                    raise _mistake(f"unexpected {{{{{word}}}}}")
                return tuple(nodes), text
            if word in ("if", "range", "with"):
                nodes.append(branch(word, text[len(word) :].strip()))
            elif text:
                nodes.append(Node("print", pipe=_pipe(text)))
        if ends:
            raise _mistake("unexpected EOF")
        return tuple(nodes), ""

    def branch(word: str, rest: str) -> Node:
        body, stop = block(("end", "else"))
        other: tuple[Node, ...] = ()
        if stop.startswith("else"):
            more = stop[4:].strip()
            following = next((w for w in ("if", "with") if more.startswith(w)), "")
            if following:
                other = (branch(following, more[len(following) :].strip()),)
            else:
                other, _ = block(("end",))
        return Node(word, pipe=_pipe(rest), body=body, other=other)

    nodes, _ = block(())
    return nodes


def _pieces(template: str) -> Iterator[tuple[str, str]]:
    at = 0
    trim = False
    for match in _ACTION.finditer(template):
        text = template[at : match.start()]
        text = text.lstrip() if trim else text
        if match[1]:
            text = text.rstrip()
        if text:
            yield "text", text
        action = match[2].strip()
        trim = bool(match[3])
        at = match.end()
        if not (action.startswith("/*") and action.endswith("*/")):
            yield "action", action
    rest = template[at:].lstrip() if trim else template[at:]
    if "{{" in rest:
        raise _mistake("unclosed action")
    if rest:
        yield "text", rest


def _mistake(words: str) -> UsageError:
    return UsageError(f"template parsing error: template: :1: {words}", hint="for example '{{.Name}}: {{.State}}'")


def _pipe(source: str) -> Pipe:
    tokens: list[tuple[str, str]] = []
    at = 0
    while at < len(source):
        match = _TOKEN.match(source, at)
        if match is None or match.end() == at:
            if source[at:].strip():
                raise _mistake(f"unexpected {source[at:].strip()[:1]!r} in command")
            break
        kind = str(match.lastgroup)
        tokens.append((kind, match[kind]))
        at = match.end()
    names: list[str] = []
    declares = False
    marks = [text for kind, text in tokens if kind == "mark"]
    if ":=" in marks or "=" in marks:
        declares = ":=" in marks
        cut = next(n for n, (kind, text) in enumerate(tokens) if kind == "mark" and text in (":=", "="))
        names = [text for kind, text in tokens[:cut] if kind == "variable"]
        tokens = tokens[cut + 1 :]
    commands, left = _commands(tokens, 0)
    if left != len(tokens):
        raise _mistake("unexpected right paren")
    if not commands or not all(commands):
        raise _mistake("missing value for command")
    return Pipe(tuple(names), declares, commands, source)


def _commands(tokens: list[tuple[str, str]], at: int) -> tuple[tuple[tuple[Any, ...], ...], int]:
    commands: list[tuple[Any, ...]] = []
    current: list[Any] = []
    while at < len(tokens):
        kind, text = tokens[at]
        at += 1
        if (kind, text) == ("mark", "|"):
            commands.append(tuple(current))
            current = []
        elif (kind, text) == ("mark", ")"):
            commands.append(tuple(current))
            return tuple(commands), at - 1
        elif (kind, text) == ("mark", "("):
            inner, at = _commands(tokens, at)
            if at >= len(tokens):
                raise _mistake("unclosed left paren")
            at += 1
            chain = ""
            if at < len(tokens) and tokens[at][0] == "field":
                chain = tokens[at][1]
                at += 1
            current.append(("paren", inner, chain))
        elif kind == "string":
            current.append(("literal", text[1:-1] if text[0] == "`" else _unquote(text)))
        elif kind == "number":
            current.append(("literal", float(text) if "." in text else int(text)))
        elif kind == "mark" and text == ".":
            current.append(("field", ""))
        elif kind == "mark":
            raise _mistake(f"unexpected {text!r} in operand")
        else:
            current.append((kind, text))
    commands.append(tuple(current))
    return tuple(commands), at


def _unquote(text: str) -> str:
    try:
        return str(json.loads(text))
    except ValueError:
        return text[1:-1]


# ---- running ---------------------------------------------------------------------------------------------------


def execute(nodes: Sequence[Node], value: Any) -> str:
    """The text of a template for one value."""
    out: list[str] = []
    _walk(nodes, value, [{"$": value}], out)
    return "".join(out)


def _walk(nodes: Sequence[Node], dot: Any, scopes: list[dict[str, Any]], out: list[str]) -> None:
    for node in nodes:
        if node.kind == "text":
            out.append(node.text)
            continue
        assert node.pipe is not None
        if node.kind == "print":
            result = _value(node.pipe, dot, scopes)
            if not node.pipe.names:
                out.append(text_of(result))
            continue
        scopes.append({})
        if node.kind == "range":
            _range(node, dot, scopes, out)
        else:
            result = _value(node.pipe, dot, scopes)
            chosen = node.body if truth(result) else node.other
            inner = result if node.kind == "with" and truth(result) else dot
            _walk(chosen, inner, scopes, out)
        scopes.pop()


def _range(node: Node, dot: Any, scopes: list[dict[str, Any]], out: list[str]) -> None:
    assert node.pipe is not None
    names = node.pipe.names
    found = _value(node.pipe._replace(names=()), dot, scopes)
    rows: list[tuple[Any, Any]]
    if isinstance(found, Mapping):
        rows = [(k, found[k]) for k in sorted(found)]
    elif isinstance(found, list | tuple):
        rows = list(enumerate(found))
    elif found is None or isinstance(found, _Missing):
        rows = []
    else:
        raise _failed(node.pipe.source, f"range can't iterate over {text_of(found)}")
    if not rows:
        _walk(node.other, dot, scopes, out)
    for key, value in rows:
        if len(names) == 2:
            scopes[-1][names[0]], scopes[-1][names[1]] = key, value
        elif names:
            scopes[-1][names[0]] = value
        _walk(node.body, value, scopes, out)


def _value(pipe: Pipe, dot: Any, scopes: list[dict[str, Any]]) -> Any:
    result = _run(pipe.commands, dot, scopes, pipe.source)
    for name in pipe.names:
        scope = scopes[-1] if pipe.declares else next((s for s in reversed(scopes) if name in s), scopes[-1])
        scope[name] = result
    return result


def _run(commands: tuple[tuple[Any, ...], ...], dot: Any, scopes: list[dict[str, Any]], source: str) -> Any:
    result: Any = None
    for number, command in enumerate(commands):
        final = [result] if number else []
        first, *rest = command
        if first[0] == "word" and first[1] not in ("true", "false", "nil"):
            function = _FUNCTIONS.get(first[1])
            if function is None:
                raise _mistake(f'function "{first[1]}" not defined')
            arguments = [_operand(a, dot, scopes, source) for a in rest] + final
            try:
                result = function(*arguments)
            except (TypeError, IndexError, ValueError, KeyError, AttributeError) as e:
                raise _failed(source, f"error calling {first[1]}: {e}") from None
            continue
        result = _operand(first, dot, scopes, source)
        arguments = [_operand(a, dot, scopes, source) for a in rest] + final
        if callable(result):
            result = result(*arguments)
        elif arguments:
            raise _failed(source, f"can't give argument to non-function {first[1]}")
    return result


def _operand(item: tuple[Any, ...], dot: Any, scopes: list[dict[str, Any]], source: str) -> Any:
    kind = item[0]
    if kind == "literal":
        return item[1]
    if kind == "field":
        return _chain(dot, item[1], source)
    if kind == "variable":
        name, _, chain = item[1].partition(".")
        for scope in reversed(scopes):
            if name in scope:
                return _chain(scope[name], f".{chain}" if chain else "", source)
        raise _mistake(f'undefined variable "{name}"')
    if kind == "paren":
        return _chain(_run(item[1], dot, scopes, source), item[2], source)
    if item[1] in ("true", "false"):
        return item[1] == "true"
    if item[1] == "nil":
        return None
    function = _FUNCTIONS.get(item[1])
    if function is None:
        raise _mistake(f'function "{item[1]}" not defined')
    return function()


def _chain(value: Any, chain: str, source: str) -> Any:
    for name in chain.split(".")[1:]:
        if isinstance(value, Struct):
            if name not in value:
                raise _failed(source, f'map has no entry for key "{name}"')
            value = value[name]
        elif isinstance(value, Mapping):
            value = value.get(name, _MISSING)
        elif value is None or isinstance(value, _Missing):
            raise _failed(source, f"nil pointer evaluating interface {{}}.{name}")
        else:
            raise _failed(source, f"can't evaluate field {name} in type {type(value).__name__}")
    return value


def _failed(source: str, words: str) -> UsageError:
    return UsageError(f'template parsing error: template: :1:2: executing "" at <{source}>: {words}')


def truth(value: Any) -> bool:
    """Go's truth: false, 0, nil and what is empty are false; a structure is true."""
    return True if isinstance(value, Struct) else bool(value)


def text_of(value: Any) -> str:
    """A value as Go's fmt prints it."""
    if isinstance(value, _Missing):
        return "<no value>"
    if value is None:
        return "<no value>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "map[" + " ".join(f"{k}:{text_of(value[k])}" for k in sorted(value) if not callable(value[k])) + "]"
    if isinstance(value, list | tuple):
        return "[" + " ".join(text_of(v) for v in value) + "]"
    return str(value)


def _json(value: Any) -> str:
    def plain(found: Any) -> Any:
        if isinstance(found, Mapping):
            return {k: plain(v) for k, v in found.items() if not callable(v)}
        if isinstance(found, list | tuple):
            return [plain(v) for v in found]
        return None if isinstance(found, _Missing) else found

    return json.dumps(plain(value), ensure_ascii=False, separators=(",", ":"))


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if isinstance(value, Mapping):
            value = value.get(key, "")
        elif isinstance(value, list | tuple):
            value = value[key]
        else:
            raise TypeError("can't index item of this type")
    return value


def _equal(first: Any, *others: Any) -> bool:
    return any(first == other for other in others)


def _println(*values: Any) -> str:
    return " ".join(text_of(v) for v in values) + "\n"


def _printf(form: str, *values: Any) -> str:
    out, at = [], 0
    rest = list(values)
    for match in re.finditer(r"%([-+# 0]*)(\d*)(?:\.(\d+))?([vsdqtfx%])", form):
        out.append(form[at : match.start()])
        at = match.end()
        if match[4] == "%":
            out.append("%")
            continue
        value = rest.pop(0) if rest else "%!" + match[4] + "(MISSING)"
        out.append(_verb(match, value))
    return "".join(out) + form[at:]


def _verb(match: re.Match[str], value: Any) -> str:
    verb = match[4]
    if verb == "q":
        text = json.dumps(str(value), ensure_ascii=False)
    elif verb == "f":
        text = f"{float(value):.{match[3] or 6}f}"
    elif verb == "x":
        text = f"{value:x}" if isinstance(value, int) else str(value).encode().hex()
    else:
        text = text_of(value)
    width = int(match[2] or 0)
    fill = "0" if "0" in match[1] and "-" not in match[1] else " "
    return text.ljust(width) if "-" in match[1] else text.rjust(width, fill)


def _and(*values: Any) -> Any:
    return next((v for v in values if not truth(v)), values[-1])


def _or(*values: Any) -> Any:
    return next((v for v in values if truth(v)), values[-1])


def _title(text: str) -> str:
    return re.sub(r"(^|\s)(\w)", lambda m: m[1] + m[2].upper(), text)


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "and": _and,
    "or": _or,
    "not": lambda v: not truth(v),
    "eq": _equal,
    "ne": lambda a, b: a != b,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
    "len": len,
    "index": _index,
    "print": lambda *v: "".join(text_of(x) for x in v),
    "println": _println,
    "printf": _printf,
    "json": _json,
    "join": lambda values, separator: separator.join(text_of(v) for v in values),
    "split": lambda text, separator: text.split(separator),
    "lower": lambda text: text.lower(),
    "upper": lambda text: text.upper(),
    "title": _title,
    "pad": lambda text, before, after: " " * before + text + " " * after if text else text,
    "truncate": lambda text, limit: text[:limit],
}


# ---- lists -----------------------------------------------------------------------------------------------------


def listing(
    form: str,
    objects: Sequence[Mapping[str, Any]],
    *,
    labels: Sequence[Mapping[str, str]] = (),
    headers: Mapping[str, str] | None = None,
) -> str:
    """A list with one line per object; with `table ` in front, under a heading and aligned.

    `labels` are the objects' labels for `.Label "key"`; `headers` the headings that are not the field in capitals.
    """
    aligned = form.startswith("table ") or form.startswith("table\t")
    text = form[6:] if aligned else form
    nodes = parse(text.replace("\\t", "\t").replace("\\n", "\n"))
    lines = [execute(nodes, _with_label(o, labels[n] if n < len(labels) else {})) for n, o in enumerate(objects)]
    if not aligned:
        return "".join(f"{line}\n" for line in lines)
    heading = execute(nodes, _Headings(headers or {}))
    from kapelle.render.tables import table

    rows = [line.split("\t") for line in lines]
    head = heading.split("\t")
    return table(head, [(row + [""] * len(head))[: len(head)] for row in rows])


def _with_label(value: Mapping[str, Any], labels: Mapping[str, str]) -> Struct:
    return Struct({**value, "Label": lambda key: labels.get(key, "")})


class _Headings(Struct):
    """Stands for an object while the heading is made: each field is its own title."""

    def __init__(self, known: Mapping[str, str]) -> None:
        super().__init__()
        self.known = known

    def __contains__(self, name: object) -> bool:
        return True

    def __getitem__(self, name: str) -> Any:
        if name == "Label":
            return lambda key: key.rpartition(".")[2].upper()
        return self.known.get(name, name.upper())
