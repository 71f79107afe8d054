"""The native engine, as the command line sees it: observe, perform a step. The work is the supervisor's.

Creating is files only (`creation`, `resources`), starting and what follows the project's supervisor's.
"""

from __future__ import annotations

import os
import select
import sys
from _thread import allocate_lock  # threading itself is not needed here
from collections.abc import Callable, Iterator, Mapping, Sequence

from kapelle.engines.native import (
    client,
    descriptors,
    messages,
    records,
    removal,
    stopping,
    volumes,
)
from kapelle.engines.native.imagesource import ImageSource
from kapelle.errors import EngineError, ImageError, KapelleError
from kapelle.events import Emit, LogLine, Notice, Progress
from kapelle.images import keeping
from kapelle.light import TYPE_CHECKING, Any
from kapelle.linux import process
from kapelle.model.project import Project
from kapelle.model.service import Service
from kapelle.plan import steps
from kapelle.plan.observed import Container, Observed, ObservedImage, ObservedNetwork, ObservedVolume
from kapelle.state import store as files
from kapelle.state.paths import Paths

if TYPE_CHECKING:
    from kapelle.engines.native.portchoice import Choice
    from kapelle.light import socket

_LAST_LINES = 5
_PORT_CODES = ("KAP201", "KAP205", "KAP206")  # can't be published, of native.ports


class NativeEngine:
    """Containers on this machine's kernel, kept by our own keeper and supervisor."""

    name = "native"
    together: tuple[type, ...] = (steps.StopContainer,)

    def __init__(self, paths: Paths, environ: Mapping[str, str]) -> None:
        descriptors.raise_limit()
        self.paths = paths
        self.environ = environ
        self.strict = environ.get("KAP_COMPAT") == "strict"
        self.auto_ports = environ.get("KAP_PORTS") == "auto"
        self.moved_ports: dict[str, list[Choice]] = {}  # by container: where its ports go that are taken
        self.store = keeping.store(paths, environ)
        self.images = ImageSource(paths, self.store, environ)
        self.ids: dict[tuple[str, str], str] = {}  # (project, container name) → id
        self.intents: dict[str, dict[str, Any]] = {}  # by id, as they were when they were last looked at
        self.seen: dict[str, Container] = {}  # the same of the containers
        self.forgotten: set[str] = set()  # containers that a supervisor has nothing to do with any more
        self.holding = allocate_lock()
        self.stacked: dict[bool, str] = {}  # how images are stacked, for containers with a user namespace or without
        self._turns: dict[str, Any] = {}  # service → lock, for its pre_start hooks
        self._held: socket.socket | None = None  # a connection that keeps the supervisor for this command
        self._perform: dict[type, Callable[..., None]] = {
            steps.PullImage: self._pull,
            steps.BuildImage: self._build,
            steps.StartContainer: self._start,
            steps.StopContainer: self._stop,
            steps.KillContainer: self._kill,
            steps.RemoveContainer: self._remove,
            steps.RestartContainer: self._restart,
            steps.PauseContainer: self._pause,
            steps.UnpauseContainer: self._unpause,
            steps.WaitFor: self._wait_for,
        }

    # ---- observe -------------------------------------------------------------------------------------------

    def capabilities(self) -> Mapping[str, str]:
        from kapelle.engines.native.honoured import NOT_HONOURED

        return NOT_HONOURED

    def foresee(self, project: Project) -> tuple[list[KapelleError], list[KapelleError]]:
        from kapelle.engines.native import foresight, preflight

        refused = [e for service in project.services for e in preflight.refused(service, project, self.environ)]
        return refused, list(foresight.not_honoured_of(project))

    def observe(self, project: str, images: tuple[str, ...] = ()) -> Observed:
        found = {}
        for name in images:
            image = self.store.find(name)
            if image is not None:
                found[name] = ObservedImage(image.id, image.names, bool(image.standin))
        return Observed(
            containers=self._of(project),
            networks=records.networks(self.paths),
            volumes=volumes.observed(self.paths),
            images=found,
        )

    def _of(self, project: str) -> tuple[Container, ...]:
        """The project's containers. Their folders are remembered, for the steps that name them (`_named`)."""
        found = tuple(records.containers(self.paths, project, self.intents))
        self.ids.update({(project, c.name): c.id for c in found})
        self.seen.update({c.id: c for c in found})
        return found

    def containers(self) -> tuple[Container, ...]:
        return tuple(c for project in records.projects(self.paths) for c in records.containers(self.paths, project))

    def networks(self) -> tuple[ObservedNetwork, ...]:
        return records.networks(self.paths)

    def volumes(self) -> tuple[ObservedVolume, ...]:
        return volumes.observed(self.paths)

    # ---- perform -------------------------------------------------------------------------------------------

    def check(self, wanted: tuple[steps.Step, ...], project: Project) -> None:
        """Refuse what can be known not to work before anything is created: bind sources, ports."""
        from kapelle.engines.native import preflight, rung

        if any(not isinstance(s, steps.PullImage) for s in wanted):
            rung.require()
        if self.images.offline:
            self.images.require_here(wanted, project)
        # A plan is performed in parts: what was chosen for the whole holds for each.
        todo = tuple(s for s in wanted if getattr(s, "name", "") not in self.moved_ports)
        self.moved_ports.update(preflight.check(self.paths, todo, project, self.environ, auto_ports=self.auto_ports))

    def perform(self, step: steps.Step, project: Project, emit: Emit) -> None:
        act = self._perform.get(type(step))
        if act is not None:
            act(step, project, emit)
            return
        from kapelle.engines.native import creation, resources  # what only making and removing things needs

        elsewhere: dict[type, Callable[..., None]] = {
            steps.CreateNetwork: resources.create_network,
            steps.RemoveNetwork: resources.remove_network,
            steps.CreateVolume: resources.create_volume,
            steps.RemoveVolume: resources.remove_volume,
            steps.RemoveImage: resources.remove_image,
            steps.CreateContainer: creation.create,
        }
        elsewhere[type(step)](self, step, project, emit)

    def perform_together(
        self, wanted: Sequence[steps.Step], project: Project, emit: Emit
    ) -> tuple[Sequence[steps.Step], Iterator[tuple[steps.Step, BaseException | None]]]:
        return stopping.stop_together(self, wanted, project, emit)

    def unperform(self, step: steps.Step, project: Project, emit: Emit) -> None:
        """Compose leaves created things where they are after a failure, and so do we: nothing is undone."""

    def rest(self) -> None:
        self.images.release()
        client.release()

    def close(self) -> None:
        self.rest()
        building = sys.modules.get("kapelle.engines.native.buildrun")
        if building is not None:
            building.close_all()
        if self._held is not None:
            self._held.close()
            self._held = None

    def _pull(self, step: steps.PullImage, project: Project, emit: Emit) -> None:
        if self.images.offline and step.fallback_build and self.store.find(step.image) is None:
            self._build(steps.BuildImage(step.image, step.service, because="no such image"), project, emit)
            return
        try:
            self.images.get(step.image, emit, policy=step.policy, platform=step.platform, project=project)
        except ImageError as e:
            self.images.tell_how_many(e, step.image, project)
            raise

    def _build(self, step: steps.BuildImage, project: Project, emit: Emit) -> None:
        from kapelle.engines.native import rung

        rung.require()
        self.images.build(step, project, emit)

    def hold_supervisor(self, project: str) -> None:
        """Start the supervisor (or keep it) for the rest of this command: it comes up while we write files."""
        with self.holding:  # steps run side by side
            if self._held is None:
                self._held = client.hold(self.paths, project, strict=self.strict)

    def prepare_network(self, project: str, network: str) -> None:
        """Have the held supervisor make a network while we make the containers that go on it."""
        with self.holding:
            if self._held is not None:
                try:
                    messages.send(self._held, {"op": "prepare", "network": network})
                except OSError:
                    pass  # it was killed just now: the network is made when a container goes on it

    # ---- containers ----------------------------------------------------------------------------------------

    def kill_message(self, container: Container) -> dict[str, Any]:
        return {"op": "stop", "id": container.id, "signal": "SIGKILL", "timeout": 0}

    def intent_of(self, project: str, container_id: str) -> dict[str, Any]:
        return self.intent(project, container_id) or {}

    def intent(self, project: str, container_id: str) -> dict[str, Any] | None:
        record: dict[str, Any] | None = files.read_json(f"{self.paths.container(project, container_id)}/container.json")
        return record

    def record(self, project: str, intent: dict[str, Any], action: str) -> None:
        from kapelle.engines.native.supervisor_events import append_event

        append_event(self.paths, project, intent, action)

    def named(self, project: Project, name: str) -> Container:
        """The container as it is now. Its folder is remembered: fifty steps must not read fifty folders each."""
        known = self.ids.get((project.name, name))
        if known is not None:
            found = records.one(self.paths.container(project.name, known), process.boot_id())
            if found is not None and found.name == name:
                return found
        self._of(project.name)
        if self.ids.get((project.name, name), known) == known:
            raise EngineError(f"no such container: {name}", hint="kap up")
        return self.named(project, name)

    def _start(self, step: steps.StartContainer, project: Project, emit: Emit) -> None:
        emit(Progress("container", step.name, "Starting", because=step.because))
        container = self.named(project, step.name)
        service = project.service(container.service)
        if service is not None and service.pre_start and not container.oneoff:
            self._pre_start(project, service, container, emit)
        from kapelle.engines.native import grants

        if step.name in self.moved_ports and service is not None:
            self._move_ports(container, service, emit)
        grants.write_again(self, project, container, service)
        try:
            answer = client.request(self.paths, project.name, {"op": "start", "id": container.id}, strict=self.strict)
        except EngineError as e:
            if e.where is None and service is not None:
                keys = ("ports",) if e.code in _PORT_CODES else ("command", "entrypoint", "image")
                e.where = next((service.where[key] for key in keys if key in service.where), None)
            e.what = f"container {step.name} could not be started: {e.what}"
            raise
        self._tell_notes(answer, service, emit)
        try:
            self.hooks(container, "post_start", emit)
        except EngineError as e:
            if service is not None:
                e.where = e.where or next((service.where[p] for p in e.about[1] if p in service.where), None)
            raise
        emit(Progress("container", step.name, "Started", "done"))

    def _tell_notes(self, answer: Mapping[str, Any], service: Service | None, emit: Emit) -> None:
        from kapelle.engines.native import notes

        if service is not None:
            for notice in notes.of(service, answer.get("notes") or ()):
                emit(notice)
        for text in answer.get("warnings") or ():
            emit(Notice(text, once=f"network:{text}"))

    def _pre_start(self, project: Project, service: Service, container: Container, emit: Emit) -> None:
        from kapelle.engines.native import prestart

        with self.holding:
            turn = self._turns.setdefault(service.name, allocate_lock())
        with turn:  # replicas start side by side: one of them runs what is run once
            prestart.run(self, project, service, container, emit)

    def run_to_end(self, project: Project, name: str, emit: Emit) -> int:
        """Start a created container and wait for its exit code."""
        container = self.named(project, name)
        emit(Progress("container", name, "Starting"))
        client.request(self.paths, project.name, {"op": "start", "id": container.id}, strict=self.strict)
        answer = client.request(self.paths, project.name, {"op": "wait", "ids": [container.id], "until": "exited"})
        code = int(answer["results"].get(container.id, {"exit_code": 137})["exit_code"])
        emit(Progress("container", name, "Exited", "done"))
        return code

    def _move_ports(self, container: Container, service: Service, emit: Emit) -> None:
        """--ports=auto for a container that is there: it is told before its start, if it was not made just now."""
        from kapelle.engines.native import portchoice

        choices = self.moved_ports[container.name]
        if not container.alive and portchoice.move(self.paths, container.project, container.id, service, choices):
            client.request(self.paths, container.project, {"op": "forget", "id": container.id}, start=False)
            for choice in choices:
                emit(Notice(portchoice.text_of(service.name, choice), level="info"))

    def hooks(self, container: Container, kind: str, emit: Emit) -> None:
        intent = self.intent(container.project, container.id)
        for number, hook in enumerate((intent or {}).get("hooks", {}).get(kind, ())):
            from kapelle.engines.native.execution import run_hook

            code = run_hook(self.paths, container, hook, emit)
            if code:
                error = EngineError(
                    f"{container.service} {kind} hook exited with status {code}",
                    details=(("hook", " ".join(hook["args"])),),
                    hint=f"kap logs {container.service}",
                )
                error.about = container.service, (f"{kind}[{number}]", kind)
                raise error

    def _stop(self, step: steps.StopContainer, project: Project, emit: Emit) -> None:
        emit(Progress("container", step.name, "Stopping", because=step.because))
        container = self.named(project, step.name)
        if container.alive:
            stopping.stop(self, project, container, step.timeout, emit, halt=step.halt, removing=step.removing)
        emit(Progress("container", step.name, "Stopped", "done"))

    def _kill(self, step: steps.KillContainer, project: Project, emit: Emit) -> None:
        emit(Progress("container", step.name, "Killing", because=step.because))
        container = self.named(project, step.name)
        client.request(self.paths, project.name, {"op": "kill", "id": container.id, "signal": step.signal})
        if step.signal in ("SIGKILL", "KILL", "9"):
            client.request(self.paths, project.name, {"op": "wait", "ids": [container.id], "until": "exited"})
        emit(Progress("container", step.name, "Killed", "done"))

    def _restart(self, step: steps.RestartContainer, project: Project, emit: Emit) -> None:
        emit(Progress("container", step.name, "Restarting", because=step.because))
        container = self.named(project, step.name)
        if container.alive:
            stopping.stop(self, project, container, step.timeout, emit)
        answer = client.request(self.paths, project.name, {"op": "start", "id": container.id}, strict=self.strict)
        self._tell_notes(answer, project.service(container.service), emit)
        self.hooks(container, "post_start", emit)
        emit(Progress("container", step.name, "Started", "done"))

    def _pause(self, step: steps.PauseContainer, project: Project, emit: Emit) -> None:
        emit(Progress("container", step.name, "Pausing"))
        client.request(self.paths, project.name, {"op": "pause", "id": self.named(project, step.name).id})
        emit(Progress("container", step.name, "Paused", "done"))

    def _unpause(self, step: steps.UnpauseContainer, project: Project, emit: Emit) -> None:
        emit(Progress("container", step.name, "Unpausing"))
        client.request(self.paths, project.name, {"op": "unpause", "id": self.named(project, step.name).id})
        emit(Progress("container", step.name, "Unpaused", "done"))

    def _remove(self, step: steps.RemoveContainer, project: Project, emit: Emit) -> None:
        emit(Progress("container", step.name, "Removing", because=step.because))
        container = self.seen.get(self.ids.get((project.name, step.name), ""))
        if container is None or not self._is_forgotten(container):
            try:
                container = self.named(project, step.name)
            except EngineError:
                emit(Progress("container", step.name, "Removed", "done"))
                return
            if container.alive and not step.force:
                raise EngineError(f"container {step.name} is running", hint=f"kap stop {step.service}")
            if container.alive or container.pid:  # half started counts too
                client.request(self.paths, project.name, self.kill_message(container))
            client.request(self.paths, project.name, _forgetting(container), start=False)
        intent = self.intents.get(container.id) or self.intent(project.name, container.id)
        if intent is not None:
            removal.remove_container(self.paths, project.name, intent, volumes=step.volumes)
            self.record(project.name, intent, "destroy")
        if not container.oneoff and os.path.isdir(f"{self.paths.project(project.name)}/pre_start"):
            from kapelle.engines.native import prestart

            prestart.forget(self, project.name, container.service, container.number)
        emit(Progress("container", step.name, "Removed", "done"))

    def _is_forgotten(self, container: Container) -> bool:
        """Has its supervisor, which knows all that runs, nothing to do with it any more?"""
        if container.id in self.forgotten:
            return True
        try:
            return bool(client.request(self.paths, container.project, _forgetting(container), start=False))
        except EngineError:
            return False  # it runs

    # ---- waiting -------------------------------------------------------------------------------------------

    def _wait_for(self, step: steps.WaitFor, project: Project, emit: Emit) -> None:
        from kapelle.engines.native import waiting

        waiting.wait_for(self, step, project, emit)

    def wait(self, containers: tuple[Container, ...]) -> Iterator[tuple[Container, int]]:
        """Yield each container with its exit code as it ends (restarts in between are not the end)."""
        from kapelle.engines.native import output

        pending: dict[int, tuple[Container, Any]] = {}
        poll = select.poll()
        for container in containers:
            sock = output.watched(self.paths, container)
            if sock is None:
                yield container, self._current(container).exit_code
                continue
            pending[sock.fileno()] = (container, sock)
            poll.register(sock.fileno(), select.POLLIN)
        try:
            while pending:
                for fd, _ in poll.poll():
                    container, sock = pending.pop(fd)
                    poll.unregister(fd)
                    answer, _ = messages.receive(sock)
                    sock.close()
                    if answer is None and self._current(container).alive:  # the supervisor was restarted: ask again
                        again = output.watched(self.paths, container)
                        if again is None:
                            again = client.ensure(self.paths, container.project)
                            messages.send(again, {"op": "wait", "ids": [container.id], "until": "exited"})
                        pending[again.fileno()] = (container, again)
                        poll.register(again.fileno(), select.POLLIN)
                        continue
                    status = (answer or {}).get("results", {}).get(container.id)
                    yield container, int(status["exit_code"]) if status else self._current(container).exit_code
        finally:
            for _, sock in pending.values():
                sock.close()

    def _current(self, container: Container) -> Container:
        return next(
            (c for c in records.containers(self.paths, container.project) if c.id == container.id),
            container._replace(status="exited"),
        )

    def logs(
        self,
        containers: tuple[Container, ...],
        *,
        follow: bool = False,
        tail: int | None = None,
        since: int | None = None,
        until: int | None = None,
    ) -> Iterator[LogLine]:
        from kapelle.engines.native import output

        return output.lines(self.paths, containers, follow=follow, tail=tail, since=since, until=until)

    def last_lines(self, container: Container, count: int = _LAST_LINES) -> list[str]:
        """The end of a container's output, for messages."""
        try:
            return [line.joined_by(b"\n").decode("utf-8", "replace") for line in self.logs((container,), tail=count)]
        except (OSError, KapelleError):
            return []

    def tidy(self, project: str) -> None:
        """Finish what killed commands left half done. The caller holds the project's lock and has not looked yet."""
        removal.sweep(self.paths, project)

    def settle(self, project: str) -> None:
        """After a `down`: let the supervisor leave at once, so that no process of ours stays behind."""
        self.close()
        removal.sweep_temporaries(self.paths, project)
        client.leave(self.paths, project)
        from kapelle.engines.native import sharing

        if sharing.was_left(self.paths, project):
            from kapelle.engines.native import rung, uplink

            if rung.current() == "R1":  # others leave nothing on the host
                uplink.sweep()
            sharing.hide_netns(self.paths, project)


def _forgetting(container: Container) -> dict[str, Any]:
    return {"op": "forget", "id": container.id, "removing": True}
