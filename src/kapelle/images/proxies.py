"""Proxies and trusted certificates, from the environment as curl and Go read it."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from urllib.parse import urlsplit

from kapelle.errors import ImageError
from kapelle.images.mirrors import is_loopback

_BUNDLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_SYSTEM = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")


def for_url(url: str, environ: Mapping[str, str]) -> str | None:
    """The proxy to use for a URL, or None. Loopback never has one."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if is_loopback(parts.netloc):
        return None
    for name in (f"{parts.scheme}_proxy", "all_proxy"):
        proxy = environ.get(name) or environ.get(name.upper())
        if proxy and not _excepted(host, parts.port, environ.get("no_proxy") or environ.get("NO_PROXY") or ""):
            return proxy if "://" in proxy else f"http://{proxy}"
    return None


def _excepted(host: str, port: int | None, exceptions: str) -> bool:
    import ipaddress

    host = host.lower().rstrip(".")
    for item in exceptions.replace(" ", ",").split(","):
        item = item.strip().lower()
        if item == "*":
            return True
        if not item:
            continue
        if "/" in item:
            try:
                if ipaddress.ip_address(host) in ipaddress.ip_network(item, strict=False):
                    return True
            except ValueError:
                pass
            continue
        name, colon, wanted = item.rpartition(":")
        if colon and wanted.isdigit() and "]" not in wanted and ":" not in name.strip("[]"):
            if str(port or "") != wanted:
                continue
            item = name
        item = item.strip("[]").removeprefix("*").lstrip(".")
        if host == item or host.endswith(f".{item}"):
            return True
    return False


def address(url: str) -> tuple[str, int]:
    """Host and port that a URL leads to. ImageError if it has none."""
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = -1
    if not parts.hostname or port == -1:
        raise ImageError(f'"{url}" is not the URL of a server')
    return parts.hostname, port or {"https": 443, "socks5": 1080, "socks5h": 1080}.get(parts.scheme, 80)


def context(environ: Mapping[str, str]) -> ssl.SSLContext:
    """TLS that trusts the system's store and every bundle the environment names."""
    made = ssl.create_default_context()
    if not made.cert_store_stats()["x509_ca"]:  # a Python built with another place for it
        for path in _SYSTEM:
            if os.path.exists(path):
                made.load_verify_locations(path)
                break
    for name in _BUNDLES:
        path = environ.get(name, "")
        if not path:
            continue
        try:
            if os.path.isdir(path):
                made.load_verify_locations(capath=path)
            else:
                made.load_verify_locations(path)
        except (OSError, ssl.SSLError) as e:
            raise ImageError(
                f"{name}={path} can't be read as certificates: {e}", hint=f"correct or unset {name}"
            ) from e
    return made
