"""What the YAML reader said is kept, and never taken for what it says of another text."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from kapelle.compose import remembered
from kapelle.compose.document import parse
from kapelle.compose.remembered import Memory
from kapelle.errors import ComposeFileError

TEXT = """\
x-base: &base {a: 1, b: !!str 2, c: ~}
services:
  web:
    <<: *base
    list: [on, 'quoted', 1.5, 0o17, "é"]
    text: |
      two
      lines
    gone: !reset null
---
services: {more: !override [1]}
"""


def shape(text: str, memory: Memory | None) -> object:
    def places(value: object) -> object:
        if isinstance(value, dict):
            at = {k: (m.name, m.line, m.column) for k, m in value.at.items()}  # type: ignore[attr-defined]
            return {k: (places(v), at.get(k)) for k, v in value.items()}
        if isinstance(value, list):
            return [(places(v), (m.line, m.column)) for v, m in zip(value, value.at, strict=True)]  # type: ignore[attr-defined]
        return (type(value), value)

    return [(places(d.tree), d.removals) for d in parse(text, "f.yaml", memory)]


def test_a_kept_text_is_read_as_before_without_the_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Memory(str(tmp_path / "kept"))
    wanted = shape(TEXT, None)
    assert shape(TEXT, memory) == wanted
    monkeypatch.setitem(sys.modules, "yaml", None)  # whoever imports it now fails
    assert shape(TEXT, memory) == wanted
    assert (tmp_path / "kept").stat().st_mode & 0o077 == 0


def test_another_text_with_the_same_name_is_another(tmp_path: Path) -> None:
    memory = Memory(str(tmp_path))
    shape("a: 1\n", memory)
    (kept,) = tmp_path.iterdir()
    kept.rename(memory._path("b: 1\n"))
    assert memory.events("b: 1\n", "f") is None


@pytest.mark.parametrize("damage", [b"", b"no marshal", b"\xe9\x00\x00\x00\x00", b"N", b"\x29\x00"])
def test_damage_is_read_over(tmp_path: Path, damage: bytes) -> None:
    memory = Memory(str(tmp_path))
    wanted = shape(TEXT, memory)
    (kept,) = tmp_path.iterdir()
    kept.write_bytes(damage)
    assert shape(TEXT, memory) == wanted


def test_what_can_not_be_read_is_not_kept(tmp_path: Path) -> None:
    memory = Memory(str(tmp_path))
    for text in ("a: [", "a: 1\na: 2\n", "a: 1\n\0"):
        with pytest.raises(ComposeFileError):
            parse(text, "f", memory)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_can_not_be_written_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert shape(TEXT, Memory(str(tmp_path / "file" / "below"))) == shape(TEXT, None)


def test_old_ones_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "MOST_FILES", 4)
    memory = Memory(str(tmp_path))
    for number in range(9):
        shape(f"a: {number}\n", memory)
    assert len(list(tmp_path.iterdir())) <= 5
