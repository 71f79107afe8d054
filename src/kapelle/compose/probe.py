"""`x-kap-probe` of a service: a health check that the engine makes itself. Its shapes, and every mistake in them."""

from __future__ import annotations

import re
from collections.abc import Callable

from kapelle.compose import units
from kapelle.compose.tree import Map
from kapelle.light import Any, NamedTuple
from kapelle.model.service import HealthCheck, Probe

KEY = "x-kap-probe"
_KINDS = ("tcp", "http", "file", "log")
_TIMES = ("interval", "timeout", "start_period", "start_interval")
_LOCAL = ("localhost", "127.0.0.1", "[::1]")
_URL = re.compile(r"http://(\[[0-9a-fA-F:]+\]|[^/:\[\]]+)(?::(\d+))?(/.*)?")

Wrong = Callable[[str, Any, str], None]  # text, mark, hint


class _Found(NamedTuple):
    port: int = 0
    path: str = ""
    status: int = 0
    pattern: str = ""


def read(service: Map, wrong: Wrong) -> Probe | None:
    """The probe of a service's tree; None without one, or when it is wrong, which `wrong` hears."""
    if KEY not in service:
        return None
    tree, mark = service[KEY], service.at.get(KEY)
    count = 0

    def tell(text: str, at: Any, hint: str) -> None:
        nonlocal count
        count += 1
        wrong(f"{KEY}{text}", at or mark, hint)

    if not isinstance(tree, Map):
        tell(" must be a mapping", mark, f"write {KEY}: {{tcp: 5432}}")
        return None
    kinds = [k for k in _KINDS if k in tree]
    for key in tree:
        if key not in (*_KINDS, *_TIMES, "retries"):
            tell(f": unknown key '{key}'", tree.at.get(key), f"known here: {', '.join((*_KINDS, *_TIMES, 'retries'))}")
    if len(kinds) != 1:
        tell(" needs exactly one of tcp, http, file and log", tree.at.get(kinds[1]) if kinds else mark,
             f"write {KEY}: {{tcp: 5432}}")  # fmt: skip
    found = _Found()
    for kind in kinds:
        found = _READERS[kind](tree[kind], tree.at.get(kind), tell)
    times: dict[str, Any] = {}
    for key in _TIMES:
        if key in tree:
            times[key] = _seconds(key, tree[key], tree.at.get(key), tell)
    if "retries" in tree:
        times["retries"] = _whole("retries", tree["retries"], tree.at.get("retries"), (1, 1 << 31), tell)
    if count or not kinds:
        return None
    return Probe(kinds[0], *found, timing=HealthCheck(**times))


def _tcp(value: Any, mark: Any, wrong: Wrong) -> _Found:
    return _Found(port=_whole("tcp", value, mark, (1, 65535), wrong))


def _http(value: Any, mark: Any, wrong: Wrong) -> _Found:
    if isinstance(value, str):
        url = _URL.fullmatch(value)
        if url is None:
            wrong(f".http: {value!r} is no http:// address", mark, 'write http: "http://localhost:8080/health"')
            return _Found()
        host, port, path = url.groups()
        if host not in _LOCAL:
            wrong(f".http: the host must be localhost, not {host}", mark,
                  "the probe is made from inside the service's own container")  # fmt: skip
        return _Found(_whole("http", port or "80", mark, (1, 65535), wrong), path or "/")
    if not isinstance(value, Map):
        wrong(".http must be an address or a mapping", mark, "write http: {port: 8080, path: /health}")
        return _Found()
    for key in value:
        if key not in ("port", "path", "status"):
            wrong(f".http: unknown key '{key}'", value.at.get(key), "known here: port, path, status")
    path = value.get("path", "/")
    if not isinstance(path, str) or not path.startswith("/") or any(c.isspace() for c in path):
        wrong(f".http.path: {path!r} must begin with / and hold no blanks", value.at.get("path"), "write path: /health")
        path = "/"
    port = _whole("http.port", value.get("port", 80), value.at.get("port"), (1, 65535), wrong)
    status = value.get("status", 0)
    if "status" in value:
        status = _whole("http.status", status, value.at.get("status"), (100, 599), wrong)
    return _Found(port, path, status)


def _file(value: Any, mark: Any, wrong: Wrong) -> _Found:
    if not isinstance(value, str) or not value.startswith("/") or "\0" in value:
        wrong(f".file: {value!r} must be an absolute path in the container", mark, "write file: /run/app.ready")
        return _Found()
    return _Found(path=value)


def _log(value: Any, mark: Any, wrong: Wrong) -> _Found:
    try:
        if isinstance(value, str) and value:
            re.compile(value)
            return _Found(pattern=value)
        wrong(".log must be a regular expression", mark, 'write log: "ready to accept connections"')
    except re.error as e:
        wrong(
            f".log: {value!r} is no regular expression: {e}", mark, "put \\ before a character that stands for itself"
        )
    return _Found()


_READERS: dict[str, Callable[[Any, Any, Wrong], _Found]] = {"tcp": _tcp, "http": _http, "file": _file, "log": _log}


def _whole(name: str, value: Any, mark: Any, span: tuple[int, int], wrong: Wrong) -> int:
    number = value
    if isinstance(value, str) and value.isascii() and value.isdigit():
        number = int(value)
    if isinstance(number, bool) or not isinstance(number, int) or not span[0] <= number <= span[1]:
        wrong(f".{name}: {value!r} must be a whole number from {span[0]} to {span[1]}", mark, f"write {name}: …")
        return 0
    return number


def _seconds(name: str, value: Any, mark: Any, wrong: Wrong) -> float:
    try:
        found = units.seconds(value) if isinstance(value, str) else -1.0
    except ValueError:
        found = -1.0
    if found < 0:
        wrong(f".{name}: {value!r} is no duration", mark, f"write {name}: 2s")
    return found
