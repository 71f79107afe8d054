"""What this machine lets us do, found by trying, and the user namespace that an ordinary user's work is done in.

R1: root with CAP_SYS_ADMIN. R2: an ordinary user with subordinate ids (newuidmap). R3: one with a single id.
On R2 and R3 the command, the keeper and all that they start are in a user namespace where the user is root: the
same code then makes mounts, networks and files as on R1. KAP_RUNG=R3 asks for less than there is.
"""

from __future__ import annotations

import os

from kapelle.errors import EngineError
from kapelle.light import NamedTuple
from kapelle.linux import idmap, process
from kapelle.linux import namespaces as ns

_SYS_ADMIN = 21
_HELPERS = (("newuidmap", "newgidmap"), ("/usr/bin", "/bin", "/usr/local/bin", "/usr/sbin"))
_FEWEST = 1000  # subordinate ids below which a range helps nobody

WORDS = {
    "R1": "root",
    "R2": "an ordinary user with subordinate ids",
    "R3": "an ordinary user with one id",
}


class Ids(NamedTuple):
    """What an ordinary user may map: with `helpers` more than the one id."""

    uids: tuple[idmap.Range, ...] = ()
    gids: tuple[idmap.Range, ...] = ()
    helpers: tuple[str, str] = ("", "")


def current() -> str:
    """The rung that this process works on now: "R1", "R2", "R3", or "" while it can't make containers."""
    if not _capable():
        return ""
    if idmap.is_initial():
        return "R1"
    return "R2" if idmap.has_many() else "R3"


def _capable() -> bool:
    with open("/proc/self/status") as f:
        held = next(int(line.split()[1], 16) for line in f if line.startswith("CapEff:"))
    return bool(held >> _SYS_ADMIN & 1)


def enter(wanted: str = "", *, witnessed: bool = False, shown: str = "") -> str:
    """Go to the best rung there is (not above `wanted`), by a user namespace where one is needed; the rung, or "".

    For a process with one thread. Does nothing where containers can be made already. Raises nothing. `witnessed`: a
    child stays outside, to say who holds a port. `shown`: the folder where keepers show their namespaces (`show`);
    that of a living one is joined, so that a user's projects have one in common and can share networks. Without one
    a child makes the namespace, tries it, and it is the child's that is joined.
    """
    have = current()
    if have or os.geteuid() == 0:
        return have
    offers = [ids_of_user()] if wanted != "R3" else []
    offers = [*(ids for ids in offers if ids.helpers[0]), Ids()]
    for ids in offers:
        space = _shared(shown, "R2" if ids.helpers[0] else "R3")
        space = _tried(ids)[0] if space < 0 else space
        if space >= 0:
            break
    else:
        return ""
    if witnessed:
        from kapelle.engines.native import witness

        witness.leave()
    try:
        ns.setns(space, ns.CLONE_NEWUSER)
        ns.unshare(ns.CLONE_NEWNS)
        process.prctl(process.PR_SET_DUMPABLE, 1)  # our own /proc/self stays ours
    except OSError:
        return ""
    finally:
        os.close(space)
    return current()


def _enter(ids: Ids) -> None:
    process.prctl(process.PR_SET_DUMPABLE, 1)  # so that our own /proc/self may be written
    if ids.helpers[0]:
        idmap.enter_ranges(ids.uids, ids.gids, ids.helpers, ns.CLONE_NEWNS)
    else:
        idmap.enter_single(0, 0, ns.CLONE_NEWNS)


def show(folder: str) -> None:
    """Let later commands find this process's user namespace."""
    os.makedirs(folder, 0o700, exist_ok=True)
    fd = os.open(f"{folder}/{os.getpid()}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(fd, "w") as f:
        f.write(f"{process.start_time(os.getpid())} {current()}")


def _shared(folder: str, rung: str) -> int:
    """The user namespace of a living keeper of ours that works on this rung, as a descriptor; -1 for none."""
    try:
        names = os.listdir(folder) if folder else []
    except OSError:
        return -1
    for name in names:
        try:
            with open(f"{folder}/{name}") as f:
                started, works_on = f.read().split()
            if process.start_time(int(name)) != int(started):
                os.unlink(f"{folder}/{name}")
            elif works_on == rung:
                return ns.open_of(int(name), "user")
        except (OSError, ValueError):
            continue  # it has gone this moment
    return -1


def ids_of_user() -> Ids:
    """The subordinate ids of this user that newuidmap would map, when both are there."""
    uid, gid = os.getuid(), os.getgid()
    names = (str(uid), *_name(uid))
    helpers = tuple(program(name) for name in _HELPERS[0])
    uids, gids = idmap.subordinate("/etc/subuid", names), idmap.subordinate("/etc/subgid", names)
    if not all(helpers) or min(uids[1], gids[1]) < _FEWEST:
        return Ids()
    count = min(uids[1], gids[1], 1 << 20)
    return Ids(
        (idmap.Range(0, uid, 1), idmap.Range(1, uids[0], count)),
        (idmap.Range(0, gid, 1), idmap.Range(1, gids[0], count)),
        (helpers[0], helpers[1]),
    )


def _name(uid: int) -> tuple[str, ...]:
    try:
        with open("/etc/passwd", encoding="utf-8", errors="replace") as f:
            return tuple(line.split(":", 1)[0] for line in f if line.split(":")[2:3] == [str(uid)])
    except OSError:
        return ()


def program(name: str) -> str:
    """Where a helper is installed; "" when it is not."""
    return next((f"{d}/{name}" for d in _HELPERS[1] if os.access(f"{d}/{name}", os.X_OK)), "")


def refusal(ids: Ids) -> str:
    """Why this user can't have such a namespace and mounts in it, tried in a child; "" when it works."""
    space, why = _tried(ids)
    if space >= 0:
        os.close(space)
    return why


def _tried(ids: Ids) -> tuple[int, str]:
    """(a user namespace made and tried by a child, as a descriptor; -1 for none, why)."""
    said, go = os.pipe2(os.O_CLOEXEC), os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        try:
            os.close(said[0])
            os.close(go[1])
            os.write(said[1], _try(ids).encode())
            os.read(go[0], 1)  # until its namespace has been opened
        finally:
            os._exit(0)
    os.close(said[1])
    os.close(go[0])
    why = os.read(said[0], 4096).decode("utf-8", "replace") or "a child process died while it tried"
    space = -1
    try:
        if why == "ok":
            space, why = ns.open_of(child, "user"), ""
    except OSError as e:
        why = f"the user namespace can't be opened: {e.strerror}"
    finally:
        os.close(said[0])
        os.close(go[1])
    if space < 0:
        os.waitpid(child, 0)  # else it is left to end by itself: the kernel takes milliseconds to undo its mounts
    return space, why


def _try(ids: Ids) -> str:
    from kapelle.linux import mount as m

    try:
        _enter(ids)
        process.prctl(process.PR_SET_DUMPABLE, 1)  # who made us shall find our namespace
    except OSError as e:
        return f"no user namespace: {e.strerror}"
    try:
        m.mount(None, "/", None, m.MS_REC | m.MS_SLAVE)
        m.mount("tmpfs", "/dev/shm" if os.path.isdir("/dev/shm") else "/tmp", "tmpfs")
    except OSError as e:
        return f"no mounts in a user namespace: {e.strerror}"
    return "ok"


_SWITCHES = (  # file below /proc/sys, the value that forbids, its name
    ("user/max_user_namespaces", "0", "user.max_user_namespaces = 0"),
    ("kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone = 0"),
    ("kernel/apparmor_restrict_unprivileged_userns", "1", "kernel.apparmor_restrict_unprivileged_userns = 1"),
)


def cause() -> str:
    """The setting of this host that forbids user namespaces, as far as one is known."""
    for path, forbidding, words in _SWITCHES:
        try:
            with open(f"/proc/sys/{path}") as f:
                if f.read().strip() == forbidding:
                    return words
        except OSError:
            continue
    return ""


def words_of(asked: str) -> list[str]:
    """The demands of --require."""
    return list(filter(None, asked.replace(" ", ",").split(",")))


def require(asked: str = "", *, later: tuple[str, ...] = ()) -> str:
    """The rung; EngineError KAP701 where containers can't be started, or not as `asked`, before anything is made.

    `asked`: words of --require: rootless, userns, subids, root. `later`: those that root meets by the file's services.
    """
    rung = current()
    if not rung:
        raise _no_rung()
    for word in words_of(asked):
        if word not in _DEMANDS:
            raise EngineError(
                f"--require={word}: there is no such demand", hint=f"one of {', '.join(_DEMANDS)}", code="KAP701"
            )
        if rung not in _DEMANDS[word] and not (rung == "R1" and word in later):
            raise EngineError(
                f"--require={word} is not met: this runs as {WORDS[rung]} ({rung})",
                hint="kap doctor says what would give more",
                code="KAP701",
            )
    return rung


_DEMANDS = {"root": ("R1",), "rootless": ("R2", "R3"), "userns": ("R2", "R3"), "subids": ("R2",)}


def _no_rung() -> EngineError:
    if os.geteuid() != 0:
        why = cause()
        details = [("cause", why)] if why else []
        return EngineError(
            "containers can't be started: this host forbids user namespaces to ordinary users",
            why="" if why else refusal(Ids()),
            details=(*details, ("works without", "config, plan, pull, load, save, version")),
            hint="kap doctor prints the command for the administrator; or run it as root",
            code="KAP701",
        )
    return EngineError(
        "this root may not make namespaces and mounts (CAP_SYS_ADMIN is missing)",
        why="an outer container took the capability away",
        hint="give the outer container --privileged, or --cap-add SYS_ADMIN",
        code="KAP701",
    )
