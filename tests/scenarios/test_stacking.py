"""The kernel's overlay, else fuse-overlayfs, else a copy: the same containers whichever way images are stacked."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from kapelle.engines.native import fuse
from tests.checks import wait_until
from tests.scenarios.conftest import Kap, one_id

WAYS = [pytest.param("fuse", marks=pytest.mark.skipif(bool(fuse.missing()), reason=fuse.missing())), "copy", "kernel"]

_OVERLAY = (("lower", "low"), ("upper", "up"), ("work", "work"))
DOCKERFILE = """FROM busybox
RUN mkdir -p /a/b/c /gone /again && echo one > /a/one && echo two > /a/two && echo x > /gone/x && echo y > /again/y \\
 && ln -s one /a/link && echo 3 > /a/three && ln /a/three /a/hard && chmod 750 /a/b \\
 && chown 33:44 /a/two; echo z > /again/z
RUN rm /a/two && rm -r /gone /again && mkdir /again && echo new > /again/new && echo more >> /a/one && chmod 700 /a/b/c
RUN mkdir /gone && echo back > /gone/back && touch -d '2001-01-01 00:00:00' /a/b/old && mv /a/link /a/moved
"""
SEEN = "cd /; find a again gone | sort | while read f; do stat -c '%n %F %a %u:%g' $f; [ -f $f ] && cat $f; done; true"


def layers(kap: Kap, name: str) -> list[str]:
    (image,) = json.loads(kap.ok("image", "inspect", name).out)
    return list(image["RootFS"]["Layers"])


def processes(kap: Kap) -> list[str]:
    """Of fuse-overlayfs, for containers of this home."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if words[0] == b"fuse-overlayfs" and str(kap.home).encode() in b" ".join(words):
            found.append(pid)
    return found


def mounts() -> list[str]:
    return [row for row in Path("/proc/self/mounts").read_text().splitlines() if "fuse-overlayfs" in row]


@pytest.mark.parametrize("way", WAYS)
def test_a_container_lives_on_it(kap: Kap, way: str) -> None:
    kap.environment["KAP_OVERLAY"] = way
    kap.file(
        "services:\n  a: {image: busybox, command: [sh, -c, 'echo up; sleep 1000'], volumes: ['data:/data']}\n"
        "  b: {image: busybox, user: '1000', command: [sleep, '1000']}\nvolumes: {data: }\n"
    )
    kap.ok("up", "-d")
    assert bool(processes(kap)) == (way == "fuse")
    assert not mounts()
    script = "echo x > /new; rm -r /home; ln -s new /link; mkdir -p /d/e; cat /link; ls -d /home; mount | grep ' on / '"
    told = kap.ok("exec", "-T", "a", "sh", "-c", script + "; echo y > /data/y; ps")
    assert told.out.startswith("x\n")
    assert "fuse-overlayfs -f" not in told.out, "its program is not the container's to see"
    assert ("fuse" in told.out.splitlines()[1]) == (way == "fuse")
    kap.ok("restart", "-t", "0")
    assert kap("exec", "-T", "a", "ls", "-d", "/home").code == 1
    assert kap.ok("exec", "-T", "a", "cat", "/new", "/data/y").out == "x\ny\n"
    kap.ok("cp", "a:/new", str(kap.folder / "out"))
    kap.ok("stop", "-t", "0")
    wait_until(lambda: not processes(kap), 5)
    kap.ok("cp", str(kap.folder / "out"), "a:/d/e/in")
    kap.ok("start")
    assert kap.ok("exec", "-T", "a", "cat", "/d/e/in").out == "x\n"
    assert kap.ok("run", "--rm", "-T", "a", "ls", "-d", "/home").out == "/home\n"
    kap.ok("down", "-v", "-t", "0")
    wait_until(lambda: not processes(kap), 5)
    left = kap.home / "data" / "containers"
    assert not [c for c in (left.iterdir() if left.exists() else ()) if (c / "upper" / "new").exists()]


@pytest.mark.parametrize("way", WAYS)
def test_a_build_makes_the_same_image(kap: Kap, way: str) -> None:
    kap.file(DOCKERFILE, "Dockerfile")
    kap.file("services: {a: {build: ., image: x-stacked}}\n")
    seen: dict[str, str] = {}
    for how in (way, "kernel"):
        kap.ok("build", "--no-cache", KAP_OVERLAY=how)
        seen[how] = kap.ok("run", "--rm", "-T", "a", "sh", "-c", SEEN, KAP_OVERLAY=how).out
        assert "again/new" in seen[how]
        assert "again/y" not in seen[how]
        assert "a/two" not in seen[how]
        assert "gone/x" not in seen[how]
    assert seen[way] == seen["kernel"]


@pytest.mark.parametrize("way", WAYS)
def test_changes_are_committed_and_exported(kap: Kap, way: str) -> None:
    kap.environment["KAP_OVERLAY"] = way
    kap.file(DOCKERFILE, "Dockerfile")
    kap.file("services: {a: {build: ., image: x-stacked, command: [sleep, '1000']}}\n")
    kap.ok("up", "-d", "--build")
    script = "rm /a/one; rm -r /again; mkdir /again; echo v > /again/v; echo changed > /a/hard; chown 5:6 /gone"
    kap.ok("exec", "-T", "a", "sh", "-c", script)
    kap.ok("commit", "a", "x-stacked-committed")
    assert len(layers(kap, "x-stacked-committed")) == len(layers(kap, "x-stacked")) + 1
    kap.ok("export", "-o", str(kap.folder / "all.tar"), "a")
    assert (kap.folder / "all.tar").stat().st_size > 10_000
    kap.file("services: {b: {image: x-stacked-committed}}\n")
    told = kap.ok("run", "--rm", "-T", "b", "sh", "-c", "cat /again/* /a/hard; ls /a /again; stat -c %u:%g /gone")
    owner = "0:0" if one_id(kap) else "5:6"
    assert told.out == f"v\nchanged\n/a:\nb\nhard\nmoved\nthree\n\n/again:\nv\n{owner}\n"
    size = sum(f.stat().st_size for f in Path(layer_folder(kap)).rglob("*") if f.is_file())
    assert size < 1000, "what has not changed is in no layer"


def layer_folder(kap: Kap) -> str:
    digest = layers(kap, "x-stacked-committed")[-1].removeprefix("sha256:")
    return str(next((kap.home / "data" / "images").rglob(f"layers/{digest}*")))


@pytest.mark.parametrize("way", WAYS)
def test_kill_9_leaves_no_mount_and_no_process(kap: Kap, way: str) -> None:
    kap.environment["KAP_OVERLAY"] = way
    kap.file("services: {a: {image: busybox, command: [sleep, '1000'], restart: always}}\n")
    kap.ok("up", "-d")
    kap.ok("exec", "-T", "a", "touch", "/kept")
    (row,) = json.loads(kap.ok("inspect", f"{kap.folder.name}-a-1").out)
    os.kill(row["State"]["Pid"], signal.SIGKILL)
    wait_until(lambda: kap("exec", "-T", "a", "ls", "/kept").code == 0, 20)
    (row,) = json.loads(kap.ok("inspect", f"{kap.folder.name}-a-1").out)
    pid = row["State"]["Pid"]
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("PPid:"):
            keeper = int(line.split()[1])
    children = Path(f"/proc/{keeper}/task/{keeper}/children").read_text().split()
    for victim in (keeper, *(int(c) for c in children)):  # keeper, supervisor, container, and its program
        try:
            os.kill(victim, signal.SIGKILL)
        except ProcessLookupError:
            pass
    wait_until(lambda: not processes(kap), 5)
    kap.ok("up", "-d")
    assert kap.ok("exec", "-T", "a", "ls", "/kept").out == "/kept\n"
    kap.ok("down", "-t", "0")
    wait_until(lambda: not processes(kap), 5)
    assert not mounts()


@pytest.mark.parametrize("way", WAYS)
def test_an_image_as_a_volume(kap: Kap, way: str) -> None:
    kap.environment["KAP_OVERLAY"] = way
    kap.file(DOCKERFILE, "Dockerfile")
    kap.file(
        "services:\n  a: {build: ., image: x-stacked}\n"
        "  b: {image: busybox, volumes: [{type: image, source: x-stacked, target: /i}]}\n"
    )
    kap.ok("build")
    told = kap.ok("run", "--rm", "-T", "b", "sh", "-c", "cat /i/again/new /i/gone/back; ls /i/a")
    assert told.out == "new\nback\nb\nhard\nmoved\none\nthree\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts an overlay to make the way there worse")
@pytest.mark.parametrize("mode", [0o666, 0])
def test_the_best_way_is_found_by_trying_and_told_once(kap: Kap, tmp_path: Path, mode: int) -> None:
    (tmp_path / "disk").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(tmp_path / "disk")], check=True)
    for name in ("low", "up", "work"):
        (tmp_path / "disk" / name).mkdir()
    (tmp_path / "all").mkdir()
    options = ",".join(f"{key}dir={tmp_path}/disk/{name}" for key, name in _OVERLAY)
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, str(tmp_path / "all")], check=True)
    own = Kap(kap.folder, tmp_path / "all" / "home")
    if not mode:  # as where fuse-overlayfs can not open its device
        hide = 'mount --bind /dev/null /dev/fuse && exec "$@"'
        own.command = ["unshare", "-m", "sh", "-c", hide, "sh", *kap.command]
    (own.home / "data").mkdir(parents=True)
    (own.home / "data" / "images").symlink_to(kap.home / "data" / "images")
    try:
        own.file("services: {a: &a {image: busybox, command: [sleep, '1000']}, b: *a}\n")
        by_fuse = mode and not fuse.missing()
        words = "stacked by fuse-overlayfs" if by_fuse else "each container gets a copy of its image"
        done = own.ok("up", "-d", "a")
        assert words in done.err
        assert "overlay" in done.err
        assert bool(processes(own)) == bool(by_fuse)
        assert own.ok("exec", "-T", "a", "ls", "/bin/sh").out == "/bin/sh\n"
        assert words not in own.ok("up", "-d", "b").err
        rows = json.loads(own("doctor", "--format", "json").out)["findings"]
        (found,) = (row for row in rows if row["name"] == "storage")
        assert not found["ok"]
        assert found["seen"].startswith("fuse-overlayfs on" if by_fuse else "copies on")
        assert "modprobe overlay" in found["admin"]
    finally:
        own("down", "-t", "0")
        wait_until(lambda: not processes(own), 5)
        for name in ("all", "disk"):
            subprocess.run(["umount", "-l", str(tmp_path / name)], check=True)


def test_a_way_that_is_none_or_can_not_be_is_told(kap: Kap) -> None:
    kap.file("services: {a: {image: busybox, command: [sleep, '1000']}}\n")
    done = kap("up", "-d", KAP_OVERLAY="zfs")
    assert done.code == 1
    assert "KAP_OVERLAY=zfs: there is no such way" in done.err
    if fuse.missing():
        done = kap("up", "-d", KAP_OVERLAY="fuse")
        assert done.code == 1
        assert f"KAP_OVERLAY=fuse: {fuse.missing()}" in done.err
    assert kap.ps() == {}


def test_doctor_names_the_way(kap: Kap) -> None:
    for way, words in (("", "overlay on "), ("copy", "by KAP_OVERLAY=copy")):
        rows = json.loads(kap("doctor", "--format", "json", KAP_OVERLAY=way).out)["findings"]
        (found,) = (row for row in rows if row["name"] == "storage")
        assert words in found["seen"]
