"""Images from a real registry on loopback (Debian's docker-registry), filled by skopeo."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from kapelle.errors import ImageError
from kapelle.events import Event
from kapelle.images import mirrors
from kapelle.images.archive import load
from kapelle.images.archivewrite import save
from kapelle.images.pull import Unreachable, pull
from kapelle.images.store import Store
from kapelle.state.paths import find
from tests import registry

pytestmark = pytest.mark.skipif(not shutil.which("skopeo"), reason="needs skopeo (Debian) to fill the registry")


def archive(folder: Path, files: dict[str, str], name: str = "app:1") -> Path:
    """A docker archive with one layer."""
    layer = folder / "layer.tar"
    with tarfile.open(layer, "w") as tar:
        for path, text in files.items():
            source = folder / "file"
            source.write_text(text)
            tar.add(source, path)
    digest = hashlib.sha256(layer.read_bytes()).hexdigest()
    arch = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
    config = {"architecture": arch, "os": "linux", "config": {"Cmd": ["/x"]}}
    config["rootfs"] = {"type": "layers", "diff_ids": [f"sha256:{digest}"]}
    text = json.dumps(config).encode()
    config_name = hashlib.sha256(text).hexdigest() + ".json"
    (folder / config_name).write_bytes(text)
    rows = [{"Config": config_name, "RepoTags": [name], "Layers": ["layer.tar"]}]
    (folder / "manifest.json").write_text(json.dumps(rows))
    whole = folder / "image.tar"
    with tarfile.open(whole, "w") as tar:
        for part in ("manifest.json", config_name, "layer.tar"):
            tar.add(folder / part, part)
    return whole


class Place:
    def __init__(self, folder: Path, address: str) -> None:
        self.folder = folder
        self.address = address
        self.store = Store(str(folder / "images"))
        self.events: list[Event] = []
        self.paths = find({"KAP_HOME": str(folder)})

    def push(self, files: dict[str, str], name: str) -> None:
        work = self.folder / "work"
        work.mkdir(exist_ok=True)
        command = ["skopeo", "copy", "--dest-tls-verify=false", "--insecure-policy"]
        source, target = f"docker-archive:{archive(work, files)}", f"docker://{self.address}/{name}"
        subprocess.run([*command, source, target], check=True, capture_output=True)
        shutil.rmtree(work)

    def pull(self, name: str, **environ: str) -> str:
        image = pull(name, self.store, mirrors.settings(environ, self.paths), self.events.append, policy="always")
        return self.store.layer_dirs(image)[0]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with registry.running(tmp_path / "registry") as address:
        yield Place(tmp_path, address)


def test_an_image_is_pulled_from_a_registry_on_loopback_over_plain_http(place: Place) -> None:
    place.push({"hello": "from the registry"}, "app:1")
    layer = place.pull(f"{place.address}/app:1")
    assert Path(layer, "hello").read_text() == "from the registry"


def test_a_mirror_stands_in_for_the_default_registry(place: Place) -> None:
    place.push({"hello": "mirrored"}, "library/app:1")
    layer = place.pull("app:1", KAP_MIRRORS=f"docker.io=http://{place.address}")
    assert Path(layer, "hello").read_text() == "mirrored"


def test_a_second_pull_of_a_changed_tag_brings_the_new_image(place: Place) -> None:
    place.push({"hello": "one"}, "app:1")
    place.pull(f"{place.address}/app:1")
    place.push({"hello": "two"}, "app:1")
    assert Path(place.pull(f"{place.address}/app:1"), "hello").read_text() == "two"


def test_a_corrupted_layer_is_refused_and_nothing_is_kept(place: Place) -> None:
    place.push({"hello": "x" * 5000}, "app:1")
    blobs = list((place.folder / "registry/data").rglob("data"))
    largest = max(blobs, key=lambda p: p.stat().st_size)
    for blob in blobs:  # the layer is the one gzip stream
        if blob.read_bytes()[:2] == b"\x1f\x8b":
            largest = blob
    largest.write_bytes(largest.read_bytes()[:-3] + b"bad")
    with pytest.raises(ImageError):
        place.pull(f"{place.address}/app:1")
    assert place.store.find(f"{place.address}/app:1") is None


def test_a_name_that_no_registry_has_is_not_found_which_is_not_unreachable(place: Place) -> None:
    with pytest.raises(ImageError) as caught:
        place.pull(f"{place.address}/nothing:1")
    assert not isinstance(caught.value, Unreachable)


def test_a_registry_that_does_not_answer_is_unreachable(place: Place) -> None:
    port = registry.free_port()
    with pytest.raises(Unreachable):
        place.pull(f"127.0.0.1:{port}/app:1")


def test_an_archive_of_docker_save_form_loads_and_saves_again(place: Place) -> None:
    work = place.folder / "work"
    work.mkdir()
    images = load(str(archive(work, {"hello": "archived"}, "old:2")), place.store, place.events.append)
    assert [n for i in images for n in i.names] == ["docker.io/library/old:2"]
    again = place.folder / "again.tar"
    with again.open("wb") as f:
        save(["old:2"], f, place.store)
    other = Store(str(place.folder / "other"))
    back = load(str(again), other, place.events.append)
    assert back[0].id == images[0].id
    assert Path(other.layer_dirs(back[0])[0], "hello").read_text() == "archived"


def test_skopeo_reads_what_is_saved(place: Place) -> None:
    work = place.folder / "work"
    work.mkdir()
    load(str(archive(work, {"hello": "archived"}, "old:2")), place.store, place.events.append)
    saved = place.folder / "saved.tar"
    with saved.open("wb") as f:
        save(["old:2"], f, place.store)
    done = subprocess.run(["skopeo", "inspect", f"docker-archive:{saved}"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["Architecture"]


def test_skopeo_inspects_the_store_itself(place: Place) -> None:
    work = place.folder / "work"
    work.mkdir()
    load(str(archive(work, {"hello": "archived"}, "old:2")), place.store, place.events.append)
    command = ["skopeo", "inspect", "--config", f"oci:{place.store.root}:old:2"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["config"]["Cmd"] == ["/x"]
    place.store.untag("old:2")
    assert subprocess.run(command, capture_output=True, check=False).returncode != 0
