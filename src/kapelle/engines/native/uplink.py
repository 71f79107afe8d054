"""The host's side of a project's network: one veth pair, routes, one nf_tables table, accepts in firewalls that drop.

All names carry a mark made from the project's identity: interface `kap-MARK`, tables `kapelle-MARK`. The interface
dies with the project's namespace, so a table without its interface is what a killed project left behind (`sweep`).
Routes are made exclusively: the kernel itself keeps two projects from taking the same subnet.
"""

from __future__ import annotations

import errno
import os
import zlib
from collections.abc import Iterable, Iterator

from kapelle.engines.native import ipam
from kapelle.engines.native.aside import Aside
from kapelle.engines.native.ipam import Subnet
from kapelle.errors import EngineError
from kapelle.light import socket
from kapelle.linux import namespaces, nft, route
from kapelle.linux.netlink import Message, Netlink

INSIDE = "uplink"  # the pair's end in the project's namespace
_PREFIX, _TABLE = "kap-", "kapelle-"
_LOOPBACK = bytes((127, 0, 0, 0))
# Pairs of addresses for the uplinks: pools that hosts rarely use, tried in order.
POOLS = tuple(map(ipam.parse_subnet, ("10.213.0.0/16", "172.31.240.0/20", "192.168.240.0/20", "169.254.64.0/18")))


def mark_of(project: str, place: str) -> str:
    """Eight hex digits for a project of one installation (`place` is its folder)."""
    return f"{zlib.crc32((os.path.realpath(place) + chr(0) + project).encode()):08x}"


def sysctl(path: str, value: str) -> bool:
    """Write /proc/sys/`path` of the thread's network namespace; False when that is not allowed."""
    try:
        with open(f"/proc/sys/{path}", "r+") as f:
            if f.read().strip() != value:
                f.seek(0)
                f.write(value)
    except OSError:
        return False
    return True


class Uplink:
    """Joins a project's namespace with the host's. Adopts what is there already."""

    def __init__(self, mark: str, netns: int, home: int, inner: Netlink) -> None:
        """`netns` and `home` are the project's and the host's namespaces, `inner` an rtnetlink socket in the first."""
        self.mark = mark
        self.name = _PREFIX + mark
        self.table = _TABLE + mark
        self.warnings: list[str] = []
        self._home = home
        self._netns = netns
        self._inner = inner
        self._route = route.open_route()
        self._nft: Netlink | None = None
        self._leaving: Aside | None = None
        self.host = ""  # this end's address, as containers reach the host
        self.project = ""  # the other end's
        self.mac = ""  # of this end
        self.mtu = 1500
        self.fresh = False  # made now, not adopted
        self._index = 0
        self._raise_link()
        self.filtering = self._raise_table()

    # -- the pair ------------------------------------------------------------------------------------------------

    def _raise_link(self) -> None:
        self.mtu = self._way_out_mtu()
        found = route.link(self._route, self.name)
        other = route.link(self._inner, INSIDE)
        if found is not None and other is None:  # of a killed project's namespace that is still dying
            self._route.send((route.link_delete(found.ifindex),))
            found = None
        if found is None:
            self.fresh = True
            mac = "02:4b:" + ":".join(self.mark[i : i + 2] for i in range(0, 8, 2))  # its own, and locally administered
            self._route.request((route.veth(self.name, INSIDE, self._netns, mac=mac, mtu=self.mtu),))
            found = route.link(self._route, self.name)
            other = route.link(self._inner, INSIDE)
        if found is None or other is None:
            raise EngineError(f"the network interface {self.name} vanished while it was made", code="KAP203")
        self._index, self.mac, self.mtu = found.ifindex, found.mac, found.mtu
        for index, packed, _prefix in route.addresses(self._route):
            if index == self._index:
                self._set_pair(int.from_bytes(packed, "big"))
                return
        self._take_addresses(other.ifindex)
        sysctl(f"net/ipv4/conf/{self.name}/route_localnet", "1")  # so that 127.0.0.1:PORT can be rewritten
        sysctl(f"net/ipv6/conf/{self.name}/disable_ipv6", "1")
        if not sysctl("net/ipv4/ip_forward", "1"):
            self.warnings.append("containers can't reach other machines: net.ipv4.ip_forward can't be set here")
        namespaces.within(self._netns, self._home, lambda: sysctl("net/ipv4/ip_forward", "1"))

    def _set_pair(self, host: int) -> None:
        self.host, self.project = ipam.to_text(host), ipam.to_text(host + 1)

    def _take_addresses(self, inside: int) -> None:
        taken = self.taken(ours=False)
        for pair in self._pairs(taken):
            self._set_pair(pair.first)
            reserve = route.route(self.project, 32, self._index)  # exclusive: decides between two that choose at once
            error = self._route.send((reserve,))[0]
            if error is None:
                self._route.request((route.address(self._index, self.host, 32, host_only=True),))
                self._inner.request(
                    (
                        route.no_link_local(inside),
                        route.address(inside, self.project, 32, host_only=True),
                        route.link_up(inside),
                        route.route(self.host, 32, inside),
                        route.route("", 0, inside, via=self.host),
                    )
                )
                return
            if error.errno != errno.EEXIST:
                raise error
        raise EngineError(
            "no free pair of addresses for the project's uplink: the host's routes cover every private range",
            code="KAP203",
            hint="remove a route, or projects that are not needed (kap ls)",
        )

    def _pairs(self, taken: list[Subnet]) -> Iterator[Subnet]:
        single = [t for t in taken if t.prefix == 32]
        wide = [t for t in taken if t.prefix < 32]
        start = int(self.mark, 16)
        for pool in POOLS:
            if any(pool.overlaps(t) for t in wide) and pool is not POOLS[-1]:
                continue
            count = 1 << (31 - pool.prefix)
            for step in range(count):
                pair = Subnet(pool.first + 2 * ((start + step) % count), 31)
                if not any(pair.overlaps(t) for t in single):
                    yield pair

    def _way_out_mtu(self) -> int:
        """The MTU of the default route's interface, at most 1500: larger packets would be lost behind a VPN."""
        out = next((r.link for r in route.routes(self._route) if not r.prefix and r.link and r.table == 254), 0)
        by_index = {link.ifindex: link.mtu for link in route.links(self._route)} if out else {}
        return max(576, min(1500, by_index.get(out, 1500)))

    def taken(self, ours: bool = True) -> list[Subnet]:
        """What the host's routes cover (both families, without default routes); with `ours` also this uplink's."""
        found: list[Subnet] = []
        for family in (socket.AF_INET, socket.AF_INET6):
            for r in route.routes(self._route, family):
                if r.prefix and r.destination and (ours or r.link != self._index):
                    found.append(ipam.from_packed(r.destination, r.prefix))
        return found

    # -- subnets -------------------------------------------------------------------------------------------------

    def add_route(self, subnet: Subnet, exclusive: bool = True) -> bool:
        """A way from the host to a project's subnet. False when the host goes elsewhere for (a part of) it."""
        mine = False
        for r in route.routes(self._route, socket.AF_INET if subnet.bits == 32 else socket.AF_INET6):
            if not r.prefix or not r.destination:
                continue
            there = ipam.from_packed(r.destination, r.prefix)
            if r.link == self._index and there == subnet:
                mine = True
            elif exclusive and there.overlaps(subnet):
                return False
        if not mine:
            text = ipam.to_text(subnet.first, subnet.bits)
            error = self._route.send(
                (route.route(text, subnet.prefix, self._index, via=self.project, source=self.host),)
            )[0]
            if error is not None:
                if error.errno == errno.EEXIST:
                    return False
                raise error
        return True

    def remove_route(self, subnet: Subnet) -> None:
        text = ipam.to_text(subnet.first, subnet.bits)
        self._route.send((route.route_delete(text, subnet.prefix, self._index),))

    def masquerade(self, network: str, subnet: Subnet) -> None:
        """Let a subnet's traffic leave the host under the host's address; also what comes back to the project."""
        if self._nft is None:
            return
        comment = f"net:{network}"
        if any(r.comment == comment for r in nft.rules(self._nft, self.table, "postrouting", nft.IPV4)):
            return
        source = nft.saddr(subnet.packed, subnet.prefix)
        nft.batch(self._nft, (nft.rule(self.table, "postrouting", source, nft.masquerade(), comment=comment),))

    def unmasquerade(self, network: str) -> None:
        self._delete_rules("postrouting", f"net:{network}")

    # -- the table -----------------------------------------------------------------------------------------------

    def _raise_table(self) -> bool:
        """Make the host's table, keeping the rules of ports and networks that are in it. False: no nf_tables here."""
        t, name = self.table, self.name
        try:
            self._nft = nft.open_nft()
            stale = (nft.table(t), nft.delete_table(t)) if self.fresh else ()
            messages = [
                *stale,
                nft.table(t),
                nft.base_chain(t, "guard", "filter", nft.PREROUTING, nft.RAW),
                nft.base_chain(t, "prerouting", "nat", nft.PREROUTING, nft.DSTNAT),
                nft.base_chain(t, "output", "nat", nft.OUTPUT, nft.DSTNAT),
                nft.base_chain(t, "postrouting", "nat", nft.POSTROUTING, nft.SRCNAT),
                nft.base_chain(t, "forward", "filter", nft.FORWARD, nft.FILTER),
                nft.chain(t, "ports"),
                *(nft.flush_chain(t, c) for c in ("guard", "prerouting", "output", "forward")),
                # route_localnet opens the host's loopback to the pair: nothing may come that way
                nft.rule(t, "guard", nft.iifname(name), nft.daddr(_LOOPBACK, 8), nft.verdict(nft.DROP)),
                nft.rule(t, "guard", nft.iifname(name), nft.saddr(_LOOPBACK, 8), nft.verdict(nft.DROP)),
                nft.rule(t, "prerouting", nft.daddr_is_local(), nft.jump("ports")),
                nft.rule(t, "output", nft.daddr_is_local(), nft.jump("ports")),
                # only published ports are open to others: neighbours, other projects
                nft.rule(t, "forward", nft.oifname(name), nft.ct_status(nft.STATUS_DNAT), nft.verdict(nft.ACCEPT)),
                nft.rule(
                    t,
                    "forward",
                    nft.oifname(name),
                    nft.ct_state(nft.ESTABLISHED | nft.RELATED),
                    nft.verdict(nft.ACCEPT),
                ),
                nft.rule(t, "forward", nft.oifname(name), nft.verdict(nft.DROP)),
            ]
            nft.batch(self._nft, messages)
            if not any(r.comment == "own" for r in nft.rules(self._nft, t, "postrouting", nft.IPV4)):
                pair = nft.saddr(route.pack(self.project), 32)
                loopback = nft.oifname(name) + nft.saddr(_LOOPBACK, 8)
                own = [nft.rule(t, "postrouting", e, nft.masquerade(), comment="own") for e in (pair, loopback)]
                nft.batch(self._nft, own)
        except OSError as e:
            if self._nft is not None:
                self._nft.close()
                self._nft = None
            self.warnings.append(f"containers can't reach other machines: nf_tables does not work here ({e.strerror})")
            return False
        self.pass_firewalls()
        return True

    def pass_firewalls(self) -> None:
        """Accept the uplink in other tables' forward chains that drop by default (dockerd's, ufw's, firewalld's)."""
        if self._nft is None:
            return
        wanted = set(_dropping(nft.chains(self._nft)))
        if not wanted:
            return
        comment = self.table
        have = {(r.family, r.table, r.chain) for r in nft.rules(self._nft) if r.comment == comment}
        messages: list[Message] = []
        for family, table, chain in sorted(wanted - have):
            for expression in (nft.oifname(self.name), nft.iifname(self.name)):
                accept = (expression, nft.verdict(nft.ACCEPT))
                messages.append(nft.rule(table, chain, *accept, family=family, comment=comment, first=True))
        if messages:
            try:
                nft.batch(self._nft, messages)
            except OSError as e:
                self.warnings.append(f"a firewall of this host may stop the containers' traffic ({e.strerror})")

    # -- ports ---------------------------------------------------------------------------------------------------

    def add_ports(self, rows: Iterable[tuple[str, str, int, str, int, str]]) -> bool:
        """Rewrite (protocol, host address, port) to (address, port); `rows` end with the comment. All or none."""
        if self._nft is None:
            return False
        have = {r.comment for r in nft.rules(self._nft, self.table, "ports", nft.IPV4)}
        messages: list[Message] = []
        for protocol, host, port, target, target_port, comment in rows:
            if comment in have:
                continue
            expressions = [] if host in ("", "0.0.0.0") else [nft.daddr(route.pack(host), 32)]
            expressions += [nft.protocol(protocol), nft.dport(port), nft.dnat(route.pack(target), target_port)]
            messages.append(nft.rule(self.table, "ports", *expressions, comment=comment))
        try:
            if messages:
                nft.batch(self._nft, messages)
        except OSError:
            return False
        return True

    def remove_ports(self, prefix: str) -> None:
        """Delete the rules whose comment begins so."""
        self._delete_rules("ports", prefix)

    def _delete_rules(self, chain: str, prefix: str) -> None:
        if self._nft is None:
            return
        found = [r for r in nft.rules(self._nft, self.table, chain, nft.IPV4) if r.comment.startswith(prefix)]
        if found:
            nft.batch(self._nft, [nft.delete_rule(r.table, r.chain, r.handle, r.family) for r in found])

    def leave(self) -> None:
        """Begin to take everything off the host again; nothing else is asked of this object but `close`."""
        if self._leaving is None:
            self._leaving = Aside(self._take_off)

    def close(self) -> None:
        """Take everything off the host, or wait until that is done. Raises OSError."""
        if self._leaving is None:
            self._take_off()
        else:
            self._leaving.wait()

    def _take_off(self) -> None:
        try:
            if self._nft is not None:
                _remove_tables(self._nft, {self.table})
        finally:
            self._route.send((route.link_delete(self._index),))  # its routes and address go with it
            self._route.close()
            if self._nft is not None:
                self._nft.close()
                self._nft = None


_ATTEMPTS = 20


def _dropping(chains: Iterable[nft.Chain]) -> Iterator[tuple[int, str, str]]:
    """The chains that accepts belong in: base chains at `forward` that drop by default, not ours."""
    rows = tuple(chains)
    docker_user = {(c.family, c.table) for c in rows if c.name == "DOCKER-USER"}
    for c in rows:
        if c.table.startswith(_TABLE) or c.hook != nft.FORWARD or c.family not in (nft.IPV4, nft.INET):
            continue
        if c.policy == nft.DROP or c.table == "firewalld":
            # dockerd keeps its own rules first in FORWARD and promises to leave DOCKER-USER alone
            name = "DOCKER-USER" if (c.family, c.table) in docker_user else c.name
            yield c.family, c.table, name


def _remove_tables(netlink: Netlink, names: set[str]) -> None:
    """Delete our tables of these names, and the accepts that carry them as their comment.

    Others (a second project, dockerd) may take away between our look and our word what we name: then it is looked anew.
    """
    for attempt in range(_ATTEMPTS):
        messages = [
            nft.delete_rule(r.table, r.chain, r.handle, r.family)
            for r in nft.rules(netlink)
            if r.comment in names and r.table not in names
        ]
        messages += [nft.delete_table(name, family) for family, name in nft.tables(netlink) if name in names]
        if not messages:
            return
        try:
            nft.batch(netlink, messages)
            return
        except OSError as e:
            if e.errno not in (errno.ENOENT, errno.EBUSY, errno.EINTR) or attempt == _ATTEMPTS - 1:
                raise


def sweep() -> tuple[str, ...]:
    """Remove the tables and accepts of projects whose interface is gone. Returns the marks of those removed."""
    try:
        with nft.open_nft() as tables, route.open_route() as links:
            # tables before links: a project that is just coming up makes its link first
            names = {name for _, name in nft.tables(tables) if name.startswith(_TABLE)}
            names |= {r.comment for r in nft.rules(tables) if r.comment.startswith(_TABLE)}
            ours = (link.name for link in route.links(links) if link.name.startswith(_PREFIX))
            dead = names - {_TABLE + name.removeprefix(_PREFIX) for name in ours}
            if dead:
                _remove_tables(tables, dead)
            return tuple(sorted(name.removeprefix(_TABLE) for name in dead))
    except OSError:
        return ()  # no nf_tables: nothing of ours is there
