"""The recipes: official image name → module of this package. A new recipe is a module and a row here."""

from __future__ import annotations

RECIPES = {
    "busybox": "busybox",
    "debian": "debian",
    "nginx": "nginx",
    "postgres": "postgres",
    "python": "python",
    "redis": "redis",
}
