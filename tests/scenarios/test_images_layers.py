"""Images with all that layers can hold, as a container sees them."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.badregistry import ARCH
from tests.scenarios.conftest import Kap, one_id

LONG = "l" * 255
DEEP = "/".join(["deep" * 12] * 20)
CAPABILITY = "SCHILY.xattr.security.capability"
# struct vfs_cap_data (linux/capability.h): revision 2, effective; permitted CAP_NET_RAW (13)
NET_RAW = (0x02000001).to_bytes(4, "little") + (1 << 13).to_bytes(4, "little") + bytes(12)


def entry(
    name: str, kind: bytes = tarfile.REGTYPE, content: bytes = b"", **more: object
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.mode = kind, len(content), 0o755 if kind == tarfile.DIRTYPE else 0o644
    for key, value in more.items():
        setattr(info, key, value)
    return info, content


def layer(*entries: tuple[tarfile.TarInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, content in entries:
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def archive(path: Path, name: str, layers: list[bytes], base: Path) -> None:
    """A docker archive: the layers of the saved image `base`, then these."""
    with tarfile.open(base) as tar:
        row = json.loads(tar.extractfile("manifest.json").read())[0]  # type: ignore[union-attr]
        config = json.loads(tar.extractfile(row["Config"]).read())  # type: ignore[union-attr]
        below = [tar.extractfile(part).read() for part in row["Layers"]]  # type: ignore[union-attr]
    config["rootfs"]["diff_ids"] += [f"sha256:{hashlib.sha256(data).hexdigest()}" for data in layers]
    config.pop("history", None)
    config["architecture"] = ARCH
    parts = {f"{number}.tar": data for number, data in enumerate([*below, *layers])}
    text = json.dumps(config).encode()
    rows = [{"Config": "config.json", "RepoTags": [name], "Layers": list(parts)}]
    with tarfile.open(path, "w") as tar:
        for member, data in {"manifest.json": json.dumps(rows).encode(), "config.json": text, **parts}.items():
            tar.addfile(entry(member, content=data)[0], io.BytesIO(data))


@pytest.fixture
def loaded(kap: Kap) -> Iterator[Kap]:
    kap.file("services: {a: {image: busybox}}\n")
    kap.ok("pull", "-q")
    kap.ok("save", "-o", "base.tar", "busybox")
    yield kap
    kap("down", "-t", "0")
    kap("rmi", "-f", "layers:1")


def shows(kap: Kap, layers: list[bytes], script: str, **keys: str) -> list[str]:
    archive(kap.folder / "image.tar", "layers:1", layers, kap.folder / "base.tar")
    kap.ok("load", "-q", "-i", "image.tar")
    more = "".join(f", {key}: {value}" for key, value in keys.items())
    kap.file(f"services: {{a: {{image: 'layers:1', pull_policy: never{more}}}}}\n")
    return kap.ok("run", "--rm", "-T", "a", "sh", "-c", script).out.splitlines()


def test_an_image_of_150_layers_runs_and_each_of_them_counts(loaded: Kap) -> None:
    layers = [layer(entry("top", content=str(n).encode()), entry(f"n/{n}", content=b"x")) for n in range(150)]
    layers += [layer(entry("n/.wh.7"), entry("n/.wh.149"))]
    script = "cat /top; echo; ls /n | wc -l; ls /n/7 /n/149 2>&1 | wc -l; touch /n/7 && echo made"
    assert shows(loaded, layers, script) == ["149", "148", "2", "made"]
    # a built image on top of it, too
    (loaded.folder / "Dockerfile").write_text("FROM layers:1\nRUN rm /n/8 && echo more > /more\n")
    loaded.file("services: {a: {build: .}}\n")
    assert loaded.ok("run", "--rm", "-T", "--build", "a", "sh", "-c", "cat /more; ls /n | wc -l").out == "more\n147\n"


def test_deletions_hide_what_lies_below_and_nothing_else(loaded: Kap) -> None:
    directory = tarfile.DIRTYPE
    layers = [
        layer(entry("d", directory), entry("d/low", content=b"1"), entry("e", directory), entry("e/low"),
              entry("f", directory), entry("f/low"), entry("link", tarfile.SYMTYPE, linkname="/etc"), entry("file")),
        layer(entry("d/.wh.low"), entry("e", directory), entry("e/.wh..wh..opq"), entry("e/new", content=b"2"),
              entry(".wh.link"), entry(".wh.file"), entry("file", directory), entry("file/now-a-folder")),
        layer(entry(".wh.f"), entry("d/low", content=b"back")),
    ]  # fmt: skip
    script = "cat /d/low; echo; ls /e /file; ls /f /link 2>&1 | grep -c 'No such file'"
    assert shows(loaded, layers, script) == ["back", "/e:", "new", "", "/file:", "now-a-folder", "2"]


def test_a_container_sees_links_long_names_sparse_files_owners_and_special_bits(loaded: Kap) -> None:
    sparse = entry("sparse", content=b"\0" * (1 << 20))
    layers = [
        layer(
            entry("one", content=b"linked"), entry("two", tarfile.LNKTYPE, linkname="one"),
            entry(LONG, content=b"long"), entry(f"{DEEP}/end", content=b"deep"), entry("na\u00efve \u65e5\u672c"),
            sparse, entry("suid", mode=0o4755), entry("odd", uid=1234, gid=54321, mode=0o2640),
            entry("sticky", tarfile.DIRTYPE, mode=0o1777), entry("closed", mode=0),
            entry("pipe", tarfile.FIFOTYPE, mode=0o600),
        )
    ]  # fmt: skip
    script = (
        f"stat -c %h /one /two; cat /{LONG} /{DEEP}/end; echo; echo /na*; stat -c %s /sparse; du -k /sparse | cut -f1; "
        "stat -c '%a %u:%g' /suid /odd /sticky /closed; test -p /pipe && echo pipe"
    )
    shown = shows(loaded, layers, script)
    assert shown[:5] == ["2", "2", "longdeep", "/na\u00efve \u65e5\u672c", str(1 << 20)]
    odd = "0:0" if one_id(loaded) else "1234:54321"  # a user with one id has no other owner
    assert shown[6:] == ["4755 0:0", f"2640 {odd}", "1777 0:0", "0 0:0", "pipe"]


@pytest.mark.skipif(os.geteuid() != 0, reason="a file's capabilities are kept where root unpacks")
def test_a_files_capabilities_count_for_a_user_of_the_container(loaded: Kap) -> None:
    with tarfile.open(loaded.folder / "base.tar") as tar:
        row = json.loads(tar.extractfile("manifest.json").read())[0]  # type: ignore[union-attr]
        inner = tarfile.open(fileobj=io.BytesIO(tar.extractfile(row["Layers"][0]).read()))  # type: ignore[union-attr]
    busybox = inner.extractfile(next(m for m in inner if m.name.endswith("bin/busybox") and m.isfile()))
    assert busybox is not None
    program = entry(
        "may/grep", content=busybox.read(), mode=0o755,
        pax_headers={CAPABILITY: NET_RAW.decode("utf-8", "surrogateescape")},
    )  # fmt: skip
    script = "grep CapEff /proc/self/status; /may/grep CapEff /proc/self/status"
    shown = shows(loaded, [layer(program)], script, user="'1000'")
    assert [int(line.split()[1], 16) for line in shown] == [0, 1 << 13]
