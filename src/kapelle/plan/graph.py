"""A plan: steps and which must be done before which. Pure, with one deterministic text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from kapelle.plan.steps import Step, key_of, line_of


class Plan(NamedTuple):
    """Steps in an order that honours `after`: for each step's key, the keys it waits for."""

    steps: tuple[Step, ...] = ()
    after: Mapping[str, tuple[str, ...]] = {}
    notices: tuple[str, ...] = ()

    def __str__(self) -> str:
        """One line per step: what, why, and what it waits for."""
        lines = []
        for step in self.steps:
            waits = self.after.get(key_of(step), ())
            lines.append(line_of(step) + (f"  (after {', '.join(waits)})" if waits else ""))
        return "".join(f"{line}\n" for line in lines)


class Builder:
    """Collects steps; an edge to a step that is not in the plan is no edge."""

    def __init__(self) -> None:
        self._steps: dict[str, Step] = {}
        self._after: dict[str, list[str]] = {}
        self.notices: list[str] = []

    def add(self, step: Step, after: Iterable[str] = ()) -> str:
        """Add a step once; its key. Adding it again only adds edges."""
        key = key_of(step)
        self._steps.setdefault(key, step)
        edges = self._after.setdefault(key, [])
        edges += [a for a in after if a not in edges and a != key]
        return key

    def __contains__(self, key: str) -> bool:
        return key in self._steps

    def plan(self) -> Plan:
        """The finished plan, in topological order; steps that don't wait for each other keep the order of adding."""
        after = {k: tuple(a for a in edges if a in self._steps) for k, edges in self._after.items()}
        done: dict[str, Step] = {}
        left = list(self._steps)
        while left:
            ready = [k for k in left if all(a in done for a in after[k])]
            if not ready:
                raise ValueError(f"steps wait for each other: {', '.join(left)}")
            for key in ready:
                done[key] = self._steps[key]
            left = [k for k in left if k not in done]
        return Plan(tuple(done.values()), {k: v for k, v in after.items() if v}, tuple(self.notices))
