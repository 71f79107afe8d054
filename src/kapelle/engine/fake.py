"""An engine in memory, for tests: the same contract as the native one (tests/unit/engine_contract.py runs on both).

Nothing runs; what a container would do is told by a `Behaviour` per service. Time is a counter that tests may move.
"""

from __future__ import annotations

from _thread import allocate_lock
from collections.abc import Iterator, Mapping, Sequence

from kapelle.errors import EngineError, ImageError, KapelleError
from kapelle.events import Emit, LogLine, Progress
from kapelle.light import Any, NamedTuple
from kapelle.model.project import Project
from kapelle.model.service import Service
from kapelle.plan import steps
from kapelle.plan.observed import (
    Container,
    Endpoint,
    Observed,
    ObservedImage,
    ObservedNetwork,
    ObservedVolume,
    PublishedPort,
)
from kapelle.plan.order import DEPENDS_LABEL

_LABEL = "com.docker.compose."


class Behaviour(NamedTuple):
    """What a service's containers do once started."""

    exits: int | None = None  # exit at once with this code
    health: str = ""  # "", healthy, unhealthy: what its check comes to
    output: tuple[str, ...] = ()  # lines on stdout
    fails: str = ""  # perform of this verb ("create", "start", …) fails


class World:
    """What outlives one engine object: containers, networks, volumes, images, and what was performed."""

    def __init__(self) -> None:
        self.containers: dict[str, Container] = {}  # by name
        self.networks: dict[str, ObservedNetwork] = {}
        self.volumes: dict[str, ObservedVolume] = {}
        self.images: dict[str, ObservedImage] = {}
        self.registry: dict[str, str] = {}  # reference -> id that a pull gets; empty = every image can be pulled
        self.behaviours: dict[str, Behaviour] = {}
        self.performed: list[str] = []
        self.lines: dict[str, list[LogLine]] = {}
        self.now = 2_000_000_000.0  # later than any clock a test meets, so that `since` lets its lines through
        self._last = 0

    def identifier(self) -> str:
        """64 hex digits, a different one each time."""
        self._last += 1
        return f"{self._last:x}".rjust(12, "0") + "f" * 52


_worlds: dict[str, World] = {}


def world_of(place: str) -> World:
    """The world that belongs to a state folder, for as long as the process lives."""
    return _worlds.setdefault(place, World())


def engine_of(place: str) -> FakeEngine:
    return FakeEngine(world_of(place))


class FakeEngine:
    name = "fake"
    together: tuple[type, ...] = ()

    def __init__(self, world: World | None = None) -> None:
        self.world = world or World()
        self._lock = allocate_lock()

    def capabilities(self) -> Mapping[str, str]:
        return {"gpus": "this engine is a fake"}

    def foresee(self, project: Project) -> tuple[list[KapelleError], list[KapelleError]]:
        return [], []

    def check(self, wanted: tuple[steps.Step, ...], project: Project) -> None:
        return None

    def rest(self) -> None:
        return None

    def tidy(self, project: str) -> None:
        return None

    def settle(self, project: str) -> None:
        return None

    def close(self) -> None:
        return None

    # ---- observe -------------------------------------------------------------------------------------------

    def observe(self, project: str, images: tuple[str, ...] = ()) -> Observed:
        return Observed(
            containers=tuple(c for c in self.containers() if c.project == project),
            networks=self.networks(),
            volumes=self.volumes(),
            images={name: self.world.images[name] for name in images if name in self.world.images},
        )

    def containers(self) -> tuple[Container, ...]:
        found = self.world.containers.values()
        return tuple(sorted(found, key=lambda c: (c.project, c.service, c.oneoff, c.number, c.name)))

    def networks(self) -> tuple[ObservedNetwork, ...]:
        return tuple(self.world.networks[name] for name in sorted(self.world.networks))

    def volumes(self) -> tuple[ObservedVolume, ...]:
        return tuple(self.world.volumes[name] for name in sorted(self.world.volumes))

    # ---- perform -------------------------------------------------------------------------------------------

    def perform(self, step: steps.Step, project: Project, emit: Emit) -> None:
        with self._lock:
            self._fail_if_told(step)
            getattr(self, "_" + type(step).__name__)(step, project, emit)
            self.world.performed.append(steps.key_of(step))

    def perform_together(
        self, wanted: Sequence[steps.Step], project: Project, emit: Emit
    ) -> tuple[Sequence[steps.Step], Iterator[tuple[steps.Step, BaseException | None]]]:
        return wanted, iter(())

    def unperform(self, step: steps.Step, project: Project, emit: Emit) -> None:
        return None

    def _fail_if_told(self, step: steps.Step) -> None:
        service = getattr(step, "service", "")
        name = service.name if isinstance(service, Service) else service
        verb = steps.key_of(step).split(" ")[0]
        if self.world.behaviours.get(name, Behaviour()).fails == verb:
            raise EngineError(f"{steps.key_of(step)} failed, as it was told to")

    def _PullImage(self, step: steps.PullImage, project: Project, emit: Emit) -> None:
        emit(Progress("image", step.image, "Pulling", because=step.because))
        if self.world.registry and step.image not in self.world.registry:
            raise ImageError(f"image {step.image} could not be pulled", hint="check its name")
        identifier = self.world.registry.get(step.image) or "sha256:" + self.world.identifier()
        if step.policy == "always" or step.image not in self.world.images:
            self.world.images[step.image] = ObservedImage(identifier, (step.image,))
        emit(Progress("image", step.image, "Pulled", "done"))

    def _BuildImage(self, step: steps.BuildImage, project: Project, emit: Emit) -> None:
        emit(Progress("service", step.service, "Building", because=step.because))
        self.world.images[step.image] = ObservedImage("sha256:" + self.world.identifier(), (step.image,))
        emit(Progress("service", step.service, "Built", "done"))

    def _RemoveImage(self, step: steps.RemoveImage, project: Project, emit: Emit) -> None:
        emit(Progress("image", step.image, "Removing", because=step.because))
        self.world.images.pop(step.image, None)
        emit(Progress("image", step.image, "Removed", "done"))

    def _CreateNetwork(self, step: steps.CreateNetwork, project: Project, emit: Emit) -> None:
        network = step.network
        emit(Progress("network", network.name, "Creating", because=step.because))
        self.world.networks[network.name] = ObservedNetwork(
            network.name,
            self.world.identifier(),
            project.name,
            network.key,
            network.driver or "bridge",
            network.internal,
            (f"172.18.{len(self.world.networks)}.0/24",),
            (f"172.18.{len(self.world.networks)}.1",),
            {**dict(network.labels), _LABEL + "project": project.name, _LABEL + "network": network.key},
            dict(network.driver_opts),
            self.world.now,
            network.config_hash,
        )
        emit(Progress("network", network.name, "Created", "done"))

    def _RemoveNetwork(self, step: steps.RemoveNetwork, project: Project, emit: Emit) -> None:
        emit(Progress("network", step.name, "Removing", because=step.because))
        if any(e.network == step.name for c in self.world.containers.values() for e in c.networks):
            emit(Progress("network", step.name, "Resource is still in use", "warning"))
            return
        self.world.networks.pop(step.name, None)
        emit(Progress("network", step.name, "Removed", "done"))

    def _CreateVolume(self, step: steps.CreateVolume, project: Project, emit: Emit) -> None:
        volume = step.volume
        emit(Progress("volume", volume.name, "Creating", because=step.because))
        labels = {**dict(volume.labels), _LABEL + "project": project.name, _LABEL + "volume": volume.key}
        self._add_volume(volume.name, project.name, volume.key, labels, volume.config_hash)
        emit(Progress("volume", volume.name, "Created", "done"))

    def _add_volume(self, name: str, project: str, key: str, labels: Mapping[str, str], digest: str) -> None:
        place = f"/fake/volumes/{name}/_data"
        self.world.volumes.setdefault(
            name, ObservedVolume(name, project, key, "local", place, labels, {}, self.world.now, digest)
        )

    def _RemoveVolume(self, step: steps.RemoveVolume, project: Project, emit: Emit) -> None:
        emit(Progress("volume", step.name, "Removing", because=step.because))
        if any(m[:2] == ("volume", step.name) for c in self.world.containers.values() for m in c.mounts):
            emit(Progress("volume", step.name, "Resource is still in use", "warning"))
            return
        self.world.volumes.pop(step.name, None)
        emit(Progress("volume", step.name, "Removed", "done"))

    def _CreateContainer(self, step: steps.CreateContainer, project: Project, emit: Emit) -> None:
        service, old = step.service, step.replaces
        emit(Progress("container", step.name, "Recreate" if old else "Creating", because=step.because))
        image = self.world.images.get(project.image_of(service))
        if image is None:
            raise EngineError(f"image {project.image_of(service)} is not here", hint=f"kap pull {service.name}")
        known = {n.key: n.name for n in project.networks}
        for name in (known[a.network] for a in service.networks):
            if name not in self.world.networks:
                raise EngineError(f"network {name} is not here")
        there = self.world.containers.get(step.name)
        if there is not None and (old is None or there.id != old.id):
            raise EngineError(f'the container name "{step.name}" is already in use', code="KAP202")
        self.world.containers.pop(step.name, None)
        self.world.containers[step.name] = self._container(step, project, image, known)
        emit(Progress("container", step.name, "Recreated" if old else "Created", "done"))

    def _container(
        self, step: steps.CreateContainer, project: Project, image: ObservedImage, known: Mapping[str, str]
    ) -> Container:
        service = step.service
        depends = ",".join(f"{d.service}:{d.condition}:{str(d.restart).lower()}" for d in service.depends_on)
        labels = {
            **dict(service.labels),
            _LABEL + "project": project.name,
            _LABEL + "service": service.name,
            _LABEL + "container-number": str(step.number),
            _LABEL + "oneoff": str(step.oneoff),
            _LABEL + "config-hash": service.config_hash,
            _LABEL + "project.config_files": ",".join(project.files),
            _LABEL + "project.working_dir": project.working_dir,
            DEPENDS_LABEL: depends,
            **dict(step.labels),
        }
        return Container(
            id=self.world.identifier(),
            name=step.name,
            project=project.name,
            service=service.name,
            number=step.number,
            oneoff=step.oneoff,
            image=project.image_of(service),
            image_id=image.id,
            created=self.world.now,
            config_hash=service.config_hash,
            command=(*(service.entrypoint or ()), *(service.command or ())),
            labels=labels,
            networks=tuple(Endpoint(known[a.network], aliases=a.aliases) for a in service.networks),
            mounts=tuple(self._mounts(step, project)),
        )

    def _mounts(self, step: steps.CreateContainer, project: Project) -> Iterator[tuple[str, str, str]]:
        names = {v.key: v.name for v in project.volumes}
        old = step.replaces if not step.renew_anonymous else None
        carried = {target: source for kind, source, target in (old.mounts if old else ()) if kind == "volume"}
        for mount in step.service.mounts:
            source = mount.source
            if mount.type == "volume":
                source = names.get(source, source) or carried.get(mount.target) or self.world.identifier()
                self._add_volume(source, "", "", {}, "")
            yield mount.type, source, mount.target

    def _named(self, name: str) -> Container:
        container = self.world.containers.get(name)
        if container is None:
            raise EngineError(f"no such container: {name}", hint="kap up")
        return container

    def _change(self, name: str, **changes: Any) -> Container:
        container = self._named(name)._replace(**changes)
        self.world.containers[name] = container
        return container

    def _StartContainer(self, step: steps.StartContainer, project: Project, emit: Emit) -> None:
        emit(Progress("container", step.name, "Starting", because=step.because))
        self._run(self._named(step.name), project)
        emit(Progress("container", step.name, "Started", "done"))

    def _run(self, container: Container, project: Project) -> None:
        behaviour = self.world.behaviours.get(container.service, Behaviour())
        service = project.service(container.service)
        ports = tuple(
            PublishedPort(p.host_ip or "0.0.0.0", int(p.published.split("-")[0] or 49153), p.target, p.protocol)
            for p in (service.ports if service else ())
        )
        for text in behaviour.output:
            line = LogLine(container.name, container.service, "stdout", int(self.world.now * 1e9), text.encode())
            self.world.lines.setdefault(container.id, []).append(line)
        changes: dict[str, Any] = {"status": "running", "started": self.world.now, "pid": 1000, "ports": ports}
        if behaviour.exits is not None:
            changes |= {"status": "exited", "exit_code": behaviour.exits, "finished": self.world.now, "pid": 0}
            changes["ports"] = ()
        elif behaviour.health:
            changes["health"] = behaviour.health
        self._change(container.name, **changes)

    def _stopped(self, name: str, code: int) -> None:
        if self._named(name).alive:
            self._change(
                name, status="exited", exit_code=code, health="", finished=self.world.now, pid=0, ports=()
            )  # fmt: skip

    def _StopContainer(self, step: steps.StopContainer, project: Project, emit: Emit) -> None:
        emit(Progress("container", step.name, "Stopping", because=step.because))
        self._stopped(step.name, 143)
        emit(Progress("container", step.name, "Stopped", "done"))

    def _KillContainer(self, step: steps.KillContainer, project: Project, emit: Emit) -> None:
        emit(Progress("container", step.name, "Killing", because=step.because))
        if step.signal in ("SIGKILL", "KILL", "9"):
            self._stopped(step.name, 137)
        emit(Progress("container", step.name, "Killed", "done"))

    def _RestartContainer(self, step: steps.RestartContainer, project: Project, emit: Emit) -> None:
        emit(Progress("container", step.name, "Restarting", because=step.because))
        self._stopped(step.name, 143)
        self._run(self._named(step.name), project)
        emit(Progress("container", step.name, "Started", "done"))

    def _PauseContainer(self, step: steps.PauseContainer, project: Project, emit: Emit) -> None:
        self._change(step.name, status="paused")
        emit(Progress("container", step.name, "Paused", "done"))

    def _UnpauseContainer(self, step: steps.UnpauseContainer, project: Project, emit: Emit) -> None:
        self._change(step.name, status="running")
        emit(Progress("container", step.name, "Unpaused", "done"))

    def _RemoveContainer(self, step: steps.RemoveContainer, project: Project, emit: Emit) -> None:
        emit(Progress("container", step.name, "Removing", because=step.because))
        container = self.world.containers.get(step.name)
        if container is not None:
            if container.alive and not step.force:
                raise EngineError(f"container {step.name} is running", hint=f"kap stop {step.service}")
            del self.world.containers[step.name]
            for kind, source, _ in container.mounts:
                volume = self.world.volumes.get(source)
                if step.volumes and kind == "volume" and volume is not None and not volume.key:
                    del self.world.volumes[source]
        emit(Progress("container", step.name, "Removed", "done"))

    def _WaitFor(self, step: steps.WaitFor, project: Project, emit: Emit) -> None:
        for name in step.names:
            emit(Progress("container", name, "Waiting", because=step.because))
            container = self._named(name)
            problem = self._problem(step, container)
            if problem:
                emit(Progress("container", name, "Error", "error", details=problem))
                if step.required or not step.wanted_by:
                    raise EngineError(problem)
                return
            done = step.condition == "service_completed_successfully"
            emit(Progress("container", name, "Exited" if done else "Healthy", "done"))

    def _problem(self, step: steps.WaitFor, container: Container) -> str:
        if step.condition == "service_completed_successfully":
            if container.alive or container.exit_code:
                return f'service "{step.service}" didn\'t complete successfully: exit {container.exit_code}'
            return ""
        prefix = "dependency failed to start: " if step.wanted_by else ""
        if not container.alive:
            if step.condition == "running_or_healthy" and not container.exit_code:
                return ""
            return f"{prefix}container {container.name} exited ({container.exit_code})"
        if container.health == "unhealthy":
            return f"{prefix}container {container.name} is unhealthy"
        return ""

    # ---- output --------------------------------------------------------------------------------------------

    def logs(
        self,
        containers: tuple[Container, ...],
        *,
        follow: bool = False,
        tail: int | None = None,
        since: int | None = None,
        until: int | None = None,
    ) -> Iterator[LogLine]:
        for container in containers:
            lines = [
                line
                for line in self.world.lines.get(container.id, [])
                if (since is None or line.time >= since) and (until is None or line.time <= until)
            ]
            yield from lines if tail is None else lines[len(lines) - min(tail, len(lines)) :]

    def wait(self, containers: tuple[Container, ...]) -> Iterator[tuple[Container, int]]:
        """Each as it ends: by its behaviour, or because another thread stops it."""
        from time import sleep

        pending = list(containers)
        while pending:
            for container in list(pending):
                now = self.world.containers.get(container.name)
                if now is None or not now.alive:
                    pending.remove(container)
                    yield now or container, now.exit_code if now else 137
            sleep(0.002)
