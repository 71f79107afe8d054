"""Who we are to one registry: its challenges answered with a password or a bearer token, tokens kept while they last.

Distribution project: spec/auth/token.md, spec/auth/oauth.md, spec/auth/scope.md.
"""

from __future__ import annotations

import json
import threading
import time
from urllib.parse import urlencode, urlsplit

from urllib3.exceptions import HTTPError

from kapelle.images import auth, helpers, wire
from kapelle.images.mirrors import Endpoint, Settings, is_loopback
from kapelle.images.wire import Refused
from kapelle.light import Protocol

_MARGIN = 5.0  # seconds before its end that a token is not used any more


class Ask(Protocol):
    """A small request without credentials of the registry: status and body."""

    def __call__(self, url: str, headers: dict[str, str], **more: str) -> tuple[int, bytes]: ...


class Identity:
    """Credentials for one endpoint. May be used by several threads."""

    def __init__(self, endpoint: Endpoint, registry: str, settings: Settings, ask: Ask) -> None:
        self.trial: auth.Credentials | None = None  # a login that is tried, in place of what is kept
        self._endpoint = endpoint
        self._registry = registry
        self._settings = settings
        self._ask = ask
        self._tokens: dict[str, tuple[str, float]] = {}  # scope → header, good until
        self._basic = ""
        self._lock = threading.Lock()

    def authorization(self, scope: str) -> str:
        """The header that is known to do for a scope, or ""."""
        with self._lock:
            if self._basic:
                return self._basic
            token, until = self._tokens.get(scope, ("", 0.0))
            return token if time.monotonic() < until else ""

    def advice(self) -> str:
        """What to do when the registry does not take us."""
        name = auth.helper(self._registry, self._settings.environ)
        if name and helpers.program(name, self._settings.environ) is None:
            return f"install docker-credential-{name}, which config.json names for logins"
        where = "" if self._registry == "docker.io" else f" {self._registry}"
        return f"kap login{where}"

    def shown(self) -> str:
        """Whether a limit counts for an address or a user."""
        return "" if self.credentials() is not None else " (anonymous, per address)"

    def credentials(self) -> auth.Credentials | None:
        """Those of the endpoint itself; the registry's are never shown to its mirrors."""
        if self.trial is not None:
            return self.trial
        name = self._endpoint.host if self._endpoint.mirror else self._registry
        return auth.credentials(name, self._settings.environ)

    def take(self, offered: auth.Challenge, scope: str) -> bool:
        """Get what the challenge asks for; False if we have nothing to give."""
        known = self.credentials()
        if offered.scheme == "basic":
            if known is None or not known.user:
                return False
            with self._lock:
                self._basic = known.basic
            return True
        realm = urlsplit(offered.realm)
        if realm.scheme not in ("http", "https") or not realm.netloc:
            raise Refused("failed", "it names no server for tokens")
        if realm.scheme == "http" and not is_loopback(realm.netloc):
            known = None  # a password is not sent in the clear
        header, seconds = self._token(offered, _scopes(offered.scope, scope), known)
        with self._lock:
            self._tokens[scope] = (header, time.monotonic() + max(seconds - _MARGIN, _MARGIN))
        return True

    def _token(self, offered: auth.Challenge, scopes: list[str], known: auth.Credentials | None) -> tuple[str, float]:
        """Ask the token server. Returns the header and how long it is good, in seconds."""
        host = urlsplit(offered.realm).netloc
        query = [("service", offered.service)] if offered.service else []
        try:
            if known is not None and known.identity_token:
                form = {"grant_type": "refresh_token", "refresh_token": known.identity_token, "client_id": "kapelle"}
                body = urlencode([*form.items(), *query, ("scope", " ".join(scopes))])
                kind = {"Content-Type": "application/x-www-form-urlencoded"}
                status, data = self._ask(offered.realm, kind, method="POST", body=body)
            else:
                query += [("scope", s) for s in scopes]
                headers = {"Authorization": known.basic} if known is not None and known.user else {}
                if headers:
                    query.append(("account", known.user if known is not None else ""))
                mark = "&" if "?" in offered.realm else "?"
                status, data = self._ask(f"{offered.realm}{mark}{urlencode(query)}", headers)
        except (HTTPError, OSError) as e:
            raise Refused("unreachable", f"its token server {host}: {wire.words(e)}", wire.advice(e)) from e
        if status in (400, 401, 403):
            said = "the login is not accepted" if known is not None else "it wants a login"
            raise Refused("denied", said, self.advice())
        if status == 429:
            raise Refused("limit", f"its token server {host}: 429 too many requests", self.advice())
        if status != 200:
            raise Refused("unreachable" if status >= 500 else "failed", f"its token server {host} answers {status}")
        try:
            tree = json.loads(data)
            token = str(tree.get("token") or tree["access_token"])
            seconds = float(tree.get("expires_in") or 60)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise Refused("failed", f"its token server {host} gives no token") from None
        if not token.isascii() or not token.isprintable():
            raise Refused("failed", f"its token server {host} gives no token")
        return f"Bearer {token}", seconds


def _scopes(offered: str, wanted: str) -> list[str]:
    """What to ask for: what the challenge names; for more than a pull also all that is about to be done."""
    found = [s for s in offered.split(" ") if s]
    wishes = wanted.split(" ")
    if not found:
        return [s for s in wishes if not s.startswith("registry:")]
    if any(s.endswith(("push", "push,pull")) for s in wishes):
        found += [s for s in wishes if s not in found]
    return found
