"""Compare what runs: traffic, name lookups, logs, health checks, memory. Beside `bench.py`, with the same tools.

    python bench/running.py [--rounds 3] [--docker "docker compose"] [--seconds 2] [--only traffic,logs,chain,memory]

Needs what bench.py needs, and Debian's python3 (its interpreter and library make the image `kap-bench-python:1`).
Figures of traffic and logs are rates: a ratio above 1 means that kap is faster.
"""

from __future__ import annotations

import argparse
import glob
import json
import os
import re
import shlex
import shutil
import socket
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import probe
from bench import Tool, busybox_archive, compose_file, docker_archive

IMAGE = "kap-bench-python:1"
PYTHON = "/usr/bin/python3"
PROBE = [PYTHON, "-I", "-S", "/probe.py"]
Rows = dict[str, dict[str, list[float]]]  # case -> tool -> values


def python_layer(path: Path) -> None:
    """The machine's own interpreter, its standard library and what both link to."""
    program = os.path.realpath(PYTHON)
    library = subprocess.check_output(
        [PYTHON, "-I", "-c", "import os, sysconfig; print(sysconfig.get_paths()['stdlib'])"], text=True
    ).strip()
    linked: set[str] = set()
    for file in (program, *glob.glob(f"{library}/lib-dynload/*.so")):
        told = subprocess.run(["ldd", file], capture_output=True, text=True, check=False).stdout
        linked.update(re.findall(r"(?:=>\s+)?(/\S+)\s+\(0x", told))
    with tarfile.open(path, "w", dereference=True) as tar:
        tar.add(program, PYTHON[1:])
        tar.add(shutil.which("busybox") or "/bin/busybox", "bin/sh")
        for file in sorted(linked):
            tar.add(file, file[1:])
        tar.add(library, library[1:], filter=_wanted)
        tar.add(probe.__file__, "probe.py")


def _wanted(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    left_out = ("/test", "/idlelib", "/tkinter", "/ensurepip", "/lib2to3", "/config-", "/dist-packages")
    return None if any(part in member.name for part in left_out) else member


def free_ports(count: int) -> list[int]:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    found = [s.getsockname()[1] for s in held]
    for s in held:
        s.close()
    return found


def note(rows: Rows, case: str, tool: Tool, value: float) -> None:
    rows.setdefault(case, {}).setdefault(tool.name, []).append(value)


def traffic(rows: Rows, tools: list[Tool], folder: Path, seconds: float) -> None:
    for tool in tools:
        place = folder / f"traffic-{tool.name}"
        place.mkdir(exist_ok=True)
        ports = free_ports(3)
        serve, idle = json.dumps([*PROBE, "serve"]), json.dumps([*PROBE, "ticks", "100000", "1000"])
        published = ", ".join(f"'127.0.0.1:{p}:{t}'" for p, t in zip(ports, (7000, 7001, 7002), strict=True))
        (place / "compose.yaml").write_text(
            f"services:\n  server: {{image: {IMAGE}, command: {serve}, ports: [{published}], stop_grace_period: 1s}}\n"
            f"  client: {{image: {IMAGE}, command: {idle}, stop_grace_period: 1s}}\n"
        )
        tool.run(place, "up", "-d")
        try:
            wait_for(ports[0])
            ask = ["measure", "server", "7000", "7001", "7002", str(seconds)]
            told = json.loads(tool.output(place, "exec", "-T", "client", *PROBE, *ask))
            for key, value in told.items():
                note(rows, f"container to container, {key}", tool, value)
            told = json.loads(tool.output(place, "exec", "-T", "client", *PROBE, "lookups", "server", str(seconds)))
            note(rows, "lookups/s", tool, told["lookups/s"])
            ask = ["measure", "127.0.0.1", *map(str, ports), str(seconds)]
            told = json.loads(subprocess.check_output([sys.executable, probe.__file__, *ask], text=True))
            for key, value in told.items():
                note(rows, f"published port, {key}", tool, value)
        finally:
            tool.run(place, "down", "-t", "0", check=False)


def wait_for(port: int) -> None:
    for _ in range(200):
        try:
            with socket.create_connection(("127.0.0.1", port), 1) as sock:
                sock.sendall(b"x")
                if sock.recv(1):
                    return
        except OSError:
            pass
        time.sleep(0.05)
    raise SystemExit("the server does not come up")


def logs(rows: Rows, tools: list[Tool], folder: Path, count: int) -> None:
    """`up` in the foreground with `count` lines of 100 bytes, `logs` reading them back, `logs -f` line to eye."""
    for tool in tools:
        place = folder / f"logs-{tool.name}"
        place.mkdir(exist_ok=True)
        file = "services:\n  a: {image: %s, command: %s, stop_grace_period: 1s}\n"
        (place / "compose.yaml").write_text(file % (IMAGE, json.dumps([*PROBE, "lines", str(count)])))
        try:
            note(rows, "up, MB/s of lines", tool, count / 1e4 / tool.run(place, "up"))
            note(rows, "logs, MB/s", tool, count / 1e4 / tool.run(place, "logs"))
            (place / "compose.yaml").write_text(file % (IMAGE, json.dumps([*PROBE, "ticks", "1000", "0.02"])))
            tool.run(place, "up", "-d")
            note(rows, "logs -f, line to eye, ms", tool, line_to_eye(tool, place))
        finally:
            tool.run(place, "down", "-t", "0", check=False)


def line_to_eye(tool: Tool, place: Path) -> float:
    with subprocess.Popen(
        [*tool.command, "logs", "-f", "--tail", "0"], cwd=place, env=tool.environment, stdout=subprocess.PIPE, text=True
    ) as follower:
        assert follower.stdout is not None
        times = []
        for line in follower.stdout:
            found = re.search(r"tick (\d+)", line)
            if found:
                times.append((time.time_ns() - int(found[1])) / 1e6)
            if len(times) == 120:
                break
        follower.terminate()
    return statistics.median(times[20:])


def chain(rows: Rows, tools: list[Tool], folder: Path) -> None:
    """Five services, each healthy at once, each waiting for the one before; checked every five seconds."""
    text = ["services:"]
    idle = json.dumps([*PROBE, "ticks", "100000", "1000"])
    for number in range(5):
        wait = f"depends_on: {{s{number - 1}: {{condition: service_healthy}}}}, " if number else ""
        check = "healthcheck: {test: [CMD, /bin/sh, -c, ':'], interval: 5s}"
        text.append(f"  s{number}: {{image: {IMAGE}, command: {idle}, {wait}{check}, stop_grace_period: 1s}}")
    for tool in tools:
        place = folder / f"chain-{tool.name}"
        place.mkdir(exist_ok=True)
        (place / "compose.yaml").write_text("\n".join(text) + "\n")
        try:
            note(rows, "chain of 5 healthy, s", tool, tool.run(place, "up", "-d", "--wait"))
        finally:
            tool.run(place, "down", "-t", "0", check=False)


def memory(rows: Rows, kap: Tool, folder: Path, size: int) -> None:
    """Own processes of a project of `size`, and their memory (PSS: shared pages counted in parts)."""
    place = folder / f"memory-{size}"
    place.mkdir(exist_ok=True)
    kap.run(folder, "load", "-i", str(busybox_archive(folder)))
    (place / "compose.yaml").write_text(compose_file(size))
    kap.run(place, "up", "-d")
    try:
        total, number = 0, 0
        for entry in filter(str.isdigit, os.listdir("/proc")):
            try:
                if str(folder).encode() in Path(f"/proc/{entry}/cmdline").read_bytes() and entry != str(os.getpid()):
                    told = Path(f"/proc/{entry}/smaps_rollup").read_text()
                    total += int(re.search(r"^Pss:\s+(\d+)", told, re.MULTILINE)[1])  # type: ignore[index]
                    number += 1
            except OSError:
                continue
        note(rows, f"own memory at {size}, MiB", kap, total / 1024)
        note(rows, f"own processes at {size}", kap, number)
    finally:
        kap.run(place, "down", "-t", "0", check=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kap", default=f"{sys.executable} -m kapelle")
    parser.add_argument("--docker", default="docker compose", help="the reference; empty to leave it out")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement of traffic")
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--only", default="traffic,logs,chain,memory")
    options = parser.parse_args()
    rows: Rows = {}
    with tempfile.TemporaryDirectory(prefix="kap-bench-") as name:
        folder = Path(name)
        layer = folder / "layer.tar"
        python_layer(layer)
        archive = docker_archive(folder, layer, IMAGE)
        kap = Tool("kap", shlex.split(options.kap), {**os.environ, "KAP_HOME": str(folder / "home")})
        kap.run(folder, "load", "-i", str(archive))
        tools = [kap]
        if options.docker:
            loaded = subprocess.run(["docker", "load", "-i", str(archive)], capture_output=True, check=False)
            if loaded.returncode == 0:
                tools.append(Tool("docker", shlex.split(options.docker), dict(os.environ)))
            else:
                print("no dockerd answers: measuring kap alone", file=sys.stderr)
        wanted = options.only.split(",")
        for _ in range(options.rounds):
            if "traffic" in wanted:
                traffic(rows, tools, folder, options.seconds)
            if "logs" in wanted:
                logs(rows, tools, folder, options.lines)
            if "chain" in wanted:
                chain(rows, tools, folder)
        if "memory" in wanted:
            memory(rows, kap, folder, 50)
        if len(tools) > 1:
            subprocess.run(["docker", "rmi", "-f", IMAGE], capture_output=True, check=False)
    report(rows, tools)


def report(rows: Rows, tools: list[Tool]) -> None:
    print(f"load average {os.getloadavg()[0]:.1f}; medians")
    print(f"{'case':<42}" + "".join(f"{t.name:>12}" for t in tools) + (f"{'ratio':>8}" if len(tools) > 1 else ""))
    for case, by_tool in rows.items():
        medians = [statistics.median(by_tool[t.name]) for t in tools if t.name in by_tool]
        ratio = f"{medians[0] / medians[1]:>8.2f}" if len(medians) > 1 and medians[1] else ""
        print(f"{case:<42}" + "".join(f"{m:>12.2f}" for m in medians) + ratio)


if __name__ == "__main__":
    main()
