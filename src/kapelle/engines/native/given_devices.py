"""gpus, devices by CDI name and deploy.resources.reservations.devices → what the container gets, or why it can't be."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping

from kapelle.engines.native import cdi, limits, nvidia
from kapelle.engines.native.cdi import Edits, Registry
from kapelle.errors import EngineError
from kapelle.model.service import DeviceRequest, Service

# Drivers that a request may name → their class in CDI.
_CLASSES = {"nvidia": "nvidia.com/gpu", "amd": "amd.com/gpu", "intel": "intel.com/gpu"}
_MOST_SHOWN = 8


class _Refused(Exception):
    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint


def is_name(source: str) -> bool:
    """Is an item of devices: a CDI name (and no path)?"""
    return not source.startswith("/") and cdi.is_name(source)


def wanted(service: Service) -> bool:
    return bool(service.device_requests) or any(is_name(source) for source, _, _ in service.devices)


def given(service: Service, environ: Mapping[str, str]) -> tuple[Edits, list[EngineError]]:
    """All that the devices of a service bring, and the mistakes: what is not here, with its place."""
    if not wanted(service):
        return Edits(), []
    folders = cdi.directories(environ)
    registry = cdi.read(folders)
    edits = Edits()
    mistakes: list[EngineError] = []
    for request in _requests(service):
        try:
            found = _requested(registry, request)
            _require_sources(found)
            edits = edits.and_(found)
        except _Refused as e:
            mistakes.append(
                EngineError(
                    f'service "{service.name}": {e.what}',
                    where=limits.place(service, request.key),
                    details=_known(registry, folders),
                    hint=e.hint,
                    code="KAP323",
                )
            )
    return edits, mistakes


def _requests(service: Service) -> Iterator[DeviceRequest]:
    for at, (source, _, _) in enumerate(service.devices):
        if is_name(source):
            yield DeviceRequest(f"devices[{at}]", "cdi", ids=(source,))
    yield from service.device_requests


def _known(registry: Registry, folders: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    names = sorted(registry.devices)
    shown = ", ".join(names[:_MOST_SHOWN]) + (" …" if len(names) > _MOST_SHOWN else "")
    rows = [("known here", shown or f"nothing in {' and '.join(folders)}")]
    return (*rows, *((f"not {what}", why) for what, why in registry.problems))


def _requested(registry: Registry, request: DeviceRequest) -> Edits:
    if request.driver == "cdi":
        if not request.ids:
            raise _Refused("the driver cdi needs device_ids", "write device_ids: [vendor.com/class=name]")
        return _all_of(_named(registry, name) for name in request.ids)
    for driver in [request.driver] if request.driver else _CLASSES:
        kind = _CLASSES.get(driver, "")
        if kind and registry.of_class(kind):
            return _of_class(registry, kind, request)
        if driver == "nvidia" and nvidia.gpus():
            return _nvidia(request)
    capabilities = " ".join(request.capabilities) or "gpu"
    raise _Refused(
        f'could not select device driver "{request.driver}" with capabilities: [[{capabilities}]]',
        "install the driver, or describe the device in /etc/cdi (nvidia-ctk cdi generate for NVIDIA's)",
    )


def _named(registry: Registry, name: str) -> Edits:
    if name not in registry.devices:
        raise _Refused(f"unresolvable CDI device {name}", "kap reads *.json and *.yaml of these folders")
    return registry.devices[name]


def _all_of(parts: Iterable[Edits]) -> Edits:
    whole = Edits()
    for part in parts:
        whole = whole.and_(part)
    return whole


def _of_class(registry: Registry, kind: str, request: DeviceRequest) -> Edits:
    """Some or all of a class in CDI, or those that are named."""
    names = registry.of_class(kind)
    chosen = list(request.ids)
    if not chosen:
        _require_number(request, len(names))
        whole = f"{kind}=all" in registry.devices
        chosen = ["all"] if request.number < 0 and whole else names if request.number < 0 else names[: request.number]
    return _all_of(_named(registry, f"{kind}={name}") for name in chosen)


def _nvidia(request: DeviceRequest) -> Edits:
    here = nvidia.gpus()
    if not request.ids:
        _require_number(request, len(here))
        some = here if request.number < 0 else here[: request.number]
        return nvidia.edits(some, request.capabilities, all_of_them=len(some) == len(here))
    chosen = []
    for name in request.ids:
        found = [g for g in here if name in (str(g.minor), g.uuid, "all")]
        if not found:
            raise _Refused(f"there is no GPU {name}", f"GPUs here: {', '.join(str(g.minor) for g in here)}")
        chosen += found
    return nvidia.edits(chosen, request.capabilities, all_of_them=False)


def _require_number(request: DeviceRequest, have: int) -> None:
    if request.number > have:
        raise _Refused(f"{request.number} devices were asked for, {have} are here", f"ask for at most {have}")


def _require_sources(edits: Edits) -> None:
    for node in edits.nodes:
        if node.number is None and not os.path.exists(node.source):
            raise _Refused(
                f"its specification names {node.source}, which does not exist", "write the specification anew"
            )
    for kind, source, _, _ in edits.mounts:
        if kind != "tmpfs" and not os.path.exists(source):
            raise _Refused(f"its specification mounts {source}, which does not exist", "write the specification anew")
