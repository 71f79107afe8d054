"""Images of the store as `docker image ls`, `inspect` and `history` show them. Values in, text and objects out."""

from __future__ import annotations

import fnmatch
import time
from collections.abc import Iterator, Mapping, Sequence

from kapelle.errors import ImageError, UsageError
from kapelle.images import reference
from kapelle.images.types import Image
from kapelle.light import Any, NamedTuple
from kapelle.render import tables, words

NONE = "<none>"
_FILTERS = ("reference", "dangling", "label", "before", "since", "until")


class Named(NamedTuple):
    """One row of the list: an image under one of its names."""

    image: Image
    repository: str = NONE
    tag: str = NONE
    digest: str = NONE


def rows(images: Sequence[Image], *, digests: bool = False) -> Iterator[Named]:
    """Newest first; each name is a row, an image without one a row of its own."""
    for image in images:
        pins = {}
        for name in image.repo_digests:
            ref = reference.parse(name)
            pins[reference.familiar(ref._replace(tag="", digest=""))] = ref.digest
        told = False
        for name in image.names:
            ref = reference.parse(name)
            repository = reference.familiar(ref._replace(tag="", digest=""))
            yield Named(image, repository, ref.tag or NONE, pins.get(repository, NONE) if digests else NONE)
            told = True
        if not told and pins:
            for repository, digest in pins.items():
                yield Named(image, repository, NONE, digest if digests else NONE)
            told = True
        if not told:
            yield Named(image)


def chosen(found: Sequence[Named], wanted: str, filters: Sequence[str], everything: Sequence[Image]) -> list[Named]:
    """The rows that REPOSITORY[:TAG] and the filters let through. UsageError for a filter that is none."""
    kept = list(found)
    if wanted:
        ref = reference.parse(wanted)
        name = reference.familiar(ref._replace(tag="", digest=""))
        exact = ":" in wanted.rpartition("/")[2]
        kept = [r for r in kept if r.repository == name and (not exact or r.tag == ref.tag)]
    tests: dict[str, list[str]] = {}
    for row in filters:
        key, equals, value = row.partition("=")
        if not equals or key not in _FILTERS:
            raise UsageError(f"invalid filter '{row}'", hint=f"one of {', '.join(f'{f}=…' for f in _FILTERS)}")
        tests.setdefault(key, []).append(value)
    for key, values in tests.items():
        kept = [r for r in kept if any(_passes(r, key, v, everything) for v in values)]
    return kept


def _passes(row: Named, key: str, value: str, everything: Sequence[Image]) -> bool:
    if key == "dangling":
        return (row.tag == NONE and row.repository == NONE) == (value.lower() in ("1", "t", "true"))
    if key == "label":
        label, equals, content = value.partition("=")
        labels = (row.image.config.get("config") or {}).get("Labels") or {}
        return label in labels and (not equals or labels[label] == content)
    if key == "reference":
        full = f"{row.repository}:{row.tag}"
        base = row.repository.rpartition("/")[2]
        candidates = (full, row.repository, f"{base}:{row.tag}", base) if "/" not in value else (full, row.repository)
        return any(fnmatch.fnmatchcase(c, value) for c in candidates)
    if key == "until":
        from kapelle.cli.common import moment

        return row.image.created * 1e9 < (moment(value) or 0)
    other = _one(value, everything)
    return row.image.created < other.created if key == "before" else row.image.created > other.created


def _one(name: str, everything: Sequence[Image]) -> Image:
    for image in everything:
        if image.id.removeprefix("sha256:").startswith(name.removeprefix("sha256:")):
            return image
        if str(reference.parse(name)) in image.names:
            return image
    raise ImageError(f"No such image: {name}", code="KAP502")


def short(image_id: str, *, whole: bool = False) -> str:
    return image_id if whole else image_id.removeprefix("sha256:")[:12]


def ago(created: float, now: float | None = None) -> str:
    return f"{words.duration((time.time() if now is None else now) - created)} ago" if created else "N/A"


def table(found: Sequence[Named], *, whole: bool, digests: bool) -> str:
    headers = ("REPOSITORY", "TAG", *(("DIGEST",) if digests else ()), "IMAGE ID", "CREATED", "SIZE")
    cells = [
        (
            r.repository,
            r.tag,
            *((r.digest,) if digests else ()),
            short(r.image.id, whole=whole),
            ago(r.image.created),
            words.size(r.image.size),
        )
        for r in found
    ]
    return tables.table(headers, cells)


def listed(row: Named, containers: int, *, whole: bool) -> dict[str, str]:
    """One object of `image ls --format json`."""
    size = words.size(row.image.size)
    return {
        "Containers": str(containers),
        "CreatedAt": words.clock(row.image.created),
        "CreatedSince": ago(row.image.created),
        "Digest": row.digest,
        "ID": short(row.image.id, whole=whole),
        "Repository": row.repository,
        "SharedSize": "N/A",
        "Size": size,
        "Tag": row.tag,
        "UniqueSize": "N/A",
        "VirtualSize": size,
    }


def inspected(image: Image, lowers: Sequence[str], tagged: float) -> dict[str, Any]:
    """The object of `docker image inspect`."""
    config: Mapping[str, Any] = image.config
    history = config.get("history") or [{}]
    last = history[-1] if isinstance(history[-1], dict) else {}
    data = {"LowerDir": ":".join(reversed(lowers))} if lowers else None
    value: dict[str, Any] = {
        "Id": image.id,
        "RepoTags": [reference.familiar(reference.parse(n)) for n in image.names],
        "RepoDigests": [reference.familiar(reference.parse(n)._replace(tag="")) for n in image.repo_digests],
        "Parent": "",
        "Comment": str(last.get("comment") or ""),
        "Created": config.get("created") or "",
        "DockerVersion": str(config.get("docker_version") or ""),
        "Author": str(config.get("author") or ""),
        "Architecture": str(config.get("architecture") or ""),
        **({"Variant": str(config["variant"])} if config.get("variant") else {}),
        "Os": str(config.get("os") or ""),
        "Size": image.size,
        "GraphDriver": {"Data": data, "Name": "overlay2"},
        "RootFS": {"Type": "layers", "Layers": list(image.layers)},
        "Metadata": {"LastTagTime": _zoned(tagged)},
        "Config": _settings(config.get("config") or {}),
    }
    return {**value, "StandIn": image.standin} if image.standin else value


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The image's settings with the fields that templates ask for always there."""
    known = {
        "User": "",
        "Env": None,
        "Entrypoint": None,
        "Cmd": None,
        "Image": "",
        "Volumes": None,
        "WorkingDir": "",
        "OnBuild": None,
        "Labels": None,
        "ExposedPorts": None,
    }
    return {**known, **config}


def _zoned(seconds: float) -> str:
    from kapelle.cli.inspecting import zoned

    return zoned(seconds) if seconds else "0001-01-01T00:00:00Z"
