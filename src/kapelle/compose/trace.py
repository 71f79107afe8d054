"""Where every value of a loaded project comes from: file and line, merge step, variables, what it replaced.

A load that is given a Trace tells it each layer as it is read; `explain` walks the final tree and the layers side by
side. Costs nothing when nobody asks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from kapelle.compose.interpolate import Invalid, uses
from kapelle.compose.keys import ROOT, Node
from kapelle.compose.load import normal_name
from kapelle.compose.merge import same
from kapelle.compose.near import did_you_mean
from kapelle.compose.tree import Map, Seq, path_text, position
from kapelle.errors import KapelleError, Position
from kapelle.light import Any, NamedTuple

Path = tuple[str | int, ...]


class Layer(NamedTuple):
    """One tree that was merged: a file's document, or a service that another extends."""

    how: str  # "file", "include", "extends"
    label: str
    tree: Map
    removals: tuple[Path, ...] = ()


class Variable(NamedTuple):
    name: str
    value: str | None  # None: not set
    where: str  # "the environment", ".env:3", "the project's name", ""


class Step(NamedTuple):
    """One layer's word on a value."""

    how: str
    label: str
    where: Position | None
    value: Any


class Explanation(NamedTuple):
    """A leaf: its value, the steps that had a word on it (the last one counts), the text as written, its variables."""

    path: str
    value: Any
    steps: tuple[Step, ...]
    written: str  # "" where the value stands as it is
    variables: tuple[Variable, ...]
    reason: str  # why it is there when no file says it

    @property
    def where(self) -> Position | None:
        return self.steps[-1].where if self.steps else None


class Trace:
    """Told by the reader; asked by `explain`."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._layers: list[Layer] = []
        self._texts: dict[Position, tuple[str, Mapping[str, str]]] = {}
        self._set: dict[str, list[tuple[str, str]]] = {}  # variable -> (value, place) of .env files
        self._env: dict[tuple[int, str], Step] = {}  # (id of the service's tree, name) -> line of its env_file

    # ---- told ----------------------------------------------------------------------------------------------

    def text(self, tree: Any, variables: Mapping[str, str]) -> None:
        """Keep what is written before variables are replaced."""
        if not isinstance(tree, (Map, Seq)):
            return
        marks = [tree.at.get(key) for key in tree] if isinstance(tree, Map) else tree.at
        for value, mark in zip(tree.values() if isinstance(tree, Map) else tree, marks, strict=True):
            if isinstance(value, str) and "$" in value:
                where = position(mark)
                if where is not None:
                    self._texts[where] = (value, variables)
            else:
                self.text(value, variables)

    def variables(self, name: str, text: str, found: Mapping[str, str]) -> None:
        """A .env file's variables."""
        lines = _lines(text)
        for key, value in found.items():
            self._set.setdefault(key, []).append((value, f"{name}:{lines.get(key, 1)}"))

    def env_file(self, service: Map, name: str, text: str, found: Mapping[str, str | None]) -> None:
        """What a service's env_file gives it."""
        lines = _lines(text)
        for key, value in found.items():
            self._env[id(service), key] = Step("env_file", name, Position(name, lines.get(key, 1), 1), value)

    def file(self, label: str, tree: Map, removals: tuple[Path, ...], *, included: bool) -> None:
        self._layers.append(Layer("include" if included else "file", label, tree, removals))

    def extends(self, name: str, parent: str, label: str, service: Map, depth: int) -> None:
        """A service that `name` extends; the nearest parent is told first, and counts most."""
        at = len(self._layers)
        while depth and at and self._layers[at - 1].how == "extends":
            at -= 1
            depth -= 1
        child = self._layers[at].tree["services"] if at < len(self._layers) else {name: None}
        top = next(iter(child)) if at < len(self._layers) else name
        self._layers.insert(at, Layer("extends", f"{label}, service {parent}", Map({"services": Map({top: service})})))

    # ---- asked ---------------------------------------------------------------------------------------------

    def files(self) -> list[Layer]:
        """The files' own trees, in the order of merging."""
        return [layer for layer in self._layers if layer.how != "extends"]

    def is_written_with_variables(self, where: Position) -> bool:
        return where in self._texts

    def explain(self, tree: Map, wanted: str) -> list[Explanation]:
        """Every leaf at or below a path such as `services.web.ports[0]`. KapelleError when there is none."""
        path = _parse(tree, wanted)
        return [self._leaf(tree, leaf) for leaf in _leaves(_at(tree, path), path)]

    def _leaf(self, tree: Map, path: Path) -> Explanation:
        value = _at(tree, path)
        steps: list[Step] = []
        for layer in self._layers:
            if any(path[: len(r)] == r for r in layer.removals):
                steps.clear()
            found = _same_place(tree, layer.tree, path)
            if found is not None:
                steps.append(Step(layer.how, layer.label, *found))
        if path[0] == "services" and len(path) == 4 and path[2] == "environment":
            told = self._env.get((id(_at(tree, path[:2])), str(path[3])))
            if told is not None:
                steps.insert(0, told)
        steps = _ordered(steps, _mark(tree, path))
        if path == ("name",) and steps and normal_name(str(steps[-1].value)) != value:
            steps = []  # a flag or variable had the last word
        where = steps[-1].where if steps else None
        written, variables = self._texts.get(where, ("", {})) if where is not None else ("", {})
        used = tuple(self._variable(name, variables) for name in _names(written))
        if steps and steps[-1].value is None and value is not None and not used:
            used = (self._variable(str(path[-1]), {**self._environ, str(path[-1]): str(value)}),)
        return Explanation(path_text(path), value, tuple(steps), written, used, "" if steps else _reason(path))

    def _variable(self, name: str, variables: Mapping[str, str]) -> Variable:
        value = variables.get(name)
        if value is None:
            return Variable(name, None, "")
        if self._environ.get(name) == value:
            return Variable(name, value, "the environment")
        for told, place in reversed(self._set.get(name, [])):
            if told == value:
                return Variable(name, value, place)
        return Variable(name, value, "the project's name" if name == "COMPOSE_PROJECT_NAME" else "the caller's folder")


def _ordered(steps: list[Step], mark: Position | None) -> list[Step]:
    """The step that counts last: the one at the place that the final tree remembers."""
    for number, step in enumerate(steps):
        if step.where == mark and number != len(steps) - 1:
            return [*steps[:number], *steps[number + 1 :], step]
    return steps


def _names(written: str) -> list[str]:
    try:
        return list(dict.fromkeys(use.name for use in uses(written)))
    except Invalid:
        return []


def _lines(text: str) -> dict[str, int]:
    """The line of each NAME= of a .env text; the last one where a name stands twice."""
    found = {}
    for number, line in enumerate(text.splitlines(), 1):
        name = line.strip().removeprefix("export ").replace(":", "=").partition("=")[0].strip()
        if name and not name.startswith("#"):
            found[name] = number
    return found


def _at(tree: Any, path: Path) -> Any:
    for step in path:
        tree = tree[step]
    return tree


def _mark(tree: Any, path: Path) -> Position | None:
    """The place of the deepest written step."""
    best = None
    for step in path:
        best = (tree.at[step] if isinstance(step, int) else tree.at.get(step)) or best
        tree = tree[step]
    return position(best)


def _leaves(value: Any, path: Path) -> Iterator[Path]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _leaves(item, (*path, key))
    elif isinstance(value, list) and value:
        for number, item in enumerate(value):
            yield from _leaves(item, (*path, number))
    else:
        yield path


def _same_place(tree: Any, layer: Any, path: Path) -> tuple[Position | None, Any] | None:
    """(place, value) of what a layer has at the final tree's path; list items are found by what makes them the same."""
    node: Node | None = ROOT
    mark = None
    for step in path:
        if isinstance(step, str):
            if not isinstance(layer, Map) or step not in layer:
                return None
            mark = layer.at.get(step) or mark
            node = node.child(step) if node is not None else None
            tree, layer = tree[step], layer[step]
        else:
            if not isinstance(layer, Seq):
                return None
            rule = node.key.merge if node is not None and node.key is not None else ""
            number = same(tree[step], layer, rule)
            if number < 0:
                return None
            mark = layer.at[number] or mark
            node = node.item if node is not None else None
            tree, layer = tree[step], layer[number]
    return position(mark), layer


def _parse(tree: Any, wanted: str) -> Path:
    """The steps of a written path; keys may hold dots. Raises KapelleError naming the nearest key."""
    path: list[str | int] = []
    rest = wanted.strip()
    while rest:
        if isinstance(tree, list):
            number, _, rest = (
                rest.removeprefix("[").replace("]", "", 1).partition(".") if "." in rest else (rest.strip("[]"), "", "")
            )
            if not number.isdigit() or int(number) >= len(tree):
                raise _nothing(wanted, path, f"it has {len(tree)} items, from 0")
            path.append(int(number))
            tree = tree[int(number)]
            continue
        if not isinstance(tree, dict):
            raise _nothing(wanted, path, "it is a value, with nothing below")
        key = max((k for k in tree if rest == k or rest.startswith((f"{k}.", f"{k}["))), key=len, default=None)
        if key is None:
            word = rest.split(".")[0].split("[")[0]
            raise _nothing(wanted, path, did_you_mean(word, tree) or f"known there: {', '.join(tree) or 'nothing'}")
        path.append(key)
        tree = tree[key]
        rest = rest[len(key) :].removeprefix(".")
    return tuple(path)


def _nothing(wanted: str, path: list[str | int], hint: str) -> KapelleError:
    below = f" (below {path_text(path)})" if path else ""
    return KapelleError(f"nothing is at {wanted}{below}", hint=hint, code="KAP404")


# Why something is there that no file says, by the end of its path.
_REASONS = (
    (("name",), "made of the project's name and the key, as no name: is given"),
    (("networks", "default"), "a service without networks: joins the project's default network"),
    (("condition",), "depends_on as a list of names waits for the start"),
    (("required",), "a dependency is required unless it says otherwise"),
    (("mode",), "the default of ports"),
    (("protocol",), "the default of ports"),
    (("target",), "the default place of a secret"),
    (("context",), "a build's context is its file's folder unless it says otherwise"),
    (("dockerfile",), "a build's file is Dockerfile unless it says otherwise"),
    (("count",), "all devices, as neither count nor device_ids is given"),
)


def _reason(path: Path) -> str:
    if path == ("name",):
        return "made of the folder's name, or given by -p or COMPOSE_PROJECT_NAME"
    for end, why in _REASONS:
        if path[-len(end) :] == end:
            return why
    if "depends_on" in path:
        return "follows from links, volumes_from or a shared namespace"
    return "the default, no file says it"
