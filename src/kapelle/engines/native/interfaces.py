"""A container's interfaces: a veth pair for each of its networks, addresses, ways out, settings of its namespace."""

from __future__ import annotations

import errno
from collections.abc import Sequence

from kapelle.engines.native import ipam, network_options
from kapelle.engines.native.bridges import Bridge
from kapelle.engines.native.network_specs import EndpointSpec
from kapelle.engines.native.uplink import sysctl
from kapelle.light import NamedTuple
from kapelle.linux import route
from kapelle.linux.netlink import Message, Netlink
from kapelle.plan.observed import Endpoint

# what Docker sets in each container's namespace, so that an ordinary user may listen on 80 and ping
_SYSCTLS = (("net/ipv4/ip_unprivileged_port_start", "0"), ("net/ipv4/ping_group_range", "0\t2147483647"))


class Interface(NamedTuple):
    """One of a container's interfaces, as it is to be."""

    name: str  # inside
    bridge: Bridge
    wanted: EndpointSpec
    place: Endpoint


def outer_name(netns: int, bridge: Bridge) -> str:
    """The end at the bridge, after the container's namespace (inode number): a dying one keeps its names a while."""
    return f"v{netns:x}{bridge.spec.id[:5]}"


def make(links: Netlink, netns_fd: int, netns: int, interfaces: Sequence[Interface]) -> list[Interface]:
    """Make the pairs that are not there yet, and return these. Raises OSError."""
    wanted = [
        route.veth(
            outer_name(netns, i.bridge),
            i.name,
            netns_fd,
            master=i.bridge.index,
            peer_mac=i.place.mac,
            mtu=i.bridge.mtu,
        )
        for i in interfaces
    ]
    fresh: list[Interface] = []
    for interface, error in zip(interfaces, links.send(wanted), strict=True):
        if error is None:
            fresh.append(interface)
        elif error.errno != errno.EEXIST:
            raise error
    for bridge in (i.bridge for i in fresh):
        if network_options.is_false(dict(bridge.spec.options), network_options.ICC):
            near = route.link(links, outer_name(netns, bridge))
            if near is not None:  # else the container has ended already
                links.request(route.bridge_port(near.ifindex, bridge.index, isolated=True))
    return fresh


def bring_up(fresh: Sequence[Interface], interfaces: Sequence[Interface]) -> None:
    """In the container's namespace: give `fresh` ones of its `interfaces` addresses and ways out. Raises OSError."""
    ways = [i for i in interfaces if not i.bridge.spec.internal]
    gateway = max(ways, key=lambda i: i.wanted.gateway_priority, default=None)
    with route.open_route() as inside:
        messages = [route.link_up(1)]
        for interface in fresh:
            messages += _configure(inside, interface, interface is gateway)
        inside.request(messages)
    if fresh or not interfaces:
        for path, value in _SYSCTLS:
            sysctl(path, value)


def _configure(inside: Netlink, interface: Interface, gateway: bool) -> list[Message]:
    place = interface.place
    link = route.link(inside, interface.name)
    if link is None:
        raise FileNotFoundError(errno.ENODEV, f"interface {interface.name} is not in the container")
    index = link.ifindex
    messages: list[Message] = []
    if not place.ipv6:
        messages.append(route.no_link_local(index))
    for text in (place.ipv4, place.ipv6):
        if text:
            address, _, prefix = text.partition("/")
            messages.append(route.address(index, address, int(prefix)))
    for address in interface.wanted.link_local:
        messages.append(route.address(index, address, 64 if ":" in address else 16))
    messages.append(route.link_up(index))
    if gateway:
        messages.append(route.route("", 0, index, via=place.gateway))
        v6 = interface.bridge.v6
        if v6 is not None:
            messages.append(route.route("", 0, index, via=ipam.to_text(v6.gateway, 128)))
    return messages
