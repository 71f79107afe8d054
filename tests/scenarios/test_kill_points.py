"""kill -9 at named steps of each of our processes (tools/kills.py has them all): the next command converges."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scenarios.conftest import ROOT

sys.path.insert(0, str(ROOT / "tools"))
import kills

# verb, process, what is about to be called there, a part of the place
POINTS = (
    ("up", "command", "rename", "making.py"),  # between the files of a container and the container
    ("up", "supervisor", "sendmsg", "keeper_channel.py"),  # about to have the keeper fork
    ("up", "supervisor", "send ", "bridges.py"),  # a bridge half made
    ("up", "keeper", "fork", "keeper.py"),
    ("up", "launcher", "mount", "fsops.py"),
    ("recreate", "command", "unlink", "making.py"),  # between the old container and the new
    ("recreate", "keeper", "rename", "keeper_files.py"),  # an exit that is not written yet
    ("restart", "supervisor", "write", "logs.py"),  # a line that is read and not written
    ("restart", "supervisor", "close", "publishing.py"),  # a port half given back
    ("run", "command", "sendmsg", "oneoff.py"),
    ("run", "supervisor", "open", "making.py"),  # a one-off that has ended is being removed
    ("down", "command", "unlink", "making.py"),
    ("down", "supervisor", "unlink", "supervisor.py"),
    ("supervisor", "supervisor", "splice", "intake.py"),  # the one after one that was killed
    ("keeper", "keeper", "sendmsg", "keeper.py"),
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, kap_home: Path) -> Iterator[kills.Site]:
    made = kills.Site(tmp_path_factory.mktemp("kills"), kap_home, "killpoints")
    yield made
    kills.mend(made)


@pytest.fixture(scope="module")
def points(site: kills.Site) -> dict[str, list[kills.Point]]:
    """The points of each verb."""
    return {verb: kills.record(site, verb) for verb in sorted({p[0] for p in POINTS})}


@pytest.mark.parametrize(("verb", "role", "call", "place"), POINTS)
def test_the_next_command_converges_and_nothing_is_lost_or_left(
    site: kills.Site, points: dict[str, list[kills.Point]], verb: str, role: str, call: str, place: str
) -> None:
    found = [p for p in points[verb] if p.role == role and p.place.startswith(call) and place in p.place]
    assert found, [p.place for p in points[verb] if p.role == role]
    kills.attempt(site, found[0], "down" if verb == "down" else "up", [])
