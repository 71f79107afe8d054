"""`up`, `create`, `scale`: from what is there to what the file asks for. Reads no clock, no disk, no engine."""

from __future__ import annotations

from collections.abc import Mapping

from kapelle.errors import EngineError
from kapelle.light import NamedTuple
from kapelle.model.project import Project
from kapelle.model.service import Service
from kapelle.plan import order, steps
from kapelle.plan.diff import KEYS_LABEL, digests, recreate_reason
from kapelle.plan.graph import CLEARING, CREATING, STARTING, Builder, Plan
from kapelle.plan.images import ImageOptions, plan_images
from kapelle.plan.observed import Container, Observed
from kapelle.plan.storage import plan_storage


class UpOptions(NamedTuple):
    """The flags of `up` (and `create`, `scale`, `run` for its dependencies) that decide what is done."""

    targets: tuple[str, ...] = ()
    build: bool = False
    no_build: bool = False
    pull: str = ""
    force_recreate: bool = False
    no_recreate: bool = False
    always_recreate_deps: bool = False
    renew_anonymous: bool = False
    no_deps: bool = False
    no_start: bool = False
    remove_orphans: bool = False
    ignore_orphans: bool = False
    scale: Mapping[str, int] = {}
    wait: bool = False
    wait_timeout: float | None = None
    timeout: float | None = None  # seconds of grace for what is stopped
    images_done: bool = False  # pulls and builds were performed: what is observed is what there is
    separator: str = "-"
    all_resources: bool = False


_PLAIN = UpOptions()


def up(project: Project, observed: Observed, options: UpOptions = _PLAIN) -> Plan:
    """The plan of `up`. Raises KapelleError for what can be known not to work."""
    planner = _Up(project, observed, options)
    return planner.plan()


class _Up:
    def __init__(self, project: Project, observed: Observed, options: UpOptions) -> None:
        self.project = project
        self.observed = observed
        self.options = options
        self.builder = Builder()
        self.services = order.needed(project, options.targets, deps=not options.no_deps)
        self.have = order.by_service(c for c in observed.containers if not c.oneoff)
        self.made: dict[str, list[str]] = {}  # service -> keys of its create and recreate steps
        self.started: dict[str, list[str]] = {}  # service -> keys of its start steps
        self.waited: dict[str, list[str]] = {}  # service -> keys of its dependents' waits
        self.names: dict[str, list[str]] = {}  # service -> containers after the plan

    def plan(self) -> Plan:
        options, builder = self.options, self.builder
        if not options.images_done:
            how = ImageOptions(options.build, options.no_build, options.pull)
            plan_images(builder, self.project, self.services, self.observed, how)
        replaced = plan_storage(
            builder, self.project, self.services, self.observed, all_resources=options.all_resources
        )
        for service in self.services:
            self._service(service, replaced)
        if not options.no_start:
            self._restart_dependents()
            if options.wait:
                self._wait()
        plan_orphans(
            builder,
            self.project,
            self.observed,
            remove=options.remove_orphans,
            ignore=options.ignore_orphans,
            timeout=options.timeout,
        )
        return builder.plan()

    def _service(self, service: Service, replaced: Mapping[str, str]) -> None:
        wanted = self.options.scale.get(service.name, service.scale)
        if service.container_name and wanted > 1:
            raise EngineError(
                f'the service "{service.name}" has the container name "{service.container_name}", '
                f"so it can't have {wanted} replicas",
                where=service.where.get("container_name"),
                hint="remove container_name, or ask for one replica",
                code="KAP307",
            )
        have = self.have.get(service.name, [])
        keep, extra = have[:wanted], have[wanted:]
        for container in reversed(extra):
            self._remove(container, f"scale is {wanted}")
        for container in keep:
            self._existing(service, container, replaced.get(container.name, ""))
        taken = {c.number for c in keep}
        number = 1
        for _ in range(wanted - len(keep)):
            while number in taken:
                number += 1
            taken.add(number)
            self._create(service, number, "no such container")

    def _existing(self, service: Service, container: Container, network_changed: str) -> None:
        because = network_changed or self._recreate_reason(service, container)
        if because:
            gone = (
                container._replace(status="exited", pid=0) if network_changed else container
            )  # a step before removes it
            self._create(service, container.number, because, gone)
            return
        self.names.setdefault(service.name, []).append(container.name)
        if container.status in ("running", "restarting"):
            self.builder.unchanged.append((container.name, "Running"))
        elif container.status == "paused":
            if not self.options.no_start:
                step = steps.UnpauseContainer(container.name, service.name, "was paused")
                self.started.setdefault(service.name, []).append(self.builder.add(step, STARTING))
        elif not self.options.no_start:
            self._start(service, container.name, f"was {container.status}")

    def _recreate_reason(self, service: Service, container: Container) -> str:
        options = self.options
        is_target = not options.targets or service.name in options.targets
        if options.no_recreate:
            return ""
        if options.force_recreate and is_target:
            return "--force-recreate"
        if options.always_recreate_deps and not is_target:
            return "--always-recreate-deps"
        for shared in shared_with(service, self.project):
            if self.made.get(shared):
                return f"shares with {shared}, which is replaced"
        return recreate_reason(self.project, service, container, self.observed)

    def _create(self, service: Service, number: int, because: str, old: Container | None = None) -> None:
        name = old.name if old else container_name(self.project, service, number, self.options.separator)
        after = [key for shared in shared_with(service, self.project) for key in self.made.get(shared, ())]
        step = steps.CreateContainer(
            service,
            name,
            number,
            because,
            replaces=old,
            renew_anonymous=self.options.renew_anonymous,
            labels=((KEYS_LABEL, digests(service)),),
            timeout=self.options.timeout,
        )
        self.made.setdefault(service.name, []).append(self.builder.add(step, CREATING, after))
        self.names.setdefault(service.name, []).append(name)
        if not self.options.no_start:
            self._start(service, name, "was created" if old is None else "was recreated")

    def _start(self, service: Service, name: str, because: str) -> None:
        key = self.builder.add(steps.StartContainer(name, service.name, because), STARTING, self._waits(service))
        self.started.setdefault(service.name, []).append(key)

    def _waits(self, service: Service) -> list[str]:
        """Keys that come before a start: started dependencies, and a wait for each stricter condition."""
        keys: list[str] = []
        for dependency in service.depends_on:
            names = self.names.get(dependency.service)
            if not names:
                continue  # not part of this run, switched off, or no replica of it is wanted
            before = self.started.get(dependency.service, [])
            if dependency.condition == "service_started":
                keys += before
                continue
            step = steps.WaitFor(
                dependency.service,
                tuple(names),
                dependency.condition,
                wanted_by=service.name,
                required=dependency.required,
                because=f"{service.name} depends on it",
                timeout=self.options.wait_timeout or None,
            )
            keys.append(self.builder.add(step, STARTING, before))
            self.waited.setdefault(dependency.service, []).append(keys[-1])
        return keys

    def _restart_dependents(self) -> None:
        """depends_on with restart: true: what runs is restarted when what it depends on is replaced."""
        for service in self.services:
            causes = [d.service for d in service.depends_on if d.restart and self._was_replaced(d.service)]
            if not causes:
                continue
            for container in self.have.get(service.name, ()):
                if not container.alive or self.builder.has(f"recreate {container.name}"):
                    continue
                if self.builder.has(f"stop {container.name}"):
                    continue
                because = f"{causes[0]} is replaced (restart: true)"
                self.builder.add(
                    steps.StopContainer(container.name, service.name, because, self.options.timeout), CLEARING
                )
                self.builder.unchanged = [u for u in self.builder.unchanged if u[0] != container.name]
                self._start(service, container.name, because)

    def _was_replaced(self, name: str) -> bool:
        return any(key.startswith("recreate ") for key in self.made.get(name, ()))

    def _wait(self) -> None:
        """--wait: each service has reached its goal. A job that others need completed is done when it is completed.

        Services without a check are looked at last: what ended badly while others became healthy is seen.
        """
        jobs = {
            d.service
            for s in self.services
            for d in s.depends_on
            if d.condition == "service_completed_successfully"
        }  # fmt: skip
        checks: list[str] = []
        for service in sorted(self.services, key=lambda s: not _is_checked(s)):
            names = tuple(self.names.get(service.name, ()))
            if not names:
                continue
            condition = "service_completed_successfully" if service.name in jobs else "running_or_healthy"
            step = steps.WaitFor(
                service.name, names, condition, because="--wait", timeout=self.options.wait_timeout or None
            )
            # after its dependents' own waits: when both fail, theirs tells the chain
            before = [*self.started.get(service.name, ()), *self.waited.get(service.name, ())]
            if _is_checked(service):
                checks.append(self.builder.add(step, STARTING, before))
            else:
                self.builder.add(step, STARTING, [*before, *checks])

    def _remove(self, container: Container, because: str) -> None:
        after = []
        if container.alive:
            stop = steps.StopContainer(container.name, container.service, because, self.options.timeout)
            after.append(self.builder.add(stop, CLEARING))
        self.builder.add(steps.RemoveContainer(container.name, container.service, because), CLEARING, after)


def _is_checked(service: Service) -> bool:
    """Does the file give it a health check? (An image's own is not known here.)"""
    check = service.healthcheck
    return service.probe is not None or (check is not None and check.test is not None and check.test != ("NONE",))


def container_name(project: Project, service: Service, number: int, separator: str = "-") -> str:
    """PROJECT-SERVICE-N, or the service's container_name."""
    return service.container_name or separator.join((project.name, service.name, str(number)))


def shared_with(service: Service, project: Project) -> list[str]:
    """Services whose namespaces or volumes a service uses: their containers have to exist first."""
    modes = (service.network_mode, service.ipc, service.pid)
    found = [m.removeprefix("service:") for m in modes if m.startswith("service:")]
    foreign = [m.removeprefix("container:") for m in modes if m.startswith("container:")]
    found += [s.name for s in project.services for name in foreign if name == container_name(project, s, 1)]
    found += [v.split(":")[0] for v in service.volumes_from if not v.startswith("container:")]
    return list(dict.fromkeys(found))


def orphans(project: Project, observed: Observed) -> list[Container]:
    """Containers of services that no file names any more, and one-offs that have ended."""
    known = {s.name for s in (*project.services, *project.disabled)}
    return [c for c in observed.containers if c.service not in known or (c.oneoff and not c.alive)]


def plan_orphans(
    builder: Builder,
    project: Project,
    observed: Observed,
    *,
    remove: bool,
    ignore: bool,
    timeout: float | None = None,
) -> None:
    """Remove orphans, or warn of them in the words that scripts look for."""
    found = orphans(project, observed)
    if not found:
        return
    if not remove:
        if not ignore:
            names = " ".join(c.name for c in found)
            builder.warnings.append(
                f"Found orphan containers ([{names}]) for this project. If you removed or renamed this service in "
                "your compose file, you can run this command with the --remove-orphans flag to clean it up."
            )
        return
    for container in found:
        after = []
        if container.alive:
            stop = steps.StopContainer(container.name, container.service, "orphan", timeout)
            after.append(builder.add(stop, CLEARING))
        step = steps.RemoveContainer(container.name, container.service, "orphan", force=True)
        builder.add(step, CLEARING, after)
