"""What is generated is up to date, and documents name what exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tools import reference_docs, security_doc

import kapelle
from kapelle.cli import dispatch, variables
from tests.escapes import attempts

ROOT = Path(__file__).parent.parent.parent


SOURCES = sorted((ROOT / "src").rglob("*.py"))


@pytest.mark.parametrize("file", reference_docs.PAGES, ids=lambda p: p.name)
def test_the_reference_is_what_the_tables_say(file: Path) -> None:
    assert file.read_text() == reference_docs.PAGES[file](), "run python tools/reference_docs.py"


def test_the_row_of_a_key_speaks_of_that_key_and_not_of_a_services_of_the_same_name() -> None:
    assert "mtu" in reference_docs.honoured("networks.*.driver_opts")
    assert "not honoured" in reference_docs.honoured("services.*.networks.*.driver_opts")
    assert reference_docs.honoured("networks.*.labels") == "honoured"
    assert "not honoured" in reference_docs.honoured("services.*.develop.watch[].path")


def test_every_variable_that_the_source_names_is_in_the_table_and_no_other() -> None:
    table = {v.name for v in (*variables.COMPOSE, *variables.OWN)} | set(variables.INTERNAL)
    text = "".join(f.read_text() for f in SOURCES if f.name != "variables.py")
    named = set(re.findall(r"\b(?:KAP|COMPOSE)_[A-Z_]*[A-Z]\b", text)) - {"COMPOSE_VERSION"}
    assert named == table


# Documents of specifications that others publish.
FOREIGN = (
    "spec/api.md", "manifest.md", "image-index.md", "config.md", "spec/auth/token.md", "spec/auth/scope.md",
    "spec/auth/oauth.md", "layer.md", "image-layout.md", "descriptor.md",
)  # fmt: skip


@pytest.mark.parametrize("file", SOURCES, ids=lambda p: str(p.relative_to(ROOT / "src" / "kapelle")))
def test_a_document_that_the_source_names_is_there(file: Path) -> None:
    for name in re.findall(r"[\w./-]+\.md\b", file.read_text()):
        assert name in FOREIGN or (ROOT / name).exists(), name


def test_what_the_readme_says_is_not_here_is_not_here() -> None:
    text = (ROOT / "README.md").read_text()
    missing = text.partition("### Not here")[2].partition("\n- the Engine")[0]
    for verb in dispatch.NOT_HERE:
        assert f"`{verb}`" in missing
        assert verb not in dispatch.COMMANDS
    assert f"This is version {kapelle.__version__}:" in text
    assert kapelle.COMPOSE_VERSION in text


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
