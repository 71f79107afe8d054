"""Write the table of the escape suite into docs/security.md from tests/escapes/attempts.py.

    python tools/security_doc.py [--check]

`--check` writes nothing and fails when the committed file differs.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

FILE = ROOT / "docs" / "security.md"
BEGIN, END = "<!-- made by tools/security_doc.py -->", "<!-- end -->"


def table() -> str:
    from tests.escapes.attempts import ATTEMPTS, ELSEWHERE

    rows = ["| where | what is tried | what refuses it |", "| --- | --- | --- |"]
    rows += [f"| {a.area} | {a.words} | {'. '.join(filter(None, (a.wall, a.unlike)))} |" for a in ATTEMPTS]
    rows += [f"| {e.area} | {e.words} | {e.wall} |" for e in ELSEWHERE]
    return "\n".join(row.replace("/proc/*/", r"/proc/\*/") for row in rows)


def text() -> str:
    """The file with its table renewed."""
    before, _, rest = FILE.read_text().partition(BEGIN)
    return f"{before}{BEGIN}\n\n{table()}\n\n{END}{rest.partition(END)[2]}"


def main() -> int:
    wanted = text()
    if "--check" in sys.argv[1:]:
        return 0 if FILE.read_text() == wanted else 1
    FILE.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main())
