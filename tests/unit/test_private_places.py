"""Places that others may write to, and what a report of a defect keeps."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from kapelle.cli import report
from kapelle.errors import StateError
from kapelle.state import paths, store


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> paths.Paths:
    """Without XDG_RUNTIME_DIR, in a /tmp of the test's own."""
    monkeypatch.setattr(paths, "_SHARED", f"{tmp_path}/kapelle-")
    found = paths.find({"HOME": str(tmp_path)}, uid=1234)
    assert found.run == "/tmp/kapelle-1234"
    return found._replace(run=f"{tmp_path}/kapelle-1234")


def test_a_run_folder_in_a_shared_place_is_made_at_once_and_closed(place: paths.Paths) -> None:
    paths.guard(place)
    paths.guard(place)
    assert stat.S_IMODE(os.lstat(place.run).st_mode) == 0o700


@pytest.mark.parametrize("trick", ["link", "file", "open", "readable", "foreign"])
def test_one_that_is_not_ones_own_alone_is_refused(place: paths.Paths, tmp_path: Path, trick: str) -> None:
    if trick == "link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        os.symlink(tmp_path / "elsewhere", place.run)
    elif trick == "file":
        Path(place.run).touch(0o700)
    else:
        os.mkdir(place.run, 0o700)
        os.chmod(place.run, {"open": 0o777, "readable": 0o755, "foreign": 0o700}[trick])
    if trick == "foreign":
        if os.geteuid() != 0:
            pytest.skip("needs another owner")
        os.chown(place.run, 4321, 4321)
    with pytest.raises(StateError, match="not a folder of this user's alone"):
        paths.guard(place)


def test_a_report_of_a_defect_keeps_no_values(tmp_path: Path) -> None:
    class Fake:
        paths = type("P", (), {"state": str(tmp_path)})

    path = report._write(ValueError("x"), ["run", "-e", "PASSWORD=very-secret", "a"], Fake())  # type: ignore[arg-type]
    text = Path(path).read_text()
    assert "PASSWORD" in text
    assert "very-secret" not in text
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


def test_a_folder_that_somebody_still_writes_to_is_removed_all_the_same(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    empty, left = store._empty, [3]

    def slow(fd: int) -> None:
        empty(fd)
        if left[0]:
            left[0] -= 1
            (folder / f"late{left[0]}").write_text("")

    store._empty = slow
    try:
        store.remove_tree(str(folder))
    finally:
        store._empty = empty
    assert not folder.exists()
