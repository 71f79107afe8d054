"""Case folders: each compose file gives the model that docker compose 2.40 gives, or is refused as it refuses it.

`tools/oracle.py --write` made the expectations; the test itself needs no oracle.
"""

from __future__ import annotations

import json
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
