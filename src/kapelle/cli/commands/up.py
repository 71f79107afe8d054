"""`up`: build or pull, create, start, and attach."""

from __future__ import annotations

from collections.abc import Sequence

from kapelle.cli.bringup import CREATE_FLAGS, options_of, plan_with_images, tell_unsupported
from kapelle.cli.flags import Args, Flag
from kapelle.errors import KapelleError, UsageError
from kapelle.events import Notice
from kapelle.light import TYPE_CHECKING

if TYPE_CHECKING:
    from kapelle.cli.context import Context
    from kapelle.plan.up import UpOptions

NAME = "up"
HELP = "create and start what the file describes"
ARGUMENTS = "[SERVICE...]"
FLAGS = (
    *CREATE_FLAGS,
    Flag("--abort-on-container-exit", help="when one container ends, stop all"),
    Flag("--abort-on-container-failure", help="when one container ends with a non-zero code, stop all"),
    Flag("--always-recreate-deps", help="replace the containers of dependencies too"),
    Flag("--attach", value="SERVICE", repeat=True, help="show logs of these services only"),
    Flag("--attach-dependencies", help="show logs of dependencies too"),
    Flag("--detach", "-d", help="return once started"),
    Flag("--exit-code-from", value="SERVICE", default="", help="exit with the code of this service"),
    Flag("--from", value="FILE", default="", help="bring up the project of a bundle (kap bundle save)"),
    Flag("--menu", hidden=True),
    Flag("--no-attach", value="SERVICE", repeat=True, help="do not show logs of these services"),
    Flag("--no-color", help="no colours in the log lines"),
    Flag("--no-deps", help="leave the services that this one depends on alone"),
    Flag("--no-log-prefix", help="log lines without the service column"),
    Flag("--no-start", help="create, do not start"),
    Flag("--quiet-build", help="build without progress output"),
    Flag("--require", value="WHAT", default="", help="refuse to run with less: root, rootless, userns or subids"),
    Flag("--renew-anon-volumes", "-V", help="fresh anonymous volumes instead of keeping the old ones"),
    Flag("--timeout", "-t", value="SECONDS", kind="int", help="from the stop signal to SIGKILL"),
    Flag("--to", value="DIR", default="", help="of --from: folder for its files; default: the project's name"),
    Flag("--timestamps", help="put the time of each line in front of it"),
    Flag("--wait", help="return when all services run, or are healthy if they have a check; implies --detach"),
    Flag("--wait-timeout", value="SECONDS", kind="int", default=0, help="give up waiting after so long"),
    Flag("--watch", "-w", hidden=True),
)


def run(context: Context, args: Args) -> int:
    context.wake()
    options = options_of(context, args)._replace(
        targets=tuple(args.rest),
        no_start=bool(args.no_start),
        wait=bool(args.wait),
        wait_timeout=float(args.wait_timeout) if args.wait_timeout else None,
    )
    abort = _abort_of(args)
    attached = not (args.detach or args.wait or args.no_start or context.dry_run)
    _check(args, abort)
    if args.require and context.engine_name() == "native":
        from kapelle.engines.native import rung

        rung.require(args.require, later=("userns",))
    bundle = getattr(args, "from")
    if bundle:
        from kapelle.cli import bundling

        if context.dry_run:
            raise UsageError("--from takes images and files over, --dry-run changes nothing", hint="kap bundle inspect")
        if not options.build and not options.pull:
            context.go_offline()  # a bundle has its images with it
        saved = bundling.bring_in(context, bundle, args.to)
        args.rest = args.rest or list(saved.services)
        options = options._replace(targets=tuple(args.rest))
    elif args.to:
        raise UsageError("--to belongs to --from", hint=f"kap up --from FILE --to {args.to}")
    project = context.load(args.rest).project
    if args.require and context.engine_name() == "native":
        from kapelle.engines.native import userns_choice

        userns_choice.require(project.services, args.require, context.environ)
    if args.exit_code_from and project.service(args.exit_code_from) is None:
        raise UsageError(f"no such service: {args.exit_code_from}", hint="name a service after --exit-code-from")
    if attached:
        from kapelle.cli import attached as foreground

        tell_unsupported(context, project, options)
        return foreground.run(context, project, options, foreground.choices(args, abort))
    with context.locked(project.name):
        tell_unsupported(context, project, options)
        bring_up(context, args.rest, options)
    return 0


def bring_up(context: Context, services: Sequence[str], options: UpOptions) -> None:
    """Plan and perform; the renderer says which containers run already. The caller holds the project."""
    project = context.load(services).project
    plan = plan_with_images(context, project, options)
    show_unchanged(context, plan.unchanged)
    context.run_plan(plan, project)


def show_unchanged(context: Context, unchanged: tuple[tuple[str, str], ...]) -> None:
    from kapelle.events import Progress

    if not context.dry_run:
        for name, word in unchanged:
            context.emit(Progress("container", name, word, "done"))


def _abort_of(args: Args) -> str:
    """Empty (run on), exit (stop all when one ends) or failure (stop all when one fails)."""
    if args.abort_on_container_exit or args.exit_code_from:
        return "exit"
    return "failure" if args.abort_on_container_failure else ""


def _check(args: Args, abort: str) -> None:
    if args.watch:
        raise KapelleError(
            "up --watch is not part of this version",
            why="develop.watch is read and checked, but files are not watched",
            hint="bind-mount the sources and let the program reload itself",
            code="KAP012",
        )
    both = args.abort_on_container_exit and args.abort_on_container_failure
    if both:
        raise UsageError("--abort-on-container-failure cannot be combined with --abort-on-container-exit")
    if args.attach and args.attach_dependencies:
        raise UsageError("cannot combine --attach and --attach-dependencies", hint="leave out one of the two")
    if args.detach and (abort or args.attach or args.attach_dependencies):
        raise UsageError(
            "--detach cannot be combined with --abort-on-container-exit, --abort-on-container-failure, "
            "--exit-code-from, --attach or --attach-dependencies",
            hint="leave out --detach",
        )
    if args.wait and (abort or args.attach or args.attach_dependencies):
        raise UsageError(
            "--wait cannot be combined with --abort-on-container-exit, --attach or --attach-dependencies",
            hint="leave out --wait",
        )


def menu_notice() -> Notice:
    return Notice("--menu is ignored: there is no keyboard menu in this version", level="info", once="menu")
