"""Logs are bounded by size, whatever is written: what is kept is whole, in order, and of the end."""

from __future__ import annotations

import os
from pathlib import Path

from tests.checks import wait_until
from tests.scenarios.conftest import Kap
from tests.scenarios.test_kills import kill

KEPT = "logging: {options: {max-size: 64k, max-file: '3'}}"


def log(kap: Kap, service: str) -> Path:
    for file in kap.home.glob(f"state/projects/{kap.folder.name}/containers/*/container.json"):
        if f'"service":"{service}"' in file.read_text():
            return file.parent / "log"
    raise AssertionError(f"no container of {service}")


def size(folder: Path) -> int:
    return sum(f.stat().st_size for f in folder.iterdir() if f.name.isdigit())


def service(script: str) -> str:
    return f'image: busybox, command: [sh, -c, "{script.replace("$", "$$")}"], stop_grace_period: 0s, {KEPT}'


def test_a_flood_of_three_is_kept_in_bounds_and_holds_nobody_up(kap: Kap) -> None:
    flood = "yes 0123456789abcdef0123456789abcdef | nl | head -600000; echo end"
    rows = "".join(f"  s{n}: {{{service(flood)}}}\n" for n in range(3))
    checked = "  web: {image: busybox, command: sleep 1000, healthcheck: {test: 'true', interval: 1s}}\n"
    kap.file(f"services:\n{rows}{checked}")
    kap.ok("up", "-d", "--wait", "web")
    kap.ok("up", "-d")

    def ended() -> bool:
        rows = kap.ps()
        assert rows[f"{kap.folder.name}-web-1"]["Health"] == "healthy"
        return all(rows[f"{kap.folder.name}-s{n}-1"]["State"] == "exited" for n in range(3))

    wait_until(ended, 60)
    for n in range(3):
        assert size(log(kap, f"s{n}")) <= 3 * 64 << 10
        lines = kap.ok("logs", "--no-log-prefix", f"s{n}").out.splitlines()
        assert lines[-1] == "end"
        numbers = [int(line.split()[0]) for line in lines[:-1]]
        assert numbers == list(range(600_001 - len(numbers), 600_001))
        assert len(numbers) > 1000


def test_a_line_longer_than_the_log_leaves_its_end_and_what_follows_it(kap: Kap) -> None:
    long = "head -c 1000000 /dev/zero; echo; echo after; printf 'no end'"
    kap.file(f"services:\n  a: {{{service(long)}}}\n")
    kap.ok("up")
    assert size(log(kap, "a")) <= 3 * 64 << 10
    told = kap.ok("logs", "--no-log-prefix", "a").out.splitlines()
    assert told[-2:] == ["after", "no end"]
    assert set(told[-3]) == {"\0"}


def test_bytes_that_are_no_text_are_kept_as_they_are(kap: Kap) -> None:
    kap.file(f"services:\n  a: {{{service('head -c 100000 /bin/busybox; echo; echo end')}}}\n")
    kap.ok("up", "-d")
    wait_until(lambda: kap.state(f"{kap.folder.name}-a-1") == "exited")
    file = kap.folder / "out"
    os.system(f"cd {kap.folder} && {_shell(kap)} logs --no-log-prefix a > {file}")
    data = file.read_bytes()
    kap.ok("run", "--rm", "-T", "-v", f"{kap.folder}:/here", "a", "cp", "/bin/busybox", "/here/original")
    assert data == (kap.folder / "original").read_bytes()[:100_000] + b"\nend\n"


def _shell(kap: Kap) -> str:
    given = [
        f"{k}={kap.environment[k]}"
        for k in ("KAP_HOME", "KAP_STAND_INS", "PYTHONPATH", "KAP_RUNG")
        if k in kap.environment
    ]
    return " ".join(["env", *given, *kap.command])


def test_kills_while_segments_change_lose_and_double_no_line_that_is_kept(kap: Kap) -> None:
    kap.file(f"services:\n  a: {{{service('sleep 0.5; seq 1 300000; echo end; sleep 1000')}}}\n")
    kap.ok("up", "-d")
    folder = log(kap, "a")
    seen = set()
    while len(seen) < 5:  # at five different segments
        newest = max((int(f.name) for f in folder.iterdir() if f.name.isdigit()), default=0) if folder.exists() else 0
        if newest in seen or newest < 2:
            continue
        seen.add(newest)
        kill(kap, "kap-supervisor")
    wait_until(lambda: "end" in kap.ok("logs", "--no-log-prefix", "--tail", "1", "a").out)
    numbers = [int(n) for n in kap.ok("logs", "--no-log-prefix", "a").out.split()[:-1]]
    assert numbers == list(range(300_001 - len(numbers), 300_001))
    assert size(folder) <= 3 * 64 << 10
