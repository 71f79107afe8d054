"""Certificates for one registry, from the folders that Docker and Podman read: certs.d/HOST[:PORT] with CAs in
*.crt, and a client's certificate and key in NAME.cert and NAME.key.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping

from kapelle.errors import ImageError

_SYSTEM = ("/etc/containers/certs.d", "/etc/docker/certs.d")


def folders(host: str, environ: Mapping[str, str]) -> tuple[str, ...]:
    """The folders there are for a registry (host with its port)."""
    if not host or "/" in host or host.startswith("."):
        return ()
    home = environ.get("HOME", "")
    config = environ.get("XDG_CONFIG_HOME") or (f"{home}/.config" if home else "")
    places = [*_SYSTEM]
    if config:
        places += [f"{config}/containers/certs.d", f"{config}/docker/certs.d"]
    found = [f"{place}/{host}" for place in places]
    if host.endswith(":443"):
        found += [f"{place}/{host.removesuffix(':443')}" for place in places]
    elif ":" not in host:
        found += [f"{place}/{host}:443" for place in places]
    return tuple(f for f in found if os.path.isdir(f))


def add(context: ssl.SSLContext, host: str, environ: Mapping[str, str]) -> None:
    """Trust a registry's own CAs, and show it our certificate. ImageError for a file that is none."""
    for folder in folders(host, environ):
        try:
            names = sorted(os.listdir(folder))
        except OSError as e:
            raise ImageError(f"{folder} can't be read: {(e.strerror or '').lower()}") from None
        for name in names:
            path = f"{folder}/{name}"
            try:
                if name.endswith(".crt"):
                    context.load_verify_locations(path)
                elif name.endswith(".cert"):
                    key = path.removesuffix(".cert") + ".key"
                    if not os.path.exists(key):
                        raise ImageError(f"missing key {key} for client certificate {path}")
                    context.load_cert_chain(path, key)
            except (OSError, ssl.SSLError) as e:
                raise ImageError(
                    f"{path} can't be read as a certificate: {e}", hint="correct or remove the file"
                ) from e
