"""One command at a time changes a project."""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path

import pytest

from kapelle.errors import StateError
from kapelle.events import Event, Notice
from kapelle.state.lock import ProjectLock
from kapelle.state.paths import find


def test_a_second_command_waits_and_hears_who_it_waits_for(tmp_path: Path) -> None:
    paths = find({"KAP_HOME": str(tmp_path)})
    told = threading.Event()
    events: list[Event] = []
    order: list[str] = []

    def tell(event: Event) -> None:
        events.append(event)
        told.set()

    def second() -> None:
        with ProjectLock(paths, "demo", tell, "down"):
            order.append("second")

    with ProjectLock(paths, "demo", None, "up"):
        thread = threading.Thread(target=second)
        thread.start()
        assert told.wait(10)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]
    assert events == [Notice(f"waiting for kap up (pid {os.getpid()}) on project demo", level="info")]


def test_another_project_does_not_wait(tmp_path: Path) -> None:
    paths = find({"KAP_HOME": str(tmp_path)})
    with ProjectLock(paths, "one"), ProjectLock(paths, "two"):
        assert sorted(os.listdir(paths.projects)) == ["one", "two"]


def test_the_lock_is_let_go_of_after_an_error(tmp_path: Path) -> None:
    paths = find({"KAP_HOME": str(tmp_path)})
    with pytest.raises(ZeroDivisionError), ProjectLock(paths, "demo"):
        raise ZeroDivisionError
    fd = os.open(f"{paths.project('demo')}/lock", os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(fd)


def test_a_place_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(StateError, match="can't make the folder"),
        ProjectLock(find({"KAP_HOME": str(tmp_path / "file")}), "demo"),
    ):
        pass
