"""How quickly bytes come, and how long the rest takes; for a layer, an image, or all that is on its way."""

from __future__ import annotations

from collections.abc import Iterable

from kapelle.render.words import size

_SAMPLE = 0.5  # seconds between two looks at how much has come
_SAMPLES = 12  # looks that the pace is taken from


class Pace:
    __slots__ = ("_seen",)

    def __init__(self) -> None:
        self._seen: list[tuple[float, int]] = []  # moments with the bytes that had come by then

    def told(self, now: int, total: int, moment: float) -> str:
        """Bytes a second of the last moments, and the time left: " 12.3MB/s, 8s left"; "" while it can't be told."""
        if not self._seen or moment - self._seen[-1][0] >= _SAMPLE:
            self._seen = [*self._seen[-_SAMPLES:], (moment, now)]
        first, bytes_then = self._seen[0]
        gone = moment - first
        if gone < _SAMPLE or now <= bytes_then:
            return ""
        rate = (now - bytes_then) / gone
        left = (total - now) / rate if total > now else 0.0
        return f" {size(rate)}/s" + (f", {clock(left)} left" if left else "")


class Layer:
    """One layer of an image on its way."""

    __slots__ = ("current", "pace", "state", "text", "total")

    def __init__(self) -> None:
        self.current = 0
        self.total = 0
        self.text = ""
        self.state = "working"
        self.pace = Pace()

    @property
    def moves(self) -> bool:
        """Are bytes of it on their way?"""
        return self.state == "working" and 0 < self.current <= self.total

    def amount(self, moment: float) -> str:
        return amount(self.current, self.total) + self.pace.told(self.current, self.total, moment)


def amount(now: int, total: int) -> str:
    return f"{size(now)}/{size(total)}" if total else size(now)


def sums(layers: Iterable[Layer]) -> tuple[int, int]:
    """Bytes that have come, and of all."""
    now = total = 0
    for layer in layers:
        now += layer.current
        total += layer.total
    return now, total


def clock(seconds: float) -> str:
    """A length of time in a progress line: 8s, 2m05s, 1h02m."""
    whole = int(seconds + 0.5)
    if whole < 60:
        return f"{max(whole, 1)}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
