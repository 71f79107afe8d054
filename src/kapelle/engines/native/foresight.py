"""What of a service can't be done or honoured on this machine, known without making anything (`config --check`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from kapelle.engines.native import (
    address_checks,
    cgroup_tree,
    devices,
    given_devices,
    limit_checks,
    limits,
    mode_checks,
    network_options,
    security,
    userns_choice,
)
from kapelle.errors import EngineError, KapelleError
from kapelle.model.project import Project
from kapelle.model.service import Service


def refused(service: Service, project: Project, environ: Mapping[str, str]) -> list[KapelleError]:
    """What `up` refuses before it makes anything."""
    found: list[KapelleError] = []
    if service.stop_signal:
        from kapelle.engines.native.signals import signal_number

        try:
            signal_number(service.stop_signal)
        except KapelleError as e:
            text = f'service "{service.name}": stop_signal: {e.what}'
            found.append(EngineError(text, where=service.where.get("stop_signal"), hint=e.hint, code="KAP321"))
    found += limit_checks.mistakes(service, limit_checks.Machine.here())
    found += mode_checks.mistakes(service)
    found += userns_choice.mistakes(service, project, environ)
    found += address_checks.mistakes(service, project)
    found += security.mistakes(service, project.working_dir)
    found += given_devices.given(service, environ)[1]
    return found


def not_honoured(service: Service) -> Iterator[KapelleError]:
    """What `up` goes on without: limits that no control group takes here, walls that this kernel has not."""
    groups = set(cgroup_tree.writable())
    try:
        rows = limits.settings(limits.of(service), devices.number_of)
    except OSError:
        rows = []  # a device that is missing: refused
    for row in rows:
        if row.key and not groups & {row.controller, row.controller_v2}:
            yield _told(service, row.key, f"no {row.controller_v2} control group can be made here")
    for key, why in security.notes(service):
        yield _told(service, key, why)


def not_honoured_of(project: Project) -> Iterator[KapelleError]:
    """The same of a whole project, with its networks."""
    for network in project.networks:
        for key, why in network_options.not_honoured(network):
            text = f'network "{network.key}": {key} is not honoured: {why}'
            yield EngineError(text, where=network.where, hint=f"remove {key}", code="KAP320")
    for service in project.services:
        yield from not_honoured(service)


def _told(service: Service, key: str, why: str) -> EngineError:
    text = f'service "{service.name}": {key} is not honoured: {why}'
    return EngineError(text, where=limits.place(service, key), hint="kap doctor", code="KAP320")
