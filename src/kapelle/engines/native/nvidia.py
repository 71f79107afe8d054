"""NVIDIA's GPUs where no CDI specification describes them: nodes, and the driver's libraries out of ld.so's cache."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence

from kapelle.engines.native.cdi import Edits, Node
from kapelle.light import NamedTuple

_COMMON = ("nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset")
_LIBRARY = r"lib(cuda|cudadebugger|nv[a-z0-9-]+|nvidia-[a-z0-9-]+|vdpau_nvidia|GLX?_nvidia|EGL_nvidia)[.\w-]*\.so[.\d]*"
_PROGRAMS = (
    "nvidia-smi",
    "nvidia-debugdump",
    "nvidia-persistenced",
    "nvidia-cuda-mps-control",
    "nvidia-cuda-mps-server",
)
_MAGIC = b"glibc-ld.so.cache1.1"


class Gpu(NamedTuple):
    minor: int
    uuid: str


def gpus(root: str = "") -> list[Gpu]:
    """The GPUs with a node, by number; the driver tells their identities."""
    known = {}
    base = f"{root}/proc/driver/nvidia/gpus"
    for name in sorted(os.listdir(base)) if os.path.isdir(base) else ():
        try:
            with open(f"{base}/{name}/information") as f:
                rows = dict(line.rstrip("\n").partition(":")[::2] for line in f)
            known[int(rows["Device Minor"].strip())] = rows.get("GPU UUID", "").strip()
        except (OSError, KeyError, ValueError):
            continue
    try:
        names = os.listdir(f"{root}/dev")
    except OSError:
        names = []
    minors = sorted(int(n[6:]) for n in names if n.startswith("nvidia") and n[6:].isdecimal())
    return [Gpu(minor, known.get(minor, "")) for minor in minors]


def edits(chosen: Sequence[Gpu], capabilities: Sequence[str], *, all_of_them: bool, root: str = "") -> Edits:
    """What a container needs for these GPUs."""
    import shutil  # not for those who have none

    names = [f"nvidia{g.minor}" for g in chosen] + [n for n in _COMMON if os.path.exists(f"{root}/dev/{n}")]
    visible = "all" if all_of_them else ",".join(g.uuid or str(g.minor) for g in chosen)
    wanted = [c for c in capabilities if c not in ("gpu", "nvidia")] or ["compute", "utility"]
    programs = [path for name in _PROGRAMS if (path := shutil.which(name))]
    files = dict.fromkeys([*libraries(f"{root}/etc/ld.so.cache"), *programs])
    return Edits(
        (f"NVIDIA_VISIBLE_DEVICES={visible}", f"NVIDIA_DRIVER_CAPABILITIES={','.join(dict.fromkeys(wanted))}"),
        tuple(Node(f"/dev/{name}", f"/dev/{name}") for name in names),
        tuple(("bind", path, path, ("ro", "nosuid", "nodev")) for path in files if os.path.exists(path)),
    )


def libraries(cache: str) -> list[str]:
    """The driver's libraries of this architecture's word size, as ld.so finds them."""
    try:
        with open(cache, "rb") as f:
            data = f.read()
    except OSError:
        return []
    import re

    return [path for name, path in entries(data) if re.fullmatch(_LIBRARY, name)]


def entries(data: bytes) -> Iterator[tuple[str, str]]:
    """(name, path) of ld.so.cache in the format of glibc 2.2 and later, which may follow an older one."""
    start = data.find(_MAGIC)
    if start < 0:
        return
    try:
        (count,) = struct.unpack_from("=I", data, start + 20)
        for at in range(start + 48, start + 48 + 24 * count, 24):
            flags, name, path = struct.unpack_from("=iII", data, at)
            if flags & 0xFF00 in (0x0300, 0x0A00):  # x86-64, aarch64: not the 32-bit libraries beside them
                yield tuple(data[start + o : data.index(b"\0", start + o)].decode() for o in (name, path))  # type: ignore[misc]
    except (struct.error, ValueError):
        return  # cut short
