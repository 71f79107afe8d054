"""`config --explain` on every leaf of every accepted case: the place that is named holds the value that is shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tools import oracle

from kapelle.compose.load import load
from kapelle.compose.trace import Trace
from tests.golden.test_compose_golden import CASES


@pytest.mark.parametrize("case", [c for c in CASES if (c / "expected.json").exists()], ids=lambda p: p.name)
def test_every_leaf_is_explained_by_a_place_that_holds_its_value(case: Path) -> None:
    environment = oracle.environment_of(case)
    trace = Trace(environment)
    loaded = load(oracle.options_of(case), str(case), environment, trace=trace)
    explained = trace.explain(loaded.tree, "")
    assert explained
    for leaf in explained:
        assert leaf.steps or leaf.reason, leaf.path
        if leaf.steps:
            last = leaf.steps[-1]
            assert last.where is not None, leaf.path
            lines = (case / last.where.file).read_text().splitlines()
            assert 1 <= last.where.line <= max(len(lines), 1), leaf
            if leaf.path != "name" and not leaf.variables and not isinstance(last.value, (dict, list)):
                assert json.dumps(last.value) == json.dumps(leaf.value), leaf
