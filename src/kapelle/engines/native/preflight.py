"""What can be known not to work before anything is created: bind sources, taken ports, limits, devices, walls."""

from __future__ import annotations

import os
from collections.abc import Mapping

from kapelle.engines.native import given_devices, limit_checks, mode_checks, security
from kapelle.errors import EngineError, KapelleError, Mistakes, Position
from kapelle.model.project import Project
from kapelle.model.service import Mount, Service
from kapelle.plan import steps
from kapelle.state.paths import Paths


def check(paths: Paths, wanted: tuple[steps.Step, ...], project: Project, environ: Mapping[str, str]) -> None:
    """Raise the mistakes that creating and starting these containers would meet. Makes missing bind folders."""
    creating = {s.name: s.service for s in wanted if isinstance(s, steps.CreateContainer)}
    starting = {s.name for s in wanted if isinstance(s, steps.StartContainer)}
    mistakes: list[KapelleError] = []
    machine = limit_checks.Machine.here()
    for service in {s.name: s for s in creating.values()}.values():
        mistakes += _bind_sources(service, project)
        mistakes += limit_checks.mistakes(service, machine)
        mistakes += mode_checks.mistakes(service)
        mistakes += security.mistakes(service, project.working_dir)
        mistakes += given_devices.given(service, environ)[1]
    replaced = {s.name for s in wanted if isinstance(s, steps.CreateContainer) and s.replaces and s.replaces.alive}
    mistakes += _ports(
        {
            name: service
            for name, service in creating.items()
            if name in starting and name not in replaced and _publishes(wanted, name)
        }
    )
    if len(mistakes) == 1:
        raise mistakes[0]
    if mistakes:
        raise Mistakes(tuple(mistakes))
    for service in creating.values():
        for mount in service.mounts:
            if mount.type == "bind" and not os.path.exists(mount.source):
                os.makedirs(mount.source, exist_ok=True)


def _publishes(wanted: tuple[steps.Step, ...], name: str) -> bool:
    return any(isinstance(s, steps.CreateContainer) and s.name == name and s.publish for s in wanted)


def _bind_sources(service: Service, project: Project) -> list[KapelleError]:
    mistakes: list[KapelleError] = []
    for number, mount in enumerate(service.mounts):
        if mount.type not in ("bind", "volume", "tmpfs"):
            mistakes.append(
                EngineError(
                    f'service "{service.name}": a mount of type {mount.type} can\'t be made here',
                    where=service.where.get(f"volumes[{number}]"),
                    hint="use bind, volume or tmpfs",
                    code="KAP320",
                )
            )
        if mount.type != "bind" or os.path.exists(mount.source):
            continue
        where = service.where.get(f"volumes[{number}]") or service.where.get("volumes")
        shown = os.path.relpath(mount.source, project.working_dir)
        if os.path.lexists(mount.source):
            mistakes.append(
                EngineError(
                    f"{shown} is a link to something that does not exist", where=where, code="KAP601",
                    hint=f"make what it points to: {os.readlink(mount.source)}",
                )
            )  # fmt: skip
        elif not mount.create_host_path:
            mistakes.append(
                EngineError(
                    f"bind source path does not exist: {shown}", where=where, code="KAP601", hint=f"mkdir -p {shown}"
                )
            )
        elif _looks_like_file(mount):
            mistakes.append(_missing_file(mount, shown, where))
    return mistakes


def _looks_like_file(mount: Mount) -> bool:
    """Source and target both end in the same kind of file name: Docker would make a folder, and fail obscurely."""
    ending = os.path.splitext(mount.source)[1]
    return bool(ending) and ending == os.path.splitext(mount.target)[1] and not ending[1:].isdigit()


def _missing_file(mount: Mount, shown: str, where: Position | None) -> EngineError:
    folder, name = os.path.split(mount.source)
    details = [("mount", f"{shown} -> {mount.target}")]
    try:
        near = [n for n in sorted(os.listdir(folder)) if n.startswith(os.path.splitext(name)[0])]
    except OSError:
        near = []
    hint = f"create {shown}"
    if near:
        nearby = os.path.join(os.path.dirname(shown), near[0])
        details.append(("nearby", nearby))
        hint = f"cp {nearby} {shown}"
    details.append(("note", "no directory was created in its place"))
    return EngineError(
        f"{shown} does not exist, so it cannot be mounted as a file", where=where, details=tuple(details), hint=hint,
        code="KAP601",
    )  # fmt: skip


def _ports(services: dict[str, Service]) -> list[KapelleError]:
    """Try to reserve each published port, then let go: the start does it for good."""
    from kapelle.engines.native import ports
    from kapelle.engines.native.network import PortSpec

    held = []
    mistakes: list[KapelleError] = []
    try:
        for service in services.values():
            for number, port in enumerate(service.ports):
                first, _, last = port.published.partition("-")
                if not first or service.network_mode not in ("", "bridge", "default"):
                    continue
                wanted = PortSpec(port.host_ip, int(first), int(last or first), port.target, port.protocol)
                try:
                    held += ports.reserve((wanted,))
                except EngineError as e:
                    e.where = e.where or service.where.get(f"ports[{number}]") or service.where.get("ports")
                    e.details = (("wanted by", f"service {service.name}"), *e.details)
                    mistakes.append(e)
    finally:
        for sock in held:
            sock.close()
    return mistakes
