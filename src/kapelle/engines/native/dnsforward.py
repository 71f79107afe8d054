"""Questions that nobody in the project answers go to the host's name servers, and their replies are kept for a while.

resolv.conf is read again when it changes (VPNs, DHCP). Each question leaves from a port of its own (RFC 5452).
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable

from kapelle.engines.native import dnswire as wire
from kapelle.engines.native.loop import READ, WRITE, Loop, Timer
from kapelle.light import socket

_TIMEOUT = 2.0  # seconds for one server
_ROUNDS = 2
_KEEP_AT_MOST = 300  # seconds
_KEEP_COUNT = 1000
_KEEP_BYTES = 4096  # of one answer
_LONGEST = 2 + 65535  # bytes of an answer by TCP
_WAITING = 1000  # askers of one question
_PENDING = 500  # questions under way; more are refused, so that descriptors can't run out

Reply = Callable[[bytes], None]


class Upstream:
    """Asks the name servers of a resolv.conf (resolv.conf(5))."""

    def __init__(self, loop: Loop, path: str = "/etc/resolv.conf", port: int = 53, fixed: tuple[str, ...] = ()) -> None:
        """`fixed`: servers to ask whatever the file says (a service's `dns`)."""
        self._fixed = fixed
        self._loop = loop
        self._path = path
        self._port = port
        self._stamp: tuple[int, int, int] | None = None
        self._checked = 0.0
        self._servers: tuple[str, ...] = ()
        self._kept: dict[bytes, tuple[float, float, bytes, tuple[int, ...]]] = {}
        self._asking: dict[bytes, _Question] = {}

    def servers(self) -> tuple[str, ...]:
        """The name servers as of now; looks at the file at most once a second."""
        if self._fixed:
            return self._fixed
        now = time.monotonic()
        if self._stamp is None or now - self._checked > 1.0:
            self._checked = now
            try:
                stat = os.stat(self._path)
                stamp = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
            except OSError:
                stamp = (0, 0, 0)
            if stamp != self._stamp:
                self._stamp = stamp
                self._servers = read_servers(self._path)
                self._kept.clear()
        return self._servers

    def forward(self, data: bytes, tcp: bool, reply: Reply) -> None:
        """Call `reply` once with the answer to `data`, at once or later; SERVFAIL when none is to be had."""
        servers = self.servers()
        key = (b"t" if tcp else b"u") + data[2:]
        kept = self._kept.get(key)
        if kept is not None:
            since, until, answer, places = kept
            now = time.monotonic()
            if now < until:
                reply(data[:2] + wire.aged(answer, places, int(now - since))[2:])
                return
            del self._kept[key]
        waiting = self._asking.get(key)
        if waiting is not None and len(waiting.replies) < _WAITING:  # the same question is under way
            waiting.replies.append((data[:2], reply))
            return
        if waiting is not None or not servers or len(self._asking) >= _PENDING:
            reply(_server_failure(data))
            return
        question = _Question(self, data, tcp, servers, key)
        question.replies.append((data[:2], reply))
        self._asking[key] = question
        question.next_server()

    def finish(self, question: _Question, answer: bytes) -> None:
        """Tell everybody who waits; keep what may be kept."""
        if self._asking.get(question.key) is question:
            del self._asking[question.key]
        if wire.rcode(answer) in (wire.NOERROR, wire.NXDOMAIN) and not wire.truncated(answer):
            seconds, places = wire.times(answer)
            if seconds and len(answer) <= _KEEP_BYTES:
                if len(self._kept) >= _KEEP_COUNT:
                    self._kept.clear()
                now = time.monotonic()
                self._kept[question.key] = (now, now + min(seconds, _KEEP_AT_MOST), answer, places)
        for ident, reply in question.replies:
            reply(ident + answer[2:])

    def close(self) -> None:
        for question in tuple(self._asking.values()):
            question.end()
        self._asking.clear()

    @property
    def loop(self) -> Loop:
        return self._loop

    @property
    def port(self) -> int:
        return self._port


def read_servers(path: str) -> tuple[str, ...]:
    """The first three name servers of a resolv.conf, as the C library takes them; () when it can't be read."""
    found: list[str] = []
    try:
        with open(path, encoding="utf-8", errors="replace") as f:
            for line in f:
                words = line.split()
                if len(words) >= 2 and words[0] == "nameserver":
                    address = words[1]
                    try:
                        socket.inet_pton(
                            socket.AF_INET6 if ":" in address else socket.AF_INET, address.partition("%")[0]
                        )
                    except (OSError, ValueError):
                        continue
                    found.append(address)
    except OSError:
        return ()
    return tuple(found[:3])


def _server_failure(data: bytes) -> bytes:
    query = wire.read_query(data)
    if query is not None:
        return wire.answer(data, query, wire.SERVFAIL)
    return wire.failure(data, wire.SERVFAIL) or data


class _Question:
    """One question under way: a socket, the server asked now, the servers left."""

    def __init__(self, upstream: Upstream, data: bytes, tcp: bool, servers: tuple[str, ...], key: bytes) -> None:
        self.key = key
        self.replies: list[tuple[bytes, Reply]] = []
        self._upstream = upstream
        # an id of our own: the asker's may be guessed by whom it told it to
        self._data = os.urandom(2) + data[2:]
        self._tcp = tcp
        # where no server answers by TCP, an answer by UDP is better than none
        self._left = [(server, True) for server in servers] if tcp else []
        self._left += [(server, False) for server in servers] * (1 if tcp else _ROUNDS)
        self._socket: socket.socket | None = None
        self._timer: Timer | None = None
        self._buffer = b""
        self._unsent = b""
        self._failed = b""

    def end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._socket is not None:
            self._upstream.loop.remove(self._socket.fileno())
            self._socket.close()
            self._socket = None

    def next_server(self) -> None:
        """Ask the next server; after the last, give up with what the last refusal said."""
        loop = self._upstream.loop
        while self._left:
            self.end()
            server, self._tcp = self._left.pop(0)
            family = socket.AF_INET6 if ":" in server else socket.AF_INET
            kind = socket.SOCK_STREAM if self._tcp else socket.SOCK_DGRAM
            try:
                self._socket = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
                where = socket.getaddrinfo(server, self._upstream.port, family, kind, 0, socket.AI_NUMERICHOST)[0][4]
                try:
                    self._socket.connect(where)
                except BlockingIOError:
                    pass
                if self._tcp:
                    self._unsent, self._buffer = struct.pack(">H", len(self._data)) + self._data, b""
                    loop.add(self._socket.fileno(), self._ready_stream, WRITE)
                else:
                    self._socket.send(self._data)
                    loop.add(self._socket.fileno(), self._ready, READ)
            except OSError:
                continue
            self._timer = loop.later(_TIMEOUT, self.next_server)
            return
        self.end()
        self._upstream.finish(self, self._failed or _server_failure(self._data))

    def _ready(self, _events: int) -> None:
        if self._socket is None:
            return
        try:
            reply = self._socket.recv(65535)
        except BlockingIOError:
            return
        except OSError:  # nobody listens there
            self.next_server()
            return
        self._take(reply)

    def _ready_stream(self, _events: int) -> None:
        if self._socket is None:
            return
        try:
            if self._unsent:
                self._unsent = self._unsent[self._socket.send(self._unsent) :]
                if not self._unsent:
                    self._upstream.loop.change(self._socket.fileno(), READ)
                return
            data = self._socket.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.next_server()
            return
        self._buffer += data
        if len(self._buffer) >= 2 and len(self._buffer) >= 2 + struct.unpack_from(">H", self._buffer)[0]:
            self._take(self._buffer[2 : 2 + struct.unpack_from(">H", self._buffer)[0]])
        if len(self._buffer) > _LONGEST:  # more than one answer, and not ours: it is not worth waiting for
            self._buffer = b""
            self.next_server()

    def _take(self, reply: bytes) -> None:
        if not wire.matches(reply, self._data):
            return  # not an answer to this question: somebody guesses
        if wire.rcode(reply) in (wire.SERVFAIL, wire.REFUSED, wire.NOTIMP) and self._left:
            self._failed = reply
            self.next_server()
            return
        self.end()
        self._upstream.finish(self, reply)
