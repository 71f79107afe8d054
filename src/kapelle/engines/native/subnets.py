"""Which subnets and gateways a network gets: those that its file names, or some that nobody has."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kapelle.engines.native import ipam
from kapelle.engines.native.dnsforward import read_servers
from kapelle.engines.native.ipam import Subnet
from kapelle.engines.native.network_specs import NetworkSpec
from kapelle.engines.native.uplink import Uplink
from kapelle.errors import EngineError
from kapelle.light import TYPE_CHECKING, NamedTuple, TypeVar

if TYPE_CHECKING:
    from kapelle.engines.native.userlink import UserLink

_T = TypeVar("_T")
RESOLV_CONF = "/etc/resolv.conf"


class Subnets(NamedTuple):
    subnets: list[Subnet]
    gateways: list[int]  # one for each
    routed: bool  # the host has a route to the IPv4 one


def choose(
    spec: NetworkSpec,
    others: Sequence[tuple[str, Subnet]],
    uplink: Uplink | UserLink,
    elsewhere: Callable[[], list[str]],
) -> Subnets:
    """For a new network, with the host's route to it made. EngineError KAP207.

    `others`: (network, subnet) of this project. `elsewhere`: subnets of networks that may be shared with us later.
    """
    subnets: list[Subnet] = []
    gateways: list[int] = []
    for number, text in enumerate(spec.subnets):
        subnet = _given(spec, text, others)
        subnets.append(subnet)
        gateways.append(_gateway(spec, subnet, spec.gateways[number] if number < len(spec.gateways) else ""))
    routed = True
    given = next((s for s in subnets if s.bits == 32), None)
    if given is not None:
        routed = uplink.add_route(given)
    else:
        chosen = _free(spec.name, others, uplink, elsewhere)
        subnets.insert(0, chosen)
        gateways.insert(0, chosen.first + 1)
    if spec.enable_ipv6 and not any(s.bits == 128 for s in subnets):
        networks = len({name for name, _ in others})
        chosen = next(ipam.free_subnets(ipam.candidates6(int(uplink.mark, 16) << 8 | networks), uplink.taken()))
        subnets.append(chosen)
        gateways.append(chosen.first + 1)
    return Subnets(subnets, gateways, routed)


def checked(network: str, what: str, text: str, parse: Callable[[str], _T]) -> _T:
    """`parse(text)`, its ValueError as an EngineError KAP207 that names the network."""
    try:
        return parse(text)
    except ValueError as e:
        raise EngineError(f"network {network}: {what}: {e}", code="KAP207") from None


def _given(spec: NetworkSpec, text: str, others: Sequence[tuple[str, Subnet]]) -> Subnet:
    subnet = checked(spec.name, "subnet", text, ipam.parse_subnet)
    for name, there in others:
        if there.overlaps(subnet):
            raise EngineError(
                f"network {spec.name}: subnet {subnet} overlaps with {there} of network {name}",
                code="KAP207",
                hint="give one of the two another subnet, or leave it out",
            )
    if subnet.bits - subnet.prefix < 2:
        raise EngineError(
            f"network {spec.name}: subnet {subnet} has no room for a gateway and a container", code="KAP207"
        )
    return subnet


def _gateway(spec: NetworkSpec, subnet: Subnet, wanted: str) -> int:
    if not wanted:
        return subnet.first + 1
    gateway, bits = checked(spec.name, "gateway", wanted.partition("/")[0], ipam.to_number)
    if bits != subnet.bits or not subnet.has(gateway):
        raise EngineError(f"network {spec.name}: gateway {wanted} does not lie in its subnet {subnet}", code="KAP207")
    return gateway


def _free(
    network: str, others: Sequence[tuple[str, Subnet]], uplink: Uplink | UserLink, elsewhere: Callable[[], list[str]]
) -> Subnet:
    """A subnet that collides with nothing the host knows, with the host's route to it made."""
    taken = uplink.taken()
    taken += [ipam.parse_subnet(text) for text in elsewhere()]
    taken += [subnet for _, subnet in others if subnet.bits == 32]
    for server in read_servers(RESOLV_CONF):  # a name server behind the default route must stay reachable
        number, bits = ipam.to_number(server.partition("%")[0])
        taken.append(Subnet(number, bits, bits))
    for subnet in ipam.free_subnets(ipam.candidates(), taken):
        if uplink.add_route(subnet):
            return subnet
    raise EngineError(
        f"network {network}: no subnet is free, the host's routes cover every private range",
        code="KAP207",
        hint="set networks.*.ipam.config.subnet",
    )
