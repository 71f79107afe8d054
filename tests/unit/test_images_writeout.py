"""Writing out while an image is made: it begins before the end, ends with the work, and hides no failure."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from kapelle.images import writeout
from kapelle.linux import files


def test_what_is_made_goes_to_the_disk_before_all_of_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = threading.Event()
    monkeypatch.setattr(files, "syncfs", lambda fd: written.set())
    with writeout.meanwhile(str(tmp_path)):
        assert written.wait(10)
    assert "write-out" not in [t.name for t in threading.enumerate()]


def test_a_disk_that_refuses_is_told_by_the_sync_at_the_end_not_by_this_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = threading.Event()

    def full(fd: int) -> None:
        tried.set()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "syncfs", full)
    with writeout.meanwhile(str(tmp_path)):
        assert tried.wait(10)


def test_a_failure_does_not_wait_for_a_slow_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow, begun = threading.Event(), threading.Event()

    def stuck(fd: int) -> None:
        begun.set()
        slow.wait(60)

    monkeypatch.setattr(files, "syncfs", stuck)
    monkeypatch.setattr(writeout, "_LAST_MOMENT", 0.01)

    def fails() -> None:
        with writeout.meanwhile(str(tmp_path)):
            begun.wait(10)
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert not slow.is_set()
    slow.set()
