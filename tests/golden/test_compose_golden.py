"""Case folders: each compose file gives the model that docker compose 2.40 gives, or is refused as it refuses it.

`tools/oracle.py --write` made the expectations; the test itself needs no oracle.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tools import oracle

CASES = sorted(p for p in (Path(__file__).parent / "compose").iterdir() if p.is_dir())
DIGESTS = oracle.read_digests(CASES[0].parent)
# What the reference prints for these is no file that gives the same again: keys are escaped but never interpolated;
# a dependency that is optional leads to a service that is left out.
ONE_WAY = {"var-keys", "profile-optional-dep"}
ACCEPTED = [c for c in CASES if (c / "expected.json").exists() and c.name not in ONE_WAY]


@pytest.mark.parametrize("case", CASES, ids=lambda p: p.name)
def test_a_file_means_what_docker_compose_says_it_means(case: Path) -> None:
    mine, error = oracle.ours(case)
    refused = case / "expected-error.txt"
    if refused.exists():
        assert error, f"accepted, but the reference says: {refused.read_text()}"
    else:
        assert not error
        assert oracle.differences(mine, json.loads((case / "expected.json").read_text())) == []


@pytest.mark.parametrize("case", [c for c in CASES if (c / "expected.json").exists()], ids=lambda p: p.name)
def test_config_prints_the_bytes_that_docker_compose_prints(case: Path) -> None:
    mine = [oracle.digest(oracle.our_text(case, format)) for format in oracle.FORMATS]
    assert mine == DIGESTS[case.name], f"python tools/oracle.py {case} shows the difference"


@pytest.mark.parametrize("case", ACCEPTED, ids=lambda p: p.name)
def test_what_config_prints_reads_back_as_the_same_model(case: Path, tmp_path: Path) -> None:
    from kapelle.compose import dump
    from kapelle.compose.load import Options, load

    environment = oracle.environment_of(case)
    first = load(oracle.options_of(case), str(case), environment)
    (tmp_path / "compose.yaml").write_text(dump.to_yaml(first.tree))
    again = Options(files=(str(tmp_path / "compose.yaml"),), profiles=("*",), all_resources=True)
    second = load(again, str(tmp_path), {})
    assert json.loads(dump.to_json(second.tree)) == json.loads(dump.to_json(first.tree))


_SHORT = """name: short
services:
  a:
    build: {context: /b, args: [A=1, B]}
    secrets: [s]
  p:
    image: x
    profiles: [q]
secrets:
  s: {environment: S}
"""


def _config(folder: Path, *flags: str) -> str:
    (folder / "compose.yaml").write_text(_SHORT)
    command = [sys.executable, "-m", "kapelle", "config", *flags]
    environ = {**os.environ, "B": "2", "KAP_HOME": str(folder / "home")}
    return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=True).stdout


def test_without_normalising_arguments_stay_as_written_and_secrets_have_their_target(tmp_path: Path) -> None:
    text = (
        'name: short\nservices:\n  a:\n    build:\n      context: /b\n      args:\n        A: "1"\n        B: null\n'
        "    secrets:\n      - source: s\n        target: /run/secrets/s\nsecrets:\n  s:\n    environment: S\n"
    )
    assert _config(tmp_path, "--no-normalize") == text  # as docker compose prints it


def test_without_interpolation_services_of_all_profiles_are_shown(tmp_path: Path) -> None:
    assert _config(tmp_path, "--no-interpolate", "--services") == "a\np\n"
    assert _config(tmp_path, "--services") == "a\n"


def test_json_ends_as_docker_composes_does_without_a_line_break(tmp_path: Path) -> None:
    assert _config(tmp_path, "--format", "json").endswith("  }\n}")
