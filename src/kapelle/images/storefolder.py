"""The store's folder: small files written whole, temporaries that die with their process, and the locks that several
processes share it by.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator

from kapelle.errors import ImageError
from kapelle.images import trees
from kapelle.light.managed import contextmanager

HEX = frozenset("0123456789abcdef")


class StoreFolder:
    def __init__(self, root: str, keeps: Callable[[], bool] = lambda: True) -> None:
        """`root` is paths.images. Nothing is made before something is written. keeps: asked once, when needed, whether
        layers are also kept as they came.
        """
        self.root = root
        self._asked = keeps
        self._keeps: bool | None = None

    @property
    def keeps_archives(self) -> bool:
        if self._keeps is None:
            self._keeps = self._asked()
        return self._keeps

    def listed(self, directory: str) -> list[str]:
        try:
            return sorted(n for n in os.listdir(f"{self.root}/{directory}") if not n.startswith("."))
        except FileNotFoundError:
            return []

    def make(self, directory: str) -> str:
        path = f"{self.root}/{directory}"
        if not os.path.isdir(path):
            os.makedirs(path, 0o700, exist_ok=True)
        return path

    def write(self, path: str, data: bytes) -> None:
        """Write a small file whole, or not at all: temporary, fsync, rename."""
        directory, _, base = f"{self.root}/{path}".rpartition("/")
        temporary = f"{directory}/.{base[:100]}.{os.getpid()}.{os.urandom(4).hex()}"
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(fd, "wb") as f:
                f.write(data)
                f.flush()
                os.fsync(f.fileno())
            os.rename(temporary, f"{directory}/{base}")
        except BaseException:
            trees.remove(temporary)
            raise

    def prepare(self) -> None:
        """Make the store's own files, and take away what dead processes have left."""
        self.make("tmp")
        self.make("locks")
        if not os.path.exists(f"{self.root}/oci-layout"):
            self.write("oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        self.sweep()

    def sweep(self) -> None:
        """Remove temporaries whose process is gone (their flock is free)."""
        for name in self.listed("tmp"):
            path = f"{self.root}/tmp/{name}"
            try:
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            except OSError:
                continue
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                trees.remove(path)
            except BlockingIOError:
                pass
            finally:
                os.close(fd)
        for directory in (".", "images", "names", "blobs/sha256"):
            self._sweep_files(f"{self.root}/{directory}")

    def _sweep_files(self, directory: str) -> None:
        """Half-written small files: an hour is more than any write takes."""
        try:
            with os.scandir(directory) as entries:
                old = [e.path for e in entries if e.name.startswith(".") and time.time() - e.stat().st_mtime > 3600]
        except OSError:
            return
        for path in old:
            trees.remove(path)

    @contextmanager
    def temporary(self) -> Iterator[str]:
        """A fresh directory in tmp/, locked while it is in use; what is left of it at the end is removed."""
        if not os.path.isdir(f"{self.root}/tmp"):
            self.prepare()
        while True:
            path = f"{self.root}/tmp/{os.getpid()}-{os.urandom(6).hex()}"
            os.mkdir(path, 0o700)
            try:
                fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    if os.path.samestat(os.fstat(fd), os.stat(path)):
                        break
                except OSError:
                    pass
                os.close(fd)  # a sweep took it between mkdir and flock
            except FileNotFoundError:
                pass
        try:
            yield path
        finally:
            try:
                trees.remove(path)
            finally:
                os.close(fd)

    def sync(self) -> None:
        """Put all that was written on the disk, once for many files (syncfs(2))."""
        from kapelle.linux import files

        fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            files.syncfs(fd)
        finally:
            os.close(fd)

    @contextmanager
    def using(self) -> Iterator[None]:
        """Keep collectors away while layers or images are looked up and recorded."""
        fd = self.hold()
        try:
            yield
        finally:
            os.close(fd)

    def hold(self) -> int:
        """The same for longer: a descriptor to close."""
        fd = self._open_lock("store")
        try:
            fcntl.flock(fd, fcntl.LOCK_SH)
        except BaseException:
            os.close(fd)
            raise
        return fd

    @contextmanager
    def collecting(self, patience: float | None = None) -> Iterator[bool]:
        """The store for ourselves: nobody pulls, loads, builds or records meanwhile. False: that could not be had
        within `patience` seconds.
        """
        fd = self._open_lock("store")
        end = None if patience is None else time.monotonic() + patience
        try:
            while True:
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | (0 if end is None else fcntl.LOCK_NB))
                    alone = True
                    break
                except BlockingIOError:
                    alone = False
                    if end is not None and time.monotonic() >= end:
                        break
                    time.sleep(0.02)
            yield alone
        finally:
            os.close(fd)

    def lock_layer(self, diff_id: str, *, wait: float | None = 0.0) -> int | None:
        """The right to make a layer: a descriptor to close, or None if another has it for longer than `wait` seconds
        (None: however long). Several are taken in the order of their names, so that nobody waits in a circle.
        """
        fd = self._open_lock(digits_of(diff_id))
        end = None if wait is None else time.monotonic() + wait
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return fd
            except BlockingIOError:
                if end is not None and time.monotonic() >= end:
                    os.close(fd)
                    return None
                time.sleep(0.05)

    def _open_lock(self, name: str) -> int:
        directory = self.make("locks")
        return os.open(f"{directory}/{name}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def digits_of(digest: str) -> str:
    """The digits of a sha256 digest, checked: they become a file's name."""
    algorithm, _, digits = digest.partition(":")
    if algorithm != "sha256" or len(digits) != 64 or not set(digits) <= HEX:
        raise ImageError(f'"{digest[:80]}" is not a sha256 digest', code="KAP504")
    return digits
