"""A copied root: what has changed in it, as a layer, gives the same tree again over the layers that were copied."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from kapelle.engines.native import fuse, stacking, treecopy
from kapelle.events import Event, Notice
from kapelle.images import trees
from kapelle.images.build.rootfs import Rootfs
from kapelle.state.paths import find

Row = tuple[str, int, int, int, bytes]


def seen(layers: tuple[str, ...]) -> list[Row]:
    rows = []
    for entry in Rootfs(layers).walk(""):
        content = b""
        if stat.S_ISREG(entry.info.st_mode):
            content = Path(entry.real).read_bytes()
        elif stat.S_ISLNK(entry.info.st_mode):
            content = os.fsencode(os.readlink(entry.real))
        rows.append((entry.path.lstrip("/"), entry.info.st_mode, entry.info.st_uid, entry.info.st_mtime_ns, content))
    return rows


def layers(place: Path) -> tuple[str, ...]:
    low, high = place / "low", place / "high"
    for folder in (low / "d" / "deep", low / "hidden", high / "d", high / "hidden"):
        folder.mkdir(parents=True)
    for name in ("a", "b", "d/x", "d/y", "d/deep/z", "hidden/old"):
        (low / name).write_text(name)
    (low / "link").symlink_to("a")
    os.link(low / "a", low / "hard")
    (high / "b").write_text("newer")
    (high / "hidden" / "new").write_text("new")
    for name, mark in (("d", "x"), ("hidden", "")):
        fd = os.open(high / name, os.O_RDONLY)
        trees.make_whiteout(mark.encode(), fd) if mark else trees.set_opaque(fd)
        os.close(fd)
    os.utime(low / "a", ns=(1, 1))
    return str(low), str(high)


def test_a_copy_is_what_the_layers_show_and_its_changes_are_few(tmp_path: Path) -> None:
    base = layers(tmp_path)
    tree, into = tmp_path / "tree", tmp_path / "into"
    tree.mkdir()
    into.mkdir()
    since = treecopy.copy(base, str(tree))
    assert seen((str(tree),)) == seen(base)
    assert (tree / "a").stat().st_ino == (tree / "hard").stat().st_ino
    treecopy.changes(base, str(tree), since, str(into))
    assert list(into.iterdir()) == []


def test_every_kind_of_change_is_found(tmp_path: Path) -> None:
    base = layers(tmp_path)
    tree, into = tmp_path / "tree", tmp_path / "into"
    tree.mkdir()
    into.mkdir()
    since = treecopy.copy(base, str(tree))
    (tree / "b").write_text("other")  # as long as before, with its time
    os.utime(tree / "b", ns=(os.stat(f"{base[1]}/b").st_atime_ns, os.stat(f"{base[1]}/b").st_mtime_ns))
    (tree / "d" / "y").unlink()
    (tree / "d" / "y").mkdir()
    (tree / "d" / "y" / "below").write_text("below")
    (tree / "hidden" / "new").unlink()
    (tree / "hidden").rmdir()
    (tree / "hidden").write_text("a file now")
    (tree / "link").unlink()
    (tree / "link").symlink_to("b")
    (tree / "d" / "deep").chmod(0o700)
    (tree / "new").mkdir()
    (tree / "new" / "er").write_text("x")
    os.utime(tree / "hard", ns=(2, 2))
    treecopy.changes(base, str(tree), since, str(into))
    assert seen((*base, str(into))) == seen((str(tree),))
    assert not (into / "d" / "deep" / "z").exists(), "what has not changed is not taken"


def test_marks_of_fuse_overlayfs_become_the_kernels(tmp_path: Path) -> None:
    base = layers(tmp_path)
    upper = tmp_path / "upper"
    (upper / "d").mkdir(parents=True)
    for name in (".wh.a", "d/.wh..wh..opq", "d/.wh..opq", "d/own"):
        (upper / name).touch()
    fuse.settle(str(upper))
    names = [row[0] for row in seen((*base, str(upper)))]
    assert names == ["b", "d", "d/own", "hard", "hidden", "hidden/new", "link"]


def test_a_weaker_way_is_told_once_and_left_when_the_machine_is_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [("copy", "overlay: x"), ("copy", "overlay: x"), ("fuse", "overlay: x"), ("kernel", "")]
    monkeypatch.setattr(stacking, "find", lambda _paths: found.pop(0))
    told: list[Event] = []
    paths = find({"KAP_HOME": str(tmp_path)})
    ways = [stacking.chosen(paths, {}, told.append) for _ in range(6)]
    assert ways == ["copy", "copy", "fuse", "kernel", "kernel", "kernel"]
    texts = [e.text for e in told if isinstance(e, Notice)]
    assert [t.split(":")[0] for t in texts] == [
        "each container gets a copy of its image",
        "images are stacked by fuse-overlayfs",
    ]
