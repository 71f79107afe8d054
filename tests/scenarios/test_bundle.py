"""A project in one file: saved where images are, started where there is no network and no compose file."""

from __future__ import annotations

import gzip
import os
import shutil
import signal
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.checks import wait_until
from tests.scenarios.conftest import Kap

COMPOSE = """
services:
  web:
    image: busybox:${TAG}
    command: ["httpd", "-f", "-p", "8080", "-h", "/html"]
    env_file: web.env
    volumes: ["./html:/html", "data:/data"]
    secrets: [key]
    configs: [settings]
    init: true
  app:
    build: app
    depends_on: [web]
    init: true
  tool:
    image: busybox
    profiles: [tools]
secrets: {key: {file: key.txt}}
configs: {settings: {file: conf/settings.ini}}
volumes: {data: {}}
"""


def fill(kap: Kap) -> None:
    """The project's files."""
    for name, text in {
        "compose.yaml": COMPOSE, ".env": "TAG=1.35\n", "web.env": "COLOUR=red\n", "key.txt": "hidden-71c3\n",
        "conf/settings.ini": "a=1\n", "html/index.html": "hello\n", "app/Dockerfile":
        "FROM busybox\nRUN echo made >/made\nCOPY more.txt /\nCMD [\"sleep\", \"1000\"]\n", "app/more.txt": "more\n",
    }.items():  # fmt: skip
        path = kap.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)


@pytest.fixture
def elsewhere(kap: Kap, tmp_path: Path) -> Iterator[Kap]:
    """Another machine: nothing in its store, nothing in its folder, and no way to a registry or a mirror."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    # containers of a test's own home need short socket paths
    home = Path(f"/tmp/kap-bundle-{os.getpid()}-{time.monotonic_ns() % 10**6}")
    other = Kap(folder, home)
    for name in ("KAP_STAND_INS", "KAP_HOST_SETTINGS"):
        del other.environment[name]
    other.environment |= {n: "http://127.0.0.1:9" for n in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")}
    yield other
    for made in folder.iterdir():
        if (made / "compose.yaml").exists():
            other.ok("--project-directory", str(made), "-p", kap.folder.name.lower(), "down", "-v", "-t", "0")
    _forget(home)


def _forget(home: Path) -> None:
    """A user's store has files of other ids."""
    shutil.rmtree(home, ignore_errors=True)
    if home.exists() and os.geteuid() != 0:
        subprocess.run(["unshare", "--map-auto", "--map-root-user", "rm", "-rf", str(home)], check=False, timeout=60)


def test_a_saved_project_starts_where_there_is_no_network(kap: Kap, elsewhere: Kap) -> None:
    fill(kap)
    said = kap.ok("bundle", "save", "--with-secrets", "../moved.kap")
    assert "2 images" in said.out
    shutil.copy(kap.folder / "../moved.kap", elsewhere.folder / "moved.kap")
    elsewhere.ok("up", "-d", "--from", "moved.kap")
    name = kap.folder.name.lower()
    folder = elsewhere.folder / name
    assert (folder / "compose.yaml").read_text() == COMPOSE
    there = Kap(folder, elsewhere.home)
    there.environment = elsewhere.environment
    script = "echo $COLOUR; cat /run/secrets/key /settings /html/index.html"
    said = there.ok("exec", "-T", "web", "sh", "-c", script)
    assert said.out.split() == ["red", "hidden-71c3", "a=1", "hello"]
    assert there.ok("exec", "-T", "app", "cat", "/made", "/more.txt").out.split() == ["made", "more"]
    rows = there.ok("images", "--format", "json").out
    assert "busybox" in rows
    # again, with what was changed meanwhile left alone
    (folder / "html/index.html").write_text("changed\n")
    elsewhere.ok("up", "-d", "--from", "moved.kap")
    assert there.ok("exec", "-T", "web", "cat", "/html/index.html").out == "changed\n"
    # and everyday commands need no bundle
    assert there.state(f"{name}-web-1") == "running"
    there.ok("up", "-d", "--offline")


def test_a_bundle_may_come_up_under_another_name(kap: Kap, elsewhere: Kap) -> None:
    fill(kap)
    kap.ok("bundle", "save", "--with-secrets", str(elsewhere.folder / "shop.kap"))
    elsewhere.ok("-p", "second", "up", "-d", "--from", "shop.kap", "--to", "two")
    assert elsewhere.ok("-p", "second", "exec", "-T", "app", "cat", "/made").out == "made\n"
    elsewhere.ok("-p", "second", "down", "-v", "-t", "0")


def test_secrets_stay_at_home_unless_asked_for_and_what_is_left_out_is_told(kap: Kap, tmp_path: Path) -> None:
    fill(kap)
    outside = tmp_path / "outside"
    outside.mkdir()
    (kap.folder / "compose.override.yaml").write_text(f"services: {{web: {{volumes: ['{outside}:/out']}}}}\n")
    with (kap.folder / "compose.override.yaml").open("a") as f:
        f.write("x-more: ${MOOD:-calm}\n")
    said = kap.ok("bundle", "save", "here.kap", MOOD="merry", TAG="1.35", OTHER="x")
    assert "left out: variable MOOD: it comes from your environment" in said.err
    assert said.err.count("left out: variable") == 1
    assert "left out: secret key: --with-secrets" in said.err
    assert f"left out: mount of web: {outside} lies outside of the project's folder" in said.err
    told = kap.ok("bundle", "inspect", "here.kap").out
    assert "key.txt" not in told.partition("left out")[0]
    assert "compose.override.yaml" in told
    assert "hidden-71c3" not in (kap.folder / "here.kap").read_bytes().decode("latin-1")
    assert "app/more.txt" not in told  # a built image goes, not what it was built from
    again = kap.ok("bundle", "save", "--build-inputs", "--with-secrets", "here.kap", "app")
    assert "images" in again.out
    told = kap.ok("bundle", "inspect", "here.kap").out
    assert "app/more.txt" in told
    assert "key.txt" in told


def test_a_bundle_is_an_image_layout_with_each_blob_once(kap: Kap) -> None:
    fill(kap)
    (kap.folder / "html/dump.sql.gz").write_bytes(gzip.compress(b"select 1"))  # looks like a layer from afar
    kap.ok("bundle", "save", "shop.kap")
    with tarfile.open(kap.folder / "shop.kap") as tar:
        names = tar.getnames()
    assert {"oci-layout", "index.json", "manifest.json"} <= set(names)
    assert len(names) == len(set(names))
    said = kap.ok("load", "-q", "-i", "shop.kap").out
    assert "Loaded image: busybox:1.35" in said
    skopeo = shutil.which("skopeo")
    if skopeo:
        read = ["inspect", f"docker-archive:{kap.folder}/shop.kap:busybox:1.35"]
        done = subprocess.run([skopeo, *read], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr


def test_a_damaged_bundle_changes_nothing(kap: Kap, elsewhere: Kap) -> None:
    fill(kap)
    kap.ok("bundle", "save", "shop.kap", "web")
    path = elsewhere.folder / "shop.kap"
    data = bytearray((kap.folder / "shop.kap").read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    done = elsewhere("up", "-d", "--from", "shop.kap")
    assert done.code == 1
    assert "is not what its name says [KAP520]" in done.err
    assert [p.name for p in elsewhere.folder.iterdir()] == ["shop.kap"]
    assert elsewhere("bundle", "inspect", "shop.kap").code == 1
    assert elsewhere("up", "--from", "nowhere.kap").err.startswith("error: nowhere.kap can't be read: no such file")


def test_a_load_that_is_killed_leaves_all_or_nothing_and_the_next_one_succeeds(kap: Kap, elsewhere: Kap) -> None:
    fill(kap)
    kap.ok("bundle", "save", "--with-secrets", str(elsewhere.folder / "shop.kap"), "web")
    folder = elsewhere.folder / "out"
    for after in (0.15, 0.3, 0.5, 0.8):
        running = elsewhere.start("bundle", "load", "shop.kap", "--to", "out")
        time.sleep(after)
        running.send_signal(signal.SIGKILL)
        running.communicate(timeout=20)
        assert not folder.exists() or (folder / "web.env").exists()
    wait_until(lambda: elsewhere("bundle", "load", "shop.kap", "--to", "out").code == 0)
    assert sorted(p.name for p in folder.iterdir() if p.name != ".kapelle-bundle") == [
        ".env", "compose.yaml", "conf", "html", "key.txt", "web.env",
    ]  # fmt: skip
    assert not (elsewhere.folder / ".out.kap-bundle").exists()
    (folder / "compose.yaml").unlink()  # nothing to take down


def test_a_save_that_is_killed_leaves_the_old_bundle(kap: Kap) -> None:
    fill(kap)
    kap.ok("bundle", "save", "shop.kap", "web")
    old = (kap.folder / "shop.kap").read_bytes()
    (kap.folder / "html/more").write_bytes(os.urandom(1 << 20))
    for after in (0.2, 0.35):
        running = kap.start("bundle", "save", "shop.kap", "web")
        time.sleep(after)
        running.send_signal(signal.SIGKILL)
        running.communicate(timeout=20)
        new = (kap.folder / "shop.kap").read_bytes()
        assert new == old or len(new) > len(old) + (1 << 20)
    kap.ok("bundle", "save", "shop.kap", "web")
    assert not (kap.folder / "shop.kap.part").exists()
    assert "html/more" in kap.ok("bundle", "inspect", "shop.kap").out


def test_compose_files_above_the_project_keep_their_place(kap: Kap, elsewhere: Kap) -> None:
    sub = kap.folder / "deploy"
    sub.mkdir()
    (kap.folder / "base.yaml").write_text("services: {a: {image: busybox, command: [sleep, '1000'], init: true}}\n")
    (sub / "more.yaml").write_text("services: {a: {environment: {WHERE: '${PLACE}'}}}\n")
    (sub / "x.env").write_text("PLACE=moved\n")
    words = ("-f", "base.yaml", "-f", "deploy/more.yaml", "--env-file", "deploy/x.env", "-p", kap.folder.name.lower())
    kap.ok(*words, "bundle", "save", str(elsewhere.folder / "b.kap"))
    elsewhere.ok("up", "-d", "--from", "b.kap", "--to", "put")
    name = kap.folder.name.lower()
    assert elsewhere.ok("-p", name, "exec", "-T", "a", "sh", "-c", "echo $WHERE").out == "moved\n"
    elsewhere.ok("-p", name, "down", "-t", "0")


def test_flags_that_belong_to_the_bundle_are_refused_beside_it(kap: Kap) -> None:
    kap.file("services: {a: {image: busybox}}\n")
    kap.ok("bundle", "save", "b.kap")
    assert "are the bundle's own" in kap("-f", "compose.yaml", "up", "--from", "b.kap").err
    assert "--to belongs to --from" in kap("up", "--to", "x").err
    assert "needs a file" in kap("bundle", "save").err
