"""Write docs/reference from the code's own tables: the compose file, the commands, the variables, the errors.

    python tools/reference_docs.py [--check]

`--check` writes nothing and fails when a committed file differs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kapelle.cli.flags import Flag

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "src"))

FOLDER = ROOT / "docs" / "reference"

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

# Keys that only steer the reading of files.
READING = ("version", "name", "include", "services.*.extends", "services.*.profiles", "services.*.env_file",
           "services.*.label_file")  # fmt: skip
# What is told by looking at this machine or at single values, not by the table of keys.
SPECIAL = {
    "services.*.volumes[].type": "bind, volume, tmpfs and image honoured; others refused at `up`",
    "services.*.volumes[].bind.selinux": "no labels are set: told where SELinux is on",
    "services.*.userns_mode": "host, private and auto; others refused at `up`",
    "networks.*.driver": "bridge; others refused at `up`",
    "networks.*.driver_opts": "mtu, enable_icc and host_binding_ipv4 honoured; others told at `up`",
    "networks.*.enable_ipv4": "true honoured; false told at `up`",
    "volumes.*.driver": "local; others refused at `up`",
    "volumes.*.driver_opts": "type, o and device honoured; others refused at `up`",
}


def honoured(path: str) -> str:
    """What the native engine does with a key today."""
    from kapelle.engines.native.honoured import NOT_HONOURED

    if path.startswith(READING):
        return "read"
    if path in SPECIAL:
        return SPECIAL[path]
    if path.partition(".")[0] == "models":  # told at the services that use them
        path = "services.*.models"
    for key, why in NOT_HONOURED.items():
        name, some, values = key.partition("!=") if "!=" in key else key.partition("=")
        if path == name or path.startswith((f"{name}.", f"{name}[]")):  # `*` and `[]` stand in both
            if values:
                return f"{values if some == '=' else 'other than ' + values}: not honoured: {why}".replace("|", "\\|")
            return f"not honoured: {why}"
    return "honoured"


def compose_file() -> str:
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


def commands() -> str:
    """A section for each command, as `kap help COMMAND` tells it."""
    from kapelle.cli import dispatch
    from kapelle.cli import help as pages

    lines = [
        "# Every command",
        "",
        "Made from the commands' own tables by `python tools/reference_docs.py`; `kap help COMMAND` prints the same.",
        "Verbs, flags and words are docker compose's where it has them. `--dry-run` and `--help` are understood after",
        "every command, too.",
        "",
        "## In front of the command",
        "",
        *_flags(dispatch.GLOBAL_FLAGS),
    ]
    for title, verbs in pages.GROUPS:
        lines += ["", f"## {title}"]
        for verb in verbs:
            module = dispatch.command(verb)
            group = getattr(module, "SUBCOMMANDS", None)
            for word, one in group.items() if group else (("", module),):
                name = f"{verb} {word}".strip()
                arguments = f" {one.ARGUMENTS}" if getattr(one, "ARGUMENTS", "") else ""
                lines += ["", f"### kap {name}", "", f"`kap {name} [flags]{arguments}`: {one.HELP}"]
                if any(not f.hidden for f in one.FLAGS):
                    lines += ["", *_flags(one.FLAGS)]
    return "\n".join(lines) + "\n"


def _flags(flags: Sequence[Flag]) -> list[str]:
    from kapelle.cli.help import flag_rows

    def cell(text: str) -> str:
        return text.strip().replace("|", "\\|")

    rows = [f"| `{cell(names)}` | {cell(text)} |" for names, text in flag_rows(flags)]
    return ["| flag | what it does |", "| --- | --- |", *rows]


def variables() -> str:
    from kapelle.cli import variables as table

    def rows(some: Sequence[table.Variable], *, flags: bool) -> list[str]:
        head = [
            "| variable | flag | what it says |" if flags else "| variable | what it says |",
            "| --- " * (2 + flags) + "|",
        ]
        for v in some:
            names = ", ".join(f"`{n}`" for n in v.name.split(", "))
            flag = f" {f'`{v.flag}`' if v.flag else ''} |" if flags else ""
            head.append(f"| {names} |{flag} {v.meaning} |")
        return head

    return "\n".join([
        "# Environment variables",
        "",
        "Made from `src/kapelle/cli/variables.py` by `python tools/reference_docs.py`. A flag goes before its",
        "variable. What `${NAME}` in a file and a container get is another matter: `.env`, `env_file`, `environment`.",
        "",
        "## Docker Compose's",
        "",
        *rows(table.COMPOSE, flags=True),
        "",
        "The first four may stand in `.env`, too.",
        "",
        "## Kapelle's own",
        "",
        *rows(table.OWN, flags=True),
        "",
        "## Of the host",
        "",
        *rows(table.SHARED, flags=False),
    ]) + "\n"  # fmt: skip


def errors() -> str:
    from kapelle.cli.commands.explain import CODES

    lines = [
        "# Errors",
        "",
        "Every message ends with its code. Made from `src/kapelle/cli/commands/explain.py` by",
        "`python tools/reference_docs.py`; `kap explain CODE` prints the same.",
        "",
        "| code | about | what it means and what helps |",
        "| --- | --- | --- |",
    ]
    lines += [f"| {code} | {about} | {text} |" for code, (about, text) in CODES.items()]
    return "\n".join(lines) + "\n"


PAGES: dict[Path, Callable[[], str]] = {
    FOLDER / "compose-file.md": compose_file,
    FOLDER / "cli.md": commands,
    FOLDER / "environment.md": variables,
    FOLDER / "errors.md": errors,
}


def main() -> int:
    if "--check" in sys.argv:
        return 0 if all(file.exists() and file.read_text() == text() for file, text in PAGES.items()) else 1
    FOLDER.mkdir(parents=True, exist_ok=True)
    for file, text in PAGES.items():
        file.write_text(text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
