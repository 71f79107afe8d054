"""What recipes have made, kept by key: standins/KIND/KEY.json."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping

from kapelle.images.store import Store
from kapelle.light import Any


def remembered(store: Store, kind: str, key: str) -> dict[str, Any] | None:
    """What was kept under a key by an earlier run, or None."""
    try:
        with open(f"{store.root}/standins/{kind}/{key}.json", encoding="utf-8") as f:
            found: dict[str, Any] = json.load(f)
            return found
    except (FileNotFoundError, ValueError):
        return None


def remember(store: Store, kind: str, key: str, record: Mapping[str, Any]) -> None:
    directory = f"{store.root}/standins/{kind}"
    os.makedirs(directory, 0o700, exist_ok=True)
    temporary = f"{directory}/.{key}.{os.getpid()}"
    with open(temporary, "w", encoding="utf-8") as f:
        json.dump(dict(record), f)
    os.rename(temporary, f"{directory}/{key}.json")
