"""`--dry-run`: whatever the command, nothing is made, changed, run or removed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.scenarios.conftest import Kap

FILE = """
services:
  web: {image: busybox, command: sleep 1000, volumes: ['data:/data']}
  other: {image: busybox, command: sleep 1000, profiles: [more]}
volumes: {data: {}}
"""
COMMANDS = """
up -d --force-recreate --scale web=2 | up | create | start | stop | restart | kill | rm -fs | down -v --rmi all
pause | run --rm web touch /data/ran | run -d web touch /data/ran | exec -T web touch /data/ran | scale web=3
cp compose.yaml web:/data/ran | pull | push | build | commit web made | export -o made.tar web
volume create made | volume rm loose | volume prune -af | network create made | network rm loose | network prune -f
image pull busybox | image prune -af | rmi -f busybox | tag busybox made | load -i none.tar | save -o made.tar busybox
import none.tar made | login -u me -p it registry.example | logout registry.example
system prune -af --volumes | gc --cache | standins build debian | bundle save made.kap | attach web
autostart on | autostart off
""".replace("\n", "|").split("|")


@pytest.fixture
def project(kap: Kap, tmp_path: Path) -> Kap:
    kap.file(FILE)
    kap.ok("pull", "-q")
    kap.ok("save", "-o", "busybox.tar", "busybox")
    kap.home = tmp_path / "home"
    kap.environment |= {"KAP_HOME": str(kap.home), "HOME": str(tmp_path), "KAP_STAND_INS": "0"}
    kap.ok("load", "-q", "-i", "busybox.tar")
    os.unlink(kap.folder / "busybox.tar")
    kap.ok("up", "-d")
    kap.ok("volume", "create", "loose")
    kap.ok("network", "create", "loose")
    return kap


def seen(project: Kap) -> list[str]:
    """All that a command could change: containers and what they hold, images, volumes, networks, files."""
    rows = [
        project.ok(*words.split()).out
        for words in (
            "ps -a --no-trunc --format json",
            "volume ls",
            "network ls",
            "image ls --no-trunc --format {{.Repository}}:{{.Tag}}@{{.ID}}",  # its columns tell a time that passes
            "exec -T web ls /data",
        )
    ]
    places = (project.folder, project.home / "data" / "volumes", project.home.parent / ".docker")
    return [*rows, *sorted(str(path) for place in places for path in place.rglob("*"))]


def without_times(rows: list[str]) -> list[str]:
    return [row.split('"RunningFor"')[0] for row in rows]


def test_a_dry_run_of_any_command_changes_nothing(project: Kap) -> None:
    before = without_times(seen(project))
    for text in filter(None, map(str.strip, COMMANDS)):
        done = project("--dry-run", *text.split(), stdin="")
        assert done.code in (0, 1), (text, done)
        assert "KAP999" not in done.err, (text, done)
        assert without_times(seen(project)) == before, text


def test_a_dry_run_says_what_would_go(project: Kap) -> None:
    assert project.ok("--dry-run", "volume", "prune", "-af").out == "Would delete Volumes:\nloose\n"
    assert "nothing was done" in project.ok("--dry-run", "exec", "web", "true").err
    shown = project.ok("--dry-run", "system", "prune", "-af").out
    assert "Would delete Networks:\nloose\n" in shown
    assert "Total space that would be reclaimed" in shown
