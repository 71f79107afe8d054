"""Writing to the disk while more is being made: what a big image waits for at its end is the last moment's only."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_PAUSE = 0.2  # seconds between two rounds
_LAST_MOMENT = 1.0


@contextmanager
def meanwhile(folder: str) -> Iterator[None]:
    """Write out `folder`'s file system again and again (syncfs(2)). The promise is the caller's own sync at the end."""
    from kapelle.linux import files

    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    stop = threading.Event()

    def work() -> None:
        try:
            while not stop.wait(_PAUSE):
                files.syncfs(fd)
        except OSError:
            pass  # the caller's own sync will say so
        finally:
            os.close(fd)

    thread = threading.Thread(target=work, name="write-out", daemon=True)
    thread.start()
    patience: float | None = _LAST_MOMENT  # Ctrl-C or a failure does not wait for a slow disk
    try:
        yield
        patience = None
    finally:
        stop.set()
        thread.join(patience)
