"""A file that asks for the host: told before its first start, quiet afterwards, never in the way."""

from __future__ import annotations

import os

from tests.scenarios.conftest import Kap

FILE = """services:
  a:
    image: busybox
    command: [sleep, '1000']
    network_mode: host
    volumes: ['/etc:/host-etc:ro']
"""


def test_it_is_told_once_with_its_place_before_anything_starts_and_not_on_stdout(kap: Kap) -> None:
    kap.file(FILE)
    dry = kap.ok("--dry-run", "up", "-d")
    assert "network_mode: host" in dry.err
    first = kap.ok("run", "--rm", "-T", "a", "echo", "x")
    assert first.out == "x\n"
    assert "compose.yaml:5:" in first.err
    assert "network_mode: host: it uses the host's network" in first.err
    assert "compose.yaml:6:" in first.err
    assert "/etc lets it read the host's settings" in first.err
    again = kap.ok("up", "-d")
    assert "host's" not in again.err
    kap.ok("down")
    assert "host's" not in kap.ok("up", "-d").err


def test_what_is_added_later_is_told_alone(kap: Kap) -> None:
    kap.file(FILE)
    kap.ok("up", "-d")
    kap.file(FILE.replace("network_mode", "cap_add: [SYS_ADMIN]\n    network_mode"))
    told = kap.ok("up", "-d").err
    assert "cap_add SYS_ADMIN" in told
    assert "network_mode" not in told


def test_a_place_that_can_not_be_written_holds_nothing_up(kap: Kap) -> None:
    kap.file(FILE)
    folder = kap.home / "state" / "told"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{kap.folder.name}.json").write_text("{no json")
    assert "network_mode: host" in kap.ok("up", "-d").err


def test_what_is_privileged_is_as_good_as_who_runs_it_and_starts_whatever_the_commands_input_is(kap: Kap) -> None:
    kap.file("services: {a: {image: busybox, privileged: true, command: [sleep, '1000']}}\n")
    started = kap.start("up", "-d")  # its input is a device, not a pipe
    said, _ = started.communicate(timeout=120)
    assert started.returncode == 0, said
    who = "root" if os.geteuid() == 0 and os.environ.get("KAP_RUNG", "R1") == "R1" else "you"
    assert f"which is as good as being {who} on this host" in said
    assert kap.ok("exec", "-T", "a", "sh", "-c", "echo x > /dev/null; ls -d /dev/stdin /dev/zero").out
