"""Commands from words to output, over the fake engine: streams, exit codes, tables, JSON."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from kapelle.cli.main import main
from kapelle.engine.fake import Behaviour, World, world_of
from kapelle.plan.observed import Container, Endpoint, PublishedPort
from kapelle.state import paths

FILE = """
services:
  db:
    image: postgres:16
    healthcheck: {test: [CMD, "true"]}
    volumes: [data:/data]
  web:
    image: nginx:1
    ports: ["8080:80"]
    depends_on:
      db: {condition: service_healthy}
volumes:
  data: {}
"""


class Kap:
    """A project folder, a state place of its own, and `kap` called in this process."""

    def __init__(self, folder: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.capture = capture
        self.out = self.err = ""

    @property
    def world(self) -> World:
        return world_of(paths.find(os.environ).state)

    def write(self, text: str, name: str = "compose.yaml") -> None:
        (self.folder / name).write_text(text)

    def __call__(self, *words: str) -> int:
        code = main(list(words))
        self.out, self.err = self.capture.readouterr()
        return code


@pytest.fixture
def kap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Kap:
    folder = tmp_path / "demo"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for name in [n for n in os.environ if n.startswith(("COMPOSE_", "KAP_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("KAP_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("KAP_ENGINE", "fake")
    here = Kap(folder, capsys)
    here.write(FILE)
    here.world.behaviours["db"] = Behaviour(health="healthy", output=("ready",))
    return here


def test_up_detached_says_each_change_on_stderr_and_nothing_on_stdout(kap: Kap) -> None:
    assert kap("up", "-d") == 0
    assert kap.out == ""
    lines = kap.err.splitlines()
    assert " Network demo_default  Created" in lines
    assert " Volume demo_data  Created" in lines
    assert lines[-5:] == [
        " Container demo-db-1  Started",
        " Container demo-db-1  Waiting",
        " Container demo-db-1  Healthy",
        " Container demo-web-1  Starting",
        " Container demo-web-1  Started",
    ]


def test_a_second_up_says_running_and_performs_nothing(kap: Kap) -> None:
    kap("up", "-d")
    kap.world.performed.clear()
    assert kap("up", "-d") == 0
    assert kap.err == " Container demo-db-1  Running\n Container demo-web-1  Running\n"
    assert kap.world.performed == []


def test_a_changed_variable_recreates_one_container_and_names_the_key(kap: Kap) -> None:
    kap("up", "-d")
    kap.write(FILE.replace("image: nginx:1", "image: nginx:1\n    environment: {LEVEL: debug}"))
    kap.world.performed.clear()
    assert kap("up", "-d") == 0
    assert " Container demo-web-1  Recreate (environment.LEVEL added)" in kap.err.splitlines()
    assert kap.world.performed == ["recreate demo-web-1", "wait db service_healthy for web", "start demo-web-1"]


def test_a_new_image_behind_the_same_name_recreates(kap: Kap) -> None:
    kap("up", "-d")
    kap.world.performed.clear()
    assert kap("up", "-d", "--pull", "always", "--no-deps", "web") == 0
    assert kap.world.performed == ["pull nginx:1", "recreate demo-web-1", "start demo-web-1"]


def test_a_dry_run_prints_the_plan_and_changes_nothing(kap: Kap) -> None:
    for words in (("--dry-run", "up", "-d"), ("up", "--dry-run"), ("plan",)):
        assert kap(*words) == 0
        assert "  create demo-web-1: no such container\n" in kap.out
        assert "    after wait db service_healthy for web\n" in kap.out
    assert kap.world.containers == {}
    assert not (kap.folder.parent / "home" / "state" / "projects").exists()


def test_the_plan_as_json_has_steps_with_causes_and_edges(kap: Kap) -> None:
    assert kap("plan", "--format", "json") == 0
    steps = {s["step"]: s for s in json.loads(kap.out)["steps"]}
    assert steps["start demo-web-1"]["after"] == ["wait db service_healthy for web"]
    assert steps["pull nginx:1"] == {"step": "pull nginx:1", "stage": "images", "because": "no such image", "after": []}


def test_down_removes_containers_and_network_and_leaves_the_volume(kap: Kap) -> None:
    kap("up", "-d")
    assert kap("down") == 0
    assert (kap.world.containers, kap.world.networks, list(kap.world.volumes)) == ({}, {}, ["demo_data"])
    assert kap.err.splitlines()[-1] == " Network demo_default  Removed"
    assert kap("down", "-v") == 0
    assert kap.world.volumes == {}
    assert kap("down") == 0
    assert 'No resource found to remove for project "demo".' in kap.err


def test_down_by_name_alone_needs_no_file(kap: Kap, monkeypatch: pytest.MonkeyPatch) -> None:
    kap("up", "-d")
    monkeypatch.chdir(kap.folder.parent)
    assert kap("-p", "demo", "down") == 0
    assert kap.world.containers == {}


def test_ps_prints_docker_columns_and_only_what_runs(kap: Kap) -> None:
    kap.world.behaviours["web"] = Behaviour(exits=3)
    kap("up", "-d")
    assert kap("ps") == 0
    header, *rows = kap.out.splitlines()
    assert header.split() == ["NAME", "IMAGE", "COMMAND", "SERVICE", "CREATED", "STATUS", "PORTS"]
    assert len(rows) == 1
    assert rows[0].startswith("demo-db-1   postgres:16   ")
    assert kap("ps", "-a") == 0
    assert "Exited (3)" in kap.out
    kap.world.containers["demo-db-1"] = kap.world.containers["demo-db-1"]._replace(standin=True)
    assert kap("ps") == 0
    header, row = kap.out.splitlines()
    assert header.endswith("PORTS     STAND-IN")
    assert row.startswith("demo-db-1   postgres:16   ")  # the columns that scripts cut stay docker's
    assert row.endswith("yes")
    assert kap("ps", "--status", "exited", "--format", "{{.Name}} {{.ExitCode}}") == 0
    assert kap.out == "demo-web-1 3\n"


def test_ps_as_json_is_one_object_a_line_with_composes_fields(kap: Kap) -> None:
    kap("up", "-d")
    assert kap("ps", "--format", "json") == 0
    rows = [json.loads(line) for line in kap.out.splitlines()]
    assert [r["Name"] for r in rows] == ["demo-db-1", "demo-web-1"]
    web = rows[1]
    assert web["Publishers"] == [{"URL": "0.0.0.0", "TargetPort": 80, "PublishedPort": 8080, "Protocol": "tcp"}]
    assert web["Ports"] == "0.0.0.0:8080->80/tcp"
    assert (rows[0]["State"], rows[0]["Health"], rows[0]["LocalVolumes"]) == ("running", "healthy", "1")
    assert re.fullmatch("[0-9a-f]{12}", web["ID"])
    assert set(web) == {
        "Command", "CreatedAt", "ExitCode", "Health", "ID", "Image", "Labels", "LocalVolumes", "Mounts", "Name",
        "Names", "Networks", "Ports", "Project", "Publishers", "RunningFor", "Service", "Size", "State", "Status",
    }  # fmt: skip


def test_ps_of_nothing_prints_the_header(kap: Kap) -> None:
    assert kap("ps") == 0
    assert kap.out == "NAME      IMAGE     COMMAND   SERVICE   CREATED   STATUS    PORTS\n"
    assert kap("ps", "-q") == 0
    assert kap.out == ""


def test_an_unknown_service_is_named_with_the_nearest_one(kap: Kap) -> None:
    kap("up", "-d")
    for words in (["ps", "wbe"], ["logs", "wbe"], ["stop", "wbe"], ["up", "-d", "wbe"]):
        assert kap(*words) == 1
        assert kap.err == "error: no such service: wbe [KAP304]\n  known  db, web\n hint: did you mean web?\n"


def test_logs_prefix_every_line_and_follow_ends_with_the_containers(kap: Kap) -> None:
    kap.world.behaviours["web"] = Behaviour(output=("a", "b", "c"))
    kap("up", "-d")
    assert kap("logs") == 0
    assert kap.out == "db-1   | ready\nweb-1  | a\nweb-1  | b\nweb-1  | c\n"
    assert kap("logs", "--no-log-prefix", "--tail", "2", "web") == 0
    assert kap.out == "b\nc\n"
    assert kap("logs", "-t", "web", "--tail=1") == 0
    assert re.fullmatch(r"web-1  \| \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z c\n", kap.out)


def test_a_colour_per_container_only_when_asked(kap: Kap) -> None:
    kap("up", "-d")
    assert kap("--ansi", "always", "logs", "db") == 0
    assert kap.out == "\x1b[36mdb-1  | \x1b[0mready\n"
    assert kap("--ansi", "always", "logs", "--no-color", "db") == 0
    assert "\x1b" not in kap.out


def test_the_acts_work_without_reading_a_file_once_the_place_is_known(kap: Kap) -> None:
    kap("up", "-d")
    os.utime(kap.folder / "compose.yaml", (1, 1))
    kap("ps")  # the stamp is new: the index learns it
    import kapelle.compose.load as loading

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the file was loaded")

    original, loading.load = loading.load, refuse  # type: ignore[assignment]
    try:
        for words in (
            ["stop"],
            ["start"],
            ["restart"],
            ["pause"],
            ["unpause"],
            ["kill"],
            ["ps"],
            ["logs"],
            ["rm", "-f"],
        ):
            assert kap(*words) == 0, kap.err
    finally:
        loading.load = original
    assert kap.world.containers == {}


def test_stop_start_and_restart_say_what_compose_says(kap: Kap) -> None:
    kap("up", "-d")
    assert kap("stop") == 0
    assert kap.err.splitlines()[:2] == [" Container demo-web-1  Stopping", " Container demo-web-1  Stopped"]
    assert kap("start", "db") == 0
    assert kap.err.splitlines() == [" Container demo-db-1  Starting", " Container demo-db-1  Started"]
    assert kap("restart", "db") == 0
    assert kap.err.splitlines() == [" Container demo-db-1  Restarting", " Container demo-db-1  Started"]
    assert kap("kill", "web") == 0
    assert kap.err == "no container to kill"


def test_rm_asks_and_takes_no_for_an_answer(kap: Kap, monkeypatch: pytest.MonkeyPatch) -> None:
    kap("up", "-d")
    kap("stop")
    import io

    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    assert kap("rm") == 0
    assert "Going to remove demo-web-1, demo-db-1" in kap.out
    assert len(kap.world.containers) == 2
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert kap("rm") == 0
    assert kap.world.containers == {}
    assert kap("rm") == 0
    assert kap.err == "No stopped containers\n"


def test_a_dependency_that_is_unhealthy_stops_up_with_code_1(kap: Kap) -> None:
    kap.world.behaviours["db"] = Behaviour(health="unhealthy")
    assert kap("up", "-d") == 1
    assert "dependency failed to start: container demo-db-1 is unhealthy" in kap.err
    assert kap.world.containers["demo-web-1"].status == "created"


def test_up_wait_fails_when_a_container_has_ended_badly(kap: Kap) -> None:
    kap.world.behaviours["web"] = Behaviour(exits=3)
    assert kap("up", "--wait") == 1
    assert "container demo-web-1 exited (3)" in kap.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["up", "--build", "--no-build"], "--build and --no-build are incompatible"),
        (["up", "-d", "--abort-on-container-exit"], "--detach cannot be combined"),
        (["up", "--force-recreate", "--no-recreate"], "--force-recreate and --no-recreate are incompatible"),
        (["up", "--scale", "a"], "invalid scale specifier: a"),
        (["up", "--pull", "sometimes"], 'invalid --pull option "sometimes"'),
        (["up", "--detatch"], "unknown flag: --detatch"),
        (["--parallel", "x", "ps"], 'invalid argument "x" for "--parallel" flag'),
        (["--progress", "tty", "--ansi", "never", "ps"], "can't use --progress tty while ANSI support is disabled"),
        (["-p", "A", "ps"], 'invalid project name "A"'),
        (["ps", "--filter", "name=x"], "unknown filter"),
        (["port", "web"], "requires exactly 2 arg(s)"),
        (["wait"], "requires at least 1 arg(s)"),
        (["run"], "requires at least 1 arg(s)"),
        (["logs", "--since", "yesterday"], "failed to parse value as time or duration"),
        (["volume", "lss"], "unknown command: volume lss"),
        (["network", "create", "-x"], "unknown shorthand flag: 'x' in -x"),
        (["nosuch"], "unknown command: nosuch"),
    ],
)
def test_wrong_words_are_told_with_code_1_and_no_traceback(kap: Kap, words: list[str], message: str) -> None:
    assert kap(*words) == 1
    assert message in kap.err
    assert kap.err.startswith("error: ")
    assert "Traceback" not in kap.err


def test_errors_are_json_when_progress_is(kap: Kap) -> None:
    assert kap("--progress", "json", "ps", "nosuch") == 1
    value = json.loads(kap.err)
    assert (value["error"], value["message"], value["code"]) == (True, "no such service: nosuch", "KAP304")


def test_progress_as_json_has_ids_and_status(kap: Kap) -> None:
    kap("--progress", "json", "up", "-d")
    rows = [json.loads(line) for line in kap.err.splitlines()]
    assert {"id": "Container demo-web-1", "status": "Starting", "because": "was created"} in rows


def test_a_mistake_in_the_file_is_told_with_its_place(kap: Kap) -> None:
    kap.write(FILE.replace("image: nginx:1", "image: nginx:1\n    foo: 1"))
    assert kap("up", "-d") == 1
    assert kap.err.startswith("error: compose.yaml:9:5: ")


def test_no_file_says_what_to_do(kap: Kap) -> None:
    (kap.folder / "compose.yaml").unlink()
    assert kap("up") == 1
    assert kap.err.startswith("error: no configuration file provided: not found")
    assert " hint: " in kap.err


def test_a_defect_of_ours_is_one_line_and_a_report(kap: Kap, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("one by zero")

    monkeypatch.setattr("kapelle.engine.fake.FakeEngine.observe", broken)
    assert kap("ps") == 1
    assert kap.err.startswith("error: internal error: ZeroDivisionError: one by zero [KAP999]\n  report  ")
    report = Path(kap.err.split("report  ")[1].splitlines()[0]).read_text()
    assert "Traceback" in report


def test_volume_and_network_print_dockers_tables(kap: Kap) -> None:
    kap("up", "-d")
    assert kap("volume", "ls") == 0
    assert kap.out == "DRIVER    VOLUME NAME\nlocal     demo_data\n"
    assert kap("network", "ls") == 0
    assert re.fullmatch(
        r"NETWORK ID     NAME           DRIVER    SCOPE\n[0-9a-f]{12}   demo_default   bridge    local\n", kap.out
    )
    assert kap("network", "inspect", "demo_default") == 0
    value = json.loads(kap.out)[0]
    assert (value["Name"], value["Driver"], value["Scope"]) == ("demo_default", "bridge", "local")
    assert sorted(c["Name"] for c in value["Containers"].values()) == ["demo-db-1", "demo-web-1"]
    assert kap("volume", "inspect", "nosuch") == 1
    assert (kap.out, kap.err) == ("[]\n", "error: no such volume: nosuch [KAP308]\n")


def test_volumes_and_networks_are_made_and_removed_by_hand(kap: Kap) -> None:
    assert kap("volume", "create", "keep") == 0
    assert kap.out == "keep\n"
    assert kap("network", "create", "shared") == 0
    assert kap("network", "create", "shared") == 1
    assert "network with name shared already exists" in kap.err
    assert kap("volume", "inspect", "-f", "{{.Name}} {{.Labels}}", "keep") == 0
    assert kap("volume", "rm", "keep", "nosuch") == 1
    assert kap.out == "keep\n"
    assert kap("network", "rm", "shared") == 0
    assert (kap.world.volumes, kap.world.networks) == ({}, {})


def test_a_volume_in_use_stays(kap: Kap) -> None:
    kap("up", "-d")
    assert kap("volume", "rm", "demo_data") == 1
    assert "volume is in use - [" in kap.err
    assert kap("network", "rm", "demo_default") == 1
    assert "has active endpoints" in kap.err


def test_ls_lists_projects(kap: Kap) -> None:
    kap("up", "-d")
    assert kap("ls") == 0
    assert kap.out.splitlines()[1] == f"demo                running(2)          {kap.folder}/compose.yaml"
    kap("stop")
    assert kap("ls", "--format", "json") == 0
    assert json.loads(kap.out) == []
    assert kap("ls", "-a", "-q") == 0
    assert kap.out == "demo\n"


def test_port_prints_the_host_address(kap: Kap) -> None:
    kap("up", "-d")
    assert kap("port", "web", "80") == 0
    assert kap.out == "0.0.0.0:8080\n"
    assert kap("port", "web", "81") == 1
    assert "no port 81/tcp for container demo-web-1" in kap.err


def test_scale_adds_and_removes_the_highest_numbers(kap: Kap) -> None:
    kap.write("services: {a: {image: x}}\n")
    assert kap("scale", "a=3") == 0
    assert sorted(kap.world.containers) == ["demo-a-1", "demo-a-2", "demo-a-3"]
    assert kap("scale", "a=1") == 0
    assert sorted(kap.world.containers) == ["demo-a-1"]


def test_run_gives_the_codes_and_output_of_the_program_and_starts_what_it_needs(kap: Kap) -> None:
    kap.world.behaviours["web"] = Behaviour(exits=7, output=("out",))
    assert kap("run", "--rm", "web", "sh", "-c", "exit 7") == 7
    assert kap.out == "out\n"
    assert sorted(kap.world.containers) == ["demo-db-1"]
    assert "web-run" not in kap.err
    assert "Container demo-db-1  Healthy" in kap.err


def test_run_changes_the_service_as_told(kap: Kap) -> None:
    kap.world.behaviours["web"] = Behaviour(exits=0)
    kap("run", "--no-deps", "--name", "one", "--entrypoint", "sh -c", "web", "echo", "-v")
    one = kap.world.containers["one"]
    assert (one.command, one.oneoff, one.service) == (("sh", "-c", "echo", "-v"), True, "web")
    assert kap("run", "-d", "--no-deps", "web") == 0
    assert re.fullmatch("[0-9a-f]{64}\n", kap.out)
    assert kap("up", "-d") == 0
    assert "Found orphan containers ([" in kap.err


def test_images_lists_what_the_containers_run(kap: Kap) -> None:
    kap("up", "-d")
    assert kap("images") == 0
    assert kap.out.splitlines()[0].split() == [
        "CONTAINER", "REPOSITORY", "TAG", "PLATFORM", "IMAGE", "ID", "SIZE", "CREATED",
    ]  # fmt: skip
    assert kap("images", "--format", "json") == 0
    assert [(i["Repository"], i["Tag"]) for i in json.loads(kap.out)] == [("postgres", "16"), ("nginx", "1")]


def test_wait_returns_the_code_of_the_first_that_ends(kap: Kap) -> None:
    kap("up", "-d")
    assert kap("wait", "web") == 0 if _later(lambda: _end(kap, "demo-web-1", 0)) else False
    assert "exited with status code 0" in kap.out
    assert kap("wait", "web") == 1
    assert kap.err.startswith('error: no containers for project "demo"')


def _later(act: Callable[[], None]) -> threading.Thread:
    def run() -> None:
        time.sleep(0.02)
        act()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def _end(kap: Kap, name: str, code: int) -> None:
    kap.world.containers[name] = kap.world.containers[name]._replace(status="exited", exit_code=code)


def test_up_attached_shows_output_and_ends_with_the_last_container(kap: Kap) -> None:
    kap.write("services: {a: {image: x}, long-name: {image: x}}\n")
    kap.world.behaviours["a"] = Behaviour(exits=3, output=("hello",))
    kap.world.behaviours["long-name"] = Behaviour(exits=0)
    assert kap("up") == 0
    assert kap.out.splitlines()[0] == "Attaching to a-1, long-name-1"
    assert "a-1          | hello" in kap.out.splitlines()
    assert "a-1 exited with code 3" in kap.out.splitlines()
    assert "long-name-1 exited with code 0" in kap.out.splitlines()


def test_abort_on_exit_stops_the_others_and_takes_the_code(kap: Kap) -> None:
    kap.write("services: {job: {image: x}, web: {image: x}}\n")
    kap.world.behaviours["job"] = Behaviour(exits=3)
    assert kap("up", "--abort-on-container-exit") == 3
    assert "Aborting on container exit..." in kap.err
    assert kap.world.containers["demo-web-1"].status == "exited"


def test_exit_code_from_takes_the_code_of_the_named_service(kap: Kap) -> None:
    kap.write("services: {job: {image: x}, web: {image: x}}\n")
    kap.world.behaviours["job"] = Behaviour(exits=3)
    assert kap("up", "--exit-code-from", "web") == 143


def test_abort_on_failure_lets_good_ends_pass(kap: Kap) -> None:
    kap.write("services: {good: {image: x}, bad: {image: x, depends_on: [good]}}\n")
    kap.world.behaviours |= {"good": Behaviour(exits=0), "bad": Behaviour(exits=5)}
    assert kap("up", "--abort-on-container-failure") == 5


def test_port_lists_join_runs_and_keep_brackets() -> None:
    from kapelle.render.containers import ports

    published = [PublishedPort("0.0.0.0", 8000 + n, 8000 + n) for n in range(3)]
    published += [PublishedPort("::", 8080, 80), PublishedPort("127.0.0.1", 53, 53, "udp")]
    assert ports(published, ("6379/tcp",)) == (
        "6379/tcp, 0.0.0.0:8000-8002->8000-8002/tcp, 127.0.0.1:53->53/udp, [::]:8080->80/tcp"
    )


def test_status_words_are_dockers() -> None:
    from kapelle.render.containers import status

    base = Container("a", "n", "p", "s", 1, started=100, finished=180, networks=(Endpoint("x"),))
    now = 200.0
    assert status(base, now) == "Created"
    assert status(base._replace(status="running"), now) == "Up About a minute"
    assert status(base._replace(status="running", health="starting"), now) == "Up About a minute (health: starting)"
    assert status(base._replace(status="paused"), now) == "Up About a minute (Paused)"
    assert status(base._replace(status="exited", exit_code=3), now) == "Exited (3) 20 seconds ago"
    assert status(base._replace(status="restarting", exit_code=1), now) == "Restarting (1) 20 seconds ago"
    assert status(base._replace(status="dead"), now) == "Dead"
