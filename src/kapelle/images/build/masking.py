"""A layer that hides what .dockerignore leaves out: laid over a build context it shows the rest, without a copy."""

from __future__ import annotations

import os
import stat

from kapelle.images import trees
from kapelle.images.build.ignore import Ignore
from kapelle.images.build.rootfs import Entry, Rootfs


def make(tree: Rootfs, ignore: Ignore, mask: str) -> None:
    """Fill the empty folder `mask` with deletion marks (and the folders around them, as they are in the tree)."""
    top = tree.entry("")
    if top is not None:
        os.chmod(mask, stat.S_IMODE(top.info.st_mode))
    _below(tree, ignore, mask, "")


def _below(tree: Rootfs, ignore: Ignore, mask: str, path: str) -> None:
    for name in tree.names(path):
        entry = tree.entry(f"{path}/{name}")
        if entry is None:
            continue
        directory = stat.S_ISDIR(entry.info.st_mode)
        if not ignore.ignores(entry.path):
            if directory:
                _below(tree, ignore, mask, entry.path)
        elif directory and ignore.exceptions and _keeps(tree, ignore, entry):
            _below(tree, ignore, mask, entry.path)
        else:
            _hide(tree, mask, entry)


def _keeps(tree: Rootfs, ignore: Ignore, entry: Entry) -> bool:
    return any(not ignore.ignores(e.path) for e in tree.walk(entry.path))


def _hide(tree: Rootfs, mask: str, entry: Entry) -> None:
    parent, _, name = entry.path.rpartition("/")
    done = ""
    for part in parent.split("/") if parent else ():
        done = f"{done}/{part}".strip("/")
        if not os.path.isdir(f"{mask}/{done}"):
            os.mkdir(f"{mask}/{done}")
            like = tree.entry(done)
            if like is not None:
                os.chmod(f"{mask}/{done}", stat.S_IMODE(like.info.st_mode))
    fd = os.open(f"{mask}/{parent}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        trees.make_whiteout(os.fsencode(name), fd)
    finally:
        os.close(fd)
