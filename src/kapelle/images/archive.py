"""Images out of files: `docker save` and `podman save` archives, OCI layouts as archive or folder.

A docker archive names its parts in manifest.json, an OCI layout in index.json (OCI image-spec image-layout.md);
both may be last. So everything that looks like a layer is unpacked as it streams by, and put in its place
afterwards; standard input needs no temporary copy.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack

from kapelle.errors import ImageError
from kapelle.events import Emit, Progress
from kapelle.images import blobs, compression, layers, manifests, platforms, reference, writeout
from kapelle.images.store import Descriptor, Layer, Store
from kapelle.images.tarread import DIRECTORY, FILE, HARDLINK, SYMLINK, Reader, Stream
from kapelle.images.types import Image
from kapelle.light import Any, BinaryIO, NamedTuple

_SMALL = 8 << 20  # most bytes of a manifest or config
_CHUNK = 1 << 20


class _Part(NamedTuple):
    """One file of the archive: small data, or a layer unpacked to a temporary."""

    data: bytes | None = None
    layer: Layer | None = None
    path: str = ""
    digest: str = ""
    size: int = 0
    kept: str = ""  # digest of the layer's file in `path`, packed or as it came


def load(source: str | BinaryIO, store: Store, emit: Emit) -> list[Image]:
    """Put the images of an archive (path, or an open binary stream; compressed or not) or layout folder in the store.

    Returns them in the archive's order. ImageError if it is none, damaged, or promises what it does not have; then
    nothing of it is kept.
    """
    label = source if isinstance(source, str) else "standard input"
    try:
        with ExitStack() as stack:
            return _load(source, label, store, stack, emit)
    except OSError as e:
        raise layers.fault(e, f"{label} could not be loaded") from e


def _load(source: str | BinaryIO, label: str, store: Store, stack: ExitStack, emit: Emit) -> list[Image]:
    store.prepare()
    stack.enter_context(store.using())
    if isinstance(source, str) and os.path.isdir(source):
        with writeout.meanwhile(store.root):
            parts = _collect(_folder(source), store, stack, emit, label)
        return _place(parts, store, emit, label)
    if isinstance(source, str):
        try:
            stream: BinaryIO = stack.enter_context(open(source, "rb"))
        except OSError as e:
            raise ImageError(f"{source} can't be read: {e.strerror}", hint="give the path of a saved image") from e
    else:
        stream = source
    with writeout.meanwhile(store.root):
        parts = _collect(_members(_chunks(stream), label), store, stack, emit, label)
    return _place(parts, store, emit, label)


def load_members(members: Iterator[Member], store: Store, label: str) -> list[Image]:
    """The images of a layout or archive that is given file by file; nothing is told."""
    try:
        with ExitStack() as stack:
            store.prepare()
            stack.enter_context(store.using())
            return _place(_collect(members, store, stack, _hush, label), store, _hush, label)
    except OSError as e:
        raise layers.fault(e, f"{label} could not be loaded") from e


def _hush(_: object) -> None:
    return None


def import_layer(
    stream: BinaryIO, label: str, store: Store, name: str, *, created: str, comment: str, platform: str = ""
) -> Image:
    """Make an image of a file system's tar archive (compressed or not): one layer, no settings."""
    wanted = platforms.parse(platform) if platform else platforms.host()
    with ExitStack() as stack:
        try:
            store.prepare()
            stack.enter_context(store.using())
            path = stack.enter_context(store.temporary())
            taken = layers.take(store, path, _chunks(stream), what=f"the archive {label}", keep=store.keeps_archives)
            layer = taken.layer
            store.sync()
            _publish(store, layer, path, taken.kept)
        except OSError as e:
            raise layers.fault(e, f"{label} could not be imported") from e
        config = {
            "created": created,
            "os": wanted.os,
            "architecture": wanted.architecture,
            **({"variant": wanted.variant} if wanted.variant else {}),
            "config": {},
            "history": [{"created": created, "comment": comment}],
        }
        return store.put_image(config, (layer.diff_id,), (name,) if name else ())


def _chunks(stream: BinaryIO) -> Iterator[bytes]:
    while True:
        data = stream.read(_CHUNK)
        if not data:
            return
        yield data


Member = tuple[str, str, Iterable[bytes]]  # name, what it links to ("" for a file), content


def _members(chunks: Iterator[bytes], label: str) -> Iterator[Member]:
    try:
        reader = Reader(Stream(compression.plain(chunks)))
        for entry in reader:
            name = _clean(entry.name)
            if entry.kind == FILE:
                yield name, "", (bytes(p) for p in reader.content())
            elif entry.kind == SYMLINK:
                yield name, _clean(os.path.dirname(entry.name) + b"/" + entry.link), ()
            elif entry.kind == HARDLINK:
                yield name, _clean(entry.link), ()
            elif entry.kind != DIRECTORY:
                raise _not_one(label, f"it holds a device ({name})")
    except ImageError as e:
        if e.what.startswith(("a header's checksum", "a size field", "a mode field", "a checksum field")):
            raise _not_one(label, "it is no tar archive") from e
        raise


def _folder(path: str) -> Iterator[Member]:
    for directory, below, names in os.walk(path):
        below.sort()
        for name in sorted(names):
            full = os.path.join(directory, name)
            with open(full, "rb") as f:
                yield os.path.relpath(full, path), "", _chunks(f)


def _clean(name: bytes) -> str:
    """A member's name without ./ and ..: only compared with other names, never opened."""
    return os.path.normpath(os.fsdecode(name)).lstrip("/")


def _collect(members: Iterator[Member], store: Store, stack: ExitStack, emit: Emit, label: str) -> dict[str, _Part]:
    parts: dict[str, _Part] = {}
    links: dict[str, str] = {}
    for name, link, content in members:
        if link:
            links[name] = link
            continue
        pieces = iter(content)
        head = b""
        for piece in pieces:
            head += piece
            if len(head) >= 512:
                break
        whole = _joined(head, pieces)
        if compression.kind_of(head) or head[257:262] == b"ustar" or (len(head) >= 512 and _is_tar(head)):
            parts[name] = _unpack(name, whole, store, stack, emit)
        elif not name.endswith("layer.tar") or head.strip(b"\0"):
            data = _small(whole)
            if data is not None:
                parts[name] = _Part(data, digest=f"sha256:{hashlib.sha256(data).hexdigest()}", size=len(data))
        else:  # an archive of nothing but its end
            parts[name] = _unpack(name, whole, store, stack, emit)
        _check_name(name, parts.get(name), label)
    for name in links:
        target, hops = name, 0
        while target in links and hops < 16:
            target, hops = links[target], hops + 1
        if target in parts:
            parts[name] = parts[target]
    return parts


def _joined(head: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    if head:
        yield head
    yield from rest


def _is_tar(head: bytes) -> bool:
    if not head.strip(b"\0"):
        return True
    try:
        want = int(head[148:156].strip(b" \0") or b"x", 8)
    except ValueError:
        return False
    return want == sum(head[:148]) + 256 + sum(head[156:512])


def _small(content: Iterator[bytes]) -> bytes | None:
    """The content, if it is small enough for JSON; else None, and it is passed over."""
    data: list[bytes] = []
    size = 0
    for piece in content:
        size += len(piece)
        if size <= _SMALL:
            data.append(piece)
    return b"".join(data) if size <= _SMALL else None


def _unpack(name: str, content: Iterator[bytes], store: Store, stack: ExitStack, emit: Emit) -> _Part:
    path = stack.enter_context(store.temporary())
    short = _shown(name)
    emit(Progress("layer", short, "Unpacking"))
    taken = layers.take(store, path, content, what=f"layer {short}", keep=store.keeps_archives)
    emit(Progress("layer", short, "Unpacked", "done"))
    return _Part(None, taken.layer, path, taken.digest, taken.size, taken.kept)


def _check_name(name: str, part: _Part | None, label: str) -> None:
    """A blob of an OCI layout is named by its digest."""
    if part is None or not name.startswith("blobs/sha256/"):
        return
    wanted = "sha256:" + name.removeprefix("blobs/sha256/")
    if part.digest != wanted:
        raise layers.wrong(f"blob {wanted[:19]} of {label}", "digest", wanted, part.digest)


def _shown(name: str) -> str:
    digits = name.removeprefix("blobs/sha256/").removesuffix("/layer.tar").removesuffix(".tar")
    return digits[:12] or name


# -- putting the parts together -----------------------------------------------------------------------------------


class _Found(NamedTuple):
    """One image of the archive, its parts found."""

    config: bytes
    layers: tuple[_Part, ...]
    names: tuple[str, ...]
    manifest: bytes = b""
    descriptors: tuple[Descriptor, ...] = ()


def _place(parts: dict[str, _Part], store: Store, emit: Emit, label: str) -> list[Image]:
    if "manifest.json" in parts and "version" in parts and isinstance(_json(parts, "manifest.json", label), dict):
        found = [_directory(parts, label)]
    elif "manifest.json" in parts:
        found = list(_docker(parts, label))
    elif "index.json" in parts:
        found = list(_oci(parts, label))
    elif "repositories" in parts:
        raise _not_one(label, "it is of Docker before 1.10", "save it again with a newer docker")
    else:
        raise _not_one(label, "it has neither manifest.json nor index.json")
    for image in found:
        wanted = manifests.diff_ids(image.config, label)
        if len(wanted) != len(image.layers):
            raise ImageError(
                f"an image of {label} has {len(image.layers)} layers, its config says {len(wanted)}", code="KAP504"
            )
        for diff_id, part in zip(wanted, image.layers, strict=True):
            if part.layer is None or part.layer.diff_id != diff_id:
                got = part.layer.diff_id if part.layer else "no archive"
                raise layers.wrong(f"layer {diff_id[:19]} of {label}", "content", diff_id, got)
    store.sync()
    for image in found:
        for part in image.layers:
            assert part.layer is not None
            _publish(store, part.layer, part.path, part.kept)
    if store.keeps_archives:
        for image in found:
            for descriptor, part in zip(image.descriptors, image.layers, strict=False):
                if descriptor.digest.startswith("sha256:") and descriptor.digest == part.digest:
                    blobs.keep_plain(store, descriptor)
    loaded = []
    for image in found:
        ids = manifests.diff_ids(image.config, label)
        new = store.put_image(image.config, ids, image.names, manifest=image.manifest)
        emit(Progress("image", image.names[0] if image.names else new.id[:19], "Loaded", "done"))
        loaded.append(new)
    return loaded


def _publish(store: Store, layer: Layer, path: str, kept: str) -> None:
    """Show a layer; of one that is here already only its packed form is new."""
    if not store.has_layer(layer.diff_id):
        store.publish_layer(path, layer.diff_id, kept)
    elif kept and layer.blobs and not any(blobs.has(store, b) for b in store.layer(layer.diff_id).blobs):
        blobs.keep(store, f"{path}/blob", kept)
        store.add_blob(layer.diff_id, layer.blobs[0])


def _docker(parts: dict[str, _Part], label: str) -> Iterator[_Found]:
    rows = _json(parts, "manifest.json", label)
    if not isinstance(rows, list) or not all(isinstance(r, dict) for r in rows):
        raise _not_one(label, "its manifest.json is no list of images")
    # of the same image's manifests Docker's is the original: `save` writes the other form for the index
    known = dict(
        sorted(_packed_manifests(parts, label), key=lambda found: manifests.DOCKER_MANIFEST.encode() in found[1])
    )
    for row in rows:
        config, names = row.get("Config"), row.get("RepoTags") or ()
        if not isinstance(config, str) or not all(isinstance(n, str) for n in names):
            raise _not_one(label, "its manifest.json names no config")
        paths = row.get("Layers") or ()
        chosen = tuple(_part(parts, p, label) for p in paths)
        data = _data(parts, config, label)
        digests = (f"sha256:{hashlib.sha256(data).hexdigest()}", *(part.digest for part in chosen))
        yield _Found(data, chosen, tuple(str(reference.parse(n)) for n in names), known.get(digests, b""))


def _packed_manifests(parts: dict[str, _Part], label: str) -> Iterator[tuple[tuple[str, ...], bytes]]:
    """The manifests of an archive that is an OCI layout too, by the digests of config and layers. Only those whose
    layers are packed: of plain ones Docker makes up a manifest for the archive, which no registry ever saw.
    """
    plain = {part.layer.diff_id for part in parts.values() if part.layer is not None}
    for name, part in parts.items():
        if not name.startswith("blobs/") or part.data is None or b'"layers"' not in part.data:
            continue
        try:
            parsed = manifests.parse(part.data, "", label)
        except ImageError:
            continue  # a config, or nothing of ours
        if isinstance(parsed, manifests.Manifest) and not plain.intersection(d.digest for d in parsed.layers):
            yield (parsed.config.digest, *(d.digest for d in parsed.layers)), part.data


def _directory(parts: dict[str, _Part], label: str) -> _Found:
    """`skopeo copy … dir:`, `podman save --format docker-dir`: one image without a name, its blobs named by digits."""
    data = _data(parts, "manifest.json", label)
    parsed = manifests.parse(data, "", label)
    if isinstance(parsed, manifests.Index):
        raise _not_one(label, "it holds the variants of an image by name only", "copy one: skopeo copy without --all")

    def blob(wanted: Descriptor) -> _Part:
        part = _part(parts, wanted.digest.partition(":")[2], label)
        if part.digest != wanted.digest:
            raise layers.wrong(f"blob {wanted.digest[:19]} of {label}", "digest", wanted.digest, part.digest)
        return part

    config = blob(parsed.config)
    if config.data is None:
        raise _not_one(label, "its config should be JSON and is an archive")
    return _Found(config.data, tuple(blob(d) for d in parsed.layers), (), data, parsed.layers)


def _oci(parts: dict[str, _Part], label: str) -> Iterator[_Found]:
    index = _json(parts, "index.json", label)
    rows = index.get("manifests") if isinstance(index, dict) else None
    if not isinstance(rows, list) or not all(isinstance(r, dict) for r in rows):
        raise _not_one(label, "its index.json has no manifests")
    for row in rows:
        notes = row.get("annotations") or {}
        names = _names(notes if isinstance(notes, dict) else {})
        data = _data(parts, _blob_path(row, label), label)
        parsed = manifests.parse(data, str(row.get("mediaType") or ""), label)
        depth = 0
        while isinstance(parsed, manifests.Index):
            depth += 1
            place = platforms.best([m.platform for m in parsed.manifests], platforms.host())
            if place is None or depth > 3:
                raise platforms.misfit(label, [m.platform for m in parsed.manifests], platforms.host(), asked=False)
            data = _data(parts, "blobs/" + parsed.manifests[place].blob.digest.replace(":", "/", 1), label)
            parsed = manifests.parse(data, parsed.manifests[place].blob.media_type, label)
        config = _data(parts, "blobs/" + parsed.config.digest.replace(":", "/", 1), label)
        chosen = tuple(_part(parts, "blobs/" + d.digest.replace(":", "/", 1), label) for d in parsed.layers)
        yield _Found(config, chosen, names, data, parsed.layers)


def _names(notes: dict[str, Any]) -> tuple[str, ...]:
    full = notes.get("io.containerd.image.name")
    name = full if isinstance(full, str) else notes.get("org.opencontainers.image.ref.name")
    if not isinstance(name, str):
        return ()
    if "/" not in name and ":" not in name and name == name.strip() and not isinstance(full, str):
        return ()  # only a tag, without the image's name
    try:
        return (str(reference.parse(name)),)
    except ImageError:
        return ()


def _blob_path(row: dict[str, Any], label: str) -> str:
    digest = row.get("digest")
    if not isinstance(digest, str) or ":" not in digest:
        raise _not_one(label, "a descriptor in it has no digest")
    return "blobs/" + digest.replace(":", "/", 1)


def _part(parts: dict[str, _Part], name: Any, label: str) -> _Part:
    part = parts.get(os.path.normpath(name)) if isinstance(name, str) else None
    if part is None:
        raise ImageError(
            f"{label} lacks a part that it names: {str(name)[:120]}",
            hint="save the image again, and see that the whole file was copied",
            code="KAP504",
        )
    return part


def _data(parts: dict[str, _Part], name: Any, label: str) -> bytes:
    part = _part(parts, name, label)
    if part.data is None:
        raise _not_one(label, f"{name} should be JSON and is an archive")
    return part.data


def _json(parts: dict[str, _Part], name: str, label: str) -> Any:
    try:
        return json.loads(_data(parts, name, label))
    except (ValueError, RecursionError) as e:
        raise _not_one(label, f"its {name} is damaged") from e


def _not_one(label: str, why: str, hint: str = "") -> ImageError:
    return ImageError(
        f"{label} is not an image archive: {why}",
        hint=hint or "make one with  docker save -o FILE IMAGE  or  kap save -o FILE IMAGE",
        code="KAP504",
    )


# -- out ----------------------------------------------------------------------------------------------------------
