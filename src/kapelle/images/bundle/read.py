"""Reading a bundle: nothing of it is used before all of it is checked, and nothing is written outside of one folder."""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from kapelle.errors import ImageError
from kapelle.events import Emit, Progress
from kapelle.images import archive, layers, reference, tarwrite, trees
from kapelle.images.bundle import manifest as manifests
from kapelle.images.bundle.manifest import Entry, Manifest, wrong
from kapelle.images.bundle.write import ARTIFACT
from kapelle.images.store import Store
from kapelle.light import Any, BinaryIO, NamedTuple
from kapelle.linux import files

MARK = ".kapelle-bundle"  # in an extracted folder: the digest of its bundle's list
_NAME = re.compile(r"blobs/sha256/([0-9a-f]{64})|oci-layout|index\.json|manifest\.json")
_OCTAL = re.compile(rb"[0-7]{1,12}")
_SMALL = 8 << 20
_MOST_MEMBERS = 1_000_000


class _Member(NamedTuple):
    start: int  # of its header
    at: int  # of its content
    size: int

    @property
    def end(self) -> int:
        return self.at + self.size + -self.size % 512


class Bundle(NamedTuple):
    label: str
    stream: BinaryIO
    members: dict[str, _Member]
    manifest: Manifest
    digest: str  # of its list of files
    image_blobs: frozenset[str]  # names of members that images need

    def content(self, name: str) -> Iterator[bytes]:
        member = self.members[name]
        yield from _pieces(self.stream, member.at, member.size)


@contextmanager
def opened(path: str, emit: Emit | None = None) -> Iterator[Bundle]:
    """A bundle, checked whole: form, digests, sizes, paths. ImageError KAP520."""
    label = os.path.basename(path)
    try:
        stream = open(path, "rb")
    except OSError as e:
        raise ImageError(f"{path} can't be read: {(e.strerror or '').lower()}", code="KAP520") from None
    with stream:
        try:
            members = _members(stream, label)
            if emit is not None:
                emit(Progress("bundle", label, "Checking"))
            _check_digests(stream, members, label)
            yield _parsed(stream, members, label)
        except IsADirectoryError:
            raise wrong(label, "it is a folder") from None
    if emit is not None:
        emit(Progress("bundle", label, "Checked", "done"))


def is_bundle(path: str) -> bool:
    """Does a file say that it is one? Looks at its index alone."""
    try:
        with open(path, "rb") as stream:
            member = _members(stream, path).get("index.json")
            return (
                member is not None
                and member.size <= _SMALL
                and ARTIFACT.encode() in b"".join(_pieces(stream, member.at, member.size))
            )
    except (OSError, ImageError):
        return False


def _members(stream: BinaryIO, label: str) -> dict[str, _Member]:
    """The archive's members by name. It is as `save` writes it: plain, files only, few kinds of names."""
    size = stream.seek(0, os.SEEK_END)
    found: dict[str, _Member] = {}
    at = 0
    while True:
        stream.seek(at)
        block = stream.read(512)
        if len(block) < 512:
            raise wrong(label, "it is cut off" if found else "it is no archive")
        if not block.strip(b"\0"):
            return found
        name, length = _header(block, label)
        member = _Member(at, at + 512, length)
        if member.end > size or len(found) > _MOST_MEMBERS:
            raise wrong(label, "it is cut off")
        found[name] = member  # the same name twice is the same content: its digest is checked
        at = member.end


def _header(block: bytes, label: str) -> tuple[str, int]:
    told, digits = block[148:156].strip(b" \0"), block[124:136].strip(b" \0")
    if not _OCTAL.fullmatch(told) or int(told, 8) != sum(block[:148]) + 256 + sum(block[156:]):
        raise wrong(label, "it is no archive, or damaged")
    name = block[:100].rstrip(b"\0").decode("ascii", "replace")
    if block[156:157] not in (b"0", b"\0") or not _NAME.fullmatch(name) or block[345:500].strip(b"\0"):
        raise wrong(label, f"it has something that no bundle has: {name[:80]!r}")
    if not _OCTAL.fullmatch(digits):
        raise wrong(label, f"the size of {name} is damaged")
    return name, int(digits, 8)


def _pieces(stream: BinaryIO, at: int, size: int) -> Iterator[bytes]:
    while size:
        stream.seek(at)
        piece = stream.read(min(size, 1 << 20))
        if not piece:
            return
        at += len(piece)
        size -= len(piece)
        yield piece


def _check_digests(stream: BinaryIO, members: dict[str, _Member], label: str) -> None:
    for name, member in members.items():
        wanted = name.removeprefix("blobs/sha256/")
        if wanted == name:
            continue
        digest = hashlib.sha256()
        for piece in _pieces(stream, member.at, member.size):
            digest.update(piece)
        if digest.hexdigest() != wanted:
            raise wrong(label, f"the content of blob {wanted[:12]} is not what its name says")


def _parsed(stream: BinaryIO, members: dict[str, _Member], label: str) -> Bundle:
    def small(name: str, most: int = _SMALL) -> bytes:
        member = members.get(name)
        if member is None:
            raise wrong(label, f"it lacks {name}")
        if member.size > most:
            raise wrong(label, f"its {name} is too large")
        return b"".join(_pieces(stream, member.at, member.size))

    def as_json(name: str) -> Any:
        try:
            return json.loads(small(name))
        except (ValueError, RecursionError):
            raise wrong(label, f"its {name} is damaged") from None

    index = as_json("index.json")
    rows = index.get("manifests") if isinstance(index, dict) else None
    ours = (
        [r for r in rows if isinstance(r, dict) and r.get("artifactType") == ARTIFACT] if isinstance(rows, list) else []
    )
    if len(ours) != 1:
        hint = f"kap load -i {label} reads archives of images" if not ours else ""
        raise wrong(label, "it holds no project" if not ours else "it holds several projects", hint)
    artifact = as_json(_blob_name(ours[0], label))
    if not isinstance(artifact, dict) or not isinstance(artifact.get("config"), dict):
        raise wrong(label, "its list of files is damaged")
    name = _blob_name(artifact["config"], label)
    manifest = manifests.parse(small(name, manifests.MOST_BYTES), label)
    for entry in manifest.entries:
        if entry.kind == "file":
            member = members.get(_of(entry.digest))
            if member is None or member.size != entry.size:
                raise wrong(label, f"it lacks the content of {entry.path[:80]!r}, or its size is another")
    return Bundle(
        label, stream, members, manifest, f"sha256:{name[-64:]}", _image_blobs(as_json, members, manifest, label)
    )


def _image_blobs(as_json: Any, members: dict[str, _Member], manifest: Manifest, label: str) -> frozenset[str]:
    rows = as_json("manifest.json")
    if not isinstance(rows, list) or not all(isinstance(r, dict) for r in rows):
        raise wrong(label, "its list of images is damaged")
    needed: set[str] = set()
    configs = set()
    names = {reference.familiar(reference.parse(i.name)) for i in manifest.images}
    for row in rows:
        paths, tags = row.get("Layers"), row.get("RepoTags") or []
        if not isinstance(row.get("Config"), str) or not isinstance(paths, list) or not isinstance(tags, list):
            raise wrong(label, "its list of images is damaged")
        configs.add(row["Config"])
        needed.update(str(p) for p in (row["Config"], *paths))
        if not {str(t) for t in tags} <= names:
            raise wrong(label, "it has an image under a name that its project does not use")
    if not needed <= members.keys():
        raise wrong(label, "it lacks a part of an image")
    if configs != {_of(i.id) for i in manifest.images}:
        raise wrong(label, "its images are not those of its project")
    return frozenset(needed)


def _of(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/', 1)}"


def _blob_name(row: Any, label: str) -> str:
    digest = row.get("digest")
    if not isinstance(digest, str) or not _NAME.fullmatch(_of(digest)):
        raise wrong(label, "a digest in it is damaged")
    return _of(digest)


# -- taking it over -----------------------------------------------------------------------------------------------


def load_images(bundle: Bundle, store: Store, emit: Emit) -> None:
    """Put its images in the store under the project's names, stand-ins marked as such."""
    if bundle.manifest.images and not _all_here(bundle, store):
        archive.load(_Images(bundle), store, emit)  # type: ignore[arg-type]
    for image in bundle.manifest.images:
        have = store.find(image.id)
        config = store.read_blob(image.id)
        if have is None or config is None:
            raise wrong(bundle.label, f"the image {image.name[:80]} is not what it says")
        store.put_image(config, have.layers, (image.name,), image.standin)


def _all_here(bundle: Bundle, store: Store) -> bool:
    found = [store.find(i.id) for i in bundle.manifest.images]
    return all(f is not None and all(store.has_layer(d) for d in f.layers) for f in found)


class _Images(io.RawIOBase):
    """The archive with nothing in it but images: what `archive.load` reads."""

    def __init__(self, bundle: Bundle) -> None:
        wanted = {*bundle.image_blobs, "manifest.json"}
        chosen = [m for n, m in bundle.members.items() if n in wanted]
        self._ranges = [(m.start, m.end - m.start) for m in chosen]
        self._stream = bundle.stream
        self._end = tarwrite.END

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        size = 1 << 20 if size < 0 else size
        while self._ranges:
            at, left = self._ranges[0]
            self._stream.seek(at)
            piece = self._stream.read(min(size, left))
            if len(piece) == left or not piece:
                self._ranges.pop(0)
            else:
                self._ranges[0] = (at + len(piece), left - len(piece))
            if piece:
                return piece
        end, self._end = self._end, b""
        return end


def extract(bundle: Bundle, folder: str, emit: Emit) -> bool:
    """The project's files into a new folder, whole or not at all. False if they are there from an earlier time.

    A folder with something else in it is refused: what is there may be somebody's work.
    """
    parent, _, name = os.path.abspath(folder).rpartition("/")
    if os.path.lexists(folder):
        if _mark_of(folder) == bundle.digest:
            return False
        if not os.path.isdir(folder) or os.listdir(folder):
            raise ImageError(
                f"{folder} is there already and has other files than {bundle.label}",
                hint="choose another folder with --to, or move that one away",
                code="KAP520",
            )
    temporary = f"{parent}/.{name}.kap-bundle"
    try:
        os.makedirs(parent, exist_ok=True)
        with _held(temporary, bundle.label) as held:
            for entry in sorted(bundle.manifest.entries, key=lambda e: (e.kind == "link", e.path)):
                _place(bundle, entry, temporary)
            with open(f"{temporary}/{MARK}", "w", encoding="ascii") as f:
                f.write(f"{bundle.digest}\n")
            for entry in reversed(sorted(bundle.manifest.entries)):
                if entry.kind == "dir":
                    os.chmod(f"{temporary}/{entry.path}", entry.mode)
            os.chmod(temporary, 0o755)
            files.syncfs(held)
            os.rename(temporary, folder)  # an empty folder gives way
    except OSError as e:
        raise layers.fault(e, f"{bundle.label} could not be extracted to {folder}") from e
    emit(Progress("bundle", bundle.label, "Extracted", "done", details=folder))
    return True


@contextmanager
def _held(temporary: str, label: str) -> Iterator[int]:
    """An empty folder for ourselves: what a killed one has left goes, what a living one makes is waited for."""
    try:
        os.mkdir(temporary, 0o700)
    except FileExistsError:
        pass
    fd = os.open(temporary, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ImageError(f"another kap extracts {label} just now", hint="wait for it", code="KAP520") from None
        for name in os.listdir(temporary):
            trees.remove(f"{temporary}/{name}")
        try:
            yield fd
        except BaseException:
            trees.remove(temporary)
            raise
    finally:
        os.close(fd)


def _place(bundle: Bundle, entry: Entry, top: str) -> None:
    path = f"{top}/{entry.path}"
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if entry.kind == "dir":
        os.makedirs(path, exist_ok=True)
    elif entry.kind == "link":
        os.symlink(entry.target, path)
    else:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as f:
            for piece in bundle.content(_of(entry.digest)):
                f.write(piece)
            os.fchmod(fd, entry.mode)


def _mark_of(folder: str) -> str:
    try:
        with open(f"{folder}/{MARK}", encoding="ascii") as f:
            return f.read(100).strip()
    except (OSError, UnicodeDecodeError):
        return ""
