"""The package's compiled modules in one file, so that a command does not look for a hundred of them one by one.

An `up` loads a hundred small modules, and most of that time goes into finding each `.pyc`: three directory entries, a
file, its header, in Python code. Here one index says where in one file a module's code is, and one stat(2) whether its
source is still the one that was compiled (time and size, as for a `.pyc`). The file lies beside the `.pyc` files, is
made of them, and whoever may write those may write it; without it, or where it does not fit, Python imports as ever.

Format: the interpreter's magic number (4 bytes), the index's length (4, little endian), the index as marshal of
{name: (is a package, offset, length, source's mtime in ns, source's size)}, the modules' code as marshal.
"""

from __future__ import annotations

import _collections_abc
import marshal
import os
import sys
from _frozen_importlib import ModuleSpec
from _frozen_importlib_external import MAGIC_NUMBER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.resources.abc import TraversableResources
    from types import ModuleType
    from typing import Any

PACKAGE = os.path.dirname(os.path.abspath(__file__))
PATH = f"{PACKAGE}/__pycache__/modules.{sys.implementation.cache_tag}.bin"
_START = 8  # bytes before the index
_HEADER = 16  # bytes of a .pyc before its code (PEP 552)
_BY_HASH = 1  # flag of a .pyc that does not tell its source's time

Row = tuple[bool, int, int, int, int]


class Spare:
    """`collections.abc` without `collections`, whose loading takes 3 ms: until something else loads that, too.

    Both are the same classes, `_collections_abc`'s, which every interpreter has loaded.
    """

    @classmethod
    def use(cls) -> None:
        if "collections" not in sys.modules:
            sys.modules["collections.abc"] = _collections_abc
            sys.meta_path.insert(0, cls)

    @staticmethod
    def find_spec(name: str, _path: object = None, _target: object = None) -> None:
        if name == "collections":  # which wants to have it as its own
            sys.modules.pop("collections.abc", None)
            sys.meta_path.remove(Spare)


class Finder:
    """Finds and loads the modules that the file has (importlib.abc.MetaPathFinder and Loader)."""

    def __init__(self, path: str, index: dict[str, Row], base: int) -> None:
        self._path = path
        self._index = index
        self._base = base
        self._code: dict[str, Any] = {}

    def find_spec(self, name: str, _path: object = None, _target: object = None) -> ModuleSpec | None:
        row = self._index.get(name)
        if row is None:
            return None
        package, offset, length, mtime, size = row
        source = source_of(name, package)
        try:
            info = os.stat(source)
            if (info.st_mtime_ns, info.st_size) != (mtime, size):
                return None
            self._code[name] = self._read(offset, length)
        except (OSError, ValueError, EOFError, TypeError):
            return None
        spec = ModuleSpec(name, self, origin=source, is_package=package)  # type: ignore[arg-type]
        spec.has_location = True
        spec.cached = ""  # otherwise its place is worked out
        if spec.submodule_search_locations is not None:
            spec.submodule_search_locations.append(os.path.dirname(source))
        return spec

    def get_resource_reader(self, name: str) -> TraversableResources:
        """For importlib.resources: a package's files lie beside its source."""
        from importlib.machinery import SourceFileLoader
        from importlib.readers import FileReader

        return FileReader(SourceFileLoader(name, source_of(name, True)))

    def _read(self, offset: int, length: int) -> Any:
        fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)  # not kept: others close what is open
        try:
            return marshal.loads(os.pread(fd, length, self._base + offset))
        finally:
            os.close(fd)

    def create_module(self, _spec: ModuleSpec) -> None:
        """As Python makes modules."""

    def exec_module(self, module: ModuleType) -> None:
        exec(self._code.pop(module.__name__), module.__dict__)


def source_of(name: str, package: bool) -> str:
    """Where a module's source is."""
    path = PACKAGE + name.removeprefix("kapelle").replace(".", "/")
    return f"{path}/__init__.py" if package else f"{path}.py"


def use() -> None:
    """Take our modules from the file, if there is one, from now on."""
    Spare.use()
    if sys.flags.optimize:
        return
    try:
        fd = os.open(PATH, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        data = os.read(fd, 1 << 16)
        length = int.from_bytes(data[4:_START], "little")
        if len(data) < _START + length:
            data += os.pread(fd, _START + length - len(data), len(data))
        if data[:4] == MAGIC_NUMBER:
            index = marshal.loads(data[_START : _START + length])
            sys.meta_path.insert(0, Finder(PATH, index, _START + length))
    except (OSError, ValueError, EOFError, TypeError):
        pass  # half written, or of another version: `renew` replaces it
    finally:
        os.close(fd)


def renew() -> None:
    """Make the file anew if something was loaded past it that it could have had. To be called at a command's end."""
    if sys.flags.optimize or sys.dont_write_bytecode:
        return
    try:
        made = os.stat(PATH).st_mtime_ns
    except OSError:
        made = 0
    if any(_newer(module, made) for name, module in list(sys.modules.items()) if name.startswith("kapelle.")):
        write(PATH)


def _newer(module: object, made: int) -> bool:
    """Has this module's own compiled file been written after ours?"""
    cached = getattr(module, "__cached__", "")
    try:
        return bool(cached) and os.stat(cached).st_mtime_ns > made
    except OSError:
        return False


def write(path: str) -> None:
    """Write the file from the `.pyc` files that fit their sources; nothing where that can't be done."""
    temporary = f"{path}.{os.getpid()}"
    if not os.access(os.path.dirname(path), os.W_OK):
        return
    try:
        data = _packed()
        with open(temporary, "wb") as f:
            # readable by whoever may read the source, as a .pyc is; written by its owner alone, whatever the umask
            os.fchmod(f.fileno(), os.stat(__file__).st_mode & 0o644)
            f.write(data)
        os.replace(temporary, path)
    except OSError:
        try:
            os.unlink(temporary)
        except OSError:
            pass


def _packed() -> bytes:
    index: dict[str, Row] = {}
    codes: list[bytes] = []
    offset = 0
    for name, package in _modules(PACKAGE, "kapelle"):
        found = _compiled(source_of(name, package))
        if found is not None:
            code, mtime, size = found
            index[name] = package, offset, len(code), mtime, size
            codes.append(code)
            offset += len(code)
    head = marshal.dumps(index)
    return b"".join((MAGIC_NUMBER, len(head).to_bytes(4, "little"), head, *codes))


def remove() -> None:
    """Remove the file, which no installer knows of, and make no other before this command ends."""
    sys.dont_write_bytecode = True
    try:
        os.unlink(PATH)
    except OSError:
        pass


def _modules(folder: str, name: str) -> list[tuple[str, bool]]:
    """(name, is a package) of all modules below a package."""
    found = [(name, True)]
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(".py") and entry.name != "__init__.py":
                found.append((f"{name}.{entry.name[:-3]}", False))
            elif os.path.exists(f"{entry.path}/__init__.py"):
                found += _modules(entry.path, f"{name}.{entry.name}")
    return found


def _compiled(source: str) -> tuple[bytes, int, int] | None:
    """(code as marshal, the source's mtime in ns, its size), where there is a `.pyc` of just this source."""
    folder, _, file = source.rpartition("/")
    try:
        info = os.stat(source)
        with open(f"{folder}/__pycache__/{file[:-3]}.{sys.implementation.cache_tag}.pyc", "rb") as f:
            data = f.read()
    except OSError:
        return None
    told = [int.from_bytes(data[at : at + 4], "little") for at in (4, 8, 12)]
    if data[:4] != MAGIC_NUMBER or told[0] & _BY_HASH:
        return None
    if told[1:] != [int(info.st_mtime) & 0xFFFFFFFF, info.st_size & 0xFFFFFFFF]:
        return None
    return data[_HEADER:], info.st_mtime_ns, info.st_size
