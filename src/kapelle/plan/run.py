"""`run`: one container of a service outside its scale, with what it depends on started first."""

from __future__ import annotations

from kapelle.light import NamedTuple, TypeVar
from kapelle.model.project import Project
from kapelle.model.service import Mount, Port, Service
from kapelle.plan import steps
from kapelle.plan.diff import KEYS_LABEL, digests
from kapelle.plan.graph import ONE_OFF, STARTING, Builder, Plan
from kapelle.plan.images import ImageOptions, plan_images
from kapelle.plan.observed import Observed
from kapelle.plan.storage import plan_storage
from kapelle.plan.up import UpOptions, up

SLUG_LENGTH = 12


class RunOptions(NamedTuple):
    """What `run` changes of a service. None and () leave it as the file has it."""

    command: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] | None = None
    environment: tuple[tuple[str, str | None], ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    user: str = ""
    working_dir: str = ""
    mounts: tuple[Mount, ...] = ()
    ports: tuple[Port, ...] = ()
    service_ports: bool = False
    use_aliases: bool = False
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    name: str = ""
    tty: bool = False
    interactive: bool = True
    remove: bool = False
    no_deps: bool = False
    restart: str = "no"  # a one-off with `--rm` or attached is not restarted


def one_off(service: Service, options: RunOptions) -> Service:
    """The service as `run` wants it: no published ports, no health check's waiting, one replica."""
    changed = service._replace(
        scale=1,
        container_name="",
        tty=options.tty,
        stdin_open=options.interactive,
        restart=options.restart,
        ports=(*(service.ports if options.service_ports else ()), *options.ports),
        environment=_merged(service.environment, options.environment),
        labels=_merged(service.labels, options.labels),
        mounts=(
            *(m for m in service.mounts if m.target not in {n.target for n in options.mounts}),
            *options.mounts,
        ),
        cap_add=(*service.cap_add, *options.cap_add),
        cap_drop=(*service.cap_drop, *options.cap_drop),
    )
    if options.command:
        changed = changed._replace(command=options.command)
    if options.entrypoint is not None:
        changed = changed._replace(entrypoint=options.entrypoint, command=options.command)
    if options.user:
        changed = changed._replace(user=options.user)
    if options.working_dir:
        changed = changed._replace(working_dir=options.working_dir)
    return changed


def run(project: Project, observed: Observed, service: Service, slug: str, options: RunOptions, how: UpOptions) -> Plan:
    """Dependencies up (their conditions waited for), then the one-off is created; starting it is the caller's.

    `slug` is 64 hex digits; the name takes the first twelve. `how` says how images are got.
    """
    deps = () if options.no_deps else tuple(d.service for d in service.depends_on if project.service(d.service))
    before = Plan()
    if deps:
        before = up(project, observed, how._replace(targets=deps, scale={}, ignore_orphans=True))
    builder = Builder()
    if not how.images_done:
        plan_images(builder, project, [service], observed, ImageOptions(how.build, how.no_build, how.pull))
    plan_storage(builder, project, [service], observed)
    name = options.name or how.separator.join((project.name, service.name, "run", slug[:SLUG_LENGTH]))
    changed = one_off(service, options)
    for node in before.nodes:
        builder.add(node.step, node.stage, node.after)
    _waits(builder, observed, service, deps, before)
    create = steps.CreateContainer(
        changed,
        name,
        1,
        "run",
        oneoff=True,
        slug=slug,
        labels=((KEYS_LABEL, digests(service)),),
        remove_on_exit=options.remove,
        use_aliases=options.use_aliases,
        publish=bool(changed.ports),
    )
    builder.add(create, ONE_OFF)  # when its dependencies are ready
    builder.warnings += before.warnings
    builder.unchanged += before.unchanged
    return builder.plan()


def _waits(builder: Builder, observed: Observed, service: Service, deps: tuple[str, ...], before: Plan) -> None:
    names: dict[str, list[str]] = {}
    for container in observed.containers:
        if not container.oneoff:
            names.setdefault(container.service, []).append(container.name)
    for step in before.steps:
        if isinstance(step, steps.CreateContainer) and step.name not in names.get(step.service.name, ()):
            names.setdefault(step.service.name, []).append(step.name)
        elif isinstance(step, steps.RemoveContainer) and step.name in names.get(step.service, ()):
            names[step.service].remove(step.name)
    for dependency in service.depends_on:
        if dependency.service not in deps or dependency.condition == "service_started":
            continue
        targets = tuple(names.get(dependency.service, ()))
        if targets:
            waiting = steps.WaitFor(
                dependency.service,
                targets,
                dependency.condition,
                wanted_by=service.name,
                required=dependency.required,
                because=f"{service.name} depends on it",
            )
            builder.add(waiting, STARTING, [f"start {t}" for t in targets])


_V = TypeVar("_V")


def _merged(have: tuple[tuple[str, _V], ...], more: tuple[tuple[str, _V], ...]) -> tuple[tuple[str, _V], ...]:
    return tuple({**dict(have), **dict(more)}.items())
