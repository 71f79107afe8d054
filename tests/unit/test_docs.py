"""What is generated is up to date, and documents name what exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tools import reference_docs, security_doc

from tests.escapes import attempts

ROOT = Path(__file__).parent.parent.parent


def test_the_reference_is_what_the_tables_say() -> None:
    assert reference_docs.FILE.read_text() == reference_docs.text(), "run python tools/reference_docs.py"


@pytest.mark.parametrize("file", [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))], ids=lambda p: p.name)
def test_links_between_documents_lead_somewhere(file: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", file.read_text()):
        if "://" not in target:
            assert (file.parent / target).exists(), target


def test_the_table_that_counts_cases_counts_right() -> None:
    text = (ROOT / "docs" / "compatibility.md").read_text()
    cases = [c for c in (ROOT / "tests" / "golden" / "compose").iterdir() if c.is_dir()]
    assert f"holds {len(cases)} cases" in text
    assert f"all\n{sum((c / 'expected.json').exists() for c in cases)} accepted" in text


def test_the_table_of_the_escape_suite_is_what_is_run() -> None:
    assert security_doc.FILE.read_text() == security_doc.text(), "run python tools/security_doc.py"
    tries = (ROOT / "tests" / "escapes" / "probe.py").read_text()
    for attempt in attempts.ATTEMPTS:
        assert f"\ndef {attempt.name}() -> str:" in tries
    for row in attempts.ELSEWHERE:
        file, _, name = row.test.partition("::")
        assert f"def {name}(" in (ROOT / file).read_text(), row.test
