"""Wheels by the host's pip settings: indexes, extra indexes, find-links, certificates (pip's Configuration page).

Only what stand-ins need: the newest wheel of a fitting version for this machine's glibc platform, its digest
known. Indexes are read as PEP 503 (HTML) or PEP 691 (JSON).
"""

from __future__ import annotations

import configparser
import hashlib
import html
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from urllib.parse import unquote, urljoin, urlsplit

from kapelle.images.standins.fetch import Fetcher, Unreachable, Wanted
from kapelle.light import NamedTuple

PUBLIC = "https://pypi.org/simple"  # pip's own default
_ANCHOR = re.compile(r"<a\s([^>]*)>", re.I)
_ATTRIBUTE = re.compile(r'([a-z-]+)\s*=\s*"([^"]*)"', re.I)
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}


class NotThere(Exception):
    """No fitting wheel can be had; the text says why."""


class Settings(NamedTuple):
    indexes: tuple[str, ...]  # URLs without / at the end
    find_links: tuple[str, ...]  # folders or pages
    cert: str = ""


class Release(NamedTuple):
    version: str
    filename: str
    wanted: Wanted


def settings(environ: Mapping[str, str], etc: str = "/etc") -> Settings:
    """What `pip config` would say: global, user and environment; later ones win, extra indexes add up."""
    values: dict[str, str] = {}
    for path in _config_files(environ, etc):
        parser = configparser.RawConfigParser()
        try:
            parser.read(path, encoding="utf-8")
        except (configparser.Error, OSError, UnicodeDecodeError):
            continue
        for section in ("global", "download", "install"):
            if parser.has_section(section):
                values.update({k.replace("_", "-"): v for k, v in parser.items(section)})
    for name, value in environ.items():
        if name.startswith("PIP_") and value:
            values[name[4:].lower().replace("_", "-")] = value
    indexes = [] if values.get("no-index", "").lower() in ("1", "true", "yes", "on") else [
        values.get("index-url", PUBLIC), *values.get("extra-index-url", "").split()
    ]  # fmt: skip
    return Settings(
        tuple(dict.fromkeys(i.rstrip("/") for i in indexes if i)),
        tuple(values.get("find-links", "").split()),
        values.get("cert", ""),
    )


def _config_files(environ: Mapping[str, str], etc: str) -> Iterator[str]:
    chosen = environ.get("PIP_CONFIG_FILE", "")
    if chosen == os.devnull:
        return
    home = environ.get("HOME") or os.path.expanduser("~")
    for directory in reversed((environ.get("XDG_CONFIG_DIRS") or f"{etc}/xdg").split(":")):
        yield f"{directory}/pip/pip.conf"
    yield f"{etc}/pip.conf"
    yield f"{home}/.pip/pip.conf"
    yield f"{environ.get('XDG_CONFIG_HOME') or f'{home}/.config'}/pip/pip.conf"
    if chosen:
        yield chosen


def find(
    project: str, fits: Callable[[str], bool], architecture: str, fetcher: Fetcher, environ: Mapping[str, str]
) -> Release:
    """The newest wheel of `project` with a version that `fits`, for any Python, for this architecture.

    Raises NotThere.
    """
    conf = settings(environ)
    fetcher.trust(conf.cert)
    machine = _MACHINES.get(architecture, architecture)
    name = _normal(project)
    troubles: list[str] = []
    found: list[tuple[tuple[int, ...], Release]] = []
    places = [(_index, f"{i}/{name}/") for i in conf.indexes] + [(_links, f) for f in conf.find_links]
    for read, place in places:
        try:
            rows = list(read(place, name, fetcher))
        except (Unreachable, ValueError) as e:
            troubles.append(getattr(e, "why", str(e)))
            continue
        for filename, url, sha256, size in rows:
            version = _usable(filename, name, machine)
            if version and sha256 and fits(version):
                release = Release(version, filename, Wanted((url,), sha256, size, filename))
                found.append((_numbers(version), release))
        if found:
            break  # an index that has it decides; the others would only be asked in vain
    if not found:
        raise NotThere(f"{project}: {'; '.join(dict.fromkeys(troubles)) or 'no fitting version'}")
    best = max(n for n, _ in found)
    # several wheels of one version differ in the Python they are for, not in what is taken out of them
    return min((r for n, r in found if n == best), key=lambda r: r.filename)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r"\d+", version))


def _usable(filename: str, name: str, machine: str) -> str:
    """The version of a wheel that runs on this glibc machine, or ""."""
    parts = filename.removesuffix(".whl").split("-")
    if not filename.endswith(".whl") or len(parts) not in (5, 6):
        return ""
    if _normal(parts[0]) != name or re.search(r"[a-z]", parts[1].split("+")[0]):
        return ""  # another project, or a pre-release
    platforms = parts[-1].split(".")
    fits = any(p == "any" or (p.startswith(("manylinux", "linux")) and p.endswith(machine)) for p in platforms)
    return parts[1] if fits else ""


def _index(url: str, project: str, fetcher: Fetcher) -> Iterator[tuple[str, str, str, int]]:
    """File name, URL, sha256 and size (0: unknown) of each file an index lists for a project; yanked ones not."""
    if urlsplit(url).scheme == "file":
        path = unquote(urlsplit(url).path)
        if os.path.isdir(path) and not os.path.exists(f"{path}/index.html"):
            yield from _folder(path, project)
            return
        url = url.rstrip("/") + "/index.html"
    accept = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"
    text = fetcher.read(url, headers={"Accept": accept}).decode("utf-8", "replace")
    if text.lstrip().startswith("{"):
        for row in json.loads(text).get("files", ()):
            if not row.get("yanked"):
                digest = (row.get("hashes") or {}).get("sha256", "")
                yield row["filename"], urljoin(url, row["url"]), digest, int(row.get("size") or 0)
        return
    yield from _anchors(text, url)


def _anchors(text: str, url: str) -> Iterator[tuple[str, str, str, int]]:
    for anchor in _ANCHOR.findall(text):
        attributes = {k.lower(): html.unescape(v) for k, v in _ATTRIBUTE.findall(anchor)}
        href = attributes.get("href", "")
        if not href or "data-yanked" in attributes:
            continue
        link, _, fragment = urljoin(url, href).partition("#")
        digest = fragment.removeprefix("sha256=") if fragment.startswith("sha256=") else ""
        yield unquote(link.rsplit("/", 1)[-1]), link, digest, 0


def _links(place: str, project: str, fetcher: Fetcher) -> Iterator[tuple[str, str, str, int]]:
    path = unquote(urlsplit(place).path) if place.startswith("file:") else os.path.expanduser(place)
    if "://" not in place or place.startswith("file:"):
        if os.path.isdir(path):
            yield from _folder(path, project)
        return
    yield from _anchors(fetcher.read(place).decode("utf-8", "replace"), place)


def _folder(path: str, project: str) -> Iterator[tuple[str, str, str, int]]:
    for name in sorted(os.listdir(path)):
        if name.endswith(".whl") and _normal(name.split("-")[0]) == project:
            full = os.path.abspath(f"{path}/{name}")
            with open(full, "rb") as f:
                digest = hashlib.file_digest(f, "sha256").hexdigest()
            yield name, f"file://{full}", digest, os.path.getsize(full)


def _normal(name: str) -> str:
    """A project's name as indexes spell it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()
