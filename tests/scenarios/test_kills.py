"""kill -9 of each process of ours, at varying moments: the next command converges, nothing is lost or left."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from tests.checks import tables, wait_until
from tests.scenarios.conftest import Kap

SIX = "services:\n" + "".join(f"  s{n}: {{image: busybox, command: sleep 1000, restart: always}}\n" for n in range(6))


def ours(kap: Kap, name: str) -> list[int]:
    """Our processes of this project's home, by name."""
    found = []
    for entry in os.listdir("/proc"):
        try:
            if entry.isdigit() and Path(f"/proc/{entry}/comm").read_text().strip() == name:
                command = Path(f"/proc/{entry}/cmdline").read_bytes()
                if str(kap.home).encode() in command and kap.folder.name.encode() in command:
                    found.append(int(entry))
        except OSError:
            continue
    return found


def kill(kap: Kap, *names: str) -> None:
    for name in names:
        for pid in ours(kap, name):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass


def states(kap: Kap) -> list[tuple[str, str]]:
    """What is kept of each container: its state and error."""
    files = kap.home.glob("state/projects/*/containers/*/status.json")
    found = [json.loads(f.read_text()) for f in files]
    return [(s["status"], s["error"]) for s in found]


@pytest.mark.parametrize("victims", [("kap-supervisor",), ("kap-keeper",), ("kap-keeper", "kap-supervisor")])
@pytest.mark.parametrize("verb", [("up", "-d"), ("down", "-t", "0"), ("up", "-d", "--force-recreate")])
def test_a_kill_in_the_middle_of_a_command_is_mended_by_the_next_up(
    kap: Kap, verb: tuple[str, ...], victims: tuple[str, ...]
) -> None:
    kap.file(SIX)
    kap.ok("up", "-d")
    for moment in (0.06, 0.1, 0.15):
        command = kap.start(*verb)
        time.sleep(moment)  # what is tested is the moment
        if len(victims) == 2:
            command.kill()
        kill(kap, *victims)
        command.communicate(timeout=60)
        kap.ok("up", "-d")
        wait_until(lambda: [r["State"] for r in kap.ps().values()] == ["running"] * 6, what=lambda: str(states(kap)))


def test_output_and_exit_codes_outlive_a_killed_supervisor(kap: Kap) -> None:
    count = "i=0; while [ $i -lt 60 ]; do i=$((i+1)); echo $i; sleep 0.02; done; exit 9"
    kap.file(f'services:\n  web:\n    image: busybox\n    command: ["sh", "-c", "{count.replace("$", "$$")}"]\n')
    kap.ok("up", "-d")
    kill(kap, "kap-supervisor")
    wait_until(lambda: kap.ps()[f"{kap.folder.name}-web-1"]["State"] == "exited")
    assert kap.ps()[f"{kap.folder.name}-web-1"]["ExitCode"] == 9
    assert kap.ok("logs", "--no-log-prefix", "web").out.split() == [str(n) for n in range(1, 61)]


@pytest.mark.parametrize("victim", ["kap-supervisor", "kap-keeper"])
def test_the_last_words_of_a_container_outlive_whoever_was_to_read_them(kap: Kap, victim: str) -> None:
    program = "until [ -e /d/go ]; do sleep 0.02; done; echo last; exit 3"
    kap.file(
        f"services:\n  a: {{image: busybox, command: [sh, -c, '{program}'], volumes: ['./d:/d'], init: false}}\n"
        "  b: {image: busybox, command: sleep 1000}\n"
    )
    (kap.folder / "d").mkdir()
    kap.ok("up", "-d")
    inside = int(json.loads(kap.ok("inspect", f"{kap.folder.name}-a-1").out)[0]["State"]["Pid"])
    (reader,) = ours(kap, "kap-supervisor")
    os.kill(reader, signal.SIGSTOP)  # it has other things to do
    (kap.folder / "d" / "go").touch()
    wait_until(lambda: not Path(f"/proc/{inside}/exe").exists())
    kill(kap, victim)
    if victim == "kap-keeper":
        os.kill(reader, signal.SIGCONT)
    wait_until(lambda: kap.state(f"{kap.folder.name}-a-1") == "exited")
    assert kap.ok("logs", "--no-log-prefix", "a").out == "last\n"
    assert kap.ps()[f"{kap.folder.name}-a-1"]["ExitCode"] == 3
    kap.ok("restart", "a")
    wait_until(lambda: kap.ok("logs", "--no-log-prefix", "a").out == "last\nlast\n")
    kap.ok("down", "-t", "0")


def test_names_and_ports_work_on_after_a_kill_of_both(kap: Kap) -> None:
    kap.file("services:\n  web: {image: busybox, command: sleep 1000}\n  db: {image: busybox, command: sleep 1000}\n")
    kap.ok("up", "-d")
    kill(kap, "kap-supervisor")
    wait_until(lambda: ours(kap, "kap-supervisor"))
    assert "172." in kap.ok("exec", "-T", "web", "nslookup", "db", "127.0.0.11").out
    kill(kap, "kap-keeper")
    wait_until(lambda: ours(kap, "kap-keeper") and ours(kap, "kap-supervisor"))
    assert "172." in kap.ok("exec", "-T", "web", "nslookup", "db", "127.0.0.11").out


def test_a_request_of_a_command_that_is_gone_is_not_begun(kap: Kap) -> None:
    kap.file("services:\n  web: {image: busybox, command: sleep 1000}\n")
    kap.ok("up", "-d")
    (supervisor,) = ours(kap, "kap-supervisor")
    os.kill(supervisor, signal.SIGSTOP)
    command = kap.start("kill")  # its request waits in the socket of a supervisor that does not answer
    wait_until(lambda: any("kap-supervisor" in line or "socket" in line for line in waiting_in(command.pid)))
    command.kill()
    command.communicate()
    os.kill(supervisor, signal.SIGCONT)
    kap.ok("exec", "-T", "web", "true")  # whatever waited before it has been served
    assert kap.ps()[f"{kap.folder.name}-web-1"]["State"] == "running"


def waiting_in(pid: int) -> list[str]:
    """What a process that waits has open, once it waits in a receive."""
    if Path(f"/proc/{pid}/wchan").read_text() not in ("__skb_wait_for_more_packets", "unix_stream_read_generic"):
        return []
    return [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]


@pytest.mark.root
def test_a_project_that_was_killed_whole_leaves_nothing_on_the_host_after_down(kap: Kap) -> None:
    kap.file("services:\n  a: {image: busybox, command: sleep 1000, init: true, ports: ['80']}\n")
    before = tables()
    kap.ok("up", "-d")
    assert tables() - before

    def gone() -> bool:
        kill(kap, "kap-keeper", "kap-supervisor")  # each becomes the other
        return not ours(kap, "kap-keeper") and not ours(kap, "kap-supervisor")

    wait_until(gone)
    kap.ok("down", "-t", "0")
    assert tables() <= before
