"""The native engine, as the command line sees it: observe, perform a step. The work is the supervisor's.

Creating is done here (files only), starting and what follows by the project's supervisor.
"""

from __future__ import annotations

import os
import select
import sys
import time
from _thread import allocate_lock  # threading itself is not needed here
from collections.abc import Callable, Iterator, Mapping

from kapelle import COMPOSE_VERSION
from kapelle.engines.native import (
    client,
    descriptors,
    making,
    messages,
    records,
    removal,
    secretplace,
    stopping,
    volumes,
)
from kapelle.engines.native.imagesource import ImageSource
from kapelle.errors import EngineError, ImageError, KapelleError
from kapelle.events import Emit, LogLine, Notice, Progress
from kapelle.images import keeping
from kapelle.images.types import Image
from kapelle.light import TYPE_CHECKING, Any
from kapelle.linux import idmap, process
from kapelle.model.project import FileSource, Project
from kapelle.model.service import FileGrant, Service
from kapelle.plan import steps
from kapelle.plan.observed import Container, Observed, ObservedImage, ObservedNetwork, ObservedVolume
from kapelle.state import store as files
from kapelle.state.paths import Paths

if TYPE_CHECKING:
    from kapelle.engines.native.cdi import Edits
    from kapelle.engines.native.portchoice import Choice
    from kapelle.light import socket

_LAST_LINES = 5
_PORT_CODES = ("KAP201", "KAP205", "KAP206")  # can't be published, of native.ports


class NativeEngine:
    """Containers on this machine's kernel, kept by our own keeper and supervisor."""

    name = "native"

    def __init__(self, paths: Paths, environ: Mapping[str, str]) -> None:
        descriptors.raise_limit()
        self.paths = paths
        self.environ = environ
        self.strict = environ.get("KAP_COMPAT") == "strict"
        self.auto_ports = environ.get("KAP_PORTS") == "auto"
        self._ports: dict[str, list[Choice]] = {}  # by container: where its ports go that are taken
        self.store = keeping.store(paths, environ)
        self.images = ImageSource(paths, self.store, environ)
        self._ids: dict[tuple[str, str], str] = {}  # (project, container name) → id
        self._holding = allocate_lock()
        self._stacked: dict[bool, str] = {}  # how images are stacked, for containers with a user namespace or without
        self._turns: dict[str, Any] = {}  # service → lock, for its pre_start hooks
        self._held: socket.socket | None = None  # a connection that keeps the supervisor for this command
        self._perform: dict[type, Callable[..., None]] = {
            steps.PullImage: self._pull,
            steps.BuildImage: self._build,
            steps.CreateNetwork: self._create_network,
            steps.RemoveNetwork: self._remove_network,
            steps.CreateVolume: self._create_volume,
            steps.RemoveVolume: self._remove_volume,
            steps.RemoveImage: self._remove_image,
            steps.CreateContainer: self._create,
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
        found = tuple(records.containers(self.paths, project))
        self._ids.update({(project, c.name): c.id for c in found})
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
        todo = tuple(s for s in wanted if getattr(s, "name", "") not in self._ports)
        self._ports.update(preflight.check(self.paths, todo, project, self.environ, auto_ports=self.auto_ports))

    def perform(self, step: steps.Step, project: Project, emit: Emit) -> None:
        self._perform[type(step)](step, project, emit)

    def unperform(self, step: steps.Step, project: Project, emit: Emit) -> None:
        """Compose leaves created things where they are after a failure, and so do we: nothing is undone."""

    def rest(self) -> None:
        self.images.release()

    def close(self) -> None:
        self.images.release()
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

    def _hold_supervisor(self, project: str) -> None:
        """Start the supervisor (or keep it) for the rest of this command: it comes up while we write files."""
        with self._holding:  # steps run side by side
            if self._held is None:
                self._held = client.ensure(self.paths, project, strict=self.strict)

    def _create_network(self, step: steps.CreateNetwork, project: Project, emit: Emit) -> None:
        self._hold_supervisor(project.name)
        from kapelle.engines.native import network_options, spec

        network = step.network
        emit(Progress("network", network.name, "Creating", because=step.because))
        if network.driver not in ("", "bridge"):
            raise EngineError(
                f'network "{network.key}" asks for the driver "{network.driver}", which is not here',
                where=network.where,
                hint="use bridge, or leave driver: out",
            )
        configs = [dict(c) for c in network.ipam]
        files.make_directory(self.paths.networks)
        record = {
            "name": network.name,
            "id": os.urandom(32).hex(),
            "project": project.name,
            "key": network.key,
            "driver": "bridge",
            "internal": network.internal,
            "subnets": [str(c["subnet"]) for c in configs if c.get("subnet")],
            "gateways": [str(c.get("gateway") or "") for c in configs if c.get("subnet")],
            "ip_ranges": [str(c["ip_range"]) for c in configs if c.get("ip_range")],
            "reserved": [str(a) for c in configs for a in dict(c.get("aux_addresses") or ()).values()],
            "enable_ipv6": bool(network.enable_ipv6),
            "options": dict(network.driver_opts),
            "labels": {
                **dict(network.labels),
                spec.LABEL + "project": project.name,
                spec.LABEL + "network": network.key,
                spec.LABEL + "version": COMPOSE_VERSION,
                spec.LABEL + "config-hash": network.config_hash,
            },
            "created": time.time(),
            "config_hash": network.config_hash,
        }
        files.write_json(f"{self.paths.networks}/{network.name}.json", record, sync=True)
        for key, why in network_options.not_honoured(network):
            text = f'network "{network.key}": {key} is not honoured: {why}'
            emit(Notice(text, where=network.where, once=f"network:{network.name}:{key}"))
        emit(Progress("network", network.name, "Created", "done"))

    def _remove_network(self, step: steps.RemoveNetwork, project: Project, emit: Emit) -> None:
        emit(Progress("network", step.name, "Removing", because=step.because))
        users = [c.name for c in self.containers() if any(e.network == step.name for e in c.networks)]
        if users:
            emit(Progress("network", step.name, "Resource is still in use", "warning"))
            return
        client.request(self.paths, project.name, {"op": "forget_network", "name": step.name}, start=False)
        try:
            os.unlink(f"{self.paths.networks}/{step.name}.json")
            os.unlink(f"{self.paths.networks}/.{step.name}.lock")
        except FileNotFoundError:
            pass
        emit(Progress("network", step.name, "Removed", "done"))

    def _create_volume(self, step: steps.CreateVolume, project: Project, emit: Emit) -> None:
        from kapelle.engines.native import spec

        volume = step.volume
        emit(Progress("volume", volume.name, "Creating", because=step.because))
        labels = {
            **dict(volume.labels),
            spec.LABEL + "project": project.name,
            spec.LABEL + "volume": volume.key,
            spec.LABEL + "version": COMPOSE_VERSION,
            spec.LABEL + "config-hash": volume.config_hash,
        }
        volumes.create(
            self.paths,
            volume.name,
            driver=volume.driver or "local",
            options=dict(volume.driver_opts),
            labels=labels,
            config_hash=volume.config_hash,
        )
        emit(Progress("volume", volume.name, "Created", "done"))

    def _remove_volume(self, step: steps.RemoveVolume, _project: Project, emit: Emit) -> None:
        emit(Progress("volume", step.name, "Removing", because=step.because))
        users = [c.name for c in self.containers() if any(m[:2] == ("volume", step.name) for m in c.mounts)]
        if users:
            emit(Progress("volume", step.name, "Resource is still in use", "warning"))
            return
        volumes.remove(self.paths, step.name)
        emit(Progress("volume", step.name, "Removed", "done"))

    def _remove_image(self, step: steps.RemoveImage, _project: Project, emit: Emit) -> None:
        image = self.store.find(step.image)
        emit(Progress("image", step.image, "Removing", because=step.because))
        if image is None:
            emit(Progress("image", step.image, "No such image", "warning"))
            return
        if any(c.image_id == image.id for c in self.containers()):
            emit(Progress("image", step.image, "Resource is still in use", "warning"))
            return
        self.store.untag(step.image)
        after = self.store.find(image.id)
        if after is not None and not after.names:
            from kapelle.engines.native.layer_users import layers_in_use

            self.store.remove(image.id, lambda: layers_in_use(self.paths))
        emit(Progress("image", step.image, "Removed", "done"))

    # ---- containers ----------------------------------------------------------------------------------------

    def _create(self, step: steps.CreateContainer, project: Project, emit: Emit) -> None:
        self._hold_supervisor(project.name)
        with self.store.using():  # from the look at the image to the intent that names its layers
            self._create_over_layers(step, project, emit)

    def _create_over_layers(self, step: steps.CreateContainer, project: Project, emit: Emit) -> None:
        from kapelle.engines.native import mapping, spec, stacking, userns_choice

        old = step.replaces
        words = ("Recreate", "Recreated") if old else ("Creating", "Created")
        emit(Progress("container", step.name, words[0], because=step.because))
        service = step.service
        if self._ports.get(step.name):
            from kapelle.engines.native import portchoice

            for choice in self._ports[step.name]:
                emit(Notice(portchoice.text_of(service.name, choice), level="info"))
            service = portchoice.moved(service, self._ports[step.name])
        reference = project.image_of(service)
        image = self.images.here(reference)
        if image is None:
            raise EngineError(
                f"image {reference} is not here", where=service.where.get("image"), hint=f"kap pull {service.name}"
            )
        self._refuse_name_of_another(step)
        container_id = os.urandom(32).hex()
        directory = self.paths.container(project.name, container_id)
        data = self.paths.container_data(container_id)
        borrowed, shown = self._borrowed(project, service, emit)
        try:
            files.make_directory(directory)  # first: by it the sweep finds the rest, should we be killed
            for place in (f"{data}/upper", f"{data}/work", f"{data}/merged"):
                files.make_directory(place, 0o711)
            os.chmod(f"{data}/upper", 0o755)
            intent = spec.intent(
                project,
                service,
                image,
                spec.Inputs(
                    id=container_id,
                    name=step.name,
                    number=step.number,
                    oneoff=step.oneoff,
                    slug=step.slug,
                    created=time.time(),
                    rootfs={
                        "lowers": list(self.store.layer_dirs(image)),
                        "upper": f"{data}/upper",
                        "work": f"{data}/work",
                        "merged": f"{data}/merged",
                    },
                    volumes=self._volumes(step, project, image, directory, {row["target"] for row in borrowed}),
                    files=self._files(project, service, container_id),
                    state_dir=directory,
                    version=COMPOSE_VERSION,
                    labels=step.labels,
                    publish=step.publish,
                    use_aliases=step.use_aliases,
                    remove_on_exit=step.remove_on_exit,
                    containers=self._sharing(project, service),
                    given=self._given(service),
                    caller=mapping.caller(os.environ) if service.map_user else (0, 0),
                    userns=userns_choice.chosen(service, self.environ),
                ),
            )
            self._place_borrowed(intent, borrowed, shown)
            self._finish_security(intent, service, project)
            stacking.prepare(intent["launch"], self._stacking(emit, mapped=bool(intent["launch"]["userns"])), data)
            self._note_rung(intent, image, emit)
            if not intent["command"]:
                raise EngineError(
                    f'service "{service.name}": the image {reference} has no command to run',
                    where=service.where.get("image"),
                    hint="set command: or entrypoint: on the service",
                )
            for name in ("hosts", "resolv.conf", "hostname"):  # bind sources must be there; filled at the start
                os.close(os.open(f"{directory}/{name}", os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))
            if step.remove_on_exit:
                making.only_for(directory, os.getpid())
            if old is not None:
                making.intend(directory, intent, old.id)
                self._stop_and_remove(old, project, step.timeout, emit)
            making.complete(directory, intent)
        except BaseException:
            making.settle(self.paths, project.name, container_id)
            raise
        self._ids[project.name, step.name] = container_id
        self._record(project.name, intent, "create")
        emit(Progress("container", step.name, words[1], "done"))

    def _stacking(self, emit: Emit, *, mapped: bool) -> str:
        from kapelle.engines.native import stacking

        with self._holding:
            if mapped not in self._stacked:
                self._stacked[mapped] = stacking.chosen(self.paths, self.environ, emit, mapped=mapped)
            return self._stacked[mapped]

    def _note_rung(self, intent: dict[str, Any], image: Image, emit: Emit) -> None:
        """Which walls the container has; told once where they are other than root's."""
        from kapelle.engines.native import rung, single

        intent["rung"] = rung.current()
        if intent["rung"] != "R1" and files.read_json(f"{self.paths.state}/rung.json") != intent["rung"]:
            files.write_json(f"{self.paths.state}/rung.json", intent["rung"])
            words = rung.WORDS[intent["rung"]]
            emit(Notice(f"running as {words} ({intent['rung']}); kap doctor says what that means", level="info"))
        if intent["rung"] == "R3":
            from kapelle.images.build.rootfs import Rootfs

            layers = Rootfs(tuple(self.store.layer_dirs(image)))
            intent["launch"]["users"] = single.prepare(intent, layers.read)
            if intent["launch"]["groups"]:
                intent["notes"].append(["group_add", "this user has one group id only (kap doctor)"])

    def _borrowed(self, project: Project, service: Service, emit: Emit) -> tuple[list[dict[str, Any]], list[list[str]]]:
        """Mounts of other containers and of images: (to make, as shown)."""
        if not service.volumes_from and all(m.type != "image" for m in service.mounts):
            return [], []
        from kapelle.engines.native import borrowed

        rows, shown = borrowed.of_others(
            service, project.name, self.containers(), lambda c: self._intent(c.project, c.id)
        )
        own = {m.target for m in service.mounts}
        images = borrowed.of_images(
            service, self.store, lambda name: self.images.get(name, emit, policy="missing", project=project)
        )
        return [r for r in rows if r["target"] not in own] + images, [r for r in shown if r[2] not in own]

    def _place_borrowed(self, intent: dict[str, Any], rows: list[dict[str, Any]], shown: list[list[str]]) -> None:
        mounts = intent["launch"]["mounts"]
        mounts += rows
        intent["mounts"] += shown
        for row in mounts:  # volumes whose content is a file system of their own
            name = next((n for kind, n, target in intent["mounts"] if kind == "volume" and target == row["target"]), "")
            wanted = volumes.filesystem(self.paths, name) if name else None
            if wanted is not None:
                row["filesystem"] = wanted

    def _refuse_name_of_another(self, step: steps.CreateContainer) -> None:
        if not (step.service.container_name or step.oneoff):
            return
        for other in self.containers():
            if other.name == step.name and (step.replaces is None or other.id != step.replaces.id):
                raise EngineError(
                    f'the container name "{step.name}" is already in use by container {other.id[:12]} '
                    f"of project {other.project}",
                    where=step.service.where.get("container_name"),
                    hint=f"kap -p {other.project} down, or choose another container_name",
                    code="KAP202",
                )

    def _volumes(
        self, step: steps.CreateContainer, project: Project, image: Image, directory: str, covered: set[str]
    ) -> dict[str, tuple[str, str]]:
        """Mount target → (volume, folder). Anonymous ones follow from the replaced container, or are made."""
        names = {v.key: v.name for v in project.volumes}
        carried: dict[str, str] = {}
        if step.replaces is not None and not step.renew_anonymous:
            carried = {target: source for kind, source, target in step.replaces.mounts if kind == "volume"}
        fresh: list[str] = []

        def anonymous(target: str) -> str:
            name = carried.get(target, "")
            if not (name and volumes.is_anonymous(name) and os.path.isdir(self.paths.volume_data(name))):
                name = os.urandom(32).hex()
                fresh.append(name)
                making.made(directory, fresh)  # first, so that it goes with the folder should we be killed
                volumes.create_anonymous(self.paths, name)
            return name

        found: dict[str, tuple[str, str]] = {}
        targets = set(covered)
        for mount in step.service.mounts:
            targets.add(mount.target)
            if mount.type != "volume":
                continue
            name = names.get(mount.source, mount.source) if mount.source else anonymous(mount.target)
            if not os.path.isdir(self.paths.volume_data(name)):
                volumes.create(self.paths, name)
            found[mount.target] = (name, volumes.location(self.paths, name))
        for target in (image.config.get("config") or {}).get("Volumes") or {}:
            clean = target.rstrip("/") or "/"
            if clean not in targets:
                name = anonymous(clean)
                found[clean] = (name, self.paths.volume_data(name))
        return found

    def _files(self, project: Project, service: Service, container_id: str) -> dict[str, str]:
        """Configs and secrets: a file is mounted itself; text goes to a private file in the runtime folder."""
        found: dict[str, str] = {}
        sources = {("config", f.key): f for f in project.configs} | {("secret", f.key): f for f in project.secrets}
        grants = [("config", g) for g in service.configs] + [("secret", g) for g in service.secrets]
        for kind, grant in grants:
            source = sources[kind, grant.source]
            if source.file and (grant.uid, grant.gid, grant.mode) != (None, None, None) and os.path.isfile(source.file):
                with open(source.file, "rb") as f:  # its owner and mode are the grant's: a copy of its own
                    found[grant.target] = self._private(project.name, container_id, kind, source.key, f.read(), grant)
            elif source.file:
                if not os.path.exists(source.file):
                    raise EngineError(
                        f'{kind} "{source.key}": {source.file} does not exist',
                        where=source.where,
                        hint="create the file",
                        code="KAP601",
                    )
                found[grant.target] = source.file
            else:
                found[grant.target] = self._written(project.name, container_id, kind, source, grant)
        return found

    def _written(self, project: str, container_id: str, kind: str, source: FileSource, grant: FileGrant) -> str:
        if source.external or source.content is None:
            raise EngineError(
                f'{kind} "{source.key}" is external, and this engine keeps none',
                where=source.where,
                hint="give it by file:, environment: or content:",
            )
        return self._private(project, container_id, kind, source.key, source.content.encode(), grant)

    def _private(self, project: str, container_id: str, kind: str, key: str, data: bytes, grant: FileGrant) -> str:
        """A file in memory that only this container has."""
        for number in (grant.uid, grant.gid):
            if number is not None and not str(number).isdigit():
                raise EngineError(
                    f'{kind} "{key}": {number!r} is no uid or gid', hint="use a number, as users of the image have them"
                )
        folder = f"{secretplace.folder(self.paths, project)}/{container_id}"
        files.make_directory(folder)
        path = f"{folder}/{kind}-{key}"
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, data)
            idmap.chown(fd, int(grant.uid or 0), int(grant.gid or 0))
            os.fchmod(fd, 0o444 if grant.mode is None else grant.mode)
        finally:
            os.close(fd)
        return path

    def _written_again(self, project: Project, container: Container, service: Service | None) -> None:
        """After a reboot the texts of configs and secrets are gone: they were kept in memory only."""
        folder = f"{secretplace.folder(self.paths, project.name)}/{container.id}/"
        gone = [source for _, source, _ in container.mounts if source.startswith(folder) and not os.path.exists(source)]
        if not gone:
            return
        if service is None:
            kind, _, key = os.path.basename(gone[0]).partition("-")
            raise EngineError(
                f'{kind} "{key}" of {container.service} is kept in memory only, and gone since the reboot',
                hint=f"kap up -d {container.service}",
            )
        self._files(project, service, container.id)

    def _given(self, service: Service) -> Edits:
        from kapelle.engines.native import given_devices

        edits, mistakes = given_devices.given(service, self.environ)
        if mistakes:
            raise mistakes[0]
        return edits

    def _sharing(self, project: Project, service: Service) -> dict[str, str]:
        """Containers by service, for network_mode, ipc and pid `service:X` (and container:X by name)."""
        modes = (service.network_mode, service.ipc, service.pid)
        if not any(m.startswith("service:") for m in modes):
            return {}
        return {c.service: c.id for c in records.containers(self.paths, project.name) if not c.oneoff}

    def _finish_security(self, intent: dict[str, Any], service: Service, project: Project) -> None:
        launch = intent["launch"]
        from kapelle.engines.native import security

        program = security.filter_of(service, project.working_dir, security.of(service).seccomp)
        launch["seccomp"] = None if program is None else program.hex()
        for mode, key in (("net", "network_mode"), ("ipc", "ipc"), ("pid", "pid")):
            value = launch["namespaces"][mode]
            if value.startswith("container:"):
                name = value.removeprefix("container:")
                other = next((c for c in self.containers() if name in (c.id, c.name)), None)
                if other is None:
                    raise EngineError(f"no such container: {name}", where=service.where.get(key))
                launch["namespaces"][mode] = f"container:{other.id}"

    def _stop_and_remove(self, old: Container, project: Project, timeout: float | None, emit: Emit) -> None:
        if old.alive:
            stopping.stop(self, project, old, timeout, emit)
        elif old.pid:  # half started
            client.request(self.paths, project.name, self._kill_message(old))
        client.request(self.paths, project.name, {"op": "forget", "id": old.id}, start=False)
        intent = self._intent(project.name, old.id)
        if intent is not None:
            removal.remove_container(self.paths, project.name, intent, volumes=False)
            self._record(project.name, intent, "destroy")

    def _kill_message(self, container: Container) -> dict[str, Any]:
        return {"op": "stop", "id": container.id, "signal": "SIGKILL", "timeout": 0}

    def intent_of(self, project: str, container_id: str) -> dict[str, Any]:
        return self._intent(project, container_id) or {}

    def _intent(self, project: str, container_id: str) -> dict[str, Any] | None:
        record: dict[str, Any] | None = files.read_json(f"{self.paths.container(project, container_id)}/container.json")
        return record

    def _record(self, project: str, intent: dict[str, Any], action: str) -> None:
        from kapelle.engines.native.supervisor_events import append_event

        append_event(self.paths, project, intent, action)

    def _named(self, project: Project, name: str) -> Container:
        """The container as it is now. Its folder is remembered: fifty steps must not read fifty folders each."""
        known = self._ids.get((project.name, name))
        if known is not None:
            found = records.one(self.paths.container(project.name, known), process.boot_id())
            if found is not None and found.name == name:
                return found
        self._of(project.name)
        if self._ids.get((project.name, name), known) == known:
            raise EngineError(f"no such container: {name}", hint="kap up")
        return self._named(project, name)

    def _start(self, step: steps.StartContainer, project: Project, emit: Emit) -> None:
        emit(Progress("container", step.name, "Starting", because=step.because))
        container = self._named(project, step.name)
        service = project.service(container.service)
        if service is not None and service.pre_start and not container.oneoff:
            self._pre_start(project, service, container, emit)
        if step.name in self._ports and service is not None:
            self._move_ports(container, service, emit)
        self._written_again(project, container, service)
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

        with self._holding:
            turn = self._turns.setdefault(service.name, allocate_lock())
        with turn:  # replicas start side by side: one of them runs what is run once
            prestart.run(self, project, service, container, emit)

    def run_to_end(self, project: Project, name: str, emit: Emit) -> int:
        """Start a created container and wait for its exit code."""
        container = self._named(project, name)
        emit(Progress("container", name, "Starting"))
        client.request(self.paths, project.name, {"op": "start", "id": container.id}, strict=self.strict)
        answer = client.request(self.paths, project.name, {"op": "wait", "ids": [container.id], "until": "exited"})
        code = int(answer["results"].get(container.id, {"exit_code": 137})["exit_code"])
        emit(Progress("container", name, "Exited", "done"))
        return code

    def _move_ports(self, container: Container, service: Service, emit: Emit) -> None:
        """--ports=auto for a container that is there: it is told before its start, if it was not made just now."""
        from kapelle.engines.native import portchoice

        choices = self._ports[container.name]
        if not container.alive and portchoice.move(self.paths, container.project, container.id, service, choices):
            client.request(self.paths, container.project, {"op": "forget", "id": container.id}, start=False)
            for choice in choices:
                emit(Notice(portchoice.text_of(service.name, choice), level="info"))

    def hooks(self, container: Container, kind: str, emit: Emit) -> None:
        intent = self._intent(container.project, container.id)
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
        container = self._named(project, step.name)
        if container.alive:
            stopping.stop(self, project, container, step.timeout, emit, halt=step.halt)
        emit(Progress("container", step.name, "Stopped", "done"))

    def _kill(self, step: steps.KillContainer, project: Project, emit: Emit) -> None:
        emit(Progress("container", step.name, "Killing", because=step.because))
        container = self._named(project, step.name)
        client.request(self.paths, project.name, {"op": "kill", "id": container.id, "signal": step.signal})
        if step.signal in ("SIGKILL", "KILL", "9"):
            client.request(self.paths, project.name, {"op": "wait", "ids": [container.id], "until": "exited"})
        emit(Progress("container", step.name, "Killed", "done"))

    def _restart(self, step: steps.RestartContainer, project: Project, emit: Emit) -> None:
        emit(Progress("container", step.name, "Restarting", because=step.because))
        container = self._named(project, step.name)
        if container.alive:
            stopping.stop(self, project, container, step.timeout, emit)
        answer = client.request(self.paths, project.name, {"op": "start", "id": container.id}, strict=self.strict)
        self._tell_notes(answer, project.service(container.service), emit)
        self.hooks(container, "post_start", emit)
        emit(Progress("container", step.name, "Started", "done"))

    def _pause(self, step: steps.PauseContainer, project: Project, emit: Emit) -> None:
        emit(Progress("container", step.name, "Pausing"))
        client.request(self.paths, project.name, {"op": "pause", "id": self._named(project, step.name).id})
        emit(Progress("container", step.name, "Paused", "done"))

    def _unpause(self, step: steps.UnpauseContainer, project: Project, emit: Emit) -> None:
        emit(Progress("container", step.name, "Unpausing"))
        client.request(self.paths, project.name, {"op": "unpause", "id": self._named(project, step.name).id})
        emit(Progress("container", step.name, "Unpaused", "done"))

    def _remove(self, step: steps.RemoveContainer, project: Project, emit: Emit) -> None:
        emit(Progress("container", step.name, "Removing", because=step.because))
        try:
            container = self._named(project, step.name)
        except EngineError:
            emit(Progress("container", step.name, "Removed", "done"))
            return
        if container.alive:
            if not step.force:
                raise EngineError(f"container {step.name} is running", hint=f"kap stop {step.service}")
        if container.alive or container.pid:  # half started counts too
            client.request(self.paths, project.name, self._kill_message(container))
        client.request(self.paths, project.name, {"op": "forget", "id": container.id}, start=False)
        intent = self._intent(project.name, container.id)
        if intent is not None:
            removal.remove_container(self.paths, project.name, intent, volumes=step.volumes)
            self._record(project.name, intent, "destroy")
        if not container.oneoff and os.path.isdir(f"{self.paths.project(project.name)}/pre_start"):
            from kapelle.engines.native import prestart

            prestart.forget(self, project.name, container.service, container.number)
        emit(Progress("container", step.name, "Removed", "done"))

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
            return [line.text.decode("utf-8", "replace") for line in self.logs((container,), tail=count)]
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
