"""A few seconds of coverage-guided fuzzing of each parser, where atheris can be had."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz import seeds
from tests.fuzz.targets import TARGETS

SECONDS = int(os.environ.get("KAP_FUZZ", "1"))


@pytest.mark.root  # what it finds does not depend on the user
@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is not installed")
def test_inputs_that_reach_further_give_values_or_errors_of_ours(tmp_path: Path) -> None:
    words = [f"-max_total_time={SECONDS}", "-timeout=20", "-rss_limit_mb=2000", "-max_len=4000", "-verbosity=0"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.guided", "all", *words],
        cwd=seeds.ROOT,
        env={**os.environ, "PYTHONPATH": str(seeds.ROOT / "src"), "KAP_FUZZ_PLACE": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=(SECONDS + 20) * len(TARGETS),
        check=False,
    )
    found = {f"{f.parent.name}/{f.name}": f.read_bytes() for f in tmp_path.glob("fuzz-*/*-*")}
    told = "\n".join(row for row in done.stderr.splitlines() if not row.startswith("INFO"))
    assert done.returncode == 0, f"{done.stdout}{told}\nfound: {found}"
