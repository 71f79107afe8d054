"""`cp`, `export`, `commit`, `stats`, `attach`: what goes into and out of a container."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.checks import wait_until
from tests.scenarios.conftest import Kap

ONE = "services:\n  a: {image: busybox, command: sleep 1000, volumes: ['data:/data']}\nvolumes: {data: }\n"


@pytest.fixture
def running(kap: Kap) -> Kap:
    kap.file(ONE)
    kap.ok("up", "-d")
    return kap


def inside(kap: Kap, script: str) -> str:
    return kap.ok("exec", "-T", "a", "sh", "-c", script).out


def test_files_and_folders_go_in_by_dockers_rules(running: Kap) -> None:
    (running.folder / "f").write_text("hi")
    (running.folder / "d" / "e").mkdir(parents=True)
    (running.folder / "d" / "e" / "x").write_text("deep")
    (running.folder / "d" / "run").write_text("#!/bin/sh\n")
    (running.folder / "d" / "run").chmod(0o750)
    running.ok("cp", "f", "a:/data/")
    running.ok("cp", "f", "a:/data/renamed")
    running.ok("cp", "d", "a:/data")
    running.ok("cp", "d/.", "a:/new")
    running.ok("cp", "d", "a:/other")
    found = inside(running, "cd /; find data new other | sort").split()
    assert "data/f" in found
    assert "data/renamed" in found
    assert "data/d/e/x" in found
    assert "new/e/x" in found
    assert "other/e/x" in found
    assert "other/d" not in found
    assert inside(running, "stat -c '%a %u:%g' /data/d/run").strip() == "750 0:0"
    assert running("cp", "f", "a:/missing/x").code == 1
    assert "no such directory" in running("cp", "f", "a:/missing/x").err
    assert running("cp", "d", "a:/data/f").code == 1
    assert "cannot copy a directory to a file" in running("cp", "d", "a:/data/f").err
    assert "no such file" in running("cp", "nothing", "a:/").err


def test_what_comes_out_is_the_containers_and_never_the_hosts(running: Kap, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("the host's")
    inside(running, f"mkdir -p {tmp_path} && echo inner > {secret} && ln -s {secret} /link && ln -s /data /way; "
                    "echo 1 > /data/one; mkdir -p /data/sub && echo 2 > /data/sub/two")  # fmt: skip
    running.ok("cp", "-L", "a:/link", "out")
    assert (running.folder / "out").read_text() == "inner\n"
    running.ok("cp", "a:/link", "as-link")
    assert os.readlink(running.folder / "as-link") == str(secret)
    running.ok("cp", "a:/way/.", "all")
    assert (running.folder / "all" / "sub" / "two").read_text() == "2\n"
    running.ok("cp", "a:/data", "copied")
    assert (running.folder / "copied" / "one").read_text() == "1\n"
    # a link in the container is followed there, not here
    (running.folder / "f").write_text("new")
    inside(running, f"rm /link; ln -s {tmp_path} /link")
    running.ok("cp", "f", "a:/link/secret")
    assert secret.read_text() == "the host's"
    assert inside(running, f"cat {secret}") == "new"
    assert running("cp", "a:/nope", ".").code == 1
    assert running("cp", "nobody:/x", ".").code == 1


def test_archives_stream_both_ways_and_stopped_containers_serve_as_well(running: Kap) -> None:
    inside(running, "echo 1 > /data/one; echo 2 > /root/two")
    running.ok("stop", "-t", "0")
    done = subprocess.run(
        [*running.command, "cp", "a:/data", "-"],
        cwd=running.folder, env=running.environment, capture_output=True, check=True,
    )  # fmt: skip
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
        assert tar.getnames() == ["data", "data/one"]
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        info = tarfile.TarInfo("put/here")
        info.size = 2
        tar.addfile(info, io.BytesIO(b"ok"))
    subprocess.run(
        [*running.command, "cp", "-", "a:/root"],
        cwd=running.folder, env=running.environment, input=made.getvalue(), check=True,
    )  # fmt: skip
    running.ok("export", "-o", "all.tar", "a")
    with tarfile.open(running.folder / "all.tar") as tar:
        names = tar.getnames()
    assert "root/two" in names
    assert "root/put/here" in names
    assert "data" in names
    assert "data/one" not in names  # volumes are not exported
    running.ok("start")
    assert inside(running, "cat /root/put/here") == "ok"


def test_hostile_archives_are_refused(running: Kap) -> None:
    for name, link in (("../x", ""), ("l", "/etc"), ("/../../x", "")):
        made = io.BytesIO()
        with tarfile.open(fileobj=made, mode="w") as tar:
            info = tarfile.TarInfo(name)
            if link:
                info.type, info.linkname = tarfile.SYMTYPE, link
                tar.addfile(info)
                info = tarfile.TarInfo(f"{name}/passwd")
            tar.addfile(info, io.BytesIO(b""))
        done = subprocess.run(
            [*running.command, "cp", "-", "a:/root"],
            cwd=running.folder, env=running.environment, input=made.getvalue(), capture_output=True, check=False,
        )  # fmt: skip
        assert done.returncode == 1, name
        assert b"Traceback" not in done.stderr
    garbage = running("cp", "-", "a:/root", stdin="no archive")
    assert garbage.code == 1
    assert "Traceback" not in garbage.err
    assert inside(running, "test -s /etc/passwd && echo there") == "there\n"


def test_a_commit_makes_an_image_of_the_changes(running: Kap) -> None:
    inside(running, "echo kept > /kept; rm /etc/group; echo no > /data/volume")
    name = f"committed:{os.getpid()}"
    done = running.ok("commit", "-m", "why", "-c", "ENV WHO=me", "-c", 'CMD ["cat", "/kept"]', "a", name)
    assert done.out.startswith("sha256:")
    assert running.state(f"{running.folder.name}-a-1") == "running"
    running.file(f"services:\n  a: {{image: '{name}', pull_policy: never}}\n", "two.yaml")
    told = running.ok("-f", "two.yaml", "run", "--rm", "-T", "a").out
    assert told == "kept\n"
    script = "ls /data /etc/group 2>/dev/null; echo $WHO"
    assert running.ok("-f", "two.yaml", "run", "--rm", "-T", "a", "sh", "-c", script).out == "/data:\nme\n"
    assert "not a valid change" in running("commit", "-c", "RUN true", "a").err


def test_stats_tell_what_runs(running: Kap) -> None:
    (row,) = [json.loads(line) for line in running.ok("stats", "--no-stream", "--format", "json").out.splitlines()]
    assert row["Name"] == f"{running.folder.name}-a-1"
    assert int(row["PIDs"]) >= 1
    assert row["CPUPerc"].endswith("%")
    assert " / " in row["MemUsage"]
    table = running.ok("stats", "--no-stream").out
    assert table.startswith("CONTAINER ID")
    assert running.ok("stats", "--no-stream", "--format", "{{.Name}}").out.strip() == row["Name"]


def test_attach_gives_the_program_its_input_and_takes_its_exit_code(kap: Kap) -> None:
    kap.file(
        "services:\n  a:\n    image: busybox\n    stdin_open: true\n"
        "    command: sh -c 'while read x; do echo got $$x; echo err $$x >&2; done; exit 7'\n"
    )
    kap.ok("up", "-d")
    done = kap("attach", "a", stdin="one\ntwo\n")
    assert done.code == 7
    assert done.out == "got one\ngot two\n"
    assert done.err == "err one\nerr two\n"
    assert kap("attach", "a").code == 1
    assert "got two" in kap.ok("logs", "a").out


def test_attach_to_a_terminal_is_left_by_its_keys(kap: Kap) -> None:
    kap.file("services:\n  a: {image: busybox, stdin_open: true, tty: true, command: sh}\n")
    kap.ok("up", "-d")
    master, slave = pty.openpty()
    attached = subprocess.Popen(
        [*kap.command, "attach", "a"],
        cwd=kap.folder, env=kap.environment, stdin=slave, stdout=slave, stderr=slave,
    )  # fmt: skip
    os.close(slave)
    os.set_blocking(master, False)
    seen = b""

    def shows(text: bytes) -> bool:
        nonlocal seen
        try:
            seen += os.read(master, 65536)
        except (BlockingIOError, OSError):
            pass
        return text in seen

    os.write(master, b"echo $((40 + 2))x\r")
    wait_until(lambda: shows(b"42x"), 10, lambda: repr(seen))
    os.write(master, b"\x10\x11")
    assert attached.wait(10) == 0
    os.close(master)
    assert kap.state(f"{kap.folder.name}-a-1") == "running"
