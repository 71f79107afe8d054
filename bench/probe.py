"""What runs inside the containers (and, for published ports, on the host) while traffic is measured. Standard library.

probe.py serve                    echo on 7000, a source on 7001
probe.py measure HOST PORT7000 PORT7001 SECONDS    one JSON row
probe.py lookups NAME SECONDS     name lookups a second, each by a question of its own
probe.py lines COUNT              COUNT lines of 100 bytes
probe.py ticks SECONDS PAUSE      lines with the time in nanoseconds
"""

from __future__ import annotations

import json
import os
import socket
import struct
import sys
import threading
import time

BLOCK = bytes(1 << 18)


def echo(peer: socket.socket) -> None:
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while data := peer.recv(65536):
        peer.sendall(data)


def source(peer: socket.socket) -> None:
    while True:
        peer.sendall(BLOCK)


def serve() -> None:
    def listen(port: int, work: object) -> None:
        with socket.create_server(("", port), backlog=1024) as server:
            while True:
                peer, _ = server.accept()
                threading.Thread(target=guarded, args=(work, peer), daemon=True).start()

    def guarded(work: object, peer: socket.socket) -> None:
        with peer:
            try:
                work(peer)  # type: ignore[operator]
            except OSError:
                pass

    threading.Thread(target=listen, args=(7001, source), daemon=True).start()
    listen(7000, echo)


def connections(host: str, port: int, seconds: float) -> float:
    """Connections a second, each opened, asked one byte, closed; two at a time."""
    done = [0, 0]
    end = time.monotonic() + seconds

    def work(slot: int) -> None:
        while time.monotonic() < end:
            with socket.create_connection((host, port), 5) as sock:
                sock.sendall(b"x")
                sock.recv(1)
            done[slot] += 1

    threads = [threading.Thread(target=work, args=(n,)) for n in range(2)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return sum(done) / seconds


def throughput(host: str, port: int, seconds: float) -> float:
    """MB a second that come in from a source."""
    total = 0
    with socket.create_connection((host, port), 5) as sock:
        began = time.monotonic()
        while (now := time.monotonic()) < began + seconds:
            total += len(sock.recv(1 << 20))
    return total / (now - began) / 1e6


def round_trip(host: str, port: int, seconds: float) -> float:
    """Microseconds, the median."""
    times = []
    with socket.create_connection((host, port), 5) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            began = time.perf_counter()
            sock.sendall(b"x")
            sock.recv(1)
            times.append(time.perf_counter() - began)
    return sorted(times)[len(times) // 2] * 1e6


def measure(host: str, echoes: int, source_port: int, seconds: float) -> None:
    row = {
        "connections/s": connections(host, echoes, seconds),
        "MB/s": throughput(host, source_port, seconds),
        "round trip us": round_trip(host, echoes, seconds),
    }
    print(json.dumps(row))


def lookups(name: str, seconds: float) -> None:
    """A question for A over UDP to the first server of resolv.conf (RFC 1035)."""
    with open("/etc/resolv.conf") as f:
        server = next(line.split()[1] for line in f if line.startswith("nameserver"))
    question = b"".join(bytes([len(p)]) + p.encode() for p in name.split(".")) + b"\0" + struct.pack("!HH", 1, 1)
    done = 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(5)
        sock.connect((server, 53))
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            sock.send(struct.pack("!HHHHHH", done & 0xFFFF, 0x0100, 1, 0, 0, 0) + question)
            answer = sock.recv(4096)
            assert struct.unpack_from("!H", answer, 6)[0] >= 1, "no answer"
            done += 1
    print(json.dumps({"lookups/s": done / seconds}))


def lines(count: int) -> None:
    """The same block again and again: what is measured is who takes the lines, not who makes them."""
    block = b"".join(b"%09d " % number + b"x" * 89 + b"\n" for number in range(640))
    for _ in range(count // 640):
        os.write(1, block)
    os.write(1, block[: count % 640 * 100])


def ticks(seconds: float, pause: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        os.write(1, b"tick %d\n" % time.time_ns())
        time.sleep(pause)


def main() -> None:
    verb, *words = sys.argv[1:]
    if verb == "serve":
        serve()
    elif verb == "measure":
        measure(words[0], int(words[1]), int(words[2]), float(words[3]))
    elif verb == "lookups":
        lookups(words[0], float(words[1]))
    elif verb == "lines":
        lines(int(words[0]))
    elif verb == "ticks":
        ticks(float(words[0]), float(words[1]))


if __name__ == "__main__":
    main()
