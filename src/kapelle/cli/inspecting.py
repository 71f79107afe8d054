"""`… inspect`: JSON or a Go template of what is named, in the docker command's shape."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kapelle.cli.common import at_least
from kapelle.cli.flags import Args

if TYPE_CHECKING:
    from kapelle.cli.context import Context


def inspect(context: Context, args: Args, found: Mapping[str, dict[str, Any]], kind: str) -> int:
    """Print what was found of `args.rest`; each missing one on stderr, and code 1 then."""
    at_least(args.rest, 1, f"{kind} inspect NAME")
    values = [found[name] for name in args.rest if name in found]
    missing = [name for name in args.rest if name not in found]
    if args.format and args.format != "json":
        from kapelle.render import gotemplate

        nodes = gotemplate.parse(args.format)
        for value in values:
            context.stdout.write(gotemplate.execute(nodes, struct(value)) + "\n")
    else:
        import json

        context.stdout.write(json.dumps(values, indent=4, ensure_ascii=False) + "\n")
    for name in missing:
        context.stderr.write(f"error: no such {kind}: {name} [KAP308]\n")
    return 1 if missing else 0


def struct(value: dict[str, Any]) -> dict[str, Any]:
    """The outermost value as a structure: a field it does not have is an error, as in Docker."""
    from kapelle.render.gotemplate import Struct

    return Struct(value)


def zoned(seconds: float) -> str:
    """A moment in RFC 3339 with whole seconds, UTC: "2026-11-25T02:23:20Z"."""
    import time

    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
