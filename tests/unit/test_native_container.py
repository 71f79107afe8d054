"""What was begun for one run of a container must not reach the next one."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kapelle.engines.native.container import Container


class Later:
    """A loop whose time the test lets pass."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], None]] = []

    def later(self, _seconds: float, call: Callable[[], None]) -> None:
        self.calls.append(call)

    def remove(self, _fd: int) -> None:
        pass

    def pass_time(self) -> None:
        calls, self.calls = self.calls, []
        for call in calls:
            call()


def running(folder: Path, pid: int) -> tuple[Any, Later]:
    loop = Later()
    container: Any = Container.__new__(Container)
    container.supervisor = type("Supervisor", (), {"loop": loop})()
    container.directory = str(folder)
    container.pidfd = os.pidfd_open(os.getpid())
    container.status = {"pid": pid, "status": "running"}
    container.exit_looks = 0
    container.ends = []
    container._ended = lambda *told: container.ends.append(told)
    return container, loop


def test_looking_for_the_exit_of_one_run_does_not_end_the_next(tmp_path: Path) -> None:
    # given a run whose end is looked for, and is then told by the keeper
    container, loop = running(tmp_path, os.getpid())
    container._gone(0)
    # when it is started again at once
    container.status["pid"] = os.getppid()
    for _ in range(1000):
        loop.pass_time()
    # then nobody looks for an end any more
    assert container.ends == []
    assert loop.calls == []


def test_a_look_for_deafness_of_one_run_does_not_kill_the_next(tmp_path: Path) -> None:
    container, loop = running(tmp_path, os.getpid())
    container._deaf = lambda _number: True
    container.signal = container.ends.append
    loop.later(0.5, lambda: container._kill_if_deaf(15, os.getppid()))
    loop.pass_time()
    assert container.ends == []
