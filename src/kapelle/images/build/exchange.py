"""Caches brought and taken: cache_from and cache_to, as folders (an OCI layout) and inside images.

A cache is layers with the keys of the steps that made them. It is looked at only when the local one lacks a key.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping

from kapelle.errors import ImageError, KapelleError
from kapelle.events import Emit, Notice
from kapelle.images.store import Store
from kapelle.images.types import Image
from kapelle.light import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from kapelle.images.build.context import BuildOptions

CONFIG_TYPE = "application/vnd.kapelle.buildcache.v1+json"
IN_CONFIG = "org.kapelle.cache"  # of an image: [[key, diff-ID], …]
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"


class Brought(NamedTuple):
    """Layers that others have made: key → diff-ID, and where their archives are ("" = in the store)."""

    keys: dict[str, str]
    places: dict[str, str]


class Row(NamedTuple):
    """One line of cache_from or cache_to."""

    type: str
    options: Mapping[str, str]


def row(text: str) -> Row:
    """`type=local,src=./cache`; a name alone is an image's."""
    if "=" not in text:
        return Row("registry", {"ref": text})
    options = dict((k.strip().lower(), v) for k, _, v in (p.partition("=") for p in text.split(",")))
    return Row(options.pop("type", "registry"), options)


def bring(options: BuildOptions, store: Store, resolve: Callable[[str], Image], emit: Emit) -> Brought:
    """Read what cache_from names. What can't be had is told and left out, as BuildKit does."""
    found = Brought({}, {})
    for text in options.build.cache_from:
        wanted = row(text)
        try:
            if wanted.type == "local":
                place = wanted.options.get("src") or wanted.options.get("source") or ""
                _of_folder(os.path.join(options.directory, place), found)
            elif wanted.type in ("registry", "image"):
                _of_image(resolve(wanted.options.get("ref", "")), found)
            else:
                raise ValueError(f"caches of type {wanted.type} are not here")
        except (KapelleError, OSError, ValueError) as e:
            why = e.what if isinstance(e, KapelleError) else str(e)
            of = options.service or "the build"
            emit(Notice(f"cache_from {text} of {of} is not used: {why}", where=options.places.get("cache_from")))
    return found


def _of_folder(path: str, found: Brought) -> None:
    with open(f"{path}/index.json", encoding="utf-8") as f:
        index = json.load(f)
    try:
        manifest = _blob(path, index["manifests"][0]["digest"])
        described = manifest["config"]  # BuildKit's older form is an index: it has none
    except (KeyError, IndexError, TypeError):
        raise _others(path) from None
    if described.get("mediaType") != CONFIG_TYPE:
        raise _others(path)
    config = _blob(path, described["digest"])
    there = {d["digest"] for d in manifest["layers"]}
    for key, diff_id in config["keys"]:
        if diff_id in there:
            found.keys[str(key)] = str(diff_id)
            found.places[str(diff_id)] = _blob_path(path, str(diff_id))


def _others(path: str) -> ValueError:
    return ValueError(f"{path} holds a cache of another builder")


def _of_image(image: Image, found: Brought) -> None:
    rows = image.config.get(IN_CONFIG)
    if not isinstance(rows, list):
        raise ValueError("the image carries no cache (cache_to: [type=inline] makes one that does)")
    for key, diff_id in rows:
        if diff_id in image.layers:
            found.keys[str(key)] = str(diff_id)


def _blob_path(path: str, digest: str) -> str:
    algorithm, _, digits = digest.partition(":")
    if algorithm != "sha256" or len(digits) != 64 or not set(digits) <= set("0123456789abcdef"):
        raise ValueError(f"{digest!r} is no digest")
    return f"{path}/blobs/sha256/{digits}"


def _blob(path: str, digest: str) -> Any:
    import hashlib

    with open(_blob_path(path, digest), "rb") as f:
        data = f.read()
    if f"sha256:{hashlib.sha256(data).hexdigest()}" != digest:
        raise ValueError(f"{digest[:19]} is damaged")
    return json.loads(data)


def layer(key: str, brought: Brought, store: Store) -> str | None:
    """The layer of a key, taken into the store if need be."""
    diff_id = brought.keys.get(key)
    if diff_id is None:
        return None
    if store.has_layer(diff_id):
        return diff_id
    place = brought.places.get(diff_id)
    if not place:
        return None
    from kapelle.images import layers

    def pieces() -> Iterator[bytes]:
        with open(place, "rb") as f:
            yield from iter(lambda: f.read(1 << 20), b"")

    try:
        with store.temporary() as path:
            layers.take(store, path, pieces(), what=f"layer {diff_id[7:19]} of the cache", diff_id=diff_id)
            store.sync()
            store.publish_layer(path, diff_id)
    except (ImageError, OSError):
        return None  # damaged or gone: the step is done again
    return diff_id


def take_out(options: BuildOptions, store: Store, steps: list[tuple[str, str]]) -> None:
    """Write what cache_to names. ImageError KAP511 for a kind that is not here."""
    for text in options.build.cache_to:
        wanted = row(text)
        place = wanted.options.get("dest") or wanted.options.get("destination") or ""
        name = wanted.options.get("ref", "")
        if wanted.type == "local" and place:
            _write(os.path.join(options.directory, place), store, steps)
        elif wanted.type == "registry" and name and options.push is not None:
            chosen = tuple(dict.fromkeys(d for _, d in steps))
            store.put_image({"config": {}, IN_CONFIG: [list(s) for s in steps]}, chosen, (name,))
            options.push(name)
            store.untag(name)
        elif wanted.type != "inline":  # that one is in the image
            raise ImageError(
                f"cache_to {text}: caches of type {wanted.type} are not written here",
                where=options.places.get("cache_to"),
                hint="type=local,dest=FOLDER, type=registry,ref=IMAGE, or type=inline and push the image",
                code="KAP511",
            )


def _write(path: str, store: Store, steps: list[tuple[str, str]]) -> None:
    os.makedirs(f"{path}/blobs/sha256", exist_ok=True)
    rows = []
    for diff_id in dict.fromkeys(d for _, d in steps):
        blob = _blob_path(path, diff_id)
        if not os.path.exists(blob):
            with open(f"{blob}.tmp", "wb") as f:
                for piece in store.layer_archive(diff_id):
                    f.write(piece)
            os.rename(f"{blob}.tmp", blob)
        rows.append({"mediaType": _LAYER, "digest": diff_id, "size": os.path.getsize(blob)})
    config = _put(path, {"keys": [list(s) for s in dict.fromkeys(steps)]})
    manifest = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "artifactType": CONFIG_TYPE,
        "config": {"mediaType": CONFIG_TYPE, **config},
        "layers": rows,
    }
    whole = {"schemaVersion": 2, "manifests": [{"mediaType": _MANIFEST, **_put(path, manifest)}]}
    for name, value in (("oci-layout", {"imageLayoutVersion": "1.0.0"}), ("index.json", whole)):
        with open(f"{path}/{name}.tmp", "w", encoding="utf-8") as f:
            json.dump(value, f)
        os.rename(f"{path}/{name}.tmp", f"{path}/{name}")


def _put(path: str, value: Any) -> dict[str, Any]:
    import hashlib

    data = json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    with open(_blob_path(path, digest), "wb") as f:
        f.write(data)
    return {"digest": digest, "size": len(data)}
