"""The sides of the comparison: how each is called, and a run that notes what they take and leaves nothing behind."""

from __future__ import annotations

import json
import os
import platform
import pwd
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any

from report import AS_USER, DOCKER, KAP, PODMAN

OURS = "kap-bench"  # what every image of the benchmark's begins with
LONGEST = 300.0  # seconds of one command


class Failed(Exception):
    """A command of a tool failed: the tool is left out of that case, and the report says so."""


class Tool:
    """One side. `compose` takes compose's words, `images` docker's."""

    def __init__(self, name: str, compose: list[str], images: list[str], environment: dict[str, str]) -> None:
        self.name = name
        self.compose = compose
        self.images = images
        self.environment = environment
        self.user: pwd.struct_passwd | None = None

    @property
    def slug(self) -> str:
        return self.name.replace(" ", "-")

    @property
    def is_kap(self) -> bool:
        return self.name == KAP or self.name.startswith(AS_USER)

    def spawning(self) -> dict[str, Any]:
        """What Popen needs: a session of its own, so that Ctrl-C reaches only us; another user."""
        given: dict[str, Any] = {"env": self.environment, "stdin": subprocess.DEVNULL, "start_new_session": True}
        if self.user is not None:
            given |= {"user": self.user.pw_uid, "group": self.user.pw_gid, "extra_groups": []}
        return given

    def run(self, place: Path, *words: str, images: bool = False, check: bool = True) -> float:
        """Seconds that a command takes. What it prints goes nowhere: a slow reader would be measured too."""
        command = [*(self.images if images else self.compose), *words]
        began = time.perf_counter()
        try:
            done = subprocess.run(
                command,
                cwd=place,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                timeout=LONGEST,
                check=False,
                **self.spawning(),
            )
        except subprocess.TimeoutExpired as e:
            raise Failed(f"{self.name} {' '.join(words[:3])}: no end after {LONGEST:.0f} s") from e
        took = time.perf_counter() - began
        if check and done.returncode:
            told = done.stderr.decode("utf-8", "replace").strip().splitlines()
            raise Failed(f"{self.name} {' '.join(words[:3])}: exit {done.returncode}: {' '.join(told[-2:])[-200:]}")
        return took

    def output(self, place: Path, *words: str) -> str:
        try:
            return subprocess.run(
                [*self.compose, *words], cwd=place, capture_output=True, check=True, text=True, **self.spawning()
            ).stdout
        except subprocess.CalledProcessError as e:
            raise Failed(f"{self.name} {' '.join(words[:3])}: exit {e.returncode}: {e.stderr.strip()[-300:]}") from e


class Run:
    """Tools, a folder, and the figures so far. At its end everything is stopped and removed."""

    def __init__(self, folder: Path, tools: list[Tool]) -> None:
        self.folder = folder
        self.tools = tools
        self.values: dict[str, dict[str, list[float]]] = {}
        self.load: list[float] = []
        self.notes: list[str] = []
        self.round = 0
        self._untagged = {t.name: _untagged(t) for t in tools if not t.is_kap}
        self._started: list[tuple[Tool, Path]] = []

    @property
    def kap(self) -> Tool:
        return self.tools[0]

    def only(self, *names: str) -> list[Tool]:
        return [t for t in self.tools if t.name in names]

    def note(self, case: str, tool: Tool, value: float) -> None:
        self.values.setdefault(case, {}).setdefault(tool.name, []).append(value)
        self.load.append(os.getloadavg()[0])
        print(f"  {case}: {tool.name} {value:.3f}", file=sys.stderr, flush=True)

    def place(self, tool: Tool, name: str, file: str) -> Path:
        """A project's folder with its compose file."""
        path = self.folder / tool.slug / name
        path.mkdir(parents=True, exist_ok=True)
        (path / "compose.yaml").write_text(file)
        if tool.user is not None:
            for folder in (path.parent, path):
                os.chown(folder, tool.user.pw_uid, tool.user.pw_gid)
        return path

    @contextmanager
    def project(self, tool: Tool, name: str, file: str) -> Iterator[Path]:
        """A folder whose project is gone afterwards, whatever happens."""
        place = self.place(tool, name, file)
        self._started.append((tool, place))
        try:
            yield place
        finally:
            with quiet():
                tool.run(place, "down", "-t", "0", "-v", check=False)
            self._started.remove((tool, place))

    def each(self, tools: Sequence[Tool], work: Callable[[Tool], None]) -> list[Tool]:
        """Do it with each tool in turn, another first in every round; returns those that can."""
        able = []
        first = self.round % len(tools) if tools else 0
        for tool in (*tools[first:], *tools[:first]):
            try:
                work(tool)
                able.append(tool)
            except Failed as e:
                self.notes.append(str(e))
                print(f"  {e}", file=sys.stderr, flush=True)
        return [t for t in tools if t in able]

    def record(self) -> dict[str, Any]:
        machine = f"{os.cpu_count()} cores, kernel {platform.release()}, Python {platform.python_version()}"
        return {"machine": machine, "load": self.load, "values": self.values, "notes": self.notes}

    def save(self, path: str) -> None:
        if path:
            Path(path).write_text(json.dumps(self.record(), indent=1))

    def close(self) -> None:
        with quiet():
            for tool, place in list(self._started):
                tool.run(place, "down", "-t", "0", "-v", check=False)
            for tool in self.tools:
                if not tool.is_kap:
                    _remove_images(tool, self.folder, self._untagged[tool.name])

    def __enter__(self) -> Run:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _remove_images(tool: Tool, folder: Path, untagged: set[str]) -> None:
    """The benchmark's, and what builds have left without a name."""
    names = [name for name in _listed(tool, "{{.Repository}}:{{.Tag}}") if OURS in name]
    for name in (*names, *(_untagged(tool) - untagged)):
        tool.run(folder, "rmi", "-f", name, images=True, check=False)


def _untagged(tool: Tool) -> set[str]:
    return _listed(tool, "{{.ID}}", "--filter", "dangling=true")


def _listed(tool: Tool, what: str, *words: str) -> set[str]:
    done = subprocess.run(
        [*tool.images, "images", "--format", what, *words],
        capture_output=True, text=True, check=False, env=tool.environment,
    )  # fmt: skip
    return set(done.stdout.split())


@contextmanager
def quiet() -> Iterator[None]:
    """No Ctrl-C in here: cleaning up is not stopped half-way."""
    before = {s: signal.signal(s, signal.SIG_IGN) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# -- what is here ---------------------------------------------------------------------------------------------------


def kap_tool(command: str, stack: ExitStack, user: str = "") -> Tool:
    """kap, as an ordinary user if one is named. Its home of its own is where kap's would be, not where the machine
    makes and deletes its temporary files: those who make files there later pay for it (ext4).
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("KAP_", "COMPOSE_"))}
    words = shlex.split(command)
    tool = Tool(AS_USER + user if user else KAP, words, words, environment)
    place = "/var/lib"
    if user:
        tool.user = pwd.getpwnam(user)
        place = tool.user.pw_dir
        environment |= {"HOME": place, "USER": user, "LOGNAME": user}
        environment.pop("XDG_RUNTIME_DIR", None)
    home = stack.enter_context(TemporaryDirectory(prefix="kap-bench-", dir=place, ignore_cleanup_errors=True))
    environment["KAP_HOME"] = home
    if tool.user is not None:
        os.chown(home, tool.user.pw_uid, tool.user.pw_gid)
    return tool


def docker_tool(command: str) -> Tool | None:
    """docker compose, if it is here and a dockerd answers."""
    for words in [shlex.split(command)] if command else [["docker", "compose"], ["docker-compose"]]:
        if _works([*words, "version"], dict(os.environ)):
            return (
                Tool(DOCKER, words, ["docker"], dict(os.environ))
                if _works(["docker", "info"], {**os.environ})
                else None
            )
    return None


def podman_tool(command: str, folder: Path) -> Tool | None:
    """podman-compose, if it is here and podman can start a container.

    The limits that podman asks for are more than some machines' roots may give, so it gets ours.
    """
    words = shlex.split(command) if command else ["podman-compose"]
    settings = folder / "containers.conf"
    settings.write_text(
        '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]\n'
        '[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n'
    )
    found = shutil.which(words[0])
    environment = {**os.environ, "CONTAINERS_CONF": str(settings)}
    if found is None or not _works([*words, "version"], environment):
        return None
    return Tool(PODMAN, [found, *words[1:]], ["podman"], environment)


def _works(command: list[str], environment: dict[str, str]) -> bool:
    try:
        done = subprocess.run(command, capture_output=True, timeout=30, check=False, env=environment)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
