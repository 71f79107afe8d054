"""A container's mounts: described as values, put in order, then executed inside its new mount namespace.

Bind sources are cloned (open_tree(2)) while the host's tree can still be seen; everything is put in place
after pivot_root(2), so that no link of an image can lead a mount outside of the container.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping

from kapelle.light import NamedTuple
from kapelle.linux import idmap, libc
from kapelle.linux import mount as m

_AT_RECURSIVE = 0x8000
_AT_EMPTY_PATH = 0x1000
_OPEN_TREE_CLONE = 1
_OPEN_TREE_CLOEXEC = os.O_CLOEXEC
_MOVE_MOUNT_F_EMPTY_PATH = 4

MASKED = (
    "/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
    "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
    "/sys/devices/virtual/powercap",
)  # fmt: skip
READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

DEVICES = (("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0))
DEVICE_LINKS = (
    ("fd", "/proc/self/fd"), ("stdin", "/proc/self/fd/0"), ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"), ("ptmx", "pts/ptmx"),
)  # fmt: skip

PROPAGATION = {
    "private": m.MS_PRIVATE, "rprivate": m.MS_PRIVATE | m.MS_REC, "slave": m.MS_SLAVE,
    "rslave": m.MS_SLAVE | m.MS_REC, "shared": m.MS_SHARED, "rshared": m.MS_SHARED | m.MS_REC,
}  # fmt: skip

_FICLONE = 0x40049409


class Overlay(NamedTuple):
    """The root file system: read-only layers, lowest first, and a place for changes."""

    lowers: tuple[str, ...]
    upper: str
    work: str
    merged: str  # where it is mounted before pivot_root
    userxattr: bool = False  # marks as user.overlay.* (without root)


class Bind(NamedTuple):
    source: str
    target: str
    read_only: bool = False
    recursive: bool = True
    propagation: str = ""
    copy_up: bool = False  # a new volume: what the image has at `target` is copied into it first
    inside: str = ""  # a path below `source`, of which links lead nowhere else
    read_only_below: bool = True  # of a read-only one: what is mounted below it too


class Tmpfs(NamedTuple):
    target: str
    options: str = ""  # "size=64m,mode=1777,uid=1000"
    flags: int = m.MS_NOSUID | m.MS_NODEV | m.MS_NOEXEC


class Stack(NamedTuple):
    """An image's layers, lowest first, seen as one read-only tree, or `inside` of it (no link is on that way)."""

    lowers: tuple[str, ...]
    target: str
    inside: str = ""


Op = Bind | Tmpfs | Stack


def in_order(ops: list[Op]) -> list[Op]:
    """Parents before what lies below them; otherwise as given."""
    return sorted(ops, key=lambda op: op.target.rstrip("/").count("/"))


def mount_overlay(overlay: Overlay) -> None:
    """Mount the layers and the upper directory at `overlay.merged`.

    One `lowerdir+` per layer where the kernel knows it (about 6.7; up to 500 layers), else one option string
    with paths relative to the layers' common parent (one page of text, near 60 layers).
    """
    flag: list[tuple[str, str | None]] = [("userxattr", None)] if overlay.userxattr else []
    if not overlay.lowers:
        m.mount(overlay.upper, overlay.merged, None, m.MS_BIND)
        return
    tail: list[tuple[str, str | None]] = [("upperdir", overlay.upper), ("workdir", overlay.work), *flag]
    try:
        lowers: list[tuple[str, str | None]] = [("lowerdir+", path) for path in reversed(overlay.lowers)]
        m.fsopen_mount("overlay", lowers + tail, overlay.merged)
        return
    except OSError as e:
        if e.errno not in (errno.EINVAL, errno.ENOSYS):
            raise
    common = os.path.commonpath(overlay.lowers)
    here = os.open(".", os.O_PATH | os.O_CLOEXEC)
    try:
        os.chdir(common)
        relative = ":".join(os.path.relpath(p, common) for p in reversed(overlay.lowers))
        data = f"lowerdir={relative},upperdir={overlay.upper},workdir={overlay.work}"
        m.mount("overlay", overlay.merged, "overlay", 0, data + (",userxattr" if overlay.userxattr else ""))
    finally:
        os.fchdir(here)
        os.close(here)


def clone_tree(bind: Bind) -> int:
    """A detached copy of a bind's source, read-only if asked (open_tree(2), mount_setattr(2)). Linux 5.12."""
    flags = _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC | (_AT_RECURSIVE if bind.recursive else 0)
    if bind.inside:
        fd = _clone_below(bind.source, bind.inside, flags)
    else:
        fd = libc.syscall(libc.SYS_open_tree, -100, bind.source.encode(), flags, call="open_tree", subject=bind.source)
    try:
        if bind.read_only:
            m.set_attributes(fd, m.MOUNT_ATTR_RDONLY, recursive=bind.recursive and bind.read_only_below)
    except OSError:
        os.close(fd)
        raise
    return fd


def _clone_below(root: str, path: str, flags: int) -> int:
    """open_tree(2) of a path below `root` whose links are resolved as if that were / (openat2(2) RESOLVE_IN_ROOT)."""
    top = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        place = libc.open_in_root(top, path.lstrip("/"), os.O_PATH | os.O_CLOEXEC)
        try:
            return libc.syscall(
                libc.SYS_open_tree, place, b"", flags | _AT_EMPTY_PATH, call="open_tree", subject=f"{root}/{path}"
            )
        finally:
            os.close(place)
    finally:
        os.close(top)


def stack_tree(stack: Stack, *, userxattr: bool) -> int:
    """The layers as a detached read-only tree."""
    options: list[tuple[str, str | None]] = [("userxattr", None)] if userxattr else []
    if len(stack.lowers) == 1:
        fd = clone_tree(Bind(stack.lowers[0], "", read_only=True))
    else:
        lowers: list[tuple[str, str | None]] = [("lowerdir+", path) for path in reversed(stack.lowers)]
        fd = m.fsopen_tree("overlay", [*lowers, *options], m.MOUNT_ATTR_RDONLY)
    if not stack.inside:
        return fd
    try:
        return libc.syscall(
            libc.SYS_open_tree, fd, stack.inside.encode(), _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC | 0x100,
            call="open_tree", subject=stack.inside,
        )  # fmt: skip
    finally:
        os.close(fd)


def attach_tree(fd: int, target: str) -> None:
    """Put a detached tree at `target` (move_mount(2))."""
    libc.syscall(
        libc.SYS_move_mount, fd, b"", -100, target.encode(), _MOVE_MOUNT_F_EMPTY_PATH, call="move_mount", subject=target
    )


def make_target(target: str, *, directory: bool) -> str:
    """Make the place a mount goes to, parents 0755 as Docker does; the place without links.

    Called inside the container's root, where a link of the image can lead nowhere else, there or not.
    """
    target = os.path.realpath(target)
    try:
        found = os.stat(target)
    except FileNotFoundError:
        pass
    else:
        if stat.S_ISDIR(found.st_mode) != directory:
            kinds = ("a file", "a directory") if directory else ("a directory", "a file")
            raise NotADirectoryError(
                errno.ENOTDIR, f"{target} is {kinds[0]} in the image, but what is mounted there is {kinds[1]}", target
            )
        return target
    parent = os.path.dirname(target.rstrip("/"))
    if parent not in ("", "/"):
        os.makedirs(parent, 0o755, exist_ok=True)
    if directory:
        os.makedirs(target, 0o755, exist_ok=True)
    else:
        os.close(os.open(target, os.O_CREAT | os.O_RDONLY | os.O_CLOEXEC, 0o644))
    return target


_IN_PROC = frozenset(  # what may be mounted there: files that only tell, as of lxcfs
    f"/proc/{name}" for name in "cpuinfo diskstats loadavg meminfo slabinfo stat swaps uptime net/dev".split()
)


def is_in_proc(target: str) -> bool:
    """Is this place, its links resolved, in the container's /proc, where nothing of the file's may be mounted?"""
    proc, place = os.path.realpath("/proc"), os.path.realpath(target)
    return place == proc or (place.startswith(f"{proc}/") and f"/proc{place[len(proc) :]}" not in _IN_PROC)


def is_null(told: os.stat_result) -> bool:
    """Is it the null device?"""
    return stat.S_ISCHR(told.st_mode) and told.st_rdev == os.makedev(1, 3)


def enter_root(merged: str) -> None:
    """Make `merged` the root of this mount namespace and let go of the old one (pivot_root(2))."""
    os.chdir(merged)
    m.pivot_root(".", ".")
    m.umount(".", m.MNT_DETACH)
    os.chdir("/")


def clone_host_trees(*, privileged: bool) -> dict[str, int]:
    """What a user namespace can't make after pivot_root(2), as detached trees: the host's device nodes bound, and
    new /proc and /sys, which the kernel allows only while the host's are in sight (user_namespaces(7)).
    """
    trees = {name: clone_tree(Bind(f"/dev/{name}", "")) for name, _, _ in DEVICES}
    flags = m.MOUNT_ATTR_NOSUID | m.MOUNT_ATTR_NODEV | m.MOUNT_ATTR_NOEXEC
    trees["proc"] = m.fsopen_tree("proc", [], flags)
    try:
        trees["sys"] = m.fsopen_tree("sysfs", [], flags | (0 if privileged else m.MOUNT_ATTR_RDONLY))
    except OSError as e:
        if e.errno not in (errno.EPERM, errno.EBUSY):
            raise
        trees["sys"] = clone_tree(Bind("/sys", "", read_only=True))  # of the host's network namespace
    return trees


def mount_kernel_trees(
    *,
    shm_size: int,
    privileged: bool,
    own_net: bool,
    tty_gid: int | None = 5,
    host: Mapping[str, int] | None = None,
    memory: int | None = None,
) -> None:
    """/proc, /sys, /dev with its nodes, pts, shm, mqueue: as Docker mounts them.

    `host`: of `clone_host_trees`. `memory`: a detached tree for /dev/shm, -1 for no /dev/shm.
    """
    host = host or {}
    nothing = m.MS_NOSUID | m.MS_NODEV | m.MS_NOEXEC
    for path in ("/proc", "/sys", "/dev"):
        make_target(path, directory=True)
    if host:
        attach_tree(host["proc"], "/proc")
        attach_tree(host["sys"], "/sys")
    else:
        _mount_proc_and_sys(nothing, privileged=privileged, own_net=own_net)
    m.mount("tmpfs", "/dev", "tmpfs", m.MS_NOSUID | m.MS_STRICTATIME, "mode=755,size=65536k")
    old = os.umask(0)
    try:
        for name, major, minor in DEVICES:
            if name in host:
                os.close(os.open(f"/dev/{name}", os.O_CREAT | os.O_RDONLY | os.O_CLOEXEC, 0o666))
                attach_tree(host[name], f"/dev/{name}")
            else:
                os.mknod(f"/dev/{name}", 0o666 | stat.S_IFCHR, os.makedev(major, minor))
    finally:
        os.umask(old)
    for fd in host.values():
        os.close(fd)
    for name, to in DEVICE_LINKS:
        os.symlink(to, f"/dev/{name}")
    for name in ("pts", "shm", "mqueue"):
        os.mkdir(f"/dev/{name}", 0o755)
    gid = "" if tty_gid is None else f",gid={tty_gid}"
    m.mount("devpts", "/dev/pts", "devpts", m.MS_NOSUID | m.MS_NOEXEC, f"newinstance,ptmxmode=0666,mode=0620{gid}")
    if memory is None:
        m.mount("shm", "/dev/shm", "tmpfs", nothing, f"mode=1777,size={shm_size}")
    elif memory >= 0:
        attach_tree(memory, "/dev/shm")
        os.close(memory)
    try:
        m.mount("mqueue", "/dev/mqueue", "mqueue", nothing)
    except OSError as e:
        if e.errno not in (errno.ENODEV, errno.EPERM):
            raise


def _mount_proc_and_sys(flags: int, *, privileged: bool, own_net: bool) -> None:
    m.mount("proc", "/proc", "proc", flags)
    try:
        m.mount("sysfs", "/sys", "sysfs", flags | (0 if privileged else m.MS_RDONLY))
    except OSError as e:
        if own_net or e.errno not in (errno.EPERM, errno.EBUSY):
            raise
        m.mount("tmpfs", "/sys", "tmpfs", flags | m.MS_RDONLY)  # a foreign network namespace: sysfs is refused


def mount_cgroups(*, read_only: bool = True) -> None:
    """A view of the container's own groups at /sys/fs/cgroup, where the kernel allows one."""
    target = "/sys/fs/cgroup"
    if not os.path.isdir(target):
        return
    nothing = m.MS_NOSUID | m.MS_NODEV | m.MS_NOEXEC
    protected = m.MS_RDONLY if read_only else 0
    with open("/proc/self/cgroup") as f:
        rows = [line.rstrip("\n").split(":", 2) for line in f]
    controllers = [names for _, names, _ in rows if names and not names.startswith("name=")]
    try:
        if not controllers:
            m.mount("cgroup2", target, "cgroup2", nothing | protected)
            return
        m.mount("tmpfs", target, "tmpfs", nothing, "mode=755")
        for names in controllers:
            os.mkdir(f"{target}/{names}", 0o755)
            m.mount("cgroup", f"{target}/{names}", "cgroup", nothing | protected, names)
        if read_only:
            m.mount(None, target, None, m.MS_REMOUNT | m.MS_BIND | m.MS_RDONLY | nothing)
    except OSError:
        pass  # only a view: programs then read no limits, as on a host without cgroups


def mask(paths: tuple[str, ...] = MASKED) -> None:
    """Hide files behind /dev/null and directories behind an empty read-only tmpfs."""
    if paths and not is_null(os.lstat("/dev/null")):  # a mount of the file's over /dev could put a link there
        raise OSError(errno.EINVAL, "this is not the null device", "/dev/null")
    for path in paths:
        try:
            directory = stat.S_ISDIR(os.stat(path).st_mode)
        except (FileNotFoundError, PermissionError):
            continue
        if directory:
            m.mount("tmpfs", path, "tmpfs", m.MS_RDONLY | m.MS_NOSUID | m.MS_NODEV | m.MS_NOEXEC, "size=0k")
        else:
            m.mount("/dev/null", path, None, m.MS_BIND)


def make_read_only(paths: tuple[str, ...] = READ_ONLY) -> None:
    """Bind each path onto itself, read-only."""
    for path in paths:
        if not os.path.exists(path):
            continue
        m.mount(path, path, None, m.MS_BIND | m.MS_REC)
        keep = m.MS_NOSUID | m.MS_NODEV | m.MS_NOEXEC
        m.mount(None, path, None, m.MS_BIND | m.MS_REMOUNT | m.MS_RDONLY | keep)


def copy_into(source: str, target: str) -> None:
    """Fill an empty directory with another's content: owners, modes, times, links, xattrs kept (a volume's first use)."""
    links: dict[tuple[int, int], str] = {}
    pending = [(source, target)]
    directories = []
    while pending:
        here, there = pending.pop()
        directories.append((here, there))
        with os.scandir(here) as entries:
            listed = list(entries)
        for entry in listed:
            to = f"{there}/{entry.name}"
            info = entry.stat(follow_symlinks=False)
            if stat.S_ISDIR(info.st_mode):
                os.mkdir(to, 0o700)
                pending.append((entry.path, to))
                continue
            if info.st_nlink > 1 and (info.st_dev, info.st_ino) in links:
                os.link(links[info.st_dev, info.st_ino], to, follow_symlinks=False)
                continue
            if stat.S_ISLNK(info.st_mode):
                os.symlink(os.readlink(entry.path), to)
            elif stat.S_ISREG(info.st_mode):
                copy_bytes(entry.path, to)
                links[info.st_dev, info.st_ino] = to
            else:
                os.mknod(to, info.st_mode, info.st_rdev)
            copy_attributes(entry.path, to)
    for here, there in reversed(directories):  # last, since filling a directory changes its times
        copy_attributes(here, there)


def copy_bytes(source: str, target: str) -> None:
    """A file's bytes into a new one; file systems that share blocks are asked to (ioctl_ficlone(2))."""
    from fcntl import ioctl

    reading = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        writing = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            try:
                ioctl(writing, _FICLONE, reading)
            except OSError:
                while os.sendfile(writing, reading, None, 1 << 24):
                    pass
        finally:
            os.close(writing)
    finally:
        os.close(reading)


def copy_attributes(source: str, target: str) -> None:
    """Owner, mode, times and xattrs of a file for another one; overlayfs's own marks stay behind."""
    info = os.lstat(source)
    idmap.chown(target, info.st_uid, info.st_gid, follow=False)
    if not stat.S_ISLNK(info.st_mode):
        os.chmod(target, stat.S_IMODE(info.st_mode))
        for name in os.listxattr(source, follow_symlinks=False):
            if not name.startswith(("trusted.overlay.", "user.overlay.", "user.fuseoverlayfs.")):
                _copy_xattr(source, target, name)
    os.utime(target, ns=(info.st_atime_ns, info.st_mtime_ns), follow_symlinks=False)


def _copy_xattr(source: str, target: str, name: str) -> None:
    try:
        os.setxattr(target, name, os.getxattr(source, name, follow_symlinks=False), follow_symlinks=False)
    except PermissionError:
        if idmap.is_initial():
            raise  # in a user namespace security.* and trusted.* are not ours to give
