"""fuse-overlayfs in the kernel's overlay's place, where a user namespace may not mount that.

The mount is made in the container's mount namespace; the program that serves it is outside, where it sees no mount of
it, so that it ends by itself when the container's last process does. What it writes is turned into the kernel's marks
before it becomes a layer.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from kapelle.light import Any
from kapelle.linux import mount as m

PROGRAM = "fuse-overlayfs"
_DEVICE = "/dev/fuse"
_FOLDERS = ("/usr/bin", "/usr/local/bin", "/bin", "/usr/sbin")
_WHITEOUT = b".wh."
_OPAQUE = (b".wh..wh..opq", b".wh..opq")


def program() -> str:
    """Where it is installed; "" when it is not."""
    return next((f"{d}/{PROGRAM}" for d in _FOLDERS if os.access(f"{d}/{PROGRAM}", os.X_OK)), "")


def missing() -> str:
    """Why it can't be used; "" when it may work."""
    if not program():
        return f"{PROGRAM} is not installed"
    try:
        os.close(open_device())
    except OSError as e:
        return f"{_DEVICE}: {(e.strerror or '').lower()}"
    return ""


def open_device() -> int:
    """A descriptor for one mount; before a control group with rules for devices is entered."""
    return os.open(_DEVICE, os.O_RDWR | os.O_CLOEXEC)


def mount(place: str, device: int) -> None:
    """Mount at `place` what nobody serves yet."""
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0,default_permissions,allow_other"
    m.mount(PROGRAM, place, f"fuse.{PROGRAM}", 0, options)


def serve(fd: int, launch: Mapping[str, Any]) -> None:
    """Start the program for an open /dev/fuse; it becomes a child of who adopts orphans here."""
    between = os.fork()
    if between == 0:
        try:
            _spawn(fd, launch)
        finally:
            os._exit(0)
    os.waitpid(between, 0)


def _spawn(fd: int, launch: Mapping[str, Any]) -> int:
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    lowers = ":".join(_escaped(p) for p in reversed(launch["lowers"]))
    options = f"lowerdir={lowers},upperdir={_escaped(launch['upper'])},workdir={_escaped(launch['work'])}"
    options += ",writeback=0"  # what was written is in the upper directory, whenever that is read
    actions = [(os.POSIX_SPAWN_DUP2, null, n) for n in (0, 1, 2)]
    actions.append((os.POSIX_SPAWN_DUP2, fd, 3))
    words = [PROGRAM, "-f", "-o", options, "/dev/fd/3"]
    return os.posix_spawn(program(), words, {"PATH": "/usr/bin:/bin"}, file_actions=actions, setsid=True)


def _escaped(path: str) -> str:
    return path.replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,")


def stand_by(launch: Mapping[str, Any]) -> tuple[int, int]:
    """For one who goes into a mount namespace of its own to mount it there: an open /dev/fuse and a descriptor; once
    a byte is written to that, the program serves what has been mounted with the former.
    """
    device = open_device()
    reading, writing = os.pipe2(os.O_CLOEXEC)
    if os.fork() == 0:
        try:
            os.close(writing)
            if os.read(reading, 1):
                _spawn(device, launch)
        finally:
            os._exit(0)
    os.close(reading)
    return device, writing


def settle(upper: str) -> None:
    """Marks of deletion in a tree that fuse-overlayfs has written, as the kernel's overlay has them."""
    from kapelle.images import trees

    pending = [os.fsencode(upper)]
    while pending:
        place = pending.pop()
        with os.scandir(place) as entries:
            names = {entry.name: entry.is_dir(follow_symlinks=False) for entry in entries}
        fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            before = os.fstat(fd)
            if _OPAQUE[0] in names:
                trees.set_opaque(fd)
            for name in filter(lambda n: n.startswith(_WHITEOUT), names):
                os.unlink(name, dir_fd=fd)
                if name not in _OPAQUE:
                    trees.make_whiteout(name.removeprefix(_WHITEOUT), fd)
            for key in os.listxattr(fd):
                if key.startswith(f"user.{PROGRAM.replace('-', '')}."):
                    os.removexattr(fd, key)
            os.utime(fd, ns=(before.st_atime_ns, before.st_mtime_ns))
        finally:
            os.close(fd)
        pending += [os.path.join(place, name) for name, is_folder in names.items() if is_folder]
