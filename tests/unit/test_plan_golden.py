"""Plans from words to text: tests/golden/plan/CASE holds the file, what ran before, the words and the plan.

KAP_GOLDEN=write writes the plans anew; look at the difference before you keep it.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from kapelle.cli.main import main
from kapelle.engine.fake import Behaviour, world_of
from kapelle.state.paths import find

CASES = sorted(p for p in (Path(__file__).parent.parent / "golden" / "plan").iterdir() if p.is_dir())


@pytest.mark.parametrize("case", CASES, ids=lambda p: p.name)
def test_the_plan_is_the_golden_one(
    case: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "demo"
    folder.mkdir()
    for name in [n for n in os.environ if n.startswith(("COMPOSE_", "KAP_")) and n != "KAP_GOLDEN"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("KAP_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("KAP_ENGINE", "fake")
    monkeypatch.chdir(folder)
    (folder / "Dockerfile").write_text("FROM scratch\n")
    world = world_of(find(os.environ).state)
    world.behaviours |= {"migrate": Behaviour(exits=0), "db": Behaviour(health="healthy")}
    if (case / "before.yaml").exists():
        shutil.copy(case / "before.yaml", folder / "compose.yaml")
        assert main(["up", "-d"]) == 0
        capsys.readouterr()
    shutil.copy(case / "compose.yaml", folder / "compose.yaml")
    assert main(["--dry-run", *(case / "words").read_text().split()]) == 0
    text = capsys.readouterr().out
    if os.environ.get("KAP_GOLDEN") == "write":
        (case / "plan.txt").write_text(text)
    assert text == (case / "plan.txt").read_text()
