"""Several layers on their way at a time, for pull and push."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from kapelle.light import TypeVar

AT_ONCE = 4

_T = TypeVar("_T")


def each(jobs: Iterable[_T], act: Callable[[_T], None], stop: threading.Event, name: str) -> None:
    """Do it for each job, in their order, AT_ONCE at a time; raise what the first failing one raised.

    A failure, or Ctrl-C here, sets `stop`: no job is begun any more, and those that look at it end early; what they
    raise then is of no interest.
    """
    waiting = list(jobs)[::-1]
    lock = threading.Lock()
    first: list[BaseException] = []

    def work() -> None:
        while not stop.is_set():
            with lock:
                if not waiting:
                    return
                job = waiting.pop()
            try:
                act(job)
            except BaseException as e:  # raised again below
                with lock:
                    if not stop.is_set():
                        first.append(e)
                    stop.set()

    threads = [threading.Thread(target=work, name=name, daemon=True) for _ in range(min(AT_ONCE, len(waiting)))]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            while thread.is_alive():
                thread.join(0.5)  # in bits, so that Ctrl-C comes through
    except BaseException:
        stop.set()
        for thread in threads:
            thread.join()
        raise
    if first:
        raise first[0]
