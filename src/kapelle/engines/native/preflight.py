"""What can be known not to work before anything is created: bind sources, taken ports, limits, devices, walls."""

from __future__ import annotations

import os
from collections.abc import Mapping

from kapelle.engines.native import foresight
from kapelle.errors import EngineError, KapelleError, Mistakes, Position
from kapelle.light import TYPE_CHECKING
from kapelle.model.project import Project
from kapelle.model.service import Mount, Service
from kapelle.plan import steps
from kapelle.state.paths import Paths

if TYPE_CHECKING:
    from socket import socket

    from kapelle.engines.native.portchoice import Choice


_MANY = 10  # containers, from which on what is there already counts too


def check(
    paths: Paths,
    wanted: tuple[steps.Step, ...],
    project: Project,
    environ: Mapping[str, str],
    *,
    auto_ports: bool = False,
) -> dict[str, list[Choice]]:
    """Raise the mistakes that creating and starting these containers would meet. Makes missing bind folders.

    With `auto_ports`, ports that are taken are no mistake: the answer has where they go instead, by container.
    """
    _descriptors(paths, wanted, project)
    creating = {s.name: s.service for s in wanted if isinstance(s, steps.CreateContainer)}
    mistakes: list[KapelleError] = []
    for service in {s.name: s for s in creating.values()}.values():
        mistakes += _bind_sources(service, project)
        mistakes += foresight.refused(service, project, environ)
        mistakes += _network_mode(service, project, paths)
    choices, taken = _ports(paths, wanted, project, auto=auto_ports)
    mistakes += taken
    if len(mistakes) == 1:
        raise mistakes[0]
    if mistakes:
        raise Mistakes(tuple(mistakes))
    for service in creating.values():
        for mount in service.mounts:
            if mount.type == "bind" and not os.path.exists(mount.source):
                os.makedirs(mount.source, exist_ok=True)
    return choices


def refused(service: Service, project: Project, environ: Mapping[str, str]) -> list[KapelleError]:
    """What of a service can't be done here, whatever else runs: for `config --check`, which knows no plan."""
    found = _bind_sources(service, project) + foresight.refused(service, project, environ)
    held: list[socket] = []
    try:
        for error in _taken(service, project, frozenset(), held):
            if error.code in _FOR_NOBODY:
                error.what = error.what.removesuffix(_NOTHING_MADE)
                found.append(error)
    finally:
        for sock in held:
            sock.close()
    return found


_NOTHING_MADE = "; nothing was created."
_FOR_NOBODY = ("KAP205", "KAP206")  # not this user's, not this machine's: it does not pass by itself


def _descriptors(paths: Paths, wanted: tuple[steps.Step, ...], project: Project) -> None:
    from kapelle.engines.native import descriptors, records

    starting = {s.name for s in wanted if isinstance(s, steps.CreateContainer | steps.StartContainer)}
    if descriptors.too_few(len(starting), 0) is None and len(starting) < _MANY:
        return  # as nearly always: no need to look
    starting |= {c.name for c in records.containers(paths, project.name) if c.alive}
    ports = sum(len(s.ports) * max(1, s.scale) for s in project.services)
    error = descriptors.too_few(len(starting), ports)
    if error is not None:
        raise error


def _network_mode(service: Service, project: Project, paths: Paths) -> list[KapelleError]:
    """network_mode may name a network, which has to be there."""
    mode = service.network_mode
    if mode in ("", "bridge", "default", "host", "none") or mode.startswith(("service:", "container:")):
        return []
    if any(n.name == mode for n in project.networks) or os.path.exists(f"{paths.networks}/{mode}.json"):
        return []
    return [
        EngineError(
            f'service "{service.name}": network {mode} not found',
            where=service.where.get("network_mode"),
            hint=f"kap network create {mode}, or one of host, none, service:NAME, container:NAME",
            code="KAP306",
        )
    ]


def _bind_sources(service: Service, project: Project) -> list[KapelleError]:
    mistakes: list[KapelleError] = []
    for number, mount in enumerate(service.mounts):
        if mount.type not in ("bind", "volume", "tmpfs", "image"):
            mistakes.append(
                EngineError(
                    f'service "{service.name}": a mount of type {mount.type} can\'t be made here',
                    where=service.where.get(f"volumes[{number}]"),
                    hint="use bind, volume, tmpfs or image",
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


def _ports(
    paths: Paths, wanted: tuple[steps.Step, ...], project: Project, *, auto: bool
) -> tuple[dict[str, list[Choice]], list[KapelleError]]:
    """Try to reserve each published port, then let go: the start does it for good. (what moves, what can't be had)"""
    if not any(s.ports for s in project.services):
        return {}, []
    from kapelle.engines.native import portchoice, records

    have = records.containers(paths, project.name)
    making = {s.name for s in wanted if isinstance(s, steps.CreateContainer)}
    own = portchoice.freed(wanted, have)
    held: list[socket] = []
    choices: dict[str, list[Choice]] = {}
    mistakes: list[KapelleError] = []
    memory = portchoice.Memory(paths, project)
    try:
        for name, service, number in portchoice.publishing(wanted, project, have):
            if auto:
                choices[name] = portchoice.choose(memory, service, number, own, held)
            else:
                there = "" if name in making else next((c.id for c in have if c.name == name), "")
                mistakes += _taken(portchoice.as_made(paths, project.name, there, service), project, own, held)
    finally:
        for sock in held:
            sock.close()
    memory.save()
    return choices, mistakes


def _taken(
    service: Service, project: Project, own: frozenset[tuple[int, str]], held: list[socket]
) -> list[KapelleError]:
    from kapelle.engines.native import portchoice

    mistakes: list[KapelleError] = []
    for number, port in enumerate(service.ports):
        wanted = portchoice.spec_of(port)
        error = portchoice.take(wanted, own, held) if wanted else None
        if error is not None:
            error.where = error.where or service.where.get(f"ports[{number}]") or service.where.get("ports")
            shown = f"{port.host_ip}:" * bool(port.host_ip) + f"{port.published}:{port.target}"
            error.what = error.what.rstrip(".") + _NOTHING_MADE
            error.details = (("wanted by", f'service {service.name}   "{shown}"'), *error.details)
            if any(text.startswith(f"the Kapelle project {project.name} ") for _, text in error.details):
                error.hint = f'it is this project\'s own: for several containers write only "{port.target}", or a range'
            mistakes.append(error)
    return mistakes
