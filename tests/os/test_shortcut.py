"""The host's own connections to published ports pass no bridge of the project, and look the same to both ends."""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kapelle.engines.native import network_options, uplink
from kapelle.engines.native.network import EndpointSpec, PortSpec, ProjectNetwork
from kapelle.linux import namespaces, nft
from kapelle.linux.netlink import Netlink
from tests.os.test_network_project import DB, WEB, Machine, ask, ip, machine, network, two

__all__ = ["machine"]  # a fixture
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="bridges and firewall rules on the host need root"),
]
SIZE = 4_000_000


def bridged(machine: Machine, project: ProjectNetwork) -> int:
    """Bytes that the project's bridges have taken in and given out."""

    def read() -> int:
        rows = [line.split() for line in Path("/proc/thread-self/net/dev").read_text().splitlines()]
        return sum(int(row[1]) + int(row[9]) for row in rows if row[0].startswith("br-"))

    return namespaces.within(project.fds["netns"], machine.home, read)


def echo(machine: Machine, netns: int, port: int) -> None:
    def answer(peer: socket.socket) -> None:
        with peer:
            while data := peer.recv(1 << 16):
                peer.sendall(data)

    def body(write: int) -> None:
        with socket.create_server(("", port)) as server:
            os.write(write, b"+")
            while True:
                peer, _ = server.accept()
                threading.Thread(target=answer, args=(peer,), daemon=True).start()

    _, read = machine.fork(netns, body)
    assert os.read(read, 1) == b"+"
    os.close(read)


def there_and_back(peer: socket.socket, blocks: int = SIZE >> 16) -> None:
    """Bytes of every value go out and come back in their order."""
    block = bytes(range(256)) * 256
    peer.settimeout(10)
    sent = received = 0
    while received < blocks << 16:
        if sent < blocks and (sent << 16) - received < 4 << 16:
            peer.sendall(block)
            sent += 1
        data = peer.recv(1 << 16)
        at = received % 256
        assert data
        assert data == (block + block)[at : at + len(data)]
        received += len(data)


@pytest.fixture
def connected(machine: Machine) -> Iterator[tuple[Machine, ProjectNetwork, socket.socket]]:
    project = machine.project()
    web, _, _, _ = two(machine, project)
    echo(machine, web, 7)
    project.publish(WEB, (PortSpec("127.0.0.1", 18070, 0, 7, "tcp"),))
    with socket.create_connection(("127.0.0.1", 18070), 5) as peer:
        yield machine, project, peer


def test_bytes_of_the_hosts_own_clients_pass_no_bridge(
    connected: tuple[Machine, ProjectNetwork, socket.socket],
) -> None:
    machine, project, peer = connected
    before = bridged(machine, project)
    there_and_back(peer)
    assert bridged(machine, project) - before < 10_000


def test_the_container_sees_its_gateway_whichever_way_they_take(machine: Machine) -> None:
    project = machine.project()
    web, at_web, db, at_db = two(machine, project)
    for port in (80, 81):
        machine.serve(web, port)
    project.publish(WEB, (PortSpec("", 18080, 0, 80, "tcp"),))
    for host, port in (("127.0.0.1", 18080), (ip(at_web), 80), (ip(at_web), 81)):  # 81 is not published
        assert machine.call(machine.home, ask(host, port)) == at_web.gateway
    assert machine.call(db, ask(ip(at_web), 80)) == ip(at_db)


def test_a_container_may_ask_the_host_from_the_port_that_it_publishes(machine: Machine) -> None:
    project = machine.project()
    web, at_web, _, _ = two(machine, project)
    machine.serve(machine.home, 18099)
    project.publish(WEB, (PortSpec("", 18080, 0, 80, "tcp"),))

    def asked() -> str:
        with socket.socket() as s:
            s.settimeout(3)
            s.bind(("", 80))
            s.connect((at_web.gateway, 18099))
            return s.recv(100).decode()

    assert machine.call(web, asked) == ip(at_web)


def successor_of(machine: Machine, project: ProjectNetwork) -> ProjectNetwork:
    """The supervisor is killed and comes up again, without a word to its containers yet."""
    kept = {name: os.dup(fd) for name, fd in project.fds.items()}
    machine.forget(project)
    return machine.project("shop", kept)


def take_over(machine: Machine, before: ProjectNetwork, after: ProjectNetwork) -> None:
    web = before._attached[WEB]
    after.bridges.add(network())
    netns = next(fd for fd in machine._fds if namespaces.identity(fd) == web.netns)
    after.attach(WEB, "shop-web-1", netns, (EndpointSpec("shop_default", ipv4=web.endpoints[0].ipv4),))
    after.publish(WEB, (PortSpec("127.0.0.1", 18070, 0, 7, "tcp"),))
    after.adopted()


def test_a_connection_goes_on_whoever_is_killed_and_whatever_is_taken_back(
    connected: tuple[Machine, ProjectNetwork, socket.socket],
) -> None:
    machine, project, peer = connected
    there_and_back(peer, 2)
    successor = successor_of(machine, project)
    before = bridged(machine, successor)
    there_and_back(peer)
    take_over(machine, project, successor)
    there_and_back(peer)
    assert bridged(machine, successor) - before < 10_000
    successor.unpublish(WEB)
    there_and_back(peer)
    assert bridged(machine, successor) - before > SIZE
    for fd in project.fds.values():
        os.close(fd)


def test_an_end_that_comes_while_there_is_no_supervisor_arrives(
    connected: tuple[Machine, ProjectNetwork, socket.socket],
) -> None:
    machine, project, peer = connected
    there_and_back(peer, 2)
    successor = successor_of(machine, project)
    peer.shutdown(socket.SHUT_WR)
    peer.settimeout(5)
    assert peer.recv(1) == b""  # it has read the end, and ended, too
    take_over(machine, project, successor)
    for fd in project.fds.values():
        os.close(fd)


def test_a_connection_from_before_the_port_was_published_goes_on(machine: Machine) -> None:
    project = machine.project()
    web, at_web, _, _ = two(machine, project)
    echo(machine, web, 7)
    with socket.create_connection((ip(at_web), 7), 5) as peer:
        there_and_back(peer)
        project.publish(WEB, (PortSpec("127.0.0.1", 18070, 0, 7, "tcp"),))
        there_and_back(peer)
        project.unpublish(WEB)
        there_and_back(peer)


def test_what_a_dead_container_left_is_forgotten_by_the_next_supervisor(
    connected: tuple[Machine, ProjectNetwork, socket.socket],
) -> None:
    machine, project, _ = connected
    successor = successor_of(machine, project)
    assert successor._shortcut is not None
    assert successor._shortcut._others
    successor.adopted()
    with namespaces_of(machine, successor) as tables:
        left = {c.name for c in nft.chains(tables, nft.NETDEV)}
    assert left == {"uplink"}
    for fd in project.fds.values():
        os.close(fd)


@contextmanager
def namespaces_of(machine: Machine, project: ProjectNetwork) -> Iterator[Netlink]:
    tables: Netlink = namespaces.within(project.fds["netns"], machine.home, nft.open_nft)
    with tables:
        yield tables


def test_a_refusal_by_icmp_is_the_clients(machine: Machine) -> None:
    """As of a container with a firewall that rejects: its word quotes a packet that the host has not sent so."""
    project = machine.project()
    web, at_web, _, _ = two(machine, project)

    def refuse(write: int) -> None:
        with socket.create_server(("", 7)) as server, socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0x0300) as wire:
            drop = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))  # "return 0": it hears nothing
            program = struct.pack("HxxxxxxP", 1, ctypes.addressof(drop))
            server.setsockopt(socket.SOL_SOCKET, 26, program)  # SO_ATTACH_FILTER
            os.write(write, b"+")
            while True:
                packet = wire.recv(2000)[14:]
                if packet[9] == socket.IPPROTO_TCP and packet[16:20] == socket.inet_aton(ip(at_web)):
                    break
            body = struct.pack("!BBHI", 3, 3, 0, 0) + packet[:28]
            total = sum(struct.unpack(f"!{len(body) // 2}H", body))
            total = (total & 0xFFFF) + (total >> 16)
            body = body[:2] + struct.pack("!H", ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF) + body[4:]
            with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as icmp:
                icmp.sendto(body, (at_web.gateway, 0))
            os.read(os.pipe()[0], 1)

    _, read = machine.fork(web, refuse)
    assert os.read(read, 1) == b"+"
    os.close(read)
    project.publish(WEB, (PortSpec("127.0.0.1", 18070, 0, 7, "tcp"),))
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", 18070), 5)


def test_the_hosts_end_has_an_address_that_nobody_replaces(machine: Machine) -> None:
    """systemd-udevd gives interfaces with a random address (type 1) another one, some time after."""
    project = machine.project()
    name = f"kap-{uplink.mark_of(project.project, machine.place)}"
    assert Path(f"/sys/class/net/{name}/addr_assign_type").read_text() == "3\n"


def test_an_address_that_went_to_another_container_leads_to_that_one(machine: Machine) -> None:
    project = machine.project()
    web, at_web, db, _ = two(machine, project)
    project.publish(WEB, (PortSpec("127.0.0.1", 18080, 0, 80, "tcp"),))
    project.detach(WEB)
    project.detach(DB)
    machine.drop_netns(web)
    other = machine.netns()
    spec = EndpointSpec("shop_default", ipv4=at_web.ipv4, mac="02:00:5e:10:00:01")
    project.attach(DB, "shop-db-1", other, (spec,))
    machine.serve(other, 80)
    project.publish(DB, (PortSpec("127.0.0.1", 18080, 0, 80, "tcp"),))
    assert machine.call(machine.home, ask("127.0.0.1", 18080)) == at_web.gateway
    machine.drop_netns(db)


def test_a_network_of_another_packet_size_goes_by_its_bridge(machine: Machine) -> None:
    project = machine.project()
    project.bridges.add(network(options=((network_options.MTU, "9000"),)))
    web = machine.netns()
    project.attach(WEB, "shop-web-1", web, (EndpointSpec("shop_default"),))
    echo(machine, web, 7)
    project.publish(WEB, (PortSpec("127.0.0.1", 18070, 0, 7, "tcp"),))
    before = bridged(machine, project)
    with socket.create_connection(("127.0.0.1", 18070), 5) as peer:
        there_and_back(peer)
    assert bridged(machine, project) - before > SIZE


def test_a_container_with_many_ports_goes_by_its_bridge(machine: Machine) -> None:
    project = machine.project()
    web, _, _, _ = two(machine, project)
    echo(machine, web, 7)
    project.publish(WEB, tuple(PortSpec("127.0.0.1", 18070 + n, 0, 7 + n, "tcp") for n in range(17)))
    before = bridged(machine, project)
    with socket.create_connection(("127.0.0.1", 18070), 5) as peer:
        there_and_back(peer)
    assert bridged(machine, project) - before > SIZE
