"""Archives as the tools of others write them: made here in the style of each, and by the tools themselves."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kapelle.errors import ImageError
from kapelle.images.archive import load
from kapelle.images.store import Store
from kapelle.images.types import Image
from tests.badregistry import ARCH, digest, layer

LOWER, UPPER = layer({"etc/name": b"lower"}), layer({"etc/other": b"upper " * 900})
NAME = "docker.io/library/app:1"
Files = dict[str, bytes]


def config() -> bytes:
    return json.dumps(
        {
            "architecture": ARCH,
            "os": "linux",
            "config": {"Cmd": ["/x"]},
            "rootfs": {"type": "layers", "diff_ids": [digest(LOWER), digest(UPPER)]},
        }
    ).encode()


def blob(data: bytes) -> str:
    return f"blobs/sha256/{digest(data)[7:]}"


def described(data: bytes, kind: str) -> dict[str, Any]:
    return {"mediaType": kind, "digest": digest(data), "size": len(data)}


def manifest(layers: tuple[bytes, ...], kind: str = "oci", suffix: str = "+gzip") -> bytes:
    types = {
        "oci": ("application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.config.v1+json",
                f"application/vnd.oci.image.layer.v1.tar{suffix}"),
        "docker": ("application/vnd.docker.distribution.manifest.v2+json",
                   "application/vnd.docker.container.image.v1+json",
                   f"application/vnd.docker.image.rootfs.diff.tar{suffix.replace('+', '.')}"),
    }[kind]  # fmt: skip
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": types[0],
            "config": described(config(), types[1]),
            "layers": [described(data, types[2]) for data in layers],
        }
    ).encode()


def docker_classic() -> tuple[Files, dict[str, str]]:
    """docker save up to 24: a folder per layer; a layer that is there twice is a link."""
    files = {
        f"{digest(config())[7:]}.json": config(),
        "manifest.json": json.dumps(
            [
                {
                    "Config": f"{digest(config())[7:]}.json",
                    "RepoTags": ["app:1"],
                    "Layers": [f"{'a' * 64}/layer.tar", f"{'b' * 64}/layer.tar"],
                }
            ]
        ).encode(),
        "repositories": b'{"app":{"1":"' + b"b" * 64 + b'"}}',
        f"{'a' * 64}/VERSION": b"1.0",
        f"{'a' * 64}/json": b"{}",
        f"{'b' * 64}/layer.tar": UPPER,
        f"{'c' * 64}/layer.tar": LOWER,
    }
    return files, {f"{'a' * 64}/layer.tar": f"../{'c' * 64}/layer.tar"}


def docker_with_layout(layers: tuple[bytes, ...], suffix: str) -> tuple[Files, dict[str, str]]:
    """docker save since 25: an OCI layout, with plain layers or (containerd's store) as they were pulled."""
    text = manifest(layers, suffix=suffix)
    row = described(text, "application/vnd.oci.image.manifest.v1+json")
    notes = {"io.containerd.image.name": NAME, "org.opencontainers.image.ref.name": "1"}
    files = {
        blob(config()): config(),
        blob(text): text,
        **{blob(data): data for data in layers},
        "index.json": json.dumps({"schemaVersion": 2, "manifests": [{**row, "annotations": notes}]}).encode(),
        "manifest.json": json.dumps(
            [{"Config": blob(config()), "RepoTags": ["app:1"], "Layers": [blob(data) for data in layers]}]
        ).encode(),
        "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
    }
    return files, {}


def oci_layout(kind: str = "oci") -> tuple[Files, dict[str, str]]:
    """skopeo copy oci: and oci-archive:, podman save --format oci-archive and oci-dir."""
    packed = tuple(gzip.compress(data, mtime=0) for data in (LOWER, UPPER))
    text = manifest(packed, kind)
    row = described(text, json.loads(text)["mediaType"])
    notes = {"org.opencontainers.image.ref.name": NAME}
    files = {
        blob(config()): config(),
        blob(text): text,
        **{blob(data): data for data in packed},
        "index.json": json.dumps({"schemaVersion": 2, "manifests": [{**row, "annotations": notes}]}).encode(),
        "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
    }
    return files, {}


def flat(suffix: str = "+gzip") -> tuple[Files, dict[str, str]]:
    """skopeo copy dir:, podman save --format docker-dir."""
    layers = tuple(gzip.compress(data, mtime=0) if suffix else data for data in (LOWER, UPPER))
    files = {
        "version": b"Directory Transport Version: 1.1\n",
        "manifest.json": manifest(layers, "docker", suffix),
        digest(config())[7:]: config(),
        **{digest(data)[7:]: data for data in layers},
    }
    return files, {}


def podman_archive() -> tuple[Files, dict[str, str]]:
    """podman save: layers by diff-ID, a link in a folder of old for each."""
    files = {
        f"{digest(LOWER)[7:]}.tar": LOWER,
        f"{digest(UPPER)[7:]}.tar": UPPER,
        f"{digest(config())[7:]}.json": config(),
        "repositories": b"{}",
        "manifest.json": json.dumps(
            [
                {
                    "Config": f"{digest(config())[7:]}.json",
                    "RepoTags": [NAME],
                    "Layers": [f"{digest(LOWER)[7:]}.tar", f"{digest(UPPER)[7:]}.tar"],
                }
            ]
        ).encode(),
    }
    return files, {f"{'d' * 64}/layer.tar": f"../{digest(LOWER)[7:]}.tar"}


PACKED = tuple(gzip.compress(data, mtime=0) for data in (LOWER, UPPER))
STYLES: dict[str, Callable[[], tuple[Files, dict[str, str]]]] = {
    "docker 20": docker_classic,
    "docker 25": lambda: docker_with_layout((LOWER, UPPER), ""),
    "docker 28 with containerd": lambda: docker_with_layout(PACKED, "+gzip"),
    "podman": podman_archive,
    "oci": oci_layout,
    "oci, docker's types": lambda: oci_layout("docker"),
    "dir": flat,
    "dir, plain": lambda: flat(""),
}


def write_tar(files: Files, links: dict[str, str], path: Path) -> None:
    with tarfile.open(path, "w") as tar:
        for name, target in links.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            tar.addfile(info)
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def is_it(store: Store, image: Image, *, named: bool = True) -> None:
    assert image.names == ((NAME,) if named else ())
    assert image.layers == (digest(LOWER), digest(UPPER))
    assert image.id == digest(config())
    assert Path(store.layer_dirs(image)[0], "etc/name").read_bytes() == b"lower"
    record = store.record(image.id)
    assert record is not None
    assert store.known_manifest(image.id) is not None, "not all of its layers are kept"


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("form", ["file", "folder", "gzip"])
def test_an_archive_of_that_style_loads(tmp_path: Path, style: str, form: str) -> None:
    files, links = STYLES[style]()
    source = tmp_path / "archive"
    if form == "folder":
        for name, data in files.items():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes(data)
        for name, target in links.items():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).symlink_to(target)
    else:
        write_tar(files, links, source)
        if form == "gzip":
            source.write_bytes(gzip.compress(source.read_bytes()))
    store = Store(str(tmp_path / "images"))
    image = load(str(source), store, lambda _: None)[0]
    is_it(store, image, named=not style.startswith("dir"))


@pytest.mark.parametrize("style", ["docker 28 with containerd", "oci", "oci, docker's types", "dir", "dir, plain"])
def test_a_manifest_of_an_archive_stays_to_the_letter(tmp_path: Path, style: str) -> None:
    files, links = STYLES[style]()
    write_tar(files, links, tmp_path / "archive")
    store = Store(str(tmp_path / "images"))
    image = load(str(tmp_path / "archive"), store, lambda _: None)[0]
    record = store.record(image.id)
    assert record is not None
    given = [d for d in files.values() if d.startswith(b"{") and b'"layers"' in d and b'"diff_ids"' not in d]
    assert [digest(d) for d in given] == [record["manifest"]]


def test_a_flat_folder_whose_blob_is_another_is_refused(tmp_path: Path) -> None:
    files, _ = flat()
    folder = tmp_path / "flat"
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    (folder / digest(config())[7:]).write_bytes(config().replace(b"/x", b"/y"))
    store = Store(str(tmp_path / "images"))
    with pytest.raises(ImageError, match="digest is not what the image says"):
        load(str(folder), store, lambda _: None)
    assert store.all() == []


# -- by the tools themselves --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("original") / "image.tar"
    write_tar(podman_archive()[0], {}, path)
    return path


def run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done


def needs(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"needs {program}")
    return found


@pytest.mark.skipif(os.geteuid() != 0, reason="podman's store here is root's")
@pytest.mark.parametrize("form", ["docker-archive", "oci-archive", "docker-dir", "oci-dir"])
def test_what_podman_saves_loads(tmp_path: Path, original: Path, form: str, request: pytest.FixtureRequest) -> None:
    place = tempfile.mkdtemp(prefix="kap-p-")  # its paths must be short
    request.addfinalizer(lambda: shutil.rmtree(place, ignore_errors=True))
    podman = [needs("podman"), "--storage-driver", "vfs", "--root", f"{place}/p", "--runroot", f"{place}/r"]
    run(*podman, "load", "-q", "-i", str(original))
    run(*podman, "save", "-q", "--format", form, "-o", str(tmp_path / "saved"), NAME)
    store = Store(str(tmp_path / "images"))
    image = load(str(tmp_path / "saved"), store, lambda _: None)[0]
    assert image.layers == (digest(LOWER), digest(UPPER))
    assert image.names == (() if form == "docker-dir" else (NAME,))
    assert store.known_manifest(image.id) is not None


def test_what_docker_saves_loads(tmp_path: Path, original: Path) -> None:
    docker = needs("docker")
    if subprocess.run([docker, "info"], capture_output=True, timeout=30, check=False).returncode:
        pytest.skip("no dockerd answers")
    ours = f"kap-test-{hashlib.sha256(str(tmp_path).encode()).hexdigest()[:8]}:1"
    files, links = docker_classic()
    files["manifest.json"] = files["manifest.json"].replace(b"app:1", ours.encode())
    del files["repositories"]
    write_tar(files, links, tmp_path / "in.tar")
    run(docker, "load", "-q", "-i", str(tmp_path / "in.tar"))
    try:
        run(docker, "save", "-o", str(tmp_path / "saved"), ours)
    finally:
        run(docker, "rmi", ours)
    store = Store(str(tmp_path / "images"))
    image = load(str(tmp_path / "saved"), store, lambda _: None)[0]
    assert image.id == digest(config())
    assert image.names == (f"docker.io/library/{ours}",)


@pytest.mark.parametrize("form", ["oci", "oci-archive", "dir", "docker-archive"])
def test_what_skopeo_copies_loads(tmp_path: Path, original: Path, form: str) -> None:
    skopeo = needs("skopeo")
    target = {"dir": ""}.get(form, f":{NAME}")
    saved = f"{form}:{tmp_path / 'saved'}{target}"
    run(skopeo, "copy", "-q", "--insecure-policy", f"docker-archive:{original}", saved)
    store = Store(str(tmp_path / "images"))
    image = load(str(tmp_path / "saved"), store, lambda _: None)[0]
    assert image.layers == (digest(LOWER), digest(UPPER))
    assert image.names == (() if form == "dir" else (NAME,))
    assert store.known_manifest(image.id) is not None
