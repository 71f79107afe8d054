"""What a day with compose asks for, over a small image. Each name is a sentence about what the user gets."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from tests.checks import wait_until
from tests.scenarios.conftest import Kap, answers, free_port

SLEEPER = "services:\n  web:\n    image: busybox\n    command: sleep 1000\n"


def test_a_second_up_changes_nothing(kap: Kap) -> None:
    kap.file(SLEEPER)
    kap.ok("up", "-d")
    before = {n: r["ID"] for n, r in kap.ps().items()}
    kap.ok("up", "-d")
    assert {n: r["ID"] for n, r in kap.ps().items()} == before


def test_a_changed_variable_recreates_the_container_and_the_plan_says_why(kap: Kap) -> None:
    kap.file(SLEEPER + "    environment: {COLOUR: red}\n")
    kap.ok("up", "-d")
    kap.file(SLEEPER + "    environment: {COLOUR: blue}\n")
    assert "environment.COLOUR" in kap.ok("--dry-run", "up", "-d").out + kap.ok("--dry-run", "up", "-d").err
    kap.ok("up", "-d")
    assert kap.ok("exec", "-T", "web", "sh", "-c", "echo $COLOUR").out == "blue\n"


def test_scale_goes_up_and_down_with_the_highest_number_first(kap: Kap) -> None:
    kap.file(SLEEPER)
    kap.ok("up", "-d", "--scale", "web=3")
    assert len(kap.ps()) == 3
    kap.ok("up", "-d", "--scale", "web=1")
    assert [name[-2:] for name in kap.ps()] == ["-1"]


def test_run_passes_the_programs_output_and_code_on_and_leaves_nothing(kap: Kap) -> None:
    kap.file(SLEEPER)
    done = kap("run", "--rm", "-T", "web", "sh", "-c", "echo hello; exit 7")
    assert (done.code, done.out) == (7, "hello\n")
    assert kap.ps() == {}


def test_standard_input_reaches_a_program_that_runs_once(kap: Kap) -> None:
    kap.file(SLEEPER)
    assert kap("run", "--rm", "-T", "web", "cat", stdin="through\n").out == "through\n"


def test_services_find_each_other_by_name_and_a_port_is_published(kap: Kap) -> None:
    port = free_port()
    kap.file(
        "services:\n"
        "  web:\n"
        "    image: busybox\n"
        '    command: sh -c "mkdir /www; echo served > /www/index.html; httpd -f -p 80 -h /www"\n'
        f"    ports: ['{port}:80']\n"
        "  client:\n    image: busybox\n    command: sleep 1000\n"
    )
    kap.ok("up", "-d")
    answers(f"http://127.0.0.1:{port}/", "served")
    assert kap.ok("exec", "-T", "client", "wget", "-q", "-O-", "http://web/").out == "served\n"
    wait_until(lambda: f":{port}->80/tcp" in kap.ok("ps").out)


def test_a_named_volume_keeps_what_a_container_wrote(kap: Kap) -> None:
    kap.file(SLEEPER + "    volumes: ['data:/data']\nvolumes: {data: {}}\n")
    kap.ok("up", "-d")
    kap.ok("exec", "-T", "web", "sh", "-c", "echo kept > /data/file")
    kap.ok("down")
    kap.ok("up", "-d")
    assert kap.ok("exec", "-T", "web", "cat", "/data/file").out == "kept\n"


def test_a_dependency_that_exits_fails_its_dependent_at_once_and_says_which(kap: Kap) -> None:
    kap.file(
        "services:\n"
        "  web: {image: busybox, command: sleep 1000, depends_on: {db: {condition: service_healthy}}}\n"
        '  db:\n    image: busybox\n    command: sh -c "echo broken; exit 3"\n'
        "    healthcheck: {test: ['CMD', 'false'], interval: 30s}\n"
    )
    done = kap("up", "-d", timeout=30)
    assert done.code == 1
    assert "dependency failed to start" in done.err
    assert "exited (3)" in done.err
    assert "broken" in done.err
    assert "compose.yaml:2:" in done.err


def test_a_job_that_must_complete_comes_before_its_dependent(kap: Kap) -> None:
    kap.file(
        "services:\n"
        "  web: {image: busybox, command: cat /d/made, volumes: ['store:/d'],"
        " depends_on: {job: {condition: service_completed_successfully}}}\n"
        "  job: {image: busybox, command: sh -c 'sleep 0.3; echo first > /d/made', volumes: ['store:/d']}\n"
        "volumes: {store: {}}\n"
    )
    kap.ok("up", "-d")
    wait_until(lambda: "first" in kap.ok("logs", "web").out)


def test_a_taken_port_is_told_with_its_holder_before_anything_is_created(kap: Kap) -> None:
    with socket.socket() as held:
        held.bind(("0.0.0.0", 0))
        held.listen()
        port = held.getsockname()[1]
        kap.file(SLEEPER + f"    ports: ['{port}:80']\n")
        done = kap("up", "-d")
    assert done.code == 1
    assert str(port) in done.err
    assert f"pid {os.getpid()}" in done.err
    assert kap.ps() == {}
    kap.ok("up", "-d")


def test_a_missing_file_to_mount_is_told_and_no_folder_is_made_for_it(kap: Kap) -> None:
    kap.file(SLEEPER + "    volumes: ['./web.conf:/etc/web.conf']\n")
    done = kap("up", "-d")
    assert done.code == 1
    assert "web.conf" in done.err
    assert "compose.yaml:5:" in done.err
    assert not (kap.folder / "web.conf").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("services:\n  web:\n    imag: busybox\n", "compose.yaml:3:5"),
        ("services:\n  web: [\n", "compose.yaml:"),
        ("services:\n  web: {image: '${NAME:?give it a name}'}\n", "give it a name"),
        ("services:\n  web: {image: x, depends_on: [db]}\n", 'undefined service "db"'),
    ],
)
def test_a_mistake_in_the_file_is_told_with_its_place(kap: Kap, text: str, said: str) -> None:
    kap.file(text)
    done = kap("up", "-d")
    assert done.code == 1
    assert said in done.err
    assert "Traceback" not in done.err
    kap.file("services: {}\n")


def test_an_unset_variable_is_a_warning(kap: Kap) -> None:
    kap.file(SLEEPER + "    environment: {A: '${NOT_SET_ANYWHERE}'}\n")
    assert 'The "NOT_SET_ANYWHERE" variable is not set' in kap.ok("config").err


def test_an_image_that_nobody_has_is_told(kap: Kap) -> None:
    kap.file("services: {web: {image: '127.0.0.1:1/nothing:1'}}\n")
    done = kap("up", "-d")
    assert done.code == 1
    assert "127.0.0.1:1/nothing:1" in done.err


def test_a_killed_command_leaves_a_project_that_the_next_one_completes(kap: Kap) -> None:
    kap.file("services:\n" + "".join(f"  s{n}: {{image: busybox, command: sleep 1000}}\n" for n in range(8)))
    kap.ok("up", "--no-start")
    kap.ok("down")
    for delay in (0.05, 0.12, 0.2):
        command = kap.start("up", "-d")
        time.sleep(delay)  # not for luck: the moment of the kill is what varies
        command.send_signal(signal.SIGKILL)
        command.wait(10)
    kap.ok("up", "-d")
    assert [row["State"] for row in kap.ps().values()] == ["running"] * 8


def test_two_commands_at_once_are_safe(kap: Kap) -> None:
    kap.file("services:\n" + "".join(f"  s{n}: {{image: busybox, command: sleep 1000}}\n" for n in range(5)))
    both = [kap.start("up", "-d") for _ in range(2)]
    outputs = [b.communicate(timeout=60)[0] for b in both]
    assert [b.returncode for b in both] == [0, 0], outputs
    assert len(kap.ps()) == 5


def test_a_restart_policy_outlives_a_killed_supervisor(kap: Kap) -> None:
    kap.file(SLEEPER.replace("sleep 1000", "sh -c 'echo run; sleep 0.5; exit 1'") + "    restart: always\n")
    kap.ok("up", "-d")
    for pid in [p for p in os.listdir("/proc") if p.isdigit()]:
        try:
            with open(f"/proc/{pid}/comm") as comm, open(f"/proc/{pid}/cmdline", "rb") as cmdline:
                ours = comm.read().strip() == "kap-supervisor" and str(kap.home).encode() in cmdline.read()
        except OSError:
            continue
        if ours:
            os.kill(int(pid), signal.SIGKILL)
    wait_until(lambda: kap.ok("logs", "web").out.count("run") >= 3)


def test_a_build_that_fails_names_the_line_and_the_next_one_goes_on_from_there(kap: Kap) -> None:
    kap.file("services: {web: {build: .}}\n")
    kap.file("FROM busybox\nRUN echo one > /one\nRUN echo no such thing; exit 9\n", "Dockerfile")
    done = kap("build")
    assert done.code == 1
    assert "Dockerfile:3:1" in done.err
    assert "no such thing" in done.err
    kap.file("FROM busybox\nRUN echo one > /one\nCMD cat /one\n", "Dockerfile")
    assert "CACHED" in kap.ok("build").out
    assert kap.ok("run", "--rm", "-T", "web").out == "one\n"


def test_projects_on_one_external_network_reach_each_other_by_name(kap: Kap, tmp_path: Path) -> None:
    shared = f"shared{os.getpid()}"
    other = Kap(tmp_path / "other", kap.home)
    other.folder.mkdir()
    network = f"networks: {{shared: {{external: true, name: {shared}}}}}\n"
    missing = "services:\n  a: {image: busybox, command: sleep 1000, networks: [shared]}\n" + network
    kap.file(missing)
    refused = kap("up", "-d")
    assert refused.code == 1
    assert shared in refused.err
    kap.ok("network", "create", shared)
    try:
        kap.ok("up", "-d")
        serve = "sh -c 'mkdir /w && echo over > /w/index.html && exec httpd -f -p 80 -h /w'"
        other.file(
            f'services:\n  web:\n    image: busybox\n    command: "{serve}"\n'
            "    networks: {shared: {aliases: [shop]}, default: }\n" + network
        )
        other.ok("up", "-d")
        for name in ("web", "shop"):
            assert kap.ok("exec", "-T", "a", "wget", "-qO-", f"http://{name}/").out == "over\n"
        assert kap("exec", "-T", "a", "ping", "-c1", "-W1", "nobody").code != 0
        assert other.ok("exec", "-T", "web", "ping", "-c1", "-W1", "a").code == 0
        assert len(json.loads(kap.ok("network", "inspect", shared).out)[0]["Containers"]) == 2
        used = kap("network", "rm", shared)
        assert used.code != 0
        other.ok("down", "-t", "0")
        wait_until(lambda: "NXDOMAIN" in kap("exec", "-T", "a", "nslookup", "shop").out, 5)
    finally:
        other("down", "-t", "0")
        kap("down", "-t", "0")
        kap.ok("network", "rm", shared)


def test_a_service_that_is_named_turns_its_profiles_on(kap: Kap) -> None:
    kap.file(
        "services:\n  always: {image: busybox, command: sleep 1000, init: true}\n"
        "  job: {image: busybox, command: 'true', profiles: [batch]}\n"
        "  work:\n    image: busybox\n    command: sleep 1000\n    init: true\n    profiles: [batch, more]\n"
        "    depends_on: {job: {condition: service_completed_successfully}}\n"
        "  other: {image: busybox, command: sleep 1000, profiles: [more]}\n"
    )
    kap.ok("up", "-d", "work")
    states = {row["Service"]: row["State"] for row in kap.ps().values()}
    assert states == {"job": "exited", "work": "running"}
    assert kap.ok("run", "--rm", "-T", "work", "echo", "ran").out == "ran\n"
    kap.ok("--profile", "*", "down", "-t", "0")


def test_a_signal_to_run_reaches_the_program_whether_there_is_a_terminal_or_not(kap: Kap) -> None:
    script = 'trap "echo told; exit 7" INT TERM; echo ready; while :; do sleep 0.1; done'
    kap.file(f"services:\n  web:\n    image: busybox\n    command: [sh, -c, '{script}']\n")
    for number in (signal.SIGINT, signal.SIGTERM):
        running = kap.start("run", "--rm", "web")
        assert running.stdout is not None
        while "ready" not in (line := running.stdout.readline()):
            assert line, "it ended"
        running.send_signal(number)
        assert "told" in running.communicate(timeout=30)[0]
        assert running.returncode == 7
    assert kap.ps() == {}


def test_two_interrupts_at_once_stop_all_as_one_does(kap: Kap) -> None:
    """A terminal's Ctrl-C that a parent passes on as well comes twice."""
    kap.file(SLEEPER)
    for _ in range(3):
        running = kap.start("up")
        wait_until(lambda: kap.state(f"{kap.folder.name}-web-1") == "running")
        running.send_signal(signal.SIGINT)
        running.send_signal(signal.SIGINT)
        assert running.wait(60) == 130
        assert {row["State"] for row in kap.ps().values()} == {"exited"}


def test_exec_tells_a_service_that_does_not_run_from_one_that_does_not_exist(kap: Kap) -> None:
    kap.file("services:\n  web: {image: busybox}\n  tool: {image: busybox, profiles: [more]}\n")
    for name in ("web", "tool"):
        done = kap("exec", "-T", name, "true")
        assert (done.code, f'service "{name}" is not running' in done.err) == (1, True), done
    assert "no such service: wbe" in kap("exec", "-T", "wbe", "true").err


def test_down_removes_the_volumes_of_the_file_and_no_others(kap: Kap) -> None:
    text = SLEEPER + "    volumes: ['one:/1', 'two:/2']\nvolumes: {one: , two: }\n"
    kap.file(text)
    kap.ok("up", "-d")
    kap.file(text.replace(", 'two:/2'", "").replace(", two: ", ""))
    kap.ok("down", "-v", "-t", "0")
    assert kap.ok("volume", "ls", "-q", "-f", f"name={kap.folder.name}").out == f"{kap.folder.name}_two\n"
    kap.ok("volume", "rm", f"{kap.folder.name}_two")


def test_everything_can_be_removed_before_uninstalling(kap: Kap, tmp_path: Path) -> None:
    kap.file(SLEEPER)
    kap.ok("pull", "-q")
    kap.ok("save", "-o", "busybox.tar", "busybox")
    kap.home = tmp_path / "home"
    kap.environment |= {"KAP_HOME": str(kap.home), "KAP_STAND_INS": "0"}
    kap.ok("load", "-q", "-i", "busybox.tar")
    kap.ok("up", "-d")
    kap.ok("exec", "-T", "web", "sh", "-c", "mkdir -p /a/b && chmod 0 /a")
    assert "would remove" in kap.ok("--dry-run", "system", "prune", "--everything").out
    assert kap.state(f"{kap.folder.name}-web-1") == "running"
    assert "WARNING!" in kap("system", "prune", "--everything", stdin="n\n").out
    assert kap.state(f"{kap.folder.name}-web-1") == "running"
    kap.ok("system", "prune", "--everything", "-f")
    assert not kap.home.exists()


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams_are_no_hindrance(kap: Kap, closed: str) -> None:
    kap.file(SLEEPER)
    for words in ("up -d", "ps", "exec -T web true", "logs", "run --rm web true", "down -t 0", "version"):
        command = f"{' '.join(kap.command)} {words} {closed}"
        done = subprocess.run(
            ["sh", "-c", command], cwd=kap.folder, env=kap.environment, capture_output=True, text=True, check=False
        )
        assert (done.returncode, "internal error" in done.stderr) == (0, False), (words, done)


def test_an_output_that_can_not_be_written_is_an_error_in_words(kap: Kap) -> None:
    kap.file(SLEEPER)
    for words in ("config", "ps", "help", "images", "version"):
        done = subprocess.run(
            ["sh", "-c", f"{' '.join(kap.command)} {words} > /dev/full"],
            cwd=kap.folder, env=kap.environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert (done.returncode, "can't write the output" in done.stderr) == (1, True), (words, done)
        assert "Traceback" not in done.stderr


RICH = """services:
  db:
    image: busybox
    command: sleep 1000
    stop_grace_period: 1s
    ports: ["127.0.0.1::80"]
    volumes: ["data:/data", "./:/here:ro"]
    environment: {A: "${HOME:-x}"}
    healthcheck: {test: "true", interval: 5s}
    restart: unless-stopped
  web: {image: busybox, command: sleep 1000, depends_on: {db: {condition: service_healthy}}}
volumes: {data: {}}
"""
SLOW = {"collections", "contextlib", "enum", "json", "re", "shutil", "socket", "threading", "typing", "yaml"}


def test_what_is_done_often_loads_no_slow_part_of_the_standard_library(kap: Kap) -> None:
    """Ten of them cost as much as all else that an `up` of one service does."""
    kap.file(RICH)
    kap.ok("up", "-d")
    kap.ok("down")  # the text is known now, the image is here
    for words in (
        ("up", "-d"),
        ("up", "-d"),
        ("restart",),
        ("exec", "-T", "web", "true"),
        ("ps",),
        ("down", "-t", "0"),
    ):
        done = subprocess.run(
            [*kap.command, *words], cwd=kap.folder, env={**kap.environment, "PYTHONPROFILEIMPORTTIME": "1"},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        rows = [r.rpartition("|")[2].strip() for r in done.stderr.splitlines() if r.startswith("import time:")]
        ours = rows[rows.index("kapelle") :]  # before it: the environment's own start
        assert not SLOW & set(ours), words


def test_a_socket_without_anybody_behind_it_is_gone_after_a_down(kap: Kap) -> None:
    """A command was killed between making it and starting the keeper."""
    kap.file(SLEEPER)
    kap.ok("up", "-d")
    kap.ok("down", "-t", "0")
    place = kap.home / "run" / "projects" / kap.folder.name / "socket"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as s:
        folder = os.open(place.parent, os.O_PATH)
        s.bind(f"/proc/self/fd/{folder}/socket")
        os.close(folder)
    assert place.exists()
    kap.ok("down")
    assert not place.exists()
