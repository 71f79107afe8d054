"""When checks ran → how many came late. Pure."""

from __future__ import annotations

import itertools


def told(beats: list[list[float]], began: float, ended: float, longest: float) -> tuple[int, int, int]:
    """Checks that were late, done, and due between two times, where two are at most `longest` apart.

    One that never came counts as late, as often as it was due.
    """
    late = done = due = 0
    for times in beats:
        came = [t for t in times if began <= t < ended]
        last = max((t for t in times if t < began), default=began)
        gaps = [int((after - before) / longest) for before, after in itertools.pairwise([last, *came, ended])]
        missing = sum(max(gap - 1, 0) for gap in gaps[:-1]) + gaps[-1]
        late += sum(gaps)
        done += len(came)
        due += len(came) + missing
    return late, done, due
