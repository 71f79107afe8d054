"""YAML text → trees with places. Owns syntax: documents, scalars, tags, aliases, merge keys, limits.

Reads the parser's events one by one, so that neither deep nesting nor an alias bomb can hurt. Duplicate keys
are refused. `!reset` and `!override` are taken out of the tree and told beside it, as paths to remove from
what was merged before.
"""

from __future__ import annotations

from io import StringIO

from kapelle.compose.remembered import Event, Memory
from kapelle.compose.scalars import Timestamp, float_text, resolve
from kapelle.compose.tree import Map, Seq, copy
from kapelle.errors import ComposeFileError, Position
from kapelle.light import Any, NamedTuple, NoReturn

MAX_DEPTH = 200  # levels; later phases recurse
_PREFIX = "tag:yaml.org,2002:"
_RESET = object()


class Document(NamedTuple):
    """One YAML document: its tree and the paths (keys and indexes) that `!reset`/`!override` named."""

    tree: Any
    removals: tuple[tuple[str | int, ...], ...]


class _Open:
    """A collection being read."""

    __slots__ = ("anchor", "key", "key_mark", "mark", "merges", "tag", "value")

    def __init__(self, value: Any, mark: Any, tag: str | None, anchor: str | None) -> None:
        self.value = value
        self.mark = mark
        self.tag = tag
        self.anchor = anchor
        self.key: Any = None
        self.key_mark: Any = None
        self.merges: list[Any] | None = None


def parse(text: str, name: str, memory: Memory | None = None) -> list[Document]:
    """The documents of a file, in order. Raises ComposeFileError with the place of the first mistake."""
    events = memory.events(text, name) if memory is not None else None
    return _read(text, name, memory) if events is None else _Builder(name).documents(events)


def _read(text: str, name: str, memory: Memory | None) -> list[Document]:
    import yaml

    bad = text.find("\0")
    if bad >= 0:
        _fail(name, "control characters are not allowed", _place(text, bad, name), "remove the NUL byte")
    try:
        loader = _c_parser()
        stream = _Named(text)
        stream.name = name
        events = _c_events(loader, stream) if loader else yaml.parse(stream, Loader=yaml.SafeLoader)
        return _Builder(name).documents(events if memory is None else memory.watch(text, events))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = Position(name, mark.line + 1, mark.column + 1) if mark is not None else None
        _fail(name, _syntax(error, where), where, _syntax_hint(error, text, where))
    except yaml.reader.ReaderError as error:
        where = _place(text, error.position, name) if 0 <= error.position <= len(text) else None
        _fail(name, f"control characters are not allowed ({error.reason})", where, "remove the character")
    except yaml.YAMLError as error:  # pragma: no cover - the library has no others today
        _fail(name, str(error), None, "")


def _c_parser() -> Any:
    """The C library's parser where the YAML library was built with it."""
    try:
        from yaml._yaml import CParser
    except ImportError:
        return None
    return CParser


class _Named(StringIO):
    """The parser takes the name of its marks from here."""

    name = ""


def _c_events(parser_class: Any, stream: Any) -> Any:
    parser = parser_class(stream)
    get = parser.get_event
    try:
        event = get()
        while event is not None:
            yield event
            event = get()
    finally:
        parser.dispose()


def _fail(name: str, what: str, where: Position | None, hint: str) -> NoReturn:
    line = f"line {where.line}: " if where is not None else ""
    raise ComposeFileError(f"failed to parse {name}: yaml: {line}{what}", where=where, hint=hint)


def _place(text: str, index: int, name: str) -> Position:
    before = text[:index]
    return Position(name, before.count("\n") + 1, index - (before.rfind("\n") + 1) + 1)


def _syntax(error: Any, where: Position | None) -> str:
    problem = str(error.problem or error)
    if error.context and error.context_mark is not None and "found" in problem:
        return f"{error.context} of line {error.context_mark.line + 1}: {problem}"
    return problem


def _syntax_hint(error: Any, text: str, where: Position | None) -> str:
    problem = str(error.problem or "")
    lines = text.splitlines()
    line = lines[where.line - 1] if where is not None and where.line <= len(lines) else ""
    if "\\t" in problem or "\t" in line[: len(line) - len(line.lstrip())]:
        return "YAML indents with spaces: replace the tab"
    if "mapping values are not allowed" in problem:
        return "the line above or this one is indented wrongly, or a text with ': ' needs quotes"
    if "did not find expected" in problem:
        return "check the indentation and the brackets and quotes of this line and the one above"
    if "undefined alias" in problem:
        return "define the anchor (&name) before it is used"
    return "check the indentation and the quotes around here"


class _Builder:
    """From events to trees. One per file."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.removals: list[tuple[str | int, ...]] = []
        self.anchors: dict[str, Any] = {}
        self.sizes: dict[str, int] = {}
        self.read = 0
        self.aliased = 0

    def documents(self, events: Any) -> list[Document]:
        found: list[Document] = []
        stack: list[_Open] = []
        root: Any = None
        for event in events:
            kind = event.kind if type(event) is Event else type(event).__name__
            if kind == "ScalarEvent":
                self.read += 1
                mark = event.start_mark
                value = self.scalar(event)
                if event.anchor is not None:
                    self.anchors[event.anchor] = value
                    self.sizes[event.anchor] = 1
                if stack:
                    top = stack[-1]
                    if event.tag is not None and event.tag[0] == "!" and event.tag in ("!reset", "!override"):
                        value = self.tagged(event.tag, stack, value)
                    if type(top.value) is Map and top.key is None:
                        self.key(top, event, value, mark)
                    else:
                        self.attach(top, value, mark)
                else:
                    root = value
            elif kind == "MappingStartEvent" or kind == "SequenceStartEvent":
                self.read += 1
                if len(stack) >= MAX_DEPTH:
                    self.fail(f"exceeded max depth of {MAX_DEPTH}", event.start_mark, "nest less deeply")
                if stack and type(stack[-1].value) is Map and stack[-1].key is None:
                    self.fail("invalid map key: a key must be a string", event.start_mark, "write a plain text as key")
                value = Map() if kind == "MappingStartEvent" else Seq()
                opened = _Open(value, event.start_mark, event.tag, event.anchor)
                if event.anchor is not None:
                    self.anchors[event.anchor] = opened
                    self.sizes[event.anchor] = self.read + self.aliased
                stack.append(opened)
            elif kind == "MappingEndEvent" or kind == "SequenceEndEvent":
                opened = stack.pop()
                value = opened.value
                if opened.merges:
                    self.merge_keys(value, opened.merges)
                if opened.anchor is not None:
                    self.anchors[opened.anchor] = value
                    self.sizes[opened.anchor] = self.read + self.aliased - self.sizes[opened.anchor] + 1
                if opened.tag is not None and opened.tag[0] == "!":
                    if opened.tag in ("!reset", "!override"):
                        value = self.tagged(opened.tag, stack, value)
                if stack:
                    self.attach(stack[-1], value, opened.mark)
                else:
                    root = value
            elif kind == "AliasEvent":
                value = self.alias(event)
                if not stack:
                    root = value
                elif type(stack[-1].value) is Map and stack[-1].key is None:
                    self.key(stack[-1], event, value, event.start_mark)
                else:
                    self.attach(stack[-1], value, event.start_mark)
            elif kind == "DocumentStartEvent":
                root = None
                self.anchors.clear()
            elif kind == "DocumentEndEvent":
                if root is _RESET:
                    root = None
                found.append(Document(root, tuple(self.removals)))
                self.removals = []
        return found

    def fail(self, what: str, mark: Any, hint: str) -> NoReturn:
        _fail(self.name, what, Position(self.name, mark.line + 1, mark.column + 1), hint)

    def mark(self, mark: Any) -> Any:
        return Position(self.name, mark.line + 1, mark.column + 1)

    def scalar(self, event: Any) -> Any:
        tag = event.tag
        if tag is None or tag in ("!reset", "!override"):
            return resolve(event.value) if event.implicit[0] or (tag and not event.style) else event.value
        text: str = event.value
        if tag in ("!", _PREFIX + "str", _PREFIX + "binary"):
            return text
        value = resolve(text)
        kind = tag.removeprefix(_PREFIX)
        fits = {
            "int": type(value) is int,
            "bool": type(value) is bool,
            "null": value is None,
            "float": type(value) in (int, float),
            "timestamp": isinstance(value, Timestamp),
        }.get(kind)
        if fits is False:
            self.fail(f"cannot decode !!str `{text}` as a !!{kind}", event.start_mark, f"remove the tag !!{kind}")
        if fits is None:
            return value if not event.style else text
        return float(value) if kind == "float" else value

    def key(self, top: _Open, event: Any, value: Any, mark: Any) -> None:
        if type(value) is not str:
            if isinstance(value, (dict, list)):
                self.fail("invalid map key: a key must be a string", mark, "write a plain text as key")
            text = getattr(event, "value", None) or ""
            shown = "null" if value is None else float_text(value) if type(value) is float else str(text)
            raise ComposeFileError(
                f"Non-string key {shown}",
                where=self.mark(mark),
                hint=f'put the key in quotes: "{text}"',
            )
        if value == "<<" and not getattr(event, "style", None):
            top.key, top.key_mark = _MERGE, mark
            return
        if value in top.value:
            first = top.value.at[value]
            _fail(
                self.name,
                f'mapping key "{value}" already defined at line {first.line + (not isinstance(first, Position))}',
                self.mark(mark),
                "remove one of the two, or join them",
            )
        top.value[value] = None  # holds its place in the order
        top.value.at[value] = mark
        top.key, top.key_mark = value, mark

    def attach(self, top: _Open, value: Any, mark: Any) -> None:
        container = top.value
        if type(container) is Seq:
            if value is not _RESET:
                container.append(value)
                container.at.append(mark)
            return
        if top.key is _MERGE:
            sources = value if isinstance(value, Seq) else [value]
            for source in sources:
                if not isinstance(source, Map):
                    self.fail(
                        "map merge requires map or sequence of maps as the value", mark, "merge a mapping: <<: *name"
                    )
            top.merges = [*(top.merges or []), *sources]
        elif value is _RESET:
            del container[top.key]
            del container.at[top.key]
        else:
            container[top.key] = value
        top.key = None

    def merge_keys(self, target: Map, sources: list[Map]) -> None:
        for source in sources:
            for key, value in source.items():
                if key not in target:
                    target.put(key, copy(value), source.at.get(key))

    def tagged(self, tag: str, stack: list[_Open], value: Any) -> Any:
        self.removals.append(self.path(stack))
        return _RESET if tag == "!reset" else value

    def path(self, stack: list[_Open]) -> tuple[str | int, ...]:
        return tuple(o.key if type(o.value) is Map else len(o.value) for o in stack if o.key is not _MERGE)

    def alias(self, event: Any) -> Any:
        name = event.anchor
        if name not in self.anchors:
            self.fail(f"unknown anchor '{name}' referenced", event.start_mark, f"define &{name} before it is used")
        value = self.anchors[name]
        if isinstance(value, _Open):
            self.fail(f"anchor '{name}' value contains itself", event.start_mark, "an alias can't hold itself")
        self.aliased += self.sizes[name]
        total = self.read + self.aliased
        if self.aliased > 1000 and total > 4_000_000 * 0.1 and self.aliased / total > _allowed_ratio(total):
            self.fail("document contains excessive aliasing", event.start_mark, "use fewer nested aliases")
        return copy(value)


_MERGE = object()


def _allowed_ratio(nodes: int) -> float:
    """How much of a document may come from aliases: nearly all of a small one, a tenth of 4 million nodes."""
    if nodes <= 400_000:
        return 0.99
    if nodes >= 4_000_000:
        return 0.10
    return 0.99 - 0.89 * (nodes - 400_000) / 3_600_000
