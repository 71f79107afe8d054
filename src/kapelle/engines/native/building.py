"""A service's build section, or a `build` command's words → what the builder is asked for, checked; and the build."""

from __future__ import annotations

import os
from collections.abc import Mapping

from kapelle import COMPOSE_VERSION
from kapelle.errors import ImageError, Position
from kapelle.events import Emit, Notice
from kapelle.images import platforms
from kapelle.images.build.context import BuildOptions
from kapelle.images.types import Image
from kapelle.light import TYPE_CHECKING, Any
from kapelle.model.project import Project
from kapelle.model.service import Service
from kapelle.plan import steps

if TYPE_CHECKING:
    from kapelle.engines.native.imagesource import ImageSource

_TRUE = ("1", "true", "yes", "on")
_PLACED = ("additional_contexts", "cache_from", "cache_to")
_NETWORKS = ("", "default", "none", "host")


def perform(images: ImageSource, options: BuildOptions, project: Project | None, emit: Emit) -> Image:
    """Build by the engine's own containers."""
    from kapelle.engines.native.buildrun import BuildRunner
    from kapelle.images.build import builder

    policy = "always" if options.pull else "missing"
    options = options._replace(push=lambda name: push(images, name, emit))
    with (
        images.store.using(),
        BuildRunner(images.paths, images.environ, emit, offline=images.offline) as run,
    ):  # layers of steps have no image yet
        return builder.build(
            options,
            images.store,
            run,
            lambda reference: _resolve(images, reference, emit, policy, project),
            emit,
            images.environ,
        )


def push(images: ImageSource, name: str, emit: Emit) -> None:
    """Send the image of that name to its registry. ImageError."""
    from importlib import import_module

    try:
        pushing = import_module("kapelle.images.push")
    except ModuleNotFoundError:
        raise ImageError(
            f"{name} can't be pushed: this version has no push", hint="kap save, and push the archive elsewhere",
            code="KAP511",
        ) from None  # fmt: skip
    pushing.push(name, images.store, pushing.settings(images.environ, images.paths), emit)


def _resolve(images: ImageSource, reference: str, emit: Emit, policy: str, project: Project | None) -> Image:
    local = images.store.find(reference)
    if local is not None and policy == "always" and not local.repo_digests and not local.standin:
        return local  # made here: no registry has it
    return images.get(reference, emit, policy=policy, project=project)


def of_service(step: steps.BuildImage, project: Project, environ: Mapping[str, str], emit: Emit) -> BuildOptions:
    """What the file asks for. ImageError with its place for what can't be done."""
    service = project.service(step.service)
    if service is None:
        service = next((s for s in project.disabled if s.name == step.service), None)
    if service is None or service.build is None:
        raise ImageError(f'service "{step.service}" has no build section')
    build = service.build
    _check_platforms(service, emit)
    if build.network not in _NETWORKS:
        raise ImageError(
            f'network mode "{build.network}" of a build is not known',
            where=_place(service, "network"), hint="default, none or host", code="KAP511",
        )  # fmt: skip
    labels = (
        *build.labels,
        ("com.docker.compose.project", project.name),
        ("com.docker.compose.service", service.name),
        ("com.docker.compose.version", COMPOSE_VERSION),
    )
    return BuildOptions(
        name=step.image,
        service=service.name,
        build=build._replace(labels=labels, additional_contexts=_contexts(service, project)),
        no_cache=step.no_cache or build.no_cache,
        pull=step.pull or build.pull,
        host_settings=environ.get("KAP_HOST_SETTINGS", "").lower() in _TRUE,
        secrets=_secrets(service, project),
        ssh=ssh(build.ssh, environ, project.working_dir),
        no_cache_stages=tuple(n.lower() for n in build.no_cache_filter),
        allow=build.entitlements,
        directory=project.working_dir,
        places={key: at for key in _PLACED if (at := _place(service, key)) is not None},
    )


def _place(service: Service, key: str) -> Position | None:
    return service.where.get(f"build.{key}") or service.where.get("build")


def _check_platforms(service: Service, emit: Emit) -> None:
    """build.platforms and platform: this machine's is built, others are told."""
    assert service.build is not None
    here = platforms.normal(platforms.host())
    rows = [(p, "platforms") for p in service.build.platforms]
    others = [(p, key) for p, key in rows if platforms.parse(p) != here]
    if not others:
        return
    names = ", ".join(p for p, _ in others)
    what = f"{names}: only images of this machine's platform ({here}) are built here"
    where = _place(service, others[0][1])
    if len(others) == len(rows):
        raise ImageError(what, where=where, hint=f"add {here} to build.platforms", code="KAP503")
    emit(Notice(f'service "{service.name}": build.platforms: {what}', where=where))


def _contexts(service: Service, project: Project) -> tuple[tuple[str, str], ...]:
    """additional_contexts: `service:NAME` is the image that this project builds for it."""
    found = []
    for name, value in service.build.additional_contexts if service.build is not None else ():
        if value.startswith("service:"):
            other = project.service(value.removeprefix("service:"))
            if other is None:
                raise ImageError(
                    f'build.additional_contexts {name}: there is no service "{value.removeprefix("service:")}"',
                    where=_place(service, "additional_contexts"), code="KAP511",
                )  # fmt: skip
            value = f"docker-image://{project.image_of(other)}"
        found.append((name, value))
    return tuple(found)


def _secrets(service: Service, project: Project) -> tuple[tuple[str, bytes], ...]:
    """build.secrets: id → content, from files and variables."""
    sources = {s.key: s for s in project.secrets}
    found = []
    for grant in service.build.secrets if service.build is not None else ():
        source = sources.get(grant.source)
        if source is None:
            continue
        content = source.content.encode() if source.content is not None else None
        if source.file:
            try:
                with open(source.file, "rb") as f:
                    content = f.read()
            except OSError as e:
                raise ImageError(
                    f"build secret {source.key}: {source.file}: {(e.strerror or '').lower()}",
                    where=source.where, code="KAP511",
                ) from None  # fmt: skip
        if content is not None:
            found.append((grant.target.rpartition("/")[2] or grant.source, content))
    return tuple(found)


def ssh(rows: tuple[tuple[str, str], ...], environ: Mapping[str, str], folder: str) -> tuple[tuple[str, str], ...]:
    """`default`, `ID=PATH`: an agent's socket or a key; without a path the agent of the caller."""
    return tuple(
        (name or "default", os.path.join(folder, path) if path else environ.get("SSH_AUTH_SOCK", ""))
        for name, path in rows
    )


def metadata(image: Image, names: tuple[str, ...], record: Mapping[str, Any]) -> dict[str, Any]:
    """What --metadata-file holds, by buildx's names."""
    digest = str(record.get("manifest") or image.id)
    return {
        "containerimage.config.digest": image.id,
        "containerimage.digest": digest,
        **({"image.name": ",".join(names)} if names else {}),
    }
