"""A project's control groups, best effort: below our own membership, v2, v1 or both (cgroups(7)).

Nothing here is required: without a writable group there are no limits, and the kernel's pid namespaces still
end everything. What can't be set is told: `create` answers with the keys and the reasons.
"""

from __future__ import annotations

import os

from kapelle.engines.native import cgroup_tree as tree
from kapelle.engines.native import devices, limits, pausing
from kapelle.light import Any, NamedTuple

Note = tuple[str, str]  # (compose key, why it is not honoured)

_OOM = {tree.UNIFIED: "memory.events", "memory": "memory.oom_control"}  # where the kernel counts what it killed
_ONLY_LIMITS = ("blkio", "cpuset")  # of v1: for nothing else
_PEAKS = ("memory.max_usage_in_bytes", "memory.peak")


class Made(NamedTuple):
    paths: list[str]  # whose cgroup.procs the child writes itself into
    notes: list[Note]
    confined: bool = True  # rules say which devices may be opened


class ProjectCgroups:
    def __init__(self, project: str, root: str = tree.ROOT) -> None:
        self.project = project
        self.places: dict[str, list[str]] = {}
        self.mounted = tree.mounted(root)
        self.own = tree.own(root)
        self.leaf = ""  # where we moved to, so that our v2 group can hand controllers on
        self.handed: set[str] = set()
        self.parents: list[str] = []  # folders that cgroup_parent made us make

    def create(self, container_id: str, wanted: dict[str, Any]) -> Made:
        """Groups for a container, its limits set."""
        notes: list[Note] = []
        rows = []
        try:
            rows = limits.settings(wanted, devices.number_of)
        except OSError as e:
            notes.append(("blkio_config", f"{e.filename}: {e.strerror}"))
        groups = self._make(container_id, wanted.get("cgroup_parent") or "", rows, notes)
        for row in rows:
            why = _set(row, groups)
            if why and row.key:
                notes.append((row.key, why))
        confined = devices.confine(groups, wanted)
        self.places[container_id] = list(groups.values())
        return Made(self.places[container_id], notes + confined.notes, confined.rules)

    def _make(self, container_id: str, parent: str, rows: list[limits.Setting], notes: list[Note]) -> dict[str, str]:
        """Controller → the container's new group."""
        groups: dict[str, str] = {}
        needed = {r.controller_v2 for r in rows if r.controller not in self.own}
        asked = {r.controller for r in rows}
        for controller, base in sorted(self.own.items(), key=lambda row: row[0] == tree.UNIFIED):
            hierarchy = self.mounted[controller]
            if controller in _ONLY_LIMITS and controller not in asked and not parent:
                continue  # making, entering and removing a group costs the kernel a tenth of a millisecond each
            if controller == tree.UNIFIED:
                if not needed and not parent and groups.keys() >= {"devices", "freezer"}:
                    continue  # v1 does it all, and entering a v2 group takes the kernel milliseconds
                base = self._unified_base(base, needed)
            folder = tree.below(base, hierarchy, parent)
            path = f"{folder}/{self._name(container_id)}"
            missing = list(tree.missing(folder))
            try:
                if controller == "cpuset":
                    tree.make_cpuset(path)
                os.makedirs(path, exist_ok=True)
            except OSError as e:
                if parent and not any(key == "cgroup_parent" for key, _ in notes):
                    notes.append(("cgroup_parent", f"{folder}: {e.strerror}"))
                continue
            self.parents += reversed(missing)
            if controller == tree.UNIFIED and parent:
                tree.hand_down(folder, hierarchy, needed)
            groups[controller] = path
        if parent and not self.own:
            notes.append(("cgroup_parent", "there are no control groups here"))
        return groups

    def _unified_base(self, base: str, needed: set[str]) -> str:
        found, leaf = tree.base_for(base, self.mounted[tree.UNIFIED], self.project, needed)
        if leaf:
            self.leaf = leaf
            self.handed |= needed
        return found

    def _name(self, container_id: str) -> str:
        return f"kapelle-{self.project}-{container_id[:12]}"

    def of(self, container_id: str, parent: str = "") -> list[str]:
        """A container's groups; looked for where `create` of an earlier supervisor made them."""
        if container_id not in self.places:
            found = []
            for controller, base in self.own.items():
                hierarchy = self.mounted[controller]
                folders = [tree.below(base, hierarchy, parent)]
                while controller == tree.UNIFIED and folders[-1] != hierarchy and len(folders) < 64:
                    folders.append(os.path.dirname(folders[-1]))
                paths = [f"{folder}/{self._name(container_id)}" for folder in folders]
                found += [path for path in paths if os.path.isdir(path)][:1]
            self.places[container_id] = found
        return self.places[container_id]

    def oom_killed(self, container_id: str) -> bool:
        """Did the kernel kill something in it for want of memory?"""
        counts = [(self.mounted[c], file) for c, file in _OOM.items() if c in self.own]
        for path in self.of(container_id):
            for file in (file for hierarchy, file in counts if path.startswith(f"{hierarchy}/")):
                try:
                    with open(f"{path}/{file}") as f:
                        rows = dict(line.split()[:2] for line in f)
                except (OSError, ValueError):
                    continue
                if int(rows.get("oom_kill", 0)):
                    return True
        return False

    def memory_peak(self, container_id: str) -> int:
        """The most memory that it has had, in bytes; 0 when nobody counted."""
        for path in self.of(container_id):
            for file in _PEAKS:
                try:
                    with open(f"{path}/{file}") as f:
                        return int(f.read())
                except (OSError, ValueError):
                    continue
        return 0

    def freeze(self, container_id: str, pid: int) -> None:
        """Stop all its processes (pause), by signals where there is no freezer."""
        if not self._freezer(container_id, "1", "FROZEN"):
            pausing.stop(pid)

    def thaw(self, container_id: str, pid: int) -> None:
        if not self._freezer(container_id, "0", "THAWED"):
            pausing.go_on(pid)

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
        for path in reversed(self.parents):
            try:
                os.rmdir(path)
            except OSError:
                pass  # others use it, too
        if self.leaf:
            tree.leave_leaf(self.leaf, self.handed)
            self.leaf = ""


def _set(row: limits.Setting, groups: dict[str, str]) -> str:
    """Write a setting's files; "" or why it is not honoured."""
    if row.controller in groups:
        files, folder = row.v1, groups[row.controller]
    else:
        folder = groups.get(tree.UNIFIED, "")
        if not folder or row.controller_v2 not in tree.words_of(f"{folder}/cgroup.controllers"):
            return f"no {row.controller_v2} control group can be made here"
        files = row.v2
        if not files:
            return "control groups v2 have no such setting"
    for names, values in files:
        choices = names.split("|")
        at = next((n for n, name in enumerate(choices) if os.path.exists(f"{folder}/{name}")), -1)
        if at < 0:
            return f"this kernel has no {choices[0]}"
        value = values.split("|")[min(at, values.count("|"))]
        why = tree.write(f"{folder}/{choices[at]}", value)
        if why:
            return f"{choices[at]} = {value}: {why.lower()}"
    return ""
