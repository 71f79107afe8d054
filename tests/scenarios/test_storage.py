"""Volumes, binds, tmpfs, images as mounts, other containers' mounts, configs and secrets: as the file says them."""

from __future__ import annotations

import os
from pathlib import Path

from tests.scenarios.conftest import Kap, one_id


def run(kap: Kap, service: str, script: str) -> tuple[int, str]:
    done = kap("run", "--rm", "-T", service, "sh", "-c", script)
    return done.code, (done.out + done.err).strip() if done.code else done.out.strip()


def test_volumes_from_gives_all_mounts_of_another_service(kap: Kap) -> None:
    (kap.folder / "bound").mkdir()
    (kap.folder / "bound" / "f").write_text("host")
    kap.file(
        "services:\n"
        "  db: {image: busybox, command: sleep 1000, volumes: ['data:/data', './bound:/bound', '/anon']}\n"
        "  see: {image: busybox, volumes_from: ['db:ro'], command: sh -c 'cat /bound/f; ls /anon; touch /data/x'}\n"
        "  write: {image: busybox, volumes_from: [db], command: sh -c 'echo w > /data/w; echo a > /anon/a'}\n"
        "  named: {image: busybox, volumes_from: ['container:other'], command: cat /data/w}\n"
        "volumes: {data: }\n"
    )
    kap.ok("up", "-d", "db")
    kap.ok("run", "--rm", "-T", "write")
    assert kap.ok("exec", "-T", "db", "cat", "/data/w", "/anon/a").out == "w\na\n"
    see = kap("run", "--rm", "-T", "see")
    assert see.code != 0
    assert see.out == "hosta\n"
    assert "ead-only" in see.err
    missing = kap("run", "--rm", "-T", "named")
    assert missing.code != 0
    assert "compose.yaml:5" in missing.err
    assert "no such container" in missing.err


def test_an_image_is_mounted_read_only_whole_or_in_part(kap: Kap) -> None:
    kap.file(
        "FROM busybox\nRUN mkdir -p /site/deep && echo page > /site/deep/index && ln -s deep /site/link\n", "Dockerfile"
    )
    kap.file(
        "services:\n"
        "  made: {build: ., image: 'content:1', profiles: [never]}\n"
        "  a:\n    image: busybox\n    volumes:\n"
        "      - {type: image, source: 'content:1', target: /all}\n"
        "      - {type: image, source: 'content:1', target: /part, image: {subpath: site/deep}}\n"
        "  b:\n    image: busybox\n    volumes:\n"
        "      - {type: image, source: 'content:1', target: /x, image: {subpath: nothing}}\n"
    )
    kap.ok("build", "made")
    code, told = run(kap, "a", "cat /all/site/deep/index /part/index; touch /all/x 2>/dev/null || echo refused")
    assert (code, told) == (0, "page\npage\nrefused")
    code, told = run(kap, "b", "true")
    assert code != 0
    assert "has no nothing" in told


def test_a_volume_of_memory_is_shared_while_it_is_used(kap: Kap) -> None:
    kap.file(
        "services:\n"
        "  a: {image: busybox, command: sleep 1000, volumes: ['mem:/m']}\n"
        "  b: {image: busybox, command: sleep 1000, volumes: ['mem:/m']}\n"
        "volumes:\n  mem: {driver_opts: {type: tmpfs, device: tmpfs, o: 'size=1m,mode=1777'}}\n"
    )
    kap.ok("up", "-d")
    kap.ok("exec", "-T", "a", "sh", "-c", "echo shared > /m/f")
    assert kap.ok("exec", "-T", "b", "cat", "/m/f").out == "shared\n"
    assert kap("exec", "-T", "b", "dd", "if=/dev/zero", "of=/m/big", "bs=1M", "count=3").code != 0
    kap.ok("down", "-t", "0")
    kap.ok("up", "-d")
    assert kap("exec", "-T", "a", "cat", "/m/f").code != 0


def test_a_file_system_that_can_not_be_mounted_is_told(kap: Kap) -> None:
    kap.file(
        "services:\n  a: {image: busybox, command: sleep 1000, volumes: ['net:/n']}\n"
        "volumes:\n  net: {driver_opts: {type: nosuchfs, device: ':/x', o: 'addr=127.0.0.1'}}\n"
    )
    done = kap("up", "-d")
    assert done.code != 0
    assert "nosuchfs" in done.err
    assert "Traceback" not in done.err


def test_a_volumes_subpath_leads_nowhere_else(kap: Kap, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("the host's")
    kap.file(
        "services:\n"
        "  fill: {image: busybox, volumes: ['vol:/v']}\n"
        "  a:\n    image: busybox\n    volumes: [{type: volume, source: vol, target: /s, volume: {subpath: sub}}]\n"
        "  bad:\n    image: busybox\n    volumes: [{type: volume, source: vol, target: /s, volume: {subpath: link}}]\n"
        "  none:\n    image: busybox\n    volumes: [{type: volume, source: vol, target: /s, volume: {subpath: nope}}]\n"
        "volumes: {vol: }\n"
    )
    run(kap, "fill", f"mkdir /v/sub && echo in > /v/sub/f && ln -s {tmp_path} /v/link")
    assert run(kap, "a", "cat /s/f") == (0, "in")
    for service in ("bad", "none"):
        code, told = run(kap, service, "cat /s/secret")
        assert code != 0
        assert "the host's" not in told


def test_first_use_copies_the_images_content_but_for_nocopy(kap: Kap) -> None:
    kap.file("FROM busybox\nRUN mkdir -m 750 /data && echo seed > /data/f && chown 5:6 /data\n", "Dockerfile")
    kap.file(
        "services:\n"
        "  a: {build: ., volumes: ['vol:/data']}\n"
        "  b:\n    build: .\n    volumes: [{type: volume, source: www, target: /data, volume: {nocopy: true}}]\n"
        "volumes: {vol: , www: }\n"
    )
    owner = "0:0" if one_id(kap) else "5:6"
    assert run(kap, "a", "cat /data/f; stat -c '%u:%g %a' /data; echo mine > /data/f") == (0, f"seed\n{owner} 750")
    assert run(kap, "a", "cat /data/f") == (0, "mine")
    assert run(kap, "b", "ls /data") == (0, "")


def test_binds_are_as_writable_as_asked_below_and_above(kap: Kap) -> None:
    (kap.folder / "d").mkdir()
    (kap.folder / "f").write_text("one")
    kap.file(
        "services:\n  a:\n    image: busybox\n    volumes:\n"
        "      - ./d:/rw\n      - ./d:/ro:ro\n      - ./f:/file\n      - ./new/folder:/made\n"
        "      - {type: tmpfs, target: /t, tmpfs: {size: 1m, mode: 0700}}\n"
        "      - {type: bind, source: ./none, target: /n, bind: {create_host_path: false}}\n"
    )
    refused = kap("run", "--rm", "-T", "a", "true")
    assert refused.code != 0
    assert "none" in refused.err
    assert not (kap.folder / "new").exists()
    (kap.folder / "none").mkdir()
    script = (
        "touch /rw/x && touch /ro/y 2>/dev/null || echo refused; echo two > /file; ls -d /made; stat -c %a /t; "
        "df -k /t | tail -1 | awk '{print $2}'"
    )
    assert run(kap, "a", script) == (0, "refused\n/made\n700\n1024")
    assert (kap.folder / "f").read_text() == "two\n"
    assert (kap.folder / "d" / "x").stat().st_uid == os.getuid()  # what is written belongs to who ran it
    assert (kap.folder / "new" / "folder").is_dir()


def test_configs_and_secrets_have_the_owner_and_mode_asked_for_and_are_on_no_disk(kap: Kap) -> None:
    (kap.folder / "file").write_text("from a file")
    kap.file(
        "services:\n  a:\n    image: busybox\n    command: sleep 1000\n"
        "    configs: [inline, {source: inline, target: /etc/app.conf, uid: '7', gid: '8', mode: 0440}]\n"
        "    secrets: [variable, {source: file, target: renamed, uid: '9', mode: 0400}]\n"
        "configs: {inline: {content: 'hello ${WHO}'}}\n"
        "secrets: {variable: {environment: HIDDEN}, file: {file: ./file}}\n"
    )
    kap.ok("up", "-d", WHO="you", HIDDEN="word-of-mouth")
    script = (
        "cat /inline /etc/app.conf /run/secrets/variable /run/secrets/renamed; echo; "
        "stat -c '%u:%g %a' /etc/app.conf /run/secrets/renamed"
    )
    owners = ("0:0", "0:0") if one_id(kap) else ("7:8", "9:0")
    told = kap.ok("exec", "-T", "a", "sh", "-c", script).out
    assert told == f"hello youhello youword-of-mouthfrom a file\n{owners[0]} 440\n{owners[1]} 400\n"
    for folder, below, names in os.walk(kap.home):
        if folder.endswith("/data/images"):
            below.clear()  # of other tests, some with owners of their own
        for name in names:
            path = Path(folder, name)
            if path.is_file() and not path.is_symlink() and path.stat().st_size < 1 << 20:
                assert b"word-of-mouth" not in path.read_bytes(), path
    before = {name: row["ID"] for name, row in kap.ps().items()}
    kap.ok("up", "-d", WHO="you", HIDDEN="word-of-mouth")
    assert {name: row["ID"] for name, row in kap.ps().items()} == before
    changed = kap.ok("up", "-d", WHO="others", HIDDEN="word-of-mouth")
    assert "Recreate" in changed.err
    assert kap.ok("exec", "-T", "a", "cat", "/inline").out == "hello others"


def test_pre_start_hooks_run_once_before_the_service_and_hold_it_back_when_they_fail(kap: Kap) -> None:
    def file(command: str) -> None:
        kap.file(
            "services:\n  a:\n    image: busybox\n    command: sh -c 'cat /data/log; sleep 1000'\n"
            "    volumes: ['data:/data']\n    scale: 2\n"
            f"    pre_start: [{{command: [sh, -c, '{command}'], environment: {{WHO: me}}}}]\n"
            "volumes: {data: }\n"
        )

    file("echo $$WHO >> /data/log")
    kap.ok("up", "-d")
    assert kap.ok("exec", "-T", "a", "cat", "/data/log").out == "me\n"
    kap.ok("up", "-d", "--force-recreate", "-t", "0")
    assert kap.ok("exec", "-T", "a", "cat", "/data/log").out == "me\n"
    file("echo broken; exit 3")
    failed = kap("up", "-d", "-t", "0")
    assert failed.code != 0
    assert "exited with status 3" in failed.err
    assert "broken" in failed.err
    assert "compose.yaml:" in failed.err
    states = {name: row["State"] for name, row in kap.ps().items()}
    assert "running" not in states.values()
    assert any("pre-start" in name for name in states)
