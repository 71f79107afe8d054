"""The command line's side: find or start a project's supervisor, ask it."""

from __future__ import annotations

import fcntl
import os
import select
import sys
import time
from _thread import _count as _thread_count
from collections.abc import Iterator

from kapelle.engines.native import descriptors, messages
from kapelle.errors import EngineError
from kapelle.light import Any, jsontext, socket
from kapelle.state import store
from kapelle.state.paths import Paths

_PATIENCE = 20.0  # seconds for a supervisor to come back after it was killed


def connect(paths: Paths, project: str) -> socket.socket | None:
    """A connection to the running supervisor, or None when there is none."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        sock.connect(_address(paths, project))
    except (FileNotFoundError, ConnectionRefusedError):
        sock.close()
        return None
    except OSError as e:
        sock.close()
        raise EngineError(f'can\'t reach the supervisor of "{project}": {e.strerror}') from None
    return sock


def _address(paths: Paths, project: str) -> str:
    """sun_path holds 107 bytes: a long place is reached through a descriptor of its folder."""
    path = f"{paths.project_run(project)}/socket"
    if len(path) < 100:
        return path
    directory = os.open(paths.project_run(project), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    _held.append(directory)
    return f"/proc/self/fd/{directory}/socket"


_held: list[int] = []  # folders held open for long socket paths, for the life of the command
_idle: dict[str, list[socket.socket]] = {}  # connections that wait for the next request, by the supervisor's folder


def _kept(paths: Paths, project: str) -> socket.socket | None:
    """A connection that an earlier request has left."""
    try:
        return _idle[paths.project_run(project)].pop()
    except LookupError:
        return None


def hold(paths: Paths, project: str, *, strict: bool = False) -> socket.socket:
    """A connection that is there already, or a new one: the supervisor stays at least as long as it is open."""
    return _kept(paths, project) or ensure(paths, project, strict=strict)


def keep(paths: Paths, project: str, sock: socket.socket) -> None:
    """Leave a connection whose last answer has come to the next request."""
    _idle.setdefault(paths.project_run(project), []).append(sock)


def release() -> None:
    """Close the connections that wait: whoever keeps one keeps its supervisor."""
    while _idle:
        for sock in _idle.popitem()[1]:
            sock.close()


def ensure(paths: Paths, project: str, *, strict: bool = False) -> socket.socket:
    """A connection to the supervisor; starts keeper and supervisor when there is none."""
    sock = connect(paths, project)
    if sock is not None:
        return sock
    from kapelle.engines.native import rung

    rung.require()
    run_dir = paths.project_run(project)
    for directory in (run_dir, paths.project(project), f"{paths.project(project)}/containers", paths.networks):
        store.make_directory(directory)
    lock = os.open(f"{run_dir}/spawn.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        sock = connect(paths, project)
        if sock is None:
            spawn(paths, project, strict=strict)
            sock = connect(paths, project)
    finally:
        os.close(lock)
    if sock is None:
        raise EngineError(
            f'the supervisor of "{project}" did not start', hint=f"see {run_dir}/keeper.log for what it said"
        )
    return sock


def spawn(paths: Paths, project: str, *, strict: bool) -> None:
    """Start a keeper with the listening socket, so that nobody has to wait for it to listen."""
    run_dir = paths.project_run(project)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        os.unlink(f"{run_dir}/socket")
    except FileNotFoundError:
        pass
    listening.bind(_address(paths, project))
    os.chmod(f"{run_dir}/socket", 0o600)
    listening.listen(128)
    log = os.open(f"{run_dir}/keeper.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    package_root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
    python = os.path.realpath(sys.executable)
    code = (
        f"import sys; sys.path.insert(0, {package_root!r}); "
        "from kapelle import codecache; codecache.use(); "
        "from kapelle.engines.native import keeper_start; keeper_start.main()"
    )
    argv = [python, "-I", "-S", "-c", code]
    door = os.stat(f"{run_dir}/socket")
    settings = {
        "project": project, "paths": list(paths), "strict": strict, "argv": [*argv, ""],
        "door": [door.st_ino, door.st_mtime_ns], "nofile": descriptors.given(),
    }  # fmt: skip
    environment = {k: os.environ[k] for k in ("PATH", "LD_LIBRARY_PATH", "TZ") if k in os.environ}
    argv.append(jsontext.dumps(settings))
    if os.geteuid() == 0 and _thread_count() == 0:
        if os.fork() == 0:
            from kapelle.engines.native import keeper_start

            keeper_start.begin(argv, environment, null, log, listening.fileno())
        os.close(null)
        os.close(log)
        listening.close()
        return
    file_actions: list[tuple[Any, ...]] = [
        (os.POSIX_SPAWN_DUP2, null, 0),
        (os.POSIX_SPAWN_DUP2, log, 1),
        (os.POSIX_SPAWN_DUP2, log, 2),
        (os.POSIX_SPAWN_DUP2, listening.fileno(), 3),
    ]
    if listening.fileno() == 3:
        os.set_inheritable(3, True)
        file_actions.pop()
    os.posix_spawn(
        python, argv, environment, file_actions=file_actions, setsid=True,
        setsigmask=(), setsigdef=[n for n in range(1, 32) if n not in (9, 19)],
    )  # fmt: skip
    os.close(null)
    os.close(log)
    listening.close()


def request(
    paths: Paths,
    project: str,
    message: dict[str, Any],
    fds: tuple[int, ...] = (),
    *,
    start: bool = True,
    strict: bool = False,
) -> dict[str, Any]:
    """Ask and wait for the answer. Tries again when the supervisor is being restarted (requests are idempotent).

    Raises EngineError when it answers with an error, or stays away. With `start` false and no supervisor, the
    answer is {}.
    """
    sock, answer, given = ask(paths, project, message, fds, start=start, strict=strict)
    if sock is None:
        return {}
    for fd in given:
        os.close(fd)
    keep(paths, project, sock)
    return checked(answer)


def ask(
    paths: Paths,
    project: str,
    message: dict[str, Any],
    fds: tuple[int, ...] = (),
    *,
    start: bool = True,
    strict: bool = False,
) -> tuple[socket.socket | None, dict[str, Any], list[int]]:
    """Ask and keep the connection: (socket, first answer, descriptors with it); (None, {}, []) without a supervisor.

    A supervisor that is killed before it answers is asked again when it is back.
    """
    deadline = time.monotonic() + _PATIENCE
    while True:
        sock = _kept(paths, project)
        if sock is None:
            sock = ensure(paths, project, strict=strict) if start else connect(paths, project)
        if sock is None:
            return None, {}, []
        try:
            messages.send(sock, message, fds)
            answer, given = messages.receive(sock)
        except (BrokenPipeError, ConnectionResetError):
            answer, given = None, []
        if answer is not None:
            return sock, answer, given
        sock.close()
        if time.monotonic() > deadline:
            raise EngineError(f'the supervisor of "{project}" does not answer', hint="run the command again")
        time.sleep(0.01)


def answers(paths: Paths, project: str, op: str, rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Ask about several containers, a row with its "id" for each: an answer for each, with its "id", as they come.

    A supervisor that is killed meanwhile is asked again when it is back, about those that are left. Raises EngineError
    when it stays away.
    """
    left = {str(row["id"]) for row in rows}
    deadline = 0.0
    while left:
        sock, first, _ = ask(paths, project, {"op": op, "rows": [row for row in rows if row["id"] in left]})
        assert sock is not None  # it is started when there is none
        answer: dict[str, Any] | None = first
        while answer is not None:
            if "id" not in answer:
                sock.close()
                checked(answer)
                break  # it does not say about whom
            deadline = 0.0
            left.discard(str(answer["id"]))
            yield answer
            if not left:
                keep(paths, project, sock)
                return
            try:
                answer, _ = messages.receive(sock)
            except OSError:
                answer = None
        sock.close()
        deadline = deadline or time.monotonic() + _PATIENCE
        if time.monotonic() > deadline:
            raise EngineError(f'the supervisor of "{project}" does not answer', hint="run the command again")


def checked(answer: dict[str, Any]) -> dict[str, Any]:
    """The answer, or its error raised."""
    if "error" in answer:
        raise EngineError(
            str(answer["error"]),
            hint=str(answer.get("hint", "")),
            details=tuple((str(a), str(b)) for a, b in answer.get("details", ())),
            code=str(answer.get("kap", "")) or "KAP310",
            exit_code=int(answer.get("code", 1)),
        )
    return answer


def leave(paths: Paths, project: str) -> None:
    """Ask the supervisor to leave if nothing needs it, and wait until keeper and supervisor are gone."""
    release()
    sock = connect(paths, project)
    if sock is None:
        _remove_door(paths, project)
        return
    with sock:
        try:
            messages.send(sock, {"op": "quit"})
            answer, _ = messages.receive(sock)
            if answer and answer.get("ok"):
                keeper = os.pidfd_open(int(answer["keeper"]))
                select.select([keeper], [], [], 5)
                os.close(keeper)
        except OSError:
            pass  # it is gone already


def _remove_door(paths: Paths, project: str) -> None:
    """The socket of a command that was killed before it had started the keeper behind it."""
    run_dir = paths.project_run(project)
    if not os.path.exists(f"{run_dir}/socket"):
        return
    lock = os.open(f"{run_dir}/spawn.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        sock = connect(paths, project)
        if sock is None:
            os.unlink(f"{run_dir}/socket")
        else:
            sock.close()  # somebody came just now
    except OSError:
        pass
    finally:
        os.close(lock)
