"""What several commands do alike: observing, checking service names, reading times, asking a question."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from kapelle.errors import EngineError, KapelleError, UsageError
from kapelle.light import TYPE_CHECKING
from kapelle.plan.observed import Container

if TYPE_CHECKING:
    from kapelle.cli.context import Context
    from kapelle.model.project import Project
    from kapelle.plan.graph import Plan
    from kapelle.plan.observed import Observed


def no_arguments(words: Sequence[str], command: str) -> None:
    if words:
        raise UsageError(f'unknown argument "{words[0]}" for "kap {command}"', hint=f"kap {command} --help")


def exactly(words: Sequence[str], number: int, usage: str) -> None:
    if len(words) != number:
        raise UsageError(f"requires exactly {number} arg(s), received {len(words)}", hint=f"kap {usage}")


def at_least(words: Sequence[str], number: int, usage: str) -> None:
    if len(words) < number:
        raise UsageError(f"requires at least {number} arg(s), only received {len(words)}", hint=f"kap {usage}")


def check_services(context: Context, names: Iterable[str], containers: Iterable[Container]) -> None:
    """Refuse a name that neither a container nor the files know. Loads the files only when in doubt."""
    unknown = [n for n in names if all(c.service != n for c in containers)]
    if not unknown:
        return
    from kapelle.plan import order

    if context.has_files():
        project = context.load().project
        known = {s.name for s in (*project.services, *project.disabled)}
    else:
        known = {c.service for c in containers}
    for name in unknown:
        if name not in known:
            raise order.no_such_service(name, known)


def project_for_labels(context: Context, observed: Observed | None = None) -> Project:
    """A project with a name alone: for acts on what is there, whatever the files say."""
    from kapelle.model.project import Project

    name = context.project_name()
    folder = ""
    files: tuple[str, ...] = ()
    for container in observed.containers if observed else ():
        folder = container.labels.get("com.docker.compose.project.working_dir", "")
        files = tuple(container.labels.get("com.docker.compose.project.config_files", "").split(","))
        break
    return Project(name, folder or context.cwd, files, ())


def perform_on_labels(context: Context, plan: Plan, observed: Observed) -> None:
    """Perform acts on what is there. Only a failure loads the files, for its place in them."""
    try:
        context.run_plan(plan, project_for_labels(context, observed))
    except EngineError as e:
        name, paths = e.about
        if name and e.where is None and context.has_files():
            try:
                service = context.load().project.service(name)
            except KapelleError:
                service = None  # the files are wrong by now: what failed is still to be told
            e.where = next((service.where[p] for p in paths if p in service.where), None) if service else None
        raise


def pick(containers: Iterable[Container], index: int) -> list[Container]:
    """All, or those with this replica number."""
    return [c for c in containers if not index or c.number == index]


def moment(text: str, now: float | None = None) -> int | None:
    """RFC 3339, unix seconds or an age such as "42m" to nanoseconds since the epoch; None for "".

    Raises UsageError for anything else.
    """
    if not text:
        return None
    age = duration(text)
    if age is not None:
        return int(((time.time() if now is None else now) - age) * 1e9)
    seconds, _, fraction = text.partition(".")
    if seconds.isdigit() and (not fraction or fraction.isdigit()):
        return int(seconds) * 1_000_000_000 + int(fraction[:9].ljust(9, "0"))
    from datetime import datetime

    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            f'failed to parse value as time or duration: "{text}"', hint="2026-11-25T10:00:00Z, 1764064800 or 42m"
        ) from None
    return int(parsed.timestamp() * 1e9)


def duration(text: str) -> float | None:
    """Go's durations, "1h30m" or "250ms", in seconds; None when it is none."""
    units = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
    total, number, unit = 0.0, "", ""
    for character in text + "0":
        if character.isdigit() or character == ".":
            if unit:
                if unit not in units or not number:
                    return None
                total += _number(number) * units[unit]
                number, unit = "", ""
            number += character
        else:
            unit += character
    return total if number == "0" and text and not text[-1].isdigit() else None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def scales(words: Iterable[str]) -> dict[str, int]:
    """`web=3` to {"web": 3}. UsageError when it is not that."""
    found = {}
    for word in words:
        name, equals, number = word.partition("=")
        if not equals or not name or not number.isdigit():
            raise UsageError(f"invalid scale specifier: {word}", hint="kap scale web=3")
        found[name] = int(number)
    return found


def is_yes(text: str) -> bool:
    """An environment variable's yes."""
    return text.lower() in ("1", "t", "true", "yes", "y", "on")


def confirmed(context: Context, question: str) -> bool:
    """Ask on the terminal; without one (or at its end) the answer is no."""
    context.stdout.write(f"? {question} [yN] ")
    context.stdout.flush()
    answer = context.stdin.readline()
    return answer.strip().lower() in ("y", "yes")


def deleted(context: Context) -> str:
    """How a list of what was removed begins, or of what would be."""
    return "Would delete" if context.dry_run else "Deleted"


def reclaimed(context: Context) -> str:
    return "Total space that would be reclaimed" if context.dry_run else "Total reclaimed space"
