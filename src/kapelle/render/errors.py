"""An error as people read it, and as JSON. Pattern: what failed, where, what was seen, why, the smallest next step.

error: compose.yaml:14:7: service "web" depends on "cache", which is not defined [KAP402]
  chain  web -> cache
 hint: define "cache" under services
"""

from __future__ import annotations

import os
from collections.abc import Callable

from kapelle.errors import KapelleError, Mistakes, Position
from kapelle.light import jsontext


def text(error: KapelleError, cwd: Callable[[], str] = os.getcwd) -> str:
    """The lines of one error, or of each mistake, ending in a newline. Paths are shown relative to the caller."""
    if isinstance(error, Mistakes):
        return "".join(text(mistake, cwd) for mistake in error.mistakes)
    place = f"{shown(error.where, cwd)}: " if error.where else ""
    first, *more = error.what.rstrip("\n").split("\n")
    lines = [f"error: {place}{first} [{error.code}]", *(f"  {line}" for line in more)]
    rows = list(error.details)
    if error.why:
        rows.insert(0, ("because", error.why))
    width = max((len(label) for label, _ in rows), default=0)
    for label, value in rows:
        head, *tail = value.split("\n")
        lines.append(f"  {label:<{width}}  {head}".rstrip())
        lines += [f"  {'':<{width}}  {line}".rstrip() for line in tail]
    if error.hint:
        head, *tail = error.hint.split("\n")
        lines += [f" hint: {head}", *(f"       {line}" for line in tail)]
    return "\n".join(lines) + "\n"


def as_json(error: KapelleError) -> str:
    """One object a line: Compose's two fields (error, message), then ours."""
    if isinstance(error, Mistakes):
        return "".join(as_json(mistake) for mistake in error.mistakes)
    value: dict[str, object] = {"error": True, "message": error.what, "code": error.code}
    if error.where:
        value["where"] = {"file": error.where.file, "line": error.where.line, "column": error.where.column}
    if error.why:
        value["why"] = error.why
    if error.details:
        value["details"] = [{"label": label, "text": row} for label, row in error.details]
    if error.hint:
        value["hint"] = error.hint
    return jsontext.dumps(value, ascii_only=False, compact=False) + "\n"


def shown(where: Position, cwd: Callable[[], str] = os.getcwd) -> str:
    """file:line:column, the file relative to the working directory when it lies below it."""
    file = where.file
    if file.startswith("/"):
        try:
            base = cwd().rstrip("/") + "/"
        except OSError:  # the working directory is gone
            base = "/dev/null/"
        if file.startswith(base):
            file = file[len(base) :]
    return f"{file}:{where.line}:{where.column}" if where.line else file
