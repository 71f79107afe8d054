"""`system`: how much room everything takes, and giving it back."""

from __future__ import annotations

from kapelle.cli import common
from kapelle.cli.flags import Args, Command, Flag
from kapelle.errors import KapelleError
from kapelle.light import TYPE_CHECKING

if TYPE_CHECKING:
    from kapelle.cli.context import Context

NAME = "system"
HELP = "show disk usage, remove what nothing uses"
FLAGS = ()


def _df(context: Context, args: Args) -> int:
    common.no_arguments(args.rest, "system df")
    from kapelle.cli import usagetables

    usage = usagetables.measure(context)
    out = context.stdout
    if args.verbose:
        out.write(usagetables.verbose(usage))
        return 0
    objects = usagetables.summary(usage)
    if args.format == "table":
        out.write(usagetables.table(objects))
    elif args.format == "json":
        import json

        out.write("".join(json.dumps(o, separators=(",", ":")) + "\n" for o in objects))
    else:
        from kapelle.render import gotemplate

        out.write(gotemplate.listing(args.format, objects, headers={"TotalCount": "TOTAL"}))
    return 0


def _prune(context: Context, args: Args) -> int:
    from kapelle.cli import pruning
    from kapelle.render import words

    if args.everything:
        return _everything(context, args)
    lines = [
        "all stopped containers",
        "all networks not used by at least one container",
        *(["all anonymous volumes not used by at least one container"] if args.volumes else []),
        "all images without at least one container associated to them" if args.all else "all dangling images",
        "all build cache" if args.all else "unused build cache",
    ]
    if not args.force and not context.dry_run:
        context.stdout.write("WARNING! This will remove:\n" + "".join(f"  - {line}\n" for line in lines) + "\n")
        if not common.confirmed(context, "Are you sure you want to continue?"):
            return 0
    freed = _containers(context, args.filter)
    _networks(context, args.filter)
    if args.volumes:
        freed += _volumes(context, args.filter)
    done = pruning.images(context, everything=bool(args.all), filters=args.filter)
    pruning.tell(context, done, total=False)
    cache = pruning.gc(context, cache=True, mounts=bool(args.all))
    pruning.tell(context, cache, "build cache objects", total=False)
    context.stdout.write(f"{common.reclaimed(context)}: {words.size(freed + done.freed + cache.freed, 4)}\n")
    return 0


def _everything(context: Context, args: Args) -> int:
    from kapelle.cli import emptying

    if not args.force and not context.dry_run:
        context.stdout.write(
            "WARNING! This will stop and remove all containers of all projects, all volumes with their data, all "
            "networks and all images.\n"
        )
        if not common.confirmed(context, "Are you sure you want to continue?"):
            return 0
    emptying.remove_everything(context)
    return 0


def _containers(context: Context, filters: list[str]) -> int:
    """Remove containers that have ended; bytes given back."""
    from kapelle.cli.commands.volume import matches, silent, visible_labels
    from kapelle.images import upkeep
    from kapelle.model.project import Project
    from kapelle.plan import steps

    wanted = [f for f in filters if f.startswith("label=")]
    gone, freed = [], 0
    for project in sorted({c.project for c in context.reader().containers()}):
        with context.locked(project):
            for c in context.reader().project_containers(project):
                labels = visible_labels(c.labels)
                if c.status not in ("created", "exited", "dead") or not matches(c.name, labels, "", wanted, None):
                    continue
                freed += upkeep.disk_usage(f"{context.paths.container_data(c.id)}/upper")
                gone.append(c.id)
                act = steps.RemoveContainer(c.name, c.service, "system prune", volumes=False)
                context.perform(act, Project(project, "", (), ()), silent)
    if gone:
        context.stdout.write(f"{common.deleted(context)} Containers:\n" + "".join(f"{i}\n" for i in gone) + "\n")
    return freed


def _networks(context: Context, filters: list[str]) -> None:
    from kapelle.cli.commands import network

    names = network.unused(context, [f for f in filters if f.startswith("label=")])
    network.remove(context, names)
    if names:
        context.stdout.write(f"{common.deleted(context)} Networks:\n" + "".join(f"{n}\n" for n in names) + "\n")


def _volumes(context: Context, filters: list[str]) -> int:
    from kapelle.cli.commands import volume
    from kapelle.images import upkeep

    names = volume.unused(context, [f for f in filters if f.startswith("label=")], everything=False)
    freed = sum(upkeep.disk_usage(context.paths.volume_data(n)) for n in names)
    volume.remove(context, names)
    if names:
        context.stdout.write(f"{common.deleted(context)} Volumes:\n" + "".join(f"{n}\n" for n in names) + "\n")
    return freed


def run(context: Context, args: Args) -> int:
    raise KapelleError("kap system needs a command", hint="kap system df")


SUBCOMMANDS = {
    "df": Command(
        "show how much room images, containers, volumes and the build cache take",
        (
            Flag("--format", value="FORMAT", default="table", help="table, json or a Go template"),
            Flag("--verbose", "-v", help="each of them"),
        ),
        _df,
    ),
    "prune": Command(
        "remove stopped containers, unused networks and images, the build cache",
        (
            Flag("--all", "-a", help="images with a name, too, that no container uses"),
            Flag("--everything", help="all projects, volumes and images, running or not: before uninstalling"),
            Flag("--filter", value="KEY=VALUE", repeat=True, help="only those that match (label=, until=)"),
            Flag("--force", "-f", help="do not ask"),
            Flag("--volumes", help="anonymous volumes, too"),
        ),
        _prune,
    ),
}
