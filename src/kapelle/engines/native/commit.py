"""A container's changes as a new image: one more layer over its image's, and settings by Dockerfile instructions."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Mapping

from kapelle.engines.native import removal, stacking
from kapelle.errors import EngineError, ImageError
from kapelle.images import tarwrite
from kapelle.images.build import builder
from kapelle.images.store import Store
from kapelle.images.tarread import Stream
from kapelle.images.types import Image, RunRequest
from kapelle.images.unpack import Unpacker
from kapelle.light import Any
from kapelle.model.service import Build
from kapelle.plan.observed import Container
from kapelle.state import store as files
from kapelle.state.paths import Paths

INSTRUCTIONS = ("CMD", "ENTRYPOINT", "ENV", "EXPOSE", "LABEL", "ONBUILD", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR")
_MADE = ("/etc/hosts", "/etc/resolv.conf", "/etc/hostname", "/proc", "/sys", "/dev")  # places of mounts of ours


def commit(
    paths: Paths,
    store: Store,
    container: Container,
    name: str,
    *,
    author: str = "",
    message: str = "",
    changes: tuple[str, ...] = (),
    environ: Mapping[str, str],
) -> Image:
    """The image made, named `name` if that is given. EngineError, ImageError. The container is at rest, or paused."""
    _check(changes)
    directory = paths.container(container.project, container.id)
    intent: dict[str, Any] | None = files.read_json(f"{directory}/container.json")
    base = store.find(container.image_id)
    if intent is None or base is None:
        raise EngineError(f"the image of {container.name} is not here any more", hint=f"kap pull {container.service}")
    with store.using():  # the new layer has no image yet
        return _recorded(store, base, intent, name, author, message, changes, environ)


def _recorded(
    store: Store,
    base: Image,
    intent: Mapping[str, Any],
    name: str,
    author: str,
    message: str,
    changes: tuple[str, ...],
    environ: Mapping[str, str],
) -> Image:
    layer = _layer(store, intent)
    config = dict(base.config)
    made = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    row = {"created": made, "created_by": " ".join(intent["command"]), "author": author, "comment": message}
    config.update(
        created=made,
        author=author,
        config={**(config.get("config") or {}), "Image": base.id},
        history=[*(config.get("history") or ()), {k: v for k, v in row.items() if v}],
    )
    names = (name,) if name else ()
    image = store.put_image(config, (*base.layers, layer), () if changes else names)
    return changed(store, image, name, changes, environ) if changes else image


def _layer(store: Store, intent: Mapping[str, Any]) -> str:
    launch = intent["launch"]
    with store.new_layer() as place, tempfile.TemporaryDirectory(dir=place) as own:
        root = os.open(f"{place}/diff", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            Unpacker(root).run(Stream(tarwrite.layer(stacking.changes(launch, own))))
        finally:
            os.close(root)
        for target in _MADE:
            removal.unmake_target(f"{place}/diff", target)
        return store.commit_layer(f"{place}/diff")


def _check(changes: tuple[str, ...]) -> None:
    for change in changes:
        word = change.split(None, 1)[0].upper() if change.strip() else ""
        if word not in INSTRUCTIONS:
            raise EngineError(f"{word or 'an empty line'} is not a valid change command", hint=", ".join(INSTRUCTIONS))


def changed(store: Store, image: Image, name: str, changes: tuple[str, ...], environ: Mapping[str, str]) -> Image:
    """The image with its settings changed by Dockerfile instructions, named `name` if that is given."""
    _check(changes)

    def run(_request: RunRequest) -> int:
        raise ImageError("a change runs nothing")

    with tempfile.TemporaryDirectory(prefix="kap-commit-") as empty:
        text = f"FROM {image.id}\n" + "\n".join(changes) + "\n"
        options = builder.BuildOptions(name or image.id, "", Build(empty, dockerfile_inline=text))
        made = builder.build(options, store, run, lambda _reference: image, lambda _event: None, environ)
    return made
