"""--chown and USER: names of the image's own passwd and group files, or numbers."""

from __future__ import annotations

from kapelle.errors import ImageError, Position
from kapelle.images.build.rootfs import Rootfs
from kapelle.light import NamedTuple


class Owner(NamedTuple):
    uid: int
    gid: int


ROOT = Owner(0, 0)


def lookup(text: str, tree: Rootfs, where: Position) -> Owner:
    """`user`, `user:group`, `1000:1000`, `:group`. ImageError when the image knows no such name.

    A user by name without a group has that user's own; a number alone is both, as `--chown=55` is 55:55.
    """
    user, _, group = text.partition(":")
    uid, own_group = _number(tree, user, "etc/passwd", "user", where) if user else (0, 0)
    gid = _number(tree, group, "etc/group", "group", where)[0] if group else own_group
    return Owner(uid, gid)


def _number(tree: Rootfs, name: str, file: str, what: str, where: Position) -> tuple[int, int]:
    if name.isdigit():
        return int(name), int(name)
    for line in tree.read(file).splitlines():
        row = line.split(":")
        if len(row) > 2 and row[0] == name and row[2].isdigit():
            return int(row[2]), int(row[3]) if len(row) > 3 and row[3].isdigit() else int(row[2])
    raise ImageError(
        f"unable to find {what} {name} in the image",
        where=where,
        hint=f"make it in a RUN before, or use a number ({file} has the names)",
        code="KAP510",
    )
