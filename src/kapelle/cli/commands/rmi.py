"""`rmi`: take names and images away, as `docker rmi` does."""

from __future__ import annotations

from collections.abc import Sequence

from kapelle.cli import common
from kapelle.cli.flags import Args, Flag
from kapelle.errors import ImageError, KapelleError
from kapelle.light import TYPE_CHECKING

if TYPE_CHECKING:
    from kapelle.cli.context import Context
    from kapelle.images.store import Store
    from kapelle.images.types import Image
    from kapelle.plan.observed import Container

NAME = "rmi"
HELP = "remove images"
ARGUMENTS = "IMAGE [IMAGE...]"
FLAGS = (
    Flag("--force", "-f", help="also with several names, or used by stopped containers; a missing one is no error"),
    Flag("--no-prune", hidden=True),
    Flag("--platform", value="PLATFORM", repeat=True, hidden=True),
)


def run(context: Context, args: Args) -> int:
    common.at_least(args.rest, 1, "rmi IMAGE")

    store = context.store()
    code = 0
    for name in args.rest:
        try:
            image = store.find(name)
            if image is None:
                context.stderr.write(f"error: no such image: {name} [KAP502]\n")
                code = code if args.force else 1
                continue
            users = [c for c in context.reader().containers() if c.image_id == image.id]
            lines = _remove(context, store, name, image, users, force=bool(args.force))
            context.stdout.write("".join(f"{line}\n" for line in lines))
        except KapelleError as e:
            context.stderr.write(f"error: {e.what} [{e.code}]\n" + (f" hint: {e.hint}\n" if e.hint else ""))
            code = 1
    return code


def _remove(
    context: Context, store: Store, name: str, image: Image, users: Sequence[Container], *, force: bool
) -> list[str]:
    from kapelle.engines.native.layer_users import layers_in_use
    from kapelle.images import reference

    by_id = _is_id(name, image, store)
    running = next((c for c in users if c.alive), None)
    user = running or next(iter(users), None)
    all_names = (*image.names, *image.repo_digests)
    if by_id:
        gone = list(all_names)
        if len({reference.parse(n).name for n in all_names}) > 1 and not force:
            raise _conflict(
                f"unable to delete {_short(image)} (must be forced) - image is referenced in multiple repositories",
                f"kap rmi -f {name}, or name them one by one",
            )
    else:
        ref = reference.parse(name)
        gone = [str(ref._replace(tag="") if ref.digest else ref)]
    tags_left = [n for n in image.names if n not in gone]
    if not tags_left and "@" not in "".join(gone):
        gone += [n for n in image.repo_digests if n not in gone]  # the last tag takes the pins along
    left = [n for n in all_names if n not in gone]
    if not left and user is not None and (running is not None if force else True):
        if force and not by_id:  # a running container keeps its image; the name may go
            return [] if context.dry_run else _untag(store, gone)
        how = "must force" if not by_id else "cannot be forced" if running else "must be forced"
        what = f"delete {_short(image)}" if by_id else f'remove repository reference "{name}"'
        state = "running" if running else "stopped"
        raise _conflict(
            f"unable to {what} ({how}) - "
            + (f"image is being used by {state} container {user.id[:12]}" if by_id
               else f"container {user.id[:12]} is using its referenced image {_short(image)}"),
            f"kap -p {user.project} down removes its containers" if user.project else "",
        )  # fmt: skip
    if context.dry_run:
        return [f"Untagged: {_familiar(n)}" for n in gone]
    lines = _untag(store, gone)
    if not left:
        removed = store.remove(image.id, lambda: layers_in_use(context.paths))
        lines += [f"Deleted: {image.id}", *(f"Deleted: {d}" for d in reversed(removed.layers))]
    return lines


def _untag(store: Store, names: Sequence[str]) -> list[str]:
    return [f"Untagged: {_familiar(n)}" for n in names if store.untag(n) is not None]


def _is_id(name: str, image: Image, store: Store) -> bool:
    """Was the image named by its ID? What is a name as well is taken as that."""
    from kapelle.images import reference

    digits = name.removeprefix("sha256:")
    if not image.id.startswith(f"sha256:{digits}"):
        return False
    try:
        return digits != name or store.lookup(reference.parse(name)) != image.id
    except ImageError:
        return True


def _familiar(name: str) -> str:
    from kapelle.images import reference

    return reference.familiar(reference.parse(name))


def _short(image: Image) -> str:
    return image.id.removeprefix("sha256:")[:12]


def _conflict(words: str, hint: str) -> ImageError:
    return ImageError(f"conflict: {words}", hint=hint, code="KAP507")
