"""Dockerfiles in the style of public ones, each built and run: what its container prints is in `expected`.

A user with one id can't keep other owners: `expected.one-id` is what is seen then.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.scenarios.conftest import ROOT, Kap, one_id

CASES = sorted(p.parent for p in (ROOT / "tests" / "dockerfiles").glob("*/Dockerfile"))
COMPOSE = "services: {app: {build: .}}\n"


@pytest.mark.parametrize("case", CASES, ids=lambda p: p.name)
def test_dockerfile_builds_and_its_container_says_what_it_should(case: Path, kap: Kap) -> None:
    shutil.copytree(case, kap.folder, dirs_exist_ok=True)
    if not (kap.folder / "compose.yaml").exists():
        kap.file(COMPOSE)
    done = kap.ok("run", "--rm", "-T", "--build", "app", timeout=400, KAP_BUILD_PASS="of the caller")
    wanted = case / "expected.one-id" if one_id(kap) and (case / "expected.one-id").exists() else case / "expected"
    assert done.out.rstrip("\n") == wanted.read_text().rstrip("\n"), done


def test_there_are_forty_of_them() -> None:
    assert len(CASES) >= 40


def test_their_files_are_named_as_in_git() -> None:
    assert not [p for c in CASES for p in c.rglob("*") if os.path.islink(p)]
