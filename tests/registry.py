"""A real registry for tests: Debian's docker-registry on a free loopback port, over a temporary directory."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.registry_access import Tls


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


@contextmanager
def running(directory: Path, extra: str = "", tls: Tls | None = None) -> Iterator[str]:
    """Start a registry that keeps its data in `directory`; gives its HOST:PORT. Skips where the program is missing.

    extra: further lines of its configuration file. tls: what it serves HTTPS with.
    """
    program = shutil.which("docker-registry")
    if program is None:
        pytest.skip("needs Debian's docker-registry")
    directory.mkdir(parents=True, exist_ok=True)
    port = free_port()
    config = directory / "config.yml"
    config.write_text(
        "version: 0.1\n"
        "log: {level: error, accesslog: {disabled: true}}\n"
        f"storage: {{filesystem: {{rootdirectory: {directory / 'data'}}}, delete: {{enabled: true}}}}\n"
        f"http: {{addr: '127.0.0.1:{port}'{tls.config if tls else ''}}}\n" + extra
    )
    with open(directory / "log", "wb") as log:
        # it takes any REGISTRY_… for a setting of its own; REGISTRY_AUTH_FILE is skopeo's
        environment = {k: v for k, v in os.environ.items() if not k.startswith("REGISTRY_")}
        process = subprocess.Popen([program, "serve", str(config)], stdout=log, stderr=log, env=environment)
    try:
        end = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 5).close()
                break
            except OSError:
                assert process.poll() is None, (directory / "log").read_text()
                assert time.monotonic() < end, "the registry does not come up"
                time.sleep(0.02)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """HOST:PORT of a registry for the tests of one module."""
    with running(tmp_path_factory.mktemp("registry")) as address:
        yield address
