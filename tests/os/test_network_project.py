"""A project's network with real namespaces, sockets, questions and firewalls. Each test leaves the host as it was."""

from __future__ import annotations

import hashlib
import os
import pickle
import select
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dns.message
import dns.query
import dns.rdatatype
import dns.reversename
import pytest

from kapelle.engines.native import network as network_module
from kapelle.engines.native import subnets, uplink
from kapelle.engines.native.loop import Loop
from kapelle.engines.native.network import EndpointSpec, NetworkSpec, PortSpec, ProjectNetwork, sweep
from kapelle.errors import EngineError
from kapelle.linux import namespaces, nft, route
from kapelle.plan.observed import Endpoint

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="bridges and firewall rules on the host need root"),
]
WEB, DB, JOB = (digits * 16 for digits in ("a1b2", "b2c3", "c3d4"))
DEADLINE = 15.0


def host_state() -> tuple[Any, ...]:
    """What a project may have put on the host."""
    with route.open_route() as links, nft.open_nft() as tables:
        return (
            sorted(link.name for link in route.links(links)),
            sorted((r.destination, r.prefix) for r in route.routes(links) if r.table == route.TABLE_MAIN),
            sorted(nft.tables(tables)),
            sorted(r.comment for r in nft.rules(tables)),
        )


_DEAD: list[ProjectNetwork] = []  # never collected: their sockets close numbers that others have by then


class Machine:
    """The host during a test: namespaces, children and the supervisor's loop, all ended at its end."""

    def __init__(self, tmp: Path) -> None:
        self.loop = Loop()
        self.home = namespaces.open_current()
        self.place = str(tmp)
        self._children: list[int] = []
        self._fds: list[int] = []
        self._projects: list[ProjectNetwork] = []

    def project(self, name: str = "shop", fds: dict[str, int] | None = None) -> ProjectNetwork:
        made = ProjectNetwork(name, self.loop, self.place, fds or {})
        self._projects.append(made)
        return made

    def forget(self, project: ProjectNetwork) -> None:
        """The supervisor was killed: its object is gone, what it held by the keeper's grace is not."""
        self._projects.remove(project)
        _DEAD.append(project)
        self.loop = Loop()

    def netns(self) -> int:
        fd = namespaces.new_netns(self.home)
        self._fds.append(fd)
        return fd

    def drop_netns(self, fd: int) -> None:
        self._fds.remove(fd)
        os.close(fd)

    def fork(self, netns: int, work: Callable[[int], None]) -> tuple[int, int]:
        """Run `work(write end)` in a child in that namespace; (pid, read end)."""
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                namespaces.setns(netns)
                work(write)
            finally:
                os._exit(0)
        os.close(write)
        self._children.append(pid)
        return pid, read

    def call(self, netns: int, work: Callable[[], Any]) -> Any:
        """What `work` returns (or the exception it raises) in that namespace, while the loop serves."""

        def body(write: int) -> None:
            try:
                result: object = work()
            except Exception as e:
                result = e
            os.write(write, pickle.dumps(result))

        _, read = self.fork(netns, body)
        data = b""
        end = time.monotonic() + DEADLINE
        open_ = True
        while open_ and time.monotonic() < end:
            self.turn()
            while select.select([read], [], [], 0)[0]:
                part = os.read(read, 65536)
                data += part
                if not part:
                    open_ = False
                    break
        os.close(read)
        assert data, "no answer from the child in time"
        return pickle.loads(data)

    def turn(self) -> None:
        self.loop.later(0.01, lambda: None)
        self.loop.turn()

    def serve(self, netns: int, port: int, kind: int = socket.SOCK_STREAM, family: int = socket.AF_INET) -> None:
        """A server in that namespace that tells each client the address it saw; returns once it listens."""

        def body(write: int) -> None:
            s = socket.socket(family, kind)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            s.bind(("", port))
            if kind == socket.SOCK_STREAM:
                s.listen(64)
            os.write(write, b"+")
            while True:
                if kind == socket.SOCK_STREAM:
                    c, address = s.accept()
                    c.sendall(address[0].encode())
                    c.close()
                else:
                    _, address = s.recvfrom(2000)
                    s.sendto(address[0].encode(), address)

        _, read = self.fork(netns, body)
        assert os.read(read, 1) == b"+"
        os.close(read)

    def close(self) -> None:
        for pid in self._children:
            try:
                os.kill(pid, 9)
            except ProcessLookupError:
                pass
            os.waitpid(pid, 0)
        for project in self._projects:
            project.close()
        for fd in self._fds:
            os.close(fd)
        os.close(self.home)


def left_over(before: tuple[Any, ...]) -> list[str]:
    """What is on the host that was not there before; a link of an earlier test may still be on its way out."""
    return [row for now, was in zip(host_state(), before, strict=True) for row in now if row not in was]


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    before = host_state()
    made = Machine(tmp_path)
    try:
        yield made
    finally:
        made.close()
    end = time.monotonic() + DEADLINE  # interfaces of closed namespaces go a moment later
    while left_over(before) and time.monotonic() < end:
        time.sleep(0.01)
    assert not left_over(before)


def ask(host: str, port: int, kind: int = socket.SOCK_STREAM) -> Callable[[], str]:
    """Connect, and return what the server says: the address it saw."""

    def work() -> str:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, kind) as s:
            s.settimeout(3)
            s.connect((host, port))
            if kind == socket.SOCK_DGRAM:
                s.send(b"?")
            return s.recv(100).decode()

    return work


def question(name: str, kind: str = "A", tcp: bool = False) -> Callable[[], tuple[str, list[str]]]:
    """(rcode, sorted records) as dnspython reads the answer of 127.0.0.11."""

    def work() -> tuple[str, list[str]]:
        query = dns.message.make_query(name, kind)
        send = dns.query.tcp if tcp else dns.query.udp
        reply = send(query, "127.0.0.11", timeout=5)
        records = [str(item) for rrset in reply.answer for item in rrset]
        return dns.rcode.to_text(reply.rcode()), sorted(records)

    return work


def network(name: str = "shop_default", **more: Any) -> NetworkSpec:
    return NetworkSpec(name, hashlib.sha256(name.encode()).hexdigest(), **more)


def ip(place: Endpoint) -> str:
    return place.ipv4.partition("/")[0]


def two(machine: Machine, project: ProjectNetwork) -> tuple[int, Endpoint, int, Endpoint]:
    """web and db on the default network: (namespace, endpoint) of each."""
    project.bridges.add(network())
    web, db = machine.netns(), machine.netns()
    (at_web,) = project.attach(WEB, "shop-web-1", web, (EndpointSpec("shop_default", aliases=("web",)),))
    (at_db,) = project.attach(DB, "shop-db-1", db, (EndpointSpec("shop_default", aliases=("db", "store")),))
    return web, at_web, db, at_db


def outside(machine: Machine) -> tuple[int, str, str]:
    """Another machine on a wire with the host, without a route to containers: (namespace, address, the host's)."""
    there = machine.netns()
    with route.open_route() as here:
        here.request((route.veth("kaptest0", "wire0", there),))
        link = route.link(here, "kaptest0")
        assert link is not None
        here.request((route.address(link.ifindex, "198.51.100.1", 24),))

    def equip() -> None:
        with route.open_route() as other:
            link = route.link(other, "wire0")
            assert link is not None
            up = (route.link_up(1), route.address(link.ifindex, "198.51.100.2", 24), route.link_up(link.ifindex))
            other.request(up)

    namespaces.within(there, machine.home, equip)
    return there, "198.51.100.2", "198.51.100.1"


# -- names and addresses ----------------------------------------------------------------------------------------------


def test_two_containers_reach_each_other_by_address_and_by_name(machine: Machine) -> None:
    project = machine.project()
    web, _, db, at_db = two(machine, project)
    machine.serve(db, 5432)
    assert machine.call(web, ask(ip(at_db), 5432)) == ip(project.attach(WEB, "shop-web-1", web, ())[0])
    for name in ("db", "store", "shop-db-1", DB[:12], "DB", "db.shop_default"):
        assert machine.call(web, question(name + ".")) == ("NOERROR", [ip(at_db)]), name
        assert machine.call(web, question(name + ".", tcp=True)) == ("NOERROR", [ip(at_db)]), name


def test_a_known_name_without_ipv6_gives_an_empty_answer_and_an_address_gives_its_name(machine: Machine) -> None:
    web, _, _db, at_db = two(machine, machine.project())
    assert machine.call(web, question("db.", "AAAA")) == ("NOERROR", [])
    assert machine.call(web, question("db.", "MX")) == ("NOERROR", [])
    reverse = str(dns.reversename.from_address(ip(at_db)))
    assert machine.call(web, question(reverse, "PTR")) == ("NOERROR", ["shop-db-1.shop_default."])


def test_replicas_answer_to_the_service_name_with_all_addresses_in_turn(machine: Machine) -> None:
    project = machine.project()
    web, _, _db, at_db = two(machine, project)
    (other,) = project.attach(JOB, "shop-db-2", machine.netns(), (EndpointSpec("shop_default", aliases=("db",)),))

    def firsts() -> list[str]:
        query = dns.message.make_query("db.", "A")
        return [str(dns.query.udp(query, "127.0.0.11", timeout=5).answer[0][0]) for _ in range(4)]

    assert machine.call(web, question("db.")) == ("NOERROR", sorted((ip(at_db), ip(other))))
    assert set(machine.call(web, firsts)) == {ip(at_db), ip(other)}


def test_the_name_of_a_container_that_stopped_is_nobody_at_once(machine: Machine) -> None:
    project = machine.project()
    web, _, _, _ = two(machine, project)
    project.detach(DB)
    assert machine.call(web, question("db.")) == ("NXDOMAIN", [])


def test_a_container_that_comes_back_has_its_address_again(machine: Machine) -> None:
    project = machine.project()
    web, at_web, _, at_db = two(machine, project)
    project.detach(DB)
    (job,) = project.attach(JOB, "shop-job-1", machine.netns(), (EndpointSpec("shop_default"),))
    (again,) = project.attach(DB, "shop-db-1", machine.netns(), (EndpointSpec("shop_default", aliases=("db",)),))
    assert again.ipv4 == at_db.ipv4
    assert len({job.ipv4, at_web.ipv4, again.ipv4}) == 3
    assert machine.call(web, question("db.")) == ("NOERROR", [ip(at_db)])


def test_other_names_are_asked_of_the_hosts_name_server_once_and_kept(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolv = tmp_path / "resolv.conf"
    resolv.write_text("nameserver 127.0.0.153\n")
    for module in (network_module, subnets):
        monkeypatch.setattr(module, "RESOLV_CONF", str(resolv))
    log = tmp_path / "asked"

    def upstream(write: int) -> None:
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        s.bind(("127.0.0.153", 53))
        os.write(write, b"+")
        while True:
            data, asker = s.recvfrom(4096)
            query = dns.message.from_wire(data)
            with log.open("a") as f:
                f.write(f"{query.question[0].name}\n")
            reply = dns.message.make_response(query)
            name = query.question[0].name
            if str(name).startswith("www."):
                reply.answer.append(dns.rrset.from_text(name, 60, "IN", "A", "192.0.2.80"))
            else:
                reply.set_rcode(dns.rcode.NXDOMAIN)
            s.sendto(reply.to_wire(), asker)

    _, read = machine.fork(machine.home, upstream)
    assert os.read(read, 1) == b"+"
    os.close(read)
    project = machine.project()
    web, _, _, _ = two(machine, project)
    for _ in range(3):
        assert machine.call(web, question("www.example.org.")) == ("NOERROR", ["192.0.2.80"])
    assert machine.call(web, question("www.example.org.", tcp=True)) == ("NOERROR", ["192.0.2.80"])
    assert machine.call(web, question("databse.")) == ("NXDOMAIN", [])
    assert project.unknown_names(WEB) == {"databse": 1}
    asked = log.read_text().split()
    assert asked.count("www.example.org.") == 2  # once by UDP; by TCP nobody answers, so once more
    resolv.write_text("# no server at all\n")
    os.utime(resolv, (1, 1))

    def changed() -> bool:
        return bool(machine.call(web, question("www.example.net.")) == ("SERVFAIL", []))

    end = time.monotonic() + DEADLINE
    while not changed():
        assert time.monotonic() < end


# -- the way out, the ways in ------------------------------------------------------------------------------------------


def test_a_container_reaches_another_machine_under_the_hosts_address(machine: Machine) -> None:
    there, address, host = outside(machine)
    machine.serve(there, 80)
    web, _, _, _ = two(machine, machine.project())
    assert machine.call(web, ask(address, 80)) == host


def test_a_container_reaches_the_host_by_its_gateway_and_by_the_hosts_own_address(machine: Machine) -> None:
    project = machine.project()
    web, at_web, _, _ = two(machine, project)
    machine.serve(machine.home, 18099)
    assert machine.call(web, ask(at_web.gateway, 18099)) == ip(at_web)
    assert machine.call(web, ask(project.host_address, 18099)) == ip(at_web)


def test_a_published_port_answers_everywhere_and_keeps_the_senders_address(machine: Machine) -> None:
    there, address, host = outside(machine)
    project = machine.project()
    web, at_web, db, at_db = two(machine, project)
    machine.serve(web, 80)
    shown = project.publish(WEB, (PortSpec("", 18080, 0, 80, "tcp"),))
    assert [(p.host_ip, p.published, p.target) for p in shown] == [("0.0.0.0", 18080, 80), ("::", 18080, 80)]
    gateway = at_web.gateway
    assert machine.call(machine.home, ask("127.0.0.1", 18080)) == gateway  # as on Docker
    assert machine.call(machine.home, ask("::1", 18080)) == gateway
    assert machine.call(machine.home, ask(host, 18080)) == host
    assert machine.call(there, ask(host, 18080)) == address
    assert machine.call(db, ask(host, 18080)) == gateway  # another container, by the host's address
    assert machine.call(web, ask(host, 18080)) == gateway  # itself
    assert machine.call(db, ask(project.host_address, 18080)) == gateway
    assert machine.call(machine.home, ask(ip(at_web), 80)) == gateway  # the host reaches containers, as on Docker
    assert isinstance(machine.call(there, ask(host, 80)), OSError)
    project.unpublish(WEB)
    assert isinstance(machine.call(machine.home, ask("127.0.0.1", 18080)), ConnectionRefusedError)
    assert at_db.ipv4 != at_web.ipv4


def test_a_port_of_the_loopback_is_closed_to_other_machines(machine: Machine) -> None:
    there, _, host = outside(machine)
    project = machine.project()
    web, at_web, _, _ = two(machine, project)
    machine.serve(web, 80)
    project.publish(WEB, (PortSpec("127.0.0.1", 18081, 0, 80, "tcp"),))
    assert machine.call(machine.home, ask("127.0.0.1", 18081)) == at_web.gateway
    assert isinstance(machine.call(machine.home, ask(host, 18081)), ConnectionRefusedError)
    assert isinstance(machine.call(there, ask(host, 18081)), ConnectionRefusedError)


def test_udp_is_published_too(machine: Machine) -> None:
    there, address, host = outside(machine)
    project = machine.project()
    web, at_web, db, _ = two(machine, project)
    machine.serve(web, 5353, socket.SOCK_DGRAM)
    project.publish(WEB, (PortSpec("", 18053, 0, 5353, "udp"),))
    assert machine.call(machine.home, ask("127.0.0.1", 18053, socket.SOCK_DGRAM)) == at_web.gateway
    assert machine.call(machine.home, ask("::1", 18053, socket.SOCK_DGRAM)) == at_web.gateway
    assert machine.call(there, ask(host, 18053, socket.SOCK_DGRAM)) == address
    assert machine.call(db, ask(host, 18053, socket.SOCK_DGRAM)) == at_web.gateway


def test_ephemeral_ports_and_ranges_get_a_free_number(machine: Machine) -> None:
    project = machine.project()
    web, at_web, db, _ = two(machine, project)
    machine.serve(web, 80)
    ephemeral = project.publish(WEB, (PortSpec("", 0, 0, 80, "tcp"),))
    assert len({p.published for p in ephemeral}) == 1  # one number for both families
    assert machine.call(machine.home, ask("127.0.0.1", ephemeral[0].published)) == at_web.gateway
    machine.serve(db, 80)
    with socket.create_server(("127.0.0.1", 18090)):
        (port,) = project.publish(DB, (PortSpec("127.0.0.1", 18090, 18092, 80, "tcp"),))
        assert port.published == 18091


def test_without_the_firewalls_help_the_proxy_serves_the_port(machine: Machine) -> None:
    project = machine.project()
    web, at_web, _, _ = two(machine, project)
    machine.serve(web, 80)
    project.publish(WEB, (PortSpec("", 18082, 0, 80, "tcp"),))
    with nft.open_nft() as tables:  # as after `nft flush ruleset`
        ours = [t for t in nft.tables(tables) if t[1].startswith("kapelle-")]
        nft.batch(tables, [nft.delete_table(name, family) for family, name in ours])
    assert machine.call(machine.home, ask("127.0.0.1", 18082)) == at_web.gateway


def test_a_taken_port_names_its_holder_and_a_free_one_and_holds_nothing(machine: Machine) -> None:
    project = machine.project()
    two(machine, project)
    with socket.create_server(("0.0.0.0", 18083)) as other:
        with pytest.raises(EngineError) as caught:
            project.publish(WEB, (PortSpec("", 18070, 0, 81, "tcp"), PortSpec("", 18083, 0, 80, "tcp")))
        assert caught.value.code == "KAP201"
        assert caught.value.what == "port 18083 on all addresses is already taken"
        rows = dict(caught.value.details)
        assert f"(pid {os.getpid()}, user root)" in rows["held by"]
        assert rows["free now"] == "18084"
        assert other.getsockname()[1] == 18083
    with socket.create_server(("0.0.0.0", 18070)):  # the first one was let go again
        pass


# -- networks apart ----------------------------------------------------------------------------------------------------


def test_networks_do_not_reach_or_name_each_other_and_a_container_may_be_on_both(machine: Machine) -> None:
    project = machine.project()
    project.bridges.add(network("shop_front"))
    project.bridges.add(network("shop_back"))
    front, back, both = machine.netns(), machine.netns(), machine.netns()
    (at_front,) = project.attach(WEB, "shop-web-1", front, (EndpointSpec("shop_front", aliases=("web",)),))
    (at_back,) = project.attach(DB, "shop-db-1", back, (EndpointSpec("shop_back", aliases=("db",)),))
    on = project.attach(
        JOB, "shop-app-1", both, (EndpointSpec("shop_front"), EndpointSpec("shop_back", ifname="data0"))
    )
    for at in (front, back):
        machine.serve(at, 80)
    assert isinstance(machine.call(front, ask(ip(at_back), 80)), TimeoutError)
    assert machine.call(front, question("db.")) == ("NXDOMAIN", [])
    assert machine.call(both, ask(ip(at_front), 80)) == ip(on[0])
    assert machine.call(both, ask(ip(at_back), 80)) == ip(on[1])
    assert machine.call(both, question("db.")) == ("NOERROR", [ip(at_back)])
    assert machine.call(both, lambda: sorted(name for _, name in socket.if_nameindex())) == ["data0", "eth0", "lo"]


def test_an_internal_network_has_no_way_out_and_publishes_nothing(machine: Machine) -> None:
    there, address, _host = outside(machine)
    machine.serve(there, 80)
    project = machine.project()
    project.bridges.add(network("shop_in", internal=True))
    web, db = machine.netns(), machine.netns()
    (at_web,) = project.attach(WEB, "shop-web-1", web, (EndpointSpec("shop_in"),))
    project.attach(DB, "shop-db-1", db, (EndpointSpec("shop_in"),))
    machine.serve(web, 80)
    assert machine.call(db, ask(ip(at_web), 80))
    assert isinstance(machine.call(db, ask(address, 80)), OSError)
    assert isinstance(machine.call(db, ask(project.host_address, 80)), OSError)
    assert machine.call(machine.home, ask(ip(at_web), 80)) == at_web.gateway  # the host may
    assert project.publish(WEB, (PortSpec("", 18084, 0, 80, "tcp"),)) == ()


def test_two_projects_do_not_reach_each_other_but_their_published_ports(machine: Machine) -> None:
    _, _, host = outside(machine)
    one, other = machine.project("one"), machine.project("two")
    web, at_web, _, _ = two(machine, one)
    other.bridges.add(network("two_default"))
    stranger = machine.netns()
    (at_stranger,) = other.attach(JOB, "two-app-1", stranger, (EndpointSpec("two_default"),))
    machine.serve(web, 80)
    one.publish(WEB, (PortSpec("", 18085, 0, 80, "tcp"),))
    assert at_stranger.ipv4.split(".")[:2] != at_web.ipv4.split(".")[:2]
    assert isinstance(machine.call(stranger, ask(ip(at_web), 80)), TimeoutError)
    assert machine.call(stranger, question("web."))[0] != "NOERROR"
    assert machine.call(stranger, ask(host, 18085)) in (ip(at_stranger), at_web.gateway)  # hidden or not: it answers


def test_given_subnets_gateways_and_addresses_are_kept(machine: Machine) -> None:
    project = machine.project()
    filled = project.bridges.add(network(subnets=("172.31.9.0/24",), gateways=("172.31.9.254",)))
    assert (filled.subnets, filled.gateways) == (("172.31.9.0/24",), ("172.31.9.254",))
    web = machine.netns()
    wanted = EndpointSpec("shop_default", ipv4="172.31.9.77", mac="02:00:00:00:00:77")
    (place,) = project.attach(WEB, "shop-web-1", web, (wanted,))
    assert (place.ipv4, place.mac, place.gateway) == ("172.31.9.77/24", "02:00:00:00:00:77", "172.31.9.254")
    for bad, code in (("172.31.9.77", "KAP202"), ("10.0.0.1", "KAP202"), ("172.31.9.254", "KAP202"), ("x", "KAP202")):
        with pytest.raises(EngineError) as caught:
            project.attach(DB, "shop-db-1", machine.netns(), (EndpointSpec("shop_default", ipv4=bad),))
        assert caught.value.code == code


def test_two_projects_may_ask_for_the_same_subnet_and_both_work(machine: Machine) -> None:
    there, address, host = outside(machine)
    machine.serve(there, 80)
    seen = []
    for number, name in enumerate(("one", "two")):
        project = machine.project(name)
        project.bridges.add(network(f"{name}_default", subnets=("172.31.8.0/24",)))
        at = machine.netns()
        project.attach(f"{number + 1:02x}" * 32, f"{name}-web-1", at, (EndpointSpec(f"{name}_default"),))
        machine.serve(at, 80)
        project.publish(f"{number + 1:02x}" * 32, (PortSpec("", 18086 + number, 0, 80, "tcp"),))
        assert machine.call(at, ask(address, 80)) == host
        seen.append(machine.call(there, ask(host, 18086 + number)))
    assert seen == [address, "172.31.8.1"]  # the second one's port is passed on by the proxy


def test_a_network_has_ipv6_when_asked(machine: Machine) -> None:
    project = machine.project()
    project.bridges.add(network(enable_ipv6=True))
    web, db = machine.netns(), machine.netns()
    (at_web,) = project.attach(WEB, "shop-web-1", web, (EndpointSpec("shop_default", aliases=("web",)),))
    project.attach(DB, "shop-db-1", db, (EndpointSpec("shop_default"),))
    machine.serve(web, 80, family=socket.AF_INET6)
    address = at_web.ipv6.partition("/")[0]
    assert address.startswith("fd")
    assert machine.call(db, question("web.", "AAAA")) == ("NOERROR", [address])
    assert machine.call(db, ask(address, 80)).startswith("fd")


# -- firewalls ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def drop_policy() -> Iterator[str]:
    """A forward chain that drops by default, as dockerd's and ufw's, in a table of its own."""
    with nft.open_nft() as tables:
        make = [
            nft.table("kaptest"),
            nft.base_chain("kaptest", "FORWARD", "filter", nft.FORWARD, nft.FILTER, policy=nft.DROP),
        ]
        nft.batch(tables, make)
        yield "kaptest"
        nft.batch(tables, [nft.delete_table("kaptest")])


def test_a_firewall_that_drops_by_default_lets_the_project_through_and_is_left_as_it_was(
    drop_policy: str, tmp_path: Path
) -> None:
    machine = Machine(tmp_path)
    try:
        there, address, host = outside(machine)
        machine.serve(there, 80)
        project = machine.project()
        web, _, db, _ = two(machine, project)
        machine.serve(web, 80)
        project.publish(WEB, (PortSpec("", 18087, 0, 80, "tcp"),))
        assert machine.call(web, ask(address, 80)) == host
        assert machine.call(there, ask(host, 18087)) == address
        assert machine.call(db, ask(host, 18087))
    finally:
        machine.close()
    with nft.open_nft() as tables:
        assert nft.rules(tables, drop_policy) == []


# -- deaths ------------------------------------------------------------------------------------------------------------


def test_a_successor_of_a_killed_supervisor_goes_on_without_cutting_a_connection(machine: Machine) -> None:
    project = machine.project()
    web, at_web, db, at_db = two(machine, project)
    machine.serve(web, 80)
    shown = project.publish(WEB, (PortSpec("", 18088, 0, 80, "tcp"),))
    before = host_state()
    kept = {name: os.dup(fd) for name, fd in project.fds.items()}
    machine.forget(project)  # no close: everything stays as a kill leaves it

    # between the two: the kernel goes on with what it does by itself
    assert machine.call(machine.home, ask("127.0.0.1", 18088)) == at_web.gateway
    successor = machine.project("shop", kept)
    filled = successor.bridges.add(network())
    assert filled.subnets == (str(at_web.ipv4.rpartition(".")[0].rpartition(".")[0] + ".0.0/16"),)
    again = successor.attach(
        WEB, "shop-web-1", web, (EndpointSpec("shop_default", aliases=("web",), ipv4=at_web.ipv4),)
    )
    assert again == (at_web,)
    successor.attach(DB, "shop-db-1", db, (EndpointSpec("shop_default", aliases=("db",), ipv4=at_db.ipv4),))
    assert successor.publish(WEB, (PortSpec("", 18088, 0, 80, "tcp"),)) == shown
    assert sorted(successor.fds) == sorted(kept)
    assert not left_over(before)
    assert machine.call(machine.home, ask("127.0.0.1", 18088)) == at_web.gateway
    assert machine.call(machine.home, ask("::1", 18088)) == at_web.gateway
    assert machine.call(web, question("db.")) == ("NOERROR", [ip(at_db)])
    # the killed one's descriptors close with its process
    for fd in project.fds.values():
        os.close(fd)


def test_what_a_project_killed_whole_leaves_on_the_host_is_swept_and_living_ones_stay(machine: Machine) -> None:
    sweep()  # a test run that was killed may have left some, too
    living = machine.project("living")
    living.bridges.add(network("living_default"))

    def die(write: int) -> None:
        project = ProjectNetwork("dead", Loop(), machine.place, {})
        project.bridges.add(network("dead_default"))
        os.write(write, b"+")
        os.kill(os.getpid(), 9)

    _, read = machine.fork(machine.home, die)
    assert os.read(read, 1) == b"+"
    mark = uplink.mark_of("dead", machine.place)

    def link_is_gone() -> bool:
        with route.open_route() as links:
            return route.link(links, f"kap-{mark}") is None

    end = time.monotonic() + DEADLINE
    while not link_is_gone():
        assert time.monotonic() < end
        time.sleep(0.01)
    assert sweep() == (mark,)
    with nft.open_nft() as tables:
        assert [name for _, name in nft.tables(tables) if name.startswith("kapelle-")] == [
            "kapelle-" + uplink.mark_of("living", machine.place)
        ]


def test_a_network_that_went_just_before_its_project_troubles_nobody(machine: Machine) -> None:
    project = machine.project()
    project.bridges.add(network())
    project.bridges.remove("shop_default")  # the bridge goes a moment later, with the loop that stays
    machine._projects.remove(project)
    project.close()
    end = time.monotonic() + 0.7
    while time.monotonic() < end:
        machine.turn()


def test_an_address_of_the_loopback_can_not_be_reached_through_the_uplink(machine: Machine) -> None:
    project = machine.project()
    web, at_web, _, _ = two(machine, project)
    with socket.create_server(("127.0.0.1", 18089)):

        def attack() -> str:
            # a container with NET_ADMIN may route the host's loopback to its gateway
            with route.open_route() as inside:
                link = route.link(inside, "eth0")
                assert link is not None
                Path("/proc/sys/net/ipv4/conf/eth0/route_localnet").write_text("1")
                inside.request((route.link_delete(0),), ignore=(22,))
            s = socket.socket()
            s.settimeout(1)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
            s.connect(("127.0.0.1", 18089))
            return "reached"

        assert isinstance(machine.call(web, attack), OSError)
    assert at_web.gateway


# -- IPv6 out of an ordinary user's project ----------------------------------------------------------------------------


@pytest.fixture
def as_user(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The way out that is made where the host's network is not ours to change; echo requests are everybody's."""
    monkeypatch.setattr(namespaces, "open_home", lambda: -1)
    setting = Path("/proc/sys/net/ipv4/ping_group_range")
    before = setting.read_text()
    setting.write_text("0 2147483647")
    yield
    setting.write_text(before)


@pytest.fixture
def far_router(machine: Machine) -> tuple[int, str]:
    """A machine behind a router that is on a wire with the host: (its namespace, its address)."""
    router, far = machine.netns(), machine.netns()
    with route.open_route() as here:
        here.request((route.veth("kaptest6", "wire0", router),))
        link = route.link(here, "kaptest6")
        assert link is not None
        own = (route.address(link.ifindex, "2001:db8:a::1", 64), route.link_up(link.ifindex))
        here.request((*own, route.route("2001:db8:b::", 64, link.ifindex, via="2001:db8:a::2")))

    def equip(name: str, address: str, gateway: str = "") -> Callable[[], None]:
        def go() -> None:
            with route.open_route() as links:
                link = route.link(links, name)
                assert link is not None
                links.request((route.link_up(1), route.address(link.ifindex, address, 64), route.link_up(link.ifindex)))
                if gateway:
                    links.request((route.route("", 0, link.ifindex, via=gateway),))

        return go

    def join() -> None:
        with route.open_route() as links:
            links.request((route.veth("wire1", "wire0", far),))

    namespaces.within(router, machine.home, join)
    namespaces.within(router, machine.home, equip("wire0", "2001:db8:a::2"))
    namespaces.within(router, machine.home, equip("wire1", "2001:db8:b::1"))
    namespaces.within(router, machine.home, lambda: uplink.sysctl("net/ipv6/conf/all/forwarding", "1"))
    namespaces.within(far, machine.home, equip("wire0", "2001:db8:b::2", "2001:db8:b::1"))
    return far, "2001:db8:b::2"


def echo6(address: str) -> Callable[[], bytes]:
    """What a machine answers to an echo request."""

    def ask_it() -> bytes:
        with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as s:
            s.settimeout(5)
            s.sendto(b"\x80\0\0\0\x12\x34\0\x07payload", (address, 0))
            while True:
                data = s.recv(2000)
                if data[:1] == b"\x81":
                    return data[4:]

    return ask_it


def test_an_ordinary_users_container_reaches_machines_behind_a_router_by_ipv6(
    machine: Machine, as_user: None, far_router: tuple[int, str]
) -> None:
    far, address = far_router
    machine.serve(far, 80, family=socket.AF_INET6)
    machine.serve(far, 53, socket.SOCK_DGRAM, socket.AF_INET6)
    project = machine.project()
    assert project.warnings == []
    project.bridges.add(network(enable_ipv6=True))
    web = machine.netns()
    project.attach(WEB, "shop-web-1", web, (EndpointSpec("shop_default"),))
    assert machine.call(web, ask(address, 80)) == "2001:db8:a::1"  # it sees the host's address
    assert machine.call(web, ask(address, 53, socket.SOCK_DGRAM)) == "2001:db8:a::1"
    assert machine.call(web, echo6(address)) == b"\x12\x34\0\x07payload"
    refused = machine.call(web, ask(address, 81))
    assert isinstance(refused, OSError)


def test_an_ordinary_users_networks_are_apart_by_ipv6_too_and_internal_ones_have_no_way_out(
    machine: Machine, as_user: None, far_router: tuple[int, str]
) -> None:
    far, address = far_router
    machine.serve(far, 80, family=socket.AF_INET6)
    machine.serve(far, 53, socket.SOCK_DGRAM, socket.AF_INET6)
    project = machine.project()
    project.bridges.add(network("front", enable_ipv6=True))
    project.bridges.add(network("back", enable_ipv6=True, internal=True))
    web, db, job = machine.netns(), machine.netns(), machine.netns()
    (at_web,) = project.attach(WEB, "shop-web-1", web, (EndpointSpec("front"),))
    (at_db,) = project.attach(DB, "shop-db-1", db, (EndpointSpec("back"),))
    (at_job,) = project.attach(JOB, "shop-job-1", job, (EndpointSpec("back"),))
    for there in (web, db):
        machine.serve(there, 90, family=socket.AF_INET6)
    assert machine.call(job, ask(at_db.ipv6.partition("/")[0], 90)) == at_job.ipv6.partition("/")[0]
    assert isinstance(machine.call(web, ask(at_db.ipv6.partition("/")[0], 90)), OSError)
    assert isinstance(machine.call(db, ask(at_web.ipv6.partition("/")[0], 90)), OSError)
    assert isinstance(machine.call(db, ask(address, 80)), OSError)
    assert isinstance(machine.call(db, ask(address, 53, socket.SOCK_DGRAM)), OSError)


def test_a_successor_and_a_network_that_goes_leave_the_ipv6_of_others_alone(
    machine: Machine, as_user: None, far_router: tuple[int, str]
) -> None:
    far, address = far_router
    machine.serve(far, 80, family=socket.AF_INET6)
    project = machine.project()
    project.bridges.add(network("front", enable_ipv6=True))
    project.bridges.add(network("gone", enable_ipv6=True))
    web = machine.netns()
    project.attach(WEB, "shop-web-1", web, (EndpointSpec("front"),))
    project.bridges.remove("gone")
    assert machine.call(web, ask(address, 80)) == "2001:db8:a::1"
    fds = {name: os.dup(fd) for name, fd in project.fds.items()}
    machine.forget(project)
    again = machine.project(fds=fds)
    again.bridges.add(network("front", enable_ipv6=True))
    again.attach(WEB, "shop-web-1", web, (EndpointSpec("front"),))
    assert machine.call(web, ask(address, 80)) == "2001:db8:a::1"
