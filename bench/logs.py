"""`up` in the foreground with many lines, `logs` reading them back, `logs -f` from line to eye."""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import time
from pathlib import Path

from files import PROBE, PYTHON_IMAGE
from sides import Run, Tool

_FILE = "services:\n  a: {image: %s, command: %s, stop_grace_period: 1s}\n"


def measured(run: Run, lines: int) -> None:
    """`lines` of 100 bytes."""
    run.each([t for t in run.tools if t.user is None], lambda tool: _one(run, tool, lines))


def _one(run: Run, tool: Tool, lines: int) -> None:
    with run.project(tool, "lines", _FILE % (PYTHON_IMAGE, json.dumps([*PROBE, "lines", str(lines)]))) as place:
        run.note("up in the foreground, lines", tool, lines / 1e4 / tool.run(place, "up"))
        run.note("logs read back", tool, lines / 1e4 / tool.run(place, "logs"))
    with run.project(tool, "ticks", _FILE % (PYTHON_IMAGE, json.dumps([*PROBE, "ticks", "1000", "0.02"]))) as place:
        tool.run(place, "up", "-d")
        run.note("logs -f, line to eye", tool, _line_to_eye(tool, place))


def _line_to_eye(tool: Tool, place: Path) -> float:
    """Milliseconds, the median of a hundred lines after the first twenty."""
    words = [*tool.compose, "logs", "-f", "--tail", "0"]
    with subprocess.Popen(
        words, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, **tool.spawning()
    ) as follower:
        assert follower.stdout is not None
        times = []
        for line in follower.stdout:
            found = re.search(r"tick (\d+)", line)
            if found:
                times.append((time.time_ns() - int(found[1])) / 1e6)
            if len(times) == 120:
                break
        follower.terminate()
    return statistics.median(times[20:])
