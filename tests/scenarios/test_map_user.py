"""x-kap-map-user: what a service writes into a bind-mounted source tree belongs to the user on the host."""

from __future__ import annotations

import os

import pytest

from tests.scenarios.conftest import Kap, one_id

DOCKERFILE = """FROM busybox
RUN echo 'app:x:1000:1000::/home/app:/bin/sh' >> /etc/passwd && mkdir -p /home/app /data \\
 && echo own > /home/app/file && chown -R 1000:1000 /home/app /data && chmod 700 /home/app
"""
FILE = """services:
  a:
    build: .
    user: {user}
    x-kap-map-user: {how}
    command: [sleep, '1000']
    volumes: ['./src:/src', 'data:/data']
volumes: {{data: }}
"""


def made(kap: Kap, user: str, how: str, script: str = "") -> str:
    kap.file(DOCKERFILE, "Dockerfile")
    kap.file(FILE.format(user=user, how=how))
    (kap.folder / "src").mkdir(exist_ok=True)
    kap.file("mine", "src/given")
    if os.geteuid() == 0:
        for path in (kap.folder / "src", kap.folder / "src" / "given"):
            os.chown(path, 1234, 1234)
    os.chmod(kap.folder / "src", 0o755)
    os.chmod(kap.folder / "src" / "given", 0o600)
    script = (
        script or "cat /src/given; echo x > /src/new; mkdir /src/folder; cat /home/app/file; echo y > /data/z; id -u"
    )
    return kap.ok("run", "--rm", "-T", "a", "sh", "-c", script, SUDO_UID="1234", SUDO_GID="1234").out


def owners(kap: Kap) -> set[tuple[int, int]]:
    return {(i.st_uid, i.st_gid) for i in map(os.lstat, sorted((kap.folder / "src").iterdir()))}


def mine() -> tuple[int, int]:
    return (os.getuid(), os.getgid()) if os.geteuid() else (1234, 1234)


def test_the_services_files_are_the_callers(kap: Kap) -> None:
    assert made(kap, "app", "caller") == "mineown\n1000\n"
    assert owners(kap) == {mine()}
    kap.ok("up", "-d", SUDO_UID="1234", SUDO_GID="1234")
    assert kap.ok("exec", "-T", "a", "sh", "-c", "cat /src/given /data/z; echo w > /src/by-exec").out == "miney\n"
    kap.ok("restart", "-t", "0", "a")
    assert kap.ok("exec", "-T", "a", "sh", "-c", "cat /src/by-exec; echo > /dev/stdout; stat -c %u /src/given").out
    assert owners(kap) == {mine()}


def test_another_id_inside_can_be_chosen(kap: Kap) -> None:
    if one_id(kap):
        pytest.skip("with one id all files are the caller's")
    script = "echo x > /src/new; chown 1000:1000 /src/new; cat /src/given; stat -c %u:%g /src/given /src/new"
    assert made(kap, "root", "1000:1000", script) == "mine1000:1000\n1000:1000\n"
    assert owners(kap) == {mine()}


def test_without_it_they_are_the_services_own(kap: Kap) -> None:
    made(kap, "root", "service", "echo x > /src/new; true")
    (new,) = (p for p in (kap.folder / "src").iterdir() if p.name == "new")
    assert os.lstat(new).st_uid == os.geteuid()


@pytest.mark.parametrize("how", ["somebody", "1:2:3", "-1", "[1]", "true", "1.5"])
def test_what_is_no_such_choice_is_told_with_its_place(kap: Kap, how: str) -> None:
    kap.file(f"services:\n  a: {{image: busybox, x-kap-map-user: {how}}}\n")
    done = kap("config")
    assert done.code != 0
    assert "compose.yaml:2:23" in done.err
    assert "x-kap-map-user" in done.err
    kap.file("services:\n  a: {image: busybox}\n")
