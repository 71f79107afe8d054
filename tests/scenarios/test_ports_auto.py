"""Published ports that are taken: who has them is told, and `--ports=auto` takes others, the same ones each time."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.scenarios.conftest import Kap, answers, free_port


@contextmanager
def taken(port: int = 0) -> Iterator[int]:
    """A port that this process listens on."""
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("0.0.0.0", port))
        held.listen()
        yield held.getsockname()[1]


def web(port: int | str, more: str = "") -> str:
    return (
        "services:\n  web:\n    image: busybox\n    command: [sh, -c, 'echo here > index.html; httpd -f -p 80']\n"
        f"    ports: ['{port}:80']\n{more}"
    )


def published(kap: Kap, name: str = "web-1") -> int:
    return int(kap.ps()[f"{kap.folder.name}-{name}"]["Publishers"][0]["PublishedPort"])


def test_a_taken_port_is_told_with_holder_place_and_a_command_that_mends_it(kap: Kap) -> None:
    with taken() as port:
        kap.file(web(port))
        done = kap("up", "-d")
        assert done.code == 1
        for said in ("KAP201", f"port {port}", "compose.yaml:5:13", f'service web   "{port}:80"', f"pid {os.getpid()}",
                     "user root", " since ", "free now", "kap up --ports=auto"):  # fmt: skip
            assert said in done.err, (said, done)
        assert kap.ps() == {}
        kap.ok("up", "-d", "--ports=auto")
        assert published(kap) != port


def test_another_project_that_has_the_port_is_named(kap: Kap) -> None:
    port = free_port()
    kap.file(web(port))
    kap.ok("-p", "portholder", "up", "-d")
    try:
        done = kap("up", "-d")
        assert "the Kapelle project portholder" in done.err
        assert "kap -p portholder down" in done.err
    finally:
        kap.ok("-p", "portholder", "down", "-t", "0")
    kap.ok("up", "-d")


def test_a_port_that_moved_stays_where_it_went(kap: Kap) -> None:
    with taken() as port:
        kap.file(web(port))
        told = kap.ok("up", "-d", KAP_PORTS="auto").err
        moved = published(kap)
        assert moved > port
        assert f"web is published on port {moved} in place of {port}" in told
        assert kap.ok("port", "web", "80").out.strip().endswith(f":{moved}")
        answers(f"http://127.0.0.1:{moved}/", "here")
        again = kap.ok("up", "-d", "--ports=auto")
        assert "Recreate" not in again.err
        kap.ok("down", "-t", "0")
        with taken(moved + 1):
            kap.ok("up", "-d", "--ports=auto")
            assert published(kap) == moved
        kap.ok("down", "-t", "0")
    kap.ok("up", "-d", "--ports=auto")
    assert published(kap) == moved, "also when the wanted one is free again"
    kap.ok("up", "-d", "--ports=auto", "--force-recreate")
    assert published(kap) == moved
    kap.ok("down", "-t", "0")
    kap.ok("up", "-d")
    assert published(kap) == port, "without the flag it is what the file says"


def test_a_container_that_is_there_moves_when_its_port_was_taken_meanwhile(kap: Kap) -> None:
    port = free_port()
    kap.file(web(port))
    kap.ok("up", "-d")
    kap.ok("stop", "-t", "0")
    with taken(port):
        refused = kap("up", "-d")
        assert refused.code == 1
        assert "KAP201" in refused.err
        kap.ok("up", "-d", "--ports=auto")
        moved = published(kap)
        assert moved != port
        answers(f"http://127.0.0.1:{moved}/", "here")
        kap.ok("restart", "-t", "0")
        assert published(kap) == moved


def test_replicas_and_services_that_want_one_port_get_one_each(kap: Kap) -> None:
    port = free_port()
    kap.file(web(port) + web(port).split("\n", 1)[1].replace("web:", "api:"))
    refused = kap("up", "-d", "--scale", "web=2")
    assert refused.code == 1
    kap.ok("up", "-d", "--ports=auto", "--scale", "web=2")
    ports = {published(kap, name) for name in ("web-1", "web-2", "api-1")}
    assert len(ports) == 3
    assert port in ports
    for each in ports:
        answers(f"http://127.0.0.1:{each}/", "here")


def test_ports_of_what_the_same_command_removes_count_as_free(kap: Kap) -> None:
    port = free_port()
    kap.file(web(port))
    kap.ok("up", "-d")
    kap.file(web(port).replace("web:", "site:"))
    kap.ok("up", "-d", "--remove-orphans", "-t", "0")
    assert published(kap, "site-1") == port


def test_an_unknown_word_for_ports_is_refused(kap: Kap) -> None:
    kap.file(web(80))
    assert "--ports=auto" in kap("up", "-d", "--ports=any").err


def test_a_port_that_this_user_may_not_use_moves_to_one_that_it_may(kap: Kap) -> None:
    if os.geteuid() == 0:
        pytest.skip("is about an ordinary user")
    kap.file("services:\n  a: {image: busybox, command: sleep 1000, init: true, ports: ['81:80']}\n")
    refused = kap("up", "-d")
    assert refused.code == 1
    assert "port 81 on all addresses may not be used by this user; nothing was created" in refused.err
    assert "--ports=auto" in refused.err
    told = kap.ok("up", "-d", "--ports=auto").err
    moved = re.search(r"published on port (\d+) in place of 81 \(--ports=auto\): this user may not use it", told)
    assert moved is not None
    assert int(moved[1]) >= 1024
    labels = kap.ps()[f"{kap.folder.name}-a-1"]["Labels"]
    assert "org.kapelle.rung=R" in labels


def test_a_changed_port_that_is_taken_leaves_the_running_container_alone(kap: Kap) -> None:
    text = "services:\n  web: {image: busybox, command: sleep 1000, ports: ['127.0.0.1:%d:80']}\n"
    kap.file(text % free_port())
    kap.ok("up", "-d")
    before = kap.ps()
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        kap.file(text % other.getsockname()[1])
        refused = kap("up", "-d")
    assert refused.code == 1
    assert "is already taken; nothing was created" in refused.err
    assert "compose.yaml:2:" in refused.err
    assert "wanted by" in refused.err
    assert [row["ID"] for row in kap.ps().values()] == [row["ID"] for row in before.values()]
    assert kap.state(f"{kap.folder.name}-web-1") == "running"


def test_replicas_of_a_service_with_one_port_are_told_that_they_stand_in_each_others_way(kap: Kap) -> None:
    port = f"ports: ['127.0.0.1:{free_port()}:80']"
    kap.file(f"services:\n  web: {{image: busybox, command: sleep 1000, {port}}}\n")
    kap.ok("up", "-d")
    refused = kap("up", "-d", "--scale", "web=2")
    assert refused.code == 1
    assert 'it is this project\'s own: for several containers write only "80", or a range' in refused.err
