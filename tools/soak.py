"""Let a project run for a while, and see that nothing of ours grows: memory, descriptors, disk, processes.

    python tools/soak.py [--minutes 30] [--services 50] [--kap "kap"] [--image busybox] [--home FOLDER]

Every service has a health check each five seconds and writes ten lines a second. Prints a row every half minute, and
at the end what grew between the first and the last third. Exit code 1 when something did.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

PAUSE = 30.0  # seconds between rows


class Row(NamedTuple):
    seconds: float
    memory: float  # MiB, PSS of our processes
    descriptors: int
    processes: int
    disk: float  # MiB below the project's state
    unhealthy: int


# the most that the median of the last third may lie above that of the first: a share of it, and an amount.
# (A look may meet a check that is just being forked, with all our descriptors in it.)
ALLOWED = {"memory": (0.05, 1.0), "descriptors": (0.0, 4), "processes": (0.0, 0.5)}


def compose(services: int, image: str) -> str:
    script = "i=0; while :; do i=$$((i+1)); echo line $$i of a soak that goes on; sleep 0.1; done"
    rows = ["services:"]
    for number in range(services):
        rows += [
            f"  s{number}:",
            f"    image: {image}",
            f"    command: [sh, -c, '{script}']",
            "    healthcheck: {test: 'true', interval: 5s}",
            "    logging: {options: {max-size: 200k, max-file: '3'}}",
            "    stop_grace_period: 0s",
        ]
    return "\n".join(rows) + "\n"


def ours(mark: bytes) -> list[int]:
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            if b"keeper_start" in (text := Path(f"/proc/{entry}/cmdline").read_bytes()) and mark in text:
                found.append(int(entry))
        except OSError:
            continue
    return found


def look(began: float, mark: bytes, home: Path, command: list[str], folder: Path, environ: dict[str, str]) -> Row:
    memory, descriptors = 0, 0
    pids = ours(mark)
    for pid in pids:
        try:
            found = re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
            memory += int(found[1]) if found else 0
            descriptors += len(os.listdir(f"/proc/{pid}/fd"))
        except OSError:
            continue
    disk = sum(f.stat().st_size for f in home.rglob("projects/*/containers/*/log/*") if f.is_file())
    told = subprocess.check_output([*command, "ps", "--format", "json"], cwd=folder, env=environ, text=True)
    unhealthy = sum(json.loads(line)["Health"] != "healthy" for line in told.splitlines())
    return Row(time.monotonic() - began, memory / 1024, descriptors, len(pids), disk / (1 << 20), unhealthy)


def verdict(rows: list[Row]) -> list[str]:
    third = max(1, len(rows) // 3)
    grown = []
    for name, (share, amount) in ALLOWED.items():
        first, last = (median(getattr(r, name) for r in part) for part in (rows[:third], rows[-third:]))
        if last > first * (1 + share) + amount:
            grown.append(f"{name} grew from {first:.1f} to {last:.1f}")
    return grown


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--services", type=int, default=50)
    parser.add_argument("--kap", default=f"{sys.executable} -m kapelle")
    parser.add_argument("--image", default="busybox")
    parser.add_argument("--home", default="", help="KAP_HOME, if images are to be found there already")
    options = parser.parse_args()
    command = shlex.split(options.kap)
    with tempfile.TemporaryDirectory(prefix="kap-soak-") as name:
        folder = Path(name) / "soak"
        folder.mkdir()
        home = Path(options.home or f"{name}/home")
        environ = {**os.environ, "KAP_HOME": str(home), "KAP_STAND_INS": "1"}
        (folder / "compose.yaml").write_text(compose(options.services, options.image))
        subprocess.run([*command, "up", "-d", "--wait"], cwd=folder, env=environ, check=True)
        began = time.monotonic()
        rows: list[Row] = []
        mark = f'"project":"{folder.name}"'.encode()
        print("seconds  memory MiB  descriptors  processes  log MiB  not healthy")
        try:
            while time.monotonic() < began + options.minutes * 60:
                time.sleep(PAUSE)
                rows.append(row := look(began, mark, home, command, folder, environ))
                print(
                    f"{row.seconds:7.0f}  {row.memory:10.1f}  {row.descriptors:11}  {row.processes:9}  "
                    f"{row.disk:7.1f}  {row.unhealthy:11}",
                    flush=True,
                )
        finally:
            subprocess.run([*command, "down", "-t", "0"], cwd=folder, env=environ, check=False)
    grown = verdict(rows[1:])
    print("\n".join(grown) or "nothing grew")
    return bool(grown or max(r.unhealthy for r in rows[1:]))


if __name__ == "__main__":
    sys.exit(main())
