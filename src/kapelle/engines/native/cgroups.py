"""A project's control groups, best effort: below our own membership, v2, v1 or both (cgroups(7)).

Nothing here is required: without a writable group there are no limits, and the kernel's pid namespaces still
end everything. What can't be set is in `notes`.
"""

from __future__ import annotations

import os
import signal
from typing import Any

_ROOT = "/sys/fs/cgroup"
_V1 = ("memory", "cpu", "pids", "freezer", "cpuset")


class ProjectCgroups:
    def __init__(self, project: str) -> None:
        self.project = project
        self.notes: list[str] = []
        self.places: dict[str, list[str]] = {}
        self.own = _own_groups()

    def create(self, container_id: str, limits: dict[str, Any]) -> list[str]:
        """Groups for a container, its limits set; the folders whose cgroup.procs the child writes itself into."""
        made = []
        for controller, base in self.own.items():
            path = f"{base}/kapelle-{self.project}-{container_id[:12]}"
            try:
                os.makedirs(path, exist_ok=True)
            except OSError:
                continue
            made.append(path)
            for file, value in _settings(controller, limits):
                try:
                    with open(f"{path}/{file}", "w") as f:
                        f.write(value)
                except OSError as e:
                    self.notes.append(f"{controller}: {file}={value}: {e.strerror}")
        self.places[container_id] = made
        return made

    def of(self, container_id: str) -> list[str]:
        if container_id not in self.places:
            name = f"kapelle-{self.project}-{container_id[:12]}"
            self.places[container_id] = [f"{b}/{name}" for b in self.own.values() if os.path.isdir(f"{b}/{name}")]
        return self.places[container_id]

    def oom_killed(self, container_id: str) -> bool:
        """Did the kernel kill something in it for want of memory?"""
        for path in self.of(container_id):
            for file in ("memory.events", "memory.oom_control"):
                try:
                    with open(f"{path}/{file}") as f:
                        rows = dict(line.split()[:2] for line in f)
                except (OSError, ValueError):
                    continue
                if int(rows.get("oom_kill", 0)):
                    return True
        return False

    def freeze(self, container_id: str, pid: int) -> None:
        """Stop all its processes (pause). Without a freezer: its first process alone."""
        if not self._freezer(container_id, "1", "FROZEN"):
            os.kill(pid, signal.SIGSTOP)

    def thaw(self, container_id: str, pid: int) -> None:
        if not self._freezer(container_id, "0", "THAWED"):
            os.kill(pid, signal.SIGCONT)

    def _freezer(self, container_id: str, v2: str, v1: str) -> bool:
        for path in self.of(container_id):
            for file, value in (("freezer.state", v1), ("cgroup.freeze", v2)):
                if os.path.exists(f"{path}/{file}"):
                    with open(f"{path}/{file}", "w") as f:
                        f.write(value)
                    return True
        return False

    def remove(self, container_id: str) -> None:
        for path in self.of(container_id):
            try:
                os.rmdir(path)
            except OSError:
                pass  # a process is still on its way out: swept at the end
        if not any(os.path.isdir(p) for p in self.places.get(container_id, ())):
            self.places.pop(container_id, None)

    def close(self) -> None:
        """Sweep what could not be removed at once."""
        for container_id in list(self.places):
            self.remove(container_id)


def writable() -> list[str]:
    """The controllers whose groups this user can make, tried."""
    found = []
    for controller, base in _own_groups().items():
        path = f"{base}/kapelle-doctor-{os.getpid()}"
        try:
            os.mkdir(path)
            os.rmdir(path)
        except OSError:
            continue
        if controller == "unified":
            controllers = _first_line(f"{base}/cgroup.controllers").split()
            found += [c for c in controllers if c in ("cpu", "cpuset", "io", "memory", "pids")]
        else:
            found.append(controller)
    return found


def _own_groups() -> dict[str, str]:
    """Controller → our own group's folder: v1 hierarchies by name, the unified one as "unified"."""
    found = {}
    try:
        with open("/proc/self/cgroup") as f:
            rows = [line.rstrip("\n").split(":", 2) for line in f]
    except OSError:
        return {}
    for _, names, path in rows:
        if not names:
            base = _ROOT if os.path.exists(f"{_ROOT}/cgroup.controllers") else f"{_ROOT}/unified"
            if os.path.exists(f"{base}/cgroup.controllers"):
                found["unified"] = f"{base}{path}".rstrip("/")
        for name in names.split(","):
            if name in _V1 and os.path.isdir(f"{_ROOT}/{name}"):
                found[name] = f"{_ROOT}/{name}{path}".rstrip("/")
    return found


def _settings(controller: str, limits: dict[str, Any]) -> list[tuple[str, str]]:
    """Files and values, in the order to write them."""
    rows: list[tuple[str, str]] = []
    memory, swap, pids = limits["memory"], limits["memory_swap"], limits["pids"]
    quota, period = limits["cpu_quota"], limits["cpu_period"] or 100_000
    if limits["cpus"]:
        quota = int(limits["cpus"] * period)
    if controller in ("memory", "unified") and memory:
        v1 = controller == "memory"
        rows.append(("memory.limit_in_bytes" if v1 else "memory.max", str(memory)))
        if v1 and swap:
            rows.append(("memory.memsw.limit_in_bytes", str(swap)))
        elif swap:
            rows.append(("memory.swap.max", "max" if swap < 0 else str(max(0, swap - memory))))
    if controller in ("memory", "unified") and limits["memory_reservation"]:
        file = "memory.soft_limit_in_bytes" if controller == "memory" else "memory.low"
        rows.append((file, str(limits["memory_reservation"])))
    if controller == "memory" and limits["oom_kill_disable"]:
        rows.append(("memory.oom_control", "1"))
    if controller in ("pids", "unified") and pids:
        rows.append(("pids.max", "max" if pids < 0 else str(pids)))
    if controller == "cpu" and quota:
        rows += [("cpu.cfs_period_us", str(period)), ("cpu.cfs_quota_us", str(quota))]
    if controller == "unified" and quota:
        rows.append(("cpu.max", f"{quota} {period}"))
    if limits["cpu_shares"]:
        if controller == "cpu":
            rows.append(("cpu.shares", str(limits["cpu_shares"])))
        elif controller == "unified":
            rows.append(("cpu.weight", str(max(1, min(10_000, 1 + (limits["cpu_shares"] - 2) * 9999 // 262_142)))))
    if controller == "cpuset":  # both must be set before a process may enter
        parent_cpus = _first_line(f"{_ROOT}/cpuset/cpuset.cpus")
        rows += [
            ("cpuset.cpus", limits["cpuset"] or parent_cpus),
            ("cpuset.mems", _first_line(f"{_ROOT}/cpuset/cpuset.mems")),
        ]
    if controller == "unified" and limits["cpuset"]:
        rows.append(("cpuset.cpus", limits["cpuset"]))
    return rows


def _first_line(path: str) -> str:
    try:
        with open(path) as f:
            return f.readline().strip()
    except OSError:
        return "0"
