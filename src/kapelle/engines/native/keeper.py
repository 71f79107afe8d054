"""The keeper: the containers' parent. It forks, waits, writes exit files, holds descriptors and restarts the
supervisor; it decides nothing, so there is nothing in it to go wrong.

One per project, alive only while the project is. Started by the command line with the supervisor's listening
socket (`client.spawn`). If the keeper itself is killed, the supervisor becomes the new keeper (`adopt`), and the
containers live on: descriptors are in both processes, exit codes come from the kernel (PIDFD_GET_INFO).

Messages of the supervisor (engines.native.messages), each answered by {"pid": N}:
  {"op": "launch", "exit": FILE}  + memfd of the spec, sync socket, standard streams (+ "hold": names under which the
    last of these are kept once the child has them)
  {"op": "join", "target": PID, "exit": FILE}  + the same
and not answered:
  {"op": "keep", "name": NAME} + descriptor      {"op": "drop", "name": NAME}      {"op": "quit"}
To the supervisor: {"exit": PID, "status": wait status}.
"""

from __future__ import annotations

import errno
import gc
import os
import select
import sys
import time

from kapelle.engines.native import descriptors, messages, rung
from kapelle.engines.native.keeper_files import write_exit
from kapelle.light import Any, NoReturn, jsontext, signal, socket
from kapelle.linux import namespaces as ns
from kapelle.linux import process
from kapelle.state.paths import Paths

_RESTARTS_PER_MINUTE = 20


def main() -> None:
    """From keeper_start, once the interpreter is out of reach."""
    settings = jsontext.loads(sys.argv[1])
    process.set_name("kap-keeper")
    for name in ("HOME", "PATH", "LANG"):  # nothing of the caller's environment is ours to hand on
        os.environ.setdefault(name, "/")
    if rung.current() != "R1":
        rung.show(f"{Paths(*settings['paths']).run}/userns")
    run(settings, {name: int(fd) for name, fd in settings.pop("fds", {"listen": 3}).items()})


def run(settings: dict[str, Any], fds: dict[str, int]) -> None:
    """Keep a project until its supervisor says quit. `fds`: descriptors held by name, "listen" among them."""
    process.prctl(process.PR_SET_CHILD_SUBREAPER, 1)
    descriptors.raise_limit()
    Keeper(settings, fds).run()


def _warm_up() -> None:
    """Once, while the first supervisor comes up: what every child to come shares with us."""
    from kapelle.engines.native import launcher  # noqa: F401
    from kapelle.linux import seccomp

    seccomp.filter_for(_default_caps())
    gc.collect()
    gc.freeze()


def _default_caps() -> frozenset[str]:
    from kapelle.linux import caps

    return caps.effective_set((), (), False)


class Keeper:
    def __init__(self, settings: dict[str, Any], fds: dict[str, int]) -> None:
        self.settings = settings
        self.fds = fds
        self.exits: dict[int, str] = {}  # pid -> file for its exit status
        self.unreaped = False  # there may be children to reap
        self.supervisor = 0
        self.channel: socket.socket | None = None
        self.started: list[float] = []
        self.quitting = False
        self.own_pid_namespace = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        try:
            ns.setns(self.own_pid_namespace, ns.CLONE_NEWPID)
            self.returns = True
        except OSError:
            self.returns = False

    def run(self) -> None:
        wake, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGPIPE):
            signal.signal(number, signal.SIG_IGN)
        self.start_supervisor()
        _warm_up()
        while self.supervisor:
            poll = select.poll()
            poll.register(wake, select.POLLIN)
            if self.channel is not None:
                poll.register(self.channel.fileno(), select.POLLIN)
            ready = {fd for fd, _ in poll.poll(0 if self.unreaped else None)}
            if not ready:
                self.reap_one()
                continue
            if self.channel is not None and self.channel.fileno() in ready:
                self.serve()
            if wake in ready:
                try:
                    os.read(wake, 4096)
                except BlockingIOError:
                    pass
                self.look()
        while self.unreaped:  # whoever comes after us as their parent may not care
            self.reap_one()

    def start_supervisor(self) -> None:
        now = time.monotonic()
        self.started = [t for t in self.started if now - t < 60]
        if len(self.started) >= _RESTARTS_PER_MINUTE:
            time.sleep(2)  # it dies at once, again and again: the containers go on meanwhile
        self.started.append(now)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if self.channel is not None:
            self.channel.close()
        self.channel = ours
        pid = os.fork()
        if pid == 0:
            ours.close()
            os.close(self.own_pid_namespace)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            code = 1
            try:
                from kapelle.engines.native import supervisor

                supervisor.run(self.settings, theirs, self.fds)
                code = 0
            except BaseException:
                import traceback

                traceback.print_exc()  # into keeper.log
            finally:
                os._exit(code)
        theirs.close()
        self.supervisor = pid

    def serve(self) -> None:
        """One message of the supervisor."""
        assert self.channel is not None
        message, fds = messages.receive(self.channel)
        if message is None:
            self.channel.close()
            self.channel = None
            return
        op = message.get("op")
        if op in ("launch", "join"):
            held = [str(name) for name in message.get("hold", ())]
            try:
                pid = self.fork(message, fds)
                answer: dict[str, Any] = {"pid": pid}
            except OSError as e:
                answer, held = {"pid": 0, "error": e.strerror or str(e)}, []
            for fd in fds[: len(fds) - len(held)]:
                os.close(fd)
            for name, fd in zip(held, fds[len(fds) - len(held) :], strict=True):
                self.hold(name, fd)
            self.tell(answer)
        elif op == "keep" and fds:
            self.hold(str(message["name"]), fds[0])
        elif op == "drop":
            self.drop(str(message.get("name")))
        elif op == "quit":
            self.quitting = True

    def hold(self, name: str, fd: int) -> None:
        self.drop(name)
        self.fds[name] = fd

    def drop(self, name: str) -> None:
        old = self.fds.pop(name, -1)
        if old >= 0:
            os.close(old)

    def fork(self, message: dict[str, Any], fds: list[int]) -> int:
        """Fork a child in a new (or the target's) pid namespace. Its parent is this process."""
        target = int(message.get("target", 0))
        pidfd = os.pidfd_open(target) if message["op"] == "join" else -1
        try:
            if message.get("host_pid"):
                pid = os.fork()
                if pid == 0:
                    self.become(message, fds, pidfd)
            elif self.returns:
                pid = self.fork_beside(message, fds, pidfd)
            else:
                pid = self.fork_through(message, fds, pidfd)
        finally:
            if pidfd >= 0:
                os.close(pidfd)
        self.exits[pid] = str(message.get("exit", ""))
        return pid

    def fork_beside(self, message: dict[str, Any], fds: list[int], pidfd: int) -> int:
        """Fork into another pid namespace and come back to our own for the next."""
        _choose_pid_namespace(message, pidfd)
        try:
            pid = os.fork()
        except BaseException:
            ns.setns(self.own_pid_namespace, ns.CLONE_NEWPID)
            raise
        if pid == 0:
            self.become(message, fds, pidfd)
        ns.setns(self.own_pid_namespace, ns.CLONE_NEWPID)
        return pid

    def fork_through(self, message: dict[str, Any], fds: list[int], pidfd: int) -> int:
        """Fork by a child in between, for a user namespace from which there is no way back to the host's pid namespace.

        When that child ends its own becomes ours: we are its subreaper.
        """
        reading, writing = os.pipe2(os.O_CLOEXEC)
        between = os.fork()
        if between == 0:
            try:
                _choose_pid_namespace(message, pidfd)
                pid = os.fork()
                if pid == 0:
                    self.become(message, fds, pidfd)
                os.write(writing, str(pid).encode())
            except OSError as e:
                os.write(writing, f"-{e.errno or errno.EPERM}".encode())
            finally:
                os._exit(0)
        os.close(writing)
        told = os.read(reading, 32)
        os.close(reading)
        os.waitpid(between, 0)
        number = int(told or -errno.ECHILD)
        if number <= 0:
            raise OSError(-number, os.strerror(-number))
        return number

    def become(self, message: dict[str, Any], fds: list[int], pidfd: int) -> NoReturn:
        """In the child: what was asked for."""
        from kapelle.engines.native import launcher  # loaded by `_warm_up`

        spec_fd, sync_fd, *stdio = fds
        sync = socket.socket(fileno=sync_fd)
        spec = jsontext.loads(os.pread(spec_fd, os.fstat(spec_fd).st_size, 0))
        soft, hard = self.settings.get("nofile") or descriptors.given()
        spec["nofile"] = soft, hard
        if message["op"] == "join":
            launcher.join(spec, sync, stdio, pidfd)
        launcher.launch(spec, sync, stdio)

    def look(self) -> None:
        """See which children have ended, write down how and tell the supervisor.

        They are reaped afterwards, one by one while there is nothing else to do: that takes the kernel milliseconds for
        the first process of a pid namespace, and nobody shall wait for it.
        """
        self.unreaped = True
        for pid in tuple(self.exits):
            ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is not None:
                self.note(pid, _wait_status(ended))
        pid, _ = os.waitpid(self.supervisor, os.WNOHANG)
        if pid:
            self.supervisor_ended()

    def note(self, pid: int, status: int) -> None:
        path = self.exits.pop(pid, "")
        if path:
            write_exit(path, pid, status)
        self.tell({"exit": pid, "status": status})

    def reap_one(self) -> None:
        """Reap one child, ours or an orphan that became ours."""
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            pid = status = 0
        self.unreaped = pid != 0
        if pid in self.exits:  # it ended since we looked
            self.note(pid, status)
        if pid and pid == self.supervisor:
            self.supervisor_ended()

    def supervisor_ended(self) -> None:
        self.supervisor = 0
        if not self.quitting:
            self.drain()
            self.start_supervisor()

    def drain(self) -> None:
        """Take what the dead supervisor still had sent: a descriptor to keep must not be lost with it."""
        while self.channel is not None:
            poll = select.poll()
            poll.register(self.channel.fileno(), select.POLLIN)
            if not poll.poll(0):
                return
            self.serve()

    def tell(self, message: dict[str, Any]) -> None:
        if self.channel is not None:
            try:
                messages.send(self.channel, message)
            except OSError:
                pass  # it died; its successor reads the exit files


def _choose_pid_namespace(message: dict[str, Any], pidfd: int) -> None:
    """Where the next child of this process is: the target's pid namespace, or a new one."""
    target = int(message.get("target", 0))
    if pidfd >= 0:
        ns.setns(pidfd, ns.CLONE_NEWPID)
    elif target:  # pid: service:X
        fd = os.open(f"/proc/{target}/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        ns.setns(fd, ns.CLONE_NEWPID)
        os.close(fd)
    else:
        ns.unshare(ns.CLONE_NEWPID)


def _wait_status(ended: os.waitid_result) -> int:
    """What waitpid(2) would have told."""
    if ended.si_code == os.CLD_EXITED:
        return ended.si_status << 8
    return ended.si_status | (0x80 if ended.si_code == os.CLD_DUMPED else 0)
