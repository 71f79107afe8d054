"""Mounts: mount(2), umount2(2), pivot_root(2) and the file-descriptor API (fsopen(2), move_mount(2))."""

from __future__ import annotations

import os
import struct

from kapelle.linux import libc

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_NOATIME = 1024
MS_BIND = 4096
MS_REC = 16384
MS_UNBINDABLE = 1 << 17
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20
MS_RELATIME = 1 << 21
MS_STRICTATIME = 1 << 24
MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8

_FSCONFIG_SET_FLAG = 0
_FSCONFIG_SET_STRING = 1
_FSCONFIG_CMD_CREATE = 6
_MOVE_MOUNT_F_EMPTY_PATH = 4
_AT_RECURSIVE = 0x8000
_AT_EMPTY_PATH = 0x1000
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC = 1, 2, 4, 8
MOUNT_ATTR_IDMAP = 0x100000


def mount(source: str | None, target: str, kind: str | None, flags: int = 0, data: str | None = None) -> None:
    """mount(2). `target` may be "/proc/self/fd/N" to mount on an open place."""
    from ctypes import c_ulong  # here and below: not for those who only know our names

    if (
        libc.lib.mount(
            source.encode() if source is not None else None,
            target.encode(),
            kind.encode() if kind is not None else None,
            c_ulong(flags),
            data.encode() if data is not None else None,
        )
        < 0
    ):
        libc.raise_errno("mount", target)


def umount(target: str, flags: int = 0) -> None:
    """umount2(2)."""
    from ctypes import c_int

    if libc.lib.umount2(target.encode(), c_int(flags)) < 0:
        libc.raise_errno("umount2", target)


def pivot_root(new: str, old: str) -> None:
    """pivot_root(2); pivot_root(".", ".") then umount(".") needs no directory for the old root."""
    libc.syscall(libc.SYS_pivot_root, new.encode(), old.encode(), call="pivot_root", subject=new)


def set_attributes(fd: int, attributes: int, *, recursive: bool = False, userns: int = 0) -> None:
    """mount_setattr(2): set MOUNT_ATTR_* on the mount behind `fd` (with `recursive` on all below it). Linux 5.12.

    `userns`: a user namespace's descriptor, for MOUNT_ATTR_IDMAP.
    """
    from ctypes import c_int, c_long, c_size_t, c_uint

    attr = struct.pack("=QQQQ", attributes, 0, 0, userns)  # struct mount_attr: set, clear, propagation, userns_fd
    result = libc.lib.syscall(
        c_long(libc.SYS_mount_setattr),
        c_int(fd),
        b"",
        c_uint(_AT_EMPTY_PATH | (_AT_RECURSIVE if recursive else 0)),
        attr,
        c_size_t(len(attr)),
    )
    if result < 0:
        libc.raise_errno("mount_setattr")


def fsopen_mount(kind: str, options: list[tuple[str, str | None]], target: str, attributes: int = 0) -> None:
    """Mount a file system by fsopen(2), fsconfig(2), fsmount(2), move_mount(2): no one-page limit on options.

    An option of value None is a flag. OSError names the option that was refused.
    """
    made = fsopen_tree(kind, options, attributes)
    try:
        libc.syscall(
            libc.SYS_move_mount,
            made,
            b"",
            -100,
            target.encode(),
            _MOVE_MOUNT_F_EMPTY_PATH,
            call="move_mount",
            subject=target,
        )
    finally:
        os.close(made)


def fsopen_tree(kind: str, options: list[tuple[str, str | None]], attributes: int = 0) -> int:
    """A detached mount of a new file system, as a descriptor. OSError as `fsopen_mount`."""
    context = libc.syscall(libc.SYS_fsopen, kind.encode(), 1, call="fsopen", subject=kind)
    try:
        for key, value in options:
            command = _FSCONFIG_SET_FLAG if value is None else _FSCONFIG_SET_STRING
            text = None if value is None else value.encode()
            libc.syscall(libc.SYS_fsconfig, context, command, key.encode(), text, 0, call="fsconfig", subject=key)
        libc.syscall(libc.SYS_fsconfig, context, _FSCONFIG_CMD_CREATE, None, None, 0, call="fsconfig", subject=kind)
        return libc.syscall(libc.SYS_fsmount, context, 1, attributes, call="fsmount", subject=kind)
    finally:
        os.close(context)
