"""redis: Debian's server with the official image's entrypoint, user, volume and open default configuration."""

from __future__ import annotations

from kapelle.images.standins import versions
from kapelle.images.standins.kitchen import Kitchen, Made
from kapelle.images.standins.recipes.debian import PATH

NAMES = ("redis",)
BASE = True
_HAVE = {"7.0": "bookworm", "8.0": "trixie"}
OFFERS = tuple((version, f"Debian {release}") for version, release in _HAVE.items())


def variants(tag: str) -> tuple[str, ...]:
    return (versions.nearest(tag, tuple(_HAVE)),)


def release(chosen: str) -> str:
    return _HAVE[chosen]


def build(kitchen: Kitchen, chosen: str) -> Made:
    tree = kitchen.tree
    kitchen.install(["redis-server"])
    kitchen.user("redis", 999, 999, "/data")
    tree.directory("data", 0o755, 999, 999)
    for path in ("var/lib/redis", "var/log/redis"):
        tree.directory(path, 0o750, 999, 999)
    tree.remove("etc/redis/redis.conf")  # the official image has none: the server's defaults count
    kitchen.script("usr/local/bin/docker-entrypoint.sh", "redis-entrypoint.sh")
    kitchen.script("usr/local/bin/redis-server", "redis-server.sh")
    for name in ("redis-cli", "redis-benchmark", "redis-check-aof", "redis-check-rdb", "redis-sentinel"):
        if tree.exists(f"usr/bin/{name}"):
            tree.link(f"usr/local/bin/{name}", f"/usr/bin/{name}")
    version = kitchen.version("redis-server")
    config = {
        "Env": [PATH, f"REDIS_VERSION={version}"],
        "Entrypoint": ["docker-entrypoint.sh"],
        "Cmd": ["redis-server"],
        "WorkingDir": "/data",
        "Volumes": {"/data": {}},
        "ExposedPorts": {"6379/tcp": {}},
    }
    return Made(config, "Redis", version)
