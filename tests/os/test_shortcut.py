"""The host's own connections to published ports pass no bridge of the project, and look the same to both ends."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from kapelle.engines.native import network_options
from kapelle.engines.native.network import EndpointSpec, PortSpec, ProjectNetwork
from kapelle.linux import namespaces
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
    def body(write: int) -> None:
        with socket.create_server(("", port)) as server:
            os.write(write, b"+")
            while True:
                peer, _ = server.accept()
                if os.fork() == 0:
                    while data := peer.recv(1 << 16):
                        peer.sendall(data)
                    os._exit(0)
                peer.close()

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


def test_a_connection_outlives_the_supervisor_and_the_publication(
    connected: tuple[Machine, ProjectNetwork, socket.socket],
) -> None:
    machine, project, peer = connected
    web = project._attached[WEB]
    there_and_back(peer, 2)
    kept = {name: os.dup(fd) for name, fd in project.fds.items()}
    machine.forget(project)
    there_and_back(peer, 2)
    successor = machine.project("shop", kept)
    there_and_back(peer, 2)  # its predecessor's rules are gone, its own not made
    successor.bridges.add(network())
    place = EndpointSpec("shop_default", ipv4=web.endpoints[0].ipv4)
    netns = next(fd for fd in machine._fds if namespaces.identity(fd) == web.netns)
    successor.attach(WEB, "shop-web-1", netns, (place,))
    successor.publish(WEB, (PortSpec("127.0.0.1", 18070, 0, 7, "tcp"),))
    before = bridged(machine, successor)
    there_and_back(peer)
    assert bridged(machine, successor) - before < 10_000
    successor.unpublish(WEB)
    there_and_back(peer)
    assert bridged(machine, successor) - before > SIZE
    for fd in project.fds.values():
        os.close(fd)


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
