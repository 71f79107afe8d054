"""Between fork and exec: what a new process does to become a container's first process, or to join one.

Runs in a child of the keeper, alone, single-threaded; it imports nothing heavy and returns never. The order:
namespaces → mounts → pivot_root → masked paths → seccomp (while CAP_SYS_ADMIN is held, because
no_new_privs stays off by default) → bounding set → user → capabilities → close_range → exec.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Callable

from kapelle.engines.native import fuse, launch_program, launch_root, messages, userns
from kapelle.engines.native.launch_words import LaunchError, Spec, note, tell
from kapelle.light import Any, NoReturn, signal, socket
from kapelle.linux import idmap, process
from kapelle.linux import mount as m
from kapelle.linux import namespaces as ns

_TIOCSPTLCK = 0x40045431
_TIOCGPTPEER = 0x5441
_TIOCGPTN = 0x80045430
_TIOCSWINSZ = 0x5414


def launch(spec: Spec, sync: socket.socket, stdio: list[int]) -> NoReturn:
    """Become the container's first process. `stdio`: descriptors for 0, 1, 2 (none for a tty).

    Called in a new pid namespace's first process. Tells `sync` {"at": "namespaces"}, waits there for
    {"go": true}, then execs (the socket closes) or tells {"error", "code"} and exits.
    """
    _guarded(sync, [*stdio], lambda: _launch(spec, sync, stdio))


def join(spec: Spec, sync: socket.socket, stdio: list[int], pidfd: int) -> NoReturn:
    """Become one more process of a running container (exec, health checks, hooks)."""
    _guarded(sync, [*stdio, pidfd], lambda: _join(spec, sync, stdio, pidfd))


def _guarded(sync: socket.socket, keep: list[int], body: Callable[[], None]) -> NoReturn:
    code = 128
    try:
        _reset_signals()
        # No descriptor of ours may be there when a path of the image is resolved: /proc/self/fd/N would lead outside.
        launch_program.close_all_but([0, 1, 2, sync.fileno(), *keep])
        body()
    except LaunchError as e:
        code = e.code
        tell(sync, {"error": str(e), "code": e.code, "subject": e.subject})
    except OSError as e:
        what = e.strerror or "failed"
        subject = str(e.filename or "")
        tell(sync, {"error": f"{what}{f' ({subject})' if subject else ''}", "code": code, "subject": subject})
    except BaseException as e:
        tell(sync, {"error": f"internal error: {type(e).__name__}: {e}", "code": code, "subject": ""})
    finally:
        os._exit(code)


def _reset_signals() -> None:
    signal.set_wakeup_fd(-1)
    for number in range(1, 65):
        if number not in (9, 19, 32, 33):
            try:
                signal.signal(number, signal.SIG_DFL)
            except (OSError, ValueError):
                pass
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _launch(spec: Spec, sync: socket.socket, stdio: list[int]) -> None:
    flags = ns.CLONE_NEWNS
    for name, flag in (("uts", ns.CLONE_NEWUTS), ("ipc", ns.CLONE_NEWIPC), ("net", ns.CLONE_NEWNET)):
        if spec["namespaces"][name] in ("own", "none"):  # ipc: none is its own, too, but without /dev/shm
            flags |= flag
    for name, flag in (("net", ns.CLONE_NEWNET), ("ipc", ns.CLONE_NEWIPC)):
        mode = spec["namespaces"][name]
        if mode.startswith("pid:"):  # another container's
            _join_namespace(int(mode[4:]), name, flag)
        elif mode not in ("own", "none", "host"):
            raise LaunchError(f"there is no {name} namespace {mode}")
    device = fuse.open_device() if spec.get("stacking") == "fuse" else -1
    for path in spec["cgroups"]:
        _enter_cgroup(path, sync)
    if spec["namespaces"].get("cgroup") != "host":
        flags |= ns.CLONE_NEWCGROUP
    ids = userns.ids_of(spec)
    space = _own_space(spec, ids, flags & ~ns.CLONE_NEWNS) if ids is not None else -1
    ns.unshare(flags if ids is None else ns.CLONE_NEWNS)
    memory = launch_root.shared_memory(spec["namespaces"]["ipc"])
    messages.send(sync, {"at": "namespaces"})

    launch_root.build(spec, sync, ids, space, memory, device)
    if spec["namespaces"]["uts"] == "own" and spec["hostname"]:
        socket.sethostname(spec["hostname"])
        if spec["domainname"]:
            ns.set_domain_name(spec["domainname"])
    for key, value in spec["sysctls"]:
        _set_sysctl(key, value)
    terminal = _open_terminal(sync, spec.get("size")) if spec["tty"] else -1
    user = launch_program.user_of(spec)
    launch_root.finish(spec, user, ids)
    if space >= 0:
        userns.seal(space)

    answer, _ = messages.receive(sync)
    if not answer or not answer.get("go"):
        os._exit(128)
    if spec.get("init"):
        launch_program.become_init(spec, sync, space)
    launch_program.become(spec, sync, stdio, terminal, user, space)


def _own_space(spec: Spec, ids: idmap.Ids, flags: int) -> int:
    """The user namespace, and the others that belong to it: another container's where one of its is shared."""
    modes = (spec["namespaces"][name] for name in ("net", "ipc", "pid"))
    others = [int(mode[4:]) for mode in modes if mode.startswith("pid:")]
    try:
        return userns.begin(ids, others[0] if others else 0, flags)
    except LookupError:
        text = "it shares a namespace with a container that has no user namespace of its own: give both one, or neither"
        raise LaunchError(text, subject="userns_mode") from None


def _join(spec: Spec, sync: socket.socket, stdio: list[int], pidfd: int) -> None:
    process.prctl(process.PR_SET_DUMPABLE, 0)  # the container must not look into us while we are between
    for path in spec["cgroups"]:
        _enter_cgroup(path, sync)
    flags = ns.CLONE_NEWNS | ns.CLONE_NEWCGROUP
    for name, flag in (("uts", ns.CLONE_NEWUTS), ("ipc", ns.CLONE_NEWIPC), ("net", ns.CLONE_NEWNET)):
        if spec["namespaces"][name] != "host":  # we are in that one already, and may not be let into it again
            flags |= flag
    ns.setns(pidfd, flags)
    os.chdir("/")
    ids = userns.ids_of(spec)
    if ids is not None:
        userns.act_as_root_of(ids)
    terminal = _open_terminal(sync, spec.get("size")) if spec["tty"] else -1
    user = launch_program.user_of(spec)
    launch_program.become(spec, sync, stdio, terminal, user, pidfd if ids is not None else -1)


def _set_sysctl(key: str, value: str) -> None:
    try:
        with open(f"/proc/sys/{key.replace('.', '/')}", "w") as f:
            f.write(value)
    except OSError as e:
        raise LaunchError(f"sysctl {key}={value}: {e.strerror}", subject=f"sysctls.{key}") from None


def _enter_cgroup(path: str, sync: socket.socket) -> None:
    """Best effort: without the group there are no limits, which is told.

    v1 lets a thread move itself alone, and ours is the only one: the kernel then takes no lock against all forks of
    the machine, for which it waits milliseconds (an RCU grace period).
    """
    alone = f"{path}/tasks"  # v1 only
    try:
        with open(alone if os.path.exists(alone) else f"{path}/cgroup.procs", "w") as f:
            f.write("0")
    except OSError as e:
        note(sync, "", f"limits may be missing: {path}: {e.strerror}")


def _join_namespace(pid: int, name: str, flag: int) -> None:
    fd = os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        ns.setns(fd, flag)
    finally:
        os.close(fd)


def _open_terminal(sync: socket.socket, size: Any) -> int:
    """A terminal of the container's own devpts; the master goes to the supervisor (ioctl_tty(2))."""
    master = os.open("/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    fcntl.ioctl(master, _TIOCSPTLCK, struct.pack("i", 0))
    struct.unpack("i", fcntl.ioctl(master, _TIOCGPTN, struct.pack("i", 0)))[0]
    slave = fcntl.ioctl(master, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY)
    if size:
        fcntl.ioctl(master, _TIOCSWINSZ, struct.pack("HHHH", size[0], size[1], 0, 0))
    if not os.path.lexists("/dev/console"):
        os.close(os.open("/dev/console", os.O_CREAT | os.O_EXCL | os.O_RDONLY | os.O_CLOEXEC, 0o600))
        m.mount(f"/proc/self/fd/{slave}", "/dev/console", None, m.MS_BIND)
    messages.send(sync, {"at": "terminal"}, (master,))
    os.close(master)
    return slave
