"""Without root: what works, works; what does not is said in one message, and nothing is half-made."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.rootless,
    pytest.mark.skipif(os.geteuid() == 0, reason="is about an ordinary user"),
]


def kap(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "KAP_HOME": str(folder / "home")}
    (folder / "compose.yaml").write_text("services: {web: {image: 'x:1', build: .}}\n")
    command = [sys.executable, "-m", "kapelle", *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("words", [("up", "-d"), ("build",), ("run", "web")])
def test_starting_a_container_says_that_it_needs_root_and_makes_nothing(tmp_path: Path, words: tuple[str, ...]) -> None:
    done = kap(tmp_path, *words)
    assert done.returncode == 1
    assert "KAP701" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "home").glob("**/container.json"))


@pytest.mark.parametrize("words", [("config", "-q"), ("version",), ("ps",), ("ls",), ("volume", "ls"), ("plan",)])
def test_what_starts_nothing_works(tmp_path: Path, words: tuple[str, ...]) -> None:
    done = kap(tmp_path, *words)
    assert done.returncode == 0, done.stderr
