"""What a container uses: its control groups where there are some (cgroups(7)), else its processes in /proc."""

from __future__ import annotations

import os
import time

from kapelle.engines.native.cgroups import ProjectCgroups
from kapelle.light import NamedTuple
from kapelle.linux import process
from kapelle.plan.observed import Container

_NO_LIMIT = 1 << 60


class Usage(NamedTuple):
    """Bytes, and seconds of CPU time since its start; `at` is the time of looking (monotonic)."""

    at: float
    cpu: float
    memory: int
    limit: int  # of memory: the machine's, where it has none of its own
    received: int
    sent: int
    read: int
    written: int
    processes: int


def of(container: Container, groups: ProjectCgroups) -> Usage:
    """What a running container uses now; zeros of one that does not run."""
    total = _machine_memory()
    now = time.monotonic()
    if not container.pid or container.status not in ("running", "paused"):
        return Usage(now, 0.0, 0, 0, 0, 0, 0, 0, 0)
    processes = process.in_namespace_of(container.pid)
    cpu, resident, read, written = _sum(processes)
    folders = groups.of(container.id)
    memory, limit = _memory(folders)
    counted = _cpu(folders)
    received, sent = _network(container.pid)
    return Usage(
        now,
        cpu if counted is None else counted,
        resident if memory is None else memory,
        min(limit or total, total),
        received,
        sent,
        read,
        written,
        len(processes),
    )


def _machine_memory() -> int:
    with open("/proc/meminfo") as f:
        return int(f.readline().split()[1]) << 10


def _sum(processes: list[int]) -> tuple[float, int, int, int]:
    """CPU seconds (of ended children too), resident bytes, bytes read and written of storage."""
    ticks, pages, read, written = 0, 0, 0, 0
    for name in processes:
        try:
            with open(f"/proc/{name}/stat", "rb") as f:
                fields = f.read().rpartition(b")")[2].split()
            ticks += sum(int(n) for n in fields[11:15])
            pages += int(fields[21])
            with open(f"/proc/{name}/io") as f:
                rows = dict(line.split(": ") for line in f)
            read += int(rows["read_bytes"])
            written += int(rows["write_bytes"])
        except (OSError, KeyError, ValueError, IndexError):
            continue
    return ticks / os.sysconf("SC_CLK_TCK"), pages * os.sysconf("SC_PAGE_SIZE"), read, written


def _memory(folders: list[str]) -> tuple[int | None, int]:
    """Memory without reclaimable file pages, as docker shows it, and the limit (0: none); None without a group."""
    for folder in folders:
        for usage, limit, inactive in (
            ("memory.usage_in_bytes", "memory.limit_in_bytes", "total_inactive_file"),
            ("memory.current", "memory.max", "inactive_file"),
        ):
            text = _read(f"{folder}/{usage}")
            if not text:
                continue
            stat = dict(line.split() for line in _read(f"{folder}/memory.stat").splitlines() if line.count(" ") == 1)
            most = _read(f"{folder}/{limit}").strip()
            bound = int(most) if most.isdigit() and int(most) < _NO_LIMIT else 0
            return max(0, int(text) - int(stat.get(inactive, 0))), bound
    return None, 0


def _cpu(folders: list[str]) -> float | None:
    for folder in folders:
        for line in _read(f"{folder}/cpu.stat").splitlines():
            key, _, value = line.partition(" ")
            if key == "usage_usec":
                return int(value) / 1e6
    return None


def _network(pid: int) -> tuple[int, int]:
    received = sent = 0
    for line in _read(f"/proc/{pid}/net/dev").splitlines()[2:]:
        name, _, rest = line.partition(":")
        if name.strip() != "lo":
            fields = rest.split()
            received += int(fields[0])
            sent += int(fields[8])
    return received, sent


def _read(path: str) -> str:
    try:
        with open(path) as f:
            return f.read()
    except OSError:
        return ""
