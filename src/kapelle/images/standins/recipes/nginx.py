"""nginx: Debian's server with the official image's layout: conf.d, templates, entrypoint scripts, logs on stdout."""

from __future__ import annotations

from kapelle.images.standins import versions
from kapelle.images.standins.kitchen import Kitchen, Made
from kapelle.images.standins.recipes.debian import PATH

NAMES = ("nginx",)
BASE = True
_HAVE = {"1.22": "bookworm", "1.26": "trixie"}
OFFERS = tuple((version, f"Debian {release}") for version, release in _HAVE.items())


def variants(tag: str) -> tuple[str, ...]:
    return (versions.nearest(tag, tuple(_HAVE)),)


def release(chosen: str) -> str:
    return _HAVE[chosen]


def build(kitchen: Kitchen, chosen: str) -> Made:
    tree = kitchen.tree
    kitchen.install(["nginx", "gettext-base", "curl", "ca-certificates"])
    kitchen.certificates()
    kitchen.user("nginx", 101, 101, "/nonexistent", shell="/bin/false")
    for name in ("sites-enabled", "sites-available", "snippets", "modules-enabled", "modules-available"):
        for entry in tree.names(f"etc/nginx/{name}"):
            tree.remove(f"etc/nginx/{name}/{entry}")
    tree.write("etc/nginx/nginx.conf", kitchen.data("nginx.conf"))
    tree.write("etc/nginx/conf.d/default.conf", kitchen.data("nginx-default.conf"))
    tree.write("usr/share/nginx/default.conf.image", kitchen.data("nginx-default.conf"))
    tree.write("usr/share/nginx/html/index.html", kitchen.data("nginx-index.html"))
    tree.write("usr/share/nginx/html/50x.html", kitchen.data("nginx-50x.html"))
    tree.link("var/log/nginx/access.log", "/dev/stdout")
    tree.link("var/log/nginx/error.log", "/dev/stderr")
    for path in ("var/lib/nginx", "var/cache/nginx"):
        tree.directory(path)
    for name in ("body", "fastcgi", "proxy", "scgi", "uwsgi"):
        tree.directory(f"var/lib/nginx/{name}", 0o700, 101, 101)
    kitchen.script("docker-entrypoint.sh", "nginx-entrypoint.sh")
    kitchen.script("docker-entrypoint.d/10-listen-on-ipv6-by-default.sh", "nginx-ipv6.sh")
    kitchen.script("docker-entrypoint.d/15-local-resolvers.envsh", "nginx-resolvers.envsh")
    kitchen.script("docker-entrypoint.d/20-envsubst-on-templates.sh", "nginx-templates.sh")
    kitchen.script("docker-entrypoint.d/30-tune-worker-processes.sh", "nginx-workers.sh")
    version = kitchen.version("nginx")
    config = {
        "Env": [PATH, f"NGINX_VERSION={version}"],
        "Entrypoint": ["/docker-entrypoint.sh"],
        "Cmd": ["nginx", "-g", "daemon off;"],
        "ExposedPorts": {"80/tcp": {}},
        "StopSignal": "SIGQUIT",
    }
    return Made(config, "nginx", version)
