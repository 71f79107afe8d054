"""The networks of a project: a bridge each in its namespace, rules that keep them apart, ways between projects."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator

from kapelle.engines.native import ipam, network_options, uplink
from kapelle.engines.native.ipam import Addresses
from kapelle.engines.native.loop import Loop
from kapelle.engines.native.network_specs import NetworkSpec
from kapelle.engines.native.subnets import checked, choose
from kapelle.engines.native.uplink import Uplink, sysctl
from kapelle.errors import EngineError
from kapelle.light import TYPE_CHECKING, Any, socket
from kapelle.linux import namespaces, nft, route
from kapelle.linux.netlink import Netlink

if TYPE_CHECKING:
    from kapelle.engines.native.userlink import UserLink

TABLE = "kapelle"  # in the project's own namespace
_LINGER = 0.5  # seconds


class Bridge:
    """One network as it is."""

    def __init__(self, spec: NetworkSpec, index: int, mtu: int) -> None:
        self.spec = spec
        self.index = index
        self.mtu = mtu
        self.v4: Addresses | None = None
        self.v6: Addresses | None = None
        self.routed = True  # the host has a route to it

    @property
    def name(self) -> str:
        """The interface's."""
        return name_of(self.spec)

    def release(self, container_id: str) -> None:
        """Its addresses are free again."""
        for pool in (self.v4, self.v6):
            if pool is not None:
                pool.release(container_id)


class Bridges:
    """Makes, adopts and removes them, by the names of their networks."""

    def __init__(
        self,
        links: Netlink,
        tables: Netlink | None,
        way_out: Uplink | UserLink,
        user: UserLink | None,
        loop: Loop,
        home: int,
        within: Callable[[Callable[[], Any]], Any],
    ) -> None:
        """Both sockets are of the project's namespace (no `tables`: no rules can be made there).

        `user`: the way out, when it is an ordinary user's. `home`: the supervisor's own namespace, -1 when its threads
        can't come back to it. `within` calls in the project's.
        """
        self.elsewhere: Callable[[], list[str]] = list  # subnets of networks that may be shared with us later
        self._route = links
        self._nft = tables
        self._uplink = way_out
        self._user = user
        self._loop = loop
        self._home = home
        self._within = within
        self._known: dict[str, Bridge] = {}
        self._dying: list[int] = []  # interfaces of removed networks

    def __getitem__(self, network: str) -> Bridge:
        return self._known[network]

    def __iter__(self) -> Iterator[Bridge]:
        return iter(self._known.values())

    def get(self, network: str) -> Bridge | None:
        return self._known.get(network)

    def add(self, spec: NetworkSpec) -> NetworkSpec:
        """Make a network, or adopt it. Returns the spec with subnets and gateways filled in.

        EngineError KAP207: a subnet or gateway that can't be; KAP208: a driver that this engine does not have.
        """
        known = self._known.get(spec.name)
        if known is not None:
            return known.spec
        if spec.driver not in ("", "bridge", "default"):
            raise EngineError(
                f"network {spec.name}: the native engine has no network driver {spec.driver!r}",
                code="KAP208",
                hint="leave driver out (bridge), or use --engine docker",
            )
        name = name_of(spec)
        try:
            found = route.link(self._route, name)
            bridge = self._adopt(spec, found) if found is not None else self._make(spec, name)
        except OSError as e:
            raise EngineError(f"network {spec.name} could not be created: {words(e)}", code="KAP203") from e
        self._known[spec.name] = bridge
        return bridge.spec

    def _adopt(self, spec: NetworkSpec, link: route.Link) -> Bridge:
        subnets: list[str] = []
        gateways: list[str] = []
        for family in (socket.AF_INET, socket.AF_INET6):
            for index, packed, prefix in route.addresses(self._route, family):
                if index == link.ifindex and packed[:2] != b"\xfe\x80":
                    subnets.append(str(ipam.parse_subnet(f"{socket.inet_ntop(family, packed)}/{prefix}")))
                    gateways.append(socket.inet_ntop(family, packed))
        if not subnets:  # whoever made it was killed before it had its addresses
            self._route.request((route.link_delete(link.ifindex),))
            return self._make(spec, name_of(spec))
        bridge = Bridge(spec._replace(subnets=tuple(subnets), gateways=tuple(gateways)), link.ifindex, link.mtu)
        self._fill(bridge)
        if bridge.v4 is not None:
            bridge.routed = self._uplink.add_route(bridge.v4.subnet)
        self._write_rules(bridge)
        return bridge

    def _make(self, spec: NetworkSpec, name: str) -> Bridge:
        others = [
            (name, pool.subnet)
            for name, other in self._known.items()
            for pool in (other.v4, other.v6)
            if pool is not None
        ]
        subnets, gateways, routed = choose(spec, others, self._uplink, self.elsewhere)
        mtu = _mtu(spec, self._uplink.mtu)
        bridge = Bridge(spec, 0, mtu)
        bridge.spec = spec._replace(
            subnets=tuple(map(str, subnets)),
            gateways=tuple(ipam.to_text(g, s.bits) for s, g in zip(subnets, gateways, strict=True)),
        )
        bridge.routed = routed
        self._fill(bridge)
        mac = ipam.mac_of(gateways[0])
        self._route.request((route.bridge(name, mac, mtu),))
        made = route.link(self._route, name)
        if made is None:
            raise FileNotFoundError(errno.ENODEV, "the bridge vanished while it was made")
        bridge.index = made.ifindex
        if any(s.bits == 128 for s in subnets):
            self._within(lambda: sysctl(f"net/ipv6/conf/{name}/disable_ipv6", "0"))
        self._route.request(
            [
                route.address(bridge.index, ipam.to_text(g, s.bits), s.prefix)
                for s, g in zip(subnets, gateways, strict=True)
            ]
        )
        self._write_rules(bridge)
        return bridge

    def _fill(self, bridge: Bridge) -> None:
        spec = bridge.spec
        ranges = [checked(spec.name, "ip_range", text, ipam.parse_subnet) for text in spec.ip_ranges if text]
        for text, gateway in zip(spec.subnets, spec.gateways, strict=True):
            subnet = ipam.parse_subnet(text)
            only = next((r for r in ranges if r.overlaps(subnet)), None)
            pool = Addresses(subnet, ipam.to_number(gateway)[0], only)
            if subnet.bits == 32:
                bridge.v4 = pool
            else:
                bridge.v6 = pool
        for text in spec.reserved:
            number, bits = checked(spec.name, "aux address", text, ipam.to_number)
            there = bridge.v4 if bits == 32 else bridge.v6
            if there is not None:
                there.reserve(number)

    def _write_rules(self, bridge: Bridge) -> None:
        spec, name = bridge.spec, bridge.name
        comment = f"net:{spec.name}"
        if bridge.v6 is not None and self._user is not None:
            gateway = ipam.to_text(bridge.v6.gateway, 128)
            self._user.add_network6(spec.name, name, bridge.v6.subnet, gateway, internal=spec.internal)
        if bridge.v4 is None:
            return
        subnet = bridge.v4.subnet
        if self._user is not None:
            self._user.keep_inside(spec.name, subnet, ipam.to_text(bridge.v4.gateway))
        if not spec.internal and bridge.routed:
            self._uplink.masquerade(spec.name, subnet)
        if self._nft is None or any(r.comment == comment for r in nft.rules(self._nft, TABLE, "networks", nft.IPV4)):
            return
        accept = nft.verdict(nft.ACCEPT)
        messages = [nft.rule(TABLE, "networks", nft.iifname(name), nft.oifname(name), accept, comment=comment)]
        if not spec.internal:
            out = (nft.iifname(name), nft.oifname(uplink.INSIDE), accept)
            messages.append(nft.rule(TABLE, "networks", *out, comment=comment))
            if not bridge.routed:  # the host could not send answers back: leave under the uplink's own address
                hide = (nft.saddr(subnet.packed, subnet.prefix), nft.masquerade())
                messages.append(nft.rule(TABLE, "hidden", *hide, comment=comment))
        nft.batch(self._nft, messages)

    def remove(self, name: str) -> None:
        """Remove a network; one that is not there is fine."""
        bridge = self._known.pop(name, None)
        if bridge is None:
            return
        self._uplink.unmasquerade(name)
        if bridge.v4 is not None and bridge.routed:
            self._uplink.remove_route(bridge.v4.subnet)
        if self._nft is not None:
            rules = [r for r in nft.rules(self._nft, TABLE) if r.comment == f"net:{name}"]
            if rules:
                nft.batch(self._nft, [nft.delete_rule(r.table, r.chain, r.handle, r.family) for r in rules])
        # The kernel takes its time over a bridge (tens of milliseconds), and it goes with the namespace anyway, which
        # ends soon after a `down`: without its addresses it is in nobody's way until then.
        self._route.send(
            [
                route.address_delete(bridge.index, gateway, ipam.parse_subnet(subnet).prefix)
                for subnet, gateway in zip(bridge.spec.subnets, bridge.spec.gateways, strict=True)
            ]
        )
        self._dying.append(bridge.index)
        self._loop.later(_LINGER, self._bury)

    def _bury(self) -> None:
        """Delete the bridges of removed networks."""
        if self._dying:
            self._route.send([route.link_delete(index) for index in self._dying])
        self._dying.clear()

    def close(self) -> None:
        """The namespace ends, and they with it."""
        self._dying.clear()

    def wire(self, network: str, mark: str, netns: int) -> None:
        """Join our bridge of a network with that of the project of `mark`, in its namespace. Raises OSError."""
        bridge = self._known[network]
        far_bridge, tail = bridge.name, bridge.spec.id[:5]
        near_name, far_name = f"x{mark}{tail}", f"x{self._uplink.mark}{tail}"

        def plug() -> None:
            with route.open_route() as there:
                far = route.link(there, far_name)
                master = route.link(there, far_bridge)
                if far is not None and master is not None:
                    there.request(route.bridge_port(far.ifindex, master.ifindex, isolated=True))

        def ready() -> bool:
            with route.open_route() as there:
                return route.link(there, far_bridge) is not None

        if not namespaces.within(netns, self._home, ready):
            return  # it is on the network and has not made its bridge yet: it wires itself to us then
        error = self._route.send((route.veth(near_name, far_name, netns, master=bridge.index, mtu=bridge.mtu),))[0]
        if error is not None and error.errno != errno.EEXIST:
            raise error
        near = route.link(self._route, near_name)
        if near is not None:
            self._route.request(route.bridge_port(near.ifindex, bridge.index, isolated=True))
            namespaces.within(netns, self._home, plug)


def _mtu(spec: NetworkSpec, default: int) -> int:
    wanted = dict(spec.options).get(network_options.MTU, "")
    if not wanted:
        return default
    if not (wanted.isascii() and wanted.isdigit() and 68 <= int(wanted) <= 65535):
        raise EngineError(
            f"network {spec.name}: com.docker.network.driver.mtu is {wanted!r}, not a number from 68 to 65535",
            code="KAP207",
        )
    return int(wanted)


def name_of(network: NetworkSpec) -> str:
    """The bridge's interface, as Docker calls its own."""
    return "br-" + network.id[:12]


def words(e: OSError) -> str:
    """What the kernel said, and about what."""
    return f"{e.filename}: {e.strerror}" if e.filename else str(e.strerror or e)
