"""Every mistake of all files in one go, and what is surprising in them: `config --check`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from kapelle.compose import load as loading
from kapelle.compose import normalise, profiles
from kapelle.compose.files import Reading
from kapelle.compose.load import Options
from kapelle.compose.merge import same
from kapelle.compose.near import near
from kapelle.compose.trace import Trace
from kapelle.compose.tree import Map, position
from kapelle.errors import ComposeFileError, KapelleError, Mistakes, Position
from kapelle.light import Any, NamedTuple

_SECRET = re.compile(r"password|passwd|secret|token|api_?key|private_?key|credential", re.IGNORECASE)
_NOT_SECRET = re.compile(r"_(file|path|url|host|user|name|length|ttl|expir\w*)$", re.IGNORECASE)
_SERVICE = re.compile(r"services\.([^.\[\s:]+)|service \"([^\"]+)\"")


class Finding(NamedTuple):
    """One thing to say of the files. `severity`: error or warning."""

    severity: str
    text: str
    where: Position | None
    hint: str = ""
    code: str = ""


def check(options: Options, cwd: str, environ: Mapping[str, str]) -> tuple[list[Finding], tuple[str, ...]]:
    """(findings by place, files that were read). Never raises for what the files hold."""
    trace = Trace(environ)
    try:
        ready = loading.prepare(options, cwd, environ, trace, lenient=True)
    except KapelleError as e:
        return _errors([e]), ()
    reading = ready.reading
    try:
        tree = reading.stack(tuple(ready.paths), ready.base, ready.visible)
        active = options.profiles or tuple(p for p in ready.variables.get("COMPOSE_PROFILES", "").split(",") if p)
        reading.mistakes += _whole(tree, active, reading, ready.visible)
    except KapelleError as e:
        reading.mistakes.append(e)
        tree = Map()
    found = _errors(_without_echoes(reading.mistakes))
    found += [Finding("warning", text, where) for text, where in reading.warnings]
    known = [*environ, *ready.variables]
    for name, where in reading.missing.items():
        text = f'The "{name}" variable is not set. Defaulting to a blank string.'
        close = near(name, [k for k in known if k != name])
        found.append(Finding("warning", text, where, f'did you mean "{close}"?' if close else f"set {name} in .env"))
    found += _surprises(tree, trace)
    order = {path: n for n, path in enumerate(dict.fromkeys(f.where.file for f in found if f.where is not None))}
    found.sort(key=lambda f: (order[f.where.file], f.where.line, f.where.column) if f.where else (-1, 0, 0))
    return list(dict.fromkeys(found)), tuple(reading.source.sources)


def _whole(tree: Map, active: tuple[str, ...], reading: Reading, variables: Mapping[str, str]) -> list[KapelleError]:
    """Mistakes that only the merged tree shows."""
    off = profiles.split(tree, active, ())
    normalise.defaults(tree)
    mistakes = normalise.consistency(tree, off)
    for service in normalise.services(tree).values():
        try:
            loading.environment(service, reading, variables)
        except ComposeFileError as e:
            mistakes.append(e)
    return mistakes


def _errors(mistakes: list[KapelleError]) -> list[Finding]:
    flat: list[KapelleError] = []
    for mistake in mistakes:
        flat += mistake.mistakes if isinstance(mistake, Mistakes) else (mistake,)
    return [Finding("error", m.what, m.where, m.hint, m.code) for m in flat]


def _without_echoes(mistakes: list[KapelleError]) -> list[KapelleError]:
    """Drop what follows from a mistake told already: an unknown `imagee` makes a service without an image, too."""
    told: set[str] = set()
    kept = []
    for mistake in mistakes:
        if mistake.what.startswith("Circular reference: "):
            circle = set(mistake.what.removeprefix("Circular reference: ").split(" -> "))
            if not circle <= told:
                kept.append(mistake)
            told |= circle
            continue
        found = _SERVICE.search(mistake.what)
        name = (found.group(1) or found.group(2)) if found else ""
        if name in told and "has neither an image" in mistake.what:
            continue
        told.add(name)
        kept.append(mistake)
    return kept


def _surprises(tree: Map, trace: Trace) -> Iterator[Finding]:
    for name, service in normalise.services(tree).items():
        for number, mount in enumerate(service.get("volumes") or ()):
            for text in (mount.get("source", ""), mount.get("target", "")):
                if isinstance(text, str) and re.match(r"[A-Za-z]:", text):
                    yield Finding(
                        "warning", f'services.{name}.volumes[{number}]: "{text}" is read as a Windows path',
                        position(service["volumes"].at[number]), "give the volume a name of two letters or more",
                    )  # fmt: skip
        yield from _secrets(name, service, trace)
    yield from _added_ports(trace)


def _secrets(name: str, service: Map, trace: Trace) -> Iterator[Finding]:
    build = service.get("build")
    for place, tree in (("environment", service.get("environment")), ("build.args", (build or {}).get("args"))):
        if not isinstance(tree, Map):
            continue
        for key, value in tree.items():
            where = position(tree.at.get(key))
            if where is None or not value or not _SECRET.search(key) or _NOT_SECRET.search(key):
                continue
            if not trace.is_written_with_variables(where):
                yield Finding(
                    "warning", f"services.{name}.{place}.{key} looks like a secret written into the file", where,
                    f"write ${{{key}}} and keep it out of the repository, or use secrets:",
                )  # fmt: skip


def _added_ports(trace: Trace) -> Iterator[Finding]:
    """A port that a later file means to change, and adds."""
    seen: dict[tuple[str, Any, Any], Position | None] = {}
    whole: dict[str, Any] = {}
    for layer in trace.files():
        for name, service in normalise.services(layer.tree).items():
            ports = service.get("ports")
            if not ports or any(r[:3] == ("services", name, "ports") for r in layer.removals):
                continue
            for number, port in enumerate(ports):
                key = (name, port.get("target"), port.get("protocol"))
                where = position(ports.at[number])
                earlier = seen.get(key)
                if earlier and where and earlier.file != where.file and same(port, whole[name], "port") < 0:
                    yield Finding(
                        "warning",
                        f"services.{name}.ports: {port.get('published', '')}:{port.get('target')} is added to the port "
                        f"of {earlier}, it does not replace it", where, "put !override before the list to replace it",
                    )  # fmt: skip
                seen[key] = where
            whole[name] = ports
