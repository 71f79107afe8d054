"""Taking away what nothing uses: `image prune`, `system prune`, `gc`. A container, also a stopped one, is a use; so is
another `kap` that is pulling, loading or building: then layers stay until the next time.
"""

from __future__ import annotations

from collections.abc import Sequence

from kapelle.cli import common
from kapelle.errors import UsageError
from kapelle.light import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from kapelle.cli.context import Context
    from kapelle.images.types import Image


class Pruned(NamedTuple):
    lines: tuple[str, ...] = ()  # "untagged: …", "deleted: …"
    freed: int = 0
    postponed: bool = False


def images(context: Context, *, everything: bool, filters: Sequence[str] = ()) -> Pruned:
    """Remove dangling images (with `everything` all that no container has), then layers that nothing has."""
    from kapelle.engines.native.layer_users import layers_in_use
    from kapelle.images import reference, upkeep

    store = context.store()
    tests = _tests(filters)
    lines: list[str] = []
    freed, postponed = 0, False

    def used() -> set[str]:
        return {c.image_id for c in context.reader().containers()}

    for image in store.all():
        named = bool(image.names)
        if image.id in used() or (named and not everything) or not _passes(image, tests):
            continue
        told = [f"untagged: {reference.familiar(reference.parse(n))}" for n in (*image.names, *image.repo_digests)]
        told.append(f"deleted: {image.id}")
        if context.dry_run:
            lines += told
            freed += image.size
            continue
        removed = store.remove(
            image.id,
            lambda: layers_in_use(context.paths) | upkeep.cached_layers(store),
            unless=lambda image_id=image.id: image_id in used(),  # type: ignore[misc]
        )
        if removed.postponed:  # another kap may be about to make a container of it
            postponed = True
            break
        lines += [*told, *(f"deleted: {d}" for d in removed.layers)]
        freed += removed.freed
    rest = gc(context)
    return Pruned((*lines, *rest.lines), freed + rest.freed, postponed or rest.postponed)


def gc(context: Context, *, cache: bool = False, mounts: bool = False) -> Pruned:
    """Remove layers that no image, container or (unless `cache`) earlier build has, and what dead processes left."""
    from kapelle.engines.native.layer_users import layers_in_use
    from kapelle.images import upkeep

    store = context.store()
    if context.dry_run:
        return Pruned()
    freed = upkeep.drop_cache(store, mounts=mounts) if cache else 0
    removed = store.gc(lambda: layers_in_use(context.paths) | upkeep.cached_layers(store))
    return Pruned(tuple(f"deleted: {d}" for d in removed.layers), freed + removed.freed, removed.postponed)


def tell(context: Context, done: Pruned, what: str = "Images", *, total: bool = True) -> None:
    """What `docker image prune` prints."""
    from kapelle.render import words

    if done.lines:
        context.stdout.write(
            f"{common.deleted(context)} {what}:\n" + "".join(f"{line}\n" for line in done.lines) + "\n"
        )
    if total:
        context.stdout.write(f"{common.reclaimed(context)}: {words.size(done.freed, 4)}\n")
    if done.postponed:
        from kapelle.events import Notice

        context.emit(Notice("another kap is using the image store: what it may need stays until the next time"))


def _tests(filters: Sequence[str]) -> list[tuple[str, str]]:
    tests = []
    for row in filters:
        key, equals, value = row.partition("=")
        if key == "dangling":
            continue
        if not equals or key not in ("label", "label!", "until"):
            raise UsageError(f"invalid filter '{row}'", hint="label=K=V, label!=K=V or until=24h")
        tests.append((key, value))
    return tests


def _passes(image: Image, tests: Sequence[tuple[str, str]]) -> bool:
    from kapelle.cli.common import moment

    labels = (image.config.get("config") or {}).get("Labels") or {}
    for key, value in tests:
        if key == "until":
            if image.created * 1e9 >= (moment(value) or 0):
                return False
            continue
        label, equals, content = value.partition("=")
        has = label in labels and (not equals or labels[label] == content)
        if has != (key == "label"):
            return False
    return True
