"""What `make demo` does after installing: bring the agent up, talk to it, say where it is and what to try next."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

AGENT = Path(__file__).resolve().parent.parent / "examples" / "agent"
QUESTION = "What is 6 * 7?"


def main() -> int:
    environment = {"KAP_STAND_INS": "1", "KAP_HOST_SETTINGS": "1", **os.environ}
    kap = [sys.executable, "-m", "kapelle"]
    if sys.argv[1:] == ["down"]:
        words = ["down", "--volumes", "--remove-orphans"]
        return subprocess.run([*kap, *words], cwd=AGENT, env=environment, check=False).returncode
    began = time.monotonic()
    done = subprocess.run([*kap, "up", "--wait", "--build"], cwd=AGENT, env=environment, check=False)
    if done.returncode:
        return done.returncode
    address = published([*kap, "port", "web", "80"], environment)
    try:
        reply = ask(address, QUESTION)
    except (OSError, ValueError) as e:
        print(
            f"the agent at {address} does not answer: {e}\nkap logs, in {os.path.relpath(AGENT)}, has more",
            file=sys.stderr,
        )
        return 1
    print(f"\nup in {time.monotonic() - began:.1f} s\n\n  you    {QUESTION}\n  agent  {reply}\n")
    print(f"chat in a browser   {address}/ui\nthe agent itself    {address}/\nits statistics      {address}/stats\n")
    shown = os.path.relpath(AGENT)
    own = Path(sys.executable).parent / "kap"
    name = "kap" if shutil.which("kap") else str(own)
    print(f"next, in {shown}:\n  {name} ps\n  {name} logs -f api\n  {name} exec db psql -U agent agent_db\n")
    print("make demo-down removes it.")
    return 0


def published(words: list[str], environment: dict[str, str]) -> str:
    """Where a port of a container is on this machine; it may have moved (KAP_PORTS=auto)."""
    shown = subprocess.run(words, cwd=AGENT, env=environment, check=False, capture_output=True, text=True).stdout
    host, _, port = (shown.strip().splitlines() or ["127.0.0.1:8080"])[0].rpartition(":")
    return f"http://{'127.0.0.1' if host in ('0.0.0.0', '[::]', '') else host}:{port}"


def ask(address: str, question: str) -> str:
    """The agent's reply to one question, read from its stream of events."""
    request = urllib.request.Request(
        f"{address}/chat",
        data=json.dumps({"message": question}).encode(),
        headers={"Content-Type": "application/json"},
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    event = ""
    with opener.open(request, timeout=30) as answer:
        for line in answer:
            text = line.decode().strip()
            if text.startswith("event:"):
                event = text[6:].strip()
            elif text.startswith("data:") and event == "done":
                return str(json.loads(text[5:])["reply"])
    return "(no answer)"


if __name__ == "__main__":
    sys.exit(main())
