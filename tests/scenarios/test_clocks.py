"""The machine's clock is set forward and back by a day: nothing that waits, counts or orders may notice."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.checks import wait_until
from tests.scenarios.conftest import ROOT, Kap

DAY = 86_400
CLOCK = """
import time

_time, _time_ns = time.time, time.time_ns


def _set() -> int:
    try:
        with open({file!r}) as f:
            return int(f.read() or 0)
    except OSError:
        return 0


time.time = lambda: _time() + _set()
time.time_ns = lambda: _time_ns() + _set() * 10**9
"""


class Clock:
    """Moves the wall clock of a copy of the package, for all its processes."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "offset"
        shutil.copytree(ROOT / "src" / "kapelle", folder / "copy" / "kapelle")
        with open(folder / "copy" / "kapelle" / "__init__.py", "a") as f:
            f.write(CLOCK.format(file=str(self.file)))
        (folder / "copy" / "kap.py").write_text("import sys\n\nfrom kapelle.cli.main import main\n\nsys.exit(main())\n")
        self.command = [sys.executable, str(folder / "copy" / "kap.py")]

    def set(self, seconds: int) -> None:
        self.file.write_text(str(seconds))


@pytest.fixture
def clock(kap: Kap, tmp_path: Path) -> Iterator[Clock]:
    made = Clock(tmp_path)
    kap.command = made.command
    yield made
    made.set(0)


COUNTING = "i=0; while :; do i=$$((i+1)); echo $$i; sleep 0.05; done"


def test_a_clock_that_is_set_moves_no_health_check_restart_line_or_age(kap: Kap, clock: Clock) -> None:
    kap.file(
        "services:\n"
        f'  counting: {{image: busybox, command: [sh, -c, "{COUNTING}"], stop_grace_period: 0s,'
        " healthcheck: {test: 'true', interval: 1s, retries: 1}}\n"
        "  failing: {image: busybox, command: 'false', restart: always}\n"
    )
    clock.set(0)
    kap.ok("up", "-d", "--wait", "counting")
    kap.ok("up", "-d")
    project = kap.folder.name

    def lines() -> list[str]:
        return kap.ok("logs", "--no-log-prefix", "counting").out.split()

    for offset in (DAY, -DAY, 0):
        clock.set(offset)
        before = len(lines())
        began = time.monotonic()
        wait_until(lambda: len(lines()) > before + 20)  # noqa: B023
        while time.monotonic() < began + 1.5:  # one more health check has come by
            row = kap.ps()[f"{project}-counting-1"]
            assert (row["State"], row["Health"]) == ("running", "healthy")
            assert "-" not in row["Status"] + row["RunningFor"]
        assert lines()[:before] == [str(n + 1) for n in range(before)]
    told = lines()
    assert told == [str(n + 1) for n in range(len(told))]
    recent = kap.ok("logs", "--no-log-prefix", "--since", "1s", "counting").out.split()
    assert recent == sorted(recent, key=int), "those of tomorrow are later than a second ago, too"
    assert int(recent[-1]) >= int(told[-1])
    restarts = kap.ok("inspect", "--format", "{{.RestartCount}}", f"{project}-failing-1").out
    assert int(restarts) < 9, "each failure doubles the pause: a jump of the clock must not make it anew"
