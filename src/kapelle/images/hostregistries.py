"""What the host's other container tools say of registries: containers' registries.conf, docker's daemon.json.

containers-registries.conf(5), version 2: [[registry]] with prefix, location, insecure, blocked and [[registry.mirror]].
Docker: registry-mirrors (for docker.io alone) and insecure-registries (hosts and networks).
"""

from __future__ import annotations

import ipaddress
import json
import os
from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

from kapelle.errors import ImageError
from kapelle.light import Any, NamedTuple


class Place(NamedTuple):
    """HOST[:PORT][/PATH] to ask, and whether any certificate, and plain HTTP, will do."""

    location: str
    insecure: bool = False
    only: str = ""  # "digest" or "tag": a mirror that is asked for those references alone


class Rule(NamedTuple):
    """One [[registry]]: what `prefix` is asked for at."""

    prefix: str  # host[:port][/path], or *.domain
    location: str  # in place of the prefix
    insecure: bool = False
    blocked: bool = False
    mirrors: tuple[Place, ...] = ()

    def matches(self, name: str) -> bool:
        """Is it about this repository (registry/repository)?"""
        if self.prefix.startswith("*."):
            return name.partition("/")[0].endswith(self.prefix[1:])
        return name == self.prefix or name.startswith((f"{self.prefix}/", f"{self.prefix}:", f"{self.prefix}@"))


class HostRegistries(NamedTuple):
    rules: tuple[Rule, ...] = ()
    docker_mirrors: tuple[str, ...] = ()  # URLs
    insecure: tuple[str, ...] = ()  # hosts and CIDR networks

    def rule(self, name: str) -> Rule | None:
        """The rule of the longest prefix."""
        found = [r for r in self.rules if r.matches(name)]
        return max(found, key=lambda r: len(r.prefix)) if found else None

    def is_insecure(self, host: str) -> bool:
        """Does docker's configuration allow a host without TLS? By its name, or its address in a network."""
        name = urlsplit(f"//{host}").hostname or ""
        for entry in self.insecure:
            if entry in (host, name):
                return True
            try:
                if "/" in entry and ipaddress.ip_address(name) in ipaddress.ip_network(entry, strict=False):
                    return True
            except ValueError:
                continue
        return False


def read(environ: Mapping[str, str]) -> HostRegistries:
    """Of the files there are. ImageError with the place if one of them is damaged."""
    rules: dict[str, Rule] = {}
    for path in _containers(environ):
        for rule in _rules(path):
            rules[rule.prefix] = rule  # later files win
    mirrors, insecure = _docker(environ)
    return HostRegistries(tuple(rules.values()), mirrors, insecure)


def _config(environ: Mapping[str, str]) -> str:
    home = environ.get("HOME", "")
    return environ.get("XDG_CONFIG_HOME") or (f"{home}/.config" if home else "")


def _containers(environ: Mapping[str, str]) -> list[str]:
    named = environ.get("CONTAINERS_REGISTRIES_CONF") or environ.get("REGISTRIES_CONFIG_PATH")
    if named:
        return [named]
    config = _config(environ)
    own = f"{config}/containers/registries.conf"
    first = own if config and os.path.exists(own) else "/etc/containers/registries.conf"
    found = [first] if os.path.exists(first) else []
    for folder in ("/etc/containers", *([f"{config}/containers"] if config else ())):
        try:
            names = sorted(n for n in os.listdir(f"{folder}/registries.conf.d") if n.endswith(".conf"))
        except OSError:
            continue
        found += [f"{folder}/registries.conf.d/{n}" for n in names]
    return found


def _rules(path: str) -> Iterator[Rule]:
    import tomllib

    try:
        with open(path, "rb") as f:
            tree = tomllib.load(f)
    except PermissionError:
        return
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise ImageError(f"{path} can't be read: {e}", hint="correct the file, or move it away") from e
    rows = tree.get("registry")
    for row in rows if isinstance(rows, list) else ():
        if not isinstance(row, dict):
            continue  # version 1 of the format
        location = _text(row, "location").rstrip("/")
        prefix = _text(row, "prefix").rstrip("/") or location
        if not prefix:
            raise ImageError(f"{path}: a [[registry]] has neither prefix nor location", hint="name one of them")
        mirrors = row.get("mirror")
        places = tuple(
            Place(
                _text(m, "location").rstrip("/"),
                m.get("insecure") is True,
                {"digest-only": "digest", "tag-only": "tag"}.get(_text(m, "pull-from-mirror"), ""),
            )
            for m in (mirrors if isinstance(mirrors, list) else ())
            if isinstance(m, dict) and _text(m, "location")
        )
        if row.get("mirror-by-digest-only") is True:
            places = tuple(p._replace(only="digest") for p in places)
        yield Rule(prefix, location or prefix, row.get("insecure") is True, row.get("blocked") is True, places)


def _docker(environ: Mapping[str, str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    config = _config(environ)
    for path in (*([f"{config}/docker/daemon.json"] if config else ()), "/etc/docker/daemon.json"):
        try:
            with open(path, "rb") as f:
                tree = json.load(f)
        except (FileNotFoundError, PermissionError, NotADirectoryError):
            continue
        except (OSError, ValueError, RecursionError) as e:
            raise ImageError(f"{path} can't be read: {e}", hint="correct the file, or move it away") from e
        if isinstance(tree, dict):
            return _texts(tree.get("registry-mirrors")), _texts(tree.get("insecure-registries"))
    return (), ()


def _text(row: Mapping[str, Any], key: str) -> str:
    value = row.get(key)
    return value if isinstance(value, str) else ""


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(v for v in value if isinstance(v, str)) if isinstance(value, list) else ()
