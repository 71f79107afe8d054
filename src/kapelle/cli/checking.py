"""`config --check` in words: one `file:line:column: severity: message` a line, as editors read it, or JSON."""

from __future__ import annotations

import json

from kapelle.light import TYPE_CHECKING

if TYPE_CHECKING:
    from kapelle.cli.context import Context
    from kapelle.compose.check import Finding


def report(context: Context, format: str) -> tuple[str, bool]:
    """(text, are there errors?)."""
    from kapelle.compose.check import check

    found, files = check(context.options, context.cwd, context.environ)
    errors = sum(f.severity == "error" for f in found)
    if not errors:
        found += _engine(context)
        errors = sum(f.severity == "error" for f in found)
    if format == "json":
        return json.dumps([_plain(f) for f in found], indent=2, ensure_ascii=False) + "\n", bool(errors)
    lines = [_line(f) for f in found]
    warnings = len(found) - errors
    lines.append(f"{_count(errors, 'error')}, {_count(warnings, 'warning')} in {_count(len(files), 'file')}")
    return "\n".join(lines) + "\n", bool(errors)


def _engine(context: Context) -> list[Finding]:
    """What the files ask for and the engine refuses (errors: `up` would end there) or goes on without (warnings)."""
    from kapelle.compose import load as loading
    from kapelle.compose.check import Finding
    from kapelle.engine import support

    project = loading.load(context.options, context.cwd, context.environ).project
    engine = context.engine()
    refused, without = engine.foresee(project)
    without = support.mistakes(project, project.services, engine.capabilities()) + without
    return [
        Finding(severity, f"{e.what} (native engine)", e.where, e.hint, e.code)
        for severity, rows in (("error", refused), ("warning", without))
        for e in rows
    ]


def _line(finding: Finding) -> str:
    where = f"{finding.where}: " if finding.where is not None else ""
    text = " ".join(finding.text.split("\n"))
    hint = f" ({finding.hint})" if finding.hint else ""
    return f"{where}{finding.severity}: {text}{hint}"


def _plain(finding: Finding) -> dict[str, object]:
    where = finding.where
    return {
        "file": where.file if where else None,
        "line": where.line if where else None,
        "column": where.column if where else None,
        "severity": finding.severity,
        "code": finding.code or None,
        "message": finding.text,
        "hint": finding.hint or None,
    }


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
