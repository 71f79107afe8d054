"""nf_tables by netlink: tables, chains, rules and the few expressions that they are made of.

Source: linux/netfilter/nf_tables.h. A batch is a transaction: all of it happens or nothing (nft(8)).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from kapelle.light import NamedTuple, socket
from kapelle.linux.netlink import (
    ACK,
    APPEND,
    CREATE,
    NETLINK_NETFILTER,
    REQUEST,
    Message,
    Netlink,
    as_text,
    attribute,
    attributes,
    be32,
    error_of,
    nested,
    text,
)

INET, IPV4, NETDEV, IPV6 = 1, 2, 5, 10  # families
PREROUTING, INPUT, FORWARD, OUTPUT, POSTROUTING = range(5)
INGRESS = 0  # of NETDEV: where a packet comes in at an interface, before routing and bridges
RAW, DSTNAT, FILTER, SRCNAT = -300, -100, 0, 100  # usual priorities
DROP, ACCEPT = 0, 1
_JUMP = -3
GROUP = 7  # NFNLGRP_NFTABLES: news of every change

_SUBSYSTEM = 10 << 8
NEWTABLE, GETTABLE, DELTABLE, NEWCHAIN, GETCHAIN, DELCHAIN, NEWRULE, GETRULE, DELRULE = (
    _SUBSYSTEM | number for number in range(9)
)
_NEWSET, _NEWELEMENT, _DELELEMENT = (_SUBSYSTEM | number for number in (9, 12, 14))
_BATCH_BEGIN, _BATCH_END = 16, 17
_ERROR = 2

ESTABLISHED, RELATED = 2, 4  # bits of the connection's state
STATUS_DNAT = 32  # bit of its status: the destination was rewritten


class Chain(NamedTuple):
    family: int
    table: str
    name: str
    hook: int  # -1: not a base chain
    priority: int
    policy: int  # -1: none
    type: str


class Rule(NamedTuple):
    family: int
    table: str
    chain: str
    handle: int
    comment: str


def open_nft(groups: tuple[int, ...] = ()) -> Netlink:
    """A netfilter socket in the calling thread's network namespace."""
    return Netlink(NETLINK_NETFILTER, groups)


def _message(kind: int, flags: int, family: int, body: bytes, about: str) -> Message:
    return Message(kind, flags, struct.pack(">BBH", family, 0, 0) + body, about)


def table(name: str, family: int = IPV4) -> Message:
    """Make a table; none of the same name is an error."""
    return _message(NEWTABLE, CREATE, family, text(1, name), f"table {name}")


def delete_table(name: str, family: int = IPV4) -> Message:
    """Delete a table with all in it; ENOENT when there is none."""
    return _message(DELTABLE, 0, family, text(1, name), f"table {name}")


def chain(table: str, name: str, family: int = IPV4) -> Message:
    """Make a chain to jump to."""
    return _message(NEWCHAIN, CREATE, family, text(1, table) + text(3, name), f"chain {name}")


def base_chain(
    table: str,
    name: str,
    kind: str,
    hook: int,
    priority: int,
    *,
    family: int = IPV4,
    policy: int = ACCEPT,
    device: str = "",
) -> Message:
    """Make a chain that the kernel calls at `hook`; `kind` is filter or nat. `device`: of a chain of NETDEV."""
    body = text(1, table) + text(3, name)
    place = (be32(1, hook), be32(2, priority), *((text(3, device),) if device else ()))
    body += nested(4, *place) + be32(5, policy) + text(7, kind)
    return _message(NEWCHAIN, CREATE, family, body, f"chain {name}")


def delete_chain(table: str, name: str, family: int = IPV4) -> Message:
    """Delete a chain with its rules; EBUSY while something leads there."""
    return _message(DELCHAIN, 0, family, text(1, table) + text(3, name), f"chain {name}")


def flush_chain(table: str, name: str, family: int = IPV4) -> Message:
    """Delete every rule of a chain."""
    return _message(DELRULE, 0, family, text(1, table) + text(2, name), f"chain {name}")


def rule(
    table: str, chain: str, *expressions: bytes, family: int = IPV4, comment: str = "", first: bool = False
) -> Message:
    """Add a rule at the chain's end (or start). `comment` is how it is found again."""
    body = text(1, table) + text(2, chain) + nested(4, *expressions)
    if comment:
        value = comment.encode()[:250] + b"\0"
        body += attribute(7, bytes((0, len(value))) + value)  # libnftnl's type-length-value; type 0 is a comment
    return _message(NEWRULE, CREATE | (0 if first else APPEND), family, body, f"rule of chain {chain}")


def delete_rule(table: str, chain: str, handle: int, family: int = IPV4) -> Message:
    body = text(1, table) + text(2, chain) + attribute(3, struct.pack(">Q", handle))
    return _message(DELRULE, 0, family, body, f"rule of chain {chain}")


def verdict_map(table: str, name: str, family: int = IPV4) -> Message:
    """Make a map from IPv4 addresses to chains; `by_daddr` goes by it."""
    a_map, address, verdict = be32(3, 8), be32(4, 7) + be32(5, 4), be32(6, 0xFFFFFF00)
    body = text(1, table) + text(2, name) + a_map + address + verdict + be32(10, 1)
    return _message(_NEWSET, CREATE, family, body, f"map {name}")


def add_to_map(table: str, name: str, packed: bytes, chain: str, family: int = IPV4) -> Message:
    """Have what goes to an address pass a chain. EEXIST when it passes another one already."""
    jump = nested(2, nested(2, be32(1, _JUMP), text(2, chain)))
    return _element(_NEWELEMENT, CREATE, table, name, nested(1, attribute(1, packed)) + jump, family)


def delete_from_map(table: str, name: str, packed: bytes, family: int = IPV4) -> Message:
    return _element(_DELELEMENT, 0, table, name, nested(1, attribute(1, packed)), family)


def _element(kind: int, flags: int, table: str, name: str, element: bytes, family: int) -> Message:
    body = text(1, table) + text(2, name) + nested(3, nested(1, element))
    return _message(kind, flags, family, body, f"element of map {name}")


# -- expressions -----------------------------------------------------------------------------------------------------


def _expression(name: str, *data: bytes) -> bytes:
    return nested(1, text(1, name), nested(2, *data))


def _compare(value: bytes, equal: bool = True, register: int = 1) -> bytes:
    return _expression("cmp", be32(1, register), be32(2, 0 if equal else 1), nested(3, attribute(1, value)))


def _meta(key: int, register: int = 1) -> bytes:
    return _expression("meta", be32(1, register), be32(2, key))


def _name(name: str) -> bytes:
    """An interface name as compared by the kernel: 16 bytes, or fewer when it ends in "*"."""
    return name[:-1].encode() if name.endswith("*") else name.encode().ljust(16, b"\0")


def iifname(name: str, equal: bool = True) -> bytes:
    return _meta(6) + _compare(_name(name), equal)


def oifname(name: str, equal: bool = True) -> bytes:
    return _meta(7) + _compare(_name(name), equal)


def _payload(base: int, offset: int, length: int) -> bytes:
    return _expression("payload", be32(1, 1), be32(2, base), be32(3, offset), be32(4, length))


def _network(offset: int, packed: bytes, prefix: int, equal: bool) -> bytes:
    bits = len(packed) * 8
    found = _payload(1, offset, len(packed))
    if prefix < bits:
        mask = ((1 << bits) - (1 << (bits - prefix))).to_bytes(len(packed), "big")
        packed = bytes(a & b for a, b in zip(packed, mask, strict=True))
        found += _mask(mask)
    return found + _compare(packed, equal)


def saddr(packed: bytes, prefix: int, equal: bool = True) -> bytes:
    return _network(12 if len(packed) == 4 else 8, packed, prefix, equal)


def daddr(packed: bytes, prefix: int, equal: bool = True) -> bytes:
    return _network(16 if len(packed) == 4 else 24, packed, prefix, equal)


def protocol(name: str) -> bytes:
    number = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP, "sctp": socket.IPPROTO_SCTP}[name]
    return _meta(16) + _compare(bytes((number,)))


def dport(port: int) -> bytes:
    """Destination port; `protocol` comes before it."""
    return _payload(2, 2, 2) + _compare(struct.pack(">H", port))


def sport(port: int) -> bytes:
    """Source port; `protocol` comes before it."""
    return _payload(2, 0, 2) + _compare(struct.pack(">H", port))


def whole_ipv4() -> bytes:
    """An IPv4 packet that is no fragment (RFC 791: neither more fragments nor an offset)."""
    version = _meta(1) + _compare(struct.pack(">H", 0x0800))
    return version + _payload(1, 6, 2) + _mask(struct.pack(">H", 0x3FFF)) + _compare(bytes(2))


def unreachable_tcp(sender: bytes, target: bytes) -> bytes:
    """ICMP's "destination unreachable" about TCP from `sender` to `target`, without options in either IPv4 header.

    Source: RFC 792; the quoted header begins 28 bytes behind the first.
    """
    icmp = _meta(16) + _compare(bytes((socket.IPPROTO_ICMP,)))
    rows = ((0, b"\x45"), (20, b"\x03"), (28, b"\x45"), (28 + 9, bytes((socket.IPPROTO_TCP,))))
    addresses = ((28 + 12, sender), (28 + 16, target))
    return icmp + b"".join(_payload(1, at, len(value)) + _compare(value) for at, value in (*rows, *addresses))


def daddr_is_local() -> bytes:
    """The destination is an address of this namespace (fib daddr type local)."""
    return _expression("fib", be32(1, 1), be32(2, 3), be32(3, 2)) + _compare(struct.pack("=I", 2))


def _mask(mask: bytes) -> bytes:
    """Keep these bits of what was loaded."""
    width = len(mask)
    keep, flip = nested(4, attribute(1, mask)), nested(5, attribute(1, bytes(width)))
    return _expression("bitwise", be32(1, 1), be32(2, 1), be32(3, width), keep, flip)


def _bits(key: int, mask: int) -> bytes:
    found = _expression("ct", be32(1, 1), be32(2, key))
    return found + _mask(struct.pack("=I", mask)) + _compare(bytes(4), equal=False)


def ct_state(bits: int) -> bytes:
    return _bits(0, bits)


def ct_status(bits: int) -> bytes:
    return _bits(2, bits)


def verdict(code: int) -> bytes:
    return _expression("immediate", be32(1, 0), nested(2, nested(2, be32(1, code))))


def jump(chain: str) -> bytes:
    return _expression("immediate", be32(1, 0), nested(2, nested(2, be32(1, _JUMP), text(2, chain))))


def by_daddr(map_name: str) -> bytes:
    """Go where a map of chains leads for the IPv4 destination; on where it does not know it."""
    return _payload(1, 16, 4) + _expression("lookup", text(1, map_name), be32(2, 1), be32(3, 0))


def masquerade() -> bytes:
    return _expression("masq")


def dnat(packed: bytes, port: int = 0) -> bytes:
    """Rewrite the destination to an address (and port)."""
    family = IPV4 if len(packed) == 4 else IPV6
    load = _expression("immediate", be32(1, 1), nested(2, attribute(1, packed)))
    data = [be32(1, 1), be32(2, family), be32(3, 1)]
    if port:
        load += _expression("immediate", be32(1, 2), nested(2, attribute(1, struct.pack(">H", port))))
        data.append(be32(5, 2))
    return load + _expression("nat", *data)


def _write(base: int, offset: int, value: bytes, *checksums: bytes) -> bytes:
    """Put `value` into the packet; `base` 0 is the link layer's header, 1 the network's."""
    load = _expression("immediate", be32(1, 1), nested(2, attribute(1, value)))
    place = (be32(2, base), be32(3, offset), be32(4, len(value)), be32(5, 1))
    return load + _expression("payload", *place, *checksums)


# the kind of checksum (of the Internet), where it is in an IPv4 header, and that TCP's covers the addresses, too
_IPV4_CHECKSUMS = (be32(6, 1), be32(7, 10), be32(8, 1))


def set_saddr(packed: bytes) -> bytes:
    """Rewrite an IPv4 packet's source; no state is kept of it."""
    return _write(1, 12, packed, *_IPV4_CHECKSUMS)


def set_daddr(packed: bytes) -> bytes:
    """Rewrite an IPv4 packet's destination; no state is kept of it."""
    return _write(1, 16, packed, *_IPV4_CHECKSUMS)


def set_quoted_saddr(packed: bytes) -> bytes:
    """Rewrite the source of the packet that an ICMP error quotes, as `unreachable_tcp` has found it.

    The error's own checksum stays true: the quoted header's makes up for the change.
    """
    return _write(1, 28 + 12, packed, be32(6, 1), be32(7, 28 + 10))


def set_receiver(mac: bytes) -> bytes:
    """Rewrite the destination in an Ethernet header."""
    return _write(0, 0, mac)


def leave_by(ifindex: int) -> bytes:
    """Send the packet out of an interface as it is (fwd); in chains of NETDEV."""
    load = _expression("immediate", be32(1, 1), nested(2, attribute(1, struct.pack("=I", ifindex))))
    return load + _expression("fwd", be32(1, 1))


def redirect(port: int) -> bytes:
    """Rewrite the destination to this machine, at `port`."""
    load = _expression("immediate", be32(1, 1), nested(2, attribute(1, struct.pack(">H", port))))
    return load + _expression("redir", be32(1, 1))


# -- doing and reading -----------------------------------------------------------------------------------------------


def batch(netlink: Netlink, messages: Sequence[Message]) -> None:
    """Do all messages or none. Raises the first one's error (OSError with what it was about)."""
    mark = struct.pack(">BBH", 0, 0, 10)
    begin, end = Message(_BATCH_BEGIN, 0, mark), Message(_BATCH_END, 0, mark)
    head, first = netlink.frame((begin,), REQUEST)
    middle, _ = netlink.frame(messages, REQUEST | ACK)
    tail, _ = netlink.frame((end,), REQUEST)
    failed: OSError | None = None
    for kind, flags, sequence, body in netlink.exchange(head + middle + tail):
        if kind == _ERROR and failed is None:
            index = sequence - first - 1
            about = messages[index].about if 0 <= index < len(messages) else "nf_tables"
            failed = error_of(body, flags, about)
    if failed is not None:
        raise failed


def tables(netlink: Netlink, family: int = 0) -> list[tuple[int, str]]:
    """(family, name) of every table."""
    found = netlink.dump(_message(GETTABLE, 0, family, b"", "tables"))
    return [(body[0], as_text(attributes(body, 4).get(1))) for _, body in found]


def chains(netlink: Netlink, family: int = 0) -> list[Chain]:
    """Every chain of every table."""
    found: list[Chain] = []
    for _, body in netlink.dump(_message(GETCHAIN, 0, family, b"", "chains")):
        rows = attributes(body, 4)
        hook = attributes(rows.get(4, b""))
        number = struct.unpack(">I", hook[1])[0] if 1 in hook else -1
        priority = struct.unpack(">i", hook[2])[0] if 2 in hook else 0
        policy = struct.unpack(">I", rows[5])[0] if 5 in rows else -1
        found.append(
            Chain(body[0], as_text(rows.get(1)), as_text(rows.get(3)), number, priority, policy, as_text(rows.get(7)))
        )
    return found


def rules(netlink: Netlink, table: str = "", chain: str = "", family: int = 0) -> list[Rule]:
    """The rules of a chain, of a table, or all; [] when there is no such table."""
    body = (text(1, table) if table else b"") + (text(2, chain) if chain else b"")
    found: list[Rule] = []
    try:
        answers = netlink.dump(_message(GETRULE, 0, family, body, "rules"))
    except FileNotFoundError:
        return []
    for _, answer in answers:
        rows = attributes(answer, 4)
        seen_table, seen_chain = as_text(rows.get(1)), as_text(rows.get(2))
        if (table and seen_table != table) or (chain and seen_chain != chain):
            continue
        handle = int.from_bytes(rows.get(3, b""), "big")
        found.append(Rule(answer[0], seen_table, seen_chain, handle, _comment(rows.get(7, b""))))
    return found


def _comment(data: bytes) -> str:
    while len(data) >= 2:
        kind, length = data[0], data[1]
        if kind == 0:
            return as_text(data[2 : 2 + length])
        data = data[2 + length :]
    return ""
