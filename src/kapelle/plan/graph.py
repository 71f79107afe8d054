"""A plan: steps in stages, with edges between them, each with its cause. Pure values with a text form.

A stage begins when the one before it is done: nothing is created before every image is here, nothing started before
everything is created. So a mistake in one service leaves the others as they were (as Compose does it), and the graph
needs edges only for what the file itself orders.
"""

from __future__ import annotations

from collections.abc import Iterable

from kapelle.light import NamedTuple
from kapelle.plan import steps
from kapelle.plan.steps import Step, key_of, line_of

IMAGES, CLEARING, STORAGE, CREATING, STARTING, ONE_OFF, REMOVING, CLOSING = range(8)
STAGES = (
    "images",
    "clear away",
    "networks and volumes",
    "create",
    "start",
    "one-off",
    "stop and remove",
    "remove networks and volumes",
)


class Node(NamedTuple):
    step: Step
    stage: int
    after: tuple[str, ...] = ()  # keys of steps of the same stage that come first

    @property
    def key(self) -> str:
        return key_of(self.step)


class Plan(NamedTuple):
    """What to do, in an order that respects every edge. `unchanged` are (container, state word) that stay."""

    nodes: tuple[Node, ...] = ()
    warnings: tuple[str, ...] = ()
    unchanged: tuple[tuple[str, str], ...] = ()

    @property
    def steps(self) -> tuple[Step, ...]:
        return tuple(n.step for n in self.nodes)

    def only(self, *stages: int) -> Plan:
        """The part of the plan that lies in these stages."""
        return self._replace(nodes=tuple(n for n in self.nodes if n.stage in stages))

    def text(self) -> str:
        """The plan as people, `--dry-run` and golden files read it. The same values give the same text."""
        lines: list[str] = []
        stage = -1
        for node in self.nodes:
            if node.stage != stage:
                stage = node.stage
                lines.append(f"{STAGES[stage]}:")
            lines.append(f"  {line_of(node.step)}")
            lines += [f"    after {key}" for key in node.after]
        if self.unchanged:
            lines.append("unchanged:")
            lines += [f"  {name}: {word.lower()}" for name, word in self.unchanged]
        if not lines:
            lines.append("nothing to do")
        lines += [f"warning: {warning}" for warning in self.warnings]
        return "\n".join(lines) + "\n"

    def as_json(self) -> str:
        """The same as one JSON object: steps with their stage, cause and edges; what stays; warnings."""
        import json

        steps = [
            {
                "step": node.key,
                "stage": STAGES[node.stage],
                "because": getattr(node.step, "because", ""),
                "after": list(node.after),
            }
            for node in self.nodes
        ]
        unchanged = [{"container": name, "state": word.lower()} for name, word in self.unchanged]
        return json.dumps({"steps": steps, "unchanged": unchanged, "warnings": list(self.warnings)}, indent=2) + "\n"


_USUAL: dict[type, int] = {
    steps.PullImage: IMAGES,
    steps.BuildImage: IMAGES,
    steps.CreateNetwork: STORAGE,
    steps.CreateVolume: STORAGE,
    steps.CreateContainer: CREATING,
    steps.StartContainer: STARTING,
    steps.RestartContainer: STARTING,
    steps.WaitFor: STARTING,
    steps.RemoveNetwork: CLOSING,
    steps.RemoveVolume: CLOSING,
    steps.RemoveImage: CLOSING,
}


class Builder:
    """Collects steps and edges; `plan()` orders them. A key that is added twice is kept once."""

    def __init__(self) -> None:
        self._nodes: dict[str, Node] = {}
        self.warnings: list[str] = []
        self.unchanged: list[tuple[str, str]] = []

    def add(self, step: Step, stage: int | None = None, after: Iterable[str] = ()) -> str:
        """Add a step; its key. Edges to steps that are not in the plan (or of another stage) are dropped later.

        Without a stage it gets its kind's usual one.
        """
        key = key_of(step)
        if stage is None:
            stage = _USUAL.get(type(step), REMOVING)
        if key not in self._nodes:
            self._nodes[key] = Node(step, stage, tuple(dict.fromkeys(after)))
        return key

    def has(self, key: str) -> bool:
        return key in self._nodes

    def plan(self) -> Plan:
        """Stage by stage; within a stage, steps whose predecessors are named come after them, else as added."""
        nodes: list[Node] = []
        for stage in range(len(STAGES)):
            mine = {k: n for k, n in self._nodes.items() if n.stage == stage}
            edges = {k: tuple(a for a in n.after if a in mine and a != k) for k, n in mine.items()}
            nodes += [mine[k]._replace(after=edges[k]) for k in _ordered(edges)]
        return Plan(tuple(nodes), tuple(dict.fromkeys(self.warnings)), tuple(self.unchanged))


def _ordered(edges: dict[str, tuple[str, ...]]) -> list[str]:
    """Keys so that each follows its predecessors; the order given where there is a choice."""
    done: dict[str, None] = {}
    waiting = list(edges)
    while waiting:
        ready = [k for k in waiting if all(a in done for a in edges[k])]
        if not ready:  # a cycle: the loader refuses those, so this is our own mistake
            raise AssertionError(f"a cycle among {', '.join(waiting)}")
        for key in ready:
            done[key] = None
        waiting = [k for k in waiting if k not in done]
    return list(done)
