"""What a build reads: its Dockerfile, the ignore rules, the folder (a repository or an archive is fetched first)."""

from __future__ import annotations

import os
from collections.abc import Mapping

from kapelle.errors import ImageError
from kapelle.images import layoutread
from kapelle.images.build import remote
from kapelle.images.build.cache import Cache
from kapelle.images.build.context import BuildOptions
from kapelle.images.build.ignore import Ignore
from kapelle.images.build.rootfs import Rootfs
from kapelle.images.store import Store
from kapelle.light import NamedTuple
from kapelle.model.service import Build


class Inputs(NamedTuple):
    folder: str
    text: str  # of the Dockerfile
    name: str  # what messages call it
    ignore: Ignore


def read(wanted: Build, cache: Cache, environ: Mapping[str, str]) -> Inputs:
    """ImageError KAP511 for what is not there."""
    folder = folder_of(wanted.context, cache, environ)
    if not os.path.isdir(folder):
        raise ImageError(
            f"unable to prepare context: path {wanted.context} not found", code="KAP511", hint="check build.context"
        )
    if wanted.dockerfile.startswith(("http://", "https://")):
        data, _ = remote.download(wanted.dockerfile, environ, None, "Dockerfile ")
        try:
            return Inputs(folder, data.decode(), wanted.dockerfile, _ignore(folder, ""))
        except UnicodeDecodeError:
            raise ImageError(f"{wanted.dockerfile} is no text in UTF-8", code="KAP511") from None
    path = os.path.join(folder, wanted.dockerfile)
    if wanted.dockerfile_inline:
        return Inputs(folder, wanted.dockerfile_inline, "dockerfile_inline", _ignore(folder, ""))
    if folder != wanted.context:  # fetched: no link in it leads out
        path = f"{folder}/{Rootfs((folder,)).resolve(wanted.dockerfile)}"
    if wanted.dockerfile == "Dockerfile" and not os.path.exists(path) and os.path.exists(f"{folder}/dockerfile"):
        path = os.path.join(folder, "dockerfile")
    return Inputs(folder, text_of(path), _shown(path), _ignore(folder, path))


def folder_of(context: str, cache: Cache, environ: Mapping[str, str]) -> str:
    """The folder of a context: a path, a repository (cloned), an archive behind a URL (unpacked)."""
    if not remote.is_remote(context):
        return context
    if remote.is_git(context):
        wanted = remote.repository(context)
        place = cache.fresh("git")
        remote.clone(wanted, place, environ, None)
        return remote.inside(f"{place}/tree", wanted.folder)
    place = cache.fresh("context")
    data, _ = remote.download(context, environ, None, "build context ")
    file = f"{place}/archive"
    with open(file, "wb") as f:
        f.write(data)
    return unpacked(file, f"{place}/tree", context)


def context(
    name: str, value: str, options: BuildOptions, store: Store, cache: Cache, environ: Mapping[str, str]
) -> str:
    """What an additional context is, brought here: the path of a folder, or docker-image://NAME."""
    if value.startswith("docker-image://"):
        return value
    try:
        if value.startswith(layoutread.PREFIX):
            return f"docker-image://{layoutread.load(value, options.directory, store).id}"
        folder = folder_of(value, cache, environ)
    except ImageError as e:
        e.where = e.where or options.places.get("additional_contexts")
        raise
    if not os.path.isdir(folder):
        raise ImageError(
            f"additional context {name}: path {folder} not found",
            where=options.places.get("additional_contexts"), code="KAP511",
            hint="check build.additional_contexts (or --build-context)",
        )  # fmt: skip
    return folder


def unpacked(file: str, folder: str, label: str) -> str:
    """A context that is an archive, or a Dockerfile alone."""
    from kapelle.images.build import archives
    from kapelle.images.build.copying import LayerWriter

    os.makedirs(folder)
    if archives.is_archive(file):
        archives.extract(file, LayerWriter(folder, Rootfs(())), "", None)
    else:
        try:
            with open(file, encoding="utf-8") as f:
                text = f.read()
        except UnicodeDecodeError:
            raise ImageError(
                f"build context {label} is neither a tar archive nor a Dockerfile", code="KAP511"
            ) from None
        with open(f"{folder}/Dockerfile", "w", encoding="utf-8") as f:
            f.write(text)
    return folder


def text_of(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as f:
            return f.read()
    except UnicodeDecodeError:
        raise ImageError(f"{_shown(path)} is no text in UTF-8", code="KAP511") from None
    except OSError as e:
        raise ImageError(
            f"failed to read dockerfile: open {_shown(path)}: {(e.strerror or '').lower()}",
            hint="name it with build.dockerfile",
            code="KAP511",
        ) from None


def _ignore(folder: str, dockerfile: str) -> Ignore:
    """Rules of Dockerfile.dockerignore if it is there, else of .dockerignore."""
    for candidate in (f"{dockerfile}.dockerignore" if dockerfile else "", os.path.join(folder, ".dockerignore")):
        if candidate and os.path.isfile(candidate):
            with open(candidate, encoding="utf-8", errors="replace") as f:
                return Ignore(f.read().removeprefix("\ufeff"))
    return Ignore("")


def _shown(path: str) -> str:
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else relative
