"""Recipes of the user's own: which files are read, and how mistakes in them are told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kapelle.errors import ImageError
from kapelle.images import reference
from kapelle.images.standins import custom, provide
from kapelle.images.standins.kitchen import Made

GOOD = """
from kapelle.images.standins.kitchen import Made

NAMES = ("tool", "ghcr.io/acme/tool")
BASE = False


def variants(tag):
    return ("1",)


def release(variant):
    return "bookworm"


def build(kitchen, variant):
    return Made({}, "Tool", "1.0")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "config/standins"
    made.mkdir(parents=True, mode=0o755)
    return made


def environ(folder: Path) -> dict[str, str]:
    return {"KAP_HOME": str(folder.parents[1])}


def put(folder: Path, text: str, name: str = "tool.py") -> Path:
    path = folder / name
    path.write_text(text)
    path.chmod(0o644)
    return path


def test_a_recipe_is_found_by_the_last_part_of_its_image_s_name(folder: Path) -> None:
    put(folder, GOOD)
    for name in ("tool", "ghcr.io/acme/tool"):
        found = custom.find(name, environ(folder))
        assert found is not None
        assert found.variants("2") == ("1",)
        assert isinstance(found.build(None, "1"), Made)
    assert custom.find("docker.io/other/tool", environ(folder)) is None
    assert custom.find("missing", environ(folder)) is None
    assert provide.available("ghcr.io/acme/tool:3", environ(folder))


def test_a_recipe_of_the_user_goes_before_ours_and_changes_its_key(folder: Path) -> None:
    ours = provide.recipe_of(reference.parse("redis:7"), environ(folder))
    put(folder, GOOD.replace('"tool"', '"redis"'), "redis.py")
    theirs = provide.recipe_of(reference.parse("redis:7"), environ(folder))
    assert ours is not None
    assert theirs is not None
    assert (ours.path, theirs.path) == ("", f"{folder}/redis.py")
    assert theirs.digest


@pytest.mark.parametrize(
    ("text", "place", "said"),
    [
        ("def f(:\n", "tool.py:1:", "the recipe is no Python"),
        ("\n\nimport nowhere_at_all\n", "tool.py:3:1", "ModuleNotFoundError"),
        ("raise SystemExit(3)\n", "tool.py:1:1", "SystemExit"),
        ("NAMES = ('tool',)\n", "tool.py:1:1", "has no BASE"),
        (GOOD.replace("NAMES = (", "NAMES = 7, ("), "tool.py:1:1", "NAMES must be a tuple"),
        ("\0", "tool.py:1:", ""),
    ],
)
def test_mistakes_are_told_with_file_and_line(folder: Path, text: str, place: str, said: str) -> None:
    put(folder, text)
    with pytest.raises(ImageError) as e:
        custom.find("tool", environ(folder))
    assert e.value.code == "KAP513"
    assert said in e.value.what
    assert place in str(e.value.where)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('("1",)', '("a/../../b",)', "variants"),
        ('("1",)', "()", "variants"),
        ('("1",)', "7", "TypeError"),
        ('"bookworm"', '"potato"', "release"),
        ('Made({}, "Tool", "1.0")', "None", "build() must give Made"),
        ('Made({}, "Tool", "1.0")', "1 / 0", "ZeroDivisionError"),
        ('Made({}, "Tool", "1.0")', 'open("/nowhere/x")', "FileNotFoundError"),
    ],
)
def test_what_a_recipe_answers_is_checked(folder: Path, old: str, new: str, said: str) -> None:
    path = put(folder, GOOD.replace(old, new))
    found = custom.find("tool", environ(folder))
    assert found is not None
    with pytest.raises(ImageError) as e:
        found.build(None, found.release(found.variants("1")[0]))
    assert said in e.value.what
    assert str(e.value.where).startswith(str(path))


def test_what_others_may_write_is_not_run(folder: Path) -> None:
    path = put(folder, "raise SystemExit('it ran')\n")
    path.chmod(0o666)
    with pytest.raises(ImageError, match="others may write to it") as e:
        custom.find("tool", environ(folder))
    assert e.value.hint == f"chmod go-w {path}"
    path.chmod(0o644)
    folder.chmod(0o775)
    with pytest.raises(ImageError, match="others may write to it"):
        custom.find("tool", environ(folder))


def test_links_and_odd_files_are_not_run(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere.py").write_text(GOOD)
    (folder / "tool.py").symlink_to(tmp_path / "elsewhere.py")
    with pytest.raises(ImageError, match="it is a link"):
        custom.find("tool", environ(folder))
    os.mkfifo(folder / "pipe.py")
    with pytest.raises(ImageError, match="no plain file"):
        custom.find("pipe", environ(folder))


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file away")
def test_files_of_another_user_are_not_run(folder: Path) -> None:
    os.chown(put(folder, GOOD), 1234, 1234)
    with pytest.raises(ImageError, match="it belongs to another user"):
        custom.find("tool", environ(folder))


def test_the_list_has_every_file_with_what_is_wrong(folder: Path) -> None:
    put(folder, GOOD)
    put(folder, "1 +\n", "broken.py")
    rows = dict(custom.known(environ(folder)))
    assert isinstance(rows[f"{folder}/tool.py"], custom.Recipe)
    assert isinstance(rows[f"{folder}/broken.py"], ImageError)
