"""Few open files: root's own limit is raised, an ordinary user is told before anything is made."""

from __future__ import annotations

import os
import resource
import subprocess
import sys

import pytest

from tests.scenarios.conftest import Kap


def with_limit(kap: Kap, soft: int, hard: int) -> None:
    """Commands are run with this limit of open files from now on."""
    script = f'ulimit -Sn {soft}; ulimit -Hn {hard}; exec "$@"'
    kap.command = ["bash", "-c", script, "kap", *kap.command]


def services(count: int) -> str:
    row = "{{image: busybox, command: [sh, -c, 'ulimit -n; ulimit -Hn; exec sleep 1000'], stop_grace_period: 0s}}"
    return "services:\n" + "".join(f"  s{n}: {row}\n".replace("{{", "{").replace("}}", "}") for n in range(count))


def test_a_low_soft_limit_is_no_limit_of_ours_and_stays_the_containers_own(kap: Kap) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    plain = list(kap.command)
    with_limit(kap, 64, hard)
    kap.file(services(12))
    kap.ok("up", "-d")
    assert kap.ok("logs", "--no-log-prefix", "s3").out.split() == ["64", str(hard)]
    assert kap.ok("exec", "-T", "s3", "sh", "-c", "ulimit -n").out.split() == ["64"]
    kap.command = plain


def may_raise() -> bool:
    """May this user set a higher hard limit (CAP_SYS_RESOURCE)?"""
    try:
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        script = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({hard}, {hard + 1}))"
        subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
    except subprocess.CalledProcessError:
        return False
    return os.geteuid() == 0


def test_root_goes_beyond_a_low_hard_limit_and_containers_do_not(kap: Kap) -> None:
    if not may_raise():
        pytest.skip("this user can't")
    plain = list(kap.command)
    with_limit(kap, 64, 128)
    kap.file(services(25))
    kap.ok("up", "-d")
    assert kap.ok("logs", "--no-log-prefix", "s3").out.split() == ["64", "128"]
    kap.command = plain


def test_who_may_not_raise_it_is_told_which_limit_before_anything_is_made(kap: Kap) -> None:
    if may_raise():
        pytest.skip("root raises it")
    plain = list(kap.command)
    with_limit(kap, 128, 256)
    kap.file(services(50))
    done = kap("up", "-d")
    kap.command = plain
    assert done.code == 1
    assert "50 containers need about" in done.err
    assert "the limit here is 256" in done.err
    assert "hard nofile" in done.err
    assert kap.ps() == {}
