"""Timings → tables. Pure: reads no clock and runs nothing.

python bench/report.py FILE.json …    the tables of saved runs (bench.py --json), as of one run
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

Values = Mapping[str, Mapping[str, Sequence[float]]]  # case → tool → a value for each round

KAP, DOCKER, PODMAN = "kap", "docker compose", "podman-compose"
AS_USER = "kap as "  # and the user's name


class Target(NamedTuple):
    """What a case is held to. ratio: of kap to docker compose; own: kap's figure, whatever others do."""

    ratio: float | None = None
    own: float | None = None
    least: bool = False  # the figure is a rate: it must be at least the target
    unit: str = "s"

    def __str__(self) -> str:
        sign = "≥" if self.least else "≤"
        if self.ratio is not None:
            return f"{sign} {self.ratio:g}"
        return f"{sign} {self.own:g} {self.unit}".rstrip() if self.own is not None else ""

    def met(self, value: float) -> bool:
        limit = self.ratio if self.ratio is not None else self.own
        return limit is None or (value >= limit if self.least else value <= limit)


def _rate(ratio: float | None, unit: str) -> Target:
    return Target(ratio, least=True, unit=unit)


TARGETS: dict[str, Target] = {
    "version": Target(1.0),
    **{f"config {n}": Target(r) for n, r in ((1, 1.3), (50, 0.8), (300, 0.6))},
    **{f"up -d {n}": Target(r) for n, r in ((1, 0.35), (10, 0.20), (50, 0.15), (100, 0.15))},
    **{f"up -d again {n}": Target(r) for n, r in ((10, 0.9), (50, 1.2))},
    **{f"ps {n}": Target(r) for n, r in ((1, 0.8), (10, 0.5), (50, 0.4))},
    **{f"down -t 0 {n}": Target(r) for n, r in ((1, 0.35), (10, 0.12), (50, 0.08))},
    "down 10, SIGTERM handled": Target(0.2),
    "exec": Target(0.5),
    "run --rm": Target(0.3),
    "chain of 5 healthy": Target(own=2),
    "CPU per health check": Target(0.12, unit="ms"),
    "late checks of 50 at 5 s": Target(own=0, unit="%"),
    "own memory at 50": Target(own=30, unit="MiB"),
    "own processes at 50": Target(own=3, unit=""),
    "up in the foreground, lines": _rate(5, "MB/s"),
    "logs read back": _rate(10, "MB/s"),
    "logs -f, line to eye": Target(own=2, unit="ms"),
    "container to container, connections": _rate(1.0, "/s"),
    "container to container, one stream": _rate(1.0, "MB/s"),
    "container to container, round trip": Target(1.1, unit="us"),
    "published port, connections": _rate(1.7, "/s"),
    "published port, one stream": _rate(1.0, "MB/s"),
    "published port, round trip": Target(0.4, unit="us"),
    "name lookups": _rate(1.5, "/s"),
    "pull 300 MB, cold": Target(0.6),
    "load 300 MB": Target(0.6),
    "first run --rm after pull": Target(0.2),
    "build of 6 steps, cold": Target(0.35),
    "build of 6 steps, cached": Target(0.5),
}
_USER_CASES = ("up -d ", "down ", "exec")
USER_TO_ROOT = 1.5
USER_PORTS_TO_DOCKER = 0.5
_PORTS = "published port, connections"


def median(values: Values, case: str, tool: str) -> float | None:
    found = values.get(case, {}).get(tool)
    return statistics.median(found) if found else None


def ratio(values: Values, case: str, tool: str, other: str) -> float | None:
    """Of the medians."""
    mine, theirs = median(values, case, tool), median(values, case, other)
    return mine / theirs if mine is not None and theirs else None


def spread(values: Values, case: str, tool: str, other: str) -> tuple[float, float] | None:
    """The least and the greatest ratio of one round."""
    mine, theirs = values.get(case, {}).get(tool, ()), values.get(case, {}).get(other, ())
    found = [a / b for a, b in zip(mine, theirs, strict=False) if b]
    return (min(found), max(found)) if found else None


def unit(case: str) -> str:
    return TARGETS[case].unit if case in TARGETS else "s"


def figure(value: float | None, what: str = "") -> str:
    """Three digits that mean something, and no more."""
    if value is None:
        return "–"
    if what == "s" or abs(value) < 0.995:
        text = f"{value:.2f}" if abs(value) >= 0.0995 else f"{value:.3f}"
    else:
        text = f"{value:.0f}" if abs(value) >= 99.5 else f"{value:.1f}"
    return f"{text} {what}".rstrip()


def verdict(values: Values, case: str) -> str:
    """ "yes", "no", or "" where nothing is asked or nothing was measured."""
    target = TARGETS.get(case)
    if target is None:
        return ""
    value = ratio(values, case, KAP, DOCKER) if target.ratio is not None else median(values, case, KAP)
    return "" if value is None else "yes" if target.met(value) else "no"


def compared(values: Values) -> list[list[str]]:
    """One row per case: every tool's median, ratios, their range over the rounds, the target."""
    tools = [t for t in (KAP, DOCKER, PODMAN) if any(t in by for by in values.values())]
    others = [t for t in tools if t != KAP]
    rows = [["case", *tools, *(f"kap / {t.split()[0].partition('-')[0]}" for t in others), "rounds", "target", "met"]]
    for case in values:
        if "services, per service" in case:
            continue
        row = [case, *(figure(median(values, case, t), unit(case)) for t in tools)]
        for other in others:
            of_medians, ends = ratio(values, case, KAP, other), spread(values, case, KAP, other)
            text = figure(of_medians)
            if ends and len(values[case].get(KAP, ())) > 1:
                text += f" ({figure(ends[0])} to {figure(ends[1])})"
            row.append(text)
        target = TARGETS.get(case)
        rows.append([*row, str(len(values[case].get(KAP, ()))), str(target or ""), verdict(values, case)])
    return rows


def grown(values: Values) -> list[list[str]]:
    """Costs per service by the number of services: linear means that a row's figures stay or fall."""
    cases = [c for c in values if "services, per service" in c]
    sizes = sorted({int(c.rpartition(",")[0].split()[-2]) for c in cases})
    verbs = list(dict.fromkeys(c.partition(" of ")[0] for c in cases))
    rows = [["ms per service", *map(str, sizes), "last / first from 10 on"]]
    for verb in verbs:
        found = [median(values, per_service(verb, n), KAP) for n in sizes]
        from_ten = [v for n, v in zip(sizes, found, strict=True) if n >= 10 and v is not None]
        growth = figure(from_ten[-1] / from_ten[0]) if len(from_ten) > 1 else ""
        rows.append([verb, *(figure(v) for v in found), growth])
    return rows if cases else []


def per_service(verb: str, size: int) -> str:
    return f"{verb} of {size} services, per service"


def by_users(values: Values) -> list[list[str]]:
    """Ordinary users beside root, and beside docker where that is what is asked."""
    users = list(dict.fromkeys(t for by in values.values() for t in by if t.startswith(AS_USER)))
    if not users:
        return []
    rows = [["case", "kap as root", *users, *(f"{u.removeprefix(AS_USER)} / root" for u in users), "target", "met"]]
    for case in values:
        if not any(u in values[case] for u in users):
            continue
        medians = [figure(median(values, case, t), unit(case)) for t in (KAP, *users)]
        ratios = [ratio(values, case, u, KAP) for u in users]
        asked = case.startswith(_USER_CASES)
        met = all(r is None or r <= USER_TO_ROOT for r in ratios)
        target = f"≤ {USER_TO_ROOT:g}" if asked else ""
        if case == _PORTS:
            ratios = [ratio(values, case, u, DOCKER) for u in users]
            met = all(r is None or r >= USER_PORTS_TO_DOCKER for r in ratios)
            target, asked = f"of docker: ≥ {USER_PORTS_TO_DOCKER:g}", True
        rows.append([case, *medians, *map(figure, ratios), target, ("yes" if met else "no") if asked else ""])
    return rows


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table with its columns in line, so that it reads well unrendered too."""
    if not rows:
        return ""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *lines[1:]]) + "\n"


def merged(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Several saved runs as one."""
    values: dict[str, dict[str, list[float]]] = {}
    for run in runs:
        for case, by_tool in run["values"].items():
            for tool, found in by_tool.items():
                values.setdefault(case, {}).setdefault(tool, []).extend(found)
    return {
        "machine": runs[0].get("machine", ""),
        "load": [x for run in runs for x in run.get("load", ())],
        "notes": [x for run in runs for x in run.get("notes", ())],
        "values": values,
    }


def text(run: Mapping[str, Any]) -> str:
    """Everything that a run has to say."""
    values: Values = run["values"]
    load = run.get("load") or [0.0]
    parts = [
        f"{run.get('machine', '')}; load average {min(load):.1f} to {max(load):.1f}, median "
        f"{statistics.median(load):.1f}; medians of the rounds, ratios of medians (least to greatest of one round)\n",
        markdown(compared(values)),
        markdown(grown(values)),
        markdown(by_users(values)),
    ]
    notes = list(dict.fromkeys(run.get("notes") or ()))
    if notes:
        parts.append("\n".join(f"- {note}" for note in notes) + "\n")
    return "\n".join(p for p in parts if p)


if __name__ == "__main__":
    print(text(merged([json.loads(Path(path).read_text()) for path in sys.argv[1:]])))
