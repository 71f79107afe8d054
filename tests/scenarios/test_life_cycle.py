"""Life of containers from start to end: conditions that fail, restarts, stops, hooks, reasons to be replaced."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pytest

from tests.checks import wait_until
from tests.scenarios.conftest import Kap
from tests.scenarios.test_kills import kill

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


# ---- restarts ---------------------------------------------------------------------------------------


def runs(kap: Kap, service: str) -> list[float]:
    """When each run of a service began, from lines of output that hold the time since boot."""
    return [float(line) for line in kap.ok("logs", "--no-log-prefix", service).out.split()]


CLOCK = "read up _ < /proc/uptime; echo $$up"


def test_restarts_follow_the_policys_delay_attempts_and_window(kap: Kap) -> None:
    kap.file(
        f"services:\n  fixed:\n    image: busybox\n    command: [sh, -c, '{CLOCK}; exit 3']\n"
        "    deploy: {restart_policy: {condition: on-failure, delay: 1s, max_attempts: 2}}\n"
        f"  growing:\n    image: busybox\n    command: [sh, -c, '{CLOCK}; exit 4']\n    restart: on-failure:4\n"
        f"  forgiven:\n    image: busybox\n    command: [sh, -c, '{CLOCK}; sleep 0.4; exit 1']\n"
        "    deploy: {restart_policy: {condition: any, delay: 0s, max_attempts: 1, window: 300ms}}\n"
        f"  good:\n    image: busybox\n    command: [sh, -c, '{CLOCK}; exit 0']\n    restart: on-failure\n"
    )
    told = kap.ok("up", "-d").err
    assert "not honoured" not in told
    wait_until(lambda: len(runs(kap, "fixed")) >= 3 and kap.state(f"{kap.folder.name}-fixed-1") == "exited", 30)
    wait_until(lambda: len(runs(kap, "growing")) >= 5 and kap.state(f"{kap.folder.name}-growing-1") == "exited", 30)
    began = runs(kap, "fixed")
    assert len(began) == 3
    assert all(b - a >= 0.9 for a, b in pairwise(began)), "not before the delay has passed"
    began = runs(kap, "growing")
    assert len(began) == 5
    assert began[4] - began[3] > began[1] - began[0] + 0.5, "0.1, 0.2, 0.4, 0.8 seconds"
    assert len(runs(kap, "good")) == 1
    wait_until(lambda: len(runs(kap, "forgiven")) > 3, 20)
    row = kap.ps()[f"{kap.folder.name}-growing-1"]
    assert (row["State"], row["ExitCode"]) == ("exited", 4)


def test_a_container_between_two_runs_is_restarting_with_its_exit_code_and_can_be_stopped(kap: Kap) -> None:
    kap.file(
        "services:\n  a:\n    image: busybox\n    command: [sh, -c, 'exit 5']\n"
        "    deploy: {restart_policy: {condition: any, delay: 1h}}\n"
    )
    kap.ok("up", "-d")
    name = f"{kap.folder.name}-a-1"
    wait_until(lambda: kap.state(name) == "restarting")
    assert kap.ps()[name]["Status"].startswith("Restarting (5) ")
    kap.ok("stop", "-t", "0")
    assert kap.state(name) == "exited"
    kap.ok("start")
    wait_until(lambda: kap.state(name) == "restarting")


@pytest.mark.parametrize("victims", [("kap-supervisor",), ("kap-keeper",)])
@pytest.mark.parametrize("policy", ["always", "unless-stopped"])
def test_restarts_and_their_count_outlive_our_processes(kap: Kap, victims: tuple[str, ...], policy: str) -> None:
    kap.file(
        f"services:\n  a:\n    image: busybox\n    command: [sh, -c, '{CLOCK}; exit 1']\n    restart: {policy}\n"
        f"  b:\n    image: busybox\n    command: [sh, -c, '{CLOCK}; exit 1']\n    restart: on-failure:4\n"
    )
    kap.ok("up", "-d")
    wait_until(lambda: len(runs(kap, "a")) >= 3)
    kill(kap, *victims)
    before = len(runs(kap, "a"))
    wait_until(lambda: len(runs(kap, "a")) > before, 20)
    wait_until(lambda: len(runs(kap, "b")) >= 5 and kap.state(f"{kap.folder.name}-b-1") == "exited", 30)
    assert len(runs(kap, "b")) == 5, "four restarts, whoever counted them"


def test_what_was_stopped_or_killed_by_hand_stays_down(kap: Kap) -> None:
    kap.file(f"services:\n  a: {{{IDLE}, restart: always}}\n  b: {{{IDLE}, restart: unless-stopped}}\n")
    kap.ok("up", "-d")
    kap.ok("stop", "-t", "0", "a")
    kap.ok("kill", "b")
    kill(kap, "kap-supervisor", "kap-keeper")
    assert [row["State"] for row in kap.ps().values()] == ["exited", "exited"]


# ---- after a reboot ---------------------------------------------------------------------------------


def reboot(kap: Kap) -> None:
    """All processes are gone at once, the runtime folder is empty, the kernel has another boot id."""

    rounds = 0
    while rounds < 5:  # each of the two starts the other again, under changing names: all must be seen gone
        rounds = 0 if kill_all_of_ours(kap) else rounds + 1
        time.sleep(0.02)
    pids = [json.loads(f.read_text())["pid"] for f in statuses(kap)]
    for pid in filter(None, pids):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids if pid))
    for file in statuses(kap):
        file.write_text(json.dumps({**json.loads(file.read_text()), "boot": "another"}))
    shutil.rmtree(kap.home / "run")
    for place in Path("/dev/shm").glob(f"kapelle-*/projects/{kap.folder.name}"):
        shutil.rmtree(place)


def kill_all_of_ours(kap: Kap) -> bool:
    """Kill our processes of this project, whatever they are called now; True when there was one."""
    found = False
    for entry in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            command = Path(f"/proc/{entry}/cmdline").read_bytes()
            if all(text in command for text in (b"keeper_start", str(kap.home).encode(), kap.folder.name.encode())):
                os.kill(int(entry), signal.SIGKILL)
                found = True
    return found


def statuses(kap: Kap) -> list[Path]:
    return list(kap.home.glob(f"state/projects/{kap.folder.name}/containers/*/status.json"))


def test_after_a_reboot_all_is_exited_and_start_or_up_bring_it_back(kap: Kap) -> None:
    kap.file(
        f"services:\n  a: {{{IDLE}, restart: always, ports: ['8000'], configs: [c], secrets: [s]}}\n"
        "configs: {c: {content: hello}}\nsecrets: {s: {environment: TOKEN}}\n"
    )
    kap.ok("up", "-d", TOKEN="t1")
    reboot(kap)
    name = f"{kap.folder.name}-a-1"
    row = kap.ps()[name]
    assert (row["State"], row["ExitCode"]) == ("exited", 137)
    assert row["Status"].startswith("Exited (137)")
    assert kap.ok("ps", "--format", "json").out == ""
    refused = kap("start")
    assert "gone since the reboot" in refused.err
    assert "kap up -d a" in refused.err
    kap.ok("up", "-d", TOKEN="t1")
    assert kap.state(name) == "running"
    assert kap.ok("exec", "-T", "a", "cat", "/c", "/run/secrets/s").out == "hellot1"


def test_autostart_brings_back_what_ran_and_what_is_to_come_back(kap: Kap) -> None:
    kap.file(
        "services:\n"
        f"  always: {{{IDLE}, restart: always}}\n  unless: {{{IDLE}, restart: unless-stopped}}\n"
        f"  stopped: {{{IDLE}, restart: always}}\n  plain: {{{IDLE}}}\n"
        "  ended: {image: busybox, command: 'true', restart: on-failure}\n"
    )
    kap.ok("up", "-d")
    kap.ok("stop", "-t", "0", "stopped")
    told = kap("autostart", "status").out
    name = kap.folder.name
    assert f"comes back at boot: {name}-always-1, {name}-unless-1\n" in told

    def up() -> list[str]:
        return sorted(row["Service"] for row in kap.ps().values() if row["State"] == "running")

    reboot(kap)
    kap.ok("autostart", "boot")
    assert up() == ["always", "unless"]
    # a shutdown in good order stops them, and they come back all the same
    kap.ok("autostart", "halt")
    assert up() == []
    reboot(kap)
    kap.ok("autostart", "boot")
    assert up() == ["always", "unless"]
    kap.ok("stop", "-t", "0")
    kap.ok("autostart", "boot")
    assert up() == []


def test_one_that_fails_at_boot_keeps_no_other_from_coming_back(kap: Kap) -> None:
    (kap.folder / "given").write_text("")
    kap.file(
        f"services:\n  a: {{{IDLE}, restart: always, volumes: ['./given:/given']}}\n  b: {{{IDLE}, restart: always}}\n"
    )
    kap.ok("up", "-d")
    reboot(kap)
    (kap.folder / "given").unlink()
    done = kap("autostart", "boot")
    assert done.code == 1
    assert "a-1 could not be started" in done.err
    assert kap.state(f"{kap.folder.name}-b-1") == "running"


def test_autostart_prints_a_unit_that_systemd_takes_and_says_so_where_there_is_none(kap: Kap) -> None:
    kap.file(f"services:\n  a: {{{IDLE}}}\n")
    text = kap.ok("autostart", "install", "--print").out
    assert f"Environment=KAP_HOME={kap.home}\n" in text
    assert f"-p {kap.folder.name} autostart boot\n" in text
    assert "WantedBy=multi-user.target\n" in text
    if shutil.which("systemd-analyze"):
        unit = kap.folder / "kapelle-test.service"
        unit.write_text(text)
        checked = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
        assert "kapelle-test" not in checked.stderr, checked.stderr
    if not os.path.isdir("/run/systemd/system"):
        done = kap("autostart", "install")
        assert done.code == 1
        assert "systemd does not run here" in done.err
        assert f"KAP_HOME={kap.home} " in done.err
        assert kap.ok("autostart", "remove").out == "not installed\n"


# ---- stops -------------------------------------------------------------------------------------------


def timed(kap: Kap, *words: str, **environment: str) -> tuple[float, str]:
    began = time.monotonic()
    told = kap.ok(*words, **environment).err
    return time.monotonic() - began, told


def test_a_first_process_that_can_not_hear_the_signal_is_killed_at_once_and_named_once(kap: Kap) -> None:
    kap.file(
        "services:\n  a: {image: busybox, command: [sleep, '1000']}\n  b: {image: busybox, command: [sleep, '1000']}\n"
    )
    name = f"{kap.folder.name}-a-1"
    (kap.home / "state" / "projects" / kap.folder.name / "told-deaf").unlink(missing_ok=True)  # of an earlier session
    kap.ok("up", "-d")
    took, told = timed(kap, "stop")
    assert took < 4
    assert told.count("was killed at once") == 1
    assert re.search("^note: .*was killed at once", told, re.MULTILINE)
    assert "init: true" in told
    assert kap.ps()[name]["ExitCode"] == 137
    kap.ok("start")
    assert "killed at once" not in timed(kap, "stop")[1]
    # Docker waits for what can't come
    kap.ok("start")
    took, told = timed(kap, "stop", "-t", "2", KAP_COMPAT="strict")
    assert took >= 2
    assert "did not stop within 2 s after SIGTERM" in told
    # and the cure works
    kap.file("services:\n  a: {image: busybox, command: [sleep, '1000'], init: true}\n")
    kap.ok("up", "-d", "-t", "0")
    took, told = timed(kap, "stop")
    assert took < 4
    assert "killed" not in told
    assert kap.ps()[name]["ExitCode"] == 143


@pytest.mark.parametrize("how", ["ignored", "caught"])
def test_a_first_process_that_handles_the_signal_has_its_grace_period(kap: Kap, how: str) -> None:
    script = {
        "ignored": 'trap "" TERM; while :; do sleep 0.1; done',
        "caught": 'trap "sleep 1; exit 9" TERM; while :; do sleep 0.1; done',
    }[how]
    kap.file(f"services:\n  a:\n    image: busybox\n    command: [sh, -c, '{script}']\n    stop_grace_period: 1500ms\n")
    kap.ok("up", "-d")
    took, told = timed(kap, "stop")
    row = kap.ps()[f"{kap.folder.name}-a-1"]
    if how == "caught":
        assert (row["ExitCode"], "did not stop" in told) == (9, False)
    else:
        assert took >= 1.5
        assert row["ExitCode"] == 137
        assert "a-1 did not stop within 1.5 s after SIGTERM and was killed" in told
    kap.ok("start")
    took, told = timed(kap, "stop", "-t", "0")
    assert "did not stop" not in told


def test_the_stop_signal_is_the_files_and_an_unknown_one_is_refused_before_anything_starts(kap: Kap) -> None:
    script = "trap 'exit 11' USR1; trap 'exit 12' RTMIN+2; while :; do sleep 0.05; done"
    kap.file(f'services:\n  a: {{image: busybox, command: [sh, -c, "{script}"], stop_signal: SIGUSR1}}\n')
    kap.ok("up", "-d")
    kap.ok("stop")
    assert kap.ps()[f"{kap.folder.name}-a-1"]["ExitCode"] == 11
    kap.file("services:\n  a:\n    image: busybox\n    stop_signal: SIGNONE\n")
    done = kap("up", "-d")
    assert done.code == 1
    assert "compose.yaml:4:5" in done.err
    assert "invalid signal: SIGNONE" in done.err


def test_init_passes_signals_on_reaps_orphans_and_shows_nothing_of_the_host(kap: Kap) -> None:
    script = "trap 'exit 7' HUP; for i in 1 2 3; do (sleep 0.2 &); done; echo ready; while :; do sleep 0.05; done"
    kap.file(
        f'services:\n  a:\n    image: busybox\n    init: true\n    command: [sh, -c, "{script}"]\n'
        "    stop_signal: SIGHUP\n    x-kap-probe: {log: ready}\n"
    )
    kap.ok("up", "-d", "--wait")
    seen = "cat /proc/[0-9]*/status | grep -c '^State:.Z' || true"
    wait_until(lambda: kap.ok("exec", "-T", "a", "sh", "-c", seen).out.strip() == "0")
    told = kap.ok("exec", "-T", "a", "cat", "/proc/1/cmdline").out
    assert told.strip("\0") == "init"
    kap.ok("stop")
    assert kap.ps()[f"{kap.folder.name}-a-1"]["ExitCode"] == 7


# ---- hooks -------------------------------------------------------------------------------------------


def test_hooks_run_in_order_with_their_user_folder_and_variables(kap: Kap) -> None:
    kap.file(
        "services:\n  a:\n    image: busybox\n    user: '1000'\n    init: true\n    command: [sleep, '1000']\n"
        "    volumes: ['./out:/out']\n    environment: {OWN: own}\n    post_start:\n"
        '      - {command: [sh, -c, "echo first $$(id -u) $$(pwd) $$OWN $$V >> /out/seen"], user: root,'
        " working_dir: /bin, environment: {V: v}}\n"
        '      - {command: [sh, -c, "grep CapEff /proc/self/status >> /out/seen"], user: root, privileged: true}\n'
        '      - command: [sh, -c, "echo third $$(id -u) >> /out/seen"]\n'
        "    pre_stop:\n      - command: [sh, -c, 'echo stopping >> /out/seen']\n        user: root\n"
    )
    (kap.folder / "out").mkdir()
    (kap.folder / "out").chmod(0o777)
    seen = kap.folder / "out" / "seen"
    seen.write_text("")
    seen.chmod(0o666)

    def lines() -> list[str]:
        found = seen.read_text().splitlines()
        seen.write_text("")
        return found

    kap.ok("up", "-d")
    first, caps, third = lines()
    assert first == "first 0 /bin own v"
    assert int(caps.split()[1], 16) & 1 << 21, "CAP_SYS_ADMIN"
    assert third == "third 1000"
    kap.ok("restart")
    assert lines()[:2] == ["stopping", "first 0 /bin own v"]
    kap.ok("up", "-d", "--force-recreate")
    assert lines()[:2] == ["stopping", "first 0 /bin own v"]
    kap.ok("kill")
    assert lines() == [], "an end of its own (or a kill) runs no hook"
    kap.ok("start")
    lines()
    kap.ok("stop")
    assert lines() == ["stopping"]
    kap.ok("start")
    lines()
    kap.ok("down")
    assert lines() == ["stopping"]


def test_a_post_start_hook_that_fails_fails_up_with_its_place_and_output(kap: Kap) -> None:
    kap.file(
        "services:\n  a:\n    image: busybox\n    init: true\n    command: [sleep, '1000']\n    post_start:\n"
        "      - command: [sh, -c, 'echo cannot; exit 5']\n"
    )
    done = kap("up", "-d")
    assert done.code == 1
    for said in ("post_start hook exited with status 5", "compose.yaml:7:", "cannot"):
        assert said in done.out + done.err, (said, done)


# ---- waiting -----------------------------------------------------------------------------------------


def test_up_wait_takes_a_job_that_ended_well_as_done_and_one_that_did_not_as_failed(kap: Kap) -> None:
    text = (
        f"services:\n  web: {{{IDLE}, x-kap-probe: {{file: /ready}}, post_start: [{{command: [sh, -c, "
        "'(sleep 1; touch /ready) &']}]}\n"
        "  job: {image: busybox, command: [sh, -c, 'sleep 0.2; exit CODE']}\n"
    )
    kap.file(text.replace("CODE", "0"))
    kap.ok("up", "--wait", timeout=30)
    assert kap.ps()[f"{kap.folder.name}-job-1"]["ExitCode"] == 0
    strict = kap("up", "--wait", "--force-recreate", "-t", "0", timeout=30, KAP_COMPAT="strict")
    assert strict.code == 1
    assert "exited (0)" in strict.err
    kap.ok("down", "-t", "0")
    kap.file(text.replace("CODE", "6"))
    done = kap("up", "--wait", timeout=30)
    assert done.code == 1
    assert "exited (6)" in done.err


# ---- reasons to be replaced --------------------------------------------------------------------------


def ids(kap: Kap) -> dict[str, str]:
    return {row["Service"]: row["ID"] for row in kap.ps().values()}


BASE = """services:
  a:
    image: busybox
    init: true
    command: [sleep, '1000']
    env_file: own.env
    environment: {LEVEL: low}
    configs: [c]
    secrets: [s, t]
    volumes: [/data]
configs: {c: {file: ./c.txt}}
secrets: {s: {file: ./s.txt}, t: {environment: TOKEN}}
"""

REORDERED = """# another order, other notes
secrets: {t: {environment: TOKEN}, s: {file: ./s.txt}}
configs: {c: {file: ./c.txt}}
x-notes: [for people]
services:
  a:
    x-owner: anna
    deploy: {replicas: 1, labels: {for: swarm}}
    scale: 1
    environment: [LEVEL=low]
    secrets: [s, t]
    configs: [c]
    volumes: [/data]
    command: ['sleep', "1000"]
    env_file: [own.env]
    init: yes
    image: busybox
"""


def test_a_container_is_replaced_when_its_meaning_changed_and_the_plan_says_by_what(kap: Kap) -> None:
    for name in ("c.txt", "s.txt"):
        kap.file("one", name)
    kap.file("OWN=1", "own.env")
    kap.file(BASE)
    kap.ok("up", "-d", "-t", "0", TOKEN="one")
    before = ids(kap)
    kap.file(REORDERED.replace("init: yes", "init: true"))
    os.utime(kap.folder / "c.txt")
    kap.ok("up", "-d", "-t", "0", TOKEN="one")
    assert ids(kap) == before

    def because(said: str, token: str = "one") -> None:
        plan = kap.ok("plan", TOKEN=token).out
        assert f"recreate {kap.folder.name}-a-1: {said}\n" in plan, plan
        was = ids(kap)
        kap.ok("up", "-d", "-t", "0", TOKEN=token)
        assert ids(kap) != was
        assert kap.ok("plan", TOKEN=token).out.startswith("unchanged:")

    kap.file("two", "c.txt")
    because("the content of configs.c changed")
    kap.file("two", "s.txt")
    because("the content of secrets.s changed")
    because("the content of secrets.t changed", "two")
    kap.file("OWN=2", "own.env")
    because("environment.OWN changed, the content of secrets.t changed")
    kap.file(BASE.replace("LEVEL: low", "LEVEL: high"))
    because("environment.LEVEL changed")
    kap.file(
        BASE.replace("LEVEL: low", "LEVEL: high").replace(
            "    init", "    deploy: {resources: {limits: {pids: 50}}}\n    init"
        )
    )
    because("deploy.resources added")


def test_a_rebuilt_image_replaces_its_container_and_a_cached_one_does_not(kap: Kap) -> None:
    kap.file("FROM busybox\nCOPY text /text\n", "Dockerfile")
    kap.file("one", "text")
    kap.file("services:\n  a: {build: ., init: true, command: [sleep, '1000']}\n")
    kap.ok("up", "-d", "--build")
    before = ids(kap)
    kap.ok("up", "-d", "--build")
    assert ids(kap) == before
    kap.file("two", "text")
    told = kap.ok("up", "-d", "--build", "-t", "0").err
    assert "Recreated" in told
    assert ids(kap) != before


def test_flags_decide_what_is_replaced(kap: Kap) -> None:
    kap.file(
        f"services:\n  db: {{{IDLE}, volumes: [/data]}}\n  web: {{{IDLE}, depends_on: {{db: {{condition: "
        "service_started, restart: true}}}\n"
    )
    fast = ("-d", "-t", "0")
    kap.ok("up", *fast)
    kap.ok("exec", "-T", "db", "touch", "/data/kept")
    first = ids(kap)
    kap.ok("up", *fast, "--force-recreate", "web")
    second = ids(kap)
    assert (second["db"], second["web"] != first["web"]) == (first["db"], True)
    kap.ok("up", *fast, "--always-recreate-deps", "web")
    third = ids(kap)
    assert third["db"] != second["db"]
    assert kap("exec", "-T", "db", "ls", "/data/kept").code == 0, "anonymous volumes go along"
    kap.ok("up", *fast, "--force-recreate", "--renew-anon-volumes", "db")
    assert kap("exec", "-T", "db", "ls", "/data/kept").code != 0
    changed = (kap.folder / "compose.yaml").read_text().replace("db: {image", "db: {stop_signal: SIGINT, image")
    kap.file(changed)
    before = ids(kap)
    kap.ok("up", *fast, "--no-recreate")
    assert ids(kap) == before
    kap.ok("up", *fast, "--no-deps", "web")
    assert ids(kap) == before
    began = began_at(kap, "web")
    kap.ok("up", *fast)
    assert ids(kap)["db"] != before["db"]
    assert ids(kap)["web"] == before["web"]
    assert began_at(kap, "web") > began, "restart: true"


def began_at(kap: Kap, service: str) -> float:
    found = [json.loads(f.read_text()) for f in statuses(kap)]
    return max(s["started"] for s in found if any(service in row[5] for row in s["networks"]))


def test_an_orphan_is_told_then_removed(kap: Kap) -> None:
    kap.file(f"services:\n  a: {{{IDLE}}}\n  old: {{{IDLE}}}\n")
    kap.ok("up", "-d")
    kap.file(f"services:\n  a: {{{IDLE}}}\n")
    assert "orphan" in kap.ok("up", "-d").err
    assert set(ids(kap)) == {"a", "old"}
    kap.ok("up", "-d", "--remove-orphans", "-t", "0")
    assert set(ids(kap)) == {"a"}


def test_a_dependency_that_is_not_required_may_fail_with_a_notice(kap: Kap) -> None:
    kap.file(
        "services:\n  db: {image: busybox, command: [sh, -c, 'exit 1'], healthcheck: {test: 'true'}}\n"
        f"  web: {{{IDLE}, depends_on: {{db: {{condition: service_healthy, required: false}}}}}}\n"
    )
    told = kap.ok("up", "-d", timeout=30).err
    assert "optional dependency 'db' failed" in told
    assert kap.state(f"{kap.folder.name}-web-1") == "running"


def test_a_program_that_is_over_in_no_time_ends_its_container_also_behind_an_init(kap: Kap) -> None:
    """Its end may come before the init listens for it: all of many end."""
    kap.file("services:\n  job: {image: busybox, command: 'true', init: true, scale: 30}\n")
    for _ in range(3):
        kap.ok("up", "-d")
        wait_until(lambda: {row["State"] for row in kap.ps().values()} == {"exited"}, what="one of them did not end")
