"""Two canonical trees → one: a later file over an earlier one, by the table's merge rules. Pure."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from kapelle.compose.keys import ROOT, SERVICE, Node
from kapelle.compose.tree import Map, Seq, copy
from kapelle.light import Any


def merge(earlier: Map, later: Map, node: Node = ROOT) -> Map:
    """`later` over `earlier`; both are left as they are. Null in the later leaves the earlier value."""
    out = Map(earlier, dict(earlier.at))
    for key, value in later.items():
        at = later.at.get(key)
        below = node.child(key)
        if key not in out or out[key] is None:
            out.put(key, value, at)
        elif value is not None:
            out.put(key, _value(out[key], value, below), at)
            if at is None:  # a default of the later file: the earlier one's place no longer tells where it is from
                out.at.pop(key, None)
        elif below is not None and below.key is not None and below.key.kind == "command":
            out.put(key, None, at)  # `command: null` goes back to the image's own
    return out


def merge_service(earlier: Map, later: Map) -> Map:
    """One service over another, as `extends` does."""
    return merge(earlier, later, SERVICE)


def _value(earlier: Any, later: Any, node: Node | None) -> Any:
    rule = node.key.merge if node is not None and node.key is not None else ""
    if rule == "replace":
        return later
    if rule == "logging" and earlier.get("driver", later.get("driver")) != later.get("driver", earlier.get("driver")):
        return later
    if isinstance(earlier, Map) and isinstance(later, Map):
        if node is not None and node.key is not None and node.key.kind == "pairs":
            return Map({**earlier, **later}, {**earlier.at, **later.at})  # a name alone counts too
        return merge(earlier, later, node or Node())
    if isinstance(earlier, Seq) and isinstance(later, Seq):
        return _lists(earlier, later, rule)
    return later


def same(item: Any, rows: Seq, rule: str) -> int:
    """The number of the row that merging takes for the same as `item`; -1 when there is none."""
    identity = _IDENTITY.get(rule)
    for number, row in enumerate(rows):
        if row == item or (identity is not None and identity(row) == identity(item)):
            return number
    return -1


def _new(earlier: Seq, later: Seq) -> tuple[list[Any], list[Any]]:
    """What of the later list is not in the earlier one."""
    kept = [number for number, item in enumerate(later) if item not in earlier]
    return [later[n] for n in kept], [later.at[n] for n in kept]


def distinct(rows: Seq, rule: str) -> Seq:
    """One list without repetitions, where the rule says what makes two items the same; the later one counts."""
    identity = _IDENTITY.get(rule)
    if identity is None or rule == "subnet" or len(rows) < 2:
        return rows
    return rows if len({identity(item) for item in rows}) == len(rows) else _lists(Seq(), rows, rule)


def _lists(earlier: Seq, later: Seq, rule: str) -> Seq:
    identity = _IDENTITY.get(rule)
    out = Seq(earlier, list(earlier.at))
    if rule == "hosts":
        later = Seq(*_new(earlier, later))
    if identity is None:
        for number, item in enumerate(later):
            out.add(item, later.at[number])
        return out
    places = {identity(item): number for number, item in enumerate(out)}
    for number, item in enumerate(later):
        who = identity(item)
        if who not in places:
            places[who] = len(out)
            out.add(item, later.at[number])
        elif rule != "unique":
            at = places[who]
            merged = merge(out[at], item) if rule == "subnet" and isinstance(out[at], Map) else item
            out[at], out.at[at] = merged, later.at[number]
    return out


def _target(item: Any) -> Hashable:
    return item.get("target") or item.get("source") if isinstance(item, Map) else item


def _port(item: Any) -> Hashable:
    host = item.get("host_ip") or "0.0.0.0"
    return (host, *(str(item.get(k, "")) for k in ("target", "published", "protocol")))


_IDENTITY: dict[str, Callable[[Any], Hashable]] = {
    "unique": lambda item: item if isinstance(item, Hashable) else repr(item),
    "target": _target,
    "path": lambda item: item.get("path", ""),
    "port": _port,
    "subnet": lambda item: item.get("subnet", ""),
}


def remove_paths(tree: Map, removals: tuple[tuple[str | int, ...], ...]) -> Map:
    """`tree` without what `!reset` and `!override` of the next file name."""
    if not removals:
        return tree
    out: Map = copy(tree)
    for path in removals:
        if not path:
            out = Map()  # the tag stands at the root: nothing of the earlier files is left
            continue
        place: Any = out
        for step in path[:-1]:
            place = place.get(str(step)) if isinstance(place, Map) else None
        if isinstance(place, Map) and isinstance(path[-1], str):
            place.drop(path[-1])
    return out
