"""A real `kap` for scenarios: its own folder and project, one place for images for the whole session."""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.checks import wait_until

ROOT = Path(__file__).resolve().parents[2]


_PORTS = random.Random(os.getuid())  # suites of several users run side by side: each looks in its own place
_FIRST = 20_000 + os.getuid() % 10 * 1000


def free_port() -> int:
    while True:
        port = _FIRST + _PORTS.randrange(1000)
        if is_free(port):
            return port


def is_well_known_free(port: int) -> bool:
    """May this suite take a port that others want too? Only root's does."""
    return os.getuid() == 0 and is_free(port)


def is_free(port: int) -> bool:
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind(("0.0.0.0", port))
        except OSError:
            return False
        return True


class Done:
    """A command that has ended."""

    def __init__(self, process: subprocess.CompletedProcess[str]) -> None:
        self.code = process.returncode
        self.out = process.stdout
        self.err = process.stderr

    def __repr__(self) -> str:
        return f"exit {self.code}\n--- out\n{self.out}\n--- err\n{self.err}"


class Kap:
    """`kap` in one folder."""

    def __init__(self, folder: Path, home: Path) -> None:
        self.folder = folder
        self.home = home
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("COMPOSE_", "KAP_")) or k == "KAP_RUNG"},
            "KAP_HOME": str(home),
            "KAP_STAND_INS": "1",
            "KAP_HOST_SETTINGS": "1",
            "PYTHONPATH": str(ROOT / "src"),
        }
        self.command = [sys.executable, "-m", "kapelle"]

    def file(self, text: str, name: str = "compose.yaml") -> None:
        (self.folder / name).write_text(text)

    def __call__(self, *words: str, timeout: float = 120, stdin: str | None = None, **environment: str) -> Done:
        """Run a command to its end."""
        return Done(
            subprocess.run(
                [*self.command, *words],
                cwd=self.folder,
                env={**self.environment, **environment},
                capture_output=True,
                text=True,
                timeout=timeout,
                input=stdin if stdin is not None else "",
                check=False,
            )
        )

    def ok(self, *words: str, timeout: float = 120, **environment: str) -> Done:
        """Run a command that has to succeed."""
        done = self(*words, timeout=timeout, **environment)
        assert done.code == 0, f"kap {' '.join(words)}: {done}"
        return done

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start a command and leave it running."""
        return subprocess.Popen(
            [*self.command, *words],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def ps(self, *words: str) -> dict[str, dict[str, Any]]:
        """Containers by name."""
        rows = [json.loads(line) for line in self.ok("ps", "-a", "--format", "json", *words).out.splitlines()]
        return {row["Name"]: row for row in rows}

    def state(self, name: str) -> str:
        row = self.ps().get(name)
        return "" if row is None else str(row["State"])


def get(address: str, timeout: float = 10) -> str:
    """The body of an HTTP answer; "" when there is none."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(address, timeout=timeout) as answer:
            return str(answer.read().decode())
    except (OSError, urllib.error.URLError):
        return ""


def answers(address: str, text: str, seconds: float = 20) -> None:
    """Wait until an address answers with this text in it."""
    wait_until(lambda: text in get(address, 2), seconds, f"{address} does not answer with {text!r}: {get(address)!r}")


@pytest.fixture(scope="session")
def kap_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all scenarios keep images, so that a stand-in is made once. KAP_TEST_HOME keeps it over sessions."""
    kept = os.environ.get("KAP_TEST_HOME")
    return Path(kept) if kept else tmp_path_factory.mktemp("kap-home")


@pytest.fixture
def kap(tmp_path: Path, kap_home: Path, request: pytest.FixtureRequest) -> Iterator[Kap]:
    """`kap` in a new folder; its project is removed afterwards."""
    name = getattr(request, "param", "") or "".join(c for c in request.node.originalname[5:35] if c.isalnum())
    folder = tmp_path / name
    folder.mkdir()
    made = Kap(folder, kap_home)
    yield made
    done = made("down", "-v", "-t", "0", "--remove-orphans")
    assert done.code == 0 or not any(folder.glob("*compose*")), done


def one_id(kap: Kap) -> bool:
    """Does this user have one id only (rung R3)?"""
    from kapelle.engines.native import rung

    return os.geteuid() != 0 and (kap.environment.get("KAP_RUNG") == "R3" or not rung.ids_of_user().helpers[0])


def copy_example(name: str, kap: Kap) -> None:
    """An example's files into the folder."""
    ignore = shutil.ignore_patterns(".*_cache", "__pycache__")
    shutil.copytree(ROOT / "examples" / name, kap.folder, dirs_exist_ok=True, ignore=ignore)
