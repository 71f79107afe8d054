"""rabbitmq: Debian's broker with the official image's paths, user, ports and entrypoint.

Tags that end in -management have that plug-in on, as the official ones; all have rabbitmq_prometheus. Erlang is
Debian's, without its graphical and compiler parts.
"""

from __future__ import annotations

from kapelle.errors import ImageError
from kapelle.images.standins import versions
from kapelle.images.standins.kitchen import Kitchen, Made

NAMES = ("rabbitmq",)
BASE = True
_HAVE = {"4.0": "trixie", "3.10": "bookworm"}
OFFERS = tuple((version, f"Debian {release}") for version, release in _HAVE.items())
_USER = 999
_PORTS = ("4369", "5671", "5672", "15691", "15692", "25672")
_DEFAULTS = """\
## defaults of the image: any user may log in from anywhere, logs go to the console
loopback_users.guest = false
log.console = true
"""
_NO_FIGURES = """\
## without the management plug-in nobody reads these figures
management_agent.disable_metrics_collector = true
"""


def variants(tag: str) -> tuple[str, ...]:
    """ "3-management-alpine" → ("3.10_management",)."""
    chosen = versions.nearest(tag, tuple(_HAVE))
    return (f"{chosen}_management" if "management" in tag.lower().split("-") else chosen,)


def release(chosen: str) -> str:
    return _HAVE[chosen.partition("_")[0]]


def build(kitchen: Kitchen, chosen: str) -> Made:
    tree = kitchen.tree
    kitchen.install(["rabbitmq-server", "ca-certificates"])
    kitchen.certificates()
    version = kitchen.version("rabbitmq-server")
    home = next((n for n in tree.names("usr/lib/rabbitmq/lib") if n.startswith("rabbitmq_server-")), "")
    if not home:
        raise ImageError(f"the parts of RabbitMQ {version} are not laid out as expected", why="it has no server folder")
    kitchen.user("rabbitmq", _USER, _USER, "/var/lib/rabbitmq", shell="/bin/bash")
    tree.link("opt/rabbitmq", f"/usr/lib/rabbitmq/lib/{home}")
    tree.link("plugins", "/opt/rabbitmq/plugins")
    for path, mode in (("var/lib/rabbitmq", 0o777), ("var/lib/rabbitmq/mnesia", 0o777), ("var/log/rabbitmq", 0o777),
                       ("etc/rabbitmq", 0o777), ("etc/rabbitmq/conf.d", 0o777)):  # fmt: skip
        tree.directory(path, mode, _USER, _USER)
    management = chosen.endswith("_management")
    plugins = ["rabbitmq_prometheus", *(["rabbitmq_management"] if management else [])]
    tree.write("etc/rabbitmq/enabled_plugins", f"[{','.join(plugins)}].\n", 0o644, _USER, _USER)
    tree.write("etc/rabbitmq/conf.d/10-defaults.conf", _DEFAULTS, 0o644, _USER, _USER)
    if not management:
        name = "20-management_agent.disable_metrics_collector.conf"
        tree.write(f"etc/rabbitmq/conf.d/{name}", _NO_FIGURES, 0o644, _USER, _USER)
    tree.remove("etc/default/rabbitmq-server")
    if tree.exists("usr/bin/rabbitmqadmin"):
        tree.link("usr/local/bin/rabbitmqadmin", "/usr/bin/rabbitmqadmin")
    kitchen.script("usr/local/bin/docker-entrypoint.sh", "rabbitmq-entrypoint.sh")
    config = {
        "Env": [
            "PATH=/opt/rabbitmq/sbin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "RABBITMQ_DATA_DIR=/var/lib/rabbitmq", f"RABBITMQ_VERSION={version}", "RABBITMQ_HOME=/opt/rabbitmq",
            "HOME=/var/lib/rabbitmq", "LANG=C.UTF-8", "LANGUAGE=C.UTF-8", "LC_ALL=C.UTF-8",
        ],
        "Entrypoint": ["docker-entrypoint.sh"],
        "Cmd": ["rabbitmq-server"],
        "Volumes": {"/var/lib/rabbitmq": {}},
        "ExposedPorts": {f"{p}/tcp": {} for p in (*_PORTS, *(("15671", "15672") if management else ()))},
    }  # fmt: skip
    return Made(config, "RabbitMQ", version)
