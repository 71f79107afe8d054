"""Logins kept in Docker's config.json, or by the credential helper it names: `kap login` and `kap logout`."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping

from kapelle.errors import ImageError
from kapelle.images import auth, helpers
from kapelle.images.auth import Credentials
from kapelle.light import Any


def keep(registry: str, login: Credentials, environ: Mapping[str, str]) -> str:
    """Keep a login that was accepted; the path of the file if it stands there in the clear, else ""."""
    tree = auth.read_config(environ)
    key = auth.keys_of(registry)[0]
    name = auth.helper(registry, environ, tree)
    if name:
        helpers.put(name, key, login, environ)
        _auths(tree).pop(key, None)
        _auths(tree)[key] = {}  # as docker marks that its helper knows this one
        _write(tree, environ)
        return ""
    row = {"auth": base64.b64encode(f"{login.user}:{login.password}".encode()).decode()}
    if login.identity_token:
        row = {"auth": base64.b64encode(f"{login.user}:".encode()).decode(), "identitytoken": login.identity_token}
    _auths(tree)[key] = row
    _write(tree, environ)
    return auth.config_path(environ)


def forget(registry: str, environ: Mapping[str, str]) -> bool:
    """Forget a login; False if there was none."""
    tree = auth.read_config(environ)
    known = False
    name = auth.helper(registry, environ, tree)
    for key in auth.keys_of(registry):
        if name and helpers.get(name, key, environ) is not None:
            helpers.erase(name, key, environ)
            known = True
        known = _auths(tree).pop(key, None) is not None or known
    if known:
        _write(tree, environ)
    return known


def _auths(tree: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(tree.get("auths"), dict):
        tree["auths"] = {}
    table: dict[str, Any] = tree["auths"]
    return table


def _write(tree: Mapping[str, Any], environ: Mapping[str, str]) -> None:
    """Whole or not at all, for the user alone; a link to the file stays one."""
    path = os.path.realpath(auth.config_path(environ))
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(fd, "w", encoding="utf-8") as f:
                f.write(json.dumps(tree, indent="\t", ensure_ascii=False))
                f.flush()
                os.fsync(f.fileno())
            os.rename(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as e:
        raise ImageError(
            f"{path} can't be written: {(e.strerror or '').lower()}",
            hint="DOCKER_CONFIG names another folder for it",
            code="KAP509",
        ) from None
