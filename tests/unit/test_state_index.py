"""The directory index: a project's name without YAML, never a wrong one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kapelle.state import index
from kapelle.state.paths import Paths, find


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "demo" / "sub").mkdir(parents=True)
    (tmp_path / "demo" / "compose.yaml").write_text("services: {}\n")
    return tmp_path


def paths(place: Path) -> Paths:
    return find({"KAP_HOME": str(place / "home")})


def learn(place: Path, cwd: str = "demo", **environ: str) -> index.Key:
    key = index.key(str(place / cwd), (), "", (), environ)
    file = str(place / "demo" / "compose.yaml")
    index.record(paths(place), key, "demo", (file,), file)
    return key


def test_what_was_recorded_is_found(place: Path) -> None:
    assert index.lookup(paths(place), learn(place)) == "demo"


def test_another_place_or_other_flags_are_another_entry(place: Path) -> None:
    learn(place)
    for other in (
        index.key(str(place), (), "", (), {}),
        index.key(str(place / "demo"), ("x.yaml",), "", (), {}),
        index.key(str(place / "demo"), (), "", (), {"COMPOSE_FILE": "x.yaml"}),
    ):
        assert index.lookup(paths(place), other) is None


@pytest.mark.parametrize(
    "name",
    ["demo/compose.override.yaml", "demo/.env", "demo/compose.yml", "demo/sub/compose.yaml"],
)
def test_a_new_file_that_would_be_read_makes_it_a_miss(place: Path, name: str) -> None:
    key = learn(place, "demo/sub")
    assert index.lookup(paths(place), key) == "demo"
    (place / name).write_text("name: other\n")
    assert index.lookup(paths(place), key) is None


def test_a_changed_or_removed_file_makes_it_a_miss(place: Path) -> None:
    key = learn(place)
    file = place / "demo" / "compose.yaml"
    file.write_text("name: longer\n")
    assert index.lookup(paths(place), key) is None
    key = learn(place)
    file.unlink()
    assert index.lookup(paths(place), key) is None


def test_a_damaged_entry_is_a_miss(place: Path) -> None:
    key = learn(place)
    folder = Path(paths(place).state) / "index"
    for file in folder.iterdir():
        file.write_text("{")
    assert index.lookup(paths(place), key) is None


def test_standard_input_is_never_remembered(place: Path) -> None:
    key = index.key(str(place), ("-",), "", (), {})
    index.record(paths(place), key, "demo", ("-",), "-")
    assert index.lookup(paths(place), key) is None


def test_a_place_that_cannot_be_written_is_no_error(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "home").write_text("a file where the folder should be")
    key = learn(place)
    assert index.lookup(paths(place), key) is None


def test_the_entry_is_not_written_again_when_nothing_changed(place: Path) -> None:
    learn(place)
    file = next((Path(paths(place).state) / "index").iterdir())
    before = os.stat(file).st_ino
    learn(place)
    assert os.stat(file).st_ino == before
