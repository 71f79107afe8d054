"""`network`: what containers share, as `docker network` shows and keeps it."""

from __future__ import annotations

from collections.abc import Sequence

from kapelle.cli import common
from kapelle.cli.commands.volume import FILTER, FORMAT, check_name, matches, silent, visible_labels
from kapelle.cli.flags import Args, Command, Flag
from kapelle.errors import KapelleError
from kapelle.light import TYPE_CHECKING, Any
from kapelle.plan.observed import Container, ObservedNetwork
from kapelle.render import tables

if TYPE_CHECKING:
    from kapelle.cli.context import Context

NAME = "network"
HELP = "list, inspect, make and remove networks"
FLAGS = ()


def _ls(context: Context, args: Args) -> int:
    common.no_arguments(args.rest, "network ls")
    members = _members(context) if args.filter else {}
    shown = [
        n
        for n in sorted(context.reader().networks(), key=lambda n: n.name)
        if matches(n.name, visible_labels(n.labels), n.driver, args.filter, n.name in members, n.id)
    ]
    out = context.stdout
    if args.quiet:
        out.write("".join(f"{_id(n, args)}\n" for n in shown))
    elif args.format == "table":
        rows = ((_id(n, args), n.name, n.driver, "local") for n in shown)
        out.write(tables.table(("NETWORK ID", "NAME", "DRIVER", "SCOPE"), rows))
    else:
        objects = [_row(n, args) for n in shown]
        if args.format == "json":
            import json

            out.write("".join(json.dumps(o, separators=(",", ":")) + "\n" for o in objects))
        else:
            from kapelle.render import gotemplate

            labels = [visible_labels(n.labels) for n in shown]
            out.write(gotemplate.listing(args.format, objects, labels=labels, headers={"ID": "NETWORK ID"}))
    return 0


def _id(network: ObservedNetwork, args: Args) -> str:
    return network.id if args.no_trunc else network.id[:12]


def _row(network: ObservedNetwork, args: Args) -> dict[str, str]:
    from kapelle.render.words import clock

    return {
        "CreatedAt": clock(network.created),
        "Driver": network.driver,
        "ID": _id(network, args),
        "IPv4": "true",
        "IPv6": str(any(":" in s for s in network.subnets)).lower(),
        "Internal": str(network.internal).lower(),
        "Labels": ",".join(f"{k}={v}" for k, v in visible_labels(network.labels).items()),
        "Name": network.name,
        "Scope": "local",
    }


def _members(context: Context) -> dict[str, list[Container]]:
    """Network -> running containers on it."""
    found: dict[str, list[Container]] = {}
    for container in context.reader().containers():
        if container.status in ("running", "paused"):
            for endpoint in container.networks:
                found.setdefault(endpoint.network, []).append(container)
    return found


def _inspect(context: Context, args: Args) -> int:
    from kapelle.cli.inspecting import inspect

    members = _members(context)
    found: dict[str, dict[str, Any]] = {}
    for network in context.reader().networks():
        value = inspected(network, members.get(network.name, []))
        found[network.name] = found[network.id] = found[network.id[:12]] = value
    return inspect(context, args, found, "network")


def inspected(network: ObservedNetwork, members: list[Container]) -> dict[str, Any]:
    """The object of `docker network inspect`."""
    from kapelle.cli.inspecting import zoned

    containers = {}
    for container in sorted(members, key=lambda c: c.name):
        endpoint = next(e for e in container.networks if e.network == network.name)
        containers[container.id] = {
            "Name": container.name,
            "EndpointID": endpoint_id(container.id, network.id),
            "MacAddress": endpoint.mac,
            "IPv4Address": endpoint.ipv4,
            "IPv6Address": endpoint.ipv6,
        }
    gateways = [*network.gateways, *[""] * len(network.subnets)]
    pools = [
        {"Subnet": subnet, **({"Gateway": gateways[number]} if gateways[number] else {})}
        for number, subnet in enumerate(network.subnets)
    ]
    return {
        "Name": network.name,
        "Id": network.id,
        "Created": zoned(network.created),
        "Scope": "local",
        "Driver": network.driver,
        "EnableIPv6": any(":" in s for s in network.subnets),
        "IPAM": {"Driver": "default", "Options": None, "Config": pools},
        "Internal": network.internal,
        "Attachable": False,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": containers,
        "Options": dict(network.options),
        "Labels": visible_labels(network.labels),
    }


def endpoint_id(container: str, network: str) -> str:
    """64 hex digits that are the same each time: the two identifiers folded."""
    return f"{(int(container, 16) ^ int(network, 16)):064x}" if container and network else ""


def _create(context: Context, args: Args) -> int:
    common.exactly(args.rest, 1, "network create NAME")
    from kapelle.model.project import Network, Project
    from kapelle.plan import steps

    name = args.rest[0]
    check_name(name, "network")
    engine = context.engine()
    if any(n.name == name for n in engine.networks()):
        raise KapelleError(
            f"network with name {name} already exists", hint=f"kap network inspect {name}", code="KAP309"
        )
    pools = []
    for number, subnet in enumerate(args.subnet):
        gateway = args.gateway[number] if number < len(args.gateway) else ""
        pools.append({"subnet": subnet, **({"gateway": gateway} if gateway else {})})
    network = Network(
        "",
        name,
        "" if args.driver == "bridge" else args.driver,
        tuple((k, v) for k, _, v in (row.partition("=") for row in args.opt)),
        internal=bool(args.internal),
        attachable=bool(args.attachable),
        enable_ipv6=True if args.ipv6 else None,
        ipam=tuple(pools),
        labels=tuple((k, v) for k, _, v in (row.partition("=") for row in args.label)),
    )
    context.perform(steps.CreateNetwork(network), Project("", "", (), ()), silent)
    made = next((n for n in engine.networks() if n.name == name), None)
    context.stdout.write(f"{made.id if made else name}\n")
    return 0


def _rm(context: Context, args: Args) -> int:
    common.at_least(args.rest, 1, "network rm NAME")
    from kapelle.model.project import Project
    from kapelle.plan import steps

    engine = context.engine()
    have = {key: n for n in engine.networks() for key in (n.name, n.id, n.id[:12])}
    used = {e.network: c for c in engine.containers() for e in c.networks}
    code = 0
    for name in args.rest:
        network = have.get(name)
        problem = ""
        if network is None:
            problem = "" if args.force else f"no such network: {name}"
        elif network.name in used:
            problem = f"network {name} has active endpoints: {used[network.name].name}"
        else:
            project = Project(network.project, "", (), ())
            context.perform(steps.RemoveNetwork(network.name), project, silent)
        if problem:
            context.stderr.write(f"error: {problem} [KAP309]\n")
            code = 1
        else:
            context.stdout.write(f"{name}\n")
    return code


def unused(context: Context, filters: Sequence[str] = ()) -> list[str]:
    """Networks that no container, running or not, is on."""
    used = {e.network for c in context.reader().containers() for e in c.networks}
    return [
        n.name
        for n in context.reader().networks()
        if n.name not in used and matches(n.name, visible_labels(n.labels), n.driver, filters, False, n.id)
    ]


def remove(context: Context, names: Sequence[str]) -> None:
    from kapelle.model.project import Project
    from kapelle.plan import steps

    owners = {n.name: n.project for n in context.reader().networks()}
    for name in names:
        context.perform(steps.RemoveNetwork(name), Project(owners.get(name, ""), "", (), ()), silent)


def _prune(context: Context, args: Args) -> int:
    doomed = unused(context)
    if not args.force and not context.dry_run:
        context.stdout.write("WARNING! This will remove all networks that no container uses.\n")
        if not common.confirmed(context, "Are you sure you want to continue?"):
            return 0
    remove(context, doomed)
    if doomed:
        context.stdout.write(f"{common.deleted(context)} Networks:\n" + "".join(f"{n}\n" for n in doomed))
    return 0


def run(context: Context, args: Args) -> int:
    raise KapelleError("kap network needs a command", hint="kap network ls")


SUBCOMMANDS = {
    "ls": Command(
        "list networks",
        (FILTER, FORMAT, Flag("--no-trunc", help="whole IDs"), Flag("--quiet", "-q", help="IDs only")),
        _ls,
    ),
    "inspect": Command(
        "print networks as JSON",
        (
            Flag("--format", "-f", value="FORMAT", default="", help="a Go template"),
            Flag("--verbose", "-v", hidden=True),
        ),
        _inspect,
        "NAME...",
    ),
    "create": Command(
        "make a network",
        (
            Flag("--attachable", help="accepted: every network is"),
            Flag("--driver", "-d", value="DRIVER", default="bridge", help="bridge"),
            Flag("--gateway", value="ADDRESS", repeat=True, help="gateway of the subnet"),
            Flag("--internal", help="no way out"),
            Flag("--ipv6", help="IPv6, too"),
            Flag("--label", value="K=V", repeat=True, help="a label"),
            Flag("--opt", "-o", value="K=V", repeat=True, help="an option of the driver"),
            Flag("--subnet", value="CIDR", repeat=True, help="addresses in CIDR form"),
        ),
        _create,
        "NAME",
    ),
    "rm": Command("remove networks", (Flag("--force", "-f", help="a missing one is no error"),), _rm, "NAME..."),
    "prune": Command("remove networks that no container uses", (Flag("--force", "-f", help="do not ask"),), _prune),
}
SUBALIASES = {"list": "ls", "remove": "rm"}
