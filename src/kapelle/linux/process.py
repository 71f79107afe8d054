"""Processes: prctl(2), pidfds, identity by pid + start time + boot id, close_range(2)."""

from __future__ import annotations

import errno
import os
import struct
import time

from kapelle.linux import libc

_TICKS = os.sysconf("SC_CLK_TCK")
PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_KEEPCAPS = 8
PR_SET_NAME = 15
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
_PR_SET_SECUREBITS = 28
_SECBIT_NO_SETUID_FIXUP = 1 << 2

# struct pidfd_info of pidfd_open(2)/ioctl PIDFD_GET_INFO, Linux 6.13; the exit code since 6.15.
_PIDFD_GET_INFO = 0xC0 << 24 | 64 << 16 | 0xFF << 8 | 11
_PIDFD_INFO_EXIT = 1 << 3


def prctl(option: int, value: int = 0) -> None:
    """prctl(2), for options that take one number, such as PR_SET_CHILD_SUBREAPER."""
    from ctypes import c_ulong

    if libc.lib.prctl(option, *map(c_ulong, (value, 0, 0, 0))) < 0:  # variadic: widths matter
        libc.raise_errno("prctl", f"option {option}")


def kernel() -> tuple[int, int]:
    """The kernel's version: (6, 1)."""
    major, minor = os.uname().release.split(".")[:2]
    return int(major), int("".join(c for c in minor if c.isdigit()) or 0)


def set_filesystem_ids(uid: int, gid: int) -> None:
    """setfsuid(2), setfsgid(2): whose the files are that this process makes. No capability is lost by it."""
    from ctypes import c_uint

    prctl(_PR_SET_SECUREBITS, _SECBIT_NO_SETUID_FIXUP)
    libc.lib.setfsgid(c_uint(gid))
    libc.lib.setfsuid(c_uint(uid))


def set_name(name: str) -> None:
    """The name that ps(1) shows for this thread; 15 bytes."""
    from ctypes import c_ulong, create_string_buffer

    buffer = create_string_buffer(name.encode()[:15])
    libc.lib.prctl(PR_SET_NAME, buffer, c_ulong(0), c_ulong(0), c_ulong(0))


def clear_command_line(text: str) -> None:
    """Write over what ps(1) and /proc/PID/cmdline show of this process's arguments (proc_pid_stat(5) 48, 49)."""
    try:
        with open("/proc/self/stat", "rb") as f:
            fields = f.read().rpartition(b")")[2].split()
        begin, end = int(fields[45]), int(fields[46])
    except (OSError, IndexError, ValueError):
        return  # an old kernel, or one that hides them: nothing to write over
    if 0 < begin < end:
        import ctypes

        ctypes.memset(begin, 0, end - begin)
        ctypes.memmove(begin, text.encode()[: end - begin - 1], min(len(text), end - begin - 1))


def close_range(first: int, last: int = 0xFFFFFFFF) -> None:
    """close_range(2); without it (before Linux 5.9) descriptors are closed one by one."""
    try:
        libc.syscall(libc.SYS_close_range, first, last, 0, call="close_range")
    except OSError as e:
        if e.errno != errno.ENOSYS:
            raise
        os.closerange(first, min(last, os.sysconf("SC_OPEN_MAX")))


def handle_of(pid: int) -> int:
    """A pidfd; -1 for a process that has ended and is reaped."""
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return -1


def pidfd_exit_status(pidfd: int) -> int | None:
    """The wait status of a process that was reaped by somebody else, or None when the kernel can't tell.

    ioctl(2) PIDFD_GET_INFO with PIDFD_INFO_EXIT (Linux 6.15). None also while the process is not yet reaped.
    """
    from ctypes import c_ulong, create_string_buffer

    buffer = create_string_buffer(struct.pack("=Q", _PIDFD_INFO_EXIT) + b"\0" * 56, 64)
    if libc.lib.ioctl(pidfd, c_ulong(_PIDFD_GET_INFO), buffer) < 0:
        return None
    mask = struct.unpack_from("=Q", buffer, 0)[0]
    if not mask & _PIDFD_INFO_EXIT:
        return None
    status: int = struct.unpack_from("=i", buffer, 60)[0]
    return status


def boot_id() -> str:
    """An id that changes with each boot (random(4)); "" where it can't be read."""
    global _boot_id
    if not _boot_id:  # no process sees two
        try:
            with open("/proc/sys/kernel/random/boot_id") as f:
                _boot_id = f.read().strip()
        except OSError:
            pass
    return _boot_id


_boot_id = ""


def start_time(pid: int) -> int:
    """Clock ticks after boot at which `pid` started (proc_pid_stat(5) field 22); 0 when there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as f:
            fields = f.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(fields[19])


def state_of(pid: int) -> str:
    """One letter of proc_pid_stat(5): R, S, D, Z, T …; "" when there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as f:
            return f.read().rpartition(b")")[2].split()[0].decode()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def zombie_status(pid: int) -> int | None:
    """The wait status of a process that has ended and waits to be reaped; None of any other (proc_pid_stat(5))."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as f:
            fields = f.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(fields[49]) if fields[0] == b"Z" and len(fields) > 49 else None


def age(started: int) -> float:
    """Seconds since a process with this start time began, by a clock that nobody sets."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started / _TICKS


def is_same(pid: int, started: int) -> bool:
    """Is `pid` still the process that started at `started`, and not a zombie?"""
    return pid > 0 and start_time(pid) == started and state_of(pid) not in ("Z", "X", "")


def in_namespace_of(pid: int) -> list[int]:
    """All processes in the pid namespace of `pid`, as far as we may look; [] when it has ended."""
    try:
        space = os.stat(f"/proc/{pid}/ns/pid").st_ino
    except OSError:
        return []
    found = []
    for name in os.listdir("/proc"):
        try:
            if name.isdigit() and os.stat(f"/proc/{name}/ns/pid").st_ino == space:
                found.append(int(name))
        except OSError:
            continue  # it ended, or is not ours to look at
    return found


def children(pid: int) -> list[int]:
    """The children of a process (proc_pid_task_tid_children(5)); [] when it has ended."""
    found = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children") as f:
                found += [int(word) for word in f.read().split()]
    except OSError:
        pass
    return found


def blocked_caught_ignored(pid: int) -> tuple[int, int, int]:
    """Signal masks SigBlk, SigCgt, SigIgn of a process (proc_pid_status(5)); bit N-1 is signal N."""
    masks = {"SigBlk": 0, "SigCgt": 0, "SigIgn": 0}
    with open(f"/proc/{pid}/status") as f:
        for line in f:
            key, _, value = line.partition(":")
            if key in masks:
                masks[key] = int(value.strip(), 16)
    return masks["SigBlk"], masks["SigCgt"], masks["SigIgn"]
