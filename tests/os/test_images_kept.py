"""Layers kept as they came: what skopeo reads from the store's folder, and what a push sends again."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from kapelle.errors import ImageError
from kapelle.images import keeping
from kapelle.images.archive import load
from kapelle.images.archivewrite import save
from kapelle.images.store import Store
from tests.os.test_images_push import Place, inspect, open_registry, place
from tests.os.test_images_registry import archive

__all__ = ["open_registry", "place"]
pytestmark = pytest.mark.skipif(not shutil.which("skopeo"), reason="needs skopeo (Debian)")

QUIET = ("skopeo", "copy", "-q", "--insecure-policy")


def skopeo(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*QUIET, *words], capture_output=True, text=True, check=False)


def fill(place: Place, address: str, *words: str, text: str = "kept " * 4000) -> None:
    """Put an image into a registry, as skopeo does it."""
    work = place.folder / "fill"
    work.mkdir()
    source = f"docker-archive:{archive(work, {'hello': text})}"
    done = skopeo("--dest-tls-verify=false", *words, source, f"docker://{address}")
    assert done.returncode == 0, done
    shutil.rmtree(work)


def layer_digests(manifest: dict[str, Any]) -> list[str]:
    return [row["digest"] for row in manifest["layers"]]


def shown(store: Store) -> list[str]:
    index = json.loads(Path(store.root, "index.json").read_bytes())
    return [row["annotations"]["org.opencontainers.image.ref.name"] for row in index["manifests"]]


def blob_files(store: Store) -> set[str]:
    return {f"sha256:{name}" for name in os.listdir(f"{store.root}/blobs/sha256")}


def plain_layout(folder: Path) -> Path:
    """An OCI layout whose layer is not packed."""
    archive(folder, {"hello": "plain " * 2000})
    layout = folder / "layout"
    blobs = layout / "blobs/sha256"
    blobs.mkdir(parents=True)

    def put(data: bytes, kind: str) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}", "size": len(data)}

    layer = put((folder / "layer.tar").read_bytes(), "layer.v1.tar")
    config = put(next(p for p in folder.glob("*.json") if len(p.stem) == 64).read_bytes(), "config.v1+json")
    row = put(json.dumps({"schemaVersion": 2, "config": config, "layers": [layer]}).encode(), "manifest.v1+json")
    row["annotations"] = {"io.containerd.image.name": "docker.io/library/plain:1"}
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [row]}))
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return layout


@pytest.mark.parametrize(
    "words",
    [
        ("--format", "v2s2"),
        ("--format", "oci"),
        ("--format", "oci", "--dest-compress-format", "zstd"),
    ],
    ids=["docker", "gzip", "zstd"],
)
def test_a_pulled_image_goes_to_another_registry_to_the_letter_and_skopeo_copies_it(
    place: Place, open_registry: str, words: tuple[str, ...]
) -> None:
    # given an image of that form in a registry
    name = f"{open_registry}/theirs:1"
    fill(place, name, *words)
    theirs = inspect(name, "--raw")
    digest = inspect(name)["Digest"]
    # when it is pulled
    store = Store(str(place.folder / "puller"))
    image_id = place.pull(name, store)
    # then skopeo finds it in the store's folder, manifest and layers
    target = place.folder / "copied"
    done = skopeo(f"oci:{store.root}:{name}", f"dir:{target}")
    assert done.returncode == 0, done
    for digest_of_layer in layer_digests(theirs):
        assert (target / digest_of_layer[7:]).is_file()
    # and a registry that has never seen it gets the same
    place.store = store
    with_registry = f"{open_registry}/ours:1"
    shutil.rmtree(place.folder / "registry/data/docker/registry/v2")  # what was there is gone: all is sent
    store.tag(with_registry, image_id)
    assert place.push(with_registry).digest == digest
    assert inspect(with_registry, "--raw") == theirs


def test_a_loaded_archive_is_there_for_skopeo(place: Place) -> None:
    place.image("old:2")
    done = skopeo(f"oci:{place.store.root}:old:2", f"dir:{place.folder}/copied")
    assert done.returncode == 0, done
    place.store.untag("old:2")
    assert shown(place.store) == []


def test_a_layout_with_plain_layers_goes_out_as_it_came(place: Place, open_registry: str, tmp_path: Path) -> None:
    work = tmp_path / "in"
    work.mkdir()
    layout = plain_layout(work)
    digest = json.loads((layout / "index.json").read_bytes())["manifests"][0]["digest"]
    image = load(str(layout), place.store, place.events.append)[0]
    place.store.tag(f"{open_registry}/plain:1", image.id)
    assert place.push(f"{open_registry}/plain:1").digest == digest
    assert skopeo(f"oci:{place.store.root}:plain:1", f"dir:{tmp_path}/copied").returncode == 0


@pytest.mark.parametrize("form", ["oci", "v2s2"])
def test_a_saved_image_keeps_its_manifest_wherever_it_is_loaded(place: Place, open_registry: str, form: str) -> None:
    name = f"{open_registry}/app:1"
    fill(place, name, "--format", form)
    here, there = Store(str(place.folder / "here")), Store(str(place.folder / "there"))
    image_id = place.pull(name, here)
    saved = place.folder / "saved.tar"
    with saved.open("wb") as f:
        save([name], f, here)
    load(str(saved), there, place.events.append)
    one, two = here.record(image_id), there.record(image_id)
    assert one is not None
    assert two is not None
    assert one["manifest"] == two["manifest"] == inspect(name)["Digest"]
    for kind in ["docker-archive"] + ["oci-archive"] * (os.geteuid() == 0):  # skopeo gives what it reads to root
        done = skopeo(f"{kind}:{saved}", f"dir:{place.folder}/{kind}")
        assert done.returncode == 0, done


def test_without_layer_archives_nothing_is_kept_nothing_is_shown_and_all_works(
    place: Place, open_registry: str
) -> None:
    name = f"{open_registry}/app:1"
    fill(place, name)
    store = keeping.store(place.paths, {"KAP_KEEP_LAYER_ARCHIVES": "no"})
    image_id = place.pull(name, store)
    record = store.record(image_id)
    assert record is not None
    small = {image_id, record["manifest"], record["layout"]}
    assert blob_files(store) == small
    assert shown(store) == []
    store.tag(f"{open_registry}/again:1", image_id)
    place.store = store
    place.push(f"{open_registry}/again:1")
    assert blob_files(store) == small


def test_what_is_said_of_layer_archives_must_be_yes_or_no(place: Place) -> None:
    config = Path(place.paths.config)
    config.mkdir(parents=True, exist_ok=True)
    (config / "config.toml").write_text("[images]\nkeep_layer_archives = false\n")
    assert not keeping.store(place.paths, {}).keeps_archives
    assert keeping.store(place.paths, {"KAP_KEEP_LAYER_ARCHIVES": "true"}).keeps_archives
    (config / "config.toml").write_text('[images]\nkeep_layer_archives = "maybe"\n')
    with pytest.raises(ImageError, match="neither true nor false") as caught:
        _ = keeping.store(place.paths, {}).keeps_archives
    assert "config.toml" in caught.value.what
    with pytest.raises(ImageError, match="KAP_KEEP_LAYER_ARCHIVES"):
        _ = keeping.store(place.paths, {"KAP_KEEP_LAYER_ARCHIVES": "perhaps"}).keeps_archives


def test_a_blob_goes_with_its_image_and_stays_while_another_has_it(place: Place, open_registry: str) -> None:
    name = f"{open_registry}/app:1"
    fill(place, name)
    store = Store(str(place.folder / "puller"))
    image = store.find(place.pull(name, store))
    assert image is not None
    layer = layer_digests(inspect(name, "--raw"))[0]
    other = store.put_image({"config": {"Cmd": ["/other"]}}, image.layers, ("other:1",))
    store.remove(image.id)
    assert layer in blob_files(store)
    assert shown(store) == ["other:1"]
    size = os.stat(f"{store.root}/blobs/sha256/{layer[7:]}").st_size
    assert store.remove(other.id).freed >= size + len("kept " * 4000)
    assert blob_files(store) == set()


def test_a_layer_that_a_container_has_keeps_its_blob(place: Place, open_registry: str) -> None:
    name = f"{open_registry}/app:1"
    fill(place, name)
    store = Store(str(place.folder / "puller"))
    image = store.find(place.pull(name, store))
    assert image is not None
    layer = layer_digests(inspect(name, "--raw"))[0]
    in_use = frozenset(image.layers)
    store.remove(image.id, lambda: in_use)
    store.gc(lambda: in_use)
    assert blob_files(store) == {layer}
    place.pull(name, store)  # the layer is here, so is its blob
    assert shown(store) == [name]
    assert skopeo(f"oci:{store.root}:{name}", f"dir:{place.folder}/copied").returncode == 0


def test_a_blob_that_is_not_whole_is_not_shown_and_not_sent(place: Place, open_registry: str) -> None:
    name = f"{open_registry}/app:1"
    fill(place, name)
    store = Store(str(place.folder / "puller"))
    image_id = place.pull(name, store)
    layer = layer_digests(inspect(name, "--raw"))[0]
    os.truncate(f"{store.root}/blobs/sha256/{layer[7:]}", 10)
    store.show()
    assert shown(store) == []
    place.store = store
    shutil.rmtree(place.folder / "registry/data/docker/registry/v2")
    store.tag(f"{open_registry}/ours:1", image_id)
    place.push(f"{open_registry}/ours:1")
    assert f"{open_registry}/ours:1" in shown(store)  # as it was packed for the push
    assert place.pull(f"{open_registry}/ours:1") == image_id


def test_a_store_of_before_goes_on_working_and_a_push_makes_it_whole(place: Place, open_registry: str) -> None:
    name = f"{open_registry}/app:1"
    image_id = place.image(name)
    image = place.store.find(image_id)
    assert image is not None
    for digest in blob_files(place.store):  # as if layers had never been kept
        data = Path(place.store.root, "blobs/sha256", digest[7:]).read_bytes()
        if data[:2] == b"\x1f\x8b":
            os.unlink(f"{place.store.root}/blobs/sha256/{digest[7:]}")
    place.store.show()
    assert shown(place.store) == []
    first = place.push(name).digest
    assert shown(place.store) == [name]
    assert place.push(name).digest == first == inspect(name)["Digest"]


def test_a_hostile_blob_takes_no_more_room_than_its_manifest_says(place: Place, open_registry: str) -> None:
    name = f"{open_registry}/app:1"
    fill(place, name)
    layer = layer_digests(inspect(name, "--raw"))[0]
    data = place.folder / f"registry/data/docker/registry/v2/blobs/sha256/{layer[7:9]}/{layer[7:]}/data"
    with data.open("ab") as f:
        f.write(b"\0" * (1 << 20))
    store = Store(str(place.folder / "puller"))
    with pytest.raises(ImageError):
        place.pull(name, store)
    assert store.listed("blobs/sha256") == []
    assert store.listed("tmp") == []


def test_an_import_is_there_for_skopeo(place: Place) -> None:
    from kapelle.images.archive import import_layer

    source = place.folder / "root.tar"
    with tarfile.open(source, "w") as tar:
        tar.addfile(tarfile.TarInfo("empty"))
    with source.open("rb") as f:
        import_layer(f, "root.tar", place.store, "made:1", created="2024-01-01T00:00:00Z", comment="")
    assert shown(place.store) == ["made:1"]
    assert skopeo(f"oci:{place.store.root}:made:1", f"dir:{place.folder}/copied").returncode == 0
