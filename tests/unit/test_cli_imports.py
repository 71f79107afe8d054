"""The fast commands load only what they need (DESIGN 13): start-up is a budget."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {
    "argparse",
    "asyncio",
    "dataclasses",
    "email",
    "http",
    "logging",
    "rich",
    "subprocess",
    "tarfile",
    "urllib3",
    "yaml",
}


def imported(tmp_path: Path, *words: str) -> set[str]:
    code = f"import sys; from kapelle.cli.main import main; main({list(words)!r}); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-I", "-c", code],
        env={"KAP_HOME": str(tmp_path / "home"), "PATH": "/usr/bin:/bin"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stderr.split())


def test_version_loads_nothing_but_itself(tmp_path: Path) -> None:
    loaded = imported(tmp_path, "version")
    assert {m for m in loaded if m.startswith("kapelle")} == {"kapelle", "kapelle.cli", "kapelle.cli.main"}


@pytest.mark.parametrize(
    "words",
    [["ps"], ["ps", "--format", "json"], ["logs"], ["ls"], ["port", "--help"], ["volume", "ls"], ["network", "ls"]],
    ids=" ".join,
)
def test_commands_that_only_look_load_no_yaml_no_model_and_no_engine(tmp_path: Path, words: list[str]) -> None:
    loaded = imported(tmp_path, "-p", "demo", *words)
    assert not HEAVY & {m.split(".")[0] for m in loaded}
    assert not {m for m in loaded if m.startswith(("kapelle.compose", "kapelle.model", "kapelle.images"))}
    assert "kapelle.engines.native.engine" not in loaded
