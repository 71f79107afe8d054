"""Published ports: sockets that reserve them on the host, and who has one that is taken.

A reservation listens for good: what the kernel does not rewrite (IPv6, a flushed firewall) reaches it and is
passed on by the `proxy`. Nobody else can take the port meanwhile, and `ss -l` shows whose it is.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterable, Sequence

from kapelle.engines.native import witness
from kapelle.errors import EngineError
from kapelle.light import NamedTuple, socket
from kapelle.linux import process, sockets

ANY4, ANY6 = "0.0.0.0", "::"
_KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
_BACKLOG = 1024


class PortSpec(NamedTuple):
    """A port to publish. `published` 0 is any free one; up to `published_end` (0: itself) the first free one."""

    host_ip: str  # "" is every address, IPv4 and IPv6
    published: int
    published_end: int
    target: int
    protocol: str = "tcp"  # tcp, udp


def hosts_of(port: PortSpec) -> tuple[str, ...]:
    """The addresses to listen on, IPv4 first; IPv6 only where this machine has it."""
    if port.host_ip:
        return (port.host_ip.strip("[]"),)
    return (ANY4, ANY6) if os.path.exists("/proc/net/if_inet6") else (ANY4,)


def bind(host: str, port: int, protocol: str) -> socket.socket:
    """A socket that holds host:port (TCP: listening). OSError as bind(2)."""
    kind = _KINDS.get(protocol)
    if kind is None:
        raise EngineError(
            f"ports of protocol {protocol} can't be published by this engine",
            code="KAP204",
            hint="publish tcp or udp",
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    held = socket.socket(family, kind | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        if family == socket.AF_INET6:
            held.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if kind == socket.SOCK_STREAM:
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # over what is left in TIME_WAIT
        elif family == socket.AF_INET:
            held.setsockopt(socket.IPPROTO_IP, sockets.IP_PKTINFO, 1)
        else:
            held.setsockopt(socket.IPPROTO_IPV6, sockets.IPV6_RECVPKTINFO, 1)
        held.bind((host, port))
        if kind == socket.SOCK_STREAM:
            held.listen(_BACKLOG)
    except BaseException:
        held.close()
        raise
    return held


def reserve_one(port: PortSpec) -> list[socket.socket]:
    """One socket per address, all with the same port number. EngineError KAP201 when that can't be had."""
    hosts = hosts_of(port)
    last = max(port.published_end, port.published)
    numbers: Iterable[int] = range(port.published, last + 1) if port.published else [0] * 16
    failure: tuple[OSError, str, int] | None = None
    for number in numbers:
        held: list[socket.socket] = []
        for host in hosts:
            try:
                held.append(bind(host, number, port.protocol))
            except OSError as e:
                if host == ANY6 and e.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    continue  # IPv6 is switched off
                failure = (e, host, number)
                break
            number = held[0].getsockname()[1]
        else:
            return held
        for s in held:
            s.close()
        if failure[0].errno != errno.EADDRINUSE:
            break
    assert failure is not None
    raise _refusal(port, *failure)


def reserve(ports: Sequence[PortSpec]) -> list[socket.socket]:
    """Sockets that hold all the ports, or EngineError KAP201 for the first that can't be had, and none is held."""
    held: list[socket.socket] = []
    try:
        for port in ports:
            held.extend(reserve_one(port))
    except BaseException:
        for s in held:
            s.close()
        raise
    return held


def _refusal(port: PortSpec, error: OSError, host: str, number: int) -> EngineError:
    shown = "all addresses" if host in (ANY4, ANY6) else host
    kind = "" if port.protocol == "tcp" else f" ({port.protocol})"
    if error.errno == errno.EACCES:
        return EngineError(
            f"port {number}{kind} on {shown} may not be used by this user",
            code="KAP205",
            hint="kap up --ports=auto (takes one from 8000 on), publish a port from 1024 on, or as root: sysctl -w "
            f"net.ipv4.ip_unprivileged_port_start={number}",
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return EngineError(
            f"port {number}{kind} can't be published on {host}: this machine has no such address",
            code="KAP206",
            hint="publish on one of this machine's own addresses, or leave the address out",
        )
    if error.errno != errno.EADDRINUSE:
        return EngineError(f"port {number}{kind} on {shown} can't be published: {error.strerror}", code="KAP206")
    span = ""
    if port.published_end > port.published:
        span = f"-{port.published_end}"
    details: list[tuple[str, str]] = []
    holder, project = holder_of(host, number, port.protocol)
    if holder:
        details.append(("held by", holder))
    free = free_near(host, number, port.protocol)
    if free:
        details.append(("free now", str(free)))
    start = port.published if span else number
    hint = "publish another port, or stop what holds it"
    if free:
        hint = f"kap up --ports=auto   (takes {free}, and remembers it for this directory)"
    if project:
        hint += f"\nkap -p {project} down"
    plural = "ports" if span else "port"
    verb = "are all" if span else "is already"
    return EngineError(
        f"{plural} {start}{span}{kind} on {shown} {verb} taken",
        code="KAP201",
        details=tuple(details),
        hint=hint,
    )


def holder_of(host: str, port: int, protocol: str) -> tuple[str, str]:
    """Whoever listens there, as far as it may be seen: ("postgres (pid 8123, user anna) since 09:12", "").

    ("project shop", "shop") when it is one of ours; ("", "") when nobody is found.
    """
    wanted = socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)
    matching = [s for s in sockets.listening(protocol) if s.port == port and _meet(s.address, wanted)]
    if not matching:
        return "", ""
    pids = witness.holders({s.inode for s in matching})
    for s in matching:
        pid = pids.get(s.inode)
        if pid is not None:
            project = _project(pid)
            if project:
                return f"the Kapelle project {project} (pid {pid})", project
            return f"{_command(pid)} (pid {pid}, user {_user(s.uid)}){_since(pid)}", ""
    return f"a process of user {_user(matching[0].uid)}", ""


def _project(pid: int) -> str:
    """The project of a keeper or supervisor, from its last argument (client.spawn); "" for any other process."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as f:
            words = f.read().split(b"\0")
        if not any(b"kapelle.engines.native" in word for word in words):
            return ""
        from kapelle.light import jsontext

        return str(jsontext.loads(words[-2])["project"])
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return ""


def _since(pid: int) -> str:
    """ " since 09:12", or with the day when that was not within one."""
    ticks = process.start_time(pid)
    if not ticks:
        return ""
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    form = "%H:%M" if age < 86400 else "%Y-%m-%d %H:%M"
    return f" since {time.strftime(form, time.localtime(time.time() - age))}"


def _meet(one: bytes, other: bytes) -> bool:
    """Do two listening addresses stand in each other's way? An IPv6 wildcard may take IPv4 too."""
    if len(one) != len(other):
        return not any(one if len(one) == 16 else other)
    return one == other or not any(one) or not any(other)


def _command(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm") as f:
            return f.read().strip() or "a process"
    except OSError:
        return "a process"


def _user(uid: int) -> str:
    try:
        import pwd

        return pwd.getpwuid(uid).pw_name
    except (ImportError, KeyError):
        return str(uid)


def free_near(host: str, port: int, protocol: str) -> int:
    """The next higher port that is free on `host`, 0 when none of a hundred is."""
    for number in range(port + 1, min(port + 100, 65536)):
        try:
            bind(host, number, protocol).close()
        except OSError:
            continue
        return number
    return 0
