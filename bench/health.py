"""Health checks: a chain that waits, what a check costs, checks in time. And what fifty containers cost."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import files
from beats import told
from files import IMAGE
from report import DOCKER
from sides import Run, Tool

_DAEMONS = re.compile(r"dockerd|containerd|containerd-shim.*|docker-proxy")
_INTERVAL = 5.0
_SLACK = 1.0  # a check that comes later than this is late
_TICKS = os.sysconf("SC_CLK_TCK")


def _measured_tools(run: Run) -> list[Tool]:
    """Without podman: its checks are systemd's timers, which many machines lack."""
    return [run.kap, *run.only(DOCKER)]


def chain(run: Run) -> None:
    """Five services, each healthy at once, each waiting for the one before; checked every five seconds."""
    rows = ["services:"]
    for number in range(5):
        wait = f"depends_on: {{s{number - 1}: {{condition: service_healthy}}}}, " if number else ""
        check = "healthcheck: {test: [CMD, /bin/sh, -c, ':'], interval: 5s}"
        rows.append(
            f"  s{number}: {{image: {IMAGE}, command: [sleep, '1000000'], {wait}{check}, stop_grace_period: 1s}}"
        )

    def once(tool: Tool) -> None:
        with run.project(tool, "chain", "\n".join(rows) + "\n") as place:
            run.note("chain of 5 healthy", tool, tool.run(place, "up", "-d", "--wait"))

    run.each(_measured_tools(run), once)


def checks(run: Run, size: int = 50, seconds: float = 30.0) -> None:
    """CPU of the tool's own processes and of the checks they start, per check; and checks that came late."""

    def once(tool: Tool) -> None:
        beats = run.folder / f"beats-{tool.slug}"
        beats.mkdir(exist_ok=True)
        for old in beats.iterdir():
            old.unlink()
        rows = ["services:"]
        for number in range(size):
            test = json.dumps(["CMD", "/bin/sh", "-c", f"read t r < /proc/uptime; echo $$t >> /beats/{number}"])
            rows += [
                f"  s{number}: {{image: {IMAGE}, command: [sleep, '1000000'], stop_grace_period: 1s,",
                f"    volumes: ['{beats}:/beats'], healthcheck: {{test: {test}, interval: {_INTERVAL:g}s}}}}",
            ]
        with run.project(tool, "checks", "\n".join(rows) + "\n") as place:
            tool.run(place, "up", "-d")
            time.sleep(2 * _INTERVAL)  # for the first checks to have been
            began, used = _uptime(), _cpu(tool, run)
            time.sleep(seconds)
            ended, used = _uptime(), _cpu(tool, run) - used
            late, done, due = told(_beats(beats), began, ended, _INTERVAL + _SLACK)
            run.note("CPU per health check", tool, used * 1000 / max(done, 1))
            run.note(f"late checks of {size} at {_INTERVAL:g} s", tool, late * 100 / max(due, 1))

    run.each(_measured_tools(run), once)


def _beats(folder: Path) -> list[list[float]]:
    return [[float(t) for t in path.read_text().split()] for path in sorted(folder.iterdir())]


def memory(run: Run, size: int = 50) -> None:
    """Own processes of a project, and their memory (PSS: shared pages counted in parts), daemons included."""

    def once(tool: Tool) -> None:
        with run.project(tool, "memory", files.sleepers(size)) as place:
            tool.run(place, "up", "-d")
            kilobytes = count = 0
            for pid in _own(tool, run):
                try:
                    told = Path(f"/proc/{pid}/smaps_rollup").read_text()
                except OSError:
                    continue
                kilobytes += int(re.findall(r"^Pss:\s+(\d+)", told, re.MULTILINE)[0])
                count += 1
            run.note(f"own memory at {size}", tool, kilobytes / 1024)
            run.note(f"own processes at {size}", tool, count)

    run.each(_measured_tools(run), once)


def _own(tool: Tool, run: Run) -> Iterator[str]:
    """Processes that are the tool's, not the containers'."""
    home = tool.environment.get("KAP_HOME", "").encode()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if tool.is_kap:
                if home in Path(f"/proc/{pid}/cmdline").read_bytes() and pid != str(os.getpid()):
                    yield pid
            elif _DAEMONS.fullmatch(Path(f"/proc/{pid}/comm").read_text().strip()):
                yield pid
        except OSError:
            continue


def _cpu(tool: Tool, run: Run) -> float:
    """Seconds that they and the children they have waited for have used."""
    total = 0
    for pid in _own(tool, run):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += sum(map(int, fields[11:15]))
    return total / _TICKS


def _uptime() -> float:
    return float(Path("/proc/uptime").read_text().split()[0])
