"""A shorter way through the project's namespace for the host's own connections to published ports.

They come in at the uplink from the host's address on it, aimed at the container already. Rules at that interface make
the network's gateway the sender, as the ordinary way does, and hand the packet to the container's interface; rules
at that one do the reverse. Bridge, routing and connection tracking are left out, and no state is kept: the two
rewritings undo each other, whoever opened the connection. What is no TCP, or in fragments, goes the ordinary way, as
everything does where the kernel can't do this.

Source: nft(8), address family netdev; linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from kapelle.engines.native import uplink
from kapelle.light import NamedTuple
from kapelle.linux import nft, route
from kapelle.linux.netlink import Message, Netlink

_TABLE = "kapelle"
_ENTRY, _TARGETS = "uplink", "targets"  # the chain at the uplink, and its map of addresses to chains
_IN, _OUT = "in-", "out-"  # beginnings of a container's chains; its address follows, its interface
_MOST_PORTS = 16  # each packet passes the rules of all; beyond, they cost more than what they save


class Way(NamedTuple):
    """A container as published ports reach it."""

    interface: str  # its end in the project's namespace
    address: str
    mac: str
    gateway: str

    @property
    def chains(self) -> tuple[str, str]:
        return _IN + self.address, _OUT + self.interface


def is_worth_it(ports: Collection[int]) -> bool:
    """Are a container's TCP ports so few that a shortcut is one?"""
    return 0 < len(ports) <= _MOST_PORTS


class Shortcut:
    """The rules of one project. Whatever fails here costs time, nothing else: then there are none."""

    def __init__(self, links: Netlink, tables: Netlink, host: str, host_mac: str, *, fresh: bool) -> None:
        """Both sockets are of the project's namespace; `host` and `host_mac` are the uplink's other end.

        In a namespace that is not `fresh`, rules of a predecessor go on until `lead` or `forget_others`.
        """
        self._links = links
        self._tables = tables
        self._host = route.pack(host)
        self._host_mac = _packed_mac(host_mac)
        self._uplink = 0  # the interface's number, once there are rules
        self._ways: dict[str, tuple[Way, frozenset[int]]] = {}
        self._others: set[str] = set()  # a predecessor's chains
        if not fresh:
            self._adopt()

    def _adopt(self) -> None:
        try:
            found = {c.name for c in nft.chains(self._tables, nft.NETDEV) if c.table == _TABLE}
        except OSError:
            return
        link = route.link(self._links, uplink.INSIDE)
        if _ENTRY in found and link is not None:
            self._uplink = link.ifindex
            self._others = found - {_ENTRY}

    def lead(self, container_id: str, way: Way, ports: Collection[int]) -> None:
        """Have these TCP ports of a container reached so, and no others; again, it changes nothing."""
        wanted = (way, frozenset(ports))
        if self._ways.get(container_id) == wanted:
            return
        self.forget(container_id)
        near = route.link(self._links, way.interface)
        if near is not None and self._begin() and self._try(*self._rules(way, near.ifindex, sorted(ports))):
            self._ways[container_id] = wanted
            self._others.difference_update(way.chains)

    def forget(self, container_id: str) -> None:
        """Take a container's rules back."""
        way, _ = self._ways.pop(container_id, (None, None))
        if way is not None:
            self._remove(way.chains)

    def forget_others(self) -> None:
        """Take back a predecessor's rules for containers that nobody has led to since."""
        others, self._others = self._others, set()
        if others:
            self._remove(sorted(others))

    def _remove(self, chains: Iterable[str]) -> None:
        inwards = [name for name in chains if name.startswith(_IN)]
        targets = [nft.delete_from_map(_TABLE, _TARGETS, route.pack(n.removeprefix(_IN)), nft.NETDEV) for n in inwards]
        if inwards and not self._try(*targets, *(nft.delete_chain(_TABLE, name, nft.NETDEV) for name in inwards)):
            self._try(nft.delete_table(_TABLE, nft.NETDEV))  # sooner none at all than one that leads astray
            self._ways.clear()
            self._others.clear()
            self._uplink = 0
            return
        for name in chains:
            if name.startswith(_OUT):
                self._try(nft.delete_chain(_TABLE, name, nft.NETDEV))  # or it went with its interface

    def _begin(self) -> bool:
        """Make what all containers share."""
        if not self._uplink:
            link = route.link(self._links, uplink.INSIDE)
            from_host = nft.whole_ipv4() + nft.protocol("tcp") + nft.saddr(self._host, 32)
            if link is not None and self._try(
                nft.table(_TABLE, nft.NETDEV),
                nft.verdict_map(_TABLE, _TARGETS, nft.NETDEV),
                _chain(_ENTRY, uplink.INSIDE),
                nft.rule(_TABLE, _ENTRY, from_host, nft.by_daddr(_TARGETS), family=nft.NETDEV),
            ):
                self._uplink = link.ifindex
        return self._uplink > 0

    def _rules(self, way: Way, near: int, ports: list[int]) -> list[Message]:
        address, gateway = route.pack(way.address), route.pack(way.gateway)
        inwards, outwards = way.chains
        hand_in = nft.set_saddr(gateway) + nft.set_receiver(_packed_mac(way.mac)) + nft.leave_by(near)
        hand_out = nft.set_daddr(self._host) + nft.set_receiver(self._host_mac) + nft.leave_by(self._uplink)
        to_gateway = nft.whole_ipv4() + nft.saddr(address, 32) + nft.daddr(gateway, 32)
        answers = to_gateway + nft.protocol("tcp")
        messages = [nft.chain(_TABLE, inwards, nft.NETDEV)]
        if outwards not in self._others:
            messages.append(_chain(outwards, way.interface))
        messages += [nft.flush_chain(_TABLE, name, nft.NETDEV) for name in way.chains]
        for port in ports:
            messages += [
                nft.rule(_TABLE, inwards, nft.dport(port), hand_in, family=nft.NETDEV),
                nft.rule(_TABLE, outwards, answers, nft.sport(port), hand_out, family=nft.NETDEV),
            ]
        refused = to_gateway + nft.unreachable_tcp(gateway, address) + nft.set_quoted_saddr(self._host)
        messages.append(nft.rule(_TABLE, outwards, refused, hand_out, family=nft.NETDEV))
        return [*messages, nft.add_to_map(_TABLE, _TARGETS, address, inwards, nft.NETDEV)]

    def _try(self, *messages: Message) -> bool:
        try:
            nft.batch(self._tables, messages)
        except OSError:
            return False
        return True


def _chain(name: str, device: str) -> Message:
    return nft.base_chain(_TABLE, name, "filter", nft.INGRESS, nft.FILTER, family=nft.NETDEV, device=device)


def _packed_mac(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))
