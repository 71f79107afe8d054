"""`userns_mode: private` as root: a container whose root is nobody outside, on the same images, volumes and binds."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path

import pytest

from kapelle.engines.native import userns_choice
from tests.checks import wait_until
from tests.scenarios.conftest import Kap, answers, free_port

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        os.geteuid() != 0 or os.environ.get("KAP_RUNG", "R1") != "R1", reason="an ordinary user's are in one anyway"
    ),
    pytest.mark.skipif(
        os.geteuid() == 0 and bool(userns_choice.refusals([tempfile.gettempdir()], set(), userns_choice.available())),
        reason="no id-mapped mounts here",
    ),
]
FIRST = userns_choice.available().uids


def outside(kap: Kap, name: str) -> tuple[int, int]:
    """The host's user and group id of a container's first process."""
    (row,) = json.loads(kap.ok("inspect", name).out)
    with open(f"/proc/{row['State']['Pid']}/status") as f:
        ids = {line.split(":")[0]: line.split()[1:] for line in f if line.startswith(("Uid:", "Gid:"))}
    assert len(set(ids["Uid"])) == len(set(ids["Gid"])) == 1
    return int(ids["Uid"][0]), int(ids["Gid"][0])


def runs(kap: Kap, settings: str, script: str, *words: str, **environment: str) -> tuple[int, str, str]:
    kap.file(f"services:\n  a:\n    image: busybox\n    {settings}\n    command: {json.dumps(['sh', '-c', script])}\n")
    done = kap("run", "--rm", "-T", *words, "a", **environment)
    return done.code, done.out, done.err


@pytest.mark.parametrize("mode", ["private", "auto"])
def test_root_inside_is_nobody_outside(kap: Kap, mode: str) -> None:
    kap.file(
        f"services:\n  a: {{image: busybox, userns_mode: {mode}, command: [sleep, '1000']}}\n"
        "  b: {image: busybox, command: [sleep, '1000']}\n"
    )
    kap.ok("up", "-d")
    assert kap.ok("exec", "-T", "a", "id", "-u").out == "0\n"
    a, b = (f"{kap.folder.name}-{service}-1" for service in "ab")
    assert outside(kap, a) == (FIRST, userns_choice.available().gids)
    assert outside(kap, b) == (0, 0)
    assert "org.kapelle.userns=0:" in kap.ps()[a]["Labels"]
    assert "org.kapelle.userns" not in kap.ps()[b]["Labels"]
    (seen,) = json.loads(kap.ok("inspect", a).out)
    assert seen["HostConfig"]["UsernsMode"] == "private"


def test_a_setting_is_the_default_and_a_service_may_opt_out(kap: Kap) -> None:
    kap.file(
        "services:\n  a: {image: busybox, init: true, command: [sleep, '1000']}\n"
        "  b: {image: busybox, userns_mode: host, command: [sleep, '1000']}\n"
    )
    kap.ok("up", "-d", KAP_USERNS="private")
    assert outside(kap, f"{kap.folder.name}-a-1")[0] == FIRST
    assert outside(kap, f"{kap.folder.name}-b-1")[0] == 0
    kap.ok("restart", "-t", "0", "a")  # it stays what it was made as
    assert outside(kap, f"{kap.folder.name}-a-1")[0] == FIRST


def test_the_setting_may_be_in_the_configuration(kap: Kap, tmp_path: Path) -> None:
    own = Kap(kap.folder, tmp_path / "home")
    (own.home / "config").mkdir(parents=True)
    (own.home / "data").mkdir()
    (own.home / "data" / "images").symlink_to(kap.home / "data" / "images")
    (own.home / "config" / "config.toml").write_text('userns = "private"\n')
    map_of = "cat /proc/self/uid_map"
    try:
        assert runs(own, "init: false", map_of)[1].split()[1] == str(FIRST)
        assert runs(own, "init: false", map_of, KAP_USERNS="host")[1].split()[1] == "0"
        (own.home / "config" / "config.toml").write_text('userns = "remap"\n')
        done = own("up", "-d")
        assert done.code == 1
        assert "config.toml: invalid user namespace mode: remap" in done.err
    finally:
        (own.home / "config" / "config.toml").unlink()
        own("down", "-t", "0")


def test_files_of_a_volume_are_the_same_for_a_container_without_one(kap: Kap) -> None:
    kap.file(
        "FROM busybox\nRUN mkdir /data; cd /data; echo given > given; chown 33:44 given; chmod 600 given\n",
        "Dockerfile",
    )
    kap.file(
        "services:\n  a: {build: ., image: x-userns, userns_mode: private, volumes: ['data:/data'], tty: true}\n"
        "  b: {image: x-userns, volumes: ['data:/data'], depends_on: [a]}\nvolumes: {data: }\n"
    )
    kap.ok("build")
    see = "stat -c %u:%g:%a:%n /data/*"
    script = f"echo x > /data/new; chown 1000:1001 /data/new; touch /data/own; {see}"
    rows = "33:44:600:/data/given\n1000:1001:644:/data/new\n0:0:644:/data/own\n"
    assert kap.ok("run", "--rm", "-T", "a", "sh", "-c", script).out == rows
    assert kap.ok("run", "--rm", "-T", "b", "sh", "-c", see).out == rows
    back = "cat /data/given; rm /data/own; echo y >> /data/new; cat /data/new"
    assert kap.ok("run", "--rm", "-T", "a", "sh", "-c", back).out == "given\nx\ny\n"


def test_what_it_writes_into_a_bind_mount_has_its_normal_owner(kap: Kap) -> None:
    (kap.folder / "src").mkdir()
    kap.file("mine", "src/given")
    os.chmod(kap.folder / "src" / "given", 0o600)
    script = "cat /src/given; touch /src/root; touch /src/app; chown 1000:1000 /src/app; stat -c %u /src"
    assert runs(kap, "userns_mode: private\n    volumes: ['./src:/src']", script)[:2] == (0, "mine0\n")
    owners = {p.name: (p.stat().st_uid, p.stat().st_gid) for p in (kap.folder / "src").iterdir()}
    assert owners == {"given": (0, 0), "root": (0, 0), "app": (1000, 1000)}
    settings = "userns_mode: private\n    x-kap-map-user: '33:33'\n    volumes: ['./src:/src']"
    seen = "stat -c %u:%n /src/given /src/mapped; id -u"
    caller = {"SUDO_UID": "70000", "SUDO_GID": "70000"}
    for name in ("given", "mapped"):
        (kap.folder / "src" / name).touch()
        os.chown(kap.folder / "src" / name, 70000, 70000)
    assert runs(kap, settings, seen, **caller)[:2] == (0, "33:/src/given\n33:/src/mapped\n0\n")


def test_all_else_is_as_without(kap: Kap) -> None:
    port = free_port()
    kap.file("secret", "s")
    kap.file(
        f"""services:
  a:
    image: busybox
    userns_mode: private
    user: '1000:1000'
    cap_add: [NET_BIND_SERVICE]
    command: [sh, -c, "echo up; mkdir /tmp/www; echo page > /tmp/www/index.html; exec httpd -f -p 80 -h /tmp/www"]
    ports: ['127.0.0.1:{port}:80']
    tmpfs: ['/t:uid=1000,mode=700']
    read_only: true
    volumes: [{{type: tmpfs, target: /tmp}}]
    secrets: [{{source: s, uid: '1000', mode: 0400}}]
    configs: [{{source: c, target: /c}}]
    devices: ['/dev/zero:/dev/nought']
    sysctls: {{net.ipv4.ip_forward: '1'}}
    ulimits: {{nofile: 4000}}
    oom_score_adj: 5
    mem_limit: 64m
    shm_size: 4m
    healthcheck: {{test: [CMD, wget, -qO-, 'http://127.0.0.1/'], interval: 1s}}
  b:
    image: busybox
    userns_mode: private
    network_mode: service:a
    pid: service:a
    command: [sleep, '1000']
secrets: {{s: {{file: ./s}}}}
configs: {{c: {{content: text}}}}
"""
    )
    kap.ok("up", "-d", "--wait")
    answers(f"http://127.0.0.1:{port}/", "page")
    script = (
        "cat /run/secrets/s /c; touch /t/x; head -c 2 /dev/nought | wc -c; cat /proc/sys/net/ipv4/ip_forward;"
        "ulimit -n; cat /proc/self/oom_score_adj; stat -c %u /proc/1; touch /x 2>&1; nslookup a 127.0.0.11 | grep -c Na"
    )
    told = kap.ok("exec", "-T", "a", "sh", "-c", script).out
    assert told == "secrettext2\n1\n4000\n5\n1000\ntouch: /x: Read-only file system\n1\n"
    assert kap.ok("exec", "-T", "-u", "root", "a", "id", "-u").out == "0\n"
    assert kap.ok("exec", "-T", "b", "wget", "-qO-", "http://127.0.0.1/").out == "page\n"
    assert "httpd" in kap.ok("exec", "-T", "b", "ps").out
    assert "up" in kap.ok("logs", "a").out
    assert kap.ok("stats", "--no-stream", "--format", "json").out
    assert "httpd" in kap.ok("top", "a").out
    kap.ok("cp", str(kap.folder / "s"), "a:/t/copied")
    assert kap.ok("exec", "-T", "-u", "root", "a", "stat", "-c", "%u", "/t/copied").out == "0\n"
    kap.ok("cp", "a:/c", str(kap.folder / "back"))
    assert (kap.folder / "back").read_text() == "text"
    kap.ok("pause", "a")
    kap.ok("unpause", "a")
    kap.ok("restart", "-t", "0")
    answers(f"http://127.0.0.1:{port}/", "page")


def test_a_terminal_is_the_containers(kap: Kap) -> None:
    command = json.dumps(["sh", "-c", "tty; stat -c %u:%g $$(tty)"])
    kap.file(f"services: {{a: {{image: busybox, userns_mode: private, tty: true, command: {command}}}}}\n")
    kap.ok("up", "-d")
    wait_until(lambda: "0:5" in kap.ok("logs", "--no-log-prefix", "a").out, 10)
    assert "/dev/" in kap.ok("logs", "--no-log-prefix", "a").out


def test_changes_are_kept_as_of_any_container(kap: Kap) -> None:
    kap.file("services: {a: {image: busybox, userns_mode: private, command: [sleep, '1000']}}\n")
    kap.ok("up", "-d")
    kap.ok("exec", "-T", "a", "sh", "-c", "echo made > /made; chown 7:8 /made; rm -r /home; mkdir /home; touch /home/x")
    kap.ok("commit", "a", "x-userns-committed")
    kap.ok("stop", "-t", "0")
    kap.ok("cp", "a:/made", str(kap.folder / "made"))
    assert (kap.folder / "made").read_text() == "made\n"
    kap.file("services: {b: {image: x-userns-committed}}\n")
    assert kap.ok("run", "--rm", "-T", "b", "sh", "-c", "stat -c %u:%g /made; ls /home").out == "7:8\nx\n"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("privileged: true", "privileged mode is incompatible with user namespaces"),
        ("network_mode: host", "cannot share the host's network namespace when user namespaces are enabled"),
        ("pid: host", "cannot share the host PID namespace when user namespaces are enabled"),
        ("network_mode: service:b", "b has no user namespace of its own"),
        ("volumes: ['/sys:/host-sys:ro']", "its file system can't be seen through an id-mapped mount"),
    ],
)
def test_what_can_not_be_had_with_one_is_refused_with_its_place(kap: Kap, settings: str, words: str) -> None:
    text = f"services:\n  a:\n    image: busybox\n    {settings}\n  b: {{image: busybox, userns_mode: host}}\n"
    kap.file(text)
    done = kap("up", "-d", KAP_USERNS="private")
    assert done.code == 1
    assert "compose.yaml:4:" in done.err
    assert words in done.err
    assert kap.ps() == {}
    kap.file(
        text.replace("busybox\n", "busybox\n    userns_mode: host\n", 1).replace("b: {", "b: {command: [sleep, '9'], ")
    )
    assert kap("up", "-d", KAP_USERNS="private").code == 0


@pytest.mark.parametrize("mode", ["keep-id", "auto:size=5", "'1000'"])
def test_another_word_is_refused_with_its_place(kap: Kap, mode: str) -> None:
    kap.file(f"services:\n  a:\n    image: busybox\n    userns_mode: {mode}\n")
    done = kap("up", "-d")
    assert done.code == 1
    assert f'compose.yaml:4:5: service "a": invalid USER mode: {mode.strip(chr(39))}' in done.err
    assert "KAP_USERNS: invalid user namespace mode: x" in kap("up", "-d", KAP_USERNS="x").err


def test_a_file_system_that_can_not_be_mapped_is_told_before_anything_is_made(kap: Kap) -> None:
    place = kap.folder / "all"
    place.mkdir()
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", "lowerdir=/etc:/usr", str(place)], check=True)
    try:
        code, _, err = runs(kap, f"userns_mode: private\n    volumes: ['{place}:/all']", "true")
        assert code == 1
        assert "compose.yaml:5:" in err
        assert f"{place}: its file system can't be seen through an id-mapped mount" in err
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_a_copied_root_is_the_containers_too(kap: Kap) -> None:
    script = "touch /made; rm -r /home; stat -c %u /bin /made /proc/1; ls -d /home 2>&1"
    code, out, _ = runs(kap, "userns_mode: private", script, KAP_OVERLAY="copy")
    assert out == "0\n0\n0\nls: /home: No such file or directory\n"
    code, _, err = runs(kap, "userns_mode: private", script, KAP_OVERLAY="fuse")
    assert code == 1
    assert "KAP_OVERLAY=fuse: " in err


def test_a_user_namespace_can_be_required(kap: Kap) -> None:
    kap.file("services:\n  a: {image: busybox, command: [sleep, '1000']}\n")
    done = kap("up", "-d", "--require=userns")
    assert done.code == 1
    assert 'compose.yaml:2:3: --require=userns is not met: service "a" has no user namespace of its own' in done.err
    kap.ok("up", "-d", "--require=userns", KAP_USERNS="private")
    assert "--require=rootless is not met" in kap("up", "-d", "--require=rootless", KAP_USERNS="private").err
    kap.file("services:\n  a: {image: busybox, userns_mode: host, command: [sleep, '1000']}\n")
    done = kap("up", "-d", "--require=userns", KAP_USERNS="private")
    assert "compose.yaml:2:23: --require=userns is not met" in done.err


def test_doctor_tells_which_ids_there_are(kap: Kap) -> None:
    (found,) = (
        f for f in json.loads(kap("doctor", "--format", "json").out)["findings"] if f["name"] == "own user namespaces"
    )
    assert found["ok"]
    assert str(FIRST) in found["seen"]


def test_even_one_who_may_mount_can_not_undo_what_hides_and_protects(kap: Kap) -> None:
    settings = "userns_mode: private\n    cap_add: [ALL]\n    security_opt: ['seccomp=unconfined']"
    tries = [
        "umount /proc/keys",
        "mount -o remount,bind,rw /proc/sys",
        "umount /proc/sys",
        "umount /sys/fs/cgroup",
        "mknod /tmp/d c 1 1",
        "echo x > /proc/sysrq-trigger",
        "echo 1 > /proc/sys/kernel/core_uses_pid",
    ]
    script = "".join(f"({words}) >/dev/null 2>&1 && echo done: '{words}'; " for words in tries)
    script += "mkdir /m && mount -t tmpfs x /m && hostname other && hostname && ip link set lo down && echo own"
    assert runs(kap, settings, script)[:2] == (0, "other\nown\n")
