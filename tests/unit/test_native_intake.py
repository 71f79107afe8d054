"""Output on its way from a pipe to the log: whatever instant a supervisor is killed at, each line is there once."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from kapelle.engines.native import logs
from kapelle.engines.native.intake import Intake

ID = "c" * 64


@pytest.fixture(autouse=True)
def _nothing_stays_open() -> Iterator[None]:
    """Supervisors that are killed close nothing; an ordinary user may have only so many pipes of full size."""
    before = set(os.listdir("/proc/self/fd"))
    yield
    for fd in set(os.listdir("/proc/self/fd")) - before:
        try:
            os.close(int(fd))
        except OSError:
            pass  # the listing's own


class Killed(BaseException):
    """What a kill looks like from within: nothing more is done."""


class Project:
    """What outlives a supervisor: the pipe of a container, the stage, the folders."""

    def __init__(self, folder: Path, **sizes: int) -> None:
        self.folder = folder
        self.log = folder / "log"
        self.log.mkdir()
        self.sizes = sizes
        reading, self.writing = os.pipe2(os.O_NONBLOCK)
        self.reading = reading
        self.stage = -1
        self.begin()

    def writer(self, _id: str = ID) -> logs.Writer:
        writer = logs.Writer(str(self.log), **self.sizes)
        return writer

    def begin(self) -> None:
        """A supervisor begins."""
        self.intake = Intake(str(self.folder), self.stage)
        self.stage = self.intake.stage
        self.intake.recover(self.writer)
        self.now = self.writer()
        self.now.writing = self.intake.writing

    def read(self) -> None:
        data = self.intake.take(self.reading, ID, "stdout", self.now.pending["stdout"])
        self.now.feed("stdout", data, 1_700_000_000_000_000_000)
        self.intake.done()

    def text(self) -> bytes:
        found = b""
        for record in logs.read(str(self.log)):
            found += record.plain() + (b"" if record.partial else b"\n")
        return found + self.writer().pending["stdout"]


CALLS = ("splice", "readv", "write", "open", "close", "unlink", "ftruncate")


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("text", [b"one\ntwo\n", b"whole\npart", b"part", b"x" * 40_000, b"a\n" * 5000])
@pytest.mark.parametrize("before", [b"", b"began "])
def test_a_kill_around_any_call_loses_and_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int, after: bool, text: bytes, before: bytes
) -> None:
    project = Project(tmp_path, max_size=30_000, max_files=100)
    if before:
        os.write(project.writing, before)
        project.read()
    os.write(project.writing, text)
    reals = {name: getattr(os, name) for name in CALLS}
    count, dead = 0, False

    def deadly(name: str, *words: object, **named: object) -> object:
        nonlocal count, dead
        count += name == call
        if dead or (name == call and count == number and not after):
            dead = True
            raise Killed
        answer = reals[name](*words, **named)
        if name == call and count == number:
            dead = True
            raise Killed
        return answer

    with monkeypatch.context() as patched:
        for name in CALLS:
            patched.setattr(os, name, functools.partial(deadly, name))
        try:
            project.read()
        except Killed:
            pass
    project.begin()
    while True:
        try:
            project.read()
        except BlockingIOError:
            break
    assert project.text() == before + text


def test_a_write_that_was_stopped_in_the_middle_goes_on_where_it_stopped(tmp_path: Path) -> None:
    project = Project(tmp_path)
    os.write(project.writing, b"one\ntwo\nthree\n")
    real = os.write

    def short(fd: int, data: bytes) -> int:
        real(fd, bytes(data)[:30])
        raise Killed

    os.write = short  # type: ignore[assignment]
    try:
        with pytest.raises(Killed):
            project.read()
    finally:
        os.write = real
    project.begin()
    assert project.text() == b"one\ntwo\nthree\n"


def test_a_line_without_its_end_is_written_once_when_its_stream_ends(tmp_path: Path) -> None:
    project = Project(tmp_path)
    os.write(project.writing, b"no end")
    project.read()
    project.intake.ending(ID, "stdout", project.now.pending["stdout"])
    project.now.flush("stdout")  # and killed before it says so
    project.begin()
    assert [r.plain() for r in logs.read(str(project.log))] == [b"no end"]
    assert project.now.pending["stdout"] == b""


def test_where_the_keeper_dies_too_what_was_on_its_way_is_no_rubbish(tmp_path: Path) -> None:
    project = Project(tmp_path)
    os.write(project.writing, b"first\n")
    project.read()
    os.write(project.writing, b"second\n")
    project.intake._begin(ID.encode().decode(), "stdout", b"")
    project.intake._taken = os.splice(project.reading, project.stage, 100)
    project.intake._mark(1)
    os.close(project.stage)
    project.stage = -1
    project.begin()
    assert project.text() == b"first\n"
