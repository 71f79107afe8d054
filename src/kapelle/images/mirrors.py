"""Where a registry's images are asked for: its mirrors first, then the registry. And the settings of all that.

KAP_MIRRORS=docker.io=http://127.0.0.1:5000,ghcr.io=https://mirror.example/ghcr (several for one registry are tried
in that order), then [mirrors] of config.toml:

    [mirrors]
    "docker.io" = ["https://mirror.example"]
    [registries."registry.example:5000"]
    plain-http = true
    insecure = true

After those come the mirrors of containers' registries.conf and of docker's daemon.json (`hostregistries`).
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from urllib.parse import urlsplit

from kapelle.errors import ImageError
from kapelle.images import hostregistries
from kapelle.images.hostregistries import HostRegistries
from kapelle.images.reference import Reference
from kapelle.light import Any, NamedTuple
from kapelle.state.paths import Paths

_HOSTS = {"docker.io": "registry-1.docker.io"}


class Endpoint(NamedTuple):
    """One place to ask. `schemes` in the order to try."""

    host: str  # with port
    schemes: tuple[str, ...]
    prefix: str = ""  # put before the repository ("ghcr/")
    mirror: bool = False
    insecure: bool = False  # any certificate will do
    asked: str = ""  # the repository to ask for in place of the reference's ("" = that one)

    def __str__(self) -> str:
        return f"{self.schemes[0]}://{self.host}" if len(self.schemes) == 1 else self.host


class Settings(NamedTuple):
    """What the host says of registries. `mirrors`: registry → URLs."""

    mirrors: Mapping[str, tuple[str, ...]] = {}
    config: Mapping[str, Any] = {}  # config.toml, whole
    environ: Mapping[str, str] = {}  # proxies, CA bundles, DOCKER_CONFIG, HOME
    host: HostRegistries = HostRegistries()


def settings(environ: Mapping[str, str], paths: Paths) -> Settings:
    """Read KAP_MIRRORS and config.toml. ImageError with the place if one of them is malformed."""
    config = read_config(f"{paths.config}/config.toml")
    mirrors: dict[str, list[str]] = {}
    for item in environ.get("KAP_MIRRORS", "").split(","):
        item = item.strip()
        if not item:
            continue
        registry, equals, url = item.partition("=")
        if not equals or "/" in registry:
            registry, url = "docker.io", item  # a bare URL is for the default registry
        _check(url.strip(), "KAP_MIRRORS")
        mirrors.setdefault(registry.strip(), []).append(url.strip())
    table = config.get("mirrors", {})
    if not isinstance(table, dict):
        raise ImageError("[mirrors] in config.toml is no table", hint='write  "docker.io" = ["https://…"]  below it')
    for registry, urls in table.items():
        listed = [urls] if isinstance(urls, str) else urls
        if not isinstance(listed, list) or not all(isinstance(u, str) for u in listed):
            raise ImageError(f"mirrors of {registry} in config.toml are no list of URLs")
        for url in listed:
            _check(url, f"{paths.config}/config.toml")
            mirrors.setdefault(registry, []).append(url)
    host = hostregistries.read(environ)
    for url in host.docker_mirrors:
        _check(url, "docker's daemon.json")
        mirrors.setdefault("docker.io", []).append(url)
    return Settings({r: tuple(dict.fromkeys(urls)) for r, urls in mirrors.items()}, config, environ, host)


def endpoints(ref: Reference, settings: Settings) -> tuple[Endpoint, ...]:
    """Where to ask for an image, in order. ImageError if the host's configuration forbids it."""
    found = [_endpoint(url, True, settings) for url in settings.mirrors.get(ref.registry, ())]
    rule = settings.host.rule(ref.name)
    if rule is not None:
        if rule.blocked:
            raise ImageError(
                f"registry {ref.registry} is blocked in registries.conf", hint="take out blocked = true there"
            )
        rest = ref.name[len(rule.prefix) :] if not rule.prefix.startswith("*.") else f"/{ref.repository}"
        for mirror in rule.mirrors:
            if mirror.only and mirror.only != ("digest" if ref.digest else "tag"):
                continue
            found.append(_moved(mirror.location + rest, True, mirror.insecure, settings))
    return (*found, own(ref.registry, settings, ref.name))


def own(registry: str, settings: Settings, name: str = "") -> Endpoint:
    """The registry itself (for pushes, logins): never a mirror. name: of a repository, for rules about some of them."""
    rule = settings.host.rule(name or registry)
    if rule is not None and name and (rule.location != rule.prefix or rule.insecure):
        rest = name[len(rule.prefix) :] if not rule.prefix.startswith("*.") else f"/{name.partition('/')[2]}"
        location = rule.location + rest if not rule.location.startswith("*.") else name
        return _moved(location, False, rule.insecure, settings)
    found = _endpoint(_HOSTS.get(registry, registry), False, settings)
    return _open(found) if rule is not None and rule.insecure else found


def _moved(location: str, mirror: bool, insecure: bool, settings: Settings) -> Endpoint:
    """Another place for a whole repository: HOST/PATH."""
    host, _, path = location.partition("/")
    found = _endpoint(_HOSTS.get(host, host), mirror, settings)._replace(asked=path)
    return _open(found) if insecure else found


def _open(endpoint: Endpoint) -> Endpoint:
    return endpoint._replace(schemes=("https", "http"), insecure=True)


def is_loopback(host: str) -> bool:
    """Whether a host (with or without port) is this machine by its name or address alone."""
    name = urlsplit(f"//{host}").hostname or ""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _endpoint(url: str, mirror: bool, settings: Settings) -> Endpoint:
    if "://" in url:
        parts = urlsplit(url)
        path = parts.path.strip("/")
        insecure = settings.host.is_insecure(parts.netloc)
        return Endpoint(parts.netloc, (parts.scheme,), f"{path}/" if path else "", mirror, insecure)
    host, _, path = url.partition("/")
    path = path.strip("/")
    registries = settings.config.get("registries")
    said = registries.get(host, {}) if isinstance(registries, dict) else {}
    row: dict[str, Any] = said if isinstance(said, dict) else {}
    insecure = row.get("insecure") is True or settings.host.is_insecure(host)
    plain = insecure or is_loopback(host) or row.get("plain-http") is True
    schemes = ("https", "http") if plain else ("https",)
    return Endpoint(host, schemes, f"{path}/" if path else "", mirror, insecure)


def _check(url: str, where: str) -> None:
    parts = urlsplit(url if "://" in url else f"https://{url}")
    try:
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        good = False
    if not good or parts.username is not None:
        raise ImageError(
            f'"{url}" in {where} is not the URL of a mirror', hint="write it as docker.io=https://mirror.example"
        )


def read_config(path: str) -> dict[str, Any]:
    if not os.path.exists(path):
        return {}
    import tomllib

    try:
        with open(path, "rb") as f:
            return tomllib.load(f)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise ImageError(f"{path} can't be read: {e}", hint="correct the file, or move it away") from e
    except OSError as e:
        raise ImageError(f"{path} can't be read: {e.strerror}") from e
