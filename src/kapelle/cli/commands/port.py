"""`port`: print the host address of a published port."""

from __future__ import annotations

from kapelle.cli import common
from kapelle.cli.flags import Args, Flag
from kapelle.errors import KapelleError, UsageError
from kapelle.light import TYPE_CHECKING

if TYPE_CHECKING:
    from kapelle.cli.context import Context

NAME = "port"
HELP = "print the host address of a published port"
ARGUMENTS = "SERVICE PRIVATE_PORT"
FLAGS = (
    Flag("--index", value="N", kind="int", default=0, help="which replica (1..n)"),
    Flag("--protocol", value="PROTOCOL", default="tcp", choices=("tcp", "udp"), help="tcp or udp"),
)


def run(context: Context, args: Args) -> int:
    common.exactly(args.rest, 2, "port web 80")
    service, text = args.rest
    number, _, protocol = text.partition("/")
    protocol = protocol or args.protocol
    if not number.isdigit() or not 0 < int(number) < 65536:
        raise UsageError(f"invalid port: {text}", hint="kap port web 80")
    everyone = context.reader().project_containers(context.project_name())
    common.check_services(context, [service], everyone)
    own = [c for c in common.pick(everyone, args.index) if c.service == service and not c.oneoff]
    if not own:
        which = f" container #{args.index}" if args.index else ""
        raise KapelleError(f'service "{service}" is not running{which}', hint=f"kap up -d {service}", code="KAP305")
    container = next((c for c in own if c.alive), own[0])
    for port in container.ports:
        if port.target == int(number) and port.protocol == protocol:
            host = f"[{port.host_ip}]" if ":" in port.host_ip else port.host_ip or "0.0.0.0"
            context.stdout.write(f"{host}:{port.published}\n")
            return 0
    known = ", ".join(f"{p.target}/{p.protocol} -> {p.host_ip or '0.0.0.0'}:{p.published}" for p in container.ports)
    raise KapelleError(
        f"no port {number}/{protocol} for container {container.name}: published ports: {known or 'none'}",
        hint="" if known else f'add "{number}" to ports: of {service}',
    )
