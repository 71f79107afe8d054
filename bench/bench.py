"""Compare kap with docker compose on dockerd, and with podman-compose, in one interleaved run.

    python bench/bench.py [--rounds 3] [--only lifecycle,…] [--as USER]… [--json FILE]

Needs root, a static busybox and Debian's python3 (images are made from them), a running dockerd and podman-compose for
their columns, docker-registry for pulls. Without dockerd kap is timed alone. Each tool does a case before the next case
begins, so that all of them have the same machine. --as adds kap as an ordinary user (with subordinate ids or without:
whatever the user has). Leaves nothing behind, also after Ctrl-C. What the figures mean: docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import files
import health
import lifecycle
import logs
import pulling
import report
import traffic
from sides import Failed, Run, Tool, docker_tool, kap_tool, podman_tool

GROUPS = (
    "lifecycle",
    "handled",
    "config",
    "chain",
    "checks",
    "memory",
    "logs",
    "traffic",
    "images",
    "build",
    "growing",
)
_ONCE = ("checks", "memory", "growing")  # long, and steady from one round to the next
_NEED_PYTHON = ("logs", "traffic")


def main() -> None:
    options = _options()
    wanted = options.only.split(",")
    if unknown := set(wanted) - set(GROUPS):
        raise SystemExit(f"no such group: {', '.join(sorted(unknown))}; there are {', '.join(GROUPS)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    # as an installed package is: a checkout's modules may never have been compiled
    subprocess.run([sys.executable, "-m", "compileall", "-q", "src"], check=False)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kap-bench-", ignore_cleanup_errors=True)))
        folder.chmod(0o755)  # ordinary users look for their own folders in it
        run = stack.enter_context(Run(folder, _tools(options, folder, stack)))
        try:
            _measure(run, wanted, options, stack)
        except KeyboardInterrupt:
            run.notes.append("stopped before the end")
            raise
        finally:
            run.save(options.json)
            if run.values:
                print(report.text(run.record()))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sizes", default="1,10,50,100", help="numbers of services, for lifecycle")
    parser.add_argument("--only", default=",".join(GROUPS), help=f"groups of cases: {', '.join(GROUPS)}")
    parser.add_argument("--kap", default=f"{sys.executable} -m kapelle")
    parser.add_argument("--docker", default="", help='how docker compose is called; "none" to leave it out')
    parser.add_argument("--podman", default="", help='how podman-compose is called; "none" to leave it out')
    parser.add_argument("--podman-most", type=int, default=10, help="most services that podman-compose is given")
    parser.add_argument("--as", dest="users", action="append", default=[], metavar="USER", help="kap as this user too")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement of traffic")
    parser.add_argument("--lines", type=int, default=1_000_000, help="of 100 bytes, for logs")
    parser.add_argument("--megabytes", type=int, default=300, help="of the image that is pulled and loaded")
    parser.add_argument("--json", default="", help="write every figure to this file")
    return parser.parse_args()


def _tools(options: argparse.Namespace, folder: Path, stack: ExitStack) -> list[Tool]:
    tools = [kap_tool(options.kap, stack)]
    for name, wanted, find in (
        (report.DOCKER, options.docker, docker_tool),
        (report.PODMAN, options.podman, lambda words: podman_tool(words, folder)),
    ):
        found = None if wanted == "none" else find(wanted)
        if found is not None:
            tools.append(found)
        else:
            print(f"{name}: left out", file=sys.stderr)
    return [*tools, *(kap_tool(options.kap, stack, user) for user in options.users)]


def _measure(run: Run, wanted: list[str], options: argparse.Namespace, stack: ExitStack) -> None:
    if set(wanted) != {"config"}:
        _give(run, files.archive(run.folder / "busybox.tar", [files.busybox_layer(run.folder / "0.tar")], files.IMAGE))
    if set(wanted) & set(_NEED_PYTHON):
        compiled = files.peer(run.folder / "peer")
        if compiled is None:
            run.notes.append("no C compiler: traffic is made and measured by Python, whose own work hides differences")
        layer = files.python_layer(run.folder / "python-layer.tar", compiled)
        _give(run, files.archive(run.folder / "python.tar", [layer], files.PYTHON_IMAGE))
    registry = None
    if "images" in wanted:
        try:
            registry = stack.enter_context(pulling.served(run.folder, options.megabytes))
        except Failed as e:
            run.notes.append(str(e))
    sizes = [int(s) for s in options.sizes.split(",")]
    groups: dict[str, Callable[[int], None]] = {
        "lifecycle": lambda _: lifecycle.sizes(run, sizes, options.podman_most),
        "handled": lambda _: lifecycle.handled(run),
        "config": lambda _: lifecycle.configs(run),
        "chain": lambda _: health.chain(run),
        "checks": lambda _: health.checks(run),
        "memory": lambda _: health.memory(run),
        "logs": lambda _: logs.measured(run, options.lines),
        "traffic": lambda _: traffic.measured(run, options.seconds),
        "images": lambda number: pulling.measured(run, registry, number) if registry else None,
        "build": lambda _: pulling.builds(run),
        "growing": lambda _: lifecycle.growing(run),
    }
    for number in range(options.rounds):
        run.round = number
        for name, work in groups.items():
            if name in wanted and (number == 0 or name not in _ONCE):
                print(f"round {number + 1}: {name} (load {os.getloadavg()[0]:.1f})", file=sys.stderr, flush=True)
                work(number + 1)
                run.save(options.json)


def _give(run: Run, archive: Path) -> None:
    """The same image to everyone."""

    def load(tool: Tool) -> None:
        tool.run(run.folder, "load", "-i", str(archive), images=True)

    run.tools[:] = run.each(run.tools, load)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
