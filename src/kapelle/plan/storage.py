"""Networks and volumes that containers need: made when missing, refused when external and missing."""

from __future__ import annotations

from collections.abc import Iterable

from kapelle.errors import EngineError, KapelleError, Mistakes
from kapelle.model.project import Network, Project, Volume
from kapelle.model.service import Service
from kapelle.plan import steps
from kapelle.plan.graph import CLEARING, STORAGE, Builder
from kapelle.plan.observed import Container, Observed


def networks_of(project: Project, services: Iterable[Service]) -> list[Network]:
    """The networks that these services join, by key."""
    keys = {a.network for s in services for a in s.networks}
    return [n for n in project.networks if n.key in keys]


def volumes_of(project: Project, services: Iterable[Service]) -> list[Volume]:
    """The named volumes that these services mount, by key."""
    keys = {m.source for s in services for m in s.mounts if m.type == "volume" and m.source}
    return [v for v in project.volumes if v.key in keys]


def plan_storage(
    builder: Builder, project: Project, services: list[Service], observed: Observed, *, all_resources: bool = False
) -> dict[str, str]:
    """Add the missing networks and volumes. Returns containers to be replaced: name -> why (their network changed)."""
    mistakes: list[KapelleError] = []
    replaced: dict[str, str] = {}
    have = {n.name: n for n in observed.networks}
    for network in project.networks if all_resources else networks_of(project, services):
        seen = have.get(network.name)
        if network.external:
            if seen is None and network.name not in ("host", "none", "bridge"):
                mistakes.append(_missing("network", network.key, network.name, network))
        elif seen is None:
            builder.add(steps.CreateNetwork(network, "no such network"), STORAGE)
        elif seen.project != project.name:
            builder.warnings.append(
                f"a network with name {network.name} exists but was not created for project "
                f'"{project.name}": set external: true to use it'
            )
        elif network.config_hash and seen.config_hash and seen.config_hash != network.config_hash:
            replaced |= _replace_network(builder, network, observed.containers)
    there = {v.name: v for v in observed.volumes}
    for volume in project.volumes if all_resources else volumes_of(project, services):
        found = there.get(volume.name)
        if volume.external:
            if found is None:
                mistakes.append(_missing("volume", volume.key, volume.name, volume))
        elif found is None:
            builder.add(steps.CreateVolume(volume, "no such volume"), STORAGE)
        elif found.project != project.name:
            builder.warnings.append(
                f'volume "{volume.name}" already exists but was created for project "{found.project}": '
                "use external: true to use it"
                if found.project
                else f'volume "{volume.name}" already exists but was not created by Compose: '
                "use external: true to use an existing volume"
            )
        elif volume.config_hash and found.config_hash and found.config_hash != volume.config_hash:
            builder.warnings.append(
                f'volume "{volume.name}" exists but does not match the configuration in the compose file; '
                f"it is used as it is (kap volume rm {volume.name} would make a new, empty one)"
            )
    if len(mistakes) == 1:
        raise mistakes[0]
    if mistakes:
        raise Mistakes(tuple(mistakes))
    return replaced


def _missing(kind: str, key: str, name: str, resource: Network | Volume) -> KapelleError:
    return EngineError(
        f'{kind} "{name}" is declared as external, but could not be found',
        where=resource.where,
        hint=f"kap {kind} create {name}, or remove external: true from {kind}s.{key}",
        code="KAP306",
    )


def _replace_network(builder: Builder, network: Network, containers: tuple[Container, ...]) -> dict[str, str]:
    because = f"network {network.key} changed"
    members = [c for c in containers if any(e.network == network.name for e in c.networks)]
    removals = []
    for container in members:
        after = []
        if container.alive:
            after.append(builder.add(steps.StopContainer(container.name, container.service, because), CLEARING))
        step = steps.RemoveContainer(container.name, container.service, because)
        removals.append(builder.add(step, CLEARING, after))
    builder.add(steps.RemoveNetwork(network.name, "configuration changed"), CLEARING, removals)
    builder.add(steps.CreateNetwork(network, "configuration changed"), STORAGE)
    return dict.fromkeys((c.name for c in members), because)
