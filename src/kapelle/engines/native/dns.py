"""The project's name server: who asks, over which networks, for whom. Sockets at 127.0.0.11:53 in each container.

Names belong to a network; a container sees those of the networks it is on. What nobody here is called goes
upstream (`dnsforward`). A name that a stopped container had is known to be nobody: NXDOMAIN at once.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable

from kapelle.engines.native import dnswire as wire
from kapelle.engines.native.loop import Loop
from kapelle.light import NamedTuple, socket

ADDRESS = ("127.0.0.11", 53)
_BURST = 32  # questions served per turn of one socket, so that one asker can't hold the others up
_TCP_IDLE = 10.0  # seconds


class Home(NamedTuple):
    """One network of an asker: its name and the packed addresses of the asker there."""

    network: str
    addresses: tuple[bytes, ...]


class Names:
    """network → name → addresses, and back. Changes are rare, questions many: answers are kept per asker."""

    def __init__(self) -> None:
        self._homes: dict[str, tuple[Home, ...]] = {}  # container → its networks
        self._names: dict[str, dict[str, dict[str, tuple[bytes, ...]]]] = {}  # network → name → container → addresses
        self._reverse: dict[str, str] = {}  # "2.0.18.172.in-addr.arpa" → name
        self._known: set[str] = set()  # names that stopped containers had, or that the project's services have
        self._links: dict[str, dict[str, str]] = {}  # container → what it alone calls others → their name
        self.generation = 0

    def link(self, asker: str, links: Iterable[tuple[str, str]]) -> None:
        """(name, alias) pairs: the asker may call `name` by `alias`, too."""
        self._links[asker] = {alias.lower(): name.lower() for name, alias in links if alias != name}

    def know(self, names: Iterable[str]) -> None:
        """Names that belong to the project whether or not anybody answers to them now."""
        self._known.update(name.lower() for name in names)
        self.generation += 1

    def forget(self, names: Iterable[str]) -> None:
        self._known.difference_update(name.lower() for name in names)
        self.generation += 1

    def add(self, container: str, homes: Iterable[tuple[Home, tuple[str, ...]]], canonical: str) -> None:
        """Give a container its names on each network; `canonical` is what its addresses are called."""
        self.remove(container)
        mine: list[Home] = []
        for home, names in homes:
            mine.append(home)
            table = self._names.setdefault(home.network, {})
            for name in names:
                table.setdefault(name.lower(), {})[container] = home.addresses
                self._known.add(name.lower())
            for packed in home.addresses:
                self._reverse[reverse_name(packed)] = f"{canonical}.{home.network}"
        self._homes[container] = tuple(mine)
        self.generation += 1

    def remove(self, container: str) -> None:
        """Its names answer no more; they stay known."""
        self._links.pop(container, None)
        for home in self._homes.pop(container, ()):
            table = self._names.get(home.network, {})
            for name in [n for n, owners in table.items() if container in owners]:
                del table[name][container]
                if not table[name]:
                    del table[name]
            for packed in home.addresses:
                self._reverse.pop(reverse_name(packed), None)
        self.generation += 1

    def addresses(self, asker: str, name: str) -> tuple[bytes, ...] | None:
        """Packed addresses of a name as `asker` sees it; () when it is known and nobody has it; None when unknown."""
        homes = self._homes.get(asker, ())
        name = self._links.get(asker, {}).get(name, name)
        found: dict[bytes, None] = {}
        for home in homes:
            for addresses in self._names.get(home.network, {}).get(name, {}).values():
                found.update(dict.fromkeys(addresses))
        if found:
            return tuple(found)
        short, dot, network = name.partition(".")
        for home in homes if dot else ():
            if home.network.lower() == network:  # "db.shop_default"
                owners = self._names.get(home.network, {}).get(short, {})
                return tuple(packed for addresses in owners.values() for packed in addresses)
        return () if name in self._known else None

    def host_of(self, asker: str, reverse: str) -> str | None:
        """The name of an address in its reverse form, when it is one of the asker's networks."""
        found = self._reverse.get(reverse)
        if found is None:
            return None
        network = found.partition(".")[2]
        return found if any(home.network == network for home in self._homes.get(asker, ())) else None

    def visible(self, asker: str) -> tuple[str, ...]:
        """Names that answer for `asker`, sorted."""
        found: set[str] = set()
        for home in self._homes.get(asker, ()):
            found.update(self._names.get(home.network, {}))
        return tuple(sorted(found))


def reverse_name(packed: bytes) -> str:
    """The PTR name of an address (RFC 1035 3.5, RFC 3596 2.5)."""
    if len(packed) == 4:
        return ".".join(str(byte) for byte in reversed(packed)) + ".in-addr.arpa"
    return ".".join(reversed(packed.hex())) + ".ip6.arpa"


Forward = Callable[[bytes, bool, Callable[[bytes], None]], None]


class Answerer:
    """Answers for one asker from `Names`; keeps answers until a name changes."""

    def __init__(self, names: Names, asker: str) -> None:
        self._names = names
        self._asker = asker
        self._kept: dict[bytes, list[bytes]] = {}  # question without its id → replies without their id, rotated
        self._turn = 0
        self._generation = -1
        self.unknown: dict[str, int] = {}  # names that nobody here has → how often asked (for `why`)

    def answer(self, data: bytes, udp: bool = True) -> bytes | None:
        """The reply; b"" when there is none to give; None when upstream has to be asked."""
        names = self._names
        if names.generation != self._generation:
            self._kept.clear()
            self._generation = names.generation
        elif udp:
            kept = self._kept.get(data[2:])
            if kept is not None:
                self._turn += 1
                return data[:2] + kept[self._turn % len(kept)]
        query = wire.read_query(data)
        if query is None:
            return wire.failure(data, wire.FORMERR) or b""
        if wire.opcode(query) != 0:
            return wire.answer(data, query, wire.NOTIMP)
        size = query.size if udp else 65535
        replies = self._replies(data, query, size)
        if replies is None:
            if query.type in (wire.A, wire.AAAA) and "." not in query.name and len(self.unknown) < 1000:
                self.unknown[query.name] = self.unknown.get(query.name, 0) + 1
            return None
        if udp and len(self._kept) < 1000:
            self._kept[data[2:]] = [reply[2:] for reply in replies]
        self._turn += 1
        return replies[self._turn % len(replies)]

    def _replies(self, data: bytes, query: wire.Query, size: int) -> list[bytes] | None:
        """The replies to take turns with; None for a question that is not ours."""
        if query.klass != 1:
            return None
        if query.type == wire.PTR:
            host = self._names.host_of(self._asker, query.name)
            if host is None:
                return None
            return [wire.answer(data, query, wire.NOERROR, ((wire.PTR, wire.write_name(host)),), size)]
        found = self._names.addresses(self._asker, query.name)
        if found is None:
            return None
        if not found:
            return [wire.answer(data, query, wire.NXDOMAIN)]
        length = {wire.A: (4,), wire.AAAA: (16,), wire.ANY: (4, 16)}.get(query.type, ())
        records = [(wire.A if len(p) == 4 else wire.AAAA, p) for p in found if len(p) in length]
        # a known name without this kind of record: NOERROR and nothing, or askers take the name for missing
        return [
            wire.answer(data, query, wire.NOERROR, records[turn:] + records[:turn], size)
            for turn in range(max(1, len(records)))
        ]


class Server:
    """The sockets of one container, served in the loop. `udp` and `tcp` are its own from now on."""

    def __init__(
        self, loop: Loop, answerer: Answerer, forward: Forward, udp: socket.socket, tcp: socket.socket
    ) -> None:
        self.answerer = answerer
        self._loop = loop
        self._forward = forward
        self._udp = udp
        self._tcp = tcp
        self._streams: set[_Stream] = set()
        udp.setblocking(False)
        tcp.setblocking(False)
        loop.add(udp.fileno(), self._asked)
        loop.add(tcp.fileno(), self._called)

    def close(self) -> None:
        for stream in tuple(self._streams):
            stream.close()
        for s in (self._udp, self._tcp):
            if s.fileno() >= 0:
                self._loop.remove(s.fileno())
                s.close()

    def _asked(self, _events: int) -> None:
        answer, udp = self.answerer.answer, self._udp
        for _ in range(_BURST):
            try:
                data, asker = udp.recvfrom(4096)
                reply = answer(data)
                if reply is None:
                    self._ask_upstream(data, asker)
                elif reply:
                    udp.sendto(reply, asker)
            except BlockingIOError:
                return
            except OSError:  # the asker is gone, or its namespace is
                return

    def _ask_upstream(self, data: bytes, asker: tuple[str, int]) -> None:
        def reply(answer: bytes) -> None:
            if self._udp.fileno() >= 0:
                try:
                    self._udp.sendto(answer, asker)
                except OSError:
                    pass

        self._forward(data, False, reply)

    def _called(self, _events: int) -> None:
        try:
            connection, _ = self._tcp.accept()
        except OSError:
            return
        if len(self._streams) >= 64:
            connection.close()
            return
        self._streams.add(_Stream(self._loop, connection, self.answerer, self._forward, self._streams))


class _Stream:
    """One TCP connection of an asker: length-prefixed questions (RFC 7766), answered in any order."""

    def __init__(
        self,
        loop: Loop,
        connection: socket.socket,
        answerer: Answerer,
        forward: Forward,
        streams: set[_Stream],
    ) -> None:
        self._loop = loop
        self._socket = connection
        self._answerer = answerer
        self._forward = forward
        self._streams = streams
        self._buffer = b""
        self._open = 0  # questions upstream
        connection.settimeout(None)
        connection.setblocking(False)
        self._timer = loop.later(_TCP_IDLE, self.close)
        loop.add(connection.fileno(), self._read)

    def close(self) -> None:
        self._streams.discard(self)
        self._timer.cancel()
        if self._socket.fileno() >= 0:
            self._loop.remove(self._socket.fileno())
            self._socket.close()

    def _read(self, _events: int) -> None:
        try:
            data = self._socket.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            if not self._open:
                self.close()
            else:
                self._loop.remove(self._socket.fileno())
            return
        self._buffer += data
        while len(self._buffer) >= 2:
            length = struct.unpack_from(">H", self._buffer)[0]
            if len(self._buffer) < 2 + length:
                break
            question, self._buffer = self._buffer[2 : 2 + length], self._buffer[2 + length :]
            answer = self._answerer.answer(question, udp=False)
            if answer is None:
                self._open += 1
                self._forward(question, True, self._reply_late)
            elif answer:
                self._reply(answer)
        self._timer.cancel()
        self._timer = self._loop.later(_TCP_IDLE, self.close)

    def _reply_late(self, answer: bytes) -> None:
        self._open -= 1
        self._reply(answer)

    def _reply(self, answer: bytes) -> None:
        if self._socket.fileno() < 0:
            return
        data = struct.pack(">H", len(answer)) + answer
        try:
            sent = self._socket.send(data)
        except OSError:
            sent = -1
        if sent != len(data):  # an asker that does not read its answers
            self.close()


def make_sockets() -> tuple[socket.socket, socket.socket]:
    """UDP and TCP sockets at 127.0.0.11:53 in the thread's present network namespace, whose `lo` is up."""
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        udp.bind(ADDRESS)
        tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        try:
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tcp.bind(ADDRESS)
            tcp.listen(16)
        except BaseException:
            tcp.close()
            raise
    except BaseException:
        udp.close()
        raise
    return udp, tcp
