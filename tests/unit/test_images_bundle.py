"""Bundles from strangers: what is refused before anything is written, and what stays inside."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kapelle.errors import ImageError
from kapelle.images.bundle import manifest as manifests
from kapelle.images.bundle import read, write
from kapelle.images.bundle.collect import Collection
from kapelle.images.bundle.manifest import Entry, Manifest, stays_inside
from kapelle.images.store import Store


def quiet(_: object) -> None:
    """Events are of no interest."""


def saved(tmp_path: Path, **changes: Any) -> Path:
    """A bundle without images, of a folder with a compose file."""
    source = tmp_path / "source"
    source.mkdir(exist_ok=True)
    (source / "compose.yaml").write_text("services: {}\n")
    found = Collection(str(source))
    found.add(str(source), "all")
    manifest = Manifest("shop", "", ("compose.yaml",), entries=tuple(found.entries.values()))
    path = tmp_path / "shop.kap"
    write.save(str(path), manifest._replace(**changes), found.sources, Store(str(tmp_path / "store")), quiet)
    return path


def rewritten(path: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    """The bundle with other members."""
    with tarfile.open(path) as tar:
        members = {m.name: tar.extractfile(m).read() for m in tar if m.isfile()}  # type: ignore[union-attr]
    change(members)
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def with_list(path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """The bundle with another list of files, all digests right."""

    def put(members: dict[str, bytes]) -> None:
        index = json.loads(members["index.json"])
        row = next(r for r in index["manifests"] if r.get("artifactType") == write.ARTIFACT)
        artifact = json.loads(members["blobs/" + row["digest"].replace(":", "/")])
        whole = json.loads(members["blobs/" + artifact["config"]["digest"].replace(":", "/")])
        change(whole)
        artifact["config"] = added(members, json.dumps(whole).encode())
        row.update(added(members, json.dumps(artifact).encode()))
        members["index.json"] = json.dumps(index).encode()

    return rewritten(path, put)


def added(members: dict[str, bytes], data: bytes) -> dict[str, Any]:
    digest = hashlib.sha256(data).hexdigest()
    members[f"blobs/sha256/{digest}"] = data
    return {"digest": f"sha256:{digest}", "size": len(data)}


def refused(path: Path) -> str:
    with pytest.raises(ImageError) as e, read.opened(str(path)):
        pass
    assert e.value.code == "KAP520"
    return e.value.what


def test_a_bundle_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = saved(tmp_path, profiles=("dev",), left_out=("something",))
    with read.opened(str(path)) as bundle:
        assert bundle.manifest.project == "shop"
        assert bundle.manifest.profiles == ("dev",)
        assert bundle.manifest.left_out == ("something",)
        assert [e.path for e in bundle.manifest.entries] == ["compose.yaml"]
        assert read.extract(bundle, str(tmp_path / "out"), quiet)
        assert not read.extract(bundle, str(tmp_path / "out"), quiet)  # a second time it is there
    assert (tmp_path / "out/compose.yaml").read_text() == "services: {}\n"
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "entry",
    [
        {"path": "../x", "kind": "dir"},
        {"path": "/etc/x", "kind": "dir"},
        {"path": "a/../../x", "kind": "dir"},
        {"path": "a//b", "kind": "dir"},
        {"path": ".", "kind": "dir"},
        {"path": "", "kind": "dir"},
        {"path": "a\0b", "kind": "dir"},
        {"path": "x", "kind": "device"},
        {"path": "x", "kind": "dir", "mode": 0o4755},
        {"path": "x", "kind": "dir", "mode": -1},
        {"path": "x", "kind": "dir", "mode": "7"},
        {"path": "x", "kind": "link", "target": "/etc/passwd"},
        {"path": "x", "kind": "link", "target": "../x"},
        {"path": "a/x", "kind": "link", "target": "b/../../../c"},
        {"path": "x", "kind": "file", "digest": "sha256:../../../etc/passwd"},
        {"path": "x", "kind": "file", "digest": "sha256:" + "0" * 64},
        {"path": "compose.yaml", "kind": "dir"},
        {"path": "compose.yaml/x", "kind": "dir"},
        {"path": 7, "kind": "dir"},
    ],
    ids=str,
)
def test_entries_that_no_bundle_has_are_refused_before_anything_is_written(
    tmp_path: Path, entry: dict[str, Any]
) -> None:
    path = with_list(saved(tmp_path), lambda whole: whole["entries"].append(entry))
    assert "is not a bundle that can be used" in refused(path)


def test_nothing_lies_below_a_link(tmp_path: Path) -> None:
    def change(whole: dict[str, Any]) -> None:
        whole["entries"] += [{"path": "a", "kind": "link", "target": "b"}, {"path": "a/x", "kind": "dir"}]

    assert "below something that is no folder" in refused(with_list(saved(tmp_path), change))


@pytest.mark.parametrize(
    "change",
    [
        lambda whole: whole.update(version=2),
        lambda whole: whole.update(version=True),
        lambda whole: whole.update(project="../up"),
        lambda whole: whole.update(directory="../up"),
        lambda whole: whole.update(files=["/etc/compose.yaml"]),
        lambda whole: whole.update(files=["other.yaml"]),
        lambda whole: whole.update(env_files=["../.env"]),
        lambda whole: whole.update(entries={}),
        lambda whole: whole["entries"][0].update(size=1),
        lambda whole: whole.update(images=[{"name": "x", "id": "sha256:" + "1" * 64}]),
        lambda whole: whole.update(images=[{"name": "x", "id": "nonsense"}]),
        lambda whole: whole.update(images=[{"name": "../x", "id": "sha256:" + "1" * 64}]),
        lambda whole: whole.update(left_out=["\x1b]0;owned\x07"]),
    ],
    ids=range(13),
)
def test_a_list_that_says_what_is_not_so_is_refused(tmp_path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    refused(with_list(saved(tmp_path), change))


def test_a_blob_that_is_not_what_its_name_says_is_refused(tmp_path: Path) -> None:
    def change(members: dict[str, bytes]) -> None:
        name = next(n for n, data in members.items() if data == b"services: {}\n")
        members[name] = b"services: []\n"

    assert "is not what its name says" in refused(rewritten(saved(tmp_path), change))


@pytest.mark.parametrize("name", ["../evil", "/evil", "blobs/sha256/../../x", "evil", "blobs/sha256/" + "A" * 64])
def test_members_with_other_names_are_refused(tmp_path: Path, name: str) -> None:
    path = rewritten(saved(tmp_path), lambda members: members.update({name: b"x"}))
    assert "something that no bundle has" in refused(path)


def test_links_in_the_archive_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path)
    with tarfile.open(path, "a") as tar:
        info = tarfile.TarInfo("oci-layout")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(info)
    assert "something that no bundle has" in refused(path)


def test_images_under_names_that_the_project_does_not_use_are_refused(tmp_path: Path) -> None:
    def change(members: dict[str, bytes]) -> None:
        config = added(members, b"{}")["digest"].replace(":", "/")
        rows = [{"Config": f"blobs/{config}", "RepoTags": ["postgres:16"], "Layers": []}]
        members["manifest.json"] = json.dumps(rows).encode()

    assert "a name that its project does not use" in refused(rewritten(saved(tmp_path), change))


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_a_bundle_that_is_cut_off_is_refused(tmp_path: Path, part: float) -> None:
    path = saved(tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    refused(path)


@pytest.mark.parametrize("data", [b"", b"nonsense", b"\0" * 1024, b"x" * 4096])
def test_what_is_no_archive_is_no_bundle(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.kap"
    path.write_bytes(data)
    refused(path)


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine").write_text("work")
    with read.opened(str(saved(tmp_path))) as bundle, pytest.raises(ImageError, match="has other files"):
        read.extract(bundle, str(out), quiet)
    assert [p.name for p in out.iterdir()] == ["mine"]


def test_an_empty_folder_is_filled_and_what_a_killed_one_left_goes(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / ".out.kap-bundle").mkdir()
    (tmp_path / ".out.kap-bundle/half").write_text("made")
    with read.opened(str(saved(tmp_path))) as bundle:
        assert read.extract(bundle, str(tmp_path / "out"), quiet)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [read.MARK, "compose.yaml"]
    assert not (tmp_path / ".out.kap-bundle").exists()


def test_what_a_killed_save_left_is_no_hindrance(tmp_path: Path) -> None:
    (tmp_path / "shop.kap.part").write_bytes(b"x" * 100_000)
    with read.opened(str(saved(tmp_path))) as bundle:
        assert bundle.manifest.project == "shop"
    assert not (tmp_path / "shop.kap.part").exists()


def test_the_same_content_is_in_it_once(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in "abc":
        (source / name).write_bytes(b"same" * 50_000)
    path = saved(tmp_path)
    with tarfile.open(path) as tar:
        names = tar.getnames()
    assert len(names) == len(set(names))
    assert path.stat().st_size < 300_000


def test_links_that_leave_and_odd_files_are_left_out_and_told(tmp_path: Path) -> None:
    import os

    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "sub/in").symlink_to("../compose.yaml")
    (source / "sub/out").symlink_to("../../secret")
    (source / "absolute").symlink_to("/etc/passwd")
    os.mkfifo(source / "pipe")
    found = Collection(str(source))
    found.add(str(source), "all")
    assert {e.path: e.kind for e in found.entries.values()} == {"sub": "dir", "sub/in": "link"}
    assert len(found.left_out) == 3
    found.add("/etc/hostname", "mount of web")
    assert found.left_out[-1].startswith("mount of web: /etc/hostname lies outside")


def test_a_file_that_changes_while_it_is_saved_is_told(tmp_path: Path) -> None:
    source = tmp_path / "f"
    source.write_text("before")
    found = Collection(str(tmp_path))
    found.add(str(source), "file")
    source.write_text("after!")
    manifest = Manifest("shop", "", (), entries=tuple(found.entries.values()))
    with pytest.raises(ImageError, match="was changed while it was saved"):
        write.save(str(tmp_path / "b"), manifest, found.sources, Store(str(tmp_path / "store")), quiet)
    assert not (tmp_path / "b").exists()
    assert not (tmp_path / "b.part").exists()


@pytest.mark.parametrize(
    ("path", "target", "inside"),
    [
        ("a", "b", True), ("a/b", "../c", True), ("a", "..", False), ("a", "../b", False), ("a", "/b", False),
        ("a", "", False), ("a/b", "../../c", False), ("a", "x/../../y", False), ("a", "./b", True),
    ],
)  # fmt: skip
def test_links_stay_inside(path: str, target: str, inside: bool) -> None:
    assert stays_inside(path, target) is inside


def test_the_list_is_the_same_for_the_same_files() -> None:
    rows = (Entry("b", "dir", 0o755), Entry("a", "dir", 0o700))
    assert manifests.dump(Manifest("p", "", (), entries=rows)) == manifests.dump(
        Manifest("p", "", (), entries=rows[::-1])
    )
