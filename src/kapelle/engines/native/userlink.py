"""A project's way out where the host's network is not ours to change (rootless): no tun device, no helper program.

TCP that leaves a network is redirected to a socket in the project's namespace, which passes it on from the host's by
splice(2); other datagrams go to a veth pair whose far end is read as packets (`datagrams`). To the project's network
it looks as the link to the host does (`uplink.Uplink`), and published ports are proxied.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable, Iterable

from kapelle.engines.native import ipam
from kapelle.engines.native.datagrams import Datagrams
from kapelle.engines.native.ipam import Subnet
from kapelle.engines.native.loop import Loop
from kapelle.engines.native.proxy import TcpProxy
from kapelle.engines.native.uplink import INSIDE, POOLS, mark_of, sysctl
from kapelle.engines.native.userlink6 import UserLink6
from kapelle.errors import EngineError
from kapelle.light import socket
from kapelle.linux import namespaces, nft, route, sockets
from kapelle.linux.netlink import Netlink

_OUTSIDE = "outside"  # the far end of the pair
_MACS = ("02:42:c0:00:00:01", "02:42:c0:00:00:02")  # of the near end and the far one
_SO_ORIGINAL_DST = 80
_ETH_P_IP = 0x0800
_LISTENER = "out-tcp"
_SOCKADDR = struct.Struct("!2xH4s8x")


class UserLink:
    """Made inside the project's namespace alone. Adopts what is there already."""

    filtering = True

    def __init__(
        self, project: str, place: str, netns: int, inner: Netlink, loop: Loop, fds: dict[str, int], table: str
    ) -> None:
        """`fds` holds the listening socket over a restart; `table` is the project namespace's own nf_tables table."""
        self.mark = mark_of(project, place)
        self.warnings: list[str] = []
        self.mtu = 1500
        self._netns = netns
        self._inner = inner
        self._table = table
        self._route = route.open_route()  # of the host: read only
        self._nft: Netlink | None = None
        self._why_not_six = ""
        self._gateways: dict[str, str] = {}
        self.host, self.project = self._addresses()
        wire = namespaces.within(netns, -1, self._raise)
        self._listener = self._listen(fds)
        self.port = int(self._listener.getsockname()[1])
        self._proxy = _Outward(loop, self._listener, self.outside)
        head = route.mac_bytes(_MACS[0]) + route.mac_bytes(_MACS[1]) + struct.pack("!H", _ETH_P_IP)
        self._datagrams = Datagrams(loop, wire, head, self._outside_of)
        self._wire = wire
        self._six: UserLink6 | None = None
        self._parts = (netns, loop, fds)

    def _addresses(self) -> tuple[str, str]:
        taken = self.taken()
        start = int(self.mark, 16)
        for pool in POOLS:
            first = pool.first + 2 * (start % (1 << (31 - pool.prefix)))
            if not any(t.has(first) for t in taken):
                return ipam.to_text(first), ipam.to_text(first + 1)
        raise EngineError("the host's routes cover every private range", code="KAP203", hint="remove one of them")

    def _raise(self) -> socket.socket:
        """The pair, its addresses and the default route; a socket that has all packets of the far end."""
        if route.link(self._inner, INSIDE) is None:
            self._inner.request((route.veth(_OUTSIDE, INSIDE, self._netns, peer_mac=_MACS[0], mtu=65535),))
            near = route.link(self._inner, INSIDE)
            if near is None:
                raise FileNotFoundError(errno.ENODEV, "the link vanished while it was made")
            self._inner.request(
                (
                    route.no_link_local(near.ifindex),
                    route.address(near.ifindex, self.project, 32, host_only=True),
                    route.link_up(near.ifindex),
                    route.neighbour(near.ifindex, self.host, _MACS[1]),
                    route.route(self.host, 32, near.ifindex),
                    route.route("", 0, near.ifindex, via=self.host),
                )
            )
            sysctl("net/ipv4/ip_forward", "1")
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        wire = socket.socket(socket.AF_PACKET, kind, socket.htons(_ETH_P_IP))
        wire.bind((_OUTSIDE, _ETH_P_IP))
        return wire

    def _listen(self, fds: dict[str, int]) -> socket.socket:
        if _LISTENER in fds:
            return socket.socket(fileno=os.dup(fds[_LISTENER]))
        made = sockets.socket_in(self._netns, -1, socket.AF_INET, socket.SOCK_STREAM)
        made.bind(("0.0.0.0", 0))
        made.listen(4096)
        fds[_LISTENER] = os.dup(made.fileno())
        return made

    # -- rules -------------------------------------------------------------------------------------------------------

    def rules(self, netlink: Netlink) -> None:
        """What sends TCP to the socket: in front of the rules that the project's namespace has."""
        self._nft = netlink
        t, redirect = self._table, nft.redirect(self.port)
        tcp = nft.protocol("tcp")
        nft.batch(
            netlink,
            [
                nft.chain(t, "own"),
                nft.chain(t, "out"),
                nft.rule(t, "prerouting", nft.jump("out"), first=True),
                nft.rule(t, "prerouting", nft.jump("own"), first=True),
                nft.rule(t, "prerouting", nft.iifname(INSIDE, False), tcp, nft.daddr_is_local(), redirect, first=True),
            ],
        )

        try:
            self._six = UserLink6(*self._parts, t, netlink, _MACS)
        except OSError as e:
            self._why_not_six = (e.strerror or str(e)).lower()

    def add_network6(self, network: str, bridge: str, subnet: Subnet, gateway: str, *, internal: bool) -> None:
        """A network's IPv6: as far as this kernel has a way out for it."""
        if self._six is not None:
            self._six.add_network(network, bridge, subnet, gateway, internal=internal)
        elif self._nft is not None and not internal:
            text = f"network {network}: its IPv6 does not leave this machine: {self._why_not_six}"
            if text not in self.warnings:
                self.warnings.append(text)

    def masquerade(self, network: str, subnet: Subnet) -> None:
        """Let a network's connections go out."""
        if self._nft is None:
            return
        comment = f"net:{network}"
        have = [r for r in nft.rules(self._nft, self._table) if r.comment == comment and r.chain == "out"]
        if have:
            nft.batch(self._nft, [nft.delete_rule(r.table, r.chain, r.handle) for r in have])  # of another port
        source = nft.saddr(subnet.packed, subnet.prefix)
        out = (source, nft.protocol("tcp"), nft.redirect(self.port))
        nft.batch(self._nft, (nft.rule(self._table, "out", *out, comment=comment),))

    def keep_inside(self, network: str, subnet: Subnet, gateway: str) -> None:
        """What goes to a subnet of the project stays in it; its gateway stands for the host."""
        self._gateways[network] = gateway
        if self._nft is None:
            return
        comment = f"net:{network}"
        if not any(r.comment == comment for r in nft.rules(self._nft, self._table, "own", nft.IPV4)):
            stay = (nft.daddr(subnet.packed, subnet.prefix), nft.verdict(nft.ACCEPT))
            nft.batch(self._nft, (nft.rule(self._table, "own", *stay, comment=comment),))

    def unmasquerade(self, network: str) -> None:
        """Forget a network. Its rules go with its others, by their comment."""
        self._gateways.pop(network, None)
        if self._six is not None:
            self._six.forget(network)

    def taken(self, ours: bool = True) -> list[Subnet]:
        """What the host's routes cover: containers could not reach it if a network had the same addresses."""
        found = []
        for family in (socket.AF_INET, socket.AF_INET6):
            for r in route.routes(self._route, family):
                if r.prefix and r.destination:
                    found.append(ipam.from_packed(r.destination, r.prefix))
        return found

    def add_route(self, _subnet: Subnet, exclusive: bool = True) -> bool:
        return True

    def remove_route(self, _subnet: Subnet) -> None:
        """The host has none."""

    def add_ports(self, rows: Iterable[tuple[str, str, int, str, int, str]]) -> bool:
        return False  # the proxies serve

    def remove_ports(self, prefix: str) -> None:
        """There are none in the kernel."""

    # -- where to ------------------------------------------------------------------------------------------------------

    def _outside_of(self, packed: bytes) -> str:
        return self.outside(socket.inet_ntoa(packed), 0)

    def outside(self, address: str, port: int) -> str:
        """The address to send to for one that a container named; "" when it is nobody's."""
        if address == self.host or address in self._gateways.values():
            return "" if port == self.port else host_address()
        first = int(address.partition(".")[0])
        return "" if first in (0, 127) or first >= 224 else address

    def leave(self) -> None:
        """Nothing of it is on the host: `close` is quick enough."""

    def close(self) -> None:
        if self._six is not None:
            self._six.close()
        self._proxy.close()
        self._datagrams.close()
        self._listener.close()
        self._wire.close()
        self._route.close()


def host_address() -> str:
    """This host's own address on its way out, never its loopback, which stays its own; "" without one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        try:
            asking.connect(("192.0.2.1", 9))  # TEST-NET-1: nothing is sent, the kernel chooses the source
            address = str(asking.getsockname()[0])
        except OSError:
            return ""
    return "" if address.startswith("127.") else address


class _Outward(TcpProxy):
    """Passes each connection on to where it was going before the redirection."""

    def __init__(self, loop: Loop, listener: socket.socket, outside: Callable[[str, int], str]) -> None:
        super().__init__(loop, listener, sockets.made, ("", 0))
        self._outside = outside

    def target_of(self, client: socket.socket) -> tuple[str, int] | None:
        port, packed = _SOCKADDR.unpack(client.getsockopt(socket.IPPROTO_IP, _SO_ORIGINAL_DST, 16))
        to = self._outside(socket.inet_ntoa(packed), port)
        return (to, port) if to else None
