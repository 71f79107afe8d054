"""One image of an OCI layout's folder, as a build context names it: oci-layout://PATH[:TAG][@DIGEST]."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

from kapelle.errors import ImageError
from kapelle.images import manifests, platforms
from kapelle.images.store import Descriptor, Store
from kapelle.images.types import Image
from kapelle.light import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kapelle.images import archive

PREFIX = "oci-layout://"
_PIECE = 1 << 20
_DEPTH = 3  # indexes in indexes
_NAMES = ("org.opencontainers.image.ref.name", "io.containerd.image.name")


def load(text: str, directory: str, store: Store) -> Image:
    """The image, brought into the store without a name. Relative paths begin at `directory`. ImageError KAP511."""
    place, _, digest = text.removeprefix(PREFIX).partition("@")
    folder, tag = _split(place)
    folder = os.path.join(directory, folder)
    row = _row(folder, tag, digest, text)
    manifest, parsed = _manifest(folder, row, text)
    have = store.image(parsed.config.digest)
    if have is not None and all(store.has_layer(d) for d in have.layers):
        return have
    from kapelle.images import archive

    members = _members(folder, manifest, parsed)
    return archive.load_members(members, store, text)[0]


def _split(place: str) -> tuple[str, str]:
    """PATH[:TAG]: the tag is behind the last colon of the last part."""
    head, slash, last = place.rpartition("/")
    name, _, tag = last.partition(":")
    return head + slash + name, tag


def _row(folder: str, tag: str, digest: str, text: str) -> dict[str, Any]:
    index = _json(f"{folder}/index.json", text)
    rows = [r for r in index.get("manifests") or () if isinstance(r, dict)] if isinstance(index, dict) else []
    if digest:
        found = [r for r in rows if r.get("digest") == digest]
        return found[0] if found else {"digest": digest}  # a layout may hold more than its index names
    wanted = tag or "latest"
    for row in rows:
        notes = row.get("annotations") or {}
        names = [str(notes.get(key) or "") for key in _NAMES] if isinstance(notes, dict) else []
        if any(name == wanted or name.rpartition("/")[2].endswith(f":{wanted}") for name in names):
            return row
    if len(rows) == 1 and not tag:
        return rows[0]
    raise _wrong(text, f'no image in it is named "{wanted}"', f"write {PREFIX}PATH:TAG or {PREFIX}PATH@sha256:…")


def _manifest(folder: str, row: dict[str, Any], text: str) -> tuple[bytes, manifests.Manifest]:
    digest, kind = str(row.get("digest") or ""), str(row.get("mediaType") or "")
    for _ in range(_DEPTH + 1):
        data = _blob(folder, digest, text)
        parsed = manifests.parse(data, kind, text)
        if isinstance(parsed, manifests.Manifest):
            return data, parsed
        place = platforms.best([m.platform for m in parsed.manifests], platforms.host())
        if place is None:
            raise platforms.misfit(text, [m.platform for m in parsed.manifests], platforms.host(), asked=False)
        digest, kind = parsed.manifests[place].blob.digest, parsed.manifests[place].blob.media_type
    raise _wrong(text, "its indexes name each other too deeply")


def _members(folder: str, manifest: bytes, parsed: manifests.Manifest) -> Iterator[archive.Member]:
    """A layout with nothing but that image, its index without a name."""
    import hashlib

    digest = f"sha256:{hashlib.sha256(manifest).hexdigest()}"
    row = {"mediaType": "", "digest": digest, "size": len(manifest)}
    yield "index.json", "", [json.dumps({"schemaVersion": 2, "manifests": [row]}).encode()]
    yield _name(digest), "", [manifest]
    for blob in dict.fromkeys((parsed.config, *parsed.layers)):
        yield _name(blob.digest), "", _pieces(folder, blob)


def _pieces(folder: str, blob: Descriptor) -> Iterator[bytes]:
    try:
        with open(f"{folder}/{_name(blob.digest)}", "rb") as f:
            yield from iter(lambda: f.read(_PIECE), b"")
    except FileNotFoundError:
        return  # `archive` says which part is missing


def _name(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/', 1)}"


def _blob(folder: str, digest: str, text: str) -> bytes:
    algorithm, _, digits = digest.partition(":")
    if not digits or not set(digits) <= set("0123456789abcdef") or not algorithm.isalnum():
        raise _wrong(text, f'"{digest[:80]}" is not a digest')
    try:
        with open(f"{folder}/{_name(digest)}", "rb") as f:
            return f.read(manifests.MOST_BYTES + 1)
    except OSError as e:
        raise _wrong(text, f"{digest[:19]}: {(e.strerror or '').lower()}") from None


def _json(path: str, text: str) -> Any:
    try:
        with open(path, "rb") as f:
            return json.load(f)
    except OSError as e:
        raise _wrong(text, f"{path}: {(e.strerror or '').lower()}", "name the folder of an OCI layout") from None
    except (ValueError, RecursionError):
        raise _wrong(text, f"{path} is damaged") from None


def _wrong(text: str, why: str, hint: str = "") -> ImageError:
    return ImageError(f"{text} can't be read as a context: {why}", hint=hint, code="KAP511")
