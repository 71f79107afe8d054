"""From a finished root to exec: streams, limits, filter, capabilities, user, and the small init of `init: true`."""

from __future__ import annotations

import errno
import fcntl
import os

from kapelle.engines.native import descriptors, mapping, userns, users
from kapelle.engines.native.launch_words import LaunchError, Spec, note
from kapelle.light import NoReturn, signal, socket
from kapelle.linux import caps, fsops, idmap, process, rlimits, seccomp

_TIOCSCTTY = 0x540E


def close_all_but(keep: list[int]) -> None:
    first = 0
    for fd in sorted(set(keep)):
        if fd > first:
            process.close_range(first, fd - 1)
        first = fd + 1
    process.close_range(first)


def outer_ids(spec: Spec, user: users.User) -> tuple[int, int]:
    """The numbers that a user's ids have for us, who are outside of its user namespace."""
    ids = userns.ids_of(spec)
    if ids is not None:
        return ids.uids + user.uid, ids.gids + user.gid
    return mapping.outer(mapping.swap(spec, user), spec["rung"], user.uid), user.gid


def become(spec: Spec, sync: socket.socket, stdio: list[int], terminal: int, user: users.User, space: int) -> NoReturn:
    """Standard streams, limits, filter, capabilities, user, exec. `space`: the user namespace to be in, or -1."""
    os.setsid()
    if terminal >= 0:
        fcntl.ioctl(terminal, _TIOCSCTTY, 0)
        stdio = [terminal, terminal, terminal]
    _set_stdio(stdio, sync)
    close_all_but([0, 1, 2, sync.fileno(), *([space] if space >= 0 else [])])
    wanted = mapping.swap(spec, user)
    if terminal < 0:
        for fd in (0, 1, 2):
            if fsops.is_null(os.fstat(fd)):
                _own_null(fd)
            elif fd:  # so that the program may open /dev/stdout as its own user
                try:
                    os.fchown(fd, outer_ids(spec, user)[0], -1)
                except OSError:
                    pass
    env = _environment(spec, user)
    args = [str(a) for a in spec["args"]]
    if spec.get("nofile"):
        descriptors.restore(spec["nofile"])
    for name, soft, hard in rlimits.apply(spec["ulimits"]):
        note(sync, f"ulimits.{name}", f"the most that may be set here is {soft}:{hard}")
    if spec["oom_score_adj"] is not None:
        try:
            with open("/proc/self/oom_score_adj", "w") as f:
                f.write(str(spec["oom_score_adj"]))
        except OSError as e:
            note(sync, "oom_score_adj", (e.strerror or "refused").lower())
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


def become_init(spec: Spec, sync: socket.socket, space: int) -> None:
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
    close_all_but([0, 1, 2])
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


def user_of(spec: Spec) -> users.User:
    for wanted in filter(None, spec.get("users", ())):  # on R3: who the image's program becomes by itself
        try:
            return users.lookup("/", wanted, ())
        except ValueError:
            continue
    try:
        return users.lookup("/", spec["user"], tuple(spec["groups"]))
    except ValueError as e:
        raise LaunchError(str(e), 126, subject=spec["user"]) from None
