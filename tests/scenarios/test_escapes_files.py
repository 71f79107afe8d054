"""Tricks with links, races and odd files that a container plays on the command or on its next start."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
import time
from pathlib import Path

import pytest

from tests.checks import wait_until
from tests.escapes.attempts import CAPABILITIES
from tests.scenarios.conftest import Kap


@pytest.mark.parametrize("target", ["/proc", "/proc/sys", "/proc/self/attr", "/./proc/1/", "/p/sys"])
def test_nothing_is_mounted_inside_proc(kap: Kap, target: str) -> None:
    """Else our own writes to /proc at the start (sysctls, limits, profiles) would go into the container's files."""
    (kap.folder / "fake").mkdir()
    kap.file("FROM busybox\nRUN ln -s proc /p\n", "Dockerfile")
    kap.file(f"services:\n  a: {{build: ., volumes: ['./fake:{target}']}}\n")
    kap.ok("build", timeout=200)
    done = kap("run", "--rm", "-T", "a", "ls", "/proc/self/status")
    assert done.code != 0
    assert "/proc" in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize("place", ["/etc/passwd", "/etc/group"])
@pytest.mark.parametrize("kind", ["ln -s /dev/zero", "mkfifo", "mkdir", "ln -s ../../../../../../etc/shadow"])
def test_an_odd_passwd_file_neither_hangs_the_start_nor_shows_the_hosts(kap: Kap, place: str, kind: str) -> None:
    kap.file(f"FROM busybox\nRUN rm -f {place} && {kind} {place}\n", "Dockerfile")
    kap.file("services:\n  a: {build: ., user: '5', group_add: ['6']}\n")
    kap.ok("build", timeout=200)
    assert "Uid:\t5\t" in kap.ok("run", "--rm", "-T", "a", "cat", "/proc/self/status", timeout=30).out
    named = kap("run", "--rm", "-T", "-u", "nobodyknows", "a", "true", timeout=30)
    assert named.code != 0
    assert "unable to find user" in named.err


def test_a_user_number_beyond_the_kernels_is_told(kap: Kap) -> None:
    kap.file("services:\n  a: {image: busybox, user: '99999999999999:5'}\n")
    done = kap("run", "--rm", "-T", "a", "id")
    assert done.code != 0
    assert "internal error" not in done.err
    assert "99999999999999" in done.err


def test_a_folder_that_turns_into_a_link_during_a_copy_leads_nowhere(kap: Kap, tmp_path: Path) -> None:
    """CVE-2018-15664: the container swaps a folder for a link to the host's place while `cp` is on its way."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "canary").write_text("the host's")
    script = (
        f"mkdir -p /w/a; echo mine > /w/a/canary; ln -s {outside} /w/l; echo ready; "
        "while :; do mv /w/a /w/b; mv /w/l /w/a; mv /w/a /w/l; mv /w/b /w/a; done"
    )
    kap.file(f'services:\n  a: {{image: busybox, init: true, command: [sh, -c, "{script}"]}}\n')
    kap.ok("up", "-d")
    wait_until(lambda: "ready" in kap.ok("logs").out, 20)
    kap.file("put", "file")
    until = time.monotonic() + 4
    while time.monotonic() < until:
        got = kap("cp", "a:/w/a", "-")
        if got.code == 0 and got.out:
            assert "the host's" not in got.out
        kap("cp", "file", "a:/w/a/file")
        kap("cp", "a:/w/a/canary", "taken")
        taken = kap.folder / "taken"
        assert not taken.exists() or "host" not in taken.read_text()
    assert sorted(p.name for p in outside.iterdir()) == ["canary"]


def test_a_link_that_came_out_by_cp_is_not_followed_by_the_next_cp(kap: Kap, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    script = f"mkdir /w; ln -s {outside} /w/x; mkdir -p /v/x; echo bad > /v/x/file; sleep 1000"
    kap.file(f'services:\n  a: {{image: busybox, command: [sh, -c, "{script}"]}}\n')
    kap.ok("up", "-d")
    wait_until(lambda: kap("exec", "-T", "a", "cat", "/v/x/file").code == 0, 20)
    (kap.folder / "to").mkdir()
    kap.ok("cp", "a:/w/.", "to")
    assert (kap.folder / "to" / "x").is_symlink()
    kap("cp", "a:/v/.", "to")
    assert list(outside.iterdir()) == []


def test_export_and_commit_take_links_and_devices_as_what_they_are(kap: Kap, tmp_path: Path) -> None:
    (tmp_path / "canary").write_text("the host's")
    script = f"ln -s {tmp_path} /out; ln -s {tmp_path}/canary /file; mkfifo /fifo; echo done; sleep 1000"
    kap.file(f'services:\n  a: {{image: busybox, command: [sh, -c, "{script}"]}}\n')
    kap.ok("up", "-d")
    wait_until(lambda: "done" in kap.ok("logs").out, 20)
    with (kap.folder / "all.tar").open("wb") as f:
        subprocess.run([*kap.command, "export", "a"], cwd=kap.folder, env=kap.environment, stdout=f, check=True)
    with tarfile.open(kap.folder / "all.tar") as tar:
        members = {m.name: m for m in tar}
    assert members["out"].issym()
    assert members["file"].issym()
    assert not any(n.startswith("out/") for n in members)
    kap.ok("commit", "a", "escape-committed:1")
    kap.file("services:\n  b: {image: 'escape-committed:1', pull_policy: never}\n", "b.yaml")
    told = kap("-f", "b.yaml", "run", "--rm", "-T", "b", "cat", "/file")
    assert "host" not in told.out


def test_what_a_stopped_container_left_as_links_leads_nowhere(kap: Kap, tmp_path: Path) -> None:
    (tmp_path / "canary").write_text("the host's")
    kap.file(
        f"services:\n  a: {{image: busybox, command: [sh, -c, 'ln -s {tmp_path} /out'], volumes: ['v:/v']}}\n"
        "volumes: {v: }\n"
    )
    kap.ok("up", "-d")
    wait_until(lambda: kap.ps() and all(r["State"] == "exited" for r in kap.ps().values()), 20)
    done = kap("cp", "a:/out/canary", "taken")
    assert done.code != 0
    assert not (kap.folder / "taken").exists()
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("new"))
    subprocess.run(
        [*kap.command, "cp", "-", "a:/out"],
        cwd=kap.folder,
        env=kap.environment,
        input=archive.getvalue(),
        capture_output=True,
        check=False,
    )
    assert sorted(os.listdir(tmp_path)) == sorted(["canary", kap.folder.name])


def test_a_link_in_a_volume_is_not_followed_when_the_volume_is_filled_or_removed(kap: Kap, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    kap.file(
        f"services:\n  a: {{image: busybox, command: [sh, -c, 'ln -s {outside} /v/l; mkdir -p /v/d/e'], "
        "volumes: ['v:/v']}\n  b: {image: busybox, command: [ls, /v/l/], volumes: ['v:/v']}\nvolumes: {v: }\n"
    )
    kap.ok("run", "--rm", "-T", "a")
    assert "kept" not in kap("run", "--rm", "-T", "b").out
    kap.ok("down", "-v")
    assert [p.name for p in outside.iterdir()] == ["kept"]


def test_a_run_of_a_build_has_no_more_than_a_container(kap: Kap) -> None:
    look = (
        "grep -E '^(Cap|Seccomp:|NoNewPrivs)' /proc/self/status; ls /proc/self/fd; "
        "mount -t tmpfs x /mnt || echo no mount; echo x > /proc/sys/kernel/core_pattern || echo no setting; "
        "cat /proc/keys | wc -c; mknod /d b 7 0 && cat /d || echo no disk; "
        "[ -e {canary} ] && echo CANARY; cat /proc/1/comm"
    )
    canary = kap.folder / "canary"
    canary.write_text("")
    kap.file("canary\n", ".dockerignore")
    kap.file(f"FROM busybox\nRUN ({look.replace('{canary}', str(canary))}) > /told 2>/dev/null\n", "Dockerfile")
    kap.file("services:\n  a: {build: ., command: [cat, /told]}\n")
    kap.ok("build", timeout=200)
    told = kap.ok("run", "--rm", "-T", "a").out.split("\n")
    sets = {row.split(":\t")[0]: row.split(":\t")[1] for row in told if ":\t" in row}
    assert {k: int(v, 16) for k, v in sets.items() if k.startswith("Cap")} == {
        "CapInh": 0, "CapPrm": CAPABILITIES, "CapEff": CAPABILITIES, "CapBnd": CAPABILITIES, "CapAmb": 0,
    }  # fmt: skip
    assert sets["Seccomp"] == "2"
    assert {row for row in told if row.isdigit()} <= {"0", "1", "2", "3"}
    assert {"no mount", "no setting", "no disk", "0"} <= set(told)
    assert "CANARY" not in told
