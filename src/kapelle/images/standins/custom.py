"""Recipes of the user's own: NAME.py in the standins folder of the configuration, for images whose name ends in NAME.

They are programs: only folders and files that the user or root owns, and that nobody else may write, are read
(docs/guide-standins.md). What goes wrong in one is told with its file and line.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType

from kapelle.errors import ImageError, KapelleError, Position
from kapelle.images.standins.archive import VERSIONS
from kapelle.images.standins.pypi import NotThere
from kapelle.light import Any, NamedTuple, TypeVar
from kapelle.state import paths

_LARGEST = 1 << 20
_VARIANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
_NEEDED = ("NAMES", "BASE", "variants", "release", "build")
T = TypeVar("T")


class Recipe(NamedTuple):
    """A recipe ready to be asked. Ours and the user's look alike."""

    name: str  # "redis"
    module: Any
    path: str = ""  # of the user's file, "" for ours
    digest: str = ""  # of its text

    def variants(self, tag: str) -> tuple[str, ...]:
        found = self._call(lambda: tuple(self.module.variants(tag)))
        if not found or not all(isinstance(v, str) and _VARIANT.fullmatch(v) for v in found):
            raise self._mistake(f"variants({tag!r}) must give words such as ('1.0',), not {found!r}")
        return found

    def release(self, variant: str) -> str:
        found = self._call(lambda: self.module.release(variant))
        if found not in VERSIONS:
            raise self._mistake(f"release({variant!r}) must be one of {', '.join(VERSIONS)}, not {found!r}")
        return str(found)

    def build(self, kitchen: Any, variant: str) -> Any:
        from kapelle.images.standins.kitchen import Made

        made = self._call(lambda: self.module.build(kitchen, variant))
        if not isinstance(made, Made) or not isinstance(made.config, Mapping):
            raise self._mistake("build() must give Made(config, product, version)")
        return made

    def unmet(self, tag: str, version: str) -> str:
        from kapelle.images.standins import versions

        return str(self._call(lambda: getattr(self.module, "unmet", versions.unmet)(tag, version)))

    def _call(self, ask: Callable[[], T]) -> T:
        return ask() if not self.path else _guarded(self.path, ask)

    def _mistake(self, what: str) -> ImageError:
        return ImageError(
            f"the recipe {self.name}: {what}", where=Position(self.path or self.module.__name__, 1, 1), code="KAP513"
        )


def folders(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Where recipes are looked for, first one first: the user's configuration, the system's (not with KAP_HOME)."""
    own = f"{paths.find(environ).config}/standins"
    return (own,) if environ.get("KAP_HOME") else tuple(dict.fromkeys((own, "/etc/kapelle/standins")))


def find(short: str, environ: Mapping[str, str]) -> Recipe | None:
    """The user's recipe for an image by its short name without tag ("tool", "ghcr.io/acme/tool"), or None.

    ImageError when there is one that can't be used.
    """
    name = short.rpartition("/")[2]
    for folder in folders(environ):
        recipe = _load(folder, name)
        if recipe is not None and short in recipe.module.NAMES:
            return recipe
    return None


def known(environ: Mapping[str, str]) -> Iterator[tuple[str, Recipe | ImageError]]:
    """Every file of the folders: its path, and the recipe or why it is none."""
    for folder in folders(environ):
        try:
            names = sorted(n for n in os.listdir(folder) if n.endswith(".py"))
        except OSError:
            continue
        for name in names:
            path = f"{folder}/{name}"
            try:
                recipe = _load(folder, name.removesuffix(".py"))
            except ImageError as e:
                yield path, e
                continue
            if recipe is not None:
                yield path, recipe


def _load(folder: str, name: str) -> Recipe | None:
    path = f"{folder}/{name}.py"
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as e:
        why = "it is a link" if e.errno == errno.ELOOP else (e.strerror or "").lower()
        raise ImageError(f"the recipe {path} can't be read: {why}", code="KAP513") from None
    with os.fdopen(fd, "rb") as f:
        _trusted(folder, os.stat(folder), "folder")
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode) or info.st_size > _LARGEST:
            raise ImageError(f"the recipe {path} is no plain file of at most 1 MiB", code="KAP513")
        _trusted(path, info, "recipe")
        text = f.read(_LARGEST)
    module = ModuleType(f"standin_{name}")
    module.__file__ = path

    def run() -> None:
        exec(compile(text, path, "exec"), module.__dict__)

    _guarded(path, run)
    for word in _NEEDED:
        if not hasattr(module, word):
            raise ImageError(
                f"the recipe {name} has no {word}", where=Position(path, 1, 1), code="KAP513",
                hint=f"it needs {', '.join(_NEEDED)}: see docs/guide-standins.md",
            )  # fmt: skip
    if not isinstance(module.NAMES, (tuple, list)) or not all(isinstance(n, str) for n in module.NAMES):
        raise ImageError(
            f"the recipe {name}: NAMES must be a tuple of image names", where=Position(path, 1, 1), code="KAP513"
        )
    return Recipe(name, module, path, hashlib.sha256(text).hexdigest()[:12])


def _trusted(path: str, info: os.stat_result, kind: str) -> None:
    """The user's or root's, and nobody else may write to it. Root is the owner of /: namespaces number it anew."""
    if info.st_uid not in (os.geteuid(), os.stat("/").st_uid):
        why, hint = "it belongs to another user", "put the recipe into a folder of your own"
    elif info.st_mode & 0o022:
        why, hint = f"others may write to it (mode {stat.S_IMODE(info.st_mode):o})", f"chmod go-w {path}"
    else:
        return
    raise ImageError(f"the {kind} {path} is not used: {why}", why="recipes are programs", hint=hint, code="KAP513")


def _guarded(path: str, ask: Callable[[], T]) -> T:
    """Run a stranger's code: whatever it raises is told with the place in its file."""
    try:
        return ask()
    except NotThere:
        raise
    except KapelleError as e:
        e.where = e.where or _place(e, path)
        raise
    except OSError as e:
        if e.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise _told(e, path) from e
    except SyntaxError as e:
        where = Position(path, e.lineno or 1, e.offset or 1)
        raise ImageError(f"the recipe is no Python: {e.msg}", where=where, code="KAP513") from None
    except (Exception, SystemExit) as e:
        raise _told(e, path) from e


def _told(e: BaseException, path: str) -> ImageError:
    return ImageError(
        f"the recipe failed: {type(e).__name__}: {e}", where=_place(e, path), code="KAP513",
        hint="mend the recipe; kap standins build NAME tries it",
    )  # fmt: skip


def _place(e: BaseException, path: str) -> Position:
    """The last line of the recipe that the error came through."""
    line, frame = 0, e.__traceback__
    while frame is not None:
        if frame.tb_frame.f_code.co_filename == path:
            line = frame.tb_lineno
        frame = frame.tb_next
    return Position(path, line or 1, 1)
