"""Rung R3: one id has to do. Who a service runs as when its image would begin as root and change to another user.

The program is started as that user from the beginning: the one id is mapped to the user's, so that it owns every file
of the image. Pure but for reading the entry point's text from the image's layers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from kapelle.light import Any

# Official images whose entry point starts as root only to own its folders and drop to this user (their documentation
# allows `user:`, or the program runs well without root). By the last part of the image's name.
USERS: Mapping[str, str] = {
    "postgres": "postgres", "postgis": "postgres", "pgvector": "postgres", "timescaledb": "postgres",
    "redis": "redis", "redis-stack-server": "redis", "valkey": "valkey", "keydb": "keydb",
    "nginx": "nginx", "mysql": "mysql", "mariadb": "mysql", "percona": "mysql", "mongo": "mongodb",
    "rabbitmq": "rabbitmq", "memcached": "memcache", "cassandra": "cassandra", "couchdb": "couchdb",
    "haproxy": "haproxy", "httpd": "www-data", "influxdb": "influxdb", "telegraf": "telegraf",
}  # fmt: skip

# What an entry point says when it gives up root for the program: gosu and su-exec take USER or USER:GROUP first.
_DROP = r"""\b(?:gosu|su-exec)\s+["']?([a-z_][a-z0-9_-]*)|\bsetpriv\s[^\n]*--reuid[= ]["']?([a-z_][a-z0-9_-]*)"""
_LONGEST = 1 << 16


def users(reference: str, wanted: str, args: list[str], read: Callable[[str], str]) -> list[str]:
    """The users to try, first one first, for a service whose user is `wanted`; [] to start as asked.

    `args` is the whole command line, `read` gives the text of a file of the image, "" for none.
    """
    if wanted.partition(":")[0] not in ("", "0", "root"):
        return []
    name = reference.partition("@")[0].rpartition("/")[2].partition(":")[0]
    found = [USERS[name]] if name in USERS else []
    return list(dict.fromkeys([*found, *_dropped_to(args, read)]))


def _dropped_to(args: list[str], read: Callable[[str], str]) -> list[str]:
    program = args[0] if args else ""
    if program in ("gosu", "su-exec") and len(args) > 1:
        return [args[1].partition(":")[0]]
    places = [program] if program.startswith("/") else [f"{d}/{program}" for d in ("/usr/local/bin", "/usr/bin", "")]
    for place in places:
        text = read(place)[:_LONGEST]
        if text.startswith("#!"):
            import re  # not for images that begin with no script

            return [a or b for a, b in re.findall(_DROP, text)][:1]
    return []


def prepare(intent: Mapping[str, Any], read: Callable[[str], str]) -> list[str]:
    """`users` for a container's intent."""
    launch = intent["launch"]
    return users(str(intent["image"]), str(launch["user"]), list(launch["args"]), read)
