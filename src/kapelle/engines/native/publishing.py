"""The ports that containers publish: for each a held socket of the host, a proxy behind it, rules of the kernel beside.

The socket keeps the port from others and serves what the rules don't reach; it is adopted from the keeper's
descriptors after a restart, so that no connection is refused meanwhile.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from kapelle.engines.native import ports
from kapelle.engines.native.loop import Loop
from kapelle.engines.native.ports import PortSpec
from kapelle.engines.native.proxy import TcpProxy, UdpProxy
from kapelle.engines.native.uplink import Uplink
from kapelle.light import TYPE_CHECKING, Any, socket
from kapelle.linux import sockets
from kapelle.plan.observed import PublishedPort

if TYPE_CHECKING:
    from kapelle.engines.native.userlink import UserLink


class _Published:
    """One socket on the host that stands for a port of a container."""

    def __init__(self, port: PublishedPort, held: socket.socket, proxy: TcpProxy | UdpProxy, target: str) -> None:
        self.port = port
        self.held = held
        self.proxy = proxy
        self.target = target


class Publisher:
    """The published ports of one project."""

    def __init__(
        self, loop: Loop, fds: dict[str, int], uplink: Uplink | UserLink, within: Callable[[Callable[[], Any]], Any]
    ) -> None:
        """`fds`: descriptors by name, kept over a restart (changed here). `within` calls in the project's namespace."""
        self.fds = fds
        self.uplink = uplink
        self._loop = loop
        self._within = within
        self._of: dict[str, list[_Published]] = {}  # by container

    def publish(
        self, container_id: str, wanted: tuple[PortSpec, ...], address: str, *, routed: bool, from_host: bool
    ) -> tuple[PublishedPort, ...]:
        """Publish ports of a container at `address`; those that are published already stay as they are.

        `routed`: the host has a route there, so that the kernel forwards and our proxy is for other cases only.
        `from_host`: the proxy asks as other clients of the host do, to whom answers go by a `shortcut`;
        else it asks from the project's namespace.
        EngineError KAP201.
        """
        mine = self._of.setdefault(container_id, [])
        before = list(mine)
        kept: list[_Published] = []
        try:
            for port in wanted:
                for held in self._hold(container_id, port, kept):
                    if not isinstance(held, _Published):
                        held = self._serve(container_id, port, held, address, from_host)
                    kept.append(held)
        except BaseException:
            self._drop(container_id, [p for p in kept if p not in before])
            raise
        self._drop(container_id, [p for p in before if p not in kept])
        for published in kept:
            if published.target != address:
                self.uplink.remove_ports(_comment(container_id, published.port))
                self._aim(published, address, from_host)
        self._of[container_id] = kept
        if routed:
            rows = [
                (p.port.protocol, p.port.host_ip, p.port.published, address, p.port.target)
                for p in kept
                if ":" not in p.port.host_ip
            ]
            comments = [_comment(container_id, p.port) + address for p in kept if ":" not in p.port.host_ip]
            self.uplink.add_ports((*row, comment) for row, comment in zip(rows, comments, strict=True))
        return tuple(p.port for p in kept)

    def _hold(self, container_id: str, port: PortSpec, kept: list[_Published]) -> list[_Published | socket.socket]:
        """Sockets for one port: published already, kept over a restart, or new ones."""
        present: list[_Published | socket.socket] = [
            p for p in self._of.get(container_id, ()) if p not in kept and _serves(p.port, port)
        ]
        if present:
            return present[: len(ports.hosts_of(port))]
        adopted: list[_Published | socket.socket] = []
        for host in ports.hosts_of(port):
            for key in [k for k in self.fds if k.startswith(f"port:{container_id}|")]:
                seen = _from_key(key)
                if seen.host_ip != host or not _serves(seen, port) or self._is_served(container_id, seen):
                    continue
                if adopted and isinstance(adopted[0], socket.socket) and adopted[0].getsockname()[1] != seen.published:
                    continue
                adopted.append(socket.socket(fileno=self.fds[key]))
                break
        return adopted or list(ports.reserve_one(port))

    def _is_served(self, container_id: str, port: PublishedPort) -> bool:
        return any(p.port == port for p in self._of.get(container_id, ()))

    def _serve(
        self, container_id: str, port: PortSpec, held: socket.socket, address: str, from_host: bool
    ) -> _Published:
        host, number = held.getsockname()[:2]
        shown = PublishedPort(host, number, port.target, port.protocol)
        self.fds[_key(container_id, shown)] = held.fileno()
        published = _Published(shown, held, self._proxy(held, address, shown, from_host), address)
        self._of[container_id].append(published)
        return published

    def _proxy(self, held: socket.socket, address: str, port: PublishedPort, from_host: bool) -> TcpProxy | UdpProxy:
        kind = TcpProxy if port.protocol == "tcp" else UdpProxy
        return kind(self._loop, held, sockets.made if from_host else self._made_within, (address, port.target))

    def _aim(self, published: _Published, address: str, from_host: bool) -> None:
        published.proxy.close()
        published.proxy = self._proxy(published.held, address, published.port, from_host)
        published.target = address

    def _made_within(self, family: int, kind: int) -> socket.socket:
        made: socket.socket = self._within(lambda: sockets.made(family, kind))
        return made

    def unpublish(self, container_id: str) -> None:
        """Take a container's ports back; they are free at once."""
        self._drop(container_id, self._of.pop(container_id, []))
        adopted = [k for k in self.fds if k.startswith(f"port:{container_id}|")]
        for key in adopted:  # of a supervisor that was killed: never published by us
            os.close(self.fds.pop(key))
        if adopted:
            self.uplink.remove_ports(f"{container_id[:12]}|")

    def _drop(self, container_id: str, gone: list[_Published]) -> None:
        if not gone:
            return
        for published in gone:
            self.uplink.remove_ports(_comment(container_id, published.port))
            published.proxy.close()
            self.fds.pop(_key(container_id, published.port), None)
            published.held.close()
        left = self._of.get(container_id)
        if left is not None:
            self._of[container_id] = [p for p in left if p not in gone]

    def close(self) -> None:
        """Give all ports back; the rules on the host are the uplink's to take away."""
        for published in (p for held in self._of.values() for p in held):
            published.proxy.close()
            fd = published.held.fileno()
            for key in [k for k, v in self.fds.items() if v == fd]:
                del self.fds[key]
            published.held.close()
        self._of.clear()


def _serves(have: PublishedPort, wanted: PortSpec) -> bool:
    """Does a published port do what is wanted?"""
    if have.target != wanted.target or have.protocol != wanted.protocol:
        return False
    if have.host_ip not in ports.hosts_of(wanted):
        return False
    last = max(wanted.published, wanted.published_end)
    return not wanted.published or wanted.published <= have.published <= last


def _comment(container_id: str, port: PublishedPort) -> str:
    return f"{container_id[:12]}|{port.protocol}|{port.host_ip}|{port.published}|{port.target}|"


def _key(container_id: str, port: PublishedPort) -> str:
    return f"port:{container_id}|{port.protocol}|{port.host_ip}|{port.published}|{port.target}"


def _from_key(key: str) -> PublishedPort:
    _, protocol, host, published, target = key.split("|")
    return PublishedPort(host, int(published), int(target), protocol)
