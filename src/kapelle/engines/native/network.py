"""A project's network: one namespace with a bridge per network, an interface per container, names and ports.

Made for the supervisor: everything is adopted when it is there already (`fds` from the keeper, bridges and
interfaces by their names, rules by their comments), so a successor continues without cutting a connection.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Collection, Mapping, Sequence

from kapelle.engines.native import interfaces, ipam, shortcut, uplink
from kapelle.engines.native.bridges import TABLE, Bridges, words
from kapelle.engines.native.dns import Answerer, Home, Names, Server, make_sockets
from kapelle.engines.native.dnsforward import Upstream
from kapelle.engines.native.interfaces import Interface
from kapelle.engines.native.loop import Loop
from kapelle.engines.native.network_specs import EndpointSpec, NetworkSpec
from kapelle.engines.native.ports import PortSpec
from kapelle.engines.native.publishing import Publisher
from kapelle.engines.native.sharing import Neighbour
from kapelle.engines.native.shortcut import Shortcut, Way
from kapelle.engines.native.subnets import RESOLV_CONF
from kapelle.engines.native.uplink import Uplink, sysctl
from kapelle.errors import EngineError
from kapelle.light import TYPE_CHECKING, TypeVar, socket
from kapelle.linux import namespaces, nft, route
from kapelle.linux.netlink import Netlink
from kapelle.plan.observed import Endpoint, PublishedPort

if TYPE_CHECKING:
    from kapelle.engines.native.userlink import UserLink

__all__ = ["EndpointSpec", "NetworkSpec", "PortSpec", "ProjectNetwork", "sweep"]

_T = TypeVar("_T")
_OURS = ("netns", "dns-", "port:", "out-")  # beginnings of the names of our descriptors in the keeper's store


class _Attachment:
    """One container as it is attached."""

    def __init__(self, netns: int, endpoints: tuple[Endpoint, ...]) -> None:
        self.netns = netns  # inode number
        self.endpoints = endpoints
        self.server: Server | None = None


class ProjectNetwork:
    """All networks of one project. Used by one thread, with the loop of the supervisor."""

    def __init__(self, project: str, loop: Loop, reservations_dir: str, fds: Mapping[str, int]) -> None:
        """`fds` are descriptors kept over a restart; those of ours are adopted and belong to this object from now on.

        `reservations_dir` tells installations with equal project names apart. Raises EngineError KAP203.
        """
        self.project = project
        self.fds: dict[str, int] = {name: fd for name, fd in fds.items() if name.startswith(_OURS)}
        self._loop = loop
        self._home = namespaces.open_home()  # -1 rootless: threads go to other namespaces instead
        self._attached: dict[str, _Attachment] = {}
        self.names = Names()
        self.leaving = False
        self._user: UserLink | None = None  # the way out of an ordinary user
        self._neighbours: dict[str, dict[str, Neighbour]] = {}  # by network, by container id
        self._upstream = Upstream(loop, RESOLV_CONF)
        self._others: dict[tuple[str, ...], Upstream] = {}  # by a service's own servers
        try:
            fresh = "netns" not in self.fds
            if fresh:
                self.fds["netns"] = namespaces.new_netns(self._home)
            self._netns = self.fds["netns"]
            self._resident = namespaces.Resident(self._netns) if self._home < 0 else None
            self._route, tables = self._within(lambda: self._open(fresh))
            self._nft: Netlink | None = tables
            self._uplink: Uplink | UserLink = self._way_out(reservations_dir)
            self._publisher = Publisher(loop, self.fds, self._uplink, self._within)
            self._raise_table()
            self._shortcut = self._short(fresh)
            self.bridges = Bridges(self._route, self._nft, self._uplink, self._user, loop, self._home, self._within)
        except OSError as e:
            raise _no_network(project, e) from e

    def _within(self, call: Callable[[], _T]) -> _T:
        """`call()` in the project's namespace."""
        if self._resident is not None:
            return self._resident.do(call)
        return namespaces.within(self._netns, self._home, call)

    def _open(self, fresh: bool) -> tuple[Netlink, Netlink]:
        netlink, tables = route.open_route(), nft.open_nft()
        if fresh:
            self._prepare(netlink)
        # br_netfilter, loaded by others: frames between containers pass no rules here
        for kind in ("ip", "ip6", "arp"):
            sysctl(f"net/bridge/bridge-nf-call-{kind}tables", "0")
        return netlink, tables

    def _way_out(self, place: str) -> Uplink | UserLink:
        if self._home < 0:
            from kapelle.engines.native.userlink import UserLink  # not for root

            self._user = UserLink(self.project, place, self._netns, self._route, self._loop, self.fds, TABLE)
            return self._user
        return Uplink(uplink.mark_of(self.project, place), self._netns, self._home, self._route)

    def _prepare(self, netlink: Netlink) -> None:
        netlink.request((route.link_up(1),))
        for which in ("all", "default"):  # bridges and their ports need no address of their own
            sysctl(f"net/ipv6/conf/{which}/disable_ipv6", "1")

    def _raise_table(self) -> None:
        """The project namespace's own rules; rules of networks that are there stay."""
        t, up = TABLE, uplink.INSIDE
        host = route.pack(self._uplink.host)
        messages = [
            nft.table(t),
            nft.base_chain(t, "prerouting", "nat", nft.PREROUTING, nft.DSTNAT),
            nft.base_chain(t, "postrouting", "nat", nft.POSTROUTING, nft.SRCNAT),
            nft.base_chain(t, "forward", "filter", nft.FORWARD, nft.FILTER, policy=nft.DROP),
            nft.chain(t, "networks"),
            nft.chain(t, "hidden"),
            *(nft.flush_chain(t, name) for name in ("prerouting", "postrouting", "forward")),
            # a network's gateway stands for the host, as with a bridge on the host itself
            nft.rule(t, "prerouting", nft.iifname(up, False), nft.daddr_is_local(), nft.dnat(host)),
            # and the host appears to containers as their gateway
            nft.rule(t, "postrouting", nft.oifname(up, False), nft.saddr(host, 32), nft.masquerade()),
            nft.rule(t, "postrouting", nft.oifname(up), nft.jump("hidden")),
            nft.rule(t, "forward", nft.ct_state(nft.ESTABLISHED | nft.RELATED), nft.verdict(nft.ACCEPT)),
            nft.rule(t, "forward", nft.iifname(up), nft.verdict(nft.ACCEPT)),
            nft.rule(t, "forward", nft.jump("networks")),
        ]
        if self._nft is None:
            return
        try:
            nft.batch(self._nft, messages)
            if self._user is not None:
                self._user.rules(self._nft)
        except OSError as e:
            self._nft.close()
            self._nft = None
            self._uplink.warnings.append(f"networks are not isolated from each other: no nf_tables ({e.strerror})")

    def _short(self, fresh: bool) -> Shortcut | None:
        """None where packets are not the kernel's to forward, as for an ordinary user."""
        link = self._uplink
        if self._nft is None or not isinstance(link, Uplink) or not link.filtering:
            return None
        # a connection that goes over from one way to the other is not refused for what was not seen of it
        self._within(lambda: sysctl("net/netfilter/nf_conntrack_tcp_be_liberal", "1"))
        return Shortcut(self._route, self._nft, link.host, link.mac, fresh=fresh)

    @property
    def warnings(self) -> list[str]:
        """What does not work here, as sentences for the user."""
        return self._uplink.warnings

    @property
    def host_address(self) -> str:
        """The host as containers reach it: the address of host.docker.internal and host-gateway."""
        return self._uplink.host

    # -- other projects on a network -----------------------------------------------------------------------------

    def meet(self, network: str, neighbours: Sequence[Neighbour]) -> None:
        """The containers of other projects on a network: their addresses are taken, their names answer."""
        bridge = self.bridges[network]
        before = self._neighbours.get(network, {})
        now = {n.id: n for n in neighbours}
        for container_id in before.keys() - now.keys():
            self.names.remove(container_id)
            self._release(container_id)
        for neighbour in (n for n in neighbours if before.get(n.id) != n):
            for pool, text in ((bridge.v4, neighbour.ipv4), (bridge.v6, neighbour.ipv6)):
                if pool is not None and text:
                    pool.hold(neighbour.id, _asked(text))
            home = Home(network, tuple(route.pack(t.partition("/")[0]) for t in neighbour[3:] if t))
            self.names.add(neighbour.id, [(home, neighbour.aliases)], neighbour.name)
        self._neighbours[network] = now

    # -- containers ----------------------------------------------------------------------------------------------

    def attach(
        self,
        container_id: str,
        name: str,
        netns_fd: int,
        endpoints: tuple[EndpointSpec, ...],
        names: tuple[str, ...] = (),
        servers: tuple[str, ...] = (),
        links: tuple[tuple[str, str], ...] = (),
    ) -> tuple[Endpoint, ...]:
        """Give a container its interfaces, addresses, default route and name server; `lo` comes up.

        `servers` are asked for other names, instead of the host's. `names` answer on each of its networks besides
        its own name, its short id and each endpoint's aliases. `links`: (name, alias) that it alone knows.
        Endpoints are taken in their order: eth0, eth1 …; the default route is that of the highest gateway_priority,
        of the first one's among equals, and never an internal one's.
        Called again for the same namespace it changes nothing. EngineError KAP202 (address), KAP209 (network unknown).
        """
        identity = namespaces.identity(netns_fd)
        present = self._attached.get(container_id)
        if present is not None:
            if present.netns == identity:
                return present.endpoints
            self._unname(container_id)
        try:
            found = [self._place(container_id, wanted) for wanted in endpoints]
            self._wire(container_id, netns_fd, identity, endpoints, found)
        except BaseException as e:
            self._release(container_id)
            if isinstance(e, OSError):
                raise EngineError(
                    f"container {name} could not be put on its networks: {words(e)}", code="KAP203"
                ) from e
            raise
        attachment = self._attached[container_id] = _Attachment(identity, tuple(found))
        everywhere = (name, container_id[:12], *names)
        homes = [
            (Home(place.network, _packed(place)), tuple(dict.fromkeys((*everywhere, *place.aliases))))
            for place in found
        ]
        self.names.add(container_id, homes, name)
        self.names.link(container_id, links)
        if found:
            udp, tcp = (socket.socket(fileno=self.fds[f"dns-{kind}:{container_id}"]) for kind in ("udp", "tcp"))
            answerer = Answerer(self.names, container_id)
            attachment.server = Server(self._loop, answerer, self._asker(servers).forward, udp, tcp)
        return attachment.endpoints

    def _asker(self, servers: tuple[str, ...]) -> Upstream:
        """Who asks these servers; the host's when there are none."""
        if not servers:
            return self._upstream
        if servers not in self._others:
            self._others[servers] = Upstream(self._loop, RESOLV_CONF, fixed=servers)
        return self._others[servers]

    def _place(self, container_id: str, wanted: EndpointSpec) -> Endpoint:
        bridge = self.bridges.get(wanted.network)
        if bridge is None:
            raise EngineError(f"network {wanted.network} does not exist", code="KAP209", hint="kap up creates it")
        ipv4 = ipv6 = ""
        number = 0
        if bridge.v4 is not None:
            number = bridge.v4.take(container_id, _asked(wanted.ipv4), wanted.network, _asked(wanted.previous))
            ipv4 = f"{ipam.to_text(number)}/{bridge.v4.subnet.prefix}"
        if bridge.v6 is not None:
            address = bridge.v6.take(container_id, _asked(wanted.ipv6), wanted.network, _asked(wanted.previous6))
            ipv6 = f"{ipam.to_text(address, 128)}/{bridge.v6.subnet.prefix}"
        elif wanted.ipv6:
            raise EngineError(
                f"network {wanted.network} has no IPv6, but address {wanted.ipv6} is asked for",
                code="KAP202",
                hint="set enable_ipv6: true on the network",
            )
        gateway = ipam.to_text(bridge.v4.gateway) if bridge.v4 is not None else ""
        mac = wanted.mac.lower().replace("-", ":") or ipam.mac_of(number)
        return Endpoint(wanted.network, ipv4, ipv6, mac, gateway, wanted.aliases)

    def _wire(
        self,
        container_id: str,
        netns_fd: int,
        identity: int,
        wanted: tuple[EndpointSpec, ...],
        found: list[Endpoint],
    ) -> None:
        """Make the interfaces that are not there yet, and the name server's sockets."""
        wished = [
            Interface(w.ifname or f"eth{number}", self.bridges[place.network], w, place)
            for number, (w, place) in enumerate(zip(wanted, found, strict=True))
        ]
        fresh = interfaces.make(self._route, netns_fd, identity, wished)
        keys = [f"dns-{kind}:{container_id}" for kind in ("udp", "tcp")]
        sockets_missing = bool(found) and not all(key in self.fds for key in keys)
        if not fresh and not sockets_missing and found:
            return

        def equip() -> None:
            interfaces.bring_up(fresh, wished)
            if sockets_missing:
                for key, made in zip(keys, make_sockets(), strict=True):
                    self.fds[key] = made.detach()

        namespaces.within(netns_fd, self._home, equip)

    def detach(self, container_id: str) -> None:
        """Forget a container that has ended: names, ports, addresses. Its interfaces die with its namespace."""
        self.unpublish(container_id)
        self._unname(container_id)
        self._release(container_id)

    def _unname(self, container_id: str) -> None:
        attachment = self._attached.pop(container_id, None)
        self.names.remove(container_id)
        if attachment is not None and attachment.server is not None:
            attachment.server.close()
            for kind in ("udp", "tcp"):
                self.fds.pop(f"dns-{kind}:{container_id}", None)
        for kind in ("udp", "tcp"):  # adopted, never attached
            fd = self.fds.pop(f"dns-{kind}:{container_id}", -1)
            if fd >= 0:
                os.close(fd)

    def _release(self, container_id: str) -> None:
        for bridge in self.bridges:
            bridge.release(container_id)

    def unknown_names(self, container_id: str) -> dict[str, int]:
        """Single-label names the container asked for that nobody here has, and how often."""
        attachment = self._attached.get(container_id)
        return dict(attachment.server.answerer.unknown) if attachment is not None and attachment.server else {}

    # -- ports ---------------------------------------------------------------------------------------------------

    def publish(self, container_id: str, wanted: tuple[PortSpec, ...]) -> tuple[PublishedPort, ...]:
        """Publish ports of an attached container; those that are published already stay as they are.

        A container that is only on internal networks publishes nothing, as with Docker. EngineError KAP201.
        """
        attachment = self._attached.get(container_id)
        if attachment is None:
            raise EngineError(f"container {container_id[:12]} is on no network", code="KAP209")
        place = next((p for p in attachment.endpoints if not self.bridges[p.network].spec.internal), None)
        if place is None or not wanted:
            return ()
        address, bridge = place.ipv4.partition("/")[0], self.bridges[place.network]
        tcp = {port.target for port in wanted if port.protocol == "tcp" and ":" not in port.host_ip}
        # packets of another size than the uplink's need the ordinary way, which tells their sender
        fits = bridge.routed and bridge.mtu == self._uplink.mtu and shortcut.is_worth_it(tcp)
        by_shortcut = self._shortcut if fits else None
        if by_shortcut is not None:  # before the first packet can come
            way = Way(interfaces.outer_name(attachment.netns, bridge), address, place.mac, place.gateway)
            by_shortcut.lead(container_id, way, tcp)
        elif self._shortcut is not None:
            self._shortcut.forget(container_id)
        return self._publisher.publish(
            container_id, wanted, address, routed=bridge.routed, from_host=by_shortcut is not None
        )

    def unpublish(self, container_id: str) -> None:
        """Take a container's ports back; they are free at once."""
        self._publisher.unpublish(container_id)
        if self._shortcut is not None and not self.leaving:
            self._shortcut.forget(container_id)

    def adopted(self) -> None:
        """Whoever of a predecessor's containers is alive has been attached again: forget the others."""
        if self._shortcut is not None:
            self._shortcut.forget_others()

    # -- end -----------------------------------------------------------------------------------------------------

    def leave(self) -> None:
        """Begin to `close`, beside what else is done: no container is on it, and nobody comes to it any more."""
        self.leaving = True
        self._uplink.leave()

    def close(self) -> None:
        """Take everything off the host and close all descriptors; the namespace goes with the last of them."""
        self.bridges.close()
        self._uplink.close()
        self._publisher.close()
        for container_id in tuple(self._attached):
            self._unname(container_id)
        for asker in (self._upstream, *self._others.values()):
            asker.close()
        self._route.close()
        if self._nft is not None:
            self._nft.close()
        for fd in self.fds.values():
            os.close(fd)
        self.fds.clear()
        if self._resident is not None:
            self._resident.close()
        if self._home >= 0:
            os.close(self._home)


def sweep(live_projects: Collection[str] = ()) -> tuple[str, ...]:
    """Remove from the host what projects left that were killed whole. Returns the marks of those removed.

    Truth is the kernel's: a project lives as long as its uplink does, so the names given are not needed.
    """
    return uplink.sweep()


def _no_network(project: str, e: OSError) -> EngineError:
    return EngineError(
        f"the network of project {project} could not be created: {words(e)}",
        code="KAP203",
        hint="kap doctor tells what this machine allows" if e.errno in (errno.EPERM, errno.EACCES) else "",
    )


def _asked(address: str) -> int:
    """The number of a wanted address, 0 when none is. EngineError KAP202 when it is none."""
    if not address:
        return 0
    try:
        return ipam.to_number(address.partition("/")[0])[0]
    except ValueError as e:
        raise EngineError(str(e), code="KAP202") from None


def _packed(place: Endpoint) -> tuple[bytes, ...]:
    return tuple(route.pack(text.partition("/")[0]) for text in (place.ipv4, place.ipv6) if text)
