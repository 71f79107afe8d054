"""DNS messages as bytes: reading a question, writing an answer (RFC 1035, 6891, 2308). Pure, never raises on input."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from kapelle.light import NamedTuple

A, CNAME, SOA, PTR, AAAA, OPT, ANY = 1, 5, 6, 12, 28, 41, 255
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED = range(6)
_HEADER = struct.Struct(">HHHHHH")
_QR, _AA, _TC, _RD, _RA = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080
_POINTER_TO_QUESTION = b"\xc0\x0c"
TTL = 600  # seconds, as Docker's embedded server says; containers' addresses are kept over a restart


class Query(NamedTuple):
    """One question. `end` is where it ends in the message; `size` what the asker can take by UDP."""

    id: int
    flags: int
    name: str  # lower case, no dot at the end
    type: int
    klass: int
    end: int
    size: int
    edns: bool


def read_name(data: bytes, offset: int) -> tuple[str, int]:
    """(name, offset behind it); ValueError when it is malformed. Pointers are followed backwards only."""
    labels: list[str] = []
    after, limit, total = 0, offset, 0
    while True:
        if offset >= len(data):
            raise ValueError("name runs over the end")
        length = data[offset]
        if length == 0:
            offset += 1
            return ".".join(labels), after or offset
        if length >= 0xC0:
            if offset + 1 >= len(data):
                raise ValueError("pointer runs over the end")
            after = after or offset + 2
            target = (length & 0x3F) << 8 | data[offset + 1]
            if target >= limit:
                raise ValueError("pointer does not lead backwards")
            limit = offset = target
            continue
        if length > 63:
            raise ValueError("unknown kind of label")
        total += length + 1
        if total > 254:
            raise ValueError("name is too long")
        label = data[offset + 1 : offset + 1 + length]
        if len(label) < length:
            raise ValueError("label runs over the end")
        labels.append(label.decode("latin-1").replace(".", "\\."))
        offset += 1 + length


def skip_name(data: bytes, offset: int) -> int:
    """The offset behind a name; ValueError when it runs over the end."""
    while offset < len(data):
        length = data[offset]
        if length == 0:
            return offset + 1
        if length >= 0xC0:
            return offset + 2
        offset += 1 + length
    raise ValueError("name runs over the end")


def read_query(data: bytes) -> Query | None:
    """The question of a message, or None when it is not one to answer (a reply, several questions, malformed)."""
    if len(data) < 12:
        return None
    ident, flags, questions, answers, authorities, additional = _HEADER.unpack_from(data)
    if flags & _QR or questions != 1:
        return None
    try:
        name, offset = read_name(data, 12)
        kind, klass = struct.unpack_from(">HH", data, offset)
        end = offset + 4
        size, edns, offset = 512, False, end
        for _ in range(min(answers + authorities + additional, 32)):
            offset = skip_name(data, offset)
            rr_type, rr_class, _ttl, length = struct.unpack_from(">HHIH", data, offset)
            offset += 10 + length
            if rr_type == OPT:
                size, edns = max(512, rr_class), True
    except (ValueError, struct.error):
        return None
    return Query(ident, flags, name.lower(), kind, klass, end, size, edns)


def opcode(query: Query) -> int:
    return query.flags >> 11 & 15


def answer(data: bytes, query: Query, code: int, records: Sequence[tuple[int, bytes]] = (), size: int = 65535) -> bytes:
    """The reply to `data`: (type, rdata) records under the asked name. Over `size` bytes: cut short with TC set."""
    flags = _QR | (query.flags & 0x7900) | _AA | _RA | code
    count = len(records)
    body = b"".join(
        _POINTER_TO_QUESTION + struct.pack(">HHIH", kind, 1, TTL, len(rdata)) + rdata for kind, rdata in records
    )
    opt = b"\0" + struct.pack(">HHIH", OPT, 4096, 0, 0) if query.edns else b""
    if query.end + len(body) + len(opt) > size:
        flags |= _TC
        count, body = 0, b""
    header = _HEADER.pack(query.id, flags, 1, count, 0, 1 if opt else 0)
    return header + data[12 : query.end] + body + opt


def failure(data: bytes, code: int) -> bytes | None:
    """A reply without a question to something unreadable that at least has a header and is no reply; else None."""
    if len(data) < 12 or data[2] & 0x80:
        return None
    ident, flags = struct.unpack_from(">HH", data)
    return _HEADER.pack(ident, _QR | (flags & 0x7900) | _RA | code, 0, 0, 0, 0)


def write_name(name: str) -> bytes:
    """A host name on the wire; labels over 63 bytes are cut."""
    labels = [label.encode()[:63] for label in name.split(".") if label]
    return b"".join(bytes((len(label),)) + label for label in labels) + b"\0"


def truncated(data: bytes) -> bool:
    return len(data) >= 3 and bool(data[2] & 0x02)


def rcode(data: bytes) -> int:
    return data[3] & 15 if len(data) >= 4 else SERVFAIL


def matches(reply: bytes, query: bytes) -> bool:
    """`reply` answers `query`: same id, is a reply, repeats the question (or has none, as some failures do)."""
    if len(reply) < 12 or reply[:2] != query[:2] or not reply[2] & 0x80:
        return False
    if reply[4:6] == b"\0\0":
        return rcode(reply) != NOERROR
    try:
        end = skip_name(query, 12) + 4
    except ValueError:
        return False
    return reply[12:end].lower() == query[12:end].lower()


def times(reply: bytes) -> tuple[int, tuple[int, ...]]:
    """(seconds a reply may be kept, offsets of its records' TTL fields). 0 seconds: not to be kept."""
    try:
        _ident, _flags, questions, answers, authorities, additional = _HEADER.unpack_from(reply)
        offset = 12
        for _ in range(questions):
            offset = skip_name(reply, offset) + 4
        least, places, negative = 1 << 31, [], answers == 0
        for number in range(answers + authorities + additional):
            offset = skip_name(reply, offset)
            kind, _klass, ttl, length = struct.unpack_from(">HHIH", reply, offset)
            if kind != OPT:
                places.append(offset + 4)
                if number < answers or (negative and kind == SOA):
                    least = min(least, ttl)
                if negative and kind == SOA and length >= 20:  # RFC 2308 section 5: the SOA's minimum bounds it too
                    least = min(least, struct.unpack_from(">I", reply, offset + 10 + length - 4)[0])
            offset += 10 + length
        if offset > len(reply):
            return 0, ()
    except (ValueError, struct.error):
        return 0, ()
    return (least if least < 1 << 31 else 0), tuple(places)


def aged(reply: bytes, places: Sequence[int], seconds: int) -> bytes:
    """A kept reply with its times counted down."""
    found = bytearray(reply)
    for place in places:
        ttl = struct.unpack_from(">I", found, place)[0]
        struct.pack_into(">I", found, place, max(0, ttl - seconds))
    return bytes(found)
