"""The lesson, command by command: a FastAPI service, PostgreSQL and Redis, brought up from the lesson's own files.

One long walk in the lesson's order, because each step builds on the one before. The files are those of
examples/lesson; only published ports that this machine has taken are moved.

Where the lesson can't hold to the letter: python:slim has no curl, so the api's own health check fails (docker
compose behaves the same); sample outputs are of an older release.
"""

from __future__ import annotations

import json
import re
import signal
import time
from pathlib import Path

import pytest

from tests.checks import wait_until
from tests.scenarios.conftest import Kap, answers, copy_example, free_port, get, is_well_known_free

STATUS = """

@app.get("/agent-status")
def agent_status():
    return {"status": "running", "mode": "development with live reload"}
"""
STATS = """

@app.get("/stats")
def stats():
    return {"connections": 1}
"""
CADDY = """
  proxy:
    image: nginx:latest
    ports:
      - "%d:80"
    volumes:
      - ./proxy.conf:/etc/nginx/conf.d/default.conf:ro
    networks:
      - agent-network
    depends_on:
      - api
"""


def move_taken_ports(compose: Path) -> dict[int, int]:
    """Published ports, each moved to a free one when it is taken here."""
    moved = {port: port if is_well_known_free(port) else free_port() for port in (8000, 5432, 6379)}
    text = compose.read_text()
    for port, to in moved.items():
        text = text.replace(f'"{port}:{port}"', f'"{to}:{port}"')
    compose.write_text(text)
    return moved


@pytest.mark.parametrize("kap", ["my-agent-app"], indirect=True)
def test_every_command_of_the_lesson_does_what_it_promises(kap: Kap) -> None:
    copy_example("lesson", kap)
    api = f"http://127.0.0.1:{move_taken_ports(kap.folder / 'compose.yaml')[8000]}"

    # starting: one command builds and brings up three services; the answers name the database and the cache
    up = kap.ok("up", "-d", timeout=400)
    assert "agent-api" in up.err
    answers(f"{api}/", '"database":"db:5432/agent_db"')
    assert json.loads(get(f"{api}/"))["cache"] == "cache:6379"
    assert json.loads(get(f"{api}/config")) == {
        "log_level": "info", "database_configured": True, "cache_configured": True,
    }  # fmt: skip

    # ps: three containers by their own names; the database is healthy
    found = kap.ps()
    assert {row["Service"] for row in found.values()} == {"api", "db", "cache"}
    assert set(found) == {"agent-api", "agent-db", "agent-cache"}
    assert found["agent-db"]["Health"] == "healthy"

    # services reach each other by name: a client installed in the running container asks the database
    install = "apt-get update -qq && apt-get install -y -qq postgresql-client >/dev/null 2>&1"
    asked = kap.ok(
        "exec", "-T", "api", "bash", "-c",
        f"{install} && PGPASSWORD=postgres psql -h db -U postgres -d agent_db -c 'SELECT 1;'", timeout=300,
    )  # fmt: skip
    assert "(1 row)" in asked.out
    kept = "create table kept (word text); insert into kept values ('still here')"
    kap.ok("exec", "-T", "db", "psql", "-U", "postgres", "-d", "agent_db", "-c", kept)

    # the network: three containers with addresses
    listed = kap.ok("network", "ls").out
    assert "my-agent-app_agent-network" in listed
    inspected = json.loads(kap.ok("network", "inspect", "my-agent-app_agent-network").out)
    containers = inspected[0]["Containers"].values()
    assert {c["Name"] for c in containers} == {"agent-api", "agent-db", "agent-cache"}
    assert all(re.match(r"\d+\.\d+\.\d+\.\d+/\d+$", c["IPv4Address"]) for c in containers)

    # volumes outlive down
    kap.ok("down")
    assert kap.ps() == {}
    volumes = kap.ok("volume", "ls").out
    assert "DRIVER" in volumes.splitlines()[0]
    assert re.search(r"^local +my-agent-app_pgdata$", volumes, re.M)
    assert re.search(r"^local +my-agent-app_redisdata$", volumes, re.M)
    kap.ok("up", "-d")
    answers(f"{api}/health", "healthy")
    read = kap.ok("exec", "-T", "db", "psql", "-U", "postgres", "-d", "agent_db", "-Atc", "select word from kept")
    assert read.out == "still here\n"

    # live reload: an edit on the host is served without a restart
    main = kap.folder / "main.py"
    # the reloader takes what it sees at its first look, a quarter of a second after its start, for the old state
    began = time.monotonic()
    wait_until(lambda: time.monotonic() > began + 0.6)
    main.write_text(main.read_text() + STATUS)
    answers(f"{api}/agent-status", "development with live reload", 30)
    main.write_text(main.read_text() + STATS)
    answers(f"{api}/stats", "connections", 30)
    wait_until(lambda: "main.py" in kap.ok("logs", "api").out, what="the log does not tell of the reload")

    # logs: of all, of one, followed
    everything = kap.ok("logs").out
    assert all(re.search(rf"^{name} +\| ", everything, re.M) for name in ("agent-api", "agent-db", "agent-cache"))
    assert "ready to accept connections" in kap.ok("logs", "db").out
    follower = kap.start("logs", "-f", "api")
    assert follower.stdout is not None
    assert follower.stdout.readline().startswith("agent-api")
    follower.send_signal(signal.SIGINT)
    assert follower.wait(20) == 130

    # stop keeps the containers, start brings the same ones back
    ids = {row["ID"] for row in kap.ps().values()}
    kap.ok("stop")
    assert {row["State"] for row in kap.ps().values()} == {"exited"}
    kap.ok("start")
    assert {row["ID"] for row in kap.ps().values()} == ids
    answers(f"{api}/health", "healthy")

    # python:slim has no curl, so the api's own check fails, as it does with docker compose
    wait_until(lambda: kap.ps()["agent-api"]["Health"] == "unhealthy", 90, "the health check without curl passes?")

    # a second file is merged over the first; an override file is taken by itself
    kap.file("services:\n  api:\n    environment:\n      - LOG_LEVEL=warning\n", "compose.prod.yaml")
    kap.ok("-f", "compose.yaml", "-f", "compose.prod.yaml", "up", "-d")
    answers(f"{api}/config", '"log_level":"warning"')
    kap.file("services:\n  api:\n    environment:\n      - LOG_LEVEL=debug\n", "compose.override.yaml")
    kap.ok("up", "-d")
    answers(f"{api}/config", '"log_level":"debug"')
    (kap.folder / "compose.override.yaml").unlink()

    # the exercise: a fourth service, nginx in front
    compose = kap.folder / "compose.yaml"
    port = 80 if is_well_known_free(80) else free_port()
    text = compose.read_text()
    compose.write_text(text.replace("\nnetworks:\n  agent-network:", CADDY % port + "\nnetworks:\n  agent-network:"))
    kap.file("server { listen 80; location / { proxy_pass http://api:8000; } }\n", "proxy.conf")
    kap.ok("up", "-d", timeout=200)
    answers(f"http://127.0.0.1:{port}/", "Agent ready")

    # down -v removes all
    kap.ok("down", "-v")
    assert kap.ok("ps").out.split()[:2] == ["NAME", "IMAGE"]
    assert "my-agent-app" not in kap.ok("volume", "ls").out
    assert "my-agent-app" not in kap.ok("network", "ls").out


@pytest.mark.parametrize("kap", ["my-agent-app"], indirect=True)
def test_attached_up_shows_all_logs_and_ctrl_c_stops_everything(kap: Kap) -> None:
    copy_example("lesson", kap)
    move_taken_ports(kap.folder / "compose.yaml")
    attached = kap.start("up")
    assert attached.stdout is not None
    seen = ""
    for line in attached.stdout:
        seen += line
        if "Application startup complete" in line:
            break
    assert re.search(r"^agent-db +\| ", seen, re.M)
    attached.send_signal(signal.SIGINT)
    rest = attached.stdout.read()
    assert attached.wait(60) == 130
    assert "Gracefully" in rest
    assert {row["State"] for row in kap.ps().values()} == {"exited"}
