"""Life of containers from start to end: conditions that fail, restarts, stops, hooks, reasons to be replaced."""

from __future__ import annotations

import re
import time

import pytest

from tests.scenarios.conftest import Kap

pytestmark = pytest.mark.root

IDLE = "image: busybox, command: [sleep, '1000'], init: true"


def elapsed(text: str) -> float:
    """How long the container of a message ran, in seconds."""
    found = re.search(r"after ([0-9.]+) s", text)
    assert found, text
    return float(found.group(1))


def dying(condition: str, script: str) -> str:
    return (
        f"services:\n  db:\n    image: busybox\n    command: [sh, -c, '{script}']\n"
        "    healthcheck: {test: 'false', interval: 30s, start_period: 60s}\n"
        "  web:\n    image: busybox\n    command: [sleep, '1000']\n    depends_on:\n"
        f"      db: {{condition: {condition}}}\n"
    )


@pytest.mark.parametrize("words", [("up",), ("up", "-d"), ("up", "--wait"), ("run", "--rm", "web", "true")])
@pytest.mark.parametrize("condition", ["service_healthy", "service_completed_successfully"])
def test_a_dependency_that_ends_fails_its_dependent_at_once(kap: Kap, words: tuple[str, ...], condition: str) -> None:
    kap.file(dying(condition, "echo wrong ownership; sleep 1; exit 3"))
    began = time.monotonic()
    done = kap(*words, timeout=30)
    took = time.monotonic() - began
    assert done.code == 1
    assert took < 1 + 1 + 3, "that is the second it runs, the second allowed and time for kap itself"
    for said in (
        "exit 3 after 1",
        f"web -> db (condition: {condition})",
        "wrong ownership",
        "compose.yaml:10:",
        "KAP301",
    ):
        assert said in done.err, (said, done)
    assert "restart: no" in done.err


@pytest.mark.parametrize("verb", ["start", "restart"])
def test_start_and_restart_fail_for_a_dependency_too_and_name_the_place(kap: Kap, verb: str) -> None:
    kap.file(dying("service_healthy", "echo wrong ownership; sleep 1; exit 3"))
    kap.ok("create")
    done = kap(verb, timeout=30)
    assert done.code == 1
    for said in ("exited (3)", "web -> db", "wrong ownership", "compose.yaml:10:"):
        assert said in done.err, (said, done)
    assert kap.state(f"{kap.folder.name}-web-1") == "created"


@pytest.mark.parametrize("test", ["[CMD, pg_isready, -U, app]", "pg_isready -U app", "pg_isready || exit 1"])
def test_a_probe_whose_program_is_missing_is_told_with_the_probe_that_needs_none(kap: Kap, test: str) -> None:
    kap.file(
        "services:\n  db:\n    image: busybox\n    command: [httpd, -f, -p, '5432']\n"
        f"    healthcheck: {{test: {test}, interval: 200ms, retries: 2}}\n"
        f"  web: {{{IDLE}, depends_on: {{db: {{condition: service_healthy}}}}}}\n"
    )
    done = kap("up", "-d", timeout=30)
    assert done.code == 1
    for said in ("KAP302", "2 of 2 probes", "pg_isready", "not in image 'busybox'", "listens on 5432",
                 "x-kap-probe: {tcp: 5432}"):  # fmt: skip
        assert said in done.err, (said, done)
    # what the hint says mends it
    kap.file(
        "services:\n  db:\n    image: busybox\n    command: [httpd, -f, -p, '5432']\n    x-kap-probe: {tcp: 5432}\n"
        f"  web: {{{IDLE}, depends_on: {{db: {{condition: service_healthy}}}}}}\n"
    )
    kap.ok("up", "-d", timeout=30)


def test_an_unhealthy_dependency_is_told_with_its_last_probe(kap: Kap) -> None:
    kap.file(
        "services:\n  db:\n    image: busybox\n    command: [sh, -c, 'echo up; sleep 1000']\n"
        "    healthcheck: {test: 'echo no answer; exit 7', interval: 200ms, retries: 2}\n"
        f"  web: {{{IDLE}, depends_on: {{db: {{condition: service_healthy}}}}}}\n"
    )
    done = kap("up", "-d", timeout=30)
    assert done.code == 1
    for said in ("KAP302", "echo no answer; exit 7", "exit 7: no answer", "last lines  up", "web -> db"):
        assert said in done.err, (said, done)
    assert "x-kap-probe" not in done.err
