"""Layers: what an archive has is what overlayfs shows, and what it must not do touches nothing. Also the way back."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from kapelle.errors import ImageError
from kapelle.images import layers, trees
from kapelle.images.store import Store

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="owners, devices and capabilities need root")


def packed(*entries: tarfile.TarInfo | tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for entry in entries:
            info, data = entry if isinstance(entry, tuple) else (entry, b"")
            if info.isreg():
                info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def entry(name: str, kind: bytes = tarfile.REGTYPE, **more: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    for key, value in more.items():
        setattr(info, key, value)
    return info


def file(name: str, data: bytes = b"data", **more: object) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, **more), data


class Layers:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = Store(str(folder / "images"))
        self.store.prepare()
        self.dirs: list[str] = []

    def add(self, data: bytes, chunk: int = 1000) -> Path:
        """Take a layer in; its directory."""
        pieces = (data[n : n + chunk] for n in range(0, len(data), chunk))
        with self.store.temporary() as path:
            layer = layers.take(self.store, path, pieces, what="the layer").layer
            self.store.publish_layer(path, layer.diff_id)
        self.dirs.append(self.store.layer_dir(layer.diff_id))
        assert b"".join(self.store.layer_archive(layer.diff_id)) == data or not self.store.layer(layer.diff_id).frame
        return Path(self.dirs[-1])

    def merged(self, act: Callable[[Path], None]) -> None:
        """Look at all layers as a container sees them."""
        target = self.folder / "merged"
        target.mkdir(exist_ok=True)
        lower = ":".join(reversed(self.dirs))
        subprocess.run(["mount", "-t", "overlay", "-o", f"lowerdir={lower}", "overlay", str(target)], check=True)
        try:
            act(target)
        finally:
            subprocess.run(["umount", str(target)], check=True)


@pytest.fixture
def taken(tmp_path: Path) -> Layers:
    return Layers(tmp_path)


# -- what a layer has ---------------------------------------------------------------------------------------------


@ROOT
def test_owners_modes_times_and_the_three_special_bits_stay(taken: Layers) -> None:
    top = taken.add(
        packed(
            entry("d", tarfile.DIRTYPE, mode=0o1777, uid=7, gid=8, mtime=1000),
            file("d/suid", mode=0o4755, uid=1234, gid=4321, mtime=1_500_000_000.25),
            file("d/odd", mode=0o2070, uid=(1 << 32) - 2, gid=70_000),
            file("closed", mode=0o000),
            entry("link", tarfile.SYMTYPE, linkname="/etc/passwd", uid=5, gid=6),
        )
    )
    suid = (top / "d/suid").stat()
    assert (stat.S_IMODE(suid.st_mode), suid.st_uid, suid.st_gid) == (0o4755, 1234, 4321)
    assert suid.st_mtime_ns == 1_500_000_000_250_000_000
    odd = (top / "d/odd").stat()
    assert (stat.S_IMODE(odd.st_mode), odd.st_uid, odd.st_gid) == (0o2070, (1 << 32) - 2, 70_000)
    folder = (top / "d").stat()
    assert (stat.S_IMODE(folder.st_mode), folder.st_uid, folder.st_mtime) == (0o1777, 7, 1000)
    assert stat.S_IMODE((top / "closed").stat().st_mode) == 0
    assert os.readlink(top / "link") == "/etc/passwd"
    assert (top / "link").lstat().st_uid == 5


@ROOT
def test_capabilities_and_attributes_stay_but_overlays_own_do_not(taken: Layers) -> None:
    capability = bytes.fromhex("0100000200040000000000000000000000000000")
    headers = {
        "SCHILY.xattr.security.capability": capability.decode("latin-1"),
        "SCHILY.xattr.trusted.overlay.opaque": "y",
        "SCHILY.xattr.user.overlay.redirect": "/etc",
    }
    info = entry("ping", mode=0o755)
    info.pax_headers = headers
    top = taken.add(packed(file("x"), (info, b"program")))
    assert os.getxattr(top / "ping", "security.capability") == capability
    assert not [n for n in os.listxattr(top / "ping") if "overlay" in n]


@ROOT
def test_devices_and_fifos_are_made(taken: Layers) -> None:
    top = taken.add(
        packed(
            entry("null", tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666),
            entry("disk", tarfile.BLKTYPE, devmajor=8, devminor=0, mode=0o660),
            entry("pipe", tarfile.FIFOTYPE, mode=0o622),
        )
    )
    null = (top / "null").stat()
    assert stat.S_ISCHR(null.st_mode)
    assert (os.major(null.st_rdev), os.minor(null.st_rdev)) == (1, 3)
    assert stat.S_ISBLK((top / "disk").stat().st_mode)
    assert stat.S_ISFIFO((top / "pipe").stat().st_mode)
    assert stat.S_IMODE((top / "pipe").stat().st_mode) == 0o622


def test_hard_links_are_one_file_also_to_a_symbolic_link(taken: Layers) -> None:
    top = taken.add(
        packed(
            file("a/one", b"shared"),
            entry("b/two", tarfile.LNKTYPE, linkname="a/one"),
            entry("soft", tarfile.SYMTYPE, linkname="nowhere"),
            entry("also", tarfile.LNKTYPE, linkname="./soft"),
        )
    )
    assert (top / "a/one").stat().st_ino == (top / "b/two").stat().st_ino
    assert (top / "soft").lstat().st_ino == (top / "also").lstat().st_ino


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT], ids=["pax", "gnu"])
def test_long_names_and_odd_bytes_stay(taken: Layers, form: int) -> None:
    name = "/".join(["d" * 100] * 8) + "/" + "n" * 255
    top = taken.add(
        packed(
            file(name, b"deep"),
            file("sp ace\n\t\u00fc \u2603", b"odd"),
            entry("far", tarfile.SYMTYPE, linkname="t" * 300),
            form=form,
        )
    )
    fd = os.open(top, os.O_RDONLY)
    for part in name.split("/")[:-1]:
        fd, old = os.open(part, os.O_RDONLY, dir_fd=fd), fd
        os.close(old)
    assert os.stat(name.rpartition("/")[2], dir_fd=fd).st_size == 4
    os.close(fd)
    assert (top / "sp ace\n\t\u00fc \u2603").read_bytes() == b"odd"
    assert os.readlink(top / "far") == "t" * 300


@pytest.mark.parametrize("form", ["--format=gnu", "--format=pax"])
@pytest.mark.parametrize("version", ["0.0", "0.1", "1.0"])
def test_sparse_files_stay_sparse(taken: Layers, form: str, version: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    with open(source / "sparse", "wb") as f:
        f.write(b"head")
        f.seek(40 << 20)
        f.write(b"tail")
        f.truncate(50 << 20)
    options = ["--sparse", form, *([f"--sparse-version={version}"] if "pax" in form else [])]
    subprocess.run(["tar", *options, "-cf", tmp_path / "x.tar", "-C", source, "sparse"], check=True)
    top = taken.add((tmp_path / "x.tar").read_bytes())
    info = (top / "sparse").stat()
    assert info.st_size == 50 << 20
    assert info.st_blocks * 512 < 1 << 20
    with open(top / "sparse", "rb") as f:
        assert f.read(4) == b"head"
        f.seek(40 << 20)
        assert f.read(5) == b"tail\0"


def test_a_later_entry_of_the_same_name_wins(taken: Layers) -> None:
    top = taken.add(packed(file("a", b"one"), entry("d", tarfile.DIRTYPE), file("d/x"), file("a", b"two"), file("d")))
    assert (top / "a").read_bytes() == b"two"
    assert (top / "d").read_bytes() == b"data"


# -- several layers -----------------------------------------------------------------------------------------------


@ROOT
def test_whiteouts_and_opaque_folders_hide_what_lies_below(taken: Layers) -> None:
    taken.add(packed(file("gone"), file("d/old"), file("d/keep"), file("o/old"), file("f"), file("r/x/y")))
    taken.add(
        packed(
            file(".wh.gone"),
            file("d/.wh.old"),
            entry("o", tarfile.DIRTYPE),
            file("o/new", b"new"),
            file("o/.wh..wh..opq"),
            file(".wh.f"),
            entry("f", tarfile.DIRTYPE),
            file("f/now", b"a folder"),
            file(".wh..wh.plnk/1.2"),
        )
    )
    taken.add(packed(file(".wh.r"), file("gone", b"back again")))

    def look(root: Path) -> None:
        assert (root / "gone").read_bytes() == b"back again"
        assert sorted(os.listdir(root / "d")) == ["keep"]
        assert os.listdir(root / "o") == ["new"]
        assert os.listdir(root / "f") == ["now"]
        assert sorted(os.listdir(root)) == ["d", "f", "gone", "o"]

    taken.merged(look)


@ROOT
def test_a_mark_for_what_this_layer_brings_itself_hides_only_what_is_below(taken: Layers) -> None:
    taken.add(packed(file("d/below")))
    taken.add(packed(file("d/mine"), file(".wh.d")))
    taken.merged(lambda root: _is(os.listdir(root / "d"), ["mine"]))


def _is(found: object, wanted: object) -> None:
    assert found == wanted


# -- what no archive may ------------------------------------------------------------------------------------------


def huge(field: slice, value: bytes) -> bytes:
    """A tar whose header has other bytes in a field, its checksum set right."""
    data = bytearray(packed(file("x", b"")))
    start = field.start
    data[start : start + len(value)] = value
    data[148:156] = b" " * 8
    data[148:156] = f"{sum(data[:512]):06o}\0 ".encode()
    return bytes(data)


LINK = entry("l", tarfile.SYMTYPE, linkname="/tmp")
HOSTILE = {
    "a name that leads out": packed(file("../escape")),
    "a name that leads out later": packed(file("a/../../escape")),
    "through a link of its own": packed(LINK, file("l/escape")),
    "through a relative link": packed(entry("l", tarfile.SYMTYPE, linkname="../../.."), file("l/escape")),
    "a folder through a link": packed(LINK, entry("l/escape", tarfile.DIRTYPE)),
    "a link through a link": packed(LINK, entry("l/escape", tarfile.SYMTYPE, linkname="x")),
    "a device through a link": packed(LINK, entry("l/escape", tarfile.FIFOTYPE)),
    "a mark through a link": packed(LINK, file("l/.wh.escape")),
    "an opaque mark through a link": packed(LINK, file("l/.wh..wh..opq")),
    "a hard link out": packed(entry("h", tarfile.LNKTYPE, linkname="../../../etc/passwd")),
    "a hard link to what is not there": packed(entry("h", tarfile.LNKTYPE, linkname="/etc/passwd")),
    "a hard link through a link": packed(LINK, entry("h", tarfile.LNKTYPE, linkname="l/escape")),
    "a hard link to a folder": packed(entry("d", tarfile.DIRTYPE), entry("h", tarfile.LNKTYPE, linkname="d")),
    "a file through a file": packed(file("f"), file("f/x")),
    "a deletion of the parent": packed(file("d/.wh...")),
    "overlay's own mark": packed(entry("w", tarfile.CHRTYPE, devmajor=0, devminor=0)),
    "the layer itself as a file": packed(file(".")),
    "a link to nothing": packed(entry("l", tarfile.SYMTYPE, linkname="")),
    "an unknown type": huge(slice(156, 157), b"Q"),
    "a size that is no number": huge(slice(124, 136), b"zzzzzzzzzzz\0"),
    "a negative size": huge(slice(124, 136), b"\xff" * 12),
    "a size beyond all": huge(slice(124, 136), b"\x80" + b"\xff" * 11),
    "a user that no system has": huge(slice(108, 116), b"\x80" + b"\xff" * 7),
    "a time beyond all": huge(slice(136, 148), b"\x80" + b"\xff" * 11),
    "a time before all": huge(slice(136, 148), b"\xff\x80" + b"\x00" * 10),
    "a name of too many parts": packed(file("/".join("a" * 600))),
    "a name that is too long": packed(file("n" * 300)),
    "cut off in a header": packed(file("a"))[:300],
    "cut off in a file": packed(file("a", b"x" * 2000))[:1200],
    "a wrong checksum": bytes(range(256)) * 8,
    "an extended header of lies": packed(file("n" * 200))[:512] + b"99999 path=x\n".ljust(512, b"\0") + bytes(1024),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_archives_are_refused_and_nothing_is_left(taken: Layers, what: str) -> None:
    before = sorted(os.listdir("/tmp"))
    with pytest.raises(ImageError) as caught:
        taken.add(HOSTILE[what])
    assert caught.value.code in ("KAP504", "KAP501"), caught.value
    assert os.listdir(taken.folder / "images/tmp") == []
    assert not any((taken.folder / "images").rglob("escape"))
    assert "escape" not in set(os.listdir("/tmp")) - set(before)
    assert not any(taken.folder.glob("escape"))


def test_a_device_number_beyond_all_is_refused(taken: Layers) -> None:
    data = bytearray(packed(entry("dev", tarfile.CHRTYPE, devmajor=1, devminor=3)))
    data[329:337] = b"\x80" + b"\xff" * 7
    data[148:156] = b" " * 8
    data[148:156] = f"{sum(data[:512]):06o}\0 ".encode()
    with pytest.raises(ImageError):
        taken.add(bytes(data))


def test_a_bomb_is_cut_off(taken: Layers, monkeypatch: pytest.MonkeyPatch) -> None:
    import gzip

    monkeypatch.setattr(layers, "_BOMB_FLOOR", 1 << 20)
    data = gzip.compress(packed(file("zeros", bytes(64 << 20))), 9)
    with pytest.raises(ImageError, match="far more than its size allows"):
        taken.add(data)
    assert os.listdir(taken.folder / "images/tmp") == []


def test_an_empty_archive_is_an_empty_layer(taken: Layers) -> None:
    assert os.listdir(taken.add(bytes(1024))) == []


# -- the way back -------------------------------------------------------------------------------------------------


@ROOT
def test_changes_of_a_container_become_a_layer_with_the_same_marks(taken: Layers) -> None:
    taken.add(packed(file("gone"), file("o/old")))
    with taken.store.new_layer() as path:
        top = Path(path, "diff")
        fd = os.open(top, os.O_RDONLY)
        trees.make_whiteout(b"gone", fd)
        os.close(fd)
        (top / "o").mkdir()
        fd = os.open(top / "o", os.O_RDONLY)
        trees.set_opaque(fd)
        os.close(fd)
        (top / "o/new").write_text("new")
        os.link(top / "o/new", top / "twin")
        diff_id = taken.store.commit_layer(str(top))
    archive = b"".join(taken.store.layer_archive(diff_id))
    assert diff_id == f"sha256:{hashlib.sha256(archive).hexdigest()}"
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        names = set(tar.getnames())
        assert {".wh.gone", "o/.wh..wh..opq", "o/new", "twin"} <= names
        assert sum(m.islnk() for m in tar.getmembers()) == 1
    taken.dirs.append(taken.store.layer_dir(diff_id))

    def look(root: Path) -> None:
        assert sorted(os.listdir(root)) == ["o", "twin"]
        assert os.listdir(root / "o") == ["new"]

    taken.merged(look)
