"""The IPv6 half of an ordinary user's way out (`userlink`): the same pair, a listening socket and a packet socket of
their own. Where the kernel has no NAT for IPv6 there is no such half, and networks keep to themselves.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable

from kapelle.engines.native import datagrams6, ipam
from kapelle.engines.native.datagrams import Datagrams
from kapelle.engines.native.ipam import Subnet
from kapelle.engines.native.loop import Loop
from kapelle.engines.native.proxy import TcpProxy
from kapelle.engines.native.uplink import INSIDE, sysctl
from kapelle.light import socket
from kapelle.linux import namespaces, nft, route, sockets
from kapelle.linux.netlink import Netlink

_ETH_P_IPV6 = 0x86DD
_IP6T_SO_ORIGINAL_DST = 80
_LISTENER = "out-tcp6"
_SOCKADDR = struct.Struct("!2xH4x16s4x")
_HOST, _PROJECT = "fd00:6b61:7065::1", "fd00:6b61:7065::2"  # of the pair, seen by nobody else
_NOWHERE = tuple(ipam.parse_subnet(t) for t in ("::/127", "fe80::/10", "ff00::/8", "::ffff:0:0/96"))


class UserLink6:
    """Made in a project's namespace whose pair is there (`raise_pair`)."""

    def __init__(
        self, netns: int, loop: Loop, fds: dict[str, int], table: str, tables: Netlink, macs: tuple[str, str]
    ) -> None:
        """OSError where there is no IPv6, or no NAT for it."""
        self._table = table
        self._nft = tables
        self._gateways: dict[str, str] = {}
        self._wire = namespaces.within(netns, -1, lambda: _raise_pair(macs))
        try:
            self._listener = self._listen(netns, fds)
            self.port = int(self._listener.getsockname()[1])
            self._rules()
            namespaces.within(netns, -1, lambda: sysctl("net/ipv6/conf/all/forwarding", "1"))
        except OSError:
            self._wire.close()
            raise
        self._proxy = _Outward6(loop, self._listener, self.outside)
        head = route.mac_bytes(macs[0]) + route.mac_bytes(macs[1]) + struct.pack("!H", _ETH_P_IPV6)
        self._datagrams = Datagrams(loop, self._wire, head, self._outside_of, datagrams6.FAMILY)

    def _listen(self, netns: int, fds: dict[str, int]) -> socket.socket:
        if _LISTENER in fds:
            return socket.socket(fileno=os.dup(fds[_LISTENER]))
        made = sockets.socket_in(netns, -1, socket.AF_INET6, socket.SOCK_STREAM)
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind(("::", 0))
        made.listen(4096)
        fds[_LISTENER] = os.dup(made.fileno())
        return made

    def _rules(self) -> None:
        """A table of its own family; networks' rules in it stay over a restart."""
        t, six = self._table, nft.IPV6
        here = (nft.iifname(INSIDE, False), nft.protocol("tcp"), nft.daddr_is_local(), nft.redirect(self.port))
        nft.batch(
            self._nft,
            [
                nft.table(t, six),
                nft.base_chain(t, "prerouting", "nat", nft.PREROUTING, nft.DSTNAT, family=six),
                nft.base_chain(t, "forward", "filter", nft.FORWARD, nft.FILTER, family=six, policy=nft.DROP),
                *(nft.chain(t, name, six) for name in ("own", "out", "networks")),
                *(nft.flush_chain(t, name, six) for name in ("prerouting", "forward")),
                nft.rule(t, "prerouting", *here, family=six),
                nft.rule(t, "prerouting", nft.jump("own"), family=six),
                nft.rule(t, "prerouting", nft.jump("out"), family=six),
                nft.rule(t, "forward", nft.iifname(INSIDE), nft.verdict(nft.ACCEPT), family=six),
                nft.rule(t, "forward", nft.jump("networks"), family=six),
            ],
        )

    def add_network(self, network: str, bridge: str, subnet: Subnet, gateway: str, *, internal: bool) -> None:
        """What goes to it stays inside; what comes from it may leave, unless it is internal."""
        self._gateways[network] = gateway
        t, six, comment = self._table, nft.IPV6, f"net:{network}"
        old = [r for r in nft.rules(self._nft, t, family=six) if r.comment == comment]  # of another port
        messages = [nft.delete_rule(r.table, r.chain, r.handle, six) for r in old]
        accept = nft.verdict(nft.ACCEPT)
        whole, mine = nft.daddr(subnet.packed, subnet.prefix), nft.saddr(subnet.packed, subnet.prefix)
        rows: list[tuple[str, tuple[bytes, ...]]] = [("own", (whole, accept))]
        rows.append(("networks", (nft.iifname(bridge), nft.oifname(bridge), accept)))
        if not internal:
            rows.append(("out", (mine, nft.protocol("tcp"), nft.redirect(self.port))))
            rows.append(("networks", (nft.iifname(bridge), nft.oifname(INSIDE), accept)))
        messages += [nft.rule(t, chain, *said, family=six, comment=comment) for chain, said in rows]
        nft.batch(self._nft, messages)

    def forget(self, network: str) -> None:
        self._gateways.pop(network, None)

    def _outside_of(self, packed: bytes) -> str:
        return self.outside(socket.inet_ntop(socket.AF_INET6, packed), 0)

    def outside(self, address: str, port: int) -> str:
        """The address to send to for one that a container named; "" when it is nobody's."""
        if address == _HOST or address in self._gateways.values():
            return "" if port == self.port else host_address()
        number = ipam.to_number(address)[0]
        return "" if any(s.first <= number <= s.last for s in _NOWHERE) else address

    def close(self) -> None:
        self._proxy.close()
        self._datagrams.close()
        self._listener.close()
        self._wire.close()


def _raise_pair(macs: tuple[str, str]) -> socket.socket:
    """Addresses and the default route of the pair's near end; a socket that has all packets of the far end."""
    if not sysctl(f"net/ipv6/conf/{INSIDE}/disable_ipv6", "0"):
        raise OSError("this kernel has no IPv6")
    with route.open_route() as links:
        near = route.link(links, INSIDE)
        if near is None:
            raise FileNotFoundError(INSIDE)
        have = [packed for index, packed, _ in route.addresses(links, socket.AF_INET6) if index == near.ifindex]
        if route.pack(_PROJECT) not in have:
            links.request(
                (
                    route.address(near.ifindex, _PROJECT, 128, host_only=True),
                    route.neighbour(near.ifindex, _HOST, macs[1]),
                    route.route(_HOST, 128, near.ifindex),
                    route.route("", 0, near.ifindex, via=_HOST),
                )
            )
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.htons(_ETH_P_IPV6))
    wire.bind(("outside", _ETH_P_IPV6))
    return wire


def host_address() -> str:
    """This host's own IPv6 address on its way out; "" without one."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as asking:
        try:
            asking.connect(("2001:db8::1", 9))  # for documentation: nothing is sent, the kernel chooses the source
            address = str(asking.getsockname()[0])
        except OSError:
            return ""
    return "" if address == "::1" else address


class _Outward6(TcpProxy):
    """Passes each connection on to where it was going before the redirection."""

    def __init__(self, loop: Loop, listener: socket.socket, outside: Callable[[str, int], str]) -> None:
        super().__init__(loop, listener, sockets.made, ("::", 0))
        self._outside = outside

    def target_of(self, client: socket.socket) -> tuple[str, int] | None:
        port, packed = _SOCKADDR.unpack(client.getsockopt(socket.IPPROTO_IPV6, _IP6T_SO_ORIGINAL_DST, _SOCKADDR.size))
        to = self._outside(socket.inet_ntop(socket.AF_INET6, packed), port)
        return (to, port) if to else None
