"""One container in the supervisor: start, output, exit, restart. Decisions come from `plan.lifecycle`."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable

from kapelle.engines.native import hosts, messages
from kapelle.engines.native.container_status import new_status
from kapelle.engines.native.health import Health
from kapelle.engines.native.keeper_files import exit_code, make_room, read_exit, write_exit
from kapelle.engines.native.loop import Timer
from kapelle.engines.native.streams import Streams
from kapelle.errors import KapelleError
from kapelle.light import TYPE_CHECKING, Any, signal, socket
from kapelle.linux import process
from kapelle.plan import lifecycle
from kapelle.state import store

if TYPE_CHECKING:
    from kapelle.engines.native.supervisor import Supervisor

_MEMORY = ("memory", "memory_swap", "cgroup_parent")  # limits that can be reached
_EXIT_POLL = 0.01  # between looks for an exit file whose process is gone
_EXIT_LOOKS = 200
_SETTLED = 0.5  # seconds after which a program has set up its signal handlers

Answer = Callable[[dict[str, Any]], None]


class Container:
    """The live side of one container. `intent` is what was asked for, `status` what is (status.json)."""

    def __init__(self, supervisor: Supervisor, container_id: str) -> None:
        self.supervisor = supervisor
        self.id = container_id
        self.directory = supervisor.paths.container(supervisor.project, container_id)
        self.intent: dict[str, Any] = store.read_json(f"{self.directory}/container.json")
        self.status: dict[str, Any] = {
            **new_status(),
            **(store.read_json(f"{self.directory}/status.json") or {}),
        }
        self.pidfd = -1
        self.sync: socket.socket | None = None
        self.start_answers: list[Answer] = []
        self.start_error: dict[str, Any] | None = None
        self.notes: list[tuple[str, str]] = []  # (compose key, why it is not honoured) of this start
        self.health: Health | None = None
        self.restart_timer: Timer | None = None
        self.kill_timer: Timer | None = None
        self.exit_looks = 0
        self.removing = False  # it is stopped in order to be removed
        self.told = False  # somebody has been told how it ended
        self.streams = Streams(self)
        supervisor.cgroups.of(container_id, self.intent["limits"].get("cgroup_parent") or "")

    # ---- state ---------------------------------------------------------------------------------------------

    @property
    def state(self) -> str:
        return str(self.status["status"])

    @property
    def alive(self) -> bool:
        return self.state in ("running", "paused", "restarting") or self.sync is not None

    @property
    def pid(self) -> int:
        return int(self.status["pid"])

    def save(self) -> None:
        try:
            store.write_json(f"{self.directory}/status.json", self.status, over=True)
        except KapelleError:
            pass  # the disk is full, or the container was removed: facts stay in the kernel and the exit file
        self.supervisor.changed(self)

    # ---- start ---------------------------------------------------------------------------------------------

    def start(self, answer: Answer, given: list[int], size: Any = None) -> None:
        """Begin to launch; `answer` hears {"ok"} at exec or {"error"}. `given`: a one-off's standard streams."""
        if self.state in ("running", "paused"):
            if self.pidfd >= 0 and not process.is_same(self.pid, int(self.status["start_time"])):
                # It has ended just now and that is not told yet: what to start is what comes after.
                self.supervisor.loop.later(_EXIT_POLL, lambda: self.start(answer, [], size))
                return
            answer({"ok": True, "already": True})
            return
        self.start_answers.append(answer)
        if self.sync is not None:
            return
        self._cancel_restart()
        self.start_error = None
        try:
            self._launch(given, size)
        except KapelleError as e:
            self._start_failed({"error": e.what, "code": 128, "details": e.details, "hint": e.hint, "kap": e.code})
        except OSError as e:
            from kapelle.engines.native.supervisor import error_words

            self._start_failed({"error": error_words(e), "code": 128})

    def _launch(self, given: list[int], size: Any) -> None:
        run = int(self.status["run"]) + 1
        supervisor = self.supervisor
        self._write_files(())
        supervisor.volumes.use(self.id, self.intent["launch"]["mounts"])
        self.streams.watch_log()
        make_room(f"{self.directory}/exit")
        spec = dict(self.intent["launch"])
        spec["namespaces"] = {k: self._namespace(v) for k, v in spec["namespaces"].items()}
        spec["rung"] = supervisor.rung
        made = supervisor.cgroups.create(self.id, self.intent["limits"])
        spec["cgroups"] = made.paths
        # A user namespace opens no node that was made in it, rules or not.
        self.status["devices"] = spec["confined"] = made.confined or supervisor.rung != "R1"
        self.notes = [*made.notes, *((str(k), str(v)) for k, v in self.intent.get("notes") or ())]
        if size:
            spec["size"] = size
        message: dict[str, Any] = {"op": "launch", "exit": f"{self.directory}/exit"}
        pid_mode = spec["namespaces"]["pid"]
        if pid_mode == "host":
            message["host_pid"] = True
        elif pid_mode.startswith("pid:"):
            message["target"] = int(pid_mode[4:])
        streams = given or self.streams.open()
        if not given:
            message["hold"] = self.streams.held_names()
        try:
            pid, self.sync = supervisor.keeper.begin(message, spec, streams)
        finally:
            if not given:
                for fd in streams:
                    os.close(fd)
        self.status.update(run=run, pid=pid, start_time=process.start_time(pid), boot=supervisor.boot)
        # Before it can run: a successor must know of it, should we die between here and its exec.
        store.write_json(f"{self.directory}/status.json", self.status, over=True)
        self.pidfd = os.pidfd_open(pid)
        supervisor.keeper.watch(pid, self._keeper_saw_exit)
        supervisor.loop.add(self.pidfd, self._gone)
        supervisor.loop.add(self.sync.fileno(), self._on_sync)

    def _namespace(self, mode: str) -> str:
        if not mode.startswith("container:"):
            return mode
        other = self.supervisor.container(mode.removeprefix("container:"))
        if other is None or other.state != "running":
            raise KapelleError(f'the container that "{self.intent["service"]}" shares a namespace with is not running')
        return f"pid:{other.pid}"

    def _on_sync(self, _: int) -> None:
        """The child speaks: it has its namespaces, a terminal, a mistake; or its socket closed at exec."""
        assert self.sync is not None
        message, fds = messages.receive(self.sync)
        if message is None:
            self._close_sync()
            if self.start_error is None:
                self._started()
            return
        if message.get("at") == "namespaces":
            try:
                self._connect()
                messages.send(self.sync, {"go": True})
            except KapelleError as e:
                self.start_error = {
                    "error": e.what, "code": 128, "details": e.details, "hint": e.hint, "kap": e.code,
                }  # fmt: skip
                self.signal(signal.SIGKILL)
            except OSError as e:
                # It may have ended by itself; then its own message, which follows, says more.
                self.start_error = {"error": f"network: {e.strerror} {e.filename or ''}".strip(), "code": 128}
                self.signal(signal.SIGKILL)
        elif message.get("at") == "fuse" and fds:
            from kapelle.engines.native import fuse

            fuse.serve(fds[0], self.intent["launch"])
        elif message.get("at") == "note":
            self.notes.append((str(message["key"]), str(message["text"])))
        elif message.get("at") == "terminal" and fds:
            self.streams.hold_terminal(fds.pop(0))
        elif "error" in message:
            self.start_error = message
        for fd in fds:
            os.close(fd)

    def _connect(self) -> None:
        """Put the new network namespace on its networks, with names and ports, before the program starts."""
        if self.intent["launch"]["namespaces"]["net"] != "own":
            return
        netns = os.open(f"/proc/{self.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            endpoints, ports = self.supervisor.networks.attach(self, netns)
        finally:
            os.close(netns)
        self.status["networks"] = [list(e) for e in endpoints]
        self.status["ports"] = [list(p) for p in ports]
        self._write_files(tuple(a for e in endpoints for a in (e.ipv4, e.ipv6)))

    def _write_files(self, addresses: tuple[str, ...]) -> None:
        launch = self.intent["launch"]
        own_net = launch["namespaces"]["net"] in ("own", "none")
        try:
            with open("/etc/resolv.conf") as f:
                resolv = f.read()
        except OSError:
            resolv = ""
        if own_net:
            resolv = hosts.resolv_conf(tuple(self.intent["dns_search"]), tuple(self.intent["dns_opt"]), resolv)
        gateway = self.supervisor.networks.host_gateway() if own_net else "127.0.0.1"
        extra = hosts.extra_hosts(self.intent["extra_hosts"], gateway)
        hostname = launch["hostname"]
        for name, text in (
            ("hosts", hosts.hosts(hostname or os.uname().nodename, launch["domainname"], addresses, extra)),
            ("resolv.conf", resolv),
            ("hostname", (hostname or os.uname().nodename) + "\n"),
        ):
            # In place, never by rename: the file is bind-mounted. Readable by every user inside.
            fd = os.open(f"{self.directory}/{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
            os.fchmod(fd, 0o644)
            os.write(fd, text.encode())
            os.close(fd)

    def _started(self) -> None:
        # It may have ended between its exec and now: it did start, and `_gone` tells the rest.
        self.status.update(
            status="running",
            started=time.time(),
            finished=0.0,
            exit_code=0,
            oom=False,
            error="",
            stopped_by_user=False,
            halted=False,
            killed="",
        )
        if self.intent["healthcheck"]:
            self.health = Health(self.supervisor, self)
            self.health.begin()
        else:
            self.status["health"] = ""
        self.save()
        self.supervisor.event(self, "start")
        warnings = self.supervisor.networks.warnings()
        self._answer_start({"ok": True, "status": self.status, "notes": self.notes, "warnings": warnings})

    def _start_failed(self, error: dict[str, Any]) -> None:
        self.start_error = None
        self._close_sync()
        self._release()
        self.status.update(
            status="exited" if self.status["run"] else "created",
            exit_code=int(error.get("code", 128)),
            error=str(error["error"]),
            finished=time.time(),
            pid=0,
        )
        self.save()
        self._answer_start({**error, "code": 1})  # 126 and 127 are the container's, not the command's

    def _answer_start(self, message: dict[str, Any]) -> None:
        answers, self.start_answers = self.start_answers, []
        for answer in answers:
            answer(message)

    def _close_sync(self) -> None:
        if self.sync is not None:
            self.supervisor.loop.remove(self.sync.fileno())
            self.sync.close()
            self.sync = None

    def hurry_health(self) -> None:
        """Its probe has reason to look at once."""
        if self.health is not None:
            self.health.hurry()

    # ---- end -----------------------------------------------------------------------------------------------

    def _keeper_saw_exit(self, status: int) -> None:
        self._ended(status, time.time_ns())

    def _gone(self, _: int) -> None:
        """The process is a zombie or reaped: the keeper's message comes, or its exit file, or the kernel tells."""
        self.supervisor.loop.remove(self.pidfd)
        self.exit_looks = 0
        self._look_for_exit(self.pid)

    def _look_for_exit(self, pid: int) -> None:
        if self.pidfd < 0 or self.pid != pid:
            return  # told meanwhile, and perhaps started again
        found = read_exit(f"{self.directory}/exit", self.pid)
        if found is None:
            # Not the keeper's child any more (it was killed): the kernel tells, before or after init has reaped it.
            status = process.zombie_status(self.pid) if self.exit_looks >= 2 else None
            if status is None:
                status = process.pidfd_exit_status(self.pidfd)
            if status is not None and self.exit_looks >= 2:
                write_exit(f"{self.directory}/exit", self.pid, status)
                found = status, time.time_ns()
        if found is None and self.exit_looks >= _EXIT_LOOKS:
            found = 137 << 8, time.time_ns()  # nobody can know: the keeper died and the kernel is too old to tell
        if found is not None:
            self._ended(*found)
            return
        self.exit_looks += 1
        self.supervisor.loop.later(_EXIT_POLL, lambda: self._look_for_exit(pid))

    def _ended(self, wait_status: int, when_ns: int) -> None:
        if self.pidfd < 0:
            return
        self.supervisor.keeper.unwatch(self.pid)
        code = exit_code(wait_status)
        starting = self.sync is not None
        if starting:
            # What it said before it died is still in the socket; an exec'd program that is already over closes it.
            while self.sync is not None:
                self.sync.setblocking(False)
                try:
                    self._on_sync(0)
                except BlockingIOError:
                    self._close_sync()
        self.streams.drain()
        if self.start_error is not None:
            self._start_failed(self.start_error)
            return
        oom = self._out_of_memory(wait_status)
        peak = self.supervisor.cgroups.memory_peak(self.id) if oom else 0
        self._release()
        ran = process.age(int(self.status["start_time"])) if self.status["started"] else 0.0
        self.status.update(
            status="exited", exit_code=code, finished=when_ns / 1e9, pid=0, oom=oom, memory_peak=peak, health_pid=0
        )
        if self.health is not None:
            self.health.stop()
            self.health = None
        if oom:
            self.supervisor.event(self, "oom")
        self.supervisor.event(self, "die", exitCode=str(code))
        self._decide_restart(code, ran)
        self.save()
        self.supervisor.container_ended(self)

    def _out_of_memory(self, wait_status: int) -> bool:
        """Did the kernel kill something in it for want of memory? Not asked of what we killed and has no limit."""
        ours = self.status["stopped_by_user"] and os.WIFSIGNALED(wait_status)
        limited = any(self.intent["limits"].get(key) for key in _MEMORY)
        return bool((limited or not ours) and self.supervisor.cgroups.oom_killed(self.id))

    def _decide_restart(self, code: int, ran: float) -> None:
        """What the policy says of an end. The counts are kept in the status, for a successor."""
        intent = self.intent
        policy = lifecycle.restart_policy(
            str(intent["restart"]), intent.get("restart_delay"), intent.get("restart_window")
        )
        before = lifecycle.RestartState(int(self.status["in_row"]), float(self.status["backoff"]))
        after, delay = lifecycle.after_exit(policy, before, code, ran, bool(self.status["stopped_by_user"]))
        self.status.update(in_row=after.restarts, backoff=after.backoff)
        if delay is not None:
            self.status["status"] = "restarting"
            self.restart_timer = self.supervisor.loop.later(delay, self._restart)

    def forget_restarts(self) -> None:
        """It is started anew: what happened before does not count."""
        self.status.update(restarts=0, in_row=0, backoff=0.0)

    def _restart(self) -> None:
        self.restart_timer = None
        self.status["restarts"] = int(self.status["restarts"]) + 1
        self.start(lambda _: None, [])

    def _cancel_restart(self) -> None:
        if self.restart_timer is not None:
            self.restart_timer.cancel()
            self.restart_timer = None
            self.status["status"] = "exited"

    def _release(self) -> None:
        """Give back what a run holds: names, ports, descriptors, cgroup."""
        if self.kill_timer is not None:
            self.kill_timer.cancel()
            self.kill_timer = None
        if self.pidfd >= 0:
            self.supervisor.loop.remove(self.pidfd)
            os.close(self.pidfd)
            self.pidfd = -1
        self.streams.release()
        self.supervisor.volumes.release(self.id)
        self.supervisor.networks.detach(self)
        self.supervisor.cgroups.remove(self.id)
        self.status["ports"] = []

    # ---- signals -------------------------------------------------------------------------------------------

    def signal(self, number: int) -> bool:
        """Send a signal to pid 1; False when it is gone."""
        if self.pidfd < 0:
            return False
        try:
            signal.pidfd_send_signal(self.pidfd, number)
        except ProcessLookupError:
            return False
        return True

    def stop(self, number: int, timeout: float, *, strict: bool = False) -> None:
        """Ask it to end; after `timeout` seconds (negative: never) kill it. The end is told by `_ended`.

        `killed` in the status says why it was killed: "deaf" when the signal could not have reached it (but not when
        `strict`), "grace" when its time was over.
        """
        self.status.update(stopped_by_user=True, killed="")
        if self.restart_timer is not None:
            self._cancel_restart()
            self.save()
            self.supervisor.container_ended(self)
            return
        if self.state == "paused":
            self.unpause()
        age = process.age(int(self.status["start_time"]))
        deaf = not strict and timeout != 0 and self.sync is None and age > _SETTLED and self._deaf(number)
        if timeout == 0 or deaf:
            self.status["killed"] = "deaf" if deaf else ""
            self.signal(signal.SIGKILL)
            return
        self.signal(number)
        if not strict and age <= _SETTLED:
            # It has just started and may be about to catch the signal: look again when it has had its time.
            pid = self.pid
            self.supervisor.loop.later(_SETTLED, lambda: self._kill_if_deaf(number, pid))
        if timeout > 0 and self.kill_timer is None:
            self.kill_timer = self.supervisor.loop.later(timeout, self._kill)

    def _kill_if_deaf(self, number: int, pid: int) -> None:
        if self.pidfd >= 0 and self.pid == pid and self._deaf(number):
            self.status["killed"] = "deaf"
            self.signal(signal.SIGKILL)

    def _kill(self) -> None:
        self.kill_timer = None
        self.status["killed"] = "grace"
        self.signal(signal.SIGKILL)

    def _deaf(self, number: int) -> bool:
        """Pid 1 that neither catches, blocks nor ignores a signal never gets it (pid_namespaces(7)): don't wait."""
        if number == signal.SIGKILL or self.intent["launch"]["init"]:
            return False
        if self.intent["launch"]["namespaces"]["pid"] != "own":
            return False
        try:
            blocked, caught, ignored = process.blocked_caught_ignored(self.pid)
        except OSError:
            return False
        return not (blocked | caught | ignored) >> (number - 1) & 1

    def pause(self) -> None:
        self.supervisor.cgroups.freeze(self.id, self.pid)
        self.status["status"] = "paused"
        self.save()
        self.supervisor.event(self, "pause")

    def unpause(self) -> None:
        self.supervisor.cgroups.thaw(self.id, self.pid)
        self.status["status"] = "running"
        self.save()
        self.supervisor.event(self, "unpause")

    # ---- after a new supervisor began ----------------------------------------------------------------------

    def adopt(self) -> None:
        """Take over a container that an earlier supervisor started."""
        pid = self.pid
        if self.state not in ("running", "paused"):
            if pid and self.status["boot"] == self.supervisor.boot and self._open_pidfd(pid):
                # It was being started when our predecessor died: half made, so it ends; who asked asks again.
                self.signal(signal.SIGKILL)
                select.select([self.pidfd], [], [], 2)
                self._release()
                self.status.update(pid=0)
                self.save()
            if self.state == "restarting":
                self._lost(0)
            return
        if not (self.status["boot"] == self.supervisor.boot and pid and self._open_pidfd(pid)):
            self._lost(pid)
            return
        self.streams.adopt()
        try:
            self.supervisor.volumes.use(self.id, self.intent["launch"]["mounts"])
        except KapelleError:
            pass  # it has its own mount of it
        self.supervisor.loop.add(self.pidfd, self._gone)
        self.supervisor.keeper.watch(pid, self._keeper_saw_exit)
        if self.intent["launch"]["namespaces"]["net"] == "own":
            try:
                netns = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
                try:
                    self.supervisor.networks.attach(self, netns)
                finally:
                    os.close(netns)
            except (OSError, KapelleError):
                pass  # it ended just now; _gone tells
        if self.intent["healthcheck"]:
            self.streams.watch_log_again(float(self.status["started"]))
            self.health = Health(self.supervisor, self)
            self.health.begin(resumed=True)

    def _open_pidfd(self, pid: int) -> bool:
        try:
            self.pidfd = os.pidfd_open(pid)
        except OSError:
            return False
        if process.start_time(pid) == int(self.status["start_time"]):
            return True
        os.close(self.pidfd)
        self.pidfd = -1
        return False

    def _lost(self, pid: int) -> None:
        """It ended while nobody watched: the exit file says how."""
        found = read_exit(f"{self.directory}/exit", pid)
        code = exit_code(found[0]) if found else 137
        when = found[1] / 1e9 if found else time.time()
        self.streams.read_rest()
        restarting = self.state == "restarting"
        oom = self.supervisor.cgroups.oom_killed(self.id)
        self._release()
        if restarting:  # that is decided already, and the pause begins anew
            delay = self.intent.get("restart_delay")
            pause = float(self.status["backoff"]) if delay is None else float(delay)
            self.restart_timer = self.supervisor.loop.later(pause, self._restart)
        else:
            self.status.update(status="exited", exit_code=code, finished=when, pid=0, oom=oom)
            self._decide_restart(code, when - float(self.status["started"]))
        self.save()
