"""What the host's own apt says: where Debian's archive is reached, by which proxy, with whose certificates.

KAP_DEBIAN_MIRROR (and KAP_DEBIAN_SECURITY_MIRROR) come first. Only entries for Debian's own releases count: on
Ubuntu and others nothing fits, and Debian's public address is used. Read: apt.conf(5), sources.list(5).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping

from kapelle.images.standins import control
from kapelle.light import NamedTuple

PUBLIC = "http://deb.debian.org/debian"
RELEASES = ("bullseye", "bookworm", "trixie", "forky", "sid", "oldstable", "stable", "testing", "unstable")
_TOKEN = re.compile(r'"([^"\n]*)"|([{};])|([^\s"{};]+)')


class AptSettings(NamedTuple):
    mirrors: tuple[str, ...]  # URLs of the debian archive, to be tried in this order; no / at the end
    security: tuple[str, ...]  # of debian-security; may be empty
    proxies: Mapping[str, str]  # scheme → proxy URL; "DIRECT" for none
    ca_file: str = ""
    check_valid_until: bool = True
    named: bool = False  # the mirror was given by KAP_DEBIAN_MIRROR


def read(environ: Mapping[str, str], root: str = "/etc/apt") -> AptSettings:
    """Read the host's settings below `root`; missing or unreadable files say nothing."""
    conf = dict(_conf(root))
    main, security = [], []
    for uri, suite, components in _sources(root):
        uri = uri.rstrip("/")
        release = suite.split("/")[0].split("-")[0]
        if not uri.startswith(("http://", "https://", "file:")) or release not in RELEASES or "main" not in components:
            continue
        if suite.endswith("-security") or suite.endswith("/updates"):
            security.append(uri)
        elif "-" not in suite or suite.endswith("-updates"):
            main.append(uri)
    named = environ.get("KAP_DEBIAN_MIRROR", "").strip().rstrip("/")
    if named:
        main, security = [named], []
    main = main or [PUBLIC]
    own = environ.get("KAP_DEBIAN_SECURITY_MIRROR", "").strip().rstrip("/")
    if own:
        security = [own]
    security = security or [f"{m}-security" for m in main if m.endswith("/debian")]
    proxies = {s: conf[f"acquire::{s}::proxy"] for s in ("http", "https") if conf.get(f"acquire::{s}::proxy")}
    proxies.setdefault("https", proxies.get("http", ""))
    return AptSettings(
        tuple(dict.fromkeys(main)),
        tuple(dict.fromkeys(security)),
        {s: p for s, p in proxies.items() if p},
        conf.get("acquire::https::cainfo", ""),
        conf.get("acquire::check-valid-until", "true").lower() not in ("false", "no", "0", "off"),
        bool(named),
    )


def _files(directory: str, *suffixes: str) -> Iterator[tuple[str, str]]:
    try:
        names = sorted(os.listdir(directory))
    except OSError:
        return
    for name in names:
        stem, dot, _ = name.partition(".")
        if name.endswith(tuple(filter(None, suffixes))) or (stem and not dot and "" in suffixes):
            yield from _file(f"{directory}/{name}")


def _file(path: str) -> Iterator[tuple[str, str]]:
    try:
        with open(path, encoding="utf-8", errors="replace") as f:
            yield path, f.read()
    except OSError:
        return


def _sources(root: str) -> Iterator[tuple[str, str, list[str]]]:
    """(URI, suite, components) of each active entry for binary packages."""
    for path, text in [*_file(f"{root}/sources.list"), *_files(f"{root}/sources.list.d", ".list", ".sources")]:
        if path.endswith(".sources"):
            for entry in control.stanzas(text):
                fields = {k.lower(): v.split() for k, v in entry.items()}
                if fields.get("enabled", ["yes"])[0].lower() in ("no", "false", "0"):
                    continue
                if "deb" in fields.get("types", ["deb"]):
                    for uri in fields.get("uris", []):
                        for suite in fields.get("suites", []):
                            yield uri, suite, fields.get("components", [])
        else:
            for line in text.splitlines():
                words = re.sub(r"\[[^\]]*\]", " ", line.split("#")[0]).split()
                if len(words) >= 4 and words[0] == "deb":
                    yield words[1], words[2], words[3:]


def _conf(root: str) -> Iterator[tuple[str, str]]:
    """Names (lower case, parts joined by ::) and values of apt.conf."""
    for _, text in [*_files(f"{root}/apt.conf.d", ".conf", ""), *_file(f"{root}/apt.conf")]:
        text = re.sub(r"/\*.*?\*/", " ", text, flags=re.S)
        text = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith(("//", "#")))
        scope: list[str] = []
        words: list[str] = []
        for quoted, mark, word in _TOKEN.findall(text):
            if mark == "{":
                scope.append("::".join(words[:1]))
                words = []
            elif mark == "}":
                scope[-1:] = []
                words = []
            elif mark == ";":
                if len(words) == 2:
                    yield "::".join([*filter(None, scope), words[0]]).lower(), words[1]
                words = []
            elif word.startswith("//"):
                continue
            else:
                words.append(word or quoted)
