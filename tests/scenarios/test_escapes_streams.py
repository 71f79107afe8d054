"""What a container's process gets for the caller's standard streams leads to no file and no folder of the host."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.scenarios.conftest import Kap


def spoken(kap: Kap, *words: str, stdin: object = subprocess.DEVNULL, stdout: object = subprocess.PIPE) -> str:
    done = subprocess.run(
        [*kap.command, *words],
        cwd=kap.folder,
        env=kap.environment,
        stdin=stdin,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )  # type: ignore[call-overload]
    assert done.returncode == 0, done
    return str(done.stdout)


@pytest.fixture
def running(kap: Kap) -> Kap:
    kap.file("services:\n  a: {image: busybox, command: [sleep, '1000']}\n")
    kap.ok("up", "-d")
    return kap


WAYS = pytest.mark.parametrize("way", [("exec", "-T", "a"), ("run", "--rm", "-T", "a")], ids=lambda w: w[0])


@WAYS
def test_a_file_given_as_input_is_read_and_can_not_be_written(running: Kap, way: tuple[str, ...]) -> None:
    file = running.folder / "dump.sql"
    file.write_text("select 1;\n" * 100_000)
    with file.open() as f:
        assert int(spoken(running, *way, "wc", "-c", stdin=f)) == 1_000_000
    with file.open() as f:
        spoken(running, *way, "sh", "-c", "echo overwritten > /proc/self/fd/0; true", stdin=f)
    assert file.read_text().startswith("select 1;")


@WAYS
def test_a_file_that_takes_the_output_gets_all_of_it_and_can_not_be_read(running: Kap, way: tuple[str, ...]) -> None:
    file = running.folder / "log"
    with file.open("w") as f:
        spoken(running, *way, "sh", "-c", "seq 200000; echo last >&2", stdout=f)
    assert file.read_text().splitlines()[-1] == "200000"
    file.write_text("a secret of before\n")
    with file.open("a") as f:
        spoken(running, *way, "sh", "-c", "timeout 1 head -c 9 /proc/self/fd/1 | sed s/^/stolen:/ >&1; true", stdout=f)
    assert "stolen:a" not in file.read_text()


@WAYS
def test_both_outputs_into_one_file_keep_their_order(running: Kap, way: tuple[str, ...]) -> None:
    file = running.folder / "both"
    script = "i=0; while [ $i -lt 300 ]; do echo out $i; echo err $i >&2; i=$((i+1)); done"
    with file.open("w") as f:
        subprocess.run(
            [*running.command, *way, "sh", "-c", script],
            cwd=running.folder,
            env=running.environment,
            stdin=subprocess.DEVNULL,
            stdout=f,
            stderr=f,
            timeout=60,
            check=True,
        )
    rows = [row for row in file.read_text().splitlines() if row.startswith(("out", "err"))]
    assert rows == [f"{kind} {n}" for n in range(300) for kind in ("out", "err")]


@WAYS
def test_a_folder_given_as_input_opens_no_way_up(running: Kap, way: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "canary").write_text("found")
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        command = [*running.command, *way, "sh", "-c", "cat /proc/self/fd/0/canary; cat /dev/stdin/canary"]
        done = subprocess.run(
            command,
            cwd=running.folder,
            env=running.environment,
            stdin=fd,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        os.close(fd)
    assert "found" not in done.stdout  # (Python itself refuses to start with a folder as its input)


def test_output_that_can_not_be_written_is_told(running: Kap) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*running.command, "exec", "-T", "a", "echo", "x"],
            cwd=running.folder,
            env=running.environment,
            stdin=subprocess.DEVNULL,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    assert "could not be written" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_child_that_stays_behind_does_not_hold_the_command(running: Kap) -> None:
    with (running.folder / "log").open("w") as f:
        subprocess.run(
            [*running.command, "exec", "-T", "a", "sh", "-c", "sleep 1000 & echo gone"],
            cwd=running.folder,
            env=running.environment,
            stdin=subprocess.DEVNULL,
            stdout=f,
            stderr=f,
            timeout=20,
            check=True,
        )
    assert (running.folder / "log").read_text() == "gone\n"


def test_the_hosts_null_device_is_not_a_containers_to_change(kap: Kap) -> None:
    before = os.stat("/dev/null")
    script = "chmod 600 /proc/self/fd/0; chown 5 /proc/self/fd/0; sleep 1000"
    kap.file(
        f"services:\n  a: {{image: busybox, user: '77', command: [sh, -c, '{script}']}}\n"
        f"  b: {{image: busybox, command: [sh, -c, '{script}']}}\n"
    )
    kap.ok("up", "-d")
    spoken(kap, "exec", "-T", "a", "true", stdout=subprocess.DEVNULL)
    now = os.stat("/dev/null")
    assert (now.st_mode, now.st_uid, now.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
