"""Finding out by doing it: in a child, so that whatever it changes or breaks ends with it."""

from __future__ import annotations

import os
from collections.abc import Callable


def in_child(call: Callable[[], str]) -> str:
    """What `call` says in a child process; the words of its OSError after "!"."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            try:
                said = call()
            except OSError as e:
                said = f"!{e.strerror or e}"
            os.write(writing, said.encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as f:
        text = f.read().decode("utf-8", "replace")
    os.waitpid(child, 0)
    return text
