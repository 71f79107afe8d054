"""`x-kap-map-user` of a service: whose the files are that it writes into bind mounts."""

from __future__ import annotations

import re
from collections.abc import Callable

from kapelle.compose.tree import Map
from kapelle.light import Any

KEY = "x-kap-map-user"
_IDS = re.compile(r"\d{1,9}(:\d{1,9})?")


def read(service: Map, wrong: Callable[[str, Any, str], None]) -> str:
    """ "" (the service's own, the default), "caller", "UID" or "UID:GID"; what is wrong `wrong` hears."""
    value = service.get(KEY)
    if value is None or value == "service":
        return ""
    text = str(value)
    if text == "caller" or (not isinstance(value, (bool, float)) and _IDS.fullmatch(text)):
        return text
    wrong(f"{KEY}: {text[:80]!r} is none of service, caller, UID and UID:GID", service.at.get(KEY), f"{KEY}: caller")
    return ""
