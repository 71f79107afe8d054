"""`config --explain PATH` in words: the value, where it is set, what it replaced, the variables in it."""

from __future__ import annotations

import json

from kapelle.light import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kapelle.cli.context import Context
    from kapelle.compose.trace import Explanation, Step

_HOW = {"file": "", "include": "included", "extends": "extended", "env_file": "env_file"}


def explain(context: Context, path: str, format: str) -> str:
    """Text (or JSON) for each leaf at or below the path. Raises KapelleError when nothing is there."""
    from kapelle.compose import load as loading
    from kapelle.compose.trace import Trace

    trace = Trace(context.environ)
    loaded = loading.load(context.options, context.cwd, context.environ, trace=trace)
    found = trace.explain(loaded.tree, path)
    if format == "json":
        return json.dumps([_plain(leaf) for leaf in found], indent=2, ensure_ascii=False) + "\n"
    return "\n".join(_words(leaf) for leaf in found)


def _words(leaf: Explanation) -> str:
    lines = [f"{leaf.path} = {_shown(leaf.value)}"]
    if leaf.steps:
        lines.append(f"  set by     {_place(leaf.steps[-1])}")
    else:
        lines.append(f"  because    {leaf.reason}")
    if leaf.written:
        lines.append(f"  written    {leaf.written}")
    for variable in leaf.variables:
        if variable.value is None:
            lines.append(f"  variable   {variable.name} is not set")
        else:
            lines.append(f"  variable   {variable.name} = {variable.value}, from {variable.where}")
    lines += [f"  overrides  {_place(step)}: {_shown(step.value)}" for step in reversed(leaf.steps[:-1])]
    return "\n".join(lines) + "\n"


def _place(step: Step) -> str:
    how = _HOW[step.how]
    if step.how == "extends":
        how = f"extended, {step.label.partition(', ')[2]}"
    return f"{step.where or step.label}" + (f" ({how})" if how else "")


def _shown(value: Any) -> str:
    return value if isinstance(value, str) and value and value == value.strip() else json.dumps(value)


def _plain(leaf: Explanation) -> dict[str, Any]:
    def step(s: Step) -> dict[str, Any]:
        at = {"file": s.where.file, "line": s.where.line, "column": s.where.column} if s.where else {}
        return {"how": s.how, "layer": s.label, **at, "value": s.value}

    return {
        "path": leaf.path,
        "value": leaf.value,
        "set_by": step(leaf.steps[-1]) if leaf.steps else None,
        "overrides": [step(s) for s in reversed(leaf.steps[:-1])],
        "written": leaf.written or None,
        "variables": [{"name": v.name, "value": v.value, "from": v.where or None} for v in leaf.variables],
        "because": leaf.reason or None,
    }
