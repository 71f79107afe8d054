"""`build --print`: what would be built, in the form of a bake file."""

from __future__ import annotations

import os
from collections.abc import Iterable

from kapelle import COMPOSE_VERSION
from kapelle.light import Any
from kapelle.model.project import Project
from kapelle.model.service import Build, Service
from kapelle.plan.images import with_contexts


def bake(
    project: Project, services: Iterable[Service], *, no_cache: bool = False, pull: bool = False
) -> dict[str, Any]:
    """The group of targets."""
    wanted = [s for s in with_contexts(project, services) if s.build is not None]
    targets = {s.name: _target(project, s, s.build) for s in wanted if s.build is not None}
    for target in targets.values():
        target.update({k: True for k, on in (("no-cache", no_cache), ("pull", pull)) if on})
    return {"group": {"default": {"targets": sorted(targets)}}, "target": dict(sorted(targets.items()))}


def _target(project: Project, service: Service, build: Build) -> dict[str, Any]:
    labels = {
        **dict(build.labels), "com.docker.compose.project": project.name, "com.docker.compose.service": service.name,
        "com.docker.compose.version": COMPOSE_VERSION,
    }  # fmt: skip
    contexts = {k: f"target:{v[8:]}" if v.startswith("service:") else v for k, v in build.additional_contexts}
    rows: dict[str, Any] = {
        "context": build.context,
        "contexts": contexts,
        "dockerfile": "" if build.dockerfile_inline else os.path.join(build.context, build.dockerfile),
        "dockerfile-inline": build.dockerfile_inline,
        "args": {k: v for k, v in build.args if v is not None},
        "labels": dict(sorted(labels.items())),
        "tags": [project.image_of(service), *build.tags],
        "cache-from": list(build.cache_from),
        "cache-to": list(build.cache_to),
        "target": build.target,
        "secret": _secrets(project, build),
        "ssh": [f"{name}={path}" for name, path in build.ssh],
        "platforms": list(build.platforms),
        "pull": build.pull,
        "no-cache": build.no_cache,
        "network": build.network,
        "shm-size": str(build.shm_size) if build.shm_size else "",
        "ulimits": [f"{u.name}={u.soft}:{u.hard}" for u in build.ulimits],
        "entitlements": list(build.entitlements),
        "extra-hosts": dict(build.extra_hosts),
        "output": ["type=docker"],
    }
    return {k: v for k, v in rows.items() if v not in ("", [], {}, False)}


def _secrets(project: Project, build: Build) -> list[str]:
    sources = {s.key: s for s in project.secrets}
    found = []
    for grant in build.secrets:
        source = sources.get(grant.source)
        name = grant.target.rpartition("/")[2] or grant.source
        if source is not None and source.file:
            found.append(f"id={name},type=file,src={source.file}")
        elif source is not None:
            found.append(f"id={name},type=env,env={getattr(source, 'environment', '') or grant.source}")
    return found
