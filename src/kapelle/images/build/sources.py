"""Where files of a step come from: the build context, a stage, an image, a named context."""

from __future__ import annotations

from kapelle.errors import ImageError, KapelleError, Position
from kapelle.images import reference
from kapelle.images.build.context import Context
from kapelle.images.build.ignore import Ignore
from kapelle.images.build.rootfs import Rootfs
from kapelle.images.build.state import StageState
from kapelle.images.types import Image
from kapelle.light import NamedTuple


class Source(NamedTuple):
    tree: Rootfs
    key: str  # of layers; "" for a folder of the host, whose files are digested
    ignore: Ignore | None
    layers: tuple[str, ...] = ()  # directories, lowest first


def rootfs(context: Context, state: StageState) -> Rootfs:
    return Rootfs(tuple(context.store.layer_dir(d) for d in state.layers))


def named(context: Context, name: str) -> str | None:
    """What an additional context of that name is: a path, or docker-image://NAME."""
    contexts = dict(context.options.build.additional_contexts)
    if name in contexts:
        return contexts[name]
    if not contexts or name == "scratch":
        return None
    try:
        full = str(reference.parse(name))
        return next((v for k, v in contexts.items() if str(reference.parse(k)) == full), None)
    except ImageError:
        return None


def source(context: Context, name: str, where: Position) -> Source:
    """`--from=NAME`, or the build context for ""."""
    if not name:
        return Source(context.tree, "", context.ignore)
    found = named(context, name)
    if found is not None and not found.startswith("docker-image://"):
        return Source(Rootfs((found,)), "", _ignore_of(found))
    stage = context.stages.find(name) if found is None else None
    if stage is not None and stage.number in context.done:
        state = context.done[stage.number]
        layers = tuple(context.store.layer_dir(d) for d in state.layers)
        return Source(Rootfs(layers), state.key, None, layers)
    if found is None and name.isdigit():
        raise ImageError(
            f"invalid stage index {name}: only stages before this one can be used", where=where, code="KAP511"
        )
    image = base_image(context, (found or name).removeprefix("docker-image://"), where)
    layers = context.store.layer_dirs(image)
    return Source(Rootfs(layers), StageState.of_image(image).key, None, layers)


def base_image(context: Context, name: str, where: Position) -> Image:
    try:
        return context.resolve(name)
    except KapelleError as e:
        e.where = e.where or where
        raise


def _ignore_of(path: str) -> Ignore:
    try:
        with open(f"{path}/.dockerignore", encoding="utf-8", errors="replace") as f:
            return Ignore(f.read())
    except OSError:
        return Ignore("")
