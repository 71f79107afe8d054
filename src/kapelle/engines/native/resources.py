"""Making and removing what containers use: networks, volumes, images."""

from __future__ import annotations

import os
import time

from kapelle import COMPOSE_VERSION
from kapelle.engines.native import client, volumes
from kapelle.errors import EngineError
from kapelle.events import Emit, Notice, Progress
from kapelle.light import TYPE_CHECKING
from kapelle.model.project import Project
from kapelle.plan import steps
from kapelle.state import store as files

if TYPE_CHECKING:
    from kapelle.engines.native.engine import NativeEngine


def create_network(engine: NativeEngine, step: steps.CreateNetwork, project: Project, emit: Emit) -> None:
    engine.hold_supervisor(project.name)
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
    files.make_directory(engine.paths.networks)
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
    files.write_json(f"{engine.paths.networks}/{network.name}.json", record, sync=True)
    for key, why in network_options.not_honoured(network):
        text = f'network "{network.key}": {key} is not honoured: {why}'
        emit(Notice(text, where=network.where, once=f"network:{network.name}:{key}"))
    engine.prepare_network(project.name, network.name)
    emit(Progress("network", network.name, "Created", "done"))


def remove_network(engine: NativeEngine, step: steps.RemoveNetwork, project: Project, emit: Emit) -> None:
    emit(Progress("network", step.name, "Removing", because=step.because))
    users = [c.name for c in engine.containers() if any(e.network == step.name for e in c.networks)]
    if users:
        emit(Progress("network", step.name, "Resource is still in use", "warning"))
        return
    client.request(engine.paths, project.name, {"op": "forget_network", "name": step.name}, start=False)
    try:
        os.unlink(f"{engine.paths.networks}/{step.name}.json")
        os.unlink(f"{engine.paths.networks}/.{step.name}.lock")
    except FileNotFoundError:
        pass
    emit(Progress("network", step.name, "Removed", "done"))


def create_volume(engine: NativeEngine, step: steps.CreateVolume, project: Project, emit: Emit) -> None:
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
        engine.paths,
        volume.name,
        driver=volume.driver or "local",
        options=dict(volume.driver_opts),
        labels=labels,
        config_hash=volume.config_hash,
    )
    emit(Progress("volume", volume.name, "Created", "done"))


def remove_volume(engine: NativeEngine, step: steps.RemoveVolume, _project: Project, emit: Emit) -> None:
    emit(Progress("volume", step.name, "Removing", because=step.because))
    users = [c.name for c in engine.containers() if any(m[:2] == ("volume", step.name) for m in c.mounts)]
    if users:
        emit(Progress("volume", step.name, "Resource is still in use", "warning"))
        return
    volumes.remove(engine.paths, step.name)
    emit(Progress("volume", step.name, "Removed", "done"))


def remove_image(engine: NativeEngine, step: steps.RemoveImage, _project: Project, emit: Emit) -> None:
    image = engine.store.find(step.image)
    emit(Progress("image", step.image, "Removing", because=step.because))
    if image is None:
        emit(Progress("image", step.image, "No such image", "warning"))
        return
    if any(c.image_id == image.id for c in engine.containers()):
        emit(Progress("image", step.image, "Resource is still in use", "warning"))
        return
    engine.store.untag(step.image)
    after = engine.store.find(image.id)
    if after is not None and not after.names:
        from kapelle.engines.native.layer_users import layers_in_use

        engine.store.remove(image.id, lambda: layers_in_use(engine.paths))
    emit(Progress("image", step.image, "Removed", "done"))
