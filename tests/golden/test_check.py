"""`config --check` and `--explain` as a person sees them, on a project with a mistake in every file."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from kapelle.cli.main import main
from kapelle.compose.schema import schema

HERE = Path(__file__).parent / "check"


@pytest.fixture(autouse=True)
def in_the_project(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(HERE / "project")
    for name in ("NGINX_VERSION", "LOGLEVEL", "LOG_LEVEL", "COMPOSE_FILE", "COMPOSE_PROJECT_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KAP_HOME", str(tmp_path))


def test_every_mistake_of_all_files_is_told_in_one_go(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "--check"]) == 1
    told = capsys.readouterr().out.replace(str(HERE / "project"), "/HERE")
    assert told == (HERE / "expected.txt").read_text()


def test_json_says_the_same_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    main(["config", "--check"])
    lines = capsys.readouterr().out.splitlines()[:-1]
    assert main(["config", "--check", "--format", "json"]) == 1
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == len(lines)
    for row, line in zip(rows, lines, strict=True):
        assert line.startswith(f"{row['file']}:{row['line']}:{row['column']}: {row['severity']}: ")


def test_what_is_right_passes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text("services:\n  a: {image: x}\n")
    assert main(["-f", str(tmp_path / "compose.yaml"), "config", "--check"]) == 0
    assert capsys.readouterr().out == "0 errors, 0 warnings in 1 file\n"


def test_what_the_engine_does_not_honour_is_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text("services:\n  a:\n    image: x\n    runtime: runc\n    pid: none\n")
    assert main(["-f", str(tmp_path / "compose.yaml"), "config", "--check"]) == 1
    told = capsys.readouterr().out
    assert re.search(r':4:5: warning: service "a": runtime is not honoured: ', told)
    assert re.search(r':5:5: error: service "a": invalid PID mode: none', told)


def test_the_origin_of_a_value_is_told_in_words(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("# levels\nLEVEL=debug\n")
    (tmp_path / "compose.yaml").write_text("services:\n  a:\n    image: x\n    environment:\n      LOG: info\n")
    (tmp_path / "compose.override.yaml").write_text("services:\n  a:\n    environment: [ 'LOG=${LEVEL:-warn}' ]\n")
    assert main(["--project-directory", str(tmp_path), "config", "--explain", "services.a.environment.LOG"]) == 0
    told = capsys.readouterr().out.replace(str(tmp_path), "/HERE")
    assert told == (
        "services.a.environment.LOG = debug\n"
        "  set by     /HERE/compose.override.yaml:3:20\n"
        "  written    LOG=${LEVEL:-warn}\n"
        "  variable   LEVEL = debug, from /HERE/.env:2\n"
        "  overrides  /HERE/compose.yaml:5:7: info\n"
    )


def test_a_path_that_leads_nowhere_names_the_nearest(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text("services:\n  web: {image: x}\n")
    assert main(["-f", str(tmp_path / "compose.yaml"), "config", "--explain", "services.wbe.image"]) == 1
    assert 'did you mean "web"?' in capsys.readouterr().err


def test_the_schema_has_every_key_of_the_table() -> None:
    from kapelle.compose.keys import rows

    def names(tree: Any) -> set[str]:
        if isinstance(tree, list):
            return {n for item in tree for n in names(item)}
        if not isinstance(tree, dict):
            return set()
        own = set(tree.get("properties", {}))
        return own | {n for item in tree.values() for n in names(item)}

    wanted = {part.removesuffix("[]") for row in rows() for part in row.path.split(".")} - {"*"}
    assert wanted <= names(schema())
