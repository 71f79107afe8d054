"""Health checks of one container: run the probe inside it when it is due. When and what it means: plan.lifecycle."""

from __future__ import annotations

import os
import time

from kapelle.engines.native import messages, probes
from kapelle.engines.native.joining import join
from kapelle.engines.native.loop import Timer
from kapelle.engines.native.probes import Probing
from kapelle.light import TYPE_CHECKING, Any, signal, socket
from kapelle.linux import process
from kapelle.plan import lifecycle

if TYPE_CHECKING:
    from kapelle.engines.native.container import Container
    from kapelle.engines.native.supervisor import Supervisor

_OUTPUT = 4096  # bytes kept of a probe's output, as Docker
_LAST_MOMENT = 0.1  # seconds
_KEPT = 5  # probes kept in the status


class Health:
    def __init__(self, supervisor: Supervisor, container: Container) -> None:
        self.supervisor = supervisor
        self.container = container
        declared = container.intent["healthcheck"]
        self.check = lifecycle.HealthCheck(
            interval=float(declared["interval"]),
            timeout=float(declared["timeout"]),
            retries=int(declared["retries"]),
            start_period=float(declared["start_period"]),
            start_interval=float(declared["start_interval"]),
        )
        self.state = lifecycle.health_init(self.check, time.monotonic())
        self.timer: Timer | None = None
        self.deadline: Timer | None = None
        self.probe = 0  # pid of the running probe
        self.probing: Probing | None = None  # one of our own that is under way
        self.pidfd = -1
        self.pipe = -1
        self.output = b""
        self.began = 0.0
        self.timed_out = False
        self.sync: socket.socket | None = None
        self.start_error = ""

    def begin(self, *, resumed: bool = False) -> None:
        """Start the schedule; after a new supervisor began, from the health that is known."""
        status = self.container.status
        if resumed and status["health"] in ("healthy", "unhealthy"):
            self.state = self.state._replace(status=status["health"], failing=int(status["failing"]))
        else:
            status.update(health="starting", health_log=[], failing=0)
        self._schedule()

    def stop(self) -> None:
        for timer in (self.timer, self.deadline):
            if timer is not None:
                timer.cancel()
        if self.probing is not None:
            self.probing.close()
            self.probing = None
        if self.probe:
            self.supervisor.keeper.unwatch(self.probe)
            self._kill()
        self._close()

    def hurry(self) -> None:
        """Somebody waits for it: the next probe comes at once, when none is running."""
        if not self.probe and self.probing is None and self.state.status == "starting" and self.timer is not None:
            self.timer.cancel()
            self._run()

    def _schedule(self) -> None:
        due = lifecycle.health_due(self.state)
        self.timer = self.supervisor.loop.later(max(0.0, due - time.monotonic()), self._run)

    def _run(self) -> None:
        self.timer = None
        if self.container.state == "paused":
            self.timer = self.supervisor.loop.later(self.check.interval, self._run)
            return
        if self.container.intent["healthcheck"].get("probe"):
            self._probe()
            return
        test = self.container.intent["healthcheck"]["test"]
        shell = self.container.intent["launch"].get("shell") or ["/bin/sh", "-c"]
        args = [*shell, " ".join(test[1:])] if test[0] == "CMD-SHELL" else test[1:] if test[0] == "CMD" else test
        self.output, self.timed_out, self.start_error = b"", False, ""
        self.began = time.time()
        reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        os.set_blocking(writing, True)
        null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        try:
            pid, self.sync = join(self.supervisor, self.container, {"args": args}, [null, writing, writing])
        except OSError as e:
            os.close(reading)
            self._done(126, f"can't run the probe: {e.strerror}".encode())
            return
        finally:
            os.close(null)
            os.close(writing)
        self.probe, self.pipe = pid, reading
        self.supervisor.loop.add(reading, self._read)
        self.supervisor.loop.add(self.sync.fileno(), self._on_sync)
        self.supervisor.keeper.watch(pid, self._ended)
        self.deadline = self.supervisor.loop.later(self.check.timeout, self._too_long)

    def _probe(self) -> None:
        """A check that we make ourselves (x-kap-probe)."""
        container = self.container
        networks = container.status["networks"]
        addresses = [*(row[1].partition("/")[0] for row in networks if row[1]), "127.0.0.1", "::1"]
        self.began, self.timed_out = time.time(), False
        ended = False

        def done(code: int, output: bytes) -> None:
            nonlocal ended
            ended, self.probing = True, None
            if self.deadline is not None:
                self.deadline.cancel()
            self._done(code, output)

        self.deadline = self.supervisor.loop.later(self.check.timeout, self._too_long)
        declared = container.intent["healthcheck"]["probe"]
        probing = probes.begin(
            self.supervisor.loop, done, declared, container.pid, addresses, container.streams.log_watch
        )
        if not ended:
            self.probing = probing

    def _on_sync(self, _: int) -> None:
        if self.sync is None:
            return
        message, fds = messages.receive(self.sync)
        for fd in fds:
            os.close(fd)
        if message is None:
            self._close_sync()
        elif "error" in message:
            self.start_error = str(message["error"])

    def _close_sync(self) -> None:
        if self.sync is not None:
            self.supervisor.loop.remove(self.sync.fileno())
            self.sync.close()
            self.sync = None

    def _read(self, _: int) -> None:
        try:
            data = os.read(self.pipe, 65536)
        except BlockingIOError:
            return
        if not data:
            self.supervisor.loop.remove(self.pipe)
            return
        self.output = (self.output + data)[:_OUTPUT]

    def _too_long(self) -> None:
        self.timed_out = True
        if self.probing is not None:
            self.probing.close()
            self.probing = None
            self._done(-1, self._exceeded())
            return
        self._kill()

    def _exceeded(self) -> bytes:
        return f"Health check exceeded timeout ({self.check.timeout:g}s)".encode()

    def _kill(self) -> None:
        try:
            os.kill(self.probe, signal.SIGKILL)  # our keeper's child and not yet reaped: the pid can't be another's
        except ProcessLookupError:
            pass

    def _ended(self, status: int) -> None:
        while self.sync is not None:
            self.sync.setblocking(False)
            try:
                self._on_sync(0)
            except BlockingIOError:
                self._close_sync()
        try:
            self._read(0)
        except OSError:
            pass
        code = 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        output = self.start_error.encode() or self.output
        if self.timed_out:
            code, output = -1, self._exceeded()
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL and not self.timed_out
        self._close()
        if killed:  # as the kernel does when the container ends, whose own end is told a moment later
            self.timer = self.supervisor.loop.later(_LAST_MOMENT, lambda: self._done(code, output))
        else:
            self._done(code, output)

    def _close(self) -> None:
        self.probe = 0
        if self.deadline is not None:
            self.deadline.cancel()
        if self.pipe >= 0:
            self.supervisor.loop.remove(self.pipe)
            os.close(self.pipe)
            self.pipe = -1
        self._close_sync()

    def _done(self, code: int, output: bytes) -> None:
        if not process.is_same(self.container.pid, int(self.container.status["start_time"])):
            return  # the container is ending: what a probe says of it means nothing
        before = self.state.status
        self.state = lifecycle.health_result(self.state, self.check, code == 0, time.monotonic())
        status: dict[str, Any] = self.container.status
        entry = {
            "start": self.began, "end": time.time(), "code": code, "output": output.decode("utf-8", "replace"),
        }  # fmt: skip
        status["health_log"] = [*status["health_log"], entry][-_KEPT:]
        changed = before != self.state.status or status["failing"] != self.state.failing
        status.update(health=self.state.status, failing=self.state.failing)
        if changed or code != 0:
            self.container.save()
        if before != self.state.status:
            self.supervisor.event(self.container, f"health_status: {self.state.status}")
        self._schedule()
