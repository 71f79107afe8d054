"""Which images have to be pulled or built before containers can be made: pull_policy, build."""

from __future__ import annotations

from collections.abc import Iterable

from kapelle.errors import ImageError
from kapelle.model.project import Project
from kapelle.model.service import Service
from kapelle.plan import steps
from kapelle.plan.graph import IMAGES, Builder
from kapelle.plan.observed import Observed
from kapelle.plan.steps import key_of

POLICIES = ("always", "missing", "if_not_present", "never", "build")


class ImageOptions:
    """How `up`, `create`, `run` and `build` were told to get images."""

    __slots__ = ("build", "no_build", "pull")

    def __init__(self, build: bool = False, no_build: bool = False, pull: str = "") -> None:
        self.build = build
        self.no_build = no_build
        self.pull = pull  # "" = each service's own policy


def references(project: Project, services: Iterable[Service]) -> tuple[str, ...]:
    """The images that have to be observed for these services."""
    found: dict[str, None] = {}
    for service in services:
        found[project.image_of(service)] = None
        found.update((m.source, None) for m in service.mounts if m.type == "image")
    return tuple(sorted(found))


def plan_images(
    builder: Builder, project: Project, services: Iterable[Service], observed: Observed, options: ImageOptions
) -> None:
    """Add a pull or a build for each distinct image that needs one. ImageError when it can't be had by any."""
    for service in with_contexts(project, services):
        step = image_step(project, service, observed, options)
        if step is not None:
            builder.add(step, IMAGES, after=contexts_of(project, service))
        for mount in service.mounts:
            if mount.type == "image" and mount.source not in observed.images:
                because = f"mounted by {service.name}"
                builder.add(steps.PullImage(mount.source, service.name, because=because), IMAGES)


def with_contexts(project: Project, services: Iterable[Service]) -> list[Service]:
    """The services, and those whose images their builds take as contexts (`service:NAME`), which come first."""
    found: dict[str, Service] = {}

    def visit(service: Service, below: tuple[str, ...]) -> None:
        if service.name in found:
            return
        for name in _context_services(service):
            other = project.service(name)
            if name in below:
                raise ImageError(
                    f"build contexts go in a circle: {' -> '.join((*below, name))}",
                    where=service.where.get("build.additional_contexts"), code="KAP511",
                )  # fmt: skip
            if other is not None:
                visit(other, (*below, name))
        found.setdefault(service.name, service)

    for service in services:
        visit(service, (service.name,))
    return list(found.values())


def contexts_of(project: Project, service: Service) -> tuple[str, ...]:
    """Keys of the builds (or pulls) that have to come before this service's."""
    keys = []
    for name in _context_services(service):
        other = project.service(name)
        if other is not None:
            image = project.image_of(other)
            keys += [key_of(steps.BuildImage(image, name)), key_of(steps.PullImage(image, name))]
    return tuple(keys)


def _context_services(service: Service) -> list[str]:
    rows = service.build.additional_contexts if service.build is not None else ()
    return [value.removeprefix("service:") for _, value in rows if value.startswith("service:")]


def image_step(
    project: Project, service: Service, observed: Observed, options: ImageOptions
) -> steps.PullImage | steps.BuildImage | None:
    """The step that gets a service's image, or None when the one that is here will do."""
    image = project.image_of(service)
    here = image in observed.images
    policy = options.pull or service.pull_policy or ""
    if policy == "if_not_present":
        policy = "missing"
    if service.build is not None:
        if options.build:
            return steps.BuildImage(image, service.name, because="--build")
        if policy == "build" and not options.no_build:
            return steps.BuildImage(image, service.name, because="pull_policy is build")
        may_pull = bool(service.image)
        if may_pull and (policy == "always" or _is_refresh(policy)):
            return _pull(service, image, "always", policy, fallback=not options.no_build)
        if here:
            return None
        if may_pull and policy == "missing" and (service.pull_policy == "missing" or options.no_build):
            return _pull(service, image, "missing", policy, fallback=not options.no_build)
        if not options.no_build:
            return steps.BuildImage(image, service.name, because="no such image")
        if may_pull and policy != "never":
            return _pull(service, image, "missing", policy)
        raise ImageError(
            f"image {image} is not here, and --no-build forbids building it",
            where=service.where.get("build") or service.where.get("image"),
            hint=f"kap build {service.name}",
            code="KAP502",
        )
    if policy == "always" or _is_refresh(policy):
        return _pull(service, image, "always", policy)
    if here:
        return None
    if policy in ("never", "build"):
        raise ImageError(
            f"image {image} is not here, and pull_policy {policy} forbids pulling it",
            where=service.where.get("pull_policy") or service.where.get("image"),
            hint=f"kap pull {service.name}, or kap load -i FILE",
            code="KAP502",
        )
    return _pull(service, image, "missing", policy)


def _pull(service: Service, image: str, policy: str, asked: str, fallback: bool = False) -> steps.PullImage:
    because = f"pull policy is {asked}" if policy == "always" else "no such image"
    return steps.PullImage(image, service.name, policy, because, service.platform, fallback)


def _is_refresh(policy: str) -> bool:
    """daily, weekly, every_<duration>: the time of the last pull is not observed, so ask the registry each time."""
    return policy in ("daily", "weekly") or policy.startswith("every_")
