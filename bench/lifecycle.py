"""up, up again, ps, exec, run, down of sleepers; down of what handles SIGTERM; costs by the number of services."""

from __future__ import annotations

import time
from contextlib import ExitStack

import files
from report import PODMAN, per_service
from sides import Run, Tool

GROWING = (1, 10, 50, 100, 200, 300)


def sizes(run: Run, wanted: list[int], podman_most: int) -> None:
    """One interleaved round of every case at every size."""
    for size in wanted:
        tools = [t for t in run.tools if t.name != PODMAN or size <= podman_most]
        _sleepers(run, tools, size)


def _sleepers(run: Run, tools: list[Tool], size: int) -> None:
    with ExitStack() as stack:
        name = f"sleepers{size}"
        places = {t.name: stack.enter_context(run.project(t, name, files.sleepers(size))) for t in tools}
        cases: list[tuple[str, tuple[str, ...]]] = [
            (f"up -d {size}", ("up", "-d")),
            (f"up -d again {size}", ("up", "-d")),
            (f"ps {size}", ("ps", "--format", "json")),
        ]
        if size == 1:
            cases += [
                ("exec", ("exec", "-T", "s1", "true")),
                ("run --rm", ("run", "--rm", "-T", "s1", "true")),
                ("version", ("version",)),
            ]
        cases.append((f"down -t 0 {size}", ("down", "-t", "0")))
        for case, words in cases:

            def once(tool: Tool, case: str = case, words: tuple[str, ...] = words) -> None:
                run.note(case, tool, tool.run(places[tool.name], *words))

            tools = run.each(tools, once)


def handled(run: Run, size: int = 10) -> None:
    """`down` of services that end at once when they are asked to."""

    def once(tool: Tool) -> None:
        with run.project(tool, "handlers", files.handlers(size)) as place:
            tool.run(place, "up", "-d")
            time.sleep(0.5)  # for every shell to have set its trap
            run.note(f"down {size}, SIGTERM handled", tool, tool.run(place, "down"))

    run.each([t for t in run.tools if t.user is None], once)


def growing(run: Run) -> None:
    """What a service costs kap, by how many there are."""
    for size in GROWING:
        with run.project(run.kap, f"growing{size}", files.sleepers(size)) as place:
            verbs = (("up", ("up", "-d")), ("up again", ("up", "-d")), ("ps", ("ps", "--format", "json")))
            for verb, words in (*verbs, ("down", ("down", "-t", "0"))):
                run.note(per_service(verb, size), run.kap, run.kap.run(place, *words) * 1000 / size)


def configs(run: Run) -> None:
    """`config` alone: needs no engine on either side."""
    for size in (1, 50, 300):

        def once(tool: Tool, size: int = size) -> None:
            if tool.name != PODMAN or size == 1:  # it takes minutes for more
                place = run.place(tool, f"config{size}", files.mixed(size))
                run.note(f"config {size}", tool, tool.run(place, "config"))

        run.each([t for t in run.tools if t.user is None], once)
