"""A shorter way through the project's namespace for the host's own connections to published ports.

They come in at the uplink from the host's address on it, aimed at the container already. Rules at that interface make
the network's gateway the sender, as the ordinary way does, and hand the packet to the container's interface; rules
at that one do the reverse. Bridge, routing and connection tracking are left out, and no state is kept: the two
rewritings undo each other, whoever opened the connection. What is no TCP, or in fragments, goes the ordinary way, as
everything does where the kernel can't do this.

Source: nft(8), address family netdev; linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

from collections.abc import Collection

from kapelle.engines.native import uplink
from kapelle.light import NamedTuple
from kapelle.linux import nft, route
from kapelle.linux.netlink import Message, Netlink

_TABLE = "kapelle"
_ENTRY, _TARGETS = "uplink", "targets"  # the chain at the uplink, and its map of addresses to chains
_IN, _OUT = "in-", "out-"  # beginnings of a container's chains; its interface follows


class Way(NamedTuple):
    """A container as published ports reach it."""

    interface: str  # its end in the project's namespace
    address: str
    mac: str
    gateway: str


class Shortcut:
    """The rules of one project. Whatever fails here costs time, nothing else."""

    def __init__(self, links: Netlink, tables: Netlink, host: str, host_mac: str, *, fresh: bool) -> None:
        """Both sockets are of the project's namespace; `host` and `host_mac` are the uplink's other end.

        Rules of a predecessor go unless the namespace is `fresh`: whom they lead to may have ended since.
        """
        self._links = links
        self._tables = tables
        self._host = route.pack(host)
        self._host_mac = _packed_mac(host_mac)
        self._uplink = 0  # the interface's number, once there are rules
        self._ways: dict[str, tuple[Way, frozenset[int]]] = {}
        if not fresh:
            self._try(nft.delete_table(_TABLE, nft.NETDEV))

    def lead(self, container_id: str, way: Way, ports: Collection[int]) -> None:
        """Have these TCP ports of a container reached so, and no others; again, it changes nothing."""
        wanted = (way, frozenset(ports))
        if self._ways.get(container_id) == wanted:
            return
        self.forget(container_id)
        near = route.link(self._links, way.interface) if ports else None
        if near is not None and self._begin() and self._try(*self._rules(way, near.ifindex, sorted(ports))):
            self._ways[container_id] = wanted

    def forget(self, container_id: str) -> None:
        """Take a container's rules back."""
        way, _ = self._ways.pop(container_id, (None, None))
        if way is not None:
            removed = nft.delete_from_map(_TABLE, _TARGETS, route.pack(way.address), nft.NETDEV)
            self._try(removed, nft.delete_chain(_TABLE, _IN + way.interface, nft.NETDEV))
            self._try(nft.delete_chain(_TABLE, _OUT + way.interface, nft.NETDEV))  # or it went with its interface

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
        hand_in = nft.set_saddr(gateway) + nft.set_receiver(_packed_mac(way.mac)) + nft.leave_by(near)
        answers = nft.whole_ipv4() + nft.protocol("tcp") + nft.saddr(address, 32) + nft.daddr(gateway, 32)
        hand_out = nft.set_daddr(self._host) + nft.set_receiver(self._host_mac) + nft.leave_by(self._uplink)
        inwards, outwards = _IN + way.interface, _OUT + way.interface
        messages = [nft.chain(_TABLE, inwards, nft.NETDEV), _chain(outwards, way.interface)]
        for port in ports:
            messages += [
                nft.rule(_TABLE, inwards, nft.protocol("tcp"), nft.dport(port), hand_in, family=nft.NETDEV),
                nft.rule(_TABLE, outwards, answers, nft.sport(port), hand_out, family=nft.NETDEV),
            ]
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
