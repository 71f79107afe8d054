"""busybox: Debian's static build, alone in its image, with a link for each of its commands."""

from __future__ import annotations

from kapelle.errors import ImageError
from kapelle.images.standins import debian_version, versions
from kapelle.images.standins.kitchen import Kitchen, Made

NAMES = ("busybox",)
BASE = False
_HAVE = {"1.35": "bookworm", "1.37": "trixie"}
OFFERS = tuple((version, f"Debian {release}") for version, release in _HAVE.items())
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_FIRST = b"[\0[["  # how the sorted table of its command names begins

_USERS = (
    ("root", 0, "/root", "/bin/sh"), ("daemon", 1, "/usr/sbin", "/bin/false"), ("bin", 2, "/bin", "/bin/false"),
    ("sys", 3, "/dev", "/bin/false"), ("mail", 8, "/var/spool/mail", "/bin/false"),
    ("www-data", 33, "/var/www", "/bin/false"), ("nobody", 65534, "/home", "/bin/false"),
)  # fmt: skip


def variants(tag: str) -> tuple[str, ...]:
    return (versions.nearest(tag, tuple(_HAVE)),)


def release(chosen: str) -> str:
    return _HAVE[chosen]


def build(kitchen: Kitchen, chosen: str) -> Made:
    tree = kitchen.tree
    version = kitchen.extract("busybox-static", _place)
    path = tree.find("bin/busybox")
    if path is None:
        raise ImageError("Debian's busybox-static has no busybox")
    with open(path, "rb") as f:
        names = applets(f.read())
    for name in names:
        if name != "busybox":
            tree.link(f"bin/{name}", "busybox")
    tree.directory("usr/bin")
    tree.link("usr/bin/env", "../../bin/env")
    tree.write("etc/passwd", "".join(f"{n}:x:{i}:{i}:{n}:{h}:{s}\n" for n, i, h, s in _USERS))
    tree.write("etc/group", "".join(f"{n}:x:{i}:\n" for n, i, _, _ in _USERS) + "tty:x:5:\nusers:x:100:\n")
    tree.write("etc/shadow", "".join(f"{n}:*:10933:0:99999:7:::\n" for n, _, _, _ in _USERS), 0o600)
    for name, mode in (("tmp", 0o1777), ("root", 0o700), ("home", 0o755), ("var/spool/mail", 0o755), ("var/www", 0o755),
                       ("usr/sbin", 0o755), ("dev", 0o755), ("proc", 0o555), ("sys", 0o555)):  # fmt: skip
        tree.directory(name, mode)
    return Made({"Env": [_PATH], "Cmd": ["sh"]}, "BusyBox", debian_version.upstream(version))


def applets(program: bytes) -> list[str]:
    """The commands of a busybox, from the table in its binary: names one after another, an empty one at the end."""
    at = program.find(_FIRST + b"\0")
    names: list[str] = []
    while at >= 0:
        end = program.find(b"\0", at)
        if end <= at:
            break
        names.append(program[at:end].decode("ascii", "replace"))
        at = end + 1
    return [n for n in names if n and "/" not in n]


def _place(name: str) -> str | None:
    if name in ("/bin/busybox", "/usr/bin/busybox"):
        return "/bin/busybox"
    return "/usr/share/doc/busybox/copyright" if name == "/usr/share/doc/busybox-static/copyright" else None
