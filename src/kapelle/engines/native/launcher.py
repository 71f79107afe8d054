"""Between fork and exec: what a new process does to become a container's first process, or to join one.

Runs in a child of the keeper, alone, single-threaded; it imports nothing heavy and returns never. The order:
namespaces → mounts → pivot_root → masked paths → seccomp (while CAP_SYS_ADMIN is held, because
no_new_privs stays off by default) → bounding set → user → capabilities → close_range → exec.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Callable

from kapelle.engines.native import descriptors, devices, fuse, mapping, messages, userns, users
from kapelle.light import Any, NoReturn, signal, socket
from kapelle.linux import caps, fsops, idmap, libc, process, rlimits, seccomp
from kapelle.linux import mount as m
from kapelle.linux import namespaces as ns

_TIOCSPTLCK = 0x40045431
_TIOCGPTPEER = 0x5441
_TIOCGPTN = 0x80045430
_TIOCSCTTY = 0x540E
_TIOCSWINSZ = 0x5414

APT_SETTING = "/etc/apt/apt.conf.d/99kapelle-one-id"  # on rung R3, a mount

Spec = dict[str, Any]


class LaunchError(Exception):
    """A step that failed, in words, with the exit code that Docker gives for it."""

    def __init__(self, text: str, code: int = 128, *, subject: str = "") -> None:
        super().__init__(text)
        self.code = code
        self.subject = subject


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
        _close_all_but([0, 1, 2, sync.fileno(), *keep])
        body()
    except LaunchError as e:
        code = e.code
        _tell(sync, {"error": str(e), "code": e.code, "subject": e.subject})
    except OSError as e:
        what = e.strerror or "failed"
        subject = str(e.filename or "")
        _tell(sync, {"error": f"{what}{f' ({subject})' if subject else ''}", "code": code, "subject": subject})
    except BaseException as e:
        _tell(sync, {"error": f"internal error: {type(e).__name__}: {e}", "code": code, "subject": ""})
    finally:
        os._exit(code)


def _close_all_but(keep: list[int]) -> None:
    first = 0
    for fd in sorted(set(keep)):
        if fd > first:
            process.close_range(first, fd - 1)
        first = fd + 1
    process.close_range(first)


def _tell(sync: socket.socket, message: Spec) -> None:
    try:
        messages.send(sync, message)
    except OSError:
        pass


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
    memory = _shared_memory(spec["namespaces"]["ipc"])
    messages.send(sync, {"at": "namespaces"})

    m.mount(None, "/", None, m.MS_REC | m.MS_SLAVE)
    lowers = () if spec.get("stacking") == "copy" else tuple(spec["lowers"])
    overlay = fsops.Overlay(lowers, spec["upper"], spec["work"], spec["merged"], userxattr=spec["rung"] != "R1")
    ops = fsops.in_order([_op(row, ids) for row in spec["mounts"]])
    trees = {op.target: fsops.clone_tree(op) for op in ops if isinstance(op, fsops.Bind)}
    shown = _shown(space, overlay.merged, ids) if ids is not None else None
    for stack in (op for op in ops if isinstance(op, fsops.Stack)):
        lowers = stack.lowers if shown is None else shown.paths(stack.lowers)
        trees[stack.target] = fsops.stack_tree(stack._replace(lowers=lowers), userxattr=spec["rung"] != "R1")
    if device >= 0:
        fuse.mount(overlay.merged, device)
        messages.send(sync, {"at": "fuse"}, (device,))
        os.close(device)
    else:
        fsops.mount_overlay(overlay if shown is None else shown.overlay(overlay))
    # In a user namespace a device node can't be made: the host's own is bound in its place.
    host = fsops.clone_host_trees(privileged=bool(spec["privileged"])) if spec["rung"] != "R1" else {}
    rows = [{"source": "/dev", "target": "/dev"}] if spec.get("all_devices") else spec["devices"]
    nodes = [(_device_tree(spec, node), node) for row in rows for node in devices.node_of(row)]
    data = os.open(os.path.dirname(overlay.upper), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    fsops.enter_root(overlay.merged)
    _adopt_files(spec, data)
    os.close(data)
    privileged = bool(spec["privileged"])
    fsops.mount_kernel_trees(
        shm_size=spec["shm_size"],
        privileged=privileged,
        own_net=spec["namespaces"]["net"] == "own",
        tty_gid=None if spec["rung"] == "R3" else 5 if ids is None else ids.gids + 5,
        host=host,
        memory=memory,
    )
    _map_binds(spec, trees, sync, space)
    fsops.mount_cgroups(read_only=not spec.get("writable_cgroups"))
    for op in ops:
        _place(op, trees)
    for tree, node in nodes:
        if tree < 0:
            _make_device(node, ids or idmap.Ids(0, 0, 0))
        elif os.path.lexists(node.path):  # each container has that one
            os.close(tree)
        else:
            fsops.attach_tree(tree, fsops.make_target(node.path, directory=False))
            os.close(tree)
    if spec["namespaces"]["uts"] == "own" and spec["hostname"]:
        socket.sethostname(spec["hostname"])
        if spec["domainname"]:
            ns.set_domain_name(spec["domainname"])
    for key, value in spec["sysctls"]:
        _set_sysctl(key, value)
    terminal = _open_terminal(sync, spec.get("size")) if spec["tty"] else -1
    if spec["rung"] == "R3":
        _spare_apt_its_user()
    fsops.mask(tuple(spec["masked"]))
    fsops.make_read_only(tuple(spec["read_only_paths"]))
    user = _user(spec)
    _make_cwd(spec["cwd"], *_outer(spec, user))
    attributes = m.MOUNT_ATTR_RDONLY if spec["read_only"] else 0
    if not spec.get("confined", True) or ids is not None:  # an image may have brought nodes
        attributes |= m.MOUNT_ATTR_NODEV
    if attributes:
        root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        m.set_attributes(root, attributes)
        os.close(root)
    if space >= 0:
        userns.seal(space)

    answer, _ = messages.receive(sync)
    if not answer or not answer.get("go"):
        os._exit(128)
    if spec.get("init"):
        _become_init(spec, sync, space)
    _become(spec, sync, stdio, terminal, user, space)


def _own_space(spec: Spec, ids: idmap.Ids, flags: int) -> int:
    """The user namespace, and the others that belong to it: another container's where one of its is shared."""
    modes = (spec["namespaces"][name] for name in ("net", "ipc", "pid"))
    others = [int(mode[4:]) for mode in modes if mode.startswith("pid:")]
    try:
        return userns.begin(ids, others[0] if others else 0, flags)
    except LookupError:
        text = "it shares a namespace with a container that has no user namespace of its own: give both one, or neither"
        raise LaunchError(text, subject="userns_mode") from None


def _shown(space: int, place: str, ids: idmap.Ids) -> userns.Shown:
    userns.act_as_root_of(ids)
    return userns.Shown(space, place)


def _outer(spec: Spec, user: users.User) -> tuple[int, int]:
    """The numbers that a user's ids have for us, who are outside of its user namespace."""
    ids = userns.ids_of(spec)
    if ids is not None:
        return ids.uids + user.uid, ids.gids + user.gid
    return mapping.outer(mapping.swap(spec, user), spec["rung"], user.uid), user.gid


def _adopt_files(spec: Spec, data: int) -> None:
    """`x-kap-map-user` in a user namespace: the image's files change hands, once in a container's life."""
    wanted = mapping.swap(spec, _user(spec)) if spec["rung"] == "R2" else None
    if wanted is None:
        return
    try:
        os.close(os.open("adopted", os.O_WRONLY | os.O_CLOEXEC, dir_fd=data))
    except FileNotFoundError:
        mapping.adopt(wanted)
        os.close(os.open("adopted", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=data))


def _map_binds(spec: Spec, trees: dict[str, int], sync: socket.socket, space: int) -> None:
    """As root: the file's bind mounts are id-mapped by `x-kap-map-user`, all are for a user namespace of its own."""
    wanted = mapping.swap(spec, _user(spec)) if spec["rung"] == "R1" else None
    ids = userns.ids_of(spec)
    for row in spec["mounts"]:
        swap = wanted if row.get("mapped") else None
        if row["type"] != "bind" or (swap is None and ids is None):
            continue
        tree, recursive = trees[row["target"]], bool(row.get("recursive", True))
        try:
            if swap is not None:
                mapping.map_tree(tree, swap, ids, recursive=recursive)
            else:
                m.set_attributes(tree, m.MOUNT_ATTR_IDMAP, recursive=recursive, userns=space)
        except OSError as e:
            why = f"{row['source']}: {userns.unmappable(e)}"
            if ids is not None:
                raise LaunchError(why, subject="userns_mode") from None
            _note(sync, "x-kap-map-user", why)


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
    user = _user(spec)
    _become(spec, sync, stdio, terminal, user, pidfd if ids is not None else -1)


def _become(spec: Spec, sync: socket.socket, stdio: list[int], terminal: int, user: users.User, space: int) -> NoReturn:
    """Standard streams, limits, filter, capabilities, user, exec. `space`: the user namespace to be in, or -1."""
    os.setsid()
    if terminal >= 0:
        fcntl.ioctl(terminal, _TIOCSCTTY, 0)
        stdio = [terminal, terminal, terminal]
    _set_stdio(stdio, sync)
    _close_all_but([0, 1, 2, sync.fileno(), *([space] if space >= 0 else [])])
    wanted = mapping.swap(spec, user)
    if terminal < 0:
        for fd in (0, 1, 2):
            if fsops.is_null(os.fstat(fd)):
                _own_null(fd)
            elif fd:  # so that the program may open /dev/stdout as its own user
                try:
                    os.fchown(fd, _outer(spec, user)[0], -1)
                except OSError:
                    pass
    env = _environment(spec, user)
    args = [str(a) for a in spec["args"]]
    if spec.get("nofile"):
        descriptors.restore(spec["nofile"])
    for name, soft, hard in rlimits.apply(spec["ulimits"]):
        _note(sync, f"ulimits.{name}", f"the most that may be set here is {soft}:{hard}")
    if spec["oom_score_adj"] is not None:
        try:
            with open("/proc/self/oom_score_adj", "w") as f:
                f.write(str(spec["oom_score_adj"]))
        except OSError as e:
            _note(sync, "oom_score_adj", (e.strerror or "refused").lower())
    try:
        os.chdir(spec["cwd"] or "/")
    except OSError as e:
        raise LaunchError(f"can't enter the working directory {spec['cwd']}: {e.strerror}", 126) from None
    program = _find_program(args[0], env)
    if spec["rung"] == "R3" and (user.uid or user.gid):
        idmap.enter_single(user.uid, user.gid)  # the one id that there is becomes the service's own
    if wanted is not None and spec["rung"] == "R2":
        try:
            mapping.enter(wanted)
        except OSError as e:
            text = f"x-kap-map-user: {wanted.uid}:{wanted.gid} can't be the caller's here: {e.strerror}"
            raise LaunchError(text, 126, subject="x-kap-map-user") from None
    if space >= 0:
        userns.enter(space)
        os.close(space)
    if spec.get("apparmor"):
        _set_apparmor(spec["apparmor"])
    if spec["no_new_privileges"]:
        process.prctl(process.PR_SET_NO_NEW_PRIVS, 1)
    held = _held(spec)
    if not spec["no_new_privileges"]:
        _filter_calls(spec, held, user)
    caps.drop_bounding(held)
    if spec["rung"] != "R3":
        _set_ids(user)
    if user.uid == 0:
        caps.set_caps(held, held, frozenset())
    os.umask(0o022)
    if spec["no_new_privileges"]:  # may come last then: a profile need not allow what we do before
        _filter_calls(spec, held, user)
    try:
        os.execve(program, args, env)
    except OSError as e:
        if e.errno == errno.ENOENT:
            raise LaunchError(f'exec: "{args[0]}": its interpreter is not in the image', 127, subject=args[0]) from None
        if e.errno == errno.ENOEXEC:
            raise LaunchError(f'exec: "{args[0]}": exec format error', 126, subject=args[0]) from None
        raise LaunchError(f'exec: "{args[0]}": {(e.strerror or "").lower()}', 126, subject=args[0]) from None


def _own_null(fd: int) -> None:
    """The host's /dev/null becomes the container's: its mode and owner are not the container's to change."""
    if fsops.is_null(os.lstat("/dev/null")):
        own = os.open("/dev/null", (fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE) | os.O_NOFOLLOW | os.O_CLOEXEC)
        os.dup2(own, fd, inheritable=True)
        os.close(own)


def _held(spec: Spec) -> frozenset[str]:
    """The capabilities; no nodes are made where no rule says which may be opened."""
    return frozenset(spec["caps"]) - (frozenset() if spec.get("confined", True) else {"CAP_MKNOD"})


def _set_ids(user: users.User) -> None:
    try:
        os.setgroups(user.groups)
        os.setresgid(user.gid, user.gid, user.gid)
        os.setresuid(user.uid, user.uid, user.uid)
    except OSError as e:
        if e.errno != errno.EINVAL:
            raise
        text = f"user {user.uid}:{user.gid} is not among the subordinate ids that there are (/etc/subuid, /etc/subgid)"
        raise LaunchError(text, 126, subject=str(user.uid)) from None


def _filter_calls(spec: Spec, held: frozenset[str], user: users.User) -> None:
    if spec["seccomp"] is not None:
        faking = spec["rung"] == "R3" and user.uid == 0
        seccomp.load(bytes.fromhex(spec["seccomp"]) if spec["seccomp"] else seccomp.filter_for(held, faking=faking))


def _set_apparmor(profile: str) -> None:
    """From the next exec on, this profile holds (aa_change_onexec(2))."""
    for path in ("/proc/self/attr/apparmor/exec", "/proc/self/attr/exec"):
        if os.path.exists(path):
            try:
                with open(path, "w") as f:
                    f.write(f"exec {profile}")
            except OSError as e:
                raise LaunchError(f"apparmor profile {profile}: {e.strerror}", subject="security_opt") from None
            return


def _become_init(spec: Spec, sync: socket.socket, space: int) -> None:
    """`init: true`: stay behind as a small pid 1 that passes signals on and reaps; the program is its child."""
    everything = set(range(1, 65)) - {9, 19, 32, 33}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, everything)  # first: a program may be over in no time
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return
    sync.close()
    if space >= 0:
        userns.enter(space)
    _set_stdio([os.open("/dev/null", os.O_RDWR)] * 3, None)
    _close_all_but([0, 1, 2])
    process.set_name("init")
    process.clear_command_line("init")
    process.prctl(process.PR_SET_DUMPABLE, 0)
    held = _held(spec) | {"CAP_KILL"}
    if spec["seccomp"] is not None:
        seccomp.load(seccomp.filter_for(held))  # a profile is for the program; it need not allow what an init does
    caps.drop_bounding(held)
    caps.set_caps(held, held, frozenset())
    while True:
        info = signal.sigwaitinfo(everything)
        if info.si_signo != signal.SIGCHLD:
            try:
                os.kill(child, info.si_signo)
            except ProcessLookupError:
                pass
            continue
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            if pid == child:
                os._exit(128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status))


def _set_stdio(stdio: list[int], sync: socket.socket | None) -> None:
    # move everything above 2 first: a descriptor handed in as 1 must not be overwritten while it is needed
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in stdio]
    if sync is not None and sync.fileno() <= 2:
        moved = fcntl.fcntl(sync.fileno(), fcntl.F_DUPFD_CLOEXEC, 10)
        sync.detach()
        sync.__init__(fileno=moved)  # type: ignore[misc]
    for number, fd in enumerate(high):
        os.dup2(fd, number, inheritable=True)
    for fd in high:
        os.close(fd)


def _environment(spec: Spec, user: users.User) -> dict[str, str]:
    env: dict[str, str] = {}
    for row in spec["env"]:
        key, _, value = row.partition("=")
        env[key] = value
    env.setdefault("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    env.setdefault("HOME", user.home or "/")
    env.setdefault("HOSTNAME", spec["hostname"] or os.uname().nodename)
    if spec["tty"]:
        env.setdefault("TERM", "xterm")
    return env


def _find_program(name: str, env: dict[str, str]) -> str:
    """What execvp(3) would run: a path as it is, a name looked up on the container's PATH."""
    if "/" in name:
        if not os.path.exists(name):
            raise LaunchError(f'exec: "{name}": stat {name}: no such file or directory', 127, subject=name)
        if os.path.isdir(name):
            raise LaunchError(f'exec: "{name}": is a directory', 126, subject=name)
        return name
    denied = ""
    for directory in env.get("PATH", "").split(":"):
        path = os.path.join(directory or ".", name)
        if os.path.isfile(path):
            if os.access(path, os.X_OK):
                return path
            denied = path
    if denied:
        raise LaunchError(f'exec: "{name}": permission denied ({denied} is not executable)', 126, subject=name)
    raise LaunchError(f'exec: "{name}": executable file not found in $PATH', 127, subject=name)


def _user(spec: Spec) -> users.User:
    for wanted in filter(None, spec.get("users", ())):  # on R3: who the image's program becomes by itself
        try:
            return users.lookup("/", wanted, ())
        except ValueError:
            continue
    try:
        return users.lookup("/", spec["user"], tuple(spec["groups"]))
    except ValueError as e:
        raise LaunchError(str(e), 126, subject=spec["user"]) from None


def _make_cwd(cwd: str, uid: int, gid: int) -> None:
    if cwd and not os.path.isdir(cwd):
        try:
            os.makedirs(os.path.realpath(cwd), 0o755, exist_ok=True)
            idmap.chown(cwd, uid, gid)
        except OSError as e:
            raise LaunchError(f"can't make the working directory {cwd}: {e.strerror}", 126) from None


def _spare_apt_its_user() -> None:
    """apt goes to a user of its own for downloads, and checks that it did; where there is one id it is told not to."""
    if not os.path.isdir(os.path.dirname(APT_SETTING)):
        return
    made = "/dev/.apt"
    with open(made, "w") as f:
        f.write('APT::Sandbox::User "root";\n')
    m.mount(made, fsops.make_target(APT_SETTING, directory=False), None, m.MS_BIND)
    os.unlink(made)


def _op(row: Spec, ids: idmap.Ids | None) -> fsops.Op:
    if row["type"] == "image":
        return fsops.Stack(tuple(row["lowers"]), row["target"], row["inside"])
    if row["type"] == "tmpfs":
        options = userns.tmpfs_options(row.get("options", ""), ids)
        return fsops.Tmpfs(row["target"], options, row.get("flags", fsops.Tmpfs("").flags))
    return fsops.Bind(
        row["source"],
        row["target"],
        row.get("read_only", False),
        row.get("recursive", True),
        row.get("propagation", ""),
        row.get("copy_up", False),
        row.get("subpath", ""),
        bool(row.get("read_only_below", True)),
    )


def _place(op: fsops.Op, trees: dict[str, int]) -> None:
    if fsops.is_in_proc(op.target):  # what we write to /proc must arrive in the kernel
        raise LaunchError(f'"{op.target}" cannot be mounted because it is inside /proc', subject=op.target)
    if isinstance(op, fsops.Tmpfs):
        m.mount("tmpfs", fsops.make_target(op.target, directory=True), "tmpfs", op.flags, op.options or None)
        return
    fd = trees[op.target]
    target = fsops.make_target(op.target, directory=_is_directory(fd))
    if isinstance(op, fsops.Stack):
        fsops.attach_tree(fd, target)
        os.close(fd)
        return
    if op.copy_up:
        _fill_volume(fd, target)
    fsops.attach_tree(fd, target)
    os.close(fd)
    if op.propagation:
        m.mount(None, target, None, fsops.PROPAGATION[op.propagation])


def _is_directory(fd: int) -> bool:
    return (os.fstat(fd).st_mode & 0o170000) == 0o040000


def _fill_volume(tree: int, target: str) -> None:
    """A new volume takes the image's content at its place, once; another first user waits for it."""
    place = "/dev/.new-volume"
    os.mkdir(place, 0o700)
    writable = libc.syscall(libc.SYS_open_tree, tree, b"", 0x1000 | 1 | os.O_CLOEXEC, call="open_tree", subject=target)
    fsops.attach_tree(writable, place)
    os.close(writable)
    lock = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.listdir(place):
            fsops.copy_into(target, place)
    finally:
        os.close(lock)
        m.umount(place, m.MNT_DETACH)
        os.rmdir(place)


def _device_tree(spec: Spec, node: devices.Node) -> int:
    """The host's node as a detached tree where none can be made, -1 where it can."""
    return -1 if spec["rung"] == "R1" else fsops.clone_tree(fsops.Bind(node.source, ""))


def _make_device(node: devices.Node, ids: idmap.Ids) -> None:
    os.makedirs(os.path.dirname(node.path), 0o755, exist_ok=True)
    old = os.umask(0)
    try:
        os.mknod(node.path, node.mode, node.number)
        os.chown(node.path, ids.uids + node.uid, ids.gids + node.gid)
    except FileExistsError:
        pass
    finally:
        os.umask(old)


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
        _note(sync, "", f"limits may be missing: {path}: {e.strerror}")


def _note(sync: socket.socket, key: str, text: str) -> None:
    """What of the file is not honoured, though the start goes on."""
    _tell(sync, {"at": "note", "key": key, "text": text})


def _join_namespace(pid: int, name: str, flag: int) -> None:
    fd = os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        ns.setns(fd, flag)
    finally:
        os.close(fd)


def _shared_memory(mode: str) -> int | None:
    """/dev/shm of whom the IPC namespace is, as a detached tree; -1: none at all; None: one of its own.

    Another container's is cloned inside its mount namespace, where we run nothing of it.
    """
    if mode == "own":
        return None
    if mode == "none":
        return -1
    if not mode.startswith("pid:"):
        return fsops.clone_tree(fsops.Bind("/dev/shm", "/dev/shm")) if os.path.isdir("/dev/shm") else None
    home = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    theirs = os.open(f"/proc/{mode[4:]}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    try:
        ns.setns(theirs, ns.CLONE_NEWNS)
        try:
            return fsops.clone_tree(fsops.Bind("/dev/shm", "/dev/shm"))
        except FileNotFoundError:
            return -1
        finally:
            ns.setns(home, ns.CLONE_NEWNS)
    finally:
        os.close(home)
        os.close(theirs)


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
