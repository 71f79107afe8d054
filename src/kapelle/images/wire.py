"""Connections to registries, and what goes wrong on them in a user's words. The requests themselves: `registry`."""

from __future__ import annotations

import json
import queue
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from urllib.parse import unquote, urlsplit

import urllib3
from urllib3.exceptions import (
    ConnectTimeoutError,
    MaxRetryError,
    NewConnectionError,
    ProtocolError,
    ProxyError,
    ReadTimeoutError,
    SSLError,
)

from kapelle.errors import ImageError
from kapelle.images import certificates, offline, proxies
from kapelle.light import Any

CONNECT = 3.0  # seconds until a host counts as out of reach

Kind = str  # "unreachable", "denied", "missing", "limit", "failed"


class Refused(ImageError):
    """One endpoint could not give what was asked. `kind` says why; `row` is told in the list of endpoints."""

    def __init__(self, kind: Kind, row: str, hint: str = "", status: int = 0) -> None:
        super().__init__(row, hint=hint)
        self.kind = kind
        self.row = row
        self.status = status  # HTTP; 0 where none came


def open_pool(proxy: str, environ: Mapping[str, str], host: str = "", *, insecure: bool = False) -> Any:
    """Connections, kept open between requests; through a proxy if one is given. host: whose own certificates count.

    insecure: any certificate will do.
    """
    offline.refuse(environ, "this")
    tls = proxies.context(environ)
    if host:
        certificates.add(tls, host, environ)
    if insecure:
        tls.check_hostname = False
        tls.verify_mode = ssl.CERT_NONE
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)  # the user has said so
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


def probe(host: str, port: int, through: str) -> None:
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
                result.put(words(e))

        threading.Thread(target=attempt, name="probe", daemon=True).start()
        try:
            problem = result.get(timeout=CONNECT + 0.5)
        except queue.Empty:
            problem = f"no answer within {CONNECT:.0f} s"
        _probed[host, port] = problem, time.monotonic()
    if problem:
        raise Refused("unreachable", f"proxy {host}:{port}: {problem}" if through else problem)


def message(body: bytes) -> str | None:
    """The registry's own words (distribution-spec "Error Codes"); None if the body is not in that form."""
    try:
        errors = json.loads(body)["errors"]
        texts = [str(e.get("message") or e.get("code") or "") for e in errors]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    plain = ("".join(c if c.isprintable() else " " for c in t) for t in texts)  # nothing that moves a terminal's cursor
    return "; ".join(" ".join(t.split()) for t in plain if t)[:200]


def because(said: str) -> str:
    return f": {said}" if said else ""


def retry_after(text: str) -> float | None:
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


def span(seconds: float) -> str:
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


def worth_retrying(e: BaseException) -> bool:
    """Faults that may be gone a moment later. What is refused, unknown or untrusted stays so."""
    if isinstance(e, ProxyError | SSLError | ConnectTimeoutError | NewConnectionError | ReadTimeoutError):
        return False
    return isinstance(e, ProtocolError | ConnectionResetError | BrokenPipeError)


def words(e: BaseException) -> str:
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


def is_distrust(e: BaseException) -> bool:
    """Is it a certificate that is not trusted?"""
    return "certificate" in words(e)


def advice(e: BaseException) -> str:
    """What may help against a network fault, or ""."""
    if is_distrust(e):
        return "name the bundle that has its issuer: SSL_CERT_FILE=/path/to/ca.pem, or put it into certs.d/HOST/ca.crt"
    return ""


def agent() -> str:
    from kapelle import __version__

    return f"kapelle/{__version__}"
