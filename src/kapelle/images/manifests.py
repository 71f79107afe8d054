"""Manifests, indexes and configs, read from bytes that anyone may have written: every field checked, all bounded.

OCI image-spec manifest.md, image-index.md, config.md; Docker image manifest version 2, schema 2.
"""

from __future__ import annotations

import json

from kapelle.errors import ImageError
from kapelle.images.platforms import Platform
from kapelle.images.store import Descriptor
from kapelle.light import Any, NamedTuple

MOST_BYTES = 4 << 20  # of a manifest (distribution-spec: a registry should take 4 MiB)
MOST_CONFIG = 16 << 20
_MOST_LAYERS = 1000
_MOST_OFFERS = 2000
_MOST_URLS = 20

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
ACCEPT = (OCI_INDEX, DOCKER_LIST, OCI_MANIFEST, DOCKER_MANIFEST)
_SCHEMA1 = "application/vnd.docker.distribution.manifest.v1"


class Offer(NamedTuple):
    """One image of an index."""

    blob: Descriptor
    platform: Platform


class Index(NamedTuple):
    manifests: tuple[Offer, ...]


class Manifest(NamedTuple):
    config: Descriptor
    layers: tuple[Descriptor, ...]


def parse(data: bytes, media_type: str, what: str) -> Index | Manifest:
    """Read a manifest or index. ImageError (naming `what`) if it is neither or breaks a rule."""
    if len(data) > MOST_BYTES:
        raise _bad(what, f"its manifest has more than {MOST_BYTES >> 20} MiB")
    tree = _object(data, what, "manifest")
    said = tree.get("mediaType")
    kind = said if isinstance(said, str) and said else media_type.partition(";")[0].strip()
    if tree.get("schemaVersion") == 1 or kind.startswith(_SCHEMA1):
        raise ImageError(
            f"{what} is in the old format of 2015 (schema 1), which nobody writes any more",
            hint="push it again with a current docker, or choose a newer tag",
            code="KAP504",
        )
    both = "manifests" in tree and ("layers" in tree or "config" in tree)
    if both:  # CVE-2021-41190: one document that is read in two ways
        raise _bad(what, "it is a manifest and an index at once")
    if kind in (OCI_INDEX, DOCKER_LIST) or (kind not in (OCI_MANIFEST, DOCKER_MANIFEST) and "manifests" in tree):
        return Index(tuple(_offers(tree, what)))
    config = tree.get("config")
    if not isinstance(config, dict):
        raise _bad(what, f'its manifest has no config (media type "{kind[:80]}")')
    layers = tree.get("layers", [])
    if not isinstance(layers, list) or len(layers) > _MOST_LAYERS:
        raise _bad(what, f"its manifest has no list of at most {_MOST_LAYERS} layers")
    return Manifest(_descriptor(config, what), tuple(_descriptor(row, what) for row in layers))


def _offers(tree: dict[str, Any], what: str) -> list[Offer]:
    rows = tree.get("manifests")
    if not isinstance(rows, list) or len(rows) > _MOST_OFFERS:
        raise _bad(what, f"its index has no list of at most {_MOST_OFFERS} manifests")
    offers = []
    for row in rows:
        blob = _descriptor(row, what)
        place = row.get("platform")
        place = place if isinstance(place, dict) else {}
        parts = [place.get(k) for k in ("os", "architecture", "variant")]
        texts = [p if isinstance(p, str) else "" for p in parts]
        offers.append(Offer(blob, Platform(texts[0] or "linux", texts[1], texts[2])))
    return offers


def _descriptor(row: Any, what: str) -> Descriptor:
    if not isinstance(row, dict):
        raise _bad(what, "a descriptor in its manifest is no object")
    kind, digest, size = row.get("mediaType", ""), row.get("digest"), row.get("size")
    if not isinstance(digest, str) or not isinstance(kind, str):
        raise _bad(what, "a descriptor in its manifest has no digest")
    algorithm, _, digits = digest.partition(":")
    lengths = {"sha256": 64, "sha384": 96, "sha512": 128}
    if len(digits) != lengths.get(algorithm) or not set(digits) <= set("0123456789abcdef"):
        raise _bad(what, f'"{digest[:80]}" in its manifest is not a digest')
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < 1 << 42:
        raise _bad(what, "a descriptor in its manifest has no sensible size")
    urls = row.get("urls") or ()
    if not isinstance(urls, list | tuple) or len(urls) > _MOST_URLS or not all(isinstance(u, str) for u in urls):
        raise _bad(what, "a descriptor in its manifest has no list of URLs")
    return Descriptor(kind, digest, size, tuple(urls))


def diff_ids(config: bytes, what: str) -> tuple[str, ...]:
    """The diff-IDs an image config names, lowest layer first. ImageError if it is no image config."""
    tree = _object(config, what, "config")
    rootfs = tree.get("rootfs")
    ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if ids is None and isinstance(rootfs, dict):
        ids = []
    if not isinstance(ids, list) or len(ids) > _MOST_LAYERS:
        raise _bad(what, "its config names no layers: it is no container image")
    for digest in ids:
        digits = digest.removeprefix("sha256:") if isinstance(digest, str) else ""
        if digits == digest or len(digits) != 64 or not set(digits) <= set("0123456789abcdef"):
            raise _bad(what, f'"{str(digest)[:80]}" in its config is not a diff-ID')
    return tuple(ids)


def platform_of(config: bytes, what: str) -> Platform:
    """The platform an image config is for; fields it leaves out are ""."""
    tree = _object(config, what, "config")
    texts = [tree.get(k) if isinstance(tree.get(k), str) else "" for k in ("os", "architecture", "variant")]
    return Platform(*(str(t) for t in texts))


def _object(data: bytes, what: str, kind: str) -> dict[str, Any]:
    try:
        tree = json.loads(data)
    except (ValueError, RecursionError) as e:
        raise _bad(what, f"its {kind} is no JSON") from e
    if not isinstance(tree, dict):
        raise _bad(what, f"its {kind} is no JSON object")
    return tree


def _bad(what: str, why: str) -> ImageError:
    return ImageError(f"{what} can't be read: {why}", code="KAP504")
