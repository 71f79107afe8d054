"""Binary packages: the parts of a .deb (deb(5)), put into a tree and noted in dpkg's database as installed.

No maintainer script is run; they are kept for dpkg in var/lib/dpkg/info, so that packages installed later in the
container find everything as dpkg itself would have left it.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterator

from kapelle.errors import ImageError
from kapelle.images import compression
from kapelle.images.standins import control
from kapelle.images.standins.tree import Tree
from kapelle.images.tarread import FILE, SYMLINK, Reader, Stream
from kapelle.light import BinaryIO, NamedTuple

INFO = "var/lib/dpkg/info"
STATUS = "var/lib/dpkg/status"
_PIECE = 1 << 18


class Installed(NamedTuple):
    """What a package left behind: its control stanza and its control files."""

    name: str
    fields: dict[str, str]
    stanza: str  # as in the package
    scripts: dict[str, bytes]  # postinst, conffiles, triggers, md5sums …


def members(f: BinaryIO, name: str) -> Iterator[tuple[str, Iterator[bytes]]]:
    """Name and content of each member of an ar(5) archive. Content must be read before going on."""
    if f.read(8) != b"!<arch>\n":
        raise _damaged(name, "it is no package")
    at = 8
    while True:
        f.seek(at)
        head = f.read(60)
        if not head.strip():
            return
        if len(head) < 60 or head[58:] != b"`\n" or not head[48:58].strip().isdigit():
            raise _damaged(name, "a header of it is wrong")
        size = int(head[48:58])
        yield head[:16].decode("ascii", "replace").strip().rstrip("/"), _content(f, size)
        at += 60 + size + size % 2


def _content(f: BinaryIO, size: int) -> Iterator[bytes]:
    while size:
        piece = f.read(min(size, _PIECE))
        if not piece:
            return
        size -= len(piece)
        yield piece


def install(path: str, tree: Tree, keep: Callable[[str], bool]) -> Installed:
    """Unpack one .deb into the tree, but for the names `keep` says no to; dpkg's lists are written, not its status."""
    found: Installed | None = None
    with open(path, "rb") as f:
        for name, content in members(f, path):
            if name.startswith("control.tar"):
                found = _control(content, path)
            elif name.startswith("data.tar"):
                if found is None:
                    raise _damaged(path, "it has no control file")
                reader = Reader(Stream(compression.plain(content)))
                names = tree.unpack(reader, lambda n: n.lstrip(".") if keep(n.lstrip(".")) else None)
                tree.write(f"{INFO}/{found.name}.list", "".join(f"{_listed(n)}\n" for n in names))
                for kind, data in found.scripts.items():
                    mode = 0o755 if kind in ("preinst", "postinst", "prerm", "postrm", "config") else 0o644
                    tree.write(f"{INFO}/{found.name}.{kind}", data, mode)
                return found
    raise _damaged(path, "it has no files")


def extract(path: str, tree: Tree, rename: Callable[[str], str | None]) -> None:
    """Put files of a package where `rename` says ("/usr/bin/x" → a path, or None), and note nothing."""
    with open(path, "rb") as f:
        for name, content in members(f, path):
            if name.startswith("data.tar"):
                reader = Reader(Stream(compression.plain(content)))
                tree.unpack(reader, lambda n: rename(n.removeprefix(".")))


def links(path: str, below: str) -> dict[str, str]:
    """The symbolic links of a package below a directory: the absolute name each leads to → the link's name."""
    found: dict[str, str] = {}
    with open(path, "rb") as f:
        for name, content in members(f, path):
            if name.startswith("data.tar"):
                for entry in Reader(Stream(compression.plain(content))):
                    where = entry.name.decode("utf-8", "surrogateescape").removeprefix(".")
                    if entry.kind == SYMLINK and where.startswith(f"{below}/"):
                        target = entry.link.decode("utf-8", "surrogateescape")
                        found[os.path.normpath(os.path.join(os.path.dirname(where), target))] = where
    return found


def _listed(name: str) -> str:
    """A member's name as dpkg's .list has it: "./usr/bin/" → "/usr/bin", the top itself "/."."""
    return name.removeprefix(".").rstrip("/") or "/."


def _control(content: Iterator[bytes], path: str) -> Installed:
    scripts: dict[str, bytes] = {}
    reader = Reader(Stream(compression.plain(content)))
    for entry in reader:
        if entry.kind == FILE:
            scripts[entry.name.decode("utf-8", "replace").lstrip("./")] = b"".join(map(bytes, reader.content()))
    stanza = scripts.pop("control", b"").decode("utf-8", "replace").strip("\n")
    fields = control.stanza(stanza)
    if not fields.get("Package"):
        raise _damaged(path, "its control file names no package")
    name = fields["Package"]
    if fields.get("Multi-Arch") == "same":
        name += f":{fields['Architecture']}"  # dpkg tells the instances of several architectures apart so
    return Installed(name, fields, stanza, scripts)


def status(packages: list[Installed], tree: Tree) -> str:
    """Stanzas for dpkg's status file: installed and configured, with the digests of their configuration files."""
    out = io.StringIO()
    for package in packages:
        first, _, rest = package.stanza.partition("\n")
        lines = [first, "Status: install ok installed", rest] if rest else [first, "Status: install ok installed"]
        out.write("\n".join(lines) + "\n")
        rows = []
        for path in package.scripts.get("conffiles", b"").decode("utf-8", "replace").split("\n"):
            path = path.strip()
            if not path.startswith("/"):
                continue  # "remove-on-upgrade /etc/…"
            where = tree.find(path)
            if where is not None:
                with open(where, "rb") as f:
                    digest = hashlib.md5(f.read(), usedforsecurity=False).hexdigest()
                rows.append(f" {path} {digest}\n")
        if rows:
            out.write("Conffiles:\n" + "".join(rows))
        out.write("\n")
    return out.getvalue()


def triggers(packages: list[Installed]) -> tuple[list[str], dict[str, list[str]]]:
    """Who wants to be told of what (deb-triggers(5)): rows for triggers/File, and of each explicit trigger."""
    files: list[str] = []
    explicit: dict[str, list[str]] = {}
    for package in packages:
        for line in package.scripts.get("triggers", b"").decode("utf-8", "replace").splitlines():
            words = line.split()
            if len(words) != 2 or not words[0].startswith("interest"):
                continue
            who = package.name + ("/noawait" if words[0] == "interest-noawait" else "")
            if words[1].startswith("/"):
                files.append(f"{words[1]} {who}")
            else:
                explicit.setdefault(words[1], []).append(who)
    return files, explicit


def _damaged(path: str, why: str) -> ImageError:
    return ImageError(f"the package {path} is damaged: {why}", hint="remove the file and try again", code="KAP504")
