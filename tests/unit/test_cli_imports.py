"""The fast commands load only what they need: start-up is a budget."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent.parent / "src"

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


SLOW = {
    "contextlib", "ctypes", "dataclasses", "enum", "json", "logging", "re", "selectors", "signal", "socket",
    "threading", "typing", "yaml",
}  # fmt: skip


@pytest.mark.parametrize(
    ("module", "more"),
    [
        ("kapelle.cli.commands.ps", {"kapelle.render.containers", "kapelle.engines.native.records"}),
        ("kapelle.cli.commands.logs", {"kapelle.engines.native.output"}),
        ("kapelle.cli.commands.exec", {"kapelle.engines.native.execution"}),
        ("kapelle.cli.commands.up", {"kapelle.compose.load", "kapelle.state.index"}),
        (
            "kapelle.cli.bringup",
            {f"kapelle.engines.native.{name}" for name in ("preflight", "creation", "spec", "mapping", "single")},
        ),
        ("kapelle.cli.commands.down", {f"kapelle.engines.native.{name}" for name in ("engine", "resources")}),
        ("kapelle.engines.native.keeper", set()),
    ],
)
def test_what_starts_often_loads_no_slow_part_of_the_standard_library(module: str, more: set[str]) -> None:
    """Two to five milliseconds each, of 20 that a command may take; `kapelle.light` has what is needed of them."""
    words = "; ".join(f"import {name}" for name in sorted({module, *more}))
    code = f"import sys; sys.path.insert(0, {str(SOURCE)!r}); {words}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True).stdout
    slow = SLOW - ({"ctypes"} if module.endswith("keeper") else set())  # it makes the system calls
    assert not slow & set(loaded.split())
