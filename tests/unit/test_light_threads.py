"""What stands in for parts of threading and contextlib behaves as they do."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kapelle.engines.native.aside import Aside
from kapelle.light import managed
from kapelle.light.condition import Condition


def test_all_that_wait_go_on_when_they_are_told() -> None:
    condition, ready, done = Condition(), threading.Semaphore(0), []

    def wait(number: int) -> None:
        with condition:
            ready.release()
            assert condition.wait(10)
            done.append(number)

    threads = [threading.Thread(target=wait, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for _ in threads:
        assert ready.acquire(timeout=10)
    with condition:
        condition.notify_all()
        assert done == []  # not before we have left
    for thread in threads:
        thread.join(10)
    assert sorted(done) == [0, 1, 2]


def test_waiting_has_an_end() -> None:
    condition = Condition()
    with condition:
        assert not condition.wait(0.01)
        assert not condition.wait_for(lambda: False, 0.01)
        assert condition.wait_for(lambda: True, 0)
        condition.notify_all()  # nobody waits any more


def test_a_call_aside_is_waited_for_and_what_it_raises_is_raised() -> None:
    go = threading.Event()
    aside = Aside(lambda: None if go.wait(10) else pytest.fail("nobody waited"))
    go.set()
    aside.wait()

    def fail() -> None:
        raise OSError(5, "it failed")

    aside = Aside(fail)
    with pytest.raises(OSError, match="it failed"):
        aside.wait()


Make = Callable[[list[str]], Iterator[str]]


def plain(said: list[str]) -> Iterator[str]:
    said.append("begin")
    try:
        yield "value"
    finally:
        said.append("end")


def swallowing(said: list[str]) -> Iterator[str]:
    try:
        yield "value"
    except ValueError:
        said.append("swallowed")


def changing(_: list[str]) -> Iterator[str]:
    try:
        yield "value"
    except ValueError as e:
        raise KeyError("another") from e


def twice(_: list[str]) -> Iterator[str]:
    yield "one"
    yield "two"


@pytest.mark.parametrize("make", [plain, swallowing, changing, twice])
@pytest.mark.parametrize("error", [None, ValueError("wrong"), StopIteration("odd"), KeyboardInterrupt()])
def test_a_managed_block_ends_as_contextlib_ends_it(make: Make, error: BaseException | None) -> None:
    def ends(decorate: Any) -> tuple[str, str, list[str]]:
        said: list[str] = []
        try:
            with decorate(make)(said) as value:
                if error is not None:
                    raise error
        except BaseException as e:
            return value, f"{type(e).__name__}: {e}", said
        return value, "", said

    assert ends(managed.contextmanager) == ends(contextlib.contextmanager)
