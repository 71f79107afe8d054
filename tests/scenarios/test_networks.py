"""Networks as services see them: who reaches whom, under which names and addresses, and what is published."""

from __future__ import annotations

import json
import os
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kapelle.engines.native import userlink6
from tests.checks import wait_until
from tests.scenarios.conftest import Kap, answers, free_port, get, is_free

IDLE = "image: busybox, command: sleep 1000, init: true, stop_grace_period: 0s"
SERVE = "mkdir -p /w && hostname > /w/index.html && exec httpd -f -p 80 -h /w"


def served(more: str = "") -> str:
    """A service that answers HTTP with its host name."""
    return f"{{image: busybox, command: [sh, -c, '{SERVE}'], stop_grace_period: 0s{', ' if more else ''}{more}}}"


def inside(kap: Kap, service: str, script: str, *words: str) -> str:
    return kap.ok("exec", "-T", *words, service, "sh", "-c", script).out.strip()


def reaches(kap: Kap, service: str, name: str) -> bool:
    return kap("exec", "-T", service, "ping", "-c1", "-W1", name).code == 0


def looked_up(kap: Kap, service: str, name: str) -> set[str]:
    """Addresses of a name, by the container's own name server."""
    out = kap("exec", "-T", service, "nslookup", name).out
    return set(re.findall(r"^Address:\s+(\S+)$", out.partition("Name:")[2], re.MULTILINE))


def test_networks_are_walls_and_an_internal_one_has_no_way_out(kap: Kap) -> None:
    kap.file(
        f"services:\n  a: {{{IDLE}, networks: [one]}}\n  b: {{{IDLE}, networks: [two]}}\n"
        f"  both: {{{IDLE}, networks: [one, two]}}\n  shut: {{{IDLE}, networks: [shut]}}\n"
        "networks: {one: , two: , shut: {internal: true}}\n"
    )
    kap.ok("up", "-d")
    wait_until(lambda: reaches(kap, "a", "both"), 15)
    wait_until(lambda: reaches(kap, "b", "both"), 15)
    assert not reaches(kap, "a", "b")
    address = inside(kap, "b", "hostname -i")
    assert not reaches(kap, "a", address)
    assert "default" not in inside(kap, "shut", "ip route")
    assert "default" in inside(kap, "a", "ip route")


def test_names_are_the_services_the_containers_and_the_aliases_of_each_network(kap: Kap) -> None:
    kap.file(
        f"services:\n  a: {{{IDLE}, networks: [one, two]}}\n"
        f"  b: {{{IDLE}, container_name: bee-{os.getpid()}, hostname: inner, networks: {{one: {{aliases: [x, y]}}}}}}\n"
        f"  c: {{{IDLE}, scale: 3, networks: {{two: {{aliases: [z]}}}}}}\n"
        "networks: {one: , two: }\n"
    )
    kap.ok("up", "-d")
    (own,) = looked_up(kap, "a", "b")
    for name in ("x", "y", f"bee-{os.getpid()}", "X"):
        assert looked_up(kap, "a", name) == {own}
    assert inside(kap, "b", "hostname") == "inner"
    assert len(looked_up(kap, "a", "c")) == 3
    assert looked_up(kap, "a", "z") == looked_up(kap, "a", "c")
    assert looked_up(kap, "a", f"{kap.folder.name}-c-2") < looked_up(kap, "a", "c")
    assert looked_up(kap, "b", "c") == set()
    reverse = kap.ok("exec", "-T", "a", "nslookup", own).out
    assert f"bee-{os.getpid()}.{kap.folder.name}_one" in reverse
    seen = {inside(kap, "a", "ping -c1 c | sed -n 's/.*(\\(.*\\)).*/\\1/p' | head -1") for _ in range(40)}
    assert len(seen) > 1  # each has its turn
    kap.ok("stop", "-t", "0", "b")
    gone = kap("exec", "-T", "a", "nslookup", "b")
    assert "NXDOMAIN" in gone.out


def test_a_link_is_a_name_for_who_has_it_alone(kap: Kap, tmp_path: Path) -> None:
    kap.file(
        f"services:\n  a: {{{IDLE}, links: ['b:database', 'b']}}\n  b: {{{IDLE}}}\n  c: {{{IDLE}}}\n",
    )
    kap.ok("up", "-d")
    assert looked_up(kap, "a", "database") == looked_up(kap, "a", "b") != set()
    assert looked_up(kap, "c", "database") == set()
    other = Kap(tmp_path / "other", kap.home)
    other.folder.mkdir()
    network = f"{kap.folder.name}_default"
    other.file(
        f"services:\n  d: {{{IDLE}, external_links: ['{kap.folder.name}-b-1:db']}}\n"
        f"networks: {{default: {{external: true, name: {network}}}}}\n"
    )
    try:
        other.ok("up", "-d")
        wait_until(lambda: looked_up(other, "d", "db") == looked_up(kap, "a", "b"), 10)
    finally:
        other.ok("down", "-t", "0")


def test_addresses_are_the_files(kap: Kap) -> None:
    kap.file(
        "services:\n"
        f"  a:\n    {{{IDLE}, mac_address: '02:42:ac:63:00:07', networks: {{n: {{ipv4_address: 10.99.7.7, "
        "ipv6_address: 'fd99::7', link_local_ips: [169.254.8.8]}}}\n"
        f"  b: {{{IDLE}, networks: [n]}}\n"
        "networks:\n  n:\n    enable_ipv6: true\n    driver_opts: {com.docker.network.driver.mtu: '1400'}\n"
        "    ipam: {config: [{subnet: 10.99.7.0/24, gateway: 10.99.7.200, ip_range: 10.99.7.128/28},"
        " {subnet: 'fd99::/64', gateway: 'fd99::1'}]}\n"
    )
    kap.ok("up", "-d")
    shown = inside(kap, "a", "ip addr show eth0")
    for text in ("10.99.7.7/24", "fd99::7/64", "169.254.8.8/16", "02:42:ac:63:00:07", "mtu 1400"):
        assert text in shown
    assert "via 10.99.7.200" in inside(kap, "a", "ip route")
    (second,) = looked_up(kap, "a", "b") - {a for a in looked_up(kap, "a", "b") if ":" in a}
    assert 128 <= int(second.rpartition(".")[2]) < 144
    wait_until(lambda: reaches(kap, "b", "10.99.7.7"), 15)
    wait_until(lambda: reaches(kap, "b", "fd99::7"), 15)
    kap.ok("up", "-d", "--force-recreate", "-t", "0")
    assert "10.99.7.7/24" in inside(kap, "a", "ip addr show eth0")


@pytest.mark.parametrize(
    ("network", "words"),
    [
        ("{n: {link_local_ips: [10.1.1.1]}}", "invalid link-local address: 10.1.1.1"),
        ("{n: {ipv4_address: 10.1.2.3}}", "address 10.1.2.3 does not lie in 10.98.0.0/24"),
        ("{n: {ipv4_address: hello}}", "invalid address: hello"),
        ("{n: {mac_address: 'no'}}", "invalid MAC address: no"),
    ],
)
def test_an_address_that_can_not_be_is_refused(kap: Kap, network: str, words: str) -> None:
    kap.file(
        f"services:\n  a:\n    image: busybox\n    networks: {network}\n"
        "networks: {n: {ipam: {config: [{subnet: 10.98.0.0/24}]}}}\n"
    )
    done = kap("up", "-d")
    assert done.code == 1
    assert words in done.err
    assert "compose.yaml:4:" in done.err
    assert kap.ps() == {}


def test_the_default_route_is_that_of_the_network_with_the_highest_gateway_priority(kap: Kap) -> None:
    kap.file(
        f"services:\n  a: {{{IDLE}, networks: {{one: {{interface_name: first}}, two: {{gw_priority: 5}}}}}}\n"
        "networks: {one: , two: {ipam: {config: [{subnet: 10.97.0.0/24}]}}}\n"
    )
    kap.ok("up", "-d")
    assert "via 10.97.0.1" in inside(kap, "a", "ip route")
    assert "first" in inside(kap, "a", "ip addr")


def test_a_network_may_be_the_hosts_none_or_anothers(kap: Kap) -> None:
    kap.file(
        f"services:\n  host: {{{IDLE}, network_mode: host}}\n  none: {{{IDLE}, network_mode: none}}\n"
        f"  a: {served()}\n  beside: {{{IDLE}, network_mode: 'service:a'}}\n"
        f"  too: {{{IDLE}, network_mode: 'container:{kap.folder.name}-a-1', depends_on: [a]}}\n"
    )
    kap.ok("up", "-d")
    assert inside(kap, "host", "readlink /proc/self/ns/net") == os.readlink("/proc/self/ns/net")
    assert inside(kap, "host", "hostname") == os.uname().nodename
    assert "eth0" not in inside(kap, "none", "ip addr")
    assert "lo" in inside(kap, "none", "ip addr")
    for name in ("beside", "too"):
        wait_until(lambda n=name: kap("exec", "-T", n, "wget", "-qO-", "http://127.0.0.1/").code == 0, 10)


@contextmanager
def listening_on_the_host() -> Iterator[int]:
    """A program on the host that greets each who connects, on all addresses."""
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        port = free_port()
        server.bind(("0.0.0.0", port))
        server.listen()

        def greet() -> None:
            while True:
                try:
                    peer, _ = server.accept()
                except OSError:
                    return
                with peer:
                    peer.sendall(b"hello from the host\n")

        thread = threading.Thread(target=greet, daemon=True)
        thread.start()
        yield port
        server.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def test_the_host_has_names(kap: Kap) -> None:
    kap.file(f"services:\n  a: {{{IDLE}, extra_hosts: ['gate:host-gateway', 'fixed=10.1.2.3', 'six=::1']}}\n")
    kap.ok("up", "-d")
    hosts = inside(kap, "a", "cat /etc/hosts")
    assert re.search(r"^10\.1\.2\.3\s+fixed$", hosts, re.MULTILINE)
    assert re.search(r"^::1\s+six$", hosts, re.MULTILINE)
    with listening_on_the_host() as port:
        for name in ("gate", "host.docker.internal"):
            assert inside(kap, "a", f"nc {name} {port} < /dev/null") == "hello from the host", name


def test_the_resolvers_settings_and_names_are_the_files(kap: Kap) -> None:
    kap.file(
        f"services:\n  a: {{{IDLE}, hostname: inner, domainname: example.test, dns_search: [one.test, two.test], "
        "dns_opt: ['ndots:3'], sysctls: {net.ipv4.ip_local_port_range: '20000 20100'}}\n"
    )
    kap.ok("up", "-d")
    text = inside(kap, "a", "cat /etc/resolv.conf")
    assert "nameserver 127.0.0.11" in text
    assert "search one.test two.test" in text
    assert "ndots:3" in text
    assert inside(kap, "a", "cat /proc/sys/kernel/domainname; hostname -f") == "example.test\ninner.example.test"
    assert inside(kap, "a", "cat /proc/sys/net/ipv4/ip_local_port_range").split() == ["20000", "20100"]


def test_a_services_own_name_servers_are_asked_for_other_names(kap: Kap) -> None:
    script = f"services:\n  a: {{{IDLE}, dns: [DNS]}}\n  b: {{{IDLE}}}\n"
    kap.file(script.replace("DNS", "10.1.1.1"))
    kap.ok("up", "-d")
    assert looked_up(kap, "a", "b")  # the project's own names come first, whatever the servers


def test_ports_are_published_where_the_file_says(kap: Kap) -> None:
    first = free_port()
    while not all(is_free(first + n) for n in range(3)):
        first = free_port()
    kap.file(
        "services:\n"
        f"  web: {served(f'''ports: ['127.0.0.1:{first}:80', '127.0.0.1::80', '80']''')}\n"
        f"  range: {served(f'''scale: 2, ports: ['{first + 1}-{first + 2}:80']''')}\n"
    )
    kap.ok("up", "-d")
    answers(f"http://127.0.0.1:{first}/", "")
    row = kap.ps()[f"{kap.folder.name}-web-1"]
    own = {p["PublishedPort"]: p["URL"] for p in row["Publishers"] if p["TargetPort"] == 80}
    assert len(own) == 3
    assert own[first] == "127.0.0.1"
    for port in own:
        answers(f"http://127.0.0.1:{port}/", get(f"http://127.0.0.1:{first}/").strip())
    names = {get(f"http://127.0.0.1:{first + n}/").strip() for n in (1, 2)}
    assert len(names) == 2
    assert kap.ok("port", "web", "80").out.strip().startswith(("127.0.0.1:", "0.0.0.0:"))
    outside = [a for a in own if own[a] == "127.0.0.1"]
    address = own_address()
    if address:
        assert get(f"http://{address}:{outside[0]}/", 2) == ""


def own_address() -> str:
    """An address of this machine that is not its loopback one; "" without a way out."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(("192.0.2.1", 9))
        except OSError:
            return ""
        return str(sock.getsockname()[0])


def test_a_service_on_ipv6_is_published_on_it_too(kap: Kap) -> None:
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            pytest.skip("this machine has no IPv6 loopback")
    port = free_port()
    kap.file(f"services:\n  web: {served(f'''ports: ['[::1]:{port}:80']''')}\n")
    kap.ok("up", "-d")
    wait_until(lambda: get(f"http://[::1]:{port}/", 2), 10)
    assert get(f"http://127.0.0.1:{port}/", 1) == ""


def test_what_a_networks_options_say_is_done_or_told(kap: Kap) -> None:
    option = "com.docker.network.bridge."
    kap.file(
        f"services:\n  a: {{{IDLE}, networks: [apart]}}\n  b: {{{IDLE}, networks: [apart]}}\n"
        "networks:\n  apart:\n    driver_opts:\n"
        f"      {option}enable_icc: 'false'\n      {option}name: br7\n      {option}enable_ip_masquerade: 'true'\n"
    )
    told = kap.ok("up", "-d").err
    assert f'network "apart": driver_opts.{option}name is not honoured' in told
    assert "masquerade" not in told
    (address,) = looked_up(kap, "a", "b")
    assert not reaches(kap, "a", address)


def test_a_changed_network_is_made_anew_with_its_containers_and_what_they_keep(kap: Kap) -> None:
    kap.file(f"services:\n  a: {{{IDLE}, volumes: [/data]}}\n")
    kap.ok("up", "-d")
    kap.ok("exec", "-T", "a", "sh", "-c", "echo kept > /data/f")
    kap.file(f"services:\n  a: {{{IDLE}, volumes: [/data]}}\nnetworks:\n  default: {{labels: {{now: other}}}}\n")
    assert "Recreate (network default changed)" in kap.ok("up", "-d").err
    assert kap.ok("exec", "-T", "a", "cat", "/data/f").out == "kept\n"
    assert "Recreate" not in kap.ok("up", "-d").err


def test_a_network_mode_may_name_a_network(kap: Kap) -> None:
    name = f"own{os.getpid()}"
    kap.file(f"services:\n  a:\n    {{{IDLE}, network_mode: {name}}}\n")
    refused = kap("up", "-d")
    assert refused.code == 1
    assert f"network {name} not found" in refused.err
    kap.ok("network", "create", "--subnet", "10.96.0.0/24", name)
    try:
        kap.ok("up", "-d")
        assert "10.96.0." in inside(kap, "a", "ip addr show eth0")
    finally:
        kap.ok("down", "-t", "0")
        kap.ok("network", "rm", name)


def test_networks_can_be_many(kap: Kap) -> None:
    number = 45
    names = [f"n{n}" for n in range(number)]
    kap.file(
        f"services:\n  a: {{{IDLE}, networks: [{', '.join(names)}]}}\n"
        f"networks: {{{', '.join(f'{n}: ' for n in names)}}}\n"
    )
    kap.ok("up", "-d")
    assert inside(kap, "a", "ip -4 addr | grep -c 'inet .*eth'") == str(number)
    subnets = {json.loads(kap.ok("network", "inspect", f"{kap.folder.name}_{n}").out)[0]["IPAM"]["Config"][0]["Subnet"]
               for n in names}  # fmt: skip
    assert len(subnets) == number


def test_pausing_stops_every_process_of_a_container(kap: Kap) -> None:
    script = "(while :; do echo tick >> /ticks; sleep 0.02; done) & sleep 1000"
    ticking = f"{{image: busybox, command: [sh, -c, '{script}'], init: true, stop_grace_period: 0s}}"
    kap.file(f"services:\n  a: {ticking}\n  clock: {ticking}\n")
    kap.ok("up", "-d")
    ids = {row["Service"]: row["ID"] for row in kap.ps("--no-trunc").values()}

    def ticks(service: str) -> int:
        file = kap.home / "data/containers" / ids[service] / "upper/ticks"
        return file.stat().st_size if file.exists() else 0

    wait_until(lambda: ticks("a") and ticks("clock"), 10)
    kap.ok("pause", "a")
    assert kap.state(f"{kap.folder.name}-a-1") == "paused"
    before, now = ticks("a"), ticks("clock")
    wait_until(lambda: ticks("clock") > now + 50, 20)  # ten ticks of one that goes on
    assert ticks("a") == before
    kap.ok("unpause", "a")
    wait_until(lambda: ticks("a") > before, 10)


@pytest.mark.skipif(os.geteuid() == 0, reason="the way out of an ordinary user's containers")
def test_a_users_container_reaches_out_by_ipv6(kap: Kap) -> None:
    address = userlink6.host_address()
    if not address:
        pytest.skip("this machine has no IPv6 address but its loopback")
    with socket.socket(socket.AF_INET6) as listening:
        listening.bind((address, 0))
        listening.listen()
        listening.settimeout(30)
        port = listening.getsockname()[1]

        def answer() -> None:
            with listening.accept()[0] as asking:
                asking.sendall(b"by IPv6\n")

        threading.Thread(target=answer, daemon=True).start()
        kap.file(
            f"services: {{a: {{image: busybox, command: [nc, '{address}', '{port}']}}}}\n"
            "networks: {default: {enable_ipv6: true}}\n"
        )
        done = kap.ok("run", "--rm", "-T", "a")
    assert done.out == "by IPv6\n"
    assert "IPv6" not in done.err
