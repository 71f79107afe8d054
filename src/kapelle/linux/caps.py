"""Capabilities (capabilities(7)): names, Docker's default set, and giving them up."""

from __future__ import annotations

import struct
from collections.abc import Iterable

from kapelle.linux import libc, process

# In the kernel's order (linux/capability.h): the index is the number.
NAMES = tuple(
    "CAP_" + name
    for name in [
        "CHOWN",
        "DAC_OVERRIDE",
        "DAC_READ_SEARCH",
        "FOWNER",
        "FSETID",
        "KILL",
        "SETGID",
        "SETUID",
        "SETPCAP",
        "LINUX_IMMUTABLE",
        "NET_BIND_SERVICE",
        "NET_BROADCAST",
        "NET_ADMIN",
        "NET_RAW",
        "IPC_LOCK",
        "IPC_OWNER",
        "SYS_MODULE",
        "SYS_RAWIO",
        "SYS_CHROOT",
        "SYS_PTRACE",
        "SYS_PACCT",
        "SYS_ADMIN",
        "SYS_BOOT",
        "SYS_NICE",
        "SYS_RESOURCE",
        "SYS_TIME",
        "SYS_TTY_CONFIG",
        "MKNOD",
        "LEASE",
        "AUDIT_WRITE",
        "AUDIT_CONTROL",
        "SETFCAP",
        "MAC_OVERRIDE",
        "MAC_ADMIN",
        "SYSLOG",
        "WAKE_ALARM",
        "BLOCK_SUSPEND",
        "AUDIT_READ",
        "PERFMON",
        "BPF",
        "CHECKPOINT_RESTORE",
    ]
)
NUMBERS = {name: number for number, name in enumerate(NAMES)}
# What Docker leaves a container.
DEFAULT = frozenset(
    "CAP_" + name
    for name in [
        "CHOWN",
        "DAC_OVERRIDE",
        "FSETID",
        "FOWNER",
        "MKNOD",
        "NET_RAW",
        "SETGID",
        "SETUID",
        "SETFCAP",
        "SETPCAP",
        "NET_BIND_SERVICE",
        "SYS_CHROOT",
        "KILL",
        "AUDIT_WRITE",
    ]
)

_PR_CAPBSET_DROP = 24
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_VERSION_3 = 0x20080522


def effective_set(add: Iterable[str], drop: Iterable[str], privileged: bool) -> frozenset[str]:
    """The capabilities after cap_add and cap_drop, which take ALL, any case, with or without CAP_.

    Raises ValueError naming an unknown one. As in Docker, what is added wins over `drop: ALL`.
    """
    added, dropped = _names(add), _names(drop)
    if privileged:
        return frozenset(NAMES)
    start = frozenset(NAMES) if "ALL" in added else frozenset() if "ALL" in dropped else DEFAULT
    return (start | (added - {"ALL"})) - (dropped - {"ALL"})


def _names(words: Iterable[str]) -> frozenset[str]:
    found = set()
    for word in words:
        upper = word.upper()
        name = upper if upper == "ALL" or upper.startswith("CAP_") else f"CAP_{upper}"
        if name != "ALL" and name not in NUMBERS:
            raise ValueError(f"unknown capability {word}")
        found.add(name)
    return frozenset(found)


def mask(names: Iterable[str]) -> int:
    """One bit per capability."""
    bits = 0
    for name in names:
        bits |= 1 << NUMBERS[name]
    return bits


def current() -> int:
    """The permitted set of this process, as bits (proc_pid_status(5))."""
    with open("/proc/self/status") as f:
        for line in f:
            if line.startswith("CapPrm:"):
                return int(line.split()[1], 16)
    return 0


def drop_bounding(keep: Iterable[str]) -> None:
    """Take all but `keep` out of the bounding set (prctl(2) PR_CAPBSET_DROP): no exec can get them back."""
    kept = mask(keep)
    with open("/proc/sys/kernel/cap_last_cap") as f:
        last = int(f.read())
    for number in range(last + 1):
        if not kept >> number & 1:
            process.prctl(_PR_CAPBSET_DROP, number)
    from ctypes import c_ulong  # not for those who only know their names

    libc.lib.prctl(_PR_CAP_AMBIENT, *map(c_ulong, (_PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)))


def set_caps(permitted: Iterable[str], effective: Iterable[str], inheritable: Iterable[str]) -> None:
    """capset(2) of this process, within what it holds already."""
    held = current()
    p, e, i = (mask(names) & held for names in (permitted, effective, inheritable))
    header = struct.pack("=II", _VERSION_3, 0)
    low, high = 0xFFFFFFFF, 32
    data = struct.pack("=IIIIII", e & low, p & low, i & low, e >> high, p >> high, i >> high)
    if libc.lib.capset(header, data) < 0:
        libc.raise_errno("capset")
