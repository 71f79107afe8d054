"""The supervisor: health, restarts, logs, names, ports and events of one project's containers.

A child of the keeper; single-threaded, one epoll loop. It keeps nothing that can't be found again: intent and
status are files, processes and namespaces the kernel's, descriptors the keeper's. Killed, it is started again
and adopts all.
"""

from __future__ import annotations

import errno
import os
import resource
import select
import sys

from kapelle.engines.native import messages, rung
from kapelle.engines.native.cgroups import ProjectCgroups
from kapelle.engines.native.clients import UNANSWERED, Client, Waiter, reached
from kapelle.engines.native.container import Container
from kapelle.engines.native.handlers import HANDLERS, refusal
from kapelle.engines.native.intake import STAGE, Intake
from kapelle.engines.native.keeper_channel import KeeperChannel
from kapelle.engines.native.keeper_start import PROTECTED
from kapelle.engines.native.logs import Writer
from kapelle.engines.native.loop import Loop
from kapelle.engines.native.networking import Networking
from kapelle.engines.native.streams import open_writer
from kapelle.engines.native.supervisor_events import append_event
from kapelle.engines.native.volumefs import VolumeMounts
from kapelle.errors import KapelleError
from kapelle.light import Any, jsontext, signal, socket
from kapelle.linux import process
from kapelle.state import store
from kapelle.state.paths import Paths

_UNASKED = 2.0  # seconds in which somebody asks how a one-off ended
_IDLE = 0.3  # seconds without containers and clients before it leaves


class Supervisor:
    def __init__(self, settings: dict[str, Any], channel: socket.socket, fds: dict[str, int]) -> None:
        self.project: str = settings["project"]
        self.paths = Paths(*settings["paths"])
        self.strict = bool(settings.get("strict"))
        self.settings = settings
        self.fds = fds
        self.run_dir = self.paths.project_run(self.project)
        self.boot = process.boot_id()
        self.rung = rung.current()
        self.loop = Loop()
        self.keeper = KeeperChannel(channel, fds)
        self.keeper_pid = os.getppid()  # asked now: once it is killed our parent is somebody else
        self.keeper.gone = self._become_keeper
        self.listening = socket.socket(fileno=os.dup(fds["listen"]))
        self.containers: dict[str, Container] = {}
        self.clients: dict[int, Client] = {}
        self.waiters: list[Waiter] = []
        self.cgroups = ProjectCgroups(self.project)
        self.networks = Networking(self.project, self.paths, self.loop, fds, self.keeper)
        self.warned_lost: set[str] = set()
        self.volumes = VolumeMounts()
        self.intake = Intake(self.run_dir, fds.get(STAGE, -1))
        self._spare = -1  # a descriptor to give up when there are no more
        self.removed: dict[str, dict[str, Any]] = {}  # the last status of containers that went with their end

    # ---- life ----------------------------------------------------------------------------------------------

    def run(self) -> None:
        self.loop.add(self.keeper.sock.fileno(), lambda _: self._hear_keeper())
        self.listening.setblocking(False)
        self._spare = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        self.loop.add(self.listening.fileno(), lambda _: self._accept())
        if not self._has_door():
            self._finish_leaving()
            return
        self._hold_stage()
        self.intake.recover(self._log_of)
        for container_id in store.names_in(f"{self.paths.project(self.project)}/containers"):
            found = self.container(container_id)
            if found is not None:
                found.adopt()
        self.networks.drop_strays({c.id for c in self.containers.values() if c.pidfd >= 0})
        for container in [c for c in self.containers.values() if c.intent["remove_on_exit"] and c.status["started"]]:
            if not container.alive:
                self.container_ended(container)  # the one before us was killed before it could remove it
        self._maybe_leave()
        if not self.containers:
            self.loop.later(0, self.networks.warm_up)
        while not self.loop.stopped:
            self.loop.turn()
            self.keeper.deliver()

    def _hold_stage(self) -> None:
        if STAGE not in self.fds:
            self.fds[STAGE] = self.intake.stage
            self.keeper.keep(STAGE, self.intake.stage)

    def _log_of(self, container_id: str) -> Writer | None:
        """The writer of a container's log, while nobody has said yet that it is one of ours."""
        directory = self.paths.container(self.project, container_id)
        intent = store.read_json(f"{directory}/container.json")
        try:
            return open_writer(f"{directory}/log", intent["logging"]) if intent else None
        except (OSError, KapelleError):
            return None

    def _hear_keeper(self) -> None:
        if not self.keeper.serve():
            self._become_keeper()

    def _become_keeper(self) -> None:
        """The keeper was killed. We hold all that it held: start again as the keeper, with a new supervisor."""
        if self.loop.stopped:
            return  # we are leaving
        settings = {**self.settings, "fds": {}}
        held = {name: fd for c in self.containers.values() for name, fd in c.streams.held().items()}
        for name, fd in {**self.fds, **held}.items():
            try:
                os.set_inheritable(fd, True)
            except OSError:
                continue  # closed just now
            settings["fds"][name] = fd
        argv = list(self.settings["argv"])
        argv[-1] = jsontext.dumps(settings)
        os.execve(argv[0], argv, {**os.environ, PROTECTED: "1"})

    def _has_door(self) -> bool:
        """Is the socket in its folder still the one that we listen on?"""
        try:
            there = os.stat(f"{self.run_dir}/socket")
        except OSError:
            return False
        return [there.st_ino, there.st_mtime_ns] == self.settings.get("door")

    def _finish_leaving(self) -> None:
        """The one before us was killed while it left: nothing runs, and another may be here already in our place.

        What others have made since is theirs; the network goes only when nobody has come.
        """
        import fcntl

        lock = os.open(f"{self.run_dir}/spawn.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.path.exists(f"{self.run_dir}/socket"):
                self.networks.close()
        except (OSError, KapelleError):
            pass  # somebody comes just now; what he finds of ours on the host he replaces
        messages.send(self.keeper.sock, {"op": "quit"})

    def _maybe_leave(self) -> None:
        self.loop.later(_IDLE, self._leave_if_idle)

    def _leave_if_idle(self) -> None:
        if self.clients or any(c.alive for c in self.containers.values()):
            return
        self.leave()

    def leave(self) -> bool:
        """End the keeper and ourselves; nobody may be connecting meanwhile (client.spawn holds the same lock)."""
        import fcntl

        lock = os.open(f"{self.run_dir}/spawn.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if select.select([self.listening], [], [], 0)[0]:
                os.close(lock)
                return False  # somebody is at the door
        except BlockingIOError:
            os.close(lock)
            return False  # somebody is about to come; an idle check follows when it has gone
        if self._has_door():
            os.unlink(f"{self.run_dir}/socket")
        try:
            self.networks.close()
        except (OSError, KapelleError) as e:  # the next sweep takes what is left; nothing may keep us
            say(f"the network could not be taken down whole: {e}")
        self.cgroups.close()
        self.intake.close()
        self.loop.stop()
        try:
            messages.send(self.keeper.sock, {"op": "quit"})
        except OSError:
            pass  # it was killed just now. We must not take its place: who comes next begins anew on a new socket
        return True

    # ---- clients -------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        try:
            sock, _ = self.listening.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as e:
            self._turn_away(e)
            return
        client = Client(sock)
        self.clients[sock.fileno()] = client
        self.loop.add(sock.fileno(), lambda _: self._serve(client))

    def _turn_away(self, error: OSError) -> None:
        """There is no descriptor left to hear somebody with: the one kept for this tells him so."""
        os.close(self._spare)
        try:
            sock, _ = self.listening.accept()
            with sock:
                answer = {"error": error_words(error), "code": 1}
                messages.send(sock, answer)
        except OSError:
            pass
        finally:
            self._spare = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)

    def _serve(self, client: Client) -> None:
        message, fds = messages.receive(client.sock)
        if message is None:
            self._hang_up(client)
            return
        if client.has_left() and message.get("op") not in UNANSWERED:
            # Its request waited while we were restarted, and by now another command may have done otherwise.
            for fd in fds:
                os.close(fd)
            return  # the end of the connection is served next
        handler = HANDLERS.get(str(message.get("op")))
        try:
            if handler is None:
                client.answer({"error": f"unknown request {message.get('op')}", "code": 1})
            else:
                handler(self, client, message, fds)
        except KapelleError as e:
            client.answer(refusal(e))
        except OSError as e:
            client.answer({"error": error_words(e), "code": 1})
        finally:
            for fd in fds:
                os.close(fd)

    def _hang_up(self, client: Client) -> None:
        fd = client.sock.fileno()
        self.loop.remove(fd)
        self.clients.pop(fd, None)
        client.sock.close()
        self.waiters = [w for w in self.waiters if w.client.sock is not client.sock]
        if not self.clients:
            self._maybe_leave()

    def container(self, container_id: str) -> Container | None:
        """The container, read from its folder when it is new to us."""
        found = self.containers.get(container_id)
        if found is None:
            directory = self.paths.container(self.project, container_id)
            if not os.path.exists(f"{directory}/container.json"):
                return None
            found = self.containers[container_id] = Container(self, container_id)
        return found

    def the(self, message: dict[str, Any]) -> Container:
        """The container that a request is about; KapelleError when there is none."""
        found = self.container(str(message.get("id")))
        if found is None:
            raise KapelleError(f"no such container: {message.get('id')}")
        return found

    def forget(self, container_id: str) -> None:
        """It is about to be removed. With the last one the project ends, most likely."""
        self.containers.pop(container_id, None)
        if not self.containers:
            self.networks.leave()

    # ---- what containers ask -------------------------------------------------------------------------------

    def changed(self, container: Container) -> None:
        """A container's status changed: some of those who wait may be done."""
        for waiter in [w for w in self.waiters if container.id in w.ids]:
            if self.settle(waiter):
                self.waiters.remove(waiter)

    def container_ended(self, container: Container) -> None:
        self.changed(container)
        if container.removing and container.state == "exited":
            self.forget(container.id)
        if container.intent["remove_on_exit"] and container.state == "exited":
            if container.told or not self.clients:
                self.remove_ended(container)
            else:  # who started it will ask how it ended: were we killed now, nobody could tell any more
                self.loop.later(_UNASKED, lambda: self.remove_ended(container))
        if not self.clients:
            self._maybe_leave()

    def remove_ended(self, container: Container) -> None:
        """Remove a one-off that was to go with its end."""
        if self.containers.get(container.id) is not container or container.alive:
            return
        from kapelle.engines.native import removal

        removal.remove_container(self.paths, self.project, container.intent, volumes=True)
        self.containers.pop(container.id, None)
        self.removed[container.id] = container.status  # somebody may only now ask how it ended
        self.event(container, "destroy")

    def settle(self, waiter: Waiter) -> bool:
        """Answer a waiter if its condition holds, or can't come true any more; True when answered."""
        results: dict[str, Any] = {}
        done = True
        failed = ""
        for container_id in waiter.ids:
            container = self.container(container_id)
            if container is None:
                if container_id in self.removed:
                    results[container_id] = self.removed[container_id]
                else:
                    failed = failed or container_id
                continue
            verdict = reached(waiter.until, container.status, starting=container.sync is not None)
            results[container_id] = container.status
            if verdict == "failed":
                failed = failed or container_id
            elif verdict != "reached":
                done = False
        if failed or done:
            for container in map(self.containers.get, waiter.ids):
                if container is not None:
                    container.told = True
            waiter.client.answer({"ok": not failed, "failed": failed, "results": results})
            return True
        return False

    def event(self, container: Container, action: str, **attributes: str) -> None:
        """Append to the project's events."""
        append_event(self.paths, self.project, container.intent, action, **attributes)

    def lost_output(self, container: Container, error: Exception) -> None:
        """Output can't be kept. Said once in the events and to the supervisor's own output; later in the log itself."""
        if container.id not in self.warned_lost:
            self.warned_lost.add(container.id)
            why = str(getattr(error, "strerror", "") or error)
            self.event(container, "log_error", error=why)
            say(f"output of {container.intent['name']} can't be written: {why}")


def say(text: str) -> None:
    """Into keeper.log, if there is room."""
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        pass


def error_words(error: OSError) -> str:
    """What the system said, and about what."""
    if error.errno == errno.EMFILE:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return f"too many open files: the limit of the supervisor is {limit} (kap down, raise ulimit -Hn, kap up)"
    return f"{error.strerror or error} {error.filename or ''}".strip()


def run(settings: dict[str, Any], channel: socket.socket, fds: dict[str, int]) -> None:
    """Entry of a new supervisor, in a child of the keeper."""
    process.set_name("kap-supervisor")
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    Supervisor(settings, channel, fds).run()
