"""Small JSON files, written whole or not at all: temporary beside the target, then rename(2)."""

from __future__ import annotations

import errno
import os
from _thread import get_ident

from kapelle.errors import StateError
from kapelle.light import Any, jsontext

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_PIECE = 1 << 16  # bytes read at once
_TRIES = 20  # to empty a folder that somebody still writes to


def make_directory(path: str, mode: int = 0o700) -> None:
    """Make a directory and its parents, each with `mode`; existing ones are left as they are."""
    try:
        os.mkdir(path, mode)
    except FileNotFoundError:
        make_directory(os.path.dirname(path), mode)
        make_directory(path, mode)
    except FileExistsError:
        pass
    except OSError as e:
        raise StateError(
            f"can't make the folder {path}: {e.strerror}",
            hint="choose another place with KAP_HOME=/path, or make this one writable",
        ) from None


def write_json(path: str, value: Any, *, sync: bool = False, mode: int = 0o600, over: bool = False) -> None:
    """Replace `path` by `value` in one step. `sync` makes it survive a power cut (fsync(2)).

    `over`: where the disk has no room for a second file, the first one's own room is written to.
    """
    data = jsontext.dumps(value).encode()
    temporary = f"{path}.{os.getpid()}-{get_ident()}.tmp"  # threads may write the same file
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        try:
            written = 0
            while written < len(data):
                written += os.write(fd, data[written:])
            if sync:
                os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(temporary, path)
    except OSError as e:
        try:
            os.unlink(temporary)
        except OSError:
            pass
        if over and e.errno in _NO_ROOM and _written_over(path, data):
            return
        raise StateError(f"can't write {path}: {e.strerror}", hint="free some space or make it writable") from None


def _written_over(path: str, data: bytes) -> bool:
    """Write into a file's blocks, with spaces behind: one write(2), and no more room than it has."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            padded = data.ljust(os.fstat(fd).st_size)
            return os.pwrite(fd, padded, 0) == len(padded)
        finally:
            os.close(fd)
    except OSError:
        return False


def read_json(path: str) -> Any:
    """The value in `path`, or None when there is no such file. StateError when it can't be read as JSON."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:  # half the system calls of a buffered file
        data = piece = os.read(fd, _PIECE)
        while len(piece) == _PIECE:
            piece = os.read(fd, _PIECE)
            data += piece
    finally:
        os.close(fd)
    try:
        return jsontext.loads(data)
    except ValueError:
        raise StateError(f"{path} is damaged", hint="remove the file, then run the command again") from None


def names_in(directory: str) -> list[str]:
    """Sorted names in a directory; none when it does not exist. Temporaries are left out."""
    try:
        return sorted(n for n in os.listdir(directory) if not n.endswith(".tmp"))
    except (FileNotFoundError, NotADirectoryError):
        return []


def sweep(directory: str) -> None:
    """Remove temporaries (NAME.PID….tmp) of processes that are gone."""
    try:
        names = [n for n in os.listdir(directory) if n.endswith(".tmp")]
    except (FileNotFoundError, NotADirectoryError):
        return
    for name in names:
        maker = name.split(".")[-2].partition("-")[0]
        if maker.isdigit() and not os.path.exists(f"/proc/{maker}"):
            remove_tree(f"{directory}/{name}")


def remove_tree(path: str) -> None:
    """Remove a directory with all below it, following no link; missing ones are no error.

    Works on open directories (unlinkat(2)), so that a racing rename can't lead outside.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    except NotADirectoryError:
        os.unlink(path)
        return
    try:
        for again in range(_TRIES, 0, -1):
            _empty(fd)
            try:
                os.rmdir(path)
                return
            except FileNotFoundError:
                return  # somebody else removes it too
            except OSError as e:
                if e.errno != errno.ENOTEMPTY or again == 1:
                    raise  # else: a keeper or supervisor has written its last word there this moment
    finally:
        os.close(fd)


def _empty(directory: int) -> None:
    with os.scandir(directory) as entries:
        listed = [(e.name, e.is_dir(follow_symlinks=False)) for e in entries]
    for name, is_directory in listed:
        try:
            if not is_directory:
                os.unlink(name, dir_fd=directory)
                continue
            try:
                os.rmdir(name, dir_fd=directory)
                continue
            except OSError as e:
                if e.errno not in (errno.ENOTEMPTY, errno.EEXIST):  # POSIX allows either
                    raise
        except FileNotFoundError:
            continue  # a temporary that has got its name this moment, or somebody else removes it too
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fd = os.open(name, flags, dir_fd=directory)
        except FileNotFoundError:
            continue
        except PermissionError:
            os.chmod(name, 0o700, dir_fd=directory)  # a directory of mode 000: only its owner gets here
            fd = os.open(name, flags, dir_fd=directory)
        try:
            _empty(fd)
        finally:
            os.close(fd)
        try:
            os.rmdir(name, dir_fd=directory)
        except FileNotFoundError:
            pass
