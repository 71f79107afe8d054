"""`volume`: named storage of this engine, as `docker volume` shows and keeps it."""

from __future__ import annotations

from collections.abc import Sequence

from kapelle.cli import common
from kapelle.cli.flags import Args, Command, Flag
from kapelle.errors import KapelleError, UsageError
from kapelle.events import Event
from kapelle.light import TYPE_CHECKING, Any
from kapelle.plan.observed import ObservedVolume
from kapelle.render import tables

if TYPE_CHECKING:
    from kapelle.cli.context import Context

NAME = "volume"
HELP = "list, inspect, make and remove volumes"
FLAGS = ()
FORMAT = Flag("--format", value="FORMAT", default="table", help="table, json or a Go template")
FILTER = Flag("--filter", "-f", value="KEY=VALUE", repeat=True, help="only those that match")
QUIET = Flag("--quiet", "-q", help="names only")


def listing(volumes: Sequence[ObservedVolume], form: str, *, quiet: bool) -> str:
    """The text of `volume ls` and `volumes`."""
    ordered = sorted(volumes, key=lambda v: v.name)
    if quiet:
        return "".join(f"{v.name}\n" for v in ordered)
    if form == "table":
        return tables.table(("DRIVER", "VOLUME NAME"), ((v.driver, v.name) for v in ordered))
    objects = [_row(v) for v in ordered]
    if form == "json":
        import json

        return "".join(json.dumps(o, separators=(",", ":")) + "\n" for o in objects)
    from kapelle.render import gotemplate

    return gotemplate.listing(
        form, objects, labels=[visible_labels(v.labels) for v in ordered], headers={"Name": "VOLUME NAME"}
    )


def visible_labels(labels: Any) -> dict[str, str]:
    """Labels as users see them: a volume that belongs to no project says nothing of one."""
    if labels.get("com.docker.compose.project") == "":
        return {k: v for k, v in labels.items() if not k.startswith("com.docker.compose.")}
    return dict(labels)


def _row(volume: ObservedVolume) -> dict[str, str]:
    return {
        "Availability": "N/A",
        "Driver": volume.driver,
        "Group": "N/A",
        "Labels": ",".join(f"{k}={v}" for k, v in visible_labels(volume.labels).items()),
        "Links": "N/A",
        "Mountpoint": volume.mountpoint,
        "Name": volume.name,
        "Scope": "local",
        "Size": "N/A",
        "Status": "N/A",
    }


def matches(
    name: str, labels: dict[str, str], driver: str, filters: Sequence[str], used: bool | None, identifier: str = ""
) -> bool:
    """Do the filters let it through? The same key several times means any of them, different keys all."""
    wanted: dict[str, list[str]] = {}
    for row in filters:
        key, equals, value = row.partition("=")
        if not equals or key not in ("name", "label", "driver", "dangling", "id"):
            raise UsageError(f"invalid filter '{row}'", hint="name=X, label=K=V, driver=X, dangling=true")
        wanted.setdefault(key, []).append(value)

    def one(key: str, value: str) -> bool:
        if key == "name":
            return value in name
        if key == "driver":
            return value == driver
        if key == "id":
            return bool(identifier) and identifier.startswith(value)
        if key == "label":
            label, equals, content = value.partition("=")
            return label in labels and (not equals or labels[label] == content)
        return (not used) == common.is_yes(value)

    return all(any(one(key, v) for v in values) for key, values in wanted.items())


def _users(context: Context) -> dict[str, list[str]]:
    """Volume -> IDs of the containers that mount it."""
    found: dict[str, list[str]] = {}
    for container in context.reader().containers():
        for kind, source, _ in container.mounts:
            if kind == "volume":
                found.setdefault(source, []).append(container.id)
    return found


def _ls(context: Context, args: Args) -> int:
    common.no_arguments(args.rest, "volume ls")
    users = _users(context) if args.filter else {}
    shown = [
        v
        for v in context.reader().volumes()
        if matches(v.name, visible_labels(v.labels), v.driver, args.filter, v.name in users)
    ]
    context.stdout.write(listing(shown, args.format, quiet=bool(args.quiet)))
    return 0


def _inspect(context: Context, args: Args) -> int:
    from kapelle.cli.inspecting import inspect

    return inspect(context, args, {v.name: inspected(v) for v in context.reader().volumes()}, "volume")


def inspected(volume: ObservedVolume) -> dict[str, Any]:
    """The object of `docker volume inspect`."""
    from kapelle.cli.inspecting import zoned

    return {
        "CreatedAt": zoned(volume.created),
        "Driver": volume.driver,
        "Labels": visible_labels(volume.labels) or None,
        "Mountpoint": volume.mountpoint,
        "Name": volume.name,
        "Options": dict(volume.options) or None,
        "Scope": "local",
    }


def _create(context: Context, args: Args) -> int:
    from kapelle.model.project import Project, Volume
    from kapelle.plan import steps

    if len(args.rest) > 1:
        raise UsageError('"kap volume create" takes at most 1 argument', hint="kap volume create data")
    name = args.rest[0] if args.rest else _random_name()
    check_name(name, "volume")
    if all(v.name != name for v in context.reader().volumes()):
        volume = Volume("", name, args.driver, tuple(_pairs(args.opt)), labels=tuple(_pairs(args.label)))
        context.perform(steps.CreateVolume(volume), Project("", "", (), ()), silent)
    context.stdout.write(f"{name}\n")
    return 0


def _random_name() -> str:
    import os

    return os.urandom(32).hex()


def silent(_: Event) -> None:
    """For acts whose result is printed on stdout."""


def check_name(name: str, kind: str) -> None:
    allowed = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")
    if not name[:1].isalnum() or not set(name) <= allowed or len(name) < 2 or len(name) > 200:
        raise UsageError(
            f'"{name}" is no name for a {kind}: two or more letters, digits, "_", "." or "-", a letter or digit first',
            hint=f"kap {kind} create my-{kind}",
        )


def _pairs(rows: Sequence[str]) -> list[tuple[str, str]]:
    return [(key, value) for key, _, value in (row.partition("=") for row in rows)]


def _rm(context: Context, args: Args) -> int:
    common.at_least(args.rest, 1, "volume rm NAME")
    from kapelle.model.project import Project
    from kapelle.plan import steps

    have = {v.name for v in context.reader().volumes()}
    users = _users(context)
    code = 0
    for name in args.rest:
        problem = ""
        if name not in have:
            problem = "" if args.force else f"no such volume: {name}"
        elif users.get(name):
            problem = f"remove {name}: volume is in use - [{', '.join(users[name])}]"
        else:
            context.perform(steps.RemoveVolume(name), Project("", "", (), ()), silent)
        if problem:
            context.stderr.write(f"error: {problem} [KAP308]\n")
            code = 1
        else:
            context.stdout.write(f"{name}\n")
    return code


def unused(context: Context, filters: Sequence[str], *, everything: bool) -> list[str]:
    """Volumes that no container has; the anonymous ones, or `everything`."""
    users = _users(context)
    return [
        v.name
        for v in context.reader().volumes()
        if v.name not in users
        and (everything or "com.docker.volume.anonymous" in v.labels)
        and matches(v.name, visible_labels(v.labels), v.driver, filters, False)
    ]


def remove(context: Context, names: Sequence[str]) -> None:
    from kapelle.model.project import Project
    from kapelle.plan import steps

    for name in names:
        context.perform(steps.RemoveVolume(name), Project("", "", (), ()), silent)


def _prune(context: Context, args: Args) -> int:
    doomed = unused(context, args.filter, everything=bool(args.all))
    what = "all unused" if args.all else "all unused anonymous"
    if not args.force and not context.dry_run:
        context.stdout.write(f"WARNING! This will remove {what} volumes.\n")
        if not common.confirmed(context, "Are you sure you want to continue?"):
            return 0
    remove(context, doomed)
    if doomed:
        context.stdout.write(f"{common.deleted(context)} Volumes:\n" + "".join(f"{n}\n" for n in doomed))
    return 0


def run(context: Context, args: Args) -> int:
    raise KapelleError("kap volume needs a command", hint="kap volume ls")


SUBCOMMANDS = {
    "ls": Command("list volumes", (FILTER, FORMAT, QUIET), _ls),
    "inspect": Command(
        "print volumes as JSON",
        (Flag("--format", "-f", value="FORMAT", default="", help="a Go template"),),
        _inspect,
        "NAME...",
    ),
    "create": Command(
        "make a volume",
        (
            Flag("--driver", "-d", value="DRIVER", default="local", help="local"),
            Flag("--label", value="K=V", repeat=True, help="a label"),
            Flag("--opt", "-o", value="K=V", repeat=True, help="an option of the driver"),
            Flag("--name", value="NAME", hidden=True),
        ),
        _create,
        "[NAME]",
    ),
    "rm": Command("remove volumes", (Flag("--force", "-f", help="a missing one is no error"),), _rm, "NAME..."),
    "prune": Command(
        "remove volumes that no container uses",
        (
            Flag("--all", "-a", help="named ones, too"),
            Flag("--filter", value="KEY=VALUE", repeat=True, help="only those that match"),
            Flag("--force", "-f", help="do not ask"),
        ),
        _prune,
    ),
}
SUBALIASES = {"list": "ls", "remove": "rm"}
