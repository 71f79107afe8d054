"""Stages in an order that their needs allow, those that need nothing of each other at the same time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise


def run(
    numbers: list[int], depends: Mapping[int, set[int]], perform: Callable[[int], None], failed: list[BaseException]
) -> None:
    """Perform every stage. The first failure is raised once all have ended; `failed` tells the others to."""
    if all(before in _all_needs(after, depends) for before, after in pairwise(numbers)):
        for number in numbers:
            perform(number)
        return
    import threading

    done = {number: threading.Event() for number in numbers}

    def one(number: int) -> None:
        try:
            for other in depends[number]:
                done[other].wait()
            if not failed:
                perform(number)
        except BaseException as e:
            failed.append(e)
        finally:
            done[number].set()

    threads = [threading.Thread(target=one, args=(n,), daemon=True) for n in numbers]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    except BaseException as e:
        failed.append(e)
        raise
    if failed:
        raise failed[0]


def _all_needs(number: int, depends: Mapping[int, set[int]]) -> set[int]:
    found: set[int] = set()
    left = [number]
    while left:
        for other in depends[left.pop()]:
            if other not in found:
                found.add(other)
                left.append(other)
    return found
