"""Sockets beyond the standard library's: made in another network namespace, and who holds one (proc_pid_net(5))."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator

from kapelle.light import NamedTuple, socket
from kapelle.linux import namespaces

IP_PKTINFO = 8
IP_TRANSPARENT = 19
IPV6_RECVPKTINFO, IPV6_PKTINFO = 49, 50
_LITTLE = struct.pack("=H", 1) == b"\1\0"


def socket_in(netns: int, home: int, family: int, kind: int) -> socket.socket:
    """A non-blocking socket that belongs to network namespace `netns`; the thread stays in `home` (-1: `namespaces.within`)."""
    return namespaces.within(netns, home, lambda: made(family, kind))


def made(family: int, kind: int) -> socket.socket:
    """A non-blocking socket of the calling thread's namespace."""
    return socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)


class Open(NamedTuple):
    """A socket of this network namespace as /proc/net shows it."""

    address: bytes  # packed
    port: int
    inode: int
    uid: int


def listening(protocol: str, process: int | str = "thread-self") -> Iterator[Open]:
    """Sockets that listen (tcp) or are bound (udp), IPv4 and IPv6, in the network namespace of a process."""
    for name in (protocol, protocol + "6"):
        try:
            with open(f"/proc/{process}/net/{name}", "rb") as f:
                next(f, None)
                for line in f:
                    fields = line.split()
                    # TCP_LISTEN is 0A; a UDP socket without a peer is TCP_CLOSE, 07
                    if len(fields) > 9 and fields[3] == (b"0A" if protocol == "tcp" else b"07"):
                        address, _, port = fields[1].partition(b":")
                        yield Open(_address(address), int(port, 16), int(fields[9]), int(fields[7]))
        except OSError:
            continue


def _address(digits: bytes) -> bytes:
    """The kernel prints each 32-bit word in its own byte order."""
    data = bytes.fromhex(digits.decode())
    if _LITTLE:
        data = b"".join(data[i : i + 4][::-1] for i in range(0, len(data), 4))
    return data


def holders(inodes: set[int]) -> dict[int, int]:
    """socket inode → pid of a process that has it open, as far as this user may look."""
    found: dict[int, int] = {}
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with os.scandir(f"/proc/{entry}/fd") as descriptors:
                for descriptor in descriptors:
                    try:
                        inode = wanted.get(os.readlink(descriptor.path))
                    except OSError:
                        continue
                    if inode is not None:
                        found.setdefault(inode, int(entry))
        except OSError:
            continue
        if len(found) == len(inodes):
            break
    return found
