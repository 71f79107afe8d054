"""The registry client: the only user of the network among the images. OCI distribution-spec v1.1 ("Pull") and the
Docker registry v2 API: manifests, blobs, tokens; redirects, retries, resuming. Asks one endpoint; `pull` knows several.
"""

from __future__ import annotations

import hashlib
import json
import queue
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import unquote, urlencode, urljoin, urlsplit

import urllib3
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    IncompleteRead,
    MaxRetryError,
    NewConnectionError,
    ProtocolError,
    ProxyError,
    ReadTimeoutError,
    SSLError,
)

from kapelle.errors import ImageError
from kapelle.images import auth, manifests, offline, proxies
from kapelle.images.mirrors import Endpoint, Settings, is_loopback

CONNECT = 3.0  # seconds until a host counts as out of reach
_ANSWER = 15.0  # seconds without a byte, for small answers
_BODY = 30.0  # the same within a blob
_TRIES = 4
_PAUSES = (0.2, 0.6, 1.5)
_LONGEST_WAIT = 5.0  # a Retry-After beyond this is told to the user instead
_CHUNK = 1 << 18
_HOPS = 6
_TRANSIENT = (408, 425, 500, 502, 503, 504)

Kind = str  # "unreachable", "denied", "missing", "limit", "failed"


class Refused(ImageError):
    """One endpoint could not give what was asked. `kind` says why; `row` is told in the list of endpoints."""

    def __init__(self, kind: Kind, row: str, hint: str = "") -> None:
        super().__init__(row, hint=hint)
        self.kind = kind
        self.row = row


class Registry:
    """One endpoint for one pull. May be used by several threads."""

    def __init__(self, endpoint: Endpoint, registry: str, settings: Settings) -> None:
        offline.refuse(settings.environ, f"registry {registry}")
        self.endpoint = endpoint
        self._registry = registry  # as the reference has it: what credentials are filed under
        self._settings = settings
        self._scheme = endpoint.schemes[0]
        self._pools: dict[str, Any] = {}
        self._tokens: dict[str, tuple[str, float]] = {}  # scope → header, good until
        self._basic = ""
        self._lock = threading.Lock()
        self._pool_lock = threading.Lock()
        self._reached = False

    # -- what is asked for ----------------------------------------------------------------------------------------

    def manifest(self, repository: str, wanted: str) -> tuple[bytes, str, str]:
        """A manifest or index by tag or digest: its bytes, media type, digest (checked). Raises Refused."""
        url = self._url(repository, f"manifests/{wanted}")
        headers = {"Accept": ", ".join(manifests.ACCEPT)}
        answer = self._get(url, headers, repository, _ANSWER)
        try:
            data = self._small(answer, manifests.MOST_BYTES)
        finally:
            answer.release_conn()
        said = answer.headers.get("Docker-Content-Digest", "")
        for promised in (wanted if ":" in wanted else "", said):
            algorithm, _, digits = promised.partition(":")
            if algorithm in ("sha256", "sha384", "sha512") and hashlib.new(algorithm, data).hexdigest() != digits:
                raise ImageError(
                    f"the manifest of {repository}:{wanted} from {self.endpoint} is not what its digest says"
                    if promised is not wanted
                    else f"the manifest {wanted[:19]} of {repository} from {self.endpoint} has another digest",
                    hint="try again; if it stays, the registry or a proxy on the way changes what it gives",
                    code="KAP504",
                )
        digest = wanted if ":" in wanted else f"sha256:{hashlib.sha256(data).hexdigest()}"
        kind = answer.headers.get("Content-Type", "").partition(";")[0].strip()
        if kind == "text/html" or not data.lstrip().startswith(b"{"):
            raise Refused("unreachable", f"something that is no registry answered ({kind or 'no type'})")
        return data, kind, digest

    def blob(
        self, repository: str, digest: str, size: int, stop: Callable[[], bool] = lambda: False
    ) -> Iterator[bytes]:
        """A blob's bytes as they come. A broken connection is resumed where it broke. The caller checks the digest."""
        url = self._url(repository, f"blobs/{digest}")
        done, fails = 0, 0
        while True:
            headers = {"Accept-Encoding": "identity"}
            if done:
                headers["Range"] = f"bytes={done}-"
            answer = self._get(url, headers, repository, _BODY)
            skip = done if done and answer.status != 206 else 0  # it can't resume: what we have goes by again
            start = done
            try:
                for piece in answer.stream(_CHUNK, decode_content=False):
                    if stop():
                        return
                    if skip:
                        cut = min(skip, len(piece))
                        skip -= cut
                        piece = piece[cut:]
                        if not piece:
                            continue
                    done += len(piece)
                    yield piece
                if done >= size:
                    answer.release_conn()
                    return
                problem = f"the connection ended after {done} of {size} bytes"
            except (ProtocolError, ReadTimeoutError, SSLError, IncompleteRead, OSError) as e:
                if isinstance(e, OSError) and not isinstance(e, (ConnectionError, TimeoutError)):
                    raise
                problem = _words(e)
            finally:
                answer.close()
            fails = 1 if done > start else fails + 1
            if fails >= _TRIES:
                raise Refused("failed", f"{problem}, {fails} times")
            time.sleep(_PAUSES[min(fails, len(_PAUSES)) - 1])

    # -- one request ----------------------------------------------------------------------------------------------

    def _url(self, repository: str, rest: str) -> str:
        self._reach()
        return f"{self._scheme}://{self.endpoint.host}/v2/{self.endpoint.prefix}{repository}/{rest}"

    def _reach(self) -> None:
        """Find out quickly whether anything answers there, and by which scheme. Once per endpoint."""
        with self._lock:
            if self._reached:
                return
            problem: Refused | None = None
            for scheme in self.endpoint.schemes:
                url = f"{scheme}://{self.endpoint.host}/v2/"
                proxy = proxies.for_url(url, self._settings.environ)
                host, port = proxies.address(proxy or url)
                try:
                    _probe(host, port, through=proxy or "")
                    if len(self.endpoint.schemes) > 1:
                        self._request(url, {}, _ANSWER).close()
                    self._scheme, self._reached = scheme, True
                    return
                except Refused as e:
                    problem = e
                except (HTTPError, OSError) as e:
                    problem = Refused("unreachable", _words(e), _advice(e))
            assert problem is not None
            raise problem

    def _get(self, url: str, headers: dict[str, str], repository: str, patience: float) -> Any:
        """GET with credentials, retries and redirects; an answer of 200 or 206, its body unread. Raises Refused."""
        scope = f"repository:{self.endpoint.prefix}{repository}:pull"
        asked = False
        fails = 0
        while True:
            header = self._authorization(scope)
            try:
                answer = self._follow(url, {**headers, **({"Authorization": header} if header else {})}, patience)
            except (HTTPError, OSError) as e:
                if not _worth_retrying(e) or fails + 1 >= _TRIES:
                    times = f" ({fails + 1} tries)" if fails else ""
                    raise Refused("unreachable", _words(e) + times, _advice(e)) from e
                time.sleep(_PAUSES[min(fails, len(_PAUSES) - 1)] * (0.8 + 0.4 * random.random()))
                fails += 1
                continue
            status = answer.status
            if status in (200, 206):
                return answer
            if status == 401 and not asked:
                asked = True
                offered = auth.challenge(answer.headers.get("WWW-Authenticate", ""))
                answer.drain_conn()
                if offered is not None and self._identify(offered, scope):
                    continue
                raise self._refusal(answer, repository, b"")
            if (status in _TRANSIENT or status == 429) and fails + 1 < _TRIES:
                wait = _retry_after(answer.headers.get("Retry-After", ""))
                if wait is None or wait <= _LONGEST_WAIT:
                    pause = wait if wait is not None else _PAUSES[min(fails, len(_PAUSES) - 1)]
                    answer.drain_conn()
                    time.sleep(pause)
                    fails += 1
                    continue
            try:
                body = answer.read(8192)
            except (HTTPError, OSError):
                body = b""
            answer.close()
            raise self._refusal(answer, repository, body)

    def _follow(self, url: str, headers: dict[str, str], patience: float) -> Any:
        """A request with its redirects: never from https to http, credentials never to another host."""
        for _ in range(_HOPS):
            answer = self._request(url, headers, patience)
            if answer.status not in (301, 302, 303, 307, 308):
                return answer
            target = urljoin(url, answer.headers.get("Location", ""))
            answer.drain_conn()
            here, there = urlsplit(url), urlsplit(target)
            if there.scheme not in ("http", "https") or (here.scheme == "https" and there.scheme == "http"):
                raise Refused("failed", f"it redirects from {here.scheme} to {there.scheme}, which is not followed")
            if (here.scheme, here.netloc) != (there.scheme, there.netloc):
                headers = {k: v for k, v in headers.items() if k != "Authorization"}
            url = target
        raise Refused("failed", f"it redirects more than {_HOPS} times")

    def _request(self, url: str, headers: dict[str, str], patience: float, **more: Any) -> Any:
        pool = self._pool(url)
        return pool.request(
            more.pop("method", "GET"),
            url,
            headers={"User-Agent": _agent(), **headers},
            preload_content=False,
            redirect=False,
            retries=False,
            timeout=urllib3.Timeout(connect=CONNECT, read=patience),
            **more,
        )

    def _pool(self, url: str) -> Any:
        proxy = proxies.for_url(url, self._settings.environ) or ""
        with self._pool_lock:
            if proxy not in self._pools:
                self._pools[proxy] = open_pool(proxy, self._settings.environ)
            return self._pools[proxy]

    @staticmethod
    def _small(answer: Any, most: int) -> bytes:
        """A body of at most `most` bytes."""
        parts, size = [], 0
        try:
            for piece in answer.stream(1 << 16, decode_content=True):
                size += len(piece)
                if size > most:
                    raise ImageError(
                        f"a manifest of more than {most >> 20} MiB came, which no image has", code="KAP504"
                    )
                parts.append(piece)
        except (HTTPError, OSError) as e:
            raise Refused("failed", _words(e)) from e
        return b"".join(parts)

    # -- who we are -----------------------------------------------------------------------------------------------

    def _authorization(self, scope: str) -> str:
        with self._lock:
            if self._basic:
                return self._basic
            token, until = self._tokens.get(scope, ("", 0.0))
            return token if time.monotonic() < until else ""

    def _credentials(self) -> auth.Credentials | None:
        # those of the endpoint itself; the registry's are never shown to its mirrors
        name = self.endpoint.host if self.endpoint.mirror else self._registry
        return auth.credentials(name, self._settings.environ)

    def _identify(self, offered: auth.Challenge, scope: str) -> bool:
        """Get what the challenge asks for; False if we have nothing to give."""
        known = self._credentials()
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
        header, seconds = self._token(offered, offered.scope or scope, known)
        with self._lock:
            self._tokens[scope] = (header, time.monotonic() + max(seconds - 5.0, 5.0))
        return True

    def _token(self, offered: auth.Challenge, scope: str, known: auth.Credentials | None) -> tuple[str, float]:
        """Ask the token server. Returns the header and how long it is good, in seconds."""
        host = urlsplit(offered.realm).netloc
        query = [("service", offered.service)] if offered.service else []
        query += [("scope", s) for s in scope.split(" ") if s]
        try:
            if known is not None and known.identity_token:
                form = {"grant_type": "refresh_token", "refresh_token": known.identity_token, "client_id": "kapelle"}
                body = urlencode([*form.items(), *query])
                kind = {"Content-Type": "application/x-www-form-urlencoded"}
                answer = self._request(offered.realm, kind, _ANSWER, method="POST", body=body)
            else:
                headers = {"Authorization": known.basic} if known is not None and known.user else {}
                if headers:
                    query.append(("account", known.user if known is not None else ""))
                mark = "&" if "?" in offered.realm else "?"
                answer = self._request(f"{offered.realm}{mark}{urlencode(query)}", headers, _ANSWER)
            status = answer.status
            data = self._small(answer, 1 << 20)
            answer.close()
        except (HTTPError, OSError) as e:
            raise Refused("unreachable", f"its token server {host}: {_words(e)}", _advice(e)) from e
        if status in (401, 403):
            said = "the login is not accepted" if known is not None else "it wants a login"
            raise Refused("denied", said, f"docker login {self._registry}")
        if status != 200:
            raise Refused("unreachable" if status >= 500 else "failed", f"its token server {host} answers {status}")
        try:
            tree = json.loads(data)
            token = tree.get("token") or tree["access_token"]
            seconds = float(tree.get("expires_in") or 60)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise Refused("failed", f"its token server {host} gives no token") from None
        return f"Bearer {token}", seconds

    # -- refusals -------------------------------------------------------------------------------------------------

    def _refusal(self, answer: Any, repository: str, body: bytes) -> Refused:
        status = answer.status
        said = _message(body)
        speaks = said is not None or "docker-distribution-api-version" in answer.headers
        said = said or ""
        if status == 404:
            if not speaks and "json" not in answer.headers.get("Content-Type", "") and body.lstrip()[:1] == b"<":
                return Refused("unreachable", "something that is no registry answered (404)")
            return Refused("missing", f"404 not found{_because(said)}")
        if status == 401:
            return Refused("denied", f"401 it wants a login{_because(said)}", f"docker login {self._registry}")
        if status == 403:
            if not speaks:  # a filter on the way, not the registry
                return Refused("unreachable", "403 blocked on the way (not by the registry)")
            return Refused("denied", f"403 denied{_because(said)}", f"docker login {self._registry}")
        if status == 407:
            return Refused("unreachable", "407 the proxy wants a login", "put user and password into HTTPS_PROXY")
        if status == 429:
            wait = _retry_after(answer.headers.get("Retry-After", ""))
            free = f", free again in {_span(wait)}" if wait else ""
            return Refused("limit", f"429 too many requests{free}", f"docker login {self._registry}")
        return Refused("unreachable" if status >= 500 else "failed", f"it answers {status}{_because(said)}")


def open_pool(proxy: str, environ: Mapping[str, str]) -> Any:
    """Connections, kept open between requests; through a proxy if one is given. ImageError while offline."""
    offline.refuse(environ, "this")
    tls = proxies.context(environ)
    if not proxy:
        return urllib3.PoolManager(num_pools=8, maxsize=8, ssl_context=tls)
    parts = urlsplit(proxy)
    if parts.scheme not in ("http", "https"):
        raise ImageError(f"a proxy of the kind {parts.scheme} can't be used", hint="give an http:// proxy")
    headers = None
    if parts.username:
        headers = urllib3.make_headers(proxy_basic_auth=f"{unquote(parts.username)}:{unquote(parts.password or '')}")
    return urllib3.ProxyManager(
        proxy, num_pools=8, maxsize=8, ssl_context=tls, proxy_ssl_context=tls, proxy_headers=headers
    )


_probed: dict[tuple[str, int], tuple[str, float]] = {}
_REMEMBER = 20.0  # seconds that a host which did not answer is not asked again


def _probe(host: str, port: int, through: str) -> None:
    """Whether a TCP connection can be had within CONNECT seconds, name lookup included. Remembered per process.

    A name with many addresses, or a name server that does not answer, would otherwise take minutes.
    """
    problem, when = _probed.get((host, port), ("", -_REMEMBER))
    if (host, port) not in _probed or (problem and time.monotonic() - when > _REMEMBER):
        result: queue.SimpleQueue[str] = queue.SimpleQueue()

        def attempt() -> None:
            try:
                socket.create_connection((host, port), CONNECT).close()
                result.put("")
            except socket.gaierror as e:
                result.put(f"its name can't be resolved ({e.strerror})")
            except (OSError, UnicodeError) as e:
                result.put(_words(e))

        threading.Thread(target=attempt, name="probe", daemon=True).start()
        try:
            problem = result.get(timeout=CONNECT + 0.5)
        except queue.Empty:
            problem = f"no answer within {CONNECT:.0f} s"
        _probed[host, port] = problem, time.monotonic()
    if problem:
        raise Refused("unreachable", f"proxy {host}:{port}: {problem}" if through else problem)


def _message(body: bytes) -> str | None:
    """The registry's own words (distribution-spec "Error Codes"); None if the body is not in that form."""
    try:
        errors = json.loads(body)["errors"]
        texts = [str(e.get("message") or e.get("code") or "") for e in errors]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return "; ".join(" ".join(t.split()) for t in texts if t)[:200]


def _because(said: str) -> str:
    return f": {said}" if said else ""


def _retry_after(text: str) -> float | None:
    """Seconds, from a number or a date (RFC 9110 section 10.2.3)."""
    text = text.strip()
    if text.isdigit():
        return float(text)
    if not text:
        return None
    from email.utils import parsedate_to_datetime

    try:
        return max(parsedate_to_datetime(text).timestamp() - time.time(), 0.0)
    except (ValueError, TypeError):
        return None


def _span(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


def _root(e: BaseException) -> BaseException:
    """What urllib3 has wrapped."""
    for _ in range(8):
        inner = getattr(e, "reason", None) or getattr(e, "original_error", None) or e.__cause__
        if isinstance(e, MaxRetryError | ProxyError | NewConnectionError) and isinstance(inner, BaseException):
            e = inner
            continue
        return e
    return e


def _worth_retrying(e: BaseException) -> bool:
    """Faults that may be gone a moment later. What is refused, unknown or untrusted stays so."""
    if isinstance(e, ProxyError | SSLError | ConnectTimeoutError | NewConnectionError | ReadTimeoutError):
        return False
    return isinstance(e, ProtocolError | ConnectionResetError | BrokenPipeError)


def _words(e: BaseException) -> str:
    """A network fault in a user's words."""
    root = _root(e)
    text = str(root)
    proxy = "the proxy: " if isinstance(e, ProxyError) else ""
    if "CERTIFICATE_VERIFY_FAILED" in text or "certificate verify failed" in text:
        return f"{proxy}its certificate is not trusted here"
    if isinstance(root, SSLError) or "SSL" in type(root).__name__:
        return f"{proxy}no TLS connection could be made"
    if isinstance(root, ReadTimeoutError | ConnectTimeoutError | TimeoutError):
        return f"{proxy}connection timed out"
    if isinstance(root, ConnectionRefusedError):
        return f"{proxy}connection refused"
    if isinstance(root, OSError) and root.strerror:
        return f"{proxy}{root.strerror.lower()}"
    if "Tunnel connection failed" in text:
        return f"the proxy refuses it ({text.partition(':')[2].strip() or text})"
    if isinstance(root, ProtocolError):
        return f"{proxy}the connection broke off"
    return f"{proxy}{' '.join(text.split())[:160] or type(root).__name__}"


def _advice(e: BaseException) -> str:
    if "certificate" in _words(e):
        return "name the bundle that has its issuer: SSL_CERT_FILE=/path/to/ca.pem"
    return ""


def _agent() -> str:
    from kapelle import __version__

    return f"kapelle/{__version__}"
