"""No room, or a place that can't be written to: said with the place, containers go on, and all is well afterwards."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.checks import wait_until
from tests.scenarios.conftest import Kap

WRITER = "i=0; while :; do i=$$((i+1)); echo line $$i of a program that goes on; sleep 0.01; done"
FILE = f"""services:
  writer: {{image: busybox, command: [sh, -c, "{WRITER}"], volumes: ['data:/data'], stop_grace_period: 0s}}
  ends: {{image: busybox, command: [sh, -c, "sleep 1; exit 4"]}}
volumes: {{data: {{}}}}
"""


class Disk:
    """A small file system that holds all of a home."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def fill(self) -> None:
        with open(self.place / "fill", "wb", buffering=0) as f:
            for size in (1 << 20, 4096):
                try:
                    while True:
                        f.write(bytes(size))
                except OSError:
                    continue

    def empty(self) -> None:
        (self.place / "fill").unlink()


@pytest.fixture
def disk(kap: Kap, tmp_path: Path) -> Iterator[Disk]:
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "none", str(place)], check=True)
    kap.environment["KAP_HOME"] = str(place)
    kap.home = place
    made = Disk(place)
    yield made
    if (place / "fill").exists():
        made.empty()
    kap.ok("down", "-v", "-t", "0")
    subprocess.run(["umount", "-l", str(place)], check=True)


def said(text: str) -> bool:
    """A fault of the machine's in words, and no traceback."""
    return "o space left" in text and "hint" in text and "internal error" not in text and "Traceback" not in text


@pytest.mark.root
def test_containers_outlive_a_full_disk_and_keep_their_exit_codes(kap: Kap, disk: Disk) -> None:
    kap.file(FILE)
    disk.fill()
    done = kap("up", "-d")
    assert done.code == 1
    assert said(done.err), done
    disk.empty()
    kap.ok("pull", "-q")
    disk.fill()
    done = kap("up", "-d")
    assert done.code == 1
    assert said(done.err), done
    disk.empty()
    kap.ok("up", "-d")
    disk.fill()
    name = kap.folder.name
    wait_until(lambda: kap.state(f"{name}-ends-1") == "exited")
    assert kap.ps()[f"{name}-ends-1"]["ExitCode"] == 4
    assert kap.ok("exec", "-T", "writer", "echo", "hello").out == "hello\n"
    kap.ok("restart", "-t", "0", "writer")
    folder = next(kap.home.glob(f"state/projects/{name}/events.jsonl"))
    wait_until(lambda: "log_error" in folder.read_text() or _no_room_left(kap), 30)
    disk.empty()
    wait_until(lambda: "no room for" in kap.ok("logs", "writer").out, 30)
    numbers = [line.split() for line in kap.ok("logs", "--no-log-prefix", "writer").out.splitlines()]
    assert all(words[0] in ("line", "[kap:") for words in numbers), "no line is torn"
    assert {r["State"] for r in kap.ps().values()} == {"running", "exited"}
    disk.fill()
    kap.ok("down", "-t", "0")
    disk.empty()
    kap.ok("up", "-d")


def _no_room_left(kap: Kap) -> bool:
    """The last page of the log is full, too: the event could not be written either."""
    sizes = [f.stat().st_size for f in kap.home.glob("state/projects/*/containers/*/log/1")]
    return any(size and not size % 4096 for size in sizes) or max(sizes, default=0) > 4096 - 120


@pytest.mark.root
def test_a_read_only_home_is_said_and_looking_works(kap: Kap, disk: Disk) -> None:
    kap.file(FILE)
    subprocess.run(["mount", "-o", "remount,ro", str(disk.place)], check=True)
    try:
        for words in (("up", "-d"), ("pull",), ("build",)):
            done = kap(*words)
            assert done.code == 1
            assert "Read-only file system" in done.err, done
            assert "KAP_HOME" in done.err
        for words in (("ps",), ("logs",), ("ls",), ("images",), ("config", "-q")):
            kap.ok(*words)
    finally:
        subprocess.run(["mount", "-o", "remount,rw", str(disk.place)], check=True)


def test_a_home_that_is_somebody_elses_is_said(kap: Kap, tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    kap.environment["KAP_HOME"] = "/usr/kapelle-home"
    kap.file(FILE)
    done = kap("up", "-d")
    (kap.folder / "compose.yaml").unlink()
    kap.environment["KAP_HOME"] = str(kap.home)
    assert done.code == 1
    assert "Permission denied" in done.err or "may not be written" in done.err
    assert "KAP_HOME" in done.err
    assert "internal error" not in done.err
