"""Docker's credential helpers: programs that keep logins for it. Secrets go through pipes, never through arguments.

Protocol: docker-credential-NAME get|store|erase, a server's URL or a JSON object on standard input.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping

from kapelle.errors import ImageError
from kapelle.light import TYPE_CHECKING

if TYPE_CHECKING:
    from kapelle.images.auth import Credentials

_PATIENCE = 60.0  # seconds: some ask their user


def program(name: str, environ: Mapping[str, str]) -> str | None:
    """Where the helper is installed, or None."""
    if not name or not set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-"):
        return None
    return shutil.which(f"docker-credential-{name}", path=environ.get("PATH"))


def get(name: str, server: str, environ: Mapping[str, str]) -> Credentials | None:
    """What the helper has for a server; None if it has nothing, or is not there."""
    from kapelle.images.auth import Credentials

    path = program(name, environ)
    if path is None:
        return None
    done = _run(path, "get", server, environ)
    if done.returncode != 0:
        return None  # "credentials not found in native keychain"
    try:
        found = json.loads(done.stdout)
        user, secret = str(found["Username"]), str(found["Secret"])
    except (ValueError, KeyError, TypeError):
        raise ImageError(f"docker-credential-{name} gave something that is no login", code="KAP509") from None
    if not user and not secret:
        return None
    return Credentials("", "", secret) if user == "<token>" else Credentials(user, secret)


def put(name: str, server: str, login: Credentials, environ: Mapping[str, str]) -> None:
    """Have the helper keep a login. ImageError if it does not."""
    user, secret = ("<token>", login.identity_token) if login.identity_token else (login.user, login.password)
    row = json.dumps({"ServerURL": server, "Username": user, "Secret": secret})
    _must(name, "store", row, environ)


def erase(name: str, server: str, environ: Mapping[str, str]) -> None:
    """Have the helper forget a login. ImageError if it can't."""
    _must(name, "erase", server, environ)


def _must(name: str, word: str, given: str, environ: Mapping[str, str]) -> None:
    path = program(name, environ)
    if path is None:
        raise ImageError(
            f"docker-credential-{name}, which config.json names, is not installed",
            hint="install it, or take credsStore and credHelpers out of config.json",
            code="KAP509",
        )
    done = _run(path, word, given, environ)
    if done.returncode != 0:
        said = " ".join((done.stdout or done.stderr).split())[:200]
        raise ImageError(f"docker-credential-{name} {word} failed: {said}", code="KAP509")


def _run(path: str, word: str, given: str, environ: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            [path, word],
            input=given,
            env=dict(environ),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PATIENCE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as e:
        words = "it does not answer" if isinstance(e, subprocess.TimeoutExpired) else str(e.strerror).lower()
        raise ImageError(f"{path} {word} failed: {words}", code="KAP509") from None
