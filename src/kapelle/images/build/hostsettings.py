"""The host's own settings inside a build: proxies, CA bundle, pip, npm and apt.

They are mounts and variables of a RUN only: never in the image, its config or a cache key. Proxies always (as
Docker's predefined arguments); the rest when asked for. `host_settings` serves containers as well.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from kapelle.light import NamedTuple

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)  # fmt: skip
_BUNDLE_VARIABLES = (
    "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT", "NODE_EXTRA_CA_CERTS", "GIT_SSL_CAINFO",
)  # fmt: skip
_PLACE = "/run/kapelle-host"


class HostSettings(NamedTuple):
    env: tuple[str, ...] = ()
    binds: tuple[tuple[str, str, bool], ...] = ()  # host path, target, read-only


def proxies(environ: Mapping[str, str]) -> tuple[str, ...]:
    """The caller's proxy variables, in both spellings."""
    rows = []
    for name in PROXIES:
        value = environ.get(name) or environ.get(name.lower())
        if value:
            rows += [f"{name}={value}", f"{name.lower()}={value}"]
    return tuple(rows)


def host_settings(environ: Mapping[str, str]) -> HostSettings:
    """What a RUN needs to install packages where the host can."""
    env: list[str] = []
    binds: list[tuple[str, str, bool]] = []
    bundle = _bundle(environ)
    if bundle:
        binds.append((bundle, f"{_PLACE}/ca.pem", True))
        env += [f"{name}={_PLACE}/ca.pem" for name in _BUNDLE_VARIABLES]
    _pip(environ, env, binds, bool(bundle))
    _npm(environ, env, bool(bundle))
    _apt(binds)
    return HostSettings(tuple(env), tuple(binds))


def _bundle(environ: Mapping[str, str]) -> str:
    named = [environ.get(name, "") for name in _BUNDLE_VARIABLES]
    return next((os.path.realpath(p) for p in (*named, *_BUNDLES) if p and os.path.isfile(p)), "")


def _pip(environ: Mapping[str, str], env: list[str], binds: list[tuple[str, str, bool]], bundle: bool) -> None:
    """pip's configuration as variables; files and folders that it names are mounted where they are."""
    import configparser

    home = environ.get("HOME", "/root")
    values: dict[str, str] = {}
    files = ["/etc/pip.conf", "/etc/xdg/pip/pip.conf", f"{home}/.pip/pip.conf"]
    files += [f"{home}/.config/pip/pip.conf", environ.get("PIP_CONFIG_FILE", "")]
    for file in files:
        parser = configparser.RawConfigParser()
        try:
            parser.read(file)
        except (configparser.Error, OSError, UnicodeDecodeError):
            continue
        for section in ("global", "install"):
            if parser.has_section(section):
                values.update({k.replace("_", "-"): v for k, v in parser.items(section)})
    for name, value in environ.items():
        if name.startswith("PIP_") and name != "PIP_CONFIG_FILE":
            values[name[4:].lower().replace("_", "-")] = value
    values.pop("cert", None)
    for key in ("require-virtualenv", "user", "target", "prefix", "cache-dir", "break-system-packages"):
        values.pop(key, None)
    for key, value in values.items():
        words = value.split()
        kept = []
        for word in words:
            path = word.removeprefix("file://")
            if path.startswith("/"):
                if not os.path.exists(path):
                    continue
                top = "/" + "/".join(path.strip("/").split("/")[:2]) if word.startswith("file://") else path
                if (top, top, True) not in binds and os.path.exists(top):
                    binds.append((top, top, True))
            kept.append(word)
        if kept:
            env.append(f"PIP_{key.upper().replace('-', '_')}={' '.join(kept)}")
    if bundle:
        env.append("PIP_DISABLE_PIP_VERSION_CHECK=1")


def _npm(environ: Mapping[str, str], env: list[str], bundle: bool) -> None:
    home = environ.get("HOME", "/root")
    for file in (f"{home}/.npmrc", "/etc/npmrc", "/usr/etc/npmrc"):
        try:
            with open(file, encoding="utf-8") as f:
                rows = [line.strip() for line in f]
        except OSError:
            continue
        for row in rows:
            key, _, value = row.partition("=")
            if key.strip() == "registry":
                env.append(f"npm_config_registry={value.strip()}")
    if bundle:
        env.append(f"npm_config_cafile={_PLACE}/ca.pem")


def _apt(binds: list[tuple[str, str, bool]]) -> None:
    """apt's proxies and certificates; its sources are the image's own."""
    import glob

    for file in sorted(glob.glob("/etc/apt/apt.conf.d/*")):
        try:
            with open(file, encoding="utf-8", errors="replace") as f:
                text = f.read()
        except OSError:
            continue
        if "proxy" in text.lower() or "CaInfo" in text:
            binds.append((file, f"/etc/apt/apt.conf.d/{os.path.basename(file)}", True))
