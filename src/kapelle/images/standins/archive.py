"""A Debian archive as seen from here: its suites' signed indexes, the packages in them, where their files are.

Sources: Debian repository format (wiki.debian.org/DebianRepository/Format): InRelease, SHA256, Acquire-By-Hash,
Valid-Until, Packages. Nothing of an index is used before its signature and its digest are checked.
"""

from __future__ import annotations

import lzma
import os
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from importlib import resources

from kapelle.errors import ImageError
from kapelle.events import Emit, Notice
from kapelle.images.standins import control, debian_version, openpgp
from kapelle.images.standins.apt_settings import AptSettings
from kapelle.images.standins.fetch import Fetcher, Unreachable, Wanted
from kapelle.images.standins.resolve import Package
from kapelle.light import NamedTuple

VERSIONS = {"bullseye": "11", "bookworm": "12", "trixie": "13"}
_NAME = re.compile(r"^Package: (\S+)$", re.M)
_PROVIDES = re.compile(r"^Provides: (.*)$", re.M)
_WANTED = re.compile(r"^(?:Essential: yes|Priority: required)$", re.M)


class Suite(NamedTuple):
    """One verified index."""

    name: str  # bookworm-security
    mirror: str
    text: str  # its Packages
    date: float  # of the Release, seconds since the epoch


class Archive:
    """One release of Debian for one architecture: its suites, merged; the newest version of a package counts."""

    def __init__(self, release: str, architecture: str, suites: tuple[Suite, ...], origin: str) -> None:
        self.release = release
        self.architecture = architecture
        self.suites = suites
        self.point = origin  # 12.15
        self.date = max(s.date for s in suites)
        self._places: dict[str, list[tuple[Suite, int]]] = {}
        self._provided: dict[str, list[tuple[Suite, int]]] | None = None
        for suite in suites:
            for m in _NAME.finditer(suite.text):
                self._places.setdefault(m[1], []).append((suite, m.start()))

    @property
    def version(self) -> str:
        return VERSIONS.get(self.release, self.release)

    def package(self, name: str) -> Package | None:
        """The newest package of that name, or None."""
        found = [_package(suite, at) for suite, at in self._places.get(name, ())]
        return max(found, key=lambda p: debian_version.key(p.version), default=None)

    def providers(self, name: str) -> tuple[Package, ...]:
        """The packages that provide a virtual name."""
        if self._provided is None:
            self._provided = {}
            for suite in self.suites:
                for m in _PROVIDES.finditer(suite.text):
                    for group in control.relations(m[1]):
                        self._provided.setdefault(group[0].name, []).append((suite, _start(suite.text, m.start())))
        names = {_package(suite, at).name for suite, at in self._provided.get(name, ())}
        return tuple(p for n in sorted(names) if (p := self.package(n)) is not None)

    def base(self) -> tuple[str, ...]:
        """Names of the packages that are essential or of priority required."""
        main = self.suites[0]
        names = set()
        for m in _WANTED.finditer(main.text):
            names.add(_package(main, _start(main.text, m.start())).name)
        return tuple(sorted(names))


def open_archive(
    release: str, architecture: str, fetcher: Fetcher, *, apt: AptSettings, emit: Emit, environ: Mapping[str, str]
) -> Archive:
    """Fetch and check the indexes of a release. ImageError says which mirrors were tried and why each failed."""
    source = _Source(architecture, fetcher, _keys(environ), apt.check_valid_until)
    tried: list[tuple[str, str]] = []
    main: Suite | None = None
    point = ""
    mirror = ""
    for mirror in apt.mirrors:
        try:
            main, point = _suite(release, mirror, source)
            break
        except Unreachable as e:
            tried.append((mirror, e.why))
    if main is None:
        raise ImageError(
            f"no Debian mirror answers for {release}: no stand-in can be made",
            details=tuple(("tried", f"{m}: {why}") for m, why in tried),
            hint="name a mirror that can be reached: KAP_DEBIAN_MIRROR=http://mirror.example/debian",
        )
    suites = [main]
    for name, mirrors in ((f"{release}-updates", (mirror,)), (f"{release}-security", apt.security)):
        why = "no mirror is known"
        for place in mirrors:
            try:
                suites.append(_suite(name, place, source)[0])
                break
            except Unreachable as e:
                why = f"{place}: {e.why}"
        else:
            emit(Notice(f"stand-ins: {name} can't be had ({why}); going on without it", once=f"standins-{name}"))
    return Archive(release, architecture, tuple(suites), point)


def wanted(package: Package) -> Wanted:
    return Wanted((package.url,), package.sha256, package.size, f"{package.name} {package.version}")


class _Source(NamedTuple):
    """How the suites of one release are read."""

    architecture: str
    fetcher: Fetcher
    keys: tuple[openpgp.Key, ...]
    check_valid_until: bool


def _suite(name: str, mirror: str, source: _Source) -> tuple[Suite, str]:
    base = f"{mirror}/dists/{name}"
    document = source.fetcher.read(f"{base}/InRelease", limit=8 << 20)
    try:
        text, _ = openpgp.signed_text(document, source.keys)
    except openpgp.SignatureError as e:
        raise ImageError(
            f"the package index of {name} at {mirror} can't be trusted: {e}",
            why="it must be signed by a key of Debian's archive",
            hint="name another mirror with KAP_DEBIAN_MIRROR, or further keys with KAP_DEBIAN_KEYRING=FILE",
            code="KAP504",
        ) from e
    fields = control.stanza(text.decode("utf-8", "replace"))
    if name not in (fields.get("Codename", ""), fields.get("Suite", "")) and not fields.get("Codename", "").endswith(
        name
    ):
        raise ImageError(
            f"{base}/InRelease is the index of {fields.get('Codename') or 'another suite'}, not of {name}",
            hint="name another mirror with KAP_DEBIAN_MIRROR",
            code="KAP504",
        )
    date = _seconds(fields.get("Date", ""))
    until = _seconds(fields.get("Valid-Until", ""))
    if until and until < time.time() and source.check_valid_until:
        raise Unreachable(base, f"its index is out of date (valid until {fields['Valid-Until']})")
    rows = {
        row[2]: (row[0], int(row[1])) for line in fields.get("SHA256", "").split("\n") if len(row := line.split()) == 3
    }
    path = f"main/binary-{source.architecture}/Packages.xz"
    if path not in rows:
        raise Unreachable(base, f"it has no packages for {source.architecture}")
    sha256, size = rows[path]
    urls = [f"{base}/{path}"]
    if fields.get("Acquire-By-Hash", "") == "yes":
        urls.insert(0, f"{base}/main/binary-{source.architecture}/by-hash/SHA256/{sha256}")
    (where,) = source.fetcher.get(
        [Wanted(tuple(urls), sha256, size, f"the package list of {name}")], f"package list {name}"
    )
    with lzma.open(where, "rt", encoding="utf-8") as f:
        packages = f.read()
    return Suite(name, mirror, packages, date), fields.get("Version", "")


def _keys(environ: Mapping[str, str]) -> tuple[openpgp.Key, ...]:
    data = resources.files("kapelle.images.standins").joinpath("data/debian-keys.asc").read_bytes()
    keys = openpgp.read_keys(data)
    path = environ.get("KAP_DEBIAN_KEYRING", "")
    if path:
        try:
            with open(os.path.expanduser(path), "rb") as f:
                keys += openpgp.read_keys(f.read())
        except (OSError, openpgp.SignatureError, IndexError) as e:
            raise ImageError(
                f"KAP_DEBIAN_KEYRING={path} can't be read as a keyring: {e}", hint="give a file made by gpg --export"
            ) from e
    return keys


def _start(text: str, at: int) -> int:
    """Where the stanza begins that `at` is in."""
    blank = text.rfind("\n\n", 0, at)
    return blank + 2 if blank >= 0 else 0


def _package(suite: Suite, at: int) -> Package:
    end = suite.text.find("\n\n", at)
    fields = control.stanza(suite.text[at : end if end >= 0 else len(suite.text)])
    provides = tuple(g[0] for g in control.relations(fields.get("Provides", "")))
    depends = control.relations(fields.get("Pre-Depends", "")) + control.relations(fields.get("Depends", ""))
    return Package(
        fields["Package"], fields["Version"], fields["Architecture"], f"{suite.mirror}/{fields['Filename']}",
        int(fields["Size"]), fields["SHA256"], depends, provides, fields.get("Priority", "optional"),
        fields.get("Essential") == "yes",
    )  # fmt: skip


def _seconds(text: str) -> float:
    try:
        return parsedate_to_datetime(text).timestamp() if text else 0.0
    except ValueError:
        return 0.0
