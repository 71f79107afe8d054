"""The escape suite: all that a process in a container may try, refused as on Docker, on each rung."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from kapelle.linux import seccomp
from tests.checks import wait_until
from tests.escapes import interpreter
from tests.escapes.attempts import ATTEMPTS, Attempt
from tests.scenarios.conftest import Kap

_OWN = Path(__file__).resolve().parents[1] / "escapes"
_PROBE = (interpreter.PROGRAM, "-I", "-S", "/probe/probe.py")


class World(NamedTuple):
    """What there is outside that a container must not reach, and the folder that tries."""

    kap: Kap
    given: dict[str, str]


def _answer(listening: socket.socket, text: str) -> None:
    """Tell everybody who connects, until the socket is closed."""
    while True:
        try:
            asking, _ = listening.accept()
        except OSError:
            return
        with asking:
            asking.sendall(text.encode())


def _service(place: Path, settings: str = "") -> str:
    binds = [*interpreter.volumes(), f"{place}/probe:/probe:ro", f"{place}/ro:/ro:ro", f"{place}/rw:/rw"]
    return f"{{image: busybox, volumes: {json.dumps(binds)}, environment: [PROBE_GIVEN]{settings}}}"


@pytest.fixture(scope="module")
def world(kap_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    place = tmp_path_factory.mktemp("escapes")
    for name in ("ro", "rw", "probe", "tries", "secondhand"):
        (place / name).mkdir()
    for name in ("probe.py", "attempts.py"):
        shutil.copy(_OWN / name, place / "probe")
    (place / "ro" / "there").write_text("there")
    (place / "canary").write_text("")
    other = Kap(place / "secondhand", kap_home)
    secret = secrets.token_hex(16)
    (other.folder / "www").mkdir()
    other.file(secret, "www/index.html")
    other.file(
        "services:\n"
        "  neighbour: {image: busybox, command: [httpd, -f, -p, '8000', -h, /www], volumes: ['./www:/www']}\n"
        "  alone: {image: busybox, command: [sleep, '1000']}\n"
    )
    kap = Kap(place / "tries", kap_home)
    command = json.dumps(["sh", "-c", f"{' '.join(_PROBE)}; exec sleep 1000"])
    kap.file(
        f"services:\n  a: {_service(place)}\n  i: {_service(place, ', init: true')}\n"
        f"  m: {_service(place, ', x-kap-map-user: 1000:1000')}\n"
        f"  p: {_service(place, ', userns_mode: private')}\n"
        f"  none: {_service(place, ', privileged: true, pid: host')}\n"
        f"  up: {_service(place, f', command: {command}')}\n"
    )
    abstract = f"kap-escape-{secrets.token_hex(4)}"
    with socket.socket() as listening, socket.socket(socket.AF_UNIX) as unix:
        listening.bind(("127.0.0.1", 0))
        listening.listen(128)
        threading.Thread(target=_answer, args=(listening, secret), daemon=True).start()
        unix.bind("\0" + abstract)
        unix.listen(128)
        outside = subprocess.Popen(["sleep", "1000"])
        try:
            other.ok("up", "-d")
            address = other.ok("exec", "-T", "neighbour", "hostname", "-i").out.split()[0]
            yield World(
                kap,
                {
                    "canary": str(place / "canary"),
                    "pid": str(outside.pid),
                    "port": str(listening.getsockname()[1]),
                    "abstract": abstract,
                    "other": address,
                    "secret": secret,
                    "names": "neighbour alone secondhand-neighbour-1 neighbour.secondhand_default",
                    "numbers": " ".join(f"{k}={v}" for k, v in seccomp.numbers_of(os.uname().machine).items()),
                },
            )
        finally:
            outside.kill()
            outside.wait()
            for project in (kap, other):
                project("down", "-v", "-t", "0")


def _told(text: str) -> dict[str, str]:
    told: dict[str, str] = json.loads(next(row for row in text.splitlines() if row.startswith("{")))
    return told


def _tried(world: World, *words: str) -> dict[str, str]:
    return _told(world.kap.ok(*words, *_PROBE, PROBE_GIVEN=json.dumps(world.given)).out)


@pytest.fixture(scope="module")
def by_up(world: World) -> dict[str, str]:
    """The first process of a service, started in the background."""
    world.kap.ok("up", "-d", "up", PROBE_GIVEN=json.dumps(world.given))
    wait_until(lambda: "{" in world.kap.ok("logs", "--no-log-prefix", "up").out, 60)
    return _told(world.kap.ok("logs", "--no-log-prefix", "up").out)


@pytest.fixture(scope="module")
def by_run(world: World) -> dict[str, str]:
    return _tried(world, "run", "--rm", "-T", "a")


@pytest.fixture(scope="module")
def under_init(world: World) -> dict[str, str]:
    return _tried(world, "run", "--rm", "-T", "i")


@pytest.fixture(scope="module")
def mapped(world: World) -> dict[str, str]:
    return _tried(world, "run", "--rm", "-T", "m")


@pytest.fixture(scope="module")
def apart(world: World) -> dict[str, str]:
    """In a user namespace of its own, as root."""
    return _tried(world, "run", "--rm", "-T", "p")


@pytest.fixture(scope="module")
def by_exec(world: World, by_up: dict[str, str]) -> dict[str, str]:
    return _tried(world, "exec", "-T", "up")


@pytest.mark.parametrize("attempt", ATTEMPTS, ids=lambda a: a.name)
def test_a_service_is_refused(attempt: Attempt, by_up: dict[str, str]) -> None:
    assert by_up[attempt.name] == "", attempt.words


@pytest.mark.parametrize("attempt", ATTEMPTS, ids=lambda a: a.name)
def test_a_process_of_run_is_refused(attempt: Attempt, by_run: dict[str, str]) -> None:
    assert by_run[attempt.name] == "", attempt.words


@pytest.mark.parametrize("attempt", ATTEMPTS, ids=lambda a: a.name)
def test_a_process_under_our_small_init_is_refused(attempt: Attempt, under_init: dict[str, str]) -> None:
    assert under_init[attempt.name] == "", attempt.words


@pytest.mark.parametrize("attempt", ATTEMPTS, ids=lambda a: a.name)
def test_a_process_of_exec_is_refused(attempt: Attempt, by_exec: dict[str, str]) -> None:
    assert by_exec[attempt.name] == "", attempt.words


@pytest.mark.parametrize("attempt", ATTEMPTS, ids=lambda a: a.name)
def test_a_process_whose_user_is_mapped_is_refused(attempt: Attempt, mapped: dict[str, str]) -> None:
    assert mapped[attempt.name] == "", attempt.words


@pytest.mark.parametrize("attempt", ATTEMPTS, ids=lambda a: a.name)
def test_a_process_in_its_own_user_namespace_is_refused(attempt: Attempt, apart: dict[str, str]) -> None:
    assert apart[attempt.name] == "", attempt.words


# What comes through where the walls are taken away: these tries do what they say.
THROUGH = (
    "mount_tmpfs mount_proc mount_sysfs mount_by_new_calls bind_mount remount_root remount_read_only_bind "
    "set_attributes_of_bind unmount_masks clone_tree core_pattern kernel_settings own_settings masked_paths "
    "memory_device capability_sets raise_capabilities new_namespaces host_name refused_calls clone_flags personality "
    "odd_sockets keyrings filter_stays see_outside"
).split()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give the host away")
def test_the_tries_come_through_where_the_file_gives_the_host_away(world: World) -> None:
    told = _tried(world, "run", "--rm", "-T", "none")
    assert " ".join(name for name in THROUGH if not told[name]) == ""


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="only root can make a node")
def test_without_rules_for_devices_no_node_can_be_made_or_opened(kap: Kap) -> None:
    """A host whose control groups can't be written, as inside another container."""
    script = "head -c 1 /disk; head -c 1 /null; mknod /new b 7 0; mknod /dev/new b 7 0; echo x >/dev/null && echo null"
    kap.file("FROM busybox\nRUN mknod /disk b 7 0 && mknod /null c 1 3\n", "Dockerfile")
    kap.file(f"services:\n  d: {{build: ., command: [sh, -c, '{script}']}}\n")
    kap.ok("build")
    hidden = "umount -l $(awk '$3 ~ /^cgroup/ {print $2}' /proc/self/mounts); exec \"$@\""
    command = ["unshare", "-m", "sh", "-c", hidden, "sh", *kap.command, "run", "--rm", "-T", "d"]
    done = subprocess.run(
        command, cwd=kap.folder, env=kap.environment, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.stdout == "null\n", done
    assert done.stderr.count("ermission denied") + done.stderr.count("not permitted") == 4, done
