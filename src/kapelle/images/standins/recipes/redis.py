"""redis: Debian's server with the official image's entrypoint, user, volume and open default configuration."""

from __future__ import annotations

from kapelle.images.standins import versions
from kapelle.images.standins.kitchen import Kitchen, Made
from kapelle.images.standins.recipes.debian import PATH

NAMES = ("redis",)
_HAVE = {"7.0": "bookworm", "8.0": "trixie"}


def variant(tag: str) -> str:
    return versions.nearest(tag, tuple(_HAVE))


def release(chosen: str) -> str:
    return _HAVE[chosen]


def asked(tag: str) -> str:
    return versions.unmet(tag, variant(tag))


def build(kitchen: Kitchen, chosen: str) -> Made:
    tree = kitchen.tree
    kitchen.install(["redis-server"])
    kitchen.group("redis", 999)
    kitchen.user("redis", 999, 999, "/data")
    tree.directory("data", 0o755, 999, 999)
    for path in ("var/lib/redis", "var/log/redis"):
        tree.directory(path, 0o750, 999, 999)
    for name in ("redis.conf",):
        tree.remove(f"etc/redis/{name}")  # the official image has none: the server's defaults count
    kitchen.script("usr/local/bin/docker-entrypoint.sh", "redis-entrypoint.sh")
    # the official build has protected mode off: a container's port is open to its network only
    tree.write(
        "usr/local/bin/redis-server",
        "#!/bin/sh\n# the official image's server has protected mode off unless it is told otherwise\n"
        'for word in "$@"; do\n\tcase "$word" in\n\t--protected-mode | --version | -v | --help | -h | --test-memory | '
        '--check-system | *.conf | -) exec /usr/bin/redis-server "$@" ;;\n\tesac\ndone\n'
        'exec /usr/bin/redis-server "$@" --protected-mode no\n',
        0o755,
    )
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
    return Made(config, f"Redis {version}")
