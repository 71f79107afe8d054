"""mariadb: Debian's server with the official image's user, volume, entrypoint and healthcheck.sh.

The client's socket is the built-in one (no file names it), so that scripts of the set-up are led to another by
MYSQL_UNIX_PORT. Names and addresses are not looked up, and the server listens to its network.
"""

from __future__ import annotations

from kapelle.images.standins import versions
from kapelle.images.standins.kitchen import Kitchen, Made
from kapelle.images.standins.recipes.debian import PATH

NAMES = ("mariadb",)
BASE = True
_HAVE = {"11.8": "trixie", "10.11": "bookworm"}
OFFERS = tuple((version, f"Debian {release}") for version, release in _HAVE.items())
_USER = 999
_TOP = "# the image's own settings; yours go to /etc/mysql/conf.d or mariadb.conf.d\n[client-server]\n"
_CNF = _TOP + "!includedir /etc/mysql/conf.d/\n!includedir /etc/mysql/mariadb.conf.d/\n"
_SERVER = "[mariadb]\nuser=mysql\nhost-cache-size=0\nskip-name-resolve\n"


def variants(tag: str) -> tuple[str, ...]:
    return (versions.nearest(tag, tuple(_HAVE)),)


def release(chosen: str) -> str:
    return _HAVE[chosen]


def build(kitchen: Kitchen, chosen: str) -> Made:
    tree = kitchen.tree
    kitchen.install(["mariadb-server", "mariadb-backup", "pwgen", "tzdata", "xz-utils", "zstd"])
    version = kitchen.version("mariadb-server")
    kitchen.user("mysql", _USER, _USER, "/var/lib/mysql", shell="/bin/sh")
    for name in ("50-server.cnf", "50-mysqld_safe.cnf"):
        tree.remove(f"etc/mysql/mariadb.conf.d/{name}")
    tree.write("etc/mysql/mariadb.cnf", _CNF)
    tree.link("etc/mysql/my.cnf", "mariadb.cnf")
    tree.write("etc/mysql/mariadb.conf.d/05-image.cnf", _SERVER)
    tree.directory("etc/mysql/conf.d")
    tree.directory("var/lib/mysql", 0o777, _USER, _USER)
    tree.directory("run/mysqld", 0o1777, _USER, _USER)
    tree.directory("docker-entrypoint-initdb.d")
    kitchen.script("usr/local/bin/docker-entrypoint.sh", "mariadb-entrypoint.sh")
    kitchen.script("usr/local/bin/healthcheck.sh", "mariadb-healthcheck.sh")
    tree.link("docker-entrypoint.sh", "usr/local/bin/docker-entrypoint.sh")
    config = {
        "Env": [PATH, "LANG=C.UTF-8", f"MARIADB_VERSION={version}"],
        "Entrypoint": ["docker-entrypoint.sh"],
        "Cmd": ["mariadbd"],
        "Volumes": {"/var/lib/mysql": {}},
        "ExposedPorts": {"3306/tcp": {}},
    }
    return Made(config, "MariaDB", version)
