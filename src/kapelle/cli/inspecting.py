"""`… inspect`: JSON or a Go template of what is named, in the docker command's shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kapelle.cli.common import at_least
from kapelle.cli.flags import Args
from kapelle.light import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kapelle.cli.context import Context


def inspect(context: Context, args: Args, found: Mapping[str, dict[str, Any]], kind: str, code: str = "KAP308") -> int:
    """Print what was found of `args.rest`; each missing one on stderr, and code 1 then."""
    at_least(args.rest, 1, f"{kind} inspect NAME")
    missing = [name for name in args.rest if name not in found]
    show(context, args.format, [found[name] for name in args.rest if name in found])
    for name in missing:
        context.stderr.write(f"error: no such {kind}: {name} [{code}]\n")
    return 1 if missing else 0


def show(context: Context, form: str, values: Sequence[dict[str, Any]]) -> None:
    """The values as one JSON array, or each through the template."""
    if form and form != "json":
        from kapelle.render import gotemplate

        nodes = gotemplate.parse(form)
        for value in values:
            context.stdout.write(gotemplate.execute(nodes, struct(value)) + "\n")
    else:
        import json

        context.stdout.write(json.dumps(values, indent=4, ensure_ascii=False) + "\n")


# fields whose values are structures, too; the others are maps, where a missing key prints "<no value>"
_STRUCTURES = ("State", "Config", "HostConfig", "NetworkSettings", "RestartPolicy", "LogConfig", "RootFS", "IPAM")
_MAY_LACK = {"State": ("Health",)}  # fields that are nil when JSON leaves them out


def struct(value: dict[str, Any]) -> dict[str, Any]:
    """The value as a structure: a field it does not have is an error, as in Docker."""
    from kapelle.render.gotemplate import Struct

    def made(found: dict[str, Any]) -> Struct:
        rows = {}
        for key, content in found.items():
            if key in _STRUCTURES and isinstance(content, dict):
                rows[key] = made({**dict.fromkeys(_MAY_LACK.get(key, ())), **content})
            else:
                rows[key] = content
        return Struct(rows)

    return made(value)


def zoned(seconds: float) -> str:
    """A moment in RFC 3339 with whole seconds, UTC: "2026-11-25T02:23:20Z"."""
    import time

    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
