"""Several commands at once on one project, and projects side by side: whatever they get in each other's way, it ends
as the last one wanted it.
"""

from __future__ import annotations

import itertools

import pytest

from tests.checks import wait_until
from tests.scenarios.conftest import Kap

FILE = "services:\n" + "".join(
    f"  s{n}: {{image: busybox, command: sleep 1000, stop_grace_period: 0s, init: true}}\n" for n in range(4)
)
UP, DOWN = ("up", "-d"), ("down", "-t", "0")


@pytest.mark.parametrize("pair", [(UP, UP), (UP, DOWN), (DOWN, DOWN), (UP, ("ps", "-a")), (UP, ("restart", "-t", "0"))])
def test_two_commands_at_once_converge(kap: Kap, pair: tuple[tuple[str, ...], tuple[str, ...]]) -> None:
    kap.file(FILE)
    for first, second in itertools.islice(itertools.cycle([pair, pair[::-1]]), 4):
        running = [kap.start(*first), kap.start(*second)]
        told = [r.communicate(timeout=60)[0] for r in running]
        for text in told:
            assert "internal error" not in text, told
            assert "Traceback" not in text, told
        if ("restart", "-t", "0") not in pair:
            assert [r.returncode for r in running] == [0, 0], told
    kap.ok("up", "-d")
    assert [r["State"] for r in kap.ps().values()] == ["running"] * 4
    kap.ok("down", "-t", "0")
    assert kap.ps() == {}


def test_two_projects_come_and_go_side_by_side(kap: Kap) -> None:
    kap.file(FILE)
    projects = [("-p", f"{kap.folder.name}{n}") for n in range(3)]
    for _ in range(3):
        for words in (UP, DOWN):
            running = [kap.start(*project, *words) for project in projects]
            told = [r.communicate(timeout=60)[0] for r in running]
            assert [r.returncode for r in running] == [0, 0, 0], told
            count = 4 if words == UP else 0
            for project in projects:
                wait_until(lambda: len(kap.ok(*project, "ps", "-q").out.split()) == count)  # noqa: B023
