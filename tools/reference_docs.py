"""Write docs/reference/compose-file.md from the code's own tables.

    python tools/reference_docs.py [--check]

`--check` writes nothing and fails when the committed file differs.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "src"))

FILE = ROOT / "docs" / "reference" / "compose-file.md"

KINDS = {
    "string": "string",
    "text": "string, number or boolean",
    "switch": "string or boolean",
    "boolean": "boolean",
    "integer": "whole number",
    "natural": "whole number, 0 or more",
    "whole": "whole number, not as text",
    "rounded": "number; a fraction is cut off",
    "figure": "number, not as text; a fraction is cut off",
    "number": "number",
    "bytes": "bytes: 1024, 512k, 64m, 1g",
    "anybytes": "bytes: 1024, 512k, 64m, 1g",
    "memory": "bytes, as text: 512k, 64m, 1g",
    "duration": "duration: 10s, 1m30s",
    "mode": "file mode: 0444",
    "count": "whole number or all",
    "port": "port or range",
    "pairs": "map, or list of NAME=VALUE",
    "dict": "map of strings",
    "ssh": "list of default or ID=PATH, or a map",
    "provider": "map of options",
    "free": "anything",
    "map": "map",
    "strings": "list of strings",
    "plains": "list of strings or numbers",
    "words": "string or list of strings",
    "command": "list of words, or one string split as a shell would",
    "test": "list beginning with CMD, CMD-SHELL or NONE, or a string",
    "maps": "list of maps",
    "requests": "list of device requests",
    "named": "list of names, or map by name",
    "build": "context, or map",
    "extends": "service, or map",
    "ports": "list: short [IP:][HOST:]CONTAINER[/PROTOCOL], or maps",
    "mounts": "list: short [SOURCE:]TARGET[:OPTIONS], or maps",
    "devices": "list: short HOST[:CONTAINER[:rwm]], or maps",
    "grants": "list of names, or maps",
    "env_files": "path, list of paths, or list of maps",
    "include": "list of paths or maps",
    "hosts": "list of NAME=ADDRESS, or map",
    "ulimits": "map of limit to number, or soft and hard",
    "gpus": "all, or list of device requests",
    "external": "boolean, or map with name",
}
MERGES = {
    "": {"pairs": "by name", "map": "key by key", "named": "by name", "dict": "by name", "ulimits": "by name"},
    "replace": "replaced",
    "unique": "appended, the same once",
    "target": "by target",
    "path": "by path",
    "port": "by address, ports and protocol",
    "append": "appended",
    "hosts": "appended, the same once",
    "subnet": "by subnet",
    "logging": "key by key if the driver is the same, else replaced",
}
LISTS = ("strings", "plains", "words", "maps", "requests", "include", "hosts", "gpus", "ssh")

# Keys that only steer the reading of files, and top-level parts whose engine side is told at the service.
READING = ("version", "name", "include", "services.*.extends", "services.*.profiles", "services.*.env_file",
           "services.*.label_file")  # fmt: skip


def honoured(path: str) -> str:
    """What the native engine does with a key today."""
    from kapelle.engines.native.honoured import NOT_HONOURED

    if path.startswith(READING):
        return "read"
    own = path.removeprefix("services.*.").replace("[]", "")
    for key, why in NOT_HONOURED.items():
        name, some, values = key.partition("!=") if "!=" in key else key.partition("=")
        if own == name or own.startswith(name + "."):  # `*` stands in both
            if values:
                return f"{values if some == '=' else 'other than ' + values}: not honoured: {why}"
            return f"not honoured: {why}"
    if own == "develop" or own.startswith("develop."):
        return "read; `kap watch` is to come"
    return "honoured"


def text() -> str:
    """The whole document."""
    from kapelle.compose.keys import DISTINCT, PATTERNS, RANGES, rows

    lines = [
        "# The Compose file: every key",
        "",
        "Made from the code's own table (`src/kapelle/compose/keys.py`) by `python tools/reference_docs.py`.",
        "`*` is a name of your own, `[]` an item of a list. *Merge*: what a later file does to an earlier one's value;",
        "scalars are replaced. *Native engine*: what `kap up` does with the key today. What is not honoured is said at",
        "`up` and by `kap config --check`, with file, line and column. Keys of your own begin with `x-` anywhere.",
        "",
        "| key | value | merge | since Compose | native engine |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in rows():
        kind = KINDS.get(row.kind) or row.kind.removeprefix("one:").replace("|", ", ")
        if row.path in PATTERNS:
            kind += f"; holds `{PATTERNS[row.path]}`".replace("|", "\\|")
        if row.path in RANGES:
            low, high = RANGES[row.path]
            kind += f"; {low} or more" if high >= 2**31 else f"; {low} to {high}"
        if row.path in DISTINCT:
            kind += "; nothing twice"
        usual = MERGES[""]
        assert isinstance(usual, dict)
        merge = MERGES[row.merge] if row.merge else usual.get(row.kind, "appended" if row.kind in LISTS else "")
        lines.append(f"| `{row.path}` | {kind} | {merge} | {row.since} | {honoured(row.path)} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    if "--check" in sys.argv:
        return 0 if FILE.exists() and FILE.read_text() == text() else 1
    FILE.parent.mkdir(parents=True, exist_ok=True)
    FILE.write_text(text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
