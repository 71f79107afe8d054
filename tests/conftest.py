"""One check for the whole session: nothing of ours may be left behind."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests import checks


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    """Processes, links, firewall tables and mounts of ours that the tests have made and not removed."""
    before = checks.all_of_ours()
    yield
    deadline = time.monotonic() + 10
    while checks.all_of_ours() - before and time.monotonic() < deadline:
        time.sleep(0.1)
    left = checks.all_of_ours() - before
    assert not left, "left behind: " + "; ".join(sorted(left))
