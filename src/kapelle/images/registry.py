"""The registry client: the only user of the network among the images. OCI distribution-spec v1.1 ("Pull") and the
Docker registry v2 API: manifests, blobs, tokens; redirects, retries, resuming. Asks one endpoint; `pull` knows several.
"""

from __future__ import annotations

import hashlib
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from urllib.parse import urljoin, urlsplit

import urllib3
from urllib3.exceptions import HTTPError, IncompleteRead, ProtocolError, ReadTimeoutError, SSLError

from kapelle.errors import ImageError
from kapelle.images import auth, certificates, manifests, offline, proxies, wire
from kapelle.images.identity import Identity
from kapelle.images.mirrors import Endpoint, Settings
from kapelle.images.wire import Refused as Refused
from kapelle.light import Any

_ANSWER = 15.0  # seconds without a byte, for small answers
_BODY = 30.0  # the same within a blob
_TRIES = 4
_PAUSES = (0.2, 0.6, 1.5)
_LONGEST_WAIT = 5.0  # a Retry-After beyond this is told to the user instead
_CHUNK = 1 << 18
_DIGESTS = ("sha256", "sha384", "sha512")
_HOPS = 6
_TRANSIENT = (408, 425, 500, 502, 503, 504)


class Registry:
    """One endpoint for one command. May be used by several threads."""

    def __init__(self, endpoint: Endpoint, registry: str, settings: Settings) -> None:
        offline.refuse(settings.environ, f"registry {registry}")
        self.endpoint = endpoint
        self._registry = registry  # as the reference has it: what credentials are filed under
        self._settings = settings
        self._scheme = endpoint.schemes[0]
        self._pools: dict[tuple[str, str, bool], Any] = {}
        self._identity = Identity(endpoint, registry, settings, self._plain)
        self._lock = threading.Lock()
        self._pool_lock = threading.Lock()
        self._reached = False

    # -- what is asked for ----------------------------------------------------------------------------------------

    def manifest(self, repository: str, wanted: str) -> tuple[bytes, str, str]:
        """A manifest or index by tag or digest: its bytes, media type, digest (checked). Raises Refused."""
        url = self.url(repository, f"manifests/{wanted}")
        headers = {"Accept": ", ".join(manifests.ACCEPT)}
        answer = self.get(url, headers, repository, _ANSWER)
        try:
            data = self._small(answer, manifests.MOST_BYTES)
        finally:
            answer.release_conn()
        said = answer.headers.get("Docker-Content-Digest", "")
        if ":" in wanted and wanted.partition(":")[0] not in _DIGESTS:
            raise ImageError(f"{wanted[:19]}… is a digest of a kind that can't be checked here", code="KAP504")
        for promised in (wanted if ":" in wanted else "", said):
            algorithm, _, digits = promised.partition(":")
            if algorithm in _DIGESTS and hashlib.new(algorithm, data).hexdigest() != digits:
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

    def digest(self, repository: str, tag: str) -> str:
        """What a tag stands for, without fetching it (registries that count pulls count no HEAD); "" if that is not
        told. Raises Refused.
        """
        headers = {"Accept": ", ".join(manifests.ACCEPT)}
        scope = f"repository:{self.endpoint.prefix}{repository}:pull"
        url = self.url(repository, f"manifests/{tag}")
        answer = self.exchange("HEAD", url, headers, scope, good=(200, 400, 403, 404, 405, 501))
        answer.release_conn()
        return str(answer.headers.get("Docker-Content-Digest", "")) if answer.status == 200 else ""

    def blob(
        self, repository: str, digest: str, size: int, stop: Callable[[], bool] = lambda: False
    ) -> Iterator[bytes]:
        """A blob's bytes as they come. A broken connection is resumed where it broke. The caller checks the digest."""
        yield from self._resumed(self.url(repository, f"blobs/{digest}"), repository, size, stop)

    def elsewhere(self, url: str, size: int, stop: Callable[[], bool] = lambda: False) -> Iterator[bytes]:
        """The bytes of a foreign layer from a URL that its manifest names; without credentials."""
        if urlsplit(url).scheme not in ("http", "https"):
            raise Refused("failed", f"its manifest names {url[:80]}, which can't be fetched")
        yield from self._resumed(url, "", size, stop)

    def _resumed(self, url: str, repository: str, size: int, stop: Callable[[], bool]) -> Iterator[bytes]:
        done, fails = 0, 0
        while True:
            headers = {"Accept-Encoding": "identity"}
            if done:
                headers["Range"] = f"bytes={done}-"
            answer = self.get(url, headers, repository, _BODY)
            skip = _skipped(answer, done)  # it can't resume: what we have goes by again
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
                problem = wire.words(e)
            finally:
                answer.close()
            fails = 1 if done > start else fails + 1
            if fails >= _TRIES:
                raise Refused("failed", f"{problem}, {fails} times")
            time.sleep(_PAUSES[min(fails, len(_PAUSES)) - 1])

    # -- one request ----------------------------------------------------------------------------------------------

    def url(self, repository: str, rest: str) -> str:
        self._reach()
        return f"{self._scheme}://{self.endpoint.host}/v2/{self.endpoint.prefix}{repository}/{rest}"

    def is_own(self, url: str) -> bool:
        """Is it a URL of this registry? Credentials are for no other."""
        parts = urlsplit(url)
        return (parts.scheme, parts.netloc) == (self._scheme, self.endpoint.host)

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
                    wire.probe(host, port, through=proxy or "")
                    if len(self.endpoint.schemes) > 1:
                        self._request(url, {}, _ANSWER).close()
                    self._scheme, self._reached = scheme, True
                    return
                except Refused as e:
                    problem = e
                except (HTTPError, OSError) as e:
                    problem = Refused("unreachable", wire.words(e), wire.advice(e))
                    if wire.is_distrust(e):
                        raise problem from e  # it does speak TLS: plain HTTP would be a step down
            assert problem is not None
            raise problem

    def get(self, url: str, headers: dict[str, str], repository: str, patience: float) -> Any:
        """GET with credentials, retries and redirects; an answer of 200 or 206, its body unread. Raises Refused."""
        scope = f"repository:{self.endpoint.prefix}{repository}:pull" if repository else ""
        return self.exchange("GET", url, headers, scope, patience=patience)

    def exchange(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        scope: str,
        *,
        body: Callable[[], Any] | None = None,
        good: tuple[int, ...] = (200, 206),
        patience: float = _ANSWER,
        again: bool = True,
    ) -> Any:
        """A request with credentials and redirects, and with `again` retries: an answer with a status of `good`, its
        body unread. scope: what a token is asked for; "" for a request without credentials. body: makes the body,
        for each try anew. Raises Refused.
        """
        asked = False
        fails = 0
        while True:
            header = self._identity.authorization(scope) if scope else ""
            whole = {**headers, **({"Authorization": header} if header else {})}
            try:
                answer = self._follow(method, url, whole, patience, body)
            except (HTTPError, OSError) as e:
                if not again or not wire.worth_retrying(e) or fails + 1 >= _TRIES:
                    times = f" ({fails + 1} tries)" if fails else ""
                    raise Refused("unreachable", wire.words(e) + times, wire.advice(e)) from e
                time.sleep(_PAUSES[min(fails, len(_PAUSES) - 1)] * (0.8 + 0.4 * random.random()))
                fails += 1
                continue
            status = answer.status
            if status in good:
                return answer
            if status == 401 and not asked and scope:
                asked = True
                offered = auth.challenge(answer.headers.get("WWW-Authenticate", ""))
                answer.drain_conn()
                if offered is not None and self._identity.take(offered, scope):
                    continue
                raise self._refusal(answer, b"")
            if (status == 429 or (again and status in _TRANSIENT)) and fails + 1 < _TRIES:
                wait = wire.retry_after(answer.headers.get("Retry-After", ""))
                if wait is None or wait <= _LONGEST_WAIT:
                    pause = wait if wait is not None else _PAUSES[min(fails, len(_PAUSES) - 1)]
                    answer.drain_conn()
                    time.sleep(pause)
                    fails += 1
                    continue
            try:
                said = answer.read(8192)
            except (HTTPError, OSError):
                said = b""
            answer.close()
            raise self._refusal(answer, said)

    def log_in(self, login: auth.Credentials) -> None:
        """See whether the registry takes a login. Raises Refused if not."""
        self._reach()
        self._identity.trial = login
        self.exchange("GET", f"{self._scheme}://{self.endpoint.host}/v2/", {}, "registry:catalog:*").drain_conn()

    def _follow(
        self, method: str, url: str, headers: dict[str, str], patience: float, body: Callable[[], Any] | None
    ) -> Any:
        """A request with its redirects: never from https to http, credentials never to another host."""
        own = urlsplit(url)
        for _ in range(_HOPS):
            answer = self._request(url, headers, patience, method=method, **({"body": body()} if body else {}))
            if answer.status not in (301, 302, 303, 307, 308):
                return answer
            if method not in ("GET", "HEAD") and answer.status not in (307, 308):
                return answer  # it would turn into another request
            target = urljoin(url, answer.headers.get("Location", ""))
            answer.drain_conn()
            there = urlsplit(target)
            if there.scheme not in ("http", "https") or (urlsplit(url).scheme == "https" and there.scheme == "http"):
                raise Refused(
                    "failed", f"it redirects from https to {there.scheme or 'nowhere'}, which is not followed"
                )
            if (own.scheme, own.netloc) != (there.scheme, there.netloc):
                headers = {k: v for k, v in headers.items() if k != "Authorization"}
            url = target
        raise Refused("failed", f"it redirects more than {_HOPS} times")

    def _plain(self, url: str, headers: dict[str, str], **more: Any) -> tuple[int, bytes]:
        """A small request of its own kind (token servers): status and body."""
        answer = self._request(url, headers, _ANSWER, **more)
        try:
            return answer.status, self._small(answer, 1 << 20)
        finally:
            answer.close()

    def _request(self, url: str, headers: dict[str, str], patience: float, **more: Any) -> Any:
        pool = self._pool(url)
        return pool.request(
            more.pop("method", "GET"),
            url,
            headers={"User-Agent": wire.agent(), **headers},
            preload_content=False,
            redirect=False,
            retries=False,
            timeout=urllib3.Timeout(connect=wire.CONNECT, read=patience),
            **more,
        )

    def _pool(self, url: str) -> Any:
        proxy = proxies.for_url(url, self._settings.environ) or ""
        host = urlsplit(url).netloc
        insecure = self.endpoint.insecure and host == self.endpoint.host
        special = host if certificates.folders(host, self._settings.environ) else ""
        with self._pool_lock:
            key = (proxy, special, insecure)
            if key not in self._pools:
                self._pools[key] = wire.open_pool(proxy, self._settings.environ, special, insecure=insecure)
            return self._pools[key]

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
            raise Refused("failed", wire.words(e)) from e
        return b"".join(parts)

    # -- refusals -------------------------------------------------------------------------------------------------

    def _refusal(self, answer: Any, body: bytes) -> Refused:
        status = answer.status
        said = wire.message(body)
        speaks = said is not None or "docker-distribution-api-version" in answer.headers
        said = said or ""
        if status == 404:
            if not speaks and "json" not in answer.headers.get("Content-Type", "") and body.lstrip()[:1] == b"<":
                return Refused("unreachable", "something that is no registry answered (404)")
            return Refused("missing", f"404 not found{wire.because(said)}")
        if status == 401:
            return Refused("denied", f"401 it wants a login{wire.because(said)}", self._identity.advice())
        if status == 403:
            if not speaks:  # a filter on the way, not the registry
                return Refused("unreachable", "403 blocked on the way (not by the registry)")
            return Refused("denied", f"403 denied{wire.because(said)}", self._identity.advice())
        if status == 407:
            return Refused("unreachable", "407 the proxy wants a login", "put user and password into HTTPS_PROXY")
        if status == 429:
            wait = wire.retry_after(answer.headers.get("Retry-After", ""))
            free = f", free again in {wire.span(wait)}" if wait else ""
            return Refused("limit", f"429 too many requests{free}{self._identity.shown()}", self._identity.advice())
        kind = "unreachable" if status >= 500 else "failed"
        return Refused(kind, f"it answers {status}{wire.because(said)}", status=status)


def _skipped(answer: Any, done: int) -> int:
    """How many bytes of a resumed answer are known already: 0 if it goes on where the last one broke."""
    if not done:
        return 0
    if answer.status != 206:
        return done  # it can't resume: what we have goes by again
    first = answer.headers.get("Content-Range", "").partition(" ")[2].partition("-")[0]
    if first.isdigit() and int(first) != done:
        if int(first) > done:
            answer.close()
            raise Refused("failed", f"asked to go on at byte {done}, it went on at {first}")
        return done - int(first)
    return 0
