"""The recipes: official image name → module of this package. A new recipe is a module and a row here.

alpine has none on purpose: its libc and apk can't be made from Debian packages, and a build over it would break in
ways that are hard to understand. Only tags such as redis:7-alpine get a Debian one, and are told so.
"""

from __future__ import annotations

RECIPES = {
    "busybox": "busybox",
    "debian": "debian",
    "mariadb": "mariadb",
    "memcached": "memcached",
    "nginx": "nginx",
    "node": "node",
    "postgres": "postgres",
    "python": "python",
    "rabbitmq": "rabbitmq",
    "redis": "redis",
}
