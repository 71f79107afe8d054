"""Which devices a container has: nodes in its /dev, and what its control group lets it open (Docker's rules).

The rules stand in the v1 devices controller, or in a BPF program on the v2 group. Without either a container can make
no nodes, and those of its image can't be opened.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping

from kapelle.engines.native import cgroup_tree as tree
from kapelle.light import Any, NamedTuple

ANY = -1
_SKIPPED = frozenset(  # of /dev: a container has its own
    ("pts", "shm", "fd", "mqueue", "console", "log", "stdin", "stdout", "stderr", "ptmx")
)


class Rule(NamedTuple):
    """Devices that may be opened (r, w) or made (m)."""

    kind: str  # a, b, c
    major: int
    minor: int
    access: str

    def __str__(self) -> str:
        major, minor = ("*" if n == ANY else str(n) for n in (self.major, self.minor))
        return f"{self.kind} {major}:{minor} {self.access}"


class Node(NamedTuple):
    path: str  # in the container
    mode: int
    number: int  # st_rdev
    uid: int
    gid: int
    source: str = ""  # on the host


# As runc and Docker: any node may be made, these may be opened.
DEFAULT = (
    Rule("c", ANY, ANY, "m"), Rule("b", ANY, ANY, "m"), Rule("c", 1, 3, "rwm"), Rule("c", 1, 5, "rwm"),
    Rule("c", 1, 7, "rwm"), Rule("c", 1, 8, "rwm"), Rule("c", 1, 9, "rwm"), Rule("c", 5, 0, "rwm"),
    Rule("c", 5, 1, "rwm"), Rule("c", 5, 2, "rwm"), Rule("c", 136, ANY, "rwm"), Rule("c", 10, 200, "rwm"),
)  # fmt: skip


def parse(text: str) -> Rule:
    """A rule of device_cgroup_rules ("c 13:* rw"). ValueError for anything else."""
    import re  # few services have rules of their own

    found = re.fullmatch(r"([acb]) ([0-9]+|\*):([0-9]+|\*) ([rwm]{1,3})", text)
    if found is None:
        raise ValueError(f"invalid device cgroup format: '{text}'")
    kind, major, minor, access = found.groups()
    numbers = [ANY if n == "*" else int(n) for n in (major, minor)]
    return Rule(kind, numbers[0], numbers[1], access)


def number_of(path: str) -> str:
    """ "major:minor" of a device's node. Raises OSError."""
    number = os.stat(path).st_rdev
    return f"{os.major(number)}:{os.minor(number)}"


def nodes(source: str, target: str) -> Iterator[Node]:
    """The node at `source`, or those in the folder `source`, each with its place in the container."""
    info = os.stat(source)
    if stat.S_ISDIR(info.st_mode):
        for name in sorted(os.listdir(source)):
            if (
                name not in _SKIPPED
                and not name.startswith((".lxc", ".udev"))
                and not os.path.islink(f"{source}/{name}")
            ):
                try:
                    yield from nodes(f"{source}/{name}", f"{target}/{name}")
                except OSError:
                    continue  # it was unplugged just now, or is a link to nothing
    elif stat.S_ISCHR(info.st_mode) or stat.S_ISBLK(info.st_mode):
        yield Node(target, info.st_mode, info.st_rdev, info.st_uid, info.st_gid, source)


def node_of(row: Mapping[str, Any]) -> Iterator[Node]:
    """The nodes of a launch's row: of the host, or as a specification has them."""
    if row.get("number"):
        kind, major, minor = row["number"]
        mode = (stat.S_IFBLK if kind == "b" else stat.S_IFCHR) | 0o666
        found = [Node(row["target"], mode, os.makedev(major, minor), 0, 0, row["source"])]
    else:
        found = list(nodes(row["source"], row["target"]))
    for node in found:
        changes = {key: row[key] for key in ("uid", "gid", "mode") if row.get(key) is not None}
        if "mode" in changes:
            changes["mode"] |= stat.S_IFMT(node.mode)
        yield node._replace(**changes)


def rules(wanted: Mapping[str, Any]) -> list[tuple[str, Rule]]:
    """(compose key, rule) of all that these limits allow; the key is "" for what every container may."""
    found = [("", rule) for rule in DEFAULT]
    for at, (source, target, access, *number) in enumerate(wanted.get("devices") or ()):
        if number and number[0]:
            kind, major, minor = number[0]
            found.append((f"devices[{at}]", Rule(kind, major, minor, access)))
            continue
        try:
            for node in nodes(source, target):
                kind = "b" if stat.S_ISBLK(node.mode) else "c"
                found.append((f"devices[{at}]", Rule(kind, os.major(node.number), os.minor(node.number), access)))
        except OSError:
            continue  # the launch tells: the node can't be made either
    for at, text in enumerate(wanted.get("device_rules") or ()):
        found.append((f"device_cgroup_rules[{at}]", parse(text)))
    return found


class Confined(NamedTuple):
    rules: bool  # they stand; else the launch has to see to it that there is no node to open
    notes: list[tuple[str, str]]  # (key, why) of what can't be honoured


def confine(groups: Mapping[str, str], wanted: Mapping[str, Any]) -> Confined:
    """Let a container's groups open what it may and nothing else."""
    if wanted.get("privileged"):
        return Confined(True, [])  # all devices of the host
    allowed = rules(wanted)
    folder = groups.get("devices")
    if folder and not tree.write(f"{folder}/devices.deny", "a"):
        told = [(key, rule, tree.write(f"{folder}/devices.allow", str(rule))) for key, rule in allowed]
        return Confined(
            True, [(key, f"devices.allow = {rule}: {why.lower()}") for key, rule, why in told if why and key]
        )
    why = "no devices control group can be made here"
    if tree.UNIFIED in groups:
        from kapelle.linux import bpf

        try:
            bpf.attach_device_program(groups[tree.UNIFIED], [rule for _, rule in allowed])
            return Confined(True, [])
        except OSError as e:
            why = f"the kernel takes no program for devices: {(e.strerror or str(e)).lower()}"
    keys = dict.fromkeys(k for k, _ in allowed if k.startswith("device_cgroup_rules"))
    return Confined(False, [(key, why) for key in keys])
