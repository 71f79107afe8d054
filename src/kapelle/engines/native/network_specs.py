"""What the network is asked for: a network, and a container's place on one."""

from __future__ import annotations

from kapelle.light import NamedTuple


class NetworkSpec(NamedTuple):
    """A network as wanted, or with subnets and gateways filled in as it is."""

    name: str
    id: str  # 64 hex
    driver: str = "bridge"
    internal: bool = False
    subnets: tuple[str, ...] = ()  # CIDR, at most one of each family
    gateways: tuple[str, ...] = ()  # one for each subnet, "" = choose
    enable_ipv6: bool = False
    options: tuple[tuple[str, str], ...] = ()  # driver_opts: see network_options
    ip_ranges: tuple[str, ...] = ()  # parts of the subnets to choose from
    reserved: tuple[str, ...] = ()  # addresses never to choose (aux_addresses)


class EndpointSpec(NamedTuple):
    """A container's place on a network as wanted; "" = choose."""

    network: str
    ifname: str = ""
    aliases: tuple[str, ...] = ()
    ipv4: str = ""  # with or without "/16"
    ipv6: str = ""
    mac: str = ""
    previous: str = ""  # the IPv4 address it had before: given again unless somebody else has it
    previous6: str = ""  # the IPv6 address, likewise
    gateway_priority: int = 0  # the highest has the default route
    link_local: tuple[str, ...] = ()  # further addresses, of 169.254.0.0/16 or fe80::/10
