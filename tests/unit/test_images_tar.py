"""Layers that are hostile or damaged: nothing leaves the layer's folder, nothing is without bounds, errors are ours."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from pathlib import Path

import pytest

from kapelle.engines.native import transfer
from kapelle.errors import KapelleError
from kapelle.images import tarread
from kapelle.images.tarread import Stream, TarError
from kapelle.images.unpack import Unpacked, Unpacker


def member(
    name: str, kind: bytes = tarfile.REGTYPE, data: bytes = b"", **more: object
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(data)
    for key, value in more.items():
        setattr(info, key, value)
    return info, data


def archive(*members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def unpack(place: Path, data: bytes, limit: int = 0) -> Unpacked:
    place.mkdir(exist_ok=True)
    root = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return Unpacker(root).run(Stream(iter([data]), (lambda: limit) if limit else None))
    finally:
        os.close(root)


LINK, HARD = tarfile.SYMTYPE, tarfile.LNKTYPE


@pytest.mark.parametrize(
    "members",
    [
        [member("../out", data=b"x")],
        [member("a/../../out", data=b"x")],
        [member("..", tarfile.DIRTYPE)],
        [member("l", LINK, linkname=".."), member("l/out", data=b"x")],
        [member("l", LINK, linkname="{out}"), member("l/new", data=b"x")],
        [member("a/l", LINK, linkname="../../outside"), member("a/l/new/deep", data=b"x")],
        [member("l", LINK, linkname="{out}"), member("h", HARD, linkname="l/kept")],
        [member("h", HARD, linkname="../outside/kept")],
        [member("h", HARD, linkname="{out}/kept")],
        [member("l", LINK, linkname="{out}"), member("l/.wh.kept")],
        [member("l", LINK, linkname="{out}"), member("l/.wh..wh..opq")],
        [member(".wh...")],
        [member(".wh.")],
        [member("l", LINK, linkname="."), member("l/l/l/../../../../out", data=b"x")],
    ],
    ids=range(14),
)
def test_no_name_and_no_link_leads_out_of_the_layer(
    tmp_path: Path, members: list[tuple[tarfile.TarInfo, bytes]]
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    for info, _ in members:
        info.linkname = info.linkname.replace("{out}", str(outside))
    try:
        unpack(tmp_path / "layer", archive(*members))
    except TarError:
        pass
    assert sorted(os.listdir(tmp_path)) == ["layer", "outside"]
    assert [(p.name, p.read_text()) for p in outside.iterdir()] == [("kept", "kept")]
    assert os.stat(outside / "kept").st_nlink == 1
    for folder, _, names in os.walk(tmp_path / "layer"):
        assert all("kept" not in name or name.startswith(".wh") for name in names), folder


def test_an_absolute_name_is_one_below_the_layer(tmp_path: Path) -> None:
    unpack(tmp_path / "layer", archive(member("/etc/passwd", data=b"x"), member("//a", data=b"y")))
    assert (tmp_path / "layer" / "etc" / "passwd").read_text() == "x"
    assert (tmp_path / "layer" / "a").read_text() == "y"


def test_a_file_in_place_of_a_link_does_not_write_through_it(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("kept")
    link = member("l", LINK, linkname=str(tmp_path / "kept"))
    unpack(tmp_path / "layer", archive(link, member("l", data=b"x", mode=0o666)))
    assert (tmp_path / "kept").read_text() == "kept"
    assert (tmp_path / "layer" / "l").read_text() == "x"


def test_device_nodes_are_made_only_where_root_may_and_never_fail_a_user(tmp_path: Path) -> None:
    data = archive(
        member("disk", tarfile.BLKTYPE, devmajor=7, devminor=0),
        member("null", tarfile.CHRTYPE, devmajor=1, devminor=3),
        member("suid", data=b"x", mode=0o4755, uid=12345, gid=54321),
    )
    told = unpack(tmp_path / "layer", data)
    made = {p.name: p.lstat() for p in (tmp_path / "layer").iterdir()}
    if os.geteuid() == 0:
        assert stat.S_ISBLK(made["disk"].st_mode)
        assert (made["suid"].st_uid, made["suid"].st_gid) == (12345, 54321)
    else:
        assert told.skipped == ("disk", "null")
    assert made["suid"].st_mode & 0o7777 == 0o4755


def test_a_device_that_means_a_deletion_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TarError):
        unpack(tmp_path / "layer", archive(member("x", tarfile.CHRTYPE, devmajor=0, devminor=0)))


def test_a_bomb_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = archive(member("zeros", data=bytes(1 << 20)))
    with pytest.raises(TarError, match="far more"):
        unpack(tmp_path / "layer", data, limit=1 << 16)
    huge = bytearray(archive(member("x" * 200, data=b""), form=tarfile.GNU_FORMAT))
    huge[124:136] = b"77777777777\0"  # the long name claims 8 GiB
    with pytest.raises(TarError, match="extended header claims"):
        unpack(tmp_path / "two", bytes(_summed(huge)))
    monkeypatch.setattr(tarread, "_LIMIT_ENTRIES", 10)
    with pytest.raises(TarError, match="more than 10 entries"):
        unpack(tmp_path / "three", archive(*(member(f"f{n}") for n in range(11))))
    with pytest.raises(TarError, match="parts"):
        unpack(tmp_path / "four", archive(member("a/" * 600 + "b")))


def _summed(block: bytearray) -> bytearray:
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block[:512])
    return block


@pytest.mark.parametrize(
    ("at", "field"),
    [
        (124, b"77777777777\0"),  # more than there is
        (124, b"\xff" * 12),  # negative
        (124, b"\x80" + b"\xff" * 11),  # beyond all
        (124, b"12x45678901\0"),
        (108, b"\x80\xff\xff\xff\xff\xff\xff\xff"),  # a user that no system has
        (148, b"000000\0 "),  # a wrong sum
    ],
)
def test_what_lies_about_itself_is_refused(tmp_path: Path, at: int, field: bytes) -> None:
    data = bytearray(archive(member("a", data=b"x" * 100), form=tarfile.USTAR_FORMAT))
    data[at : at + len(field)] = field
    if at != 148:
        _summed(data)
    with pytest.raises(TarError):
        unpack(tmp_path / "layer", bytes(data))


@pytest.mark.parametrize(
    ("at", "field", "kind"),
    [
        (136, b"\x80" + b"\xff" * 11, tarfile.REGTYPE),  # a time beyond all
        (136, b"\x80" + b"\xff" * 11, tarfile.SYMTYPE),
        (136, b"\xff" + b"\x00" * 11, tarfile.DIRTYPE),
        (329, b"\x80\xff\xff\xff\xff\xff\xff\xff", tarfile.CHRTYPE),  # a device beyond all
        (337, b"\xff" * 8, tarfile.BLKTYPE),
        (329, b"77777777", tarfile.CHRTYPE),
    ],
)
def test_numbers_that_the_kernel_has_no_room_for_are_our_error(
    tmp_path: Path, at: int, field: bytes, kind: bytes
) -> None:
    data = bytearray(archive(member("a", kind, linkname="x", devmajor=1, devminor=3), form=tarfile.USTAR_FORMAT))
    data[at : at + len(field)] = field
    try:
        unpack(tmp_path / "layer", bytes(_summed(data)))
    except TarError:
        pass


def test_a_time_and_an_attribute_of_pax_are_bounded_too(tmp_path: Path) -> None:
    odd = (
        {"mtime": "999999999999"}, {"mtime": "-999999999999.5"}, {"SCHILY.xattr.user.a\0b": "x"},
        {"SCHILY.xattr.": "x"}, {"SCHILY.xattr.user." + "n" * 300: "x"}, {"SCHILY.xattr.user.big": "v" * 70_000},
    )  # fmt: skip
    for number, headers in enumerate(odd):
        try:
            unpack(tmp_path / str(number), archive(member("a", data=b"x", pax_headers=headers)))
        except TarError:
            pass


@pytest.mark.parametrize("data", [b"", b"no archive" * 100, b"\x1f\x8b" + bytes(600)], ids=range(3))
def test_what_is_no_archive_is_said_by_cp(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(KapelleError, match="not a tar archive"):
        transfer.unpack(io.BytesIO(data), str(tmp_path), raw=True)
