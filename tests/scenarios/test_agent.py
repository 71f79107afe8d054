"""The agent example: a conversation that survives, with real PostgreSQL, Redis and nginx."""

from __future__ import annotations

import json
import urllib.parse
import urllib.request
from typing import Any

import pytest

from tests.scenarios.conftest import Kap, answers, copy_example, free_port, get


def say(address: str, message: str, session: str = "") -> dict[str, Any]:
    """One message; the `done` event of the answer's stream."""
    body = {"message": message, **({"session_id": session} if session else {})}
    request = urllib.request.Request(
        f"{address}/chat", data=json.dumps(body).encode(), headers={"Content-Type": "application/json"}
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    event = ""
    with opener.open(request, timeout=30) as answer:
        for line in answer:
            text = line.decode().strip()
            if text.startswith("event:"):
                event = text[6:].strip()
            elif text.startswith("data:") and event == "done":
                found: dict[str, Any] = json.loads(text[5:])
                return found
    raise AssertionError("the stream ended without `done`")


@pytest.mark.parametrize("kap", ["agent"], indirect=True)
def test_the_agent_comes_up_remembers_and_reloads(kap: Kap) -> None:
    copy_example("agent", kap)
    web, api = free_port(), free_port()
    ports = {"AGENT_PORT": str(web), "API_PORT": str(api)}
    address = f"http://127.0.0.1:{web}"

    # everything is ready when the command returns, the one-shot migration included
    kap.ok("up", "--wait", "--build", timeout=400, **ports)
    found = kap.ps()
    assert found["agent-migrate-1"]["State"] == "exited"
    assert found["agent-migrate-1"]["ExitCode"] == 0
    assert {row["Health"] for row in found.values() if row["State"] == "running"} == {"healthy"}

    # the lesson's endpoints, and a page to chat at
    assert json.loads(get(f"{address}/"))["database"] == "db:5432/agent_db"
    assert json.loads(get(f"{address}/health"))["status"] == "healthy"
    assert json.loads(get(f"{address}/agent-status"))["status"] == "running"
    assert "uptime_seconds" in get(f"{address}/stats")
    assert "<html" in get(f"{address}/ui").lower()

    # it calculates, and it remembers
    assert "42" in say(address, "What is 6 * 7?")["reply"]
    told = say(address, "Please remember that my favourite tea is oolong")
    session = str(told["session_id"])
    assert "oolong" in get(f"{address}/memories?q={urllib.parse.quote('favourite tea')}")

    # the conversation survives down and up
    kap.ok("down", **ports)
    kap.ok("up", "--wait", **ports)
    assert "oolong" in get(f"{address}/sessions/{session}")

    # an edit of the mounted source is served without a restart
    app = kap.folder / "agent" / "app.py"
    app.write_text(app.read_text().replace('"status": "running"', '"status": "edited"'))
    answers(f"{address}/agent-status", "edited", 30)


@pytest.mark.parametrize("kap", ["agent"], indirect=True)
def test_the_hardened_variant_comes_up(kap: Kap) -> None:
    copy_example("agent", kap)
    port = free_port()
    files = ("-f", "compose.yaml", "-f", "compose.prod.yaml")
    kap.ok(*files, "up", "--wait", "--build", timeout=400, AGENT_PORT=str(port))
    assert len([n for n in kap.ps() if n.startswith("agent-api-")]) == 2
    assert json.loads(get(f"http://127.0.0.1:{port}/health"))["status"] == "healthy"
    status = kap.ok(*files, "exec", "-T", "api", "cat", "/proc/self/status").out
    assert "CapEff:\t0000000000000000" in status
    assert "NoNewPrivs:\t1" in status
    kap.ok(*files, "down", "-v")
