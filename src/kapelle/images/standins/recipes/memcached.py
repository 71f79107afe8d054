"""memcached: Debian's server alone (the package's Perl tools are left out), as the official image's user."""

from __future__ import annotations

from kapelle.images.standins import debian_version, versions
from kapelle.images.standins.kitchen import Kitchen, Made
from kapelle.images.standins.recipes.debian import PATH

NAMES = ("memcached",)
BASE = True
_HAVE = {"1.6.18": "bookworm", "1.6.38": "trixie"}
OFFERS = tuple((version, f"Debian {release}") for version, release in _HAVE.items())
_KEPT = ("/usr/bin/memcached", "/usr/share/doc/memcached/copyright")
_USER = 11211


def variants(tag: str) -> tuple[str, ...]:
    return (versions.nearest(tag if versions.of(tag) else "1.6.18", tuple(_HAVE)),)


def release(chosen: str) -> str:
    return _HAVE[chosen]


def build(kitchen: Kitchen, chosen: str) -> Made:
    tree = kitchen.tree
    kitchen.install(["libevent-2.1-7", "libsasl2-2", "libssl3"])
    version = debian_version.upstream(kitchen.extract("memcached", lambda name: name if name in _KEPT else None))
    kitchen.user("memcache", _USER, _USER, "/nonexistent")
    tree.link("usr/local/bin/memcached", "/usr/bin/memcached")
    kitchen.script("usr/local/bin/docker-entrypoint.sh", "memcached-entrypoint.sh")
    tree.link("entrypoint.sh", "usr/local/bin/docker-entrypoint.sh")
    config = {
        "Env": [PATH, f"MEMCACHED_VERSION={version}"],
        "Entrypoint": ["docker-entrypoint.sh"],
        "Cmd": ["memcached"],
        "User": "memcache",
        "ExposedPorts": {"11211/tcp": {}},
    }
    return Made(config, "memcached", version)
