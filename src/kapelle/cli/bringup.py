"""From a project to running containers: what `up`, `create`, `scale` and `run` share.

Images come first, in a plan of their own: only when they are here is it known which containers have to be replaced.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from kapelle.cli.flags import Args, Flag
from kapelle.engine import executor
from kapelle.errors import UsageError
from kapelle.light import TYPE_CHECKING
from kapelle.plan import order
from kapelle.plan.graph import CREATING, IMAGES, STARTING, Plan
from kapelle.plan.images import POLICIES, references
from kapelle.plan.up import UpOptions, up

if TYPE_CHECKING:
    from kapelle.cli.context import Context
    from kapelle.model.project import Project
    from kapelle.model.service import Service
    from kapelle.plan.run import RunOptions

BUILD_FLAGS = (
    Flag("--build", help="build the images first"),
    Flag("--offline", help="never use the network: images that are here will do, others are named"),
    Flag("--pull", value="POLICY", default="policy", help="always, missing or never; default: each service's policy"),
    Flag("--quiet-pull", help="pull without progress lines"),
)
CREATE_FLAGS = (
    *BUILD_FLAGS,
    Flag("--force-recreate", help="replace containers even when nothing changed"),
    Flag("--no-build", help="never build, even if the policy asks for it"),
    Flag("--no-recreate", help="keep containers that exist even when the configuration changed"),
    Flag("--ports", value="HOW", default="", help="auto: free ports for published ones that are taken, remembered"),
    Flag("--remove-orphans", help="also remove containers whose service is not in the file any more"),
    Flag("--scale", value="SERVICE=N", repeat=True, help="number of replicas"),
    Flag("--yes", "-y", help="answer yes to every question"),
)


def options_of(context: Context, args: Args) -> UpOptions:
    """What the flags of up, create and run say. UsageError for flags that exclude each other."""
    from kapelle.cli.common import is_yes, scales

    def given(name: str) -> bool:
        return bool(getattr(args, name, False))

    for one, other in (
        ("build", "no_build"),
        ("force_recreate", "no_recreate"),
        ("always_recreate_deps", "no_recreate"),
    ):
        if given(one) and given(other):
            flags = [f"--{name.replace('_', '-')}" for name in (one, other)]
            raise UsageError(f"{flags[0]} and {flags[1]} are incompatible", hint=f"leave out {flags[1]}")
    for what in ("pull", "build"):
        if given(f"quiet_{what}"):
            context.hush(what)
    if given("offline"):
        context.go_offline()
    pull = "" if args.pull in ("policy", "") else args.pull
    if pull and pull not in POLICIES:
        raise UsageError(f'invalid --pull option "{pull}"', hint="one of always, missing, never, build")
    from kapelle.images import offline

    if pull == "always" and offline.is_on(context.environ):
        raise UsageError("--pull always and --offline exclude each other", hint="leave out one of the two")
    if getattr(args, "ports", ""):
        context.choose_ports(args.ports)
    environ = context.environ
    orphans = is_yes(environ.get("COMPOSE_REMOVE_ORPHANS", ""))
    if "remove_orphans" in args.given:
        orphans = bool(args.remove_orphans)
    compatible = context.given.compatibility or is_yes(environ.get("COMPOSE_COMPATIBILITY", ""))
    return UpOptions(
        build=given("build"),
        no_build=given("no_build"),
        pull=pull,
        force_recreate=given("force_recreate"),
        no_recreate=given("no_recreate"),
        always_recreate_deps=given("always_recreate_deps"),
        renew_anonymous=given("renew_anon_volumes"),
        no_deps=given("no_deps"),
        remove_orphans=orphans,
        ignore_orphans=is_yes(environ.get("COMPOSE_IGNORE_ORPHANS", "")),
        scale=scales(getattr(args, "scale", ())),
        timeout=getattr(args, "timeout", None),
        separator="_" if compatible else "-",
        all_resources=bool(context.given.all_resources),
    )


def tell_unsupported(context: Context, project: Project, options: UpOptions) -> None:
    """Each key that the engine does not honour, and what of the host is asked for, with their places."""
    from kapelle.engine import support

    services = order.needed(project, options.targets, deps=not options.no_deps)
    _tell_host_access(context, project, services)
    for notice in support.notices(project, services, context.engine().capabilities()):
        context.emit(notice)


def _tell_host_access(context: Context, project: Project, services: Sequence[Service]) -> None:
    """Once per project, and again when something is added. Whatever becomes of the notes, nothing is held up."""
    from kapelle.engine import hostaccess
    from kapelle.engines.native import rung
    from kapelle.errors import StateError
    from kapelle.state import store

    home = os.path.normpath(context.environ.get("HOME") or os.path.expanduser("~"))
    found = hostaccess.notices(services, home=home, root=rung.current() == "R1")
    if not found:
        return
    folder = f"{context.paths.state}/told"
    file = f"{folder}/{project.name}.json"
    try:
        noted = store.read_json(file)
    except (StateError, OSError):
        noted = None
    known = noted if isinstance(noted, dict) and noted.get("folder") == project.working_dir else {}
    told = [str(text) for text in known.get("told") or ()]
    new = [notice for notice in found if notice.text not in told]
    for notice in new:
        context.emit(notice)
    if new and not context.dry_run:
        try:
            store.make_directory(folder)
            store.write_json(file, {"folder": project.working_dir, "told": [*told, *(n.text for n in new)]})
        except StateError:
            pass  # then it is told again


def check_scales(project: Project, options: UpOptions) -> None:
    for name in options.scale:
        order.require(project, name)


def plan_with_images(context: Context, project: Project, options: UpOptions) -> Plan:
    """Get the images, then plan the rest against what is there now. A dry run plans both at once."""
    check_scales(project, options)
    engine = context.engine()
    wanted = references(project, order.needed(project, options.targets, deps=not options.no_deps))
    plan = up(project, engine.observe(project.name, wanted), options)
    if context.dry_run:
        return plan
    executor.check(plan, engine, project)  # before a long pull, and before anything is created
    images = plan.only(IMAGES)
    if not images.nodes:
        return plan
    context.run_plan(images._replace(warnings=(), unchanged=()), project)
    return up(project, engine.observe(project.name, wanted), options._replace(images_done=True))


def plan_dependencies(
    context: Context, project: Project, service: Service, slug: str, options: RunOptions, how: UpOptions
) -> Plan:
    """The plan of `run`, its images got first as above."""
    from kapelle.plan.run import run

    engine = context.engine()
    wanted = references(project, order.needed(project, (service.name,), deps=not how.no_deps))
    plan = run(project, engine.observe(project.name, wanted), service, slug, options, how)
    images = plan.only(IMAGES)
    if not images.nodes or context.dry_run:
        return plan
    context.run_plan(images._replace(warnings=(), unchanged=()), project)
    done = how._replace(images_done=True)
    return run(project, engine.observe(project.name, wanted), service, slug, options, done)


def before_start(plan: Plan) -> Plan:
    """The part of a plan that comes before anything is started; its warnings, too."""
    return plan.only(*range(CREATING + 1))


def starting(plan: Plan) -> Plan:
    return plan.only(STARTING)._replace(warnings=(), unchanged=())
