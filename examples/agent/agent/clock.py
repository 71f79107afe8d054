"""The time, in UTC or in a place named as the time zone database names it."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

_ZONE = re.compile(r"\b(?:in|for|at)\s+([A-Za-z][\w/+-]*(?: [A-Z][\w+-]*)*)")


def find_zone(sentence: str) -> str:
    """The place asked for: "what time is it in New York?" → "New York"; "" if none is named."""
    found = _ZONE.search(sentence)
    return found.group(1) if found else ""


def tell(place: str, now: datetime) -> str:
    """`now` (with its zone) as a sentence's end. Raises LookupError for a place that is not known."""
    if not place or place.upper() in ("UTC", "GMT"):
        return f"{now.astimezone(UTC):%A, %d %B %Y, %H:%M:%S} UTC"
    zone = zone_of(place)
    return f"{now.astimezone(ZoneInfo(zone)):%A, %d %B %Y, %H:%M:%S} in {zone}"


def zone_of(place: str) -> str:
    """The zone's full name: "new york" → "America/New_York". Raises LookupError."""
    wanted = place.strip().replace(" ", "_").lower()
    try:
        zones = sorted(available_timezones())
    except (OSError, ZoneInfoNotFoundError):
        zones = []
    for zone in zones:
        if zone.lower() == wanted or zone.lower().rsplit("/", 1)[-1] == wanted:
            return zone
    raise LookupError(place)
