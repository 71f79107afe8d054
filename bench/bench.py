"""Compare kap with docker compose on dockerd, in one interleaved run. Figures are ratios of medians (kap / docker).

    python bench/bench.py [--rounds 3] [--sizes 1,10,50] [--docker "docker compose"] [--only config] [--json FILE]

Needs root (for kap's R1 rung), a running dockerd for the comparison (without one only kap is timed), and the image
`kap-bench:1` (a static busybox), which it makes on both sides. Leaves nothing behind.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

IMAGE = "kap-bench:1"


class Tool:
    """One side: how to call it, and its timings by case in seconds."""

    def __init__(self, name: str, command: list[str], environment: dict[str, str]) -> None:
        self.name = name
        self.command = command
        self.environment = environment
        self.seconds: dict[str, list[float]] = {}

    def run(self, directory: Path, *arguments: str, check: bool = True) -> float:
        began = time.perf_counter()
        done = subprocess.run(
            [*self.command, *arguments],
            cwd=directory,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        took = time.perf_counter() - began
        if check and done.returncode:
            raise SystemExit(f"{self.name} {' '.join(arguments)}: exit {done.returncode}\n{done.stderr[-2000:]}")
        return took

    def output(self, directory: Path, *arguments: str) -> str:
        return subprocess.check_output(
            [*self.command, *arguments], cwd=directory, env=self.environment, stdin=subprocess.DEVNULL, text=True
        )

    def timed(self, case: str, directory: Path, *arguments: str) -> None:
        self.seconds.setdefault(case, []).append(self.run(directory, *arguments))


def compose_file(services: int) -> str:
    rows = ["services:"]
    for number in range(1, services + 1):
        rows += [
            f"  s{number}:",
            f"    image: {IMAGE}",
            '    command: ["sleep", "1000000"]',
            "    init: false",
            "    stop_grace_period: 1s",
        ]
    return "\n".join(rows) + "\n"


def busybox_archive(folder: Path) -> Path:
    """A docker archive with one layer that holds a static busybox, for `kap load` and `docker load`."""
    program = shutil.which("busybox") or "/bin/busybox"
    if not os.path.exists(program):
        raise SystemExit("busybox is not here: apt-get install busybox-static")
    layer = folder / "layer.tar"
    with tarfile.open(layer, "w") as tar:
        tar.add(program, "bin/busybox")
        for name in ("sh", "sleep", "true", "echo", "cat", "ls"):
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
        for name in ("tmp", "etc", "root"):
            directory = tarfile.TarInfo(name)
            directory.type, directory.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(directory)
    return docker_archive(folder, layer, IMAGE)


def docker_archive(folder: Path, layer: Path, name: str) -> Path:
    """A layer as an image in docker's archive format."""
    digest = hashlib.sha256(layer.read_bytes()).hexdigest()
    config = {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine],
        "os": "linux",
        "config": {"Env": ["PATH=/bin"], "Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    }
    config_text = json.dumps(config).encode()
    config_name = hashlib.sha256(config_text).hexdigest() + ".json"
    (folder / config_name).write_bytes(config_text)
    manifest = [{"Config": config_name, "RepoTags": [name], "Layers": ["layer.tar"]}]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    archive = folder / "image.tar"
    with tarfile.open(archive, "w") as tar:
        for entry in ("manifest.json", config_name, "layer.tar"):
            tar.add(folder / entry, entry)
    return archive


def round_of(tools: list[Tool], size: int, folder: Path) -> None:
    """One interleaved round of every case at one size."""
    places = {}
    for tool in tools:
        place = folder / f"{tool.name}-{size}"
        place.mkdir(exist_ok=True)
        (place / "compose.yaml").write_text(compose_file(size))
        places[tool.name] = place
    cases: list[tuple[str, Callable[[Tool], None]]] = [
        (f"up -d {size}", lambda t: t.timed(f"up -d {size}", places[t.name], "up", "-d")),
        (f"up -d again {size}", lambda t: t.timed(f"up -d again {size}", places[t.name], "up", "-d")),
        (f"ps {size}", lambda t: t.timed(f"ps {size}", places[t.name], "ps", "--format", "json")),
    ]
    if size == 1:
        cases += [
            ("exec", lambda t: t.timed("exec", places[t.name], "exec", "-T", "s1", "true")),
            ("run --rm", lambda t: t.timed("run --rm", places[t.name], "run", "--rm", "-T", "s1", "true")),
            ("version", lambda t: t.timed("version", places[t.name], "version")),
        ]
    cases.append((f"down -t 0 {size}", lambda t: t.timed(f"down -t 0 {size}", places[t.name], "down", "-t", "0")))
    try:
        for _, case in cases:
            for tool in tools:
                case(tool)
    finally:
        for tool in tools:
            tool.run(places[tool.name], "down", "-t", "0", check=False)


def config_file(services: int) -> str:
    """A file with a bit of everything, for `config`."""
    rows = ["services:"]
    for number in range(services):
        rows += [
            f"  svc{number}:",
            f"    image: example/app:1.{number % 10}",
            '    command: ["serve", "--port", "80"]',
            '    environment: {A: "1", B: "${FOO:-bar}", NAME: svc}',
            f'    ports: ["{10000 + number}:80"]',
            f"    volumes: [./data{number}:/data, v{number}:/var/lib/x]",
            f"    depends_on: [{f'svc{number - 1}' if number else ''}]",
            '    healthcheck: {test: ["CMD", "true"], interval: 10s}',
            "    restart: unless-stopped",
            '    labels: ["a=b"]',
            '    deploy: {resources: {limits: {cpus: "0.5", memory: 128M}}}',
        ]
    rows += ["volumes:", *(f"  v{number}:" for number in range(services))]
    return "\n".join(rows) + "\n"


def configs(tools: list[Tool], folder: Path, rounds: int) -> None:
    """`config` alone: needs no engine on either side."""
    for size in (1, 50, 300):
        place = folder / f"config-{size}"
        place.mkdir(exist_ok=True)
        (place / "compose.yaml").write_text(config_file(size))
        for _ in range(max(rounds, 9)):
            for tool in tools:
                tool.timed(f"config {size}", place, "config")


def import_cost() -> None:
    """What the loader's modules cost at start-up."""
    told = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", "import yaml, kapelle.compose.load"],
        capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": "src"},
    ).stderr  # fmt: skip
    rows = {line.split("|")[2].strip(): int(line.split("|")[1]) for line in told.splitlines() if line.count("|") == 2
            and line.split("|")[1].strip().isdigit()}  # fmt: skip
    print(f"import of the loader: {rows['kapelle.compose.load'] / 1000:.1f} ms, of yaml: {rows['yaml'] / 1000:.1f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sizes", default="1,10,50")
    parser.add_argument("--kap", default=f"{sys.executable} -m kapelle")
    parser.add_argument("--docker", default="docker compose", help="the reference; empty to leave it out")
    parser.add_argument("--only", default="", choices=("", "config"), help="config: needs no dockerd")
    parser.add_argument("--json", default="", help="write all timings to this file")
    options = parser.parse_args()
    # as an installed package is: a checkout's modules may never have been compiled
    subprocess.run([sys.executable, "-m", "compileall", "-q", "src"], check=False)
    with tempfile.TemporaryDirectory(prefix="kap-bench-") as name:
        folder = Path(name)
        home = folder / "home"
        environment = {**os.environ, "KAP_HOME": str(home)}
        kap = Tool("kap", shlex.split(options.kap), environment)
        if options.only == "config":
            tools = [kap, *([Tool("docker", shlex.split(options.docker), dict(os.environ))] if options.docker else [])]
            configs(tools, folder, options.rounds)
            report(tools)
            import_cost()
            return
        archive = busybox_archive(folder)
        kap.run(folder, "load", "-i", str(archive))
        tools = [kap]
        if options.docker:
            reference = Tool("docker", shlex.split(options.docker), dict(os.environ))
            loaded = subprocess.run(["docker", "load", "-i", str(archive)], capture_output=True, check=False)
            if loaded.returncode == 0:
                tools.append(reference)
            else:
                print("no dockerd answers: timing kap alone", file=sys.stderr)
        for _ in range(options.rounds):
            for size in (int(s) for s in options.sizes.split(",")):
                round_of(tools, size, folder)
        configs(tools, folder, options.rounds)
        report(tools)
        import_cost()
        if options.json:
            Path(options.json).write_text(json.dumps({t.name: t.seconds for t in tools}, indent=1))
        if len(tools) > 1:
            subprocess.run(["docker", "rmi", "-f", IMAGE], capture_output=True, check=False)


def report(tools: list[Tool]) -> None:
    print(f"load average {os.getloadavg()[0]:.1f}; medians in seconds")
    print(f"{'case':<18}" + "".join(f"{t.name:>10}" for t in tools) + (f"{'ratio':>8}" if len(tools) > 1 else ""))
    for case in tools[0].seconds:
        medians = [statistics.median(t.seconds[case]) for t in tools]
        ratio = f"{medians[0] / medians[1]:>8.2f}" if len(tools) > 1 else ""
        print(f"{case:<18}" + "".join(f"{m:>10.3f}" for m in medians) + ratio)


if __name__ == "__main__":
    main()
