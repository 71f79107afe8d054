"""Which keys this engine does not honour, and why: said at `up` and by `config --check`, never dropped.

A key that is not named here is honoured, or told where this machine is looked at (`foresight`).
"""

from __future__ import annotations

_SWARM = "is for swarm; docker compose ignores it too"

_OF_A_SERVICE = {  # paths below `services.*`
    "develop": "files are not watched, kap watch is not part of this version",
    "volumes[].consistency": "is for Docker Desktop; elsewhere docker ignores it too",
    "logging.driver!=json-file|local": "output is kept in files here, whatever the driver",
    "cpu_count": "is for Windows containers",
    "cpu_percent": "is for Windows containers",
    "credential_spec": "is for Windows containers",
    "isolation!=default": "is for Windows containers",
    "models": "models are not run by this engine",
    "provider": "providers are not run by this engine",
    "runtime": "there is one runtime here, Kapelle's own",
    "storage_opt": "the size of a container's changes can't be limited here",
    "use_api_socket": "there is no engine API here",
    "annotations": "annotations are for a runtime that reads them; there is none here",
    "build.entitlements!=['network.host']": "a build step has no more rights than any container",
    "build.isolation": "is for Windows containers",
    "build.privileged": "a build step has no more rights than any container",
    "build.provenance": "attestations are not made",
    "build.sbom": "attestations are not made",
    "networks.*.driver_opts": "an endpoint has no options of its own here",
    "pull_refresh_after": "images are pulled again by pull_policy or kap pull",
    "deploy.resources.reservations.generic_resources": _SWARM,
    "deploy.resources.reservations.cpus": _SWARM,
    "deploy.endpoint_mode": _SWARM,
    "deploy.labels": _SWARM,
    "deploy.placement": _SWARM,
    "deploy.rollback_config": _SWARM,
    "deploy.update_config": _SWARM,
}
_OF_THE_PROJECT = {
    "networks.*.ipam.driver!=default": "addresses are given by Kapelle itself",
    "networks.*.ipam.options": "they are for a driver of addresses, and there is none here",
    "secrets.*.driver": _SWARM,
    "secrets.*.driver_opts": _SWARM,
    "secrets.*.template_driver": _SWARM,
    "configs.*.template_driver": _SWARM,
}
NOT_HONOURED: dict[str, str] = {**{f"services.*.{path}": why for path, why in _OF_A_SERVICE.items()}, **_OF_THE_PROJECT}
