"""The corpora: files in tests/fuzz/corpus/TARGET, and what the repository has elsewhere of that kind."""

from __future__ import annotations

from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent

_ELSEWHERE = {
    "yaml": "tests/golden/compose/a*/compose.yaml",
    "env_file": "tests/golden/compose/dotenv-*/.env",
    "docker_file": "examples/**/Dockerfile",
    "copied": "tests/fuzz/corpus/tar/*",
}


def of(target: str) -> list[bytes]:
    found = sorted((HERE / "corpus" / target).glob("*"))
    if target in _ELSEWHERE:
        found += sorted(ROOT.glob(_ELSEWHERE[target]))
    return [path.read_bytes() for path in found] or [b""]
