"""Connections, bytes and round trips between containers and from the host to a published port; name lookups."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time

import probe
from files import PEER, PROBE, PYTHON_IMAGE
from sides import Failed, Run, Tool

_WORDS = {"connections/s": "connections", "MB/s": "one stream", "round trip us": "round trip"}


def measured(run: Run, seconds: float) -> None:
    run.each(run.tools, lambda tool: _one(run, tool, seconds))


def _one(run: Run, tool: Tool, seconds: float) -> None:
    ports = _free_ports(2)
    compiled = run.folder / "peer"
    inside, outside = ([PEER], [str(compiled)]) if compiled.exists() else (PROBE, [sys.executable, probe.__file__])
    serve, idle = json.dumps([*inside, "serve"]), json.dumps([*PROBE, "ticks", "100000", "1000"])
    published = ", ".join(f"'127.0.0.1:{p}:{t}'" for p, t in zip(ports, (7000, 7001), strict=True))
    file = (
        f"services:\n"
        f"  server: {{image: {PYTHON_IMAGE}, command: {serve}, ports: [{published}], stop_grace_period: 1s}}\n"
        f"  client:\n    image: {PYTHON_IMAGE}\n    command: {idle}\n    stop_grace_period: 1s\n"
        f"    sysctls: {{net.ipv4.ip_local_port_range: '1024 65000'}}\n"  # closed connections hold theirs for a minute
    )
    with run.project(tool, "traffic", file) as place:
        tool.run(place, "up", "-d")
        _wait_for(ports[0])
        ask = ["measure", "server", "7000", "7001", str(seconds)]
        for key, value in json.loads(tool.output(place, "exec", "-T", "client", *inside, *ask)).items():
            run.note(f"container to container, {_WORDS[key]}", tool, value)
        told = json.loads(tool.output(place, "exec", "-T", "client", *PROBE, "lookups", "server", str(seconds)))
        run.note("name lookups", tool, told["lookups/s"])
        ask = ["measure", "127.0.0.1", *map(str, ports), str(seconds)]
        told = json.loads(subprocess.check_output([*outside, *ask], text=True))
        for key, value in told.items():
            run.note(f"published port, {_WORDS[key]}", tool, value)


def _free_ports(count: int) -> list[int]:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    found = [s.getsockname()[1] for s in held]
    for s in held:
        s.close()
    return found


def _wait_for(port: int) -> None:
    for _ in range(200):
        try:
            with socket.create_connection(("127.0.0.1", port), 1) as sock:
                sock.sendall(b"x")
                if sock.recv(1):
                    return
        except OSError:
            pass
        time.sleep(0.05)
    raise Failed("the server does not come up")
