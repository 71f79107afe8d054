"""Who we are to a registry: credentials from Docker's config.json, and the bearer tokens they are changed for.

Distribution project: spec/auth/token.md, spec/auth/scope.md; RFC 6750, RFC 7617, RFC 9110 section 11.
"""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Mapping

from kapelle.errors import ImageError
from kapelle.light import Any, NamedTuple

_DOCKER_HUB = "https://index.docker.io/v1/"
_PARAMETER = re.compile(r'([A-Za-z_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')


class Credentials(NamedTuple):
    user: str = ""
    password: str = ""
    identity_token: str = ""  # changed for a bearer token in place of a password

    @property
    def basic(self) -> str:
        """The value of an Authorization header (RFC 7617)."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()


class Challenge(NamedTuple):
    """A WWW-Authenticate header: "bearer" or "basic", and its parameters."""

    scheme: str
    realm: str = ""
    service: str = ""
    scope: str = ""


def challenge(header: str) -> Challenge | None:
    """Read WWW-Authenticate; of several schemes bearer is taken. None if it offers neither."""
    for scheme in ("Bearer", "Basic"):
        at = re.search(rf"(?:^|,)\s*{scheme}(?:\s+|$)", header, re.IGNORECASE)
        if at is None:
            continue
        found: dict[str, str] = {}
        for match in _PARAMETER.finditer(header, at.end()):
            value = match[2] if match[2] is not None else match[3]
            found.setdefault(match[1].lower(), re.sub(r"\\(.)", r"\1", value))
        return Challenge(scheme.lower(), found.get("realm", ""), found.get("service", ""), found.get("scope", ""))
    return None


def config_path(environ: Mapping[str, str]) -> str:
    """Docker's own configuration: $DOCKER_CONFIG or ~/.docker."""
    directory = environ.get("DOCKER_CONFIG") or os.path.join(environ.get("HOME") or os.path.expanduser("~"), ".docker")
    return os.path.join(directory, "config.json")


def credentials(registry: str, environ: Mapping[str, str]) -> Credentials | None:
    """What Docker's config.json has for a registry, or its credential helper; None if nothing. ImageError if the file
    is damaged. A helper that is not installed has nothing (`helper` tells which it would be).
    """
    tree = read_config(environ)
    name = helper(registry, environ, tree)
    if name:
        from kapelle.images import helpers

        for key in keys_of(registry):
            found = helpers.get(name, key, environ)
            if found is not None:
                return found
    table = tree.get("auths")
    if not isinstance(table, dict):
        return None
    for key in keys_of(registry):
        row = table.get(key)
        if isinstance(row, dict):
            known = _row(row)
            if known is not None:
                return known
    return None


def keys_of(registry: str) -> tuple[str, ...]:
    """What a registry's credentials may be filed under; the first is what `login` writes."""
    if registry in ("docker.io", "registry-1.docker.io", "index.docker.io"):
        return (_DOCKER_HUB, "https://index.docker.io/v1", "docker.io", "index.docker.io", "registry-1.docker.io")
    return (registry, f"https://{registry}", f"https://{registry}/v1/", f"https://{registry}/v2/", f"http://{registry}")


def helper(registry: str, environ: Mapping[str, str], tree: Mapping[str, Any] | None = None) -> str:
    """The credential helper of a registry: its own (credHelpers), or the one for all (credsStore); "" for none."""
    tree = read_config(environ) if tree is None else tree
    table = tree.get("credHelpers")
    if isinstance(table, dict):
        for key in keys_of(registry):
            if isinstance(table.get(key), str) and table[key]:
                return str(table[key])
    name = tree.get("credsStore")
    return name if isinstance(name, str) else ""


def read_config(environ: Mapping[str, str]) -> dict[str, Any]:
    """Docker's config.json; {} where there is none. ImageError if it is damaged."""
    path = config_path(environ)
    try:
        with open(path, "rb") as f:
            tree = json.load(f)
    except (FileNotFoundError, PermissionError, NotADirectoryError):
        return {}
    except (ValueError, RecursionError, OSError) as e:
        raise ImageError(f"{path} can't be read: {e}", hint="correct the file, or move it away") from e
    return tree if isinstance(tree, dict) else {}


def _row(row: Mapping[str, object]) -> Credentials | None:
    token = row.get("identitytoken")
    user, password = row.get("username"), row.get("password")
    packed = row.get("auth")
    if isinstance(packed, str) and packed:
        try:
            text = base64.b64decode(packed + "=" * (-len(packed) % 4)).decode()
        except ValueError:
            return None
        user, _, password = text.partition(":")
        password = password.rstrip("\0")
    if isinstance(token, str) and token:
        return Credentials(user if isinstance(user, str) else "", "", token)
    if isinstance(user, str) and user and isinstance(password, str):
        return Credentials(user, password)
    return None
