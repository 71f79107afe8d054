"""Creating a container: its folders, its intent, all that is decided before it starts. Files only; nothing runs yet."""

from __future__ import annotations

import os
import time

from kapelle import COMPOSE_VERSION
from kapelle.engines.native import client, grants, making, records, removal, stopping, volumes
from kapelle.errors import EngineError
from kapelle.events import Emit, Notice, Progress
from kapelle.images.types import Image
from kapelle.light import TYPE_CHECKING, Any
from kapelle.model.project import Project
from kapelle.model.service import Service
from kapelle.plan import steps
from kapelle.plan.observed import Container
from kapelle.state import store as files

if TYPE_CHECKING:
    from kapelle.engines.native.cdi import Edits
    from kapelle.engines.native.engine import NativeEngine


def create(engine: NativeEngine, step: steps.CreateContainer, project: Project, emit: Emit) -> None:
    engine.hold_supervisor(project.name)
    with engine.store.using():  # from the look at the image to the intent that names its layers
        _create_over_layers(engine, step, project, emit)


def _create_over_layers(engine: NativeEngine, step: steps.CreateContainer, project: Project, emit: Emit) -> None:
    from kapelle.engines.native import mapping, spec, stacking, userns_choice

    old = step.replaces
    words = ("Recreate", "Recreated") if old else ("Creating", "Created")
    emit(Progress("container", step.name, words[0], because=step.because))
    service = step.service
    if engine.moved_ports.get(step.name):
        from kapelle.engines.native import portchoice

        for choice in engine.moved_ports[step.name]:
            emit(Notice(portchoice.text_of(service.name, choice), level="info"))
        service = portchoice.moved(service, engine.moved_ports[step.name])
    reference = project.image_of(service)
    image = engine.images.here(reference)
    if image is None:
        raise EngineError(
            f"image {reference} is not here", where=service.where.get("image"), hint=f"kap pull {service.name}"
        )
    _refuse_name_of_another(engine, step)
    container_id = os.urandom(32).hex()
    directory = engine.paths.container(project.name, container_id)
    data = engine.paths.container_data(container_id)
    borrowed, shown = _borrowed(engine, project, service, emit)
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
                    "lowers": list(engine.store.layer_dirs(image)),
                    "upper": f"{data}/upper",
                    "work": f"{data}/work",
                    "merged": f"{data}/merged",
                },
                volumes=_volumes(engine, step, project, image, directory, {row["target"] for row in borrowed}),
                files=grants.files_of(engine, project, service, container_id),
                state_dir=directory,
                version=COMPOSE_VERSION,
                labels=step.labels,
                publish=step.publish,
                use_aliases=step.use_aliases,
                remove_on_exit=step.remove_on_exit,
                containers=_sharing(engine, project, service),
                given=_given(engine, service),
                caller=mapping.caller(os.environ) if service.map_user else (0, 0),
                userns=userns_choice.chosen(service, engine.environ),
            ),
        )
        _place_borrowed(engine, intent, borrowed, shown)
        _finish_security(engine, intent, service, project)
        stacking.prepare(intent["launch"], _stacking(engine, emit, mapped=bool(intent["launch"]["userns"])), data)
        _note_rung(engine, intent, image, emit)
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
            _stop_and_remove(engine, old, project, step.timeout, emit)
        making.complete(directory, intent)
    except BaseException:
        making.settle(engine.paths, project.name, container_id)
        raise
    engine.ids[project.name, step.name] = container_id
    engine.record(project.name, intent, "create")
    emit(Progress("container", step.name, words[1], "done"))


def _stacking(engine: NativeEngine, emit: Emit, *, mapped: bool) -> str:
    from kapelle.engines.native import stacking

    with engine.holding:
        if mapped not in engine.stacked:
            engine.stacked[mapped] = stacking.chosen(engine.paths, engine.environ, emit, mapped=mapped)
        return engine.stacked[mapped]


def _note_rung(engine: NativeEngine, intent: dict[str, Any], image: Image, emit: Emit) -> None:
    """Which walls the container has; told once where they are other than root's."""
    from kapelle.engines.native import rung, single

    intent["rung"] = rung.current()
    if intent["rung"] != "R1" and files.read_json(f"{engine.paths.state}/rung.json") != intent["rung"]:
        files.write_json(f"{engine.paths.state}/rung.json", intent["rung"])
        words = rung.WORDS[intent["rung"]]
        emit(Notice(f"running as {words} ({intent['rung']}); kap doctor says what that means", level="info"))
    if intent["rung"] == "R3":
        from kapelle.images.build.rootfs import Rootfs

        layers = Rootfs(tuple(engine.store.layer_dirs(image)))
        intent["launch"]["users"] = single.prepare(intent, layers.read)
        if intent["launch"]["groups"]:
            intent["notes"].append(["group_add", "this user has one group id only (kap doctor)"])


def _borrowed(
    engine: NativeEngine, project: Project, service: Service, emit: Emit
) -> tuple[list[dict[str, Any]], list[list[str]]]:
    """Mounts of other containers and of images: (to make, as shown)."""
    if not service.volumes_from and all(m.type != "image" for m in service.mounts):
        return [], []
    from kapelle.engines.native import borrowed

    rows, shown = borrowed.of_others(
        service, project.name, engine.containers(), lambda c: engine.intent(c.project, c.id)
    )
    own = {m.target for m in service.mounts}
    images = borrowed.of_images(
        service, engine.store, lambda name: engine.images.get(name, emit, policy="missing", project=project)
    )
    return [r for r in rows if r["target"] not in own] + images, [r for r in shown if r[2] not in own]


def _place_borrowed(
    engine: NativeEngine, intent: dict[str, Any], rows: list[dict[str, Any]], shown: list[list[str]]
) -> None:
    mounts = intent["launch"]["mounts"]
    mounts += rows
    intent["mounts"] += shown
    for row in mounts:  # volumes whose content is a file system of their own
        name = next((n for kind, n, target in intent["mounts"] if kind == "volume" and target == row["target"]), "")
        wanted = volumes.filesystem(engine.paths, name) if name else None
        if wanted is not None:
            row["filesystem"] = wanted


def _refuse_name_of_another(engine: NativeEngine, step: steps.CreateContainer) -> None:
    if not (step.service.container_name or step.oneoff):
        return
    for other in engine.containers():
        if other.name == step.name and (step.replaces is None or other.id != step.replaces.id):
            raise EngineError(
                f'the container name "{step.name}" is already in use by container {other.id[:12]} '
                f"of project {other.project}",
                where=step.service.where.get("container_name"),
                hint=f"kap -p {other.project} down, or choose another container_name",
                code="KAP202",
            )


def _volumes(
    engine: NativeEngine, step: steps.CreateContainer, project: Project, image: Image, directory: str, covered: set[str]
) -> dict[str, tuple[str, str]]:
    """Mount target → (volume, folder). Anonymous ones follow from the replaced container, or are made."""
    names = {v.key: v.name for v in project.volumes}
    carried: dict[str, str] = {}
    if step.replaces is not None and not step.renew_anonymous:
        carried = {target: source for kind, source, target in step.replaces.mounts if kind == "volume"}
    fresh: list[str] = []

    def anonymous(target: str) -> str:
        name = carried.get(target, "")
        if not (name and volumes.is_anonymous(name) and os.path.isdir(engine.paths.volume_data(name))):
            name = os.urandom(32).hex()
            fresh.append(name)
            making.made(directory, fresh)  # first, so that it goes with the folder should we be killed
            volumes.create_anonymous(engine.paths, name)
        return name

    found: dict[str, tuple[str, str]] = {}
    targets = set(covered)
    for mount in step.service.mounts:
        targets.add(mount.target)
        if mount.type != "volume":
            continue
        name = names.get(mount.source, mount.source) if mount.source else anonymous(mount.target)
        if not os.path.isdir(engine.paths.volume_data(name)):
            volumes.create(engine.paths, name)
        found[mount.target] = (name, volumes.location(engine.paths, name))
    for target in (image.config.get("config") or {}).get("Volumes") or {}:
        clean = target.rstrip("/") or "/"
        if clean not in targets:
            name = anonymous(clean)
            found[clean] = (name, engine.paths.volume_data(name))
    return found


def _given(engine: NativeEngine, service: Service) -> Edits:
    from kapelle.engines.native import given_devices

    edits, mistakes = given_devices.given(service, engine.environ)
    if mistakes:
        raise mistakes[0]
    return edits


def _sharing(engine: NativeEngine, project: Project, service: Service) -> dict[str, str]:
    """Containers by service, for network_mode, ipc and pid `service:X` (and container:X by name)."""
    modes = (service.network_mode, service.ipc, service.pid)
    if not any(m.startswith("service:") for m in modes):
        return {}
    return {c.service: c.id for c in records.containers(engine.paths, project.name) if not c.oneoff}


def _finish_security(engine: NativeEngine, intent: dict[str, Any], service: Service, project: Project) -> None:
    launch = intent["launch"]
    from kapelle.engines.native import security

    program = security.filter_of(service, project.working_dir, security.of(service).seccomp)
    launch["seccomp"] = None if program is None else program.hex()
    for mode, key in (("net", "network_mode"), ("ipc", "ipc"), ("pid", "pid")):
        value = launch["namespaces"][mode]
        if value.startswith("container:"):
            name = value.removeprefix("container:")
            other = next((c for c in engine.containers() if name in (c.id, c.name)), None)
            if other is None:
                raise EngineError(f"no such container: {name}", where=service.where.get(key))
            launch["namespaces"][mode] = f"container:{other.id}"


def _stop_and_remove(engine: NativeEngine, old: Container, project: Project, timeout: float | None, emit: Emit) -> None:
    if old.alive:
        stopping.stop(engine, project, old, timeout, emit)
    elif old.pid:  # half started
        client.request(engine.paths, project.name, engine.kill_message(old))
    client.request(engine.paths, project.name, {"op": "forget", "id": old.id}, start=False)
    intent = engine.intent(project.name, old.id)
    if intent is not None:
        removal.remove_container(engine.paths, project.name, intent, volumes=False)
        engine.record(project.name, intent, "destroy")
