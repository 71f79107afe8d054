"""What `kap help`, `kap VERB --help` and a bare `kap` print."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType

from kapelle.cli.flags import Command, Flag

GROUPS = (
    ("Run a project", ("up", "down", "start", "stop", "restart", "run", "exec", "cp", "create", "scale", "kill", "rm")),
    (
        "See what is there",
        ("ps", "logs", "attach", "top", "stats", "events", "port", "wait", "images", "ls", "volumes", "inspect"),
    ),
    (
        "Images",
        (
            "image",
            "build",
            "buildx",
            "pull",
            "push",
            "login",
            "logout",
            "tag",
            "rmi",
            "history",
            "load",
            "save",
            "import",
            "commit",
            "export",
            "standins",
        ),
    ),
    ("Without a network", ("bundle",)),
    ("Volumes and networks", ("volume", "network")),
    ("Before anything changes", ("config", "plan")),
    ("More", ("system", "gc", "pause", "unpause", "autostart", "doctor", "version", "explain", "completion", "help")),
)


def usage() -> str:
    """All commands with one line each, then the global flags."""
    from kapelle.cli.dispatch import COMMANDS, GLOBAL_FLAGS

    lines = ["usage: kap [flags] COMMAND [flags] [words]", "", "docker compose without Docker", ""]
    for title, verbs in GROUPS:
        rows = [(verb, module.HELP) for verb in verbs if verb in COMMANDS and (module := _module(verb)) is not None]
        if rows:
            lines += [f"{title}:", *_rows(rows), ""]
    lines += ["Flags in front of the command:", *_rows(flag_rows(GLOBAL_FLAGS)), "", "kap help COMMAND says more."]
    return "\n".join(lines) + "\n"


def usage_of(verb: str, module: ModuleType | Command) -> str:
    arguments = f" {module.ARGUMENTS}" if getattr(module, "ARGUMENTS", "") else ""
    lines = [f"usage: kap {verb} [flags]{arguments}", "", module.HELP]
    rows = flag_rows(module.FLAGS)
    if rows:
        lines += ["", "Flags:", *_rows(rows)]
    return "\n".join(lines) + "\n"


def usage_of_group(verb: str, module: ModuleType | Command) -> str:
    table: dict[str, Command] = module.SUBCOMMANDS  # type: ignore[union-attr]
    rows = [(f"{word} {c.ARGUMENTS}".strip(), c.HELP) for word, c in table.items()]
    return "\n".join([f"usage: kap {verb} COMMAND", "", module.HELP, "", "Commands:", *_rows(rows)]) + "\n"


def _module(verb: str) -> ModuleType | None:
    from kapelle.cli.dispatch import command
    from kapelle.errors import UsageError

    try:
        return command(verb)
    except UsageError:
        return None


def flag_rows(flags: Sequence[Flag]) -> list[tuple[str, str]]:
    rows = []
    for flag in flags:
        if flag.hidden:
            continue
        names = f"{flag.short}, {flag.long}" if flag.short else f"    {flag.long}"
        rows.append((f"{names} {flag.value}".rstrip(), flag.help + (" (repeatable)" if flag.repeat else "")))
    return rows


def _rows(rows: Sequence[tuple[str, str]]) -> list[str]:
    width = max(len(left) for left, _ in rows)
    return [f"  {left:<{width}}  {right}".rstrip() for left, right in rows]
