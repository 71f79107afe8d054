"""Links, addresses and routes: rtnetlink(7) messages packed by hand, and what dumps of them say.

Every function that changes something returns a message, so that a caller sends many at once.
"""

from __future__ import annotations

import struct

from kapelle.light import NamedTuple, socket
from kapelle.linux.netlink import (
    CREATE,
    EXCL,
    NETLINK_ROUTE,
    REPLACE,
    Message,
    Netlink,
    as_text,
    attribute,
    attributes,
    nested,
    text,
    u32,
)

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_SETLINK = 16, 17, 18, 19
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26

RTM_NEWNEIGH = 28

IFF_UP = 1
SCOPE_GLOBAL, SCOPE_LINK, SCOPE_HOST = 0, 253, 254
TABLE_MAIN, TABLE_LOCAL = 254, 255
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_MASTER = 1, 3, 4, 10
_AF_BRIDGE = 7
_IFLA_PROTINFO, _IFLA_BRPORT_ISOLATED = 12, 33
_IFLA_LINKINFO, _IFLA_AF_SPEC, _IFLA_NET_NS_FD = 18, 26, 28
_IFLA_INFO_KIND, _IFLA_INFO_DATA = 1, 2
_VETH_INFO_PEER = 1
_IFLA_BR_FORWARD_DELAY, _IFLA_BR_STP_STATE = 1, 5
_IFLA_INET6_ADDR_GEN_MODE = 8
_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS = 1, 2, 8
_IFA_F_NODAD, _IFA_F_NOPREFIXROUTE = 0x02, 0x200
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_PREFSRC, _RTA_TABLE = 1, 4, 5, 6, 7, 15
_NDA_DST, _NDA_LLADDR = 1, 2
_NUD_PERMANENT = 0x80
_NEIGHBOUR = struct.Struct("=BxxxiHBB")  # family, index, state, flags, type
_RTNH_F_ONLINK = 4
_RTPROT_STATIC = 4
_RTN_UNICAST = 1
_IFINFO = struct.Struct("=BxHiII")  # family, hardware type, index, flags, which flags change
_IFADDR = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index
_ROUTE = struct.Struct("=BBBBBBBBI")  # family, dst_len, src_len, tos, table, protocol, scope, type, flags


class Link(NamedTuple):
    ifindex: int
    name: str
    kind: str  # "bridge", "veth", "" for a device
    mac: str
    mtu: int
    master: int
    up: bool


class Route(NamedTuple):
    family: int
    destination: bytes  # packed; b"" is the default route
    prefix: int
    link: int
    gateway: bytes
    table: int
    type: int


def open_route() -> Netlink:
    """An rtnetlink socket in the calling thread's network namespace."""
    return Netlink(NETLINK_ROUTE)


def pack(address: str) -> bytes:
    """An address as bytes; OSError when it is none."""
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


def _family(packed: bytes) -> int:
    return socket.AF_INET if len(packed) == 4 else socket.AF_INET6


def mac_bytes(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", "").replace("-", ""))


def bridge(name: str, mac: str, mtu: int = 1500) -> Message:
    """Make a bridge that is up and forwards at once. Its own address is fixed: it must not follow its ports'."""
    data = nested(_IFLA_INFO_DATA, u32(_IFLA_BR_FORWARD_DELAY, 0), u32(_IFLA_BR_STP_STATE, 0))
    body = _IFINFO.pack(0, 0, 0, IFF_UP, IFF_UP) + b"".join(
        (
            text(_IFLA_IFNAME, name),
            attribute(_IFLA_ADDRESS, mac_bytes(mac)),
            u32(_IFLA_MTU, mtu),
            nested(_IFLA_LINKINFO, text(_IFLA_INFO_KIND, "bridge"), data),
        )
    )
    return Message(RTM_NEWLINK, CREATE | EXCL, body, f"bridge {name}")


def veth(
    name: str,
    peer: str,
    peer_netns: int,
    *,
    master: int = 0,
    mac: str = "",
    peer_mac: str = "",
    mtu: int = 1500,
    up: bool = True,
) -> Message:
    """Make a pair: `name` here (up, on bridge `master`), `peer` in the namespace of descriptor `peer_netns` (down).

    A MAC address that is not given is a random one, and then systemd-udevd puts another in its place.
    """
    other = _IFINFO.pack(0, 0, 0, 0, 0) + text(_IFLA_IFNAME, peer) + u32(_IFLA_NET_NS_FD, peer_netns)
    other += u32(_IFLA_MTU, mtu)
    if peer_mac:
        other += attribute(_IFLA_ADDRESS, mac_bytes(peer_mac))
    flags = IFF_UP if up else 0
    body = _IFINFO.pack(0, 0, 0, flags, flags) + text(_IFLA_IFNAME, name) + u32(_IFLA_MTU, mtu)
    if mac:
        body += attribute(_IFLA_ADDRESS, mac_bytes(mac))
    if master:
        body += u32(_IFLA_MASTER, master)
    body += nested(
        _IFLA_LINKINFO, text(_IFLA_INFO_KIND, "veth"), nested(_IFLA_INFO_DATA, attribute(_VETH_INFO_PEER, other))
    )
    return Message(RTM_NEWLINK, CREATE | EXCL, body, f"interface {name}")


def link_up(index: int) -> Message:
    return Message(RTM_SETLINK, 0, _IFINFO.pack(0, 0, index, IFF_UP, IFF_UP), f"interface {index}")


def bridge_port(index: int, master: int, *, isolated: bool = False) -> tuple[Message, ...]:
    """Put an interface on a bridge, up; isolated ports do not speak to each other (bridge(8))."""
    about = f"interface {index} on bridge {master}"
    on = _IFINFO.pack(0, 0, index, IFF_UP, IFF_UP) + u32(_IFLA_MASTER, master)
    messages = [Message(RTM_SETLINK, 0, on, about)]
    if isolated:
        port = _IFINFO.pack(_AF_BRIDGE, 0, index, 0, 0)
        port += nested(_IFLA_PROTINFO, attribute(_IFLA_BRPORT_ISOLATED, b"\x01"))
        messages.append(Message(RTM_SETLINK, 0, port, about))
    return tuple(messages)


def no_link_local(index: int) -> Message:
    """No IPv6 address comes by itself (IN6_ADDR_GEN_MODE_NONE): no duplicate detection, no router solicitations."""
    mode = attribute(_IFLA_INET6_ADDR_GEN_MODE, b"\x01")
    body = _IFINFO.pack(0, 0, index, 0, 0) + nested(_IFLA_AF_SPEC, nested(socket.AF_INET6, mode))
    return Message(RTM_SETLINK, 0, body, f"interface {index}")


def link_delete(index: int) -> Message:
    return Message(RTM_DELLINK, 0, _IFINFO.pack(0, 0, index, 0, 0), f"interface {index}")


def address(index: int, local: str, prefix: int, *, host_only: bool = False) -> Message:
    """Give an interface an address. With `host_only` no route to its subnet comes with it."""
    packed = pack(local)
    flags = (_IFA_F_NODAD if len(packed) == 16 else 0) | (_IFA_F_NOPREFIXROUTE if host_only else 0)
    body = _IFADDR.pack(_family(packed), prefix, 0, SCOPE_GLOBAL, index)
    body += attribute(_IFA_LOCAL, packed) + attribute(_IFA_ADDRESS, packed) + u32(_IFA_FLAGS, flags)
    return Message(RTM_NEWADDR, CREATE | EXCL, body, f"address {local}/{prefix}")


def address_delete(index: int, local: str, prefix: int) -> Message:
    packed = pack(local)
    body = _IFADDR.pack(_family(packed), prefix, 0, SCOPE_GLOBAL, index)
    body += attribute(_IFA_LOCAL, packed) + attribute(_IFA_ADDRESS, packed)
    return Message(RTM_DELADDR, 0, body, f"address {local}/{prefix}")


def neighbour(index: int, address: str, mac: str) -> Message:
    """Where on an interface an address is, for good: nobody has to answer for it."""
    packed = pack(address)
    body = _NEIGHBOUR.pack(_family(packed), index, _NUD_PERMANENT, 0, 0)
    body += attribute(_NDA_DST, packed) + attribute(_NDA_LLADDR, mac_bytes(mac))
    return Message(RTM_NEWNEIGH, CREATE | REPLACE, body, f"neighbour {address}")


def route(
    destination: str, prefix: int, link: int, *, via: str = "", source: str = "", replace: bool = False
) -> Message:
    """A route in the main table; destination "" with `via` is the default route of `via`'s family.

    Made exclusively (EEXIST when there is one to the same destination), or with `replace` put in its place.
    `via` need not be on the link's subnet.
    """
    gateway = pack(via) if via else b""
    packed = pack(destination) if destination else b""
    family = _family(packed or gateway)
    scope = SCOPE_GLOBAL if gateway or family == socket.AF_INET6 else SCOPE_LINK
    flags = _RTNH_F_ONLINK if gateway else 0
    body = _ROUTE.pack(family, prefix, 0, 0, TABLE_MAIN, _RTPROT_STATIC, scope, _RTN_UNICAST, flags)
    if packed:
        body += attribute(_RTA_DST, packed)
    if gateway:
        body += attribute(_RTA_GATEWAY, gateway)
    if source:
        body += attribute(_RTA_PREFSRC, pack(source))
    body += u32(_RTA_OIF, link)
    about = f"route to {destination or 'default'}/{prefix}"
    return Message(RTM_NEWROUTE, CREATE | (REPLACE if replace else EXCL), body, about)


def route_delete(destination: str, prefix: int, link: int) -> Message:
    packed = pack(destination)
    body = _ROUTE.pack(_family(packed), prefix, 0, 0, TABLE_MAIN, 0, 255, 0, 0)
    body += attribute(_RTA_DST, packed) + u32(_RTA_OIF, link)
    return Message(RTM_DELROUTE, 0, body, f"route to {destination}/{prefix}")


def _link(body: bytes) -> Link:
    _family, _hardware, index, flags, _change = _IFINFO.unpack_from(body)
    found = attributes(body, _IFINFO.size)
    info = attributes(found.get(_IFLA_LINKINFO, b""))
    return Link(
        index,
        as_text(found.get(_IFLA_IFNAME)),
        as_text(info.get(_IFLA_INFO_KIND)),
        found.get(_IFLA_ADDRESS, b"").hex(":"),
        int.from_bytes(found.get(_IFLA_MTU, b""), "little" if _LITTLE else "big"),
        int.from_bytes(found.get(_IFLA_MASTER, b""), "little" if _LITTLE else "big"),
        bool(flags & IFF_UP),
    )


_LITTLE = struct.pack("=H", 1) == b"\1\0"


def links(netlink: Netlink) -> list[Link]:
    """All interfaces of the socket's namespace."""
    return [_link(body) for _, body in netlink.dump(Message(RTM_GETLINK, 0, _IFINFO.pack(0, 0, 0, 0, 0)))]


def link(netlink: Netlink, name: str) -> Link | None:
    """The interface of that name, or None."""
    body = _IFINFO.pack(0, 0, 0, 0, 0) + text(_IFLA_IFNAME, name)
    try:
        answers = netlink.ask(Message(RTM_GETLINK, 0, body, f"interface {name}"))
    except OSError:
        return None
    return _link(answers[0][1]) if answers else None


def routes(netlink: Netlink, family: int = socket.AF_INET) -> list[Route]:
    """All routes of one family, in every table."""
    found: list[Route] = []
    for _, body in netlink.dump(Message(RTM_GETROUTE, 0, _ROUTE.pack(family, *(0,) * 8))):
        kind, prefix, _, _, table, _, _, type_, _ = _ROUTE.unpack_from(body)
        rows = attributes(body, _ROUTE.size)
        if _RTA_TABLE in rows:
            table = struct.unpack("=I", rows[_RTA_TABLE])[0]
        oif = struct.unpack("=I", rows[_RTA_OIF])[0] if _RTA_OIF in rows else 0
        found.append(Route(kind, rows.get(_RTA_DST, b""), prefix, oif, rows.get(_RTA_GATEWAY, b""), table, type_))
    return found


def addresses(netlink: Netlink, family: int = socket.AF_INET) -> list[tuple[int, bytes, int]]:
    """(interface index, packed address, prefix length) of every address of one family."""
    found: list[tuple[int, bytes, int]] = []
    for _, body in netlink.dump(Message(RTM_GETADDR, 0, _IFADDR.pack(family, 0, 0, 0, 0))):
        _kind, prefix, _flags, _scope, index = _IFADDR.unpack_from(body)
        rows = attributes(body, _IFADDR.size)
        found.append((index, rows.get(_IFA_LOCAL) or rows.get(_IFA_ADDRESS, b""), prefix))
    return found
