"""Images: a cold pull from a registry on loopback, the first run after it, a load, and builds."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import files
from report import PODMAN
from sides import Failed, Run, Tool

_MEDIA = "application/vnd.docker.distribution.manifest.v2+json"
_NAME = "kap-bench-big"

_DOCKERFILE = f"""\
FROM {files.IMAGE}
COPY stamp /app/
RUN mkdir -p /opt/a && echo one > /opt/a/one
RUN cp /app/stamp /opt/a/stamp && sha256sum /opt/a/stamp > /opt/a/sum
COPY app /app
RUN cat /app/* | wc -c > /opt/a/count
RUN sh -c 'for i in 1 2 3 4 5 6 7 8 9; do echo $i > /opt/a/$i; done'
"""


class Registry(NamedTuple):
    """Where images are served from, and where they are made."""

    address: str
    folder: Path
    megabytes: int


@contextmanager
def served(folder: Path, megabytes: int) -> Iterator[Registry]:
    """A registry of our own for a while."""
    program = shutil.which("docker-registry")
    if program is None:
        raise Failed("no docker-registry here: pulls are left out (apt-get install docker-registry)")
    with socket.create_server(("127.0.0.1", 0)) as s:
        address = f"127.0.0.1:{s.getsockname()[1]}"
    config = folder / "registry.yml"
    config.write_text(
        "version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\n"
        f"storage: {{filesystem: {{rootdirectory: {folder}/registry}}}}\nhttp: {{addr: '{address}'}}\n"
    )
    with subprocess.Popen(
        [program, "serve", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as registry:
        try:
            _wait(address)
            yield Registry(address, folder, megabytes)
        finally:
            registry.terminate()


def _wait(address: str) -> None:
    host, _, port = address.partition(":")
    for _ in range(200):
        try:
            socket.create_connection((host, int(port)), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise Failed("the registry does not come up")


def _push(address: str, layers: list[Path], tag: str) -> None:
    """By plain HTTP, so that the layers are packed as any tool's might be, and not as one of those compared."""
    with ThreadPoolExecutor(os.cpu_count()) as crew:
        packed = list(crew.map(lambda path: gzip.compress(path.read_bytes(), 6, mtime=0), layers))
    config = files.config_of(layers)
    kinds = "application/vnd.docker.image.rootfs.diff.tar.gzip", "application/vnd.docker.container.image.v1+json"
    rows = []
    for data in (*packed, config):
        name = f"sha256:{hashlib.sha256(data).hexdigest()}"
        place = urlsplit(_ask(address, "POST", f"/v2/{_NAME}/blobs/uploads/", b"", 202))
        _ask(address, "PUT", f"{place.path}?{place.query}&digest={name}", data, 201)
        rows.append({"mediaType": kinds[data is config], "size": len(data), "digest": name})
    manifest = {"schemaVersion": 2, "mediaType": _MEDIA, "config": rows[-1], "layers": rows[:-1]}
    _ask(address, "PUT", f"/v2/{_NAME}/manifests/{tag}", json.dumps(manifest).encode(), 201, _MEDIA)


def _ask(address: str, method: str, path: str, body: bytes, wanted: int, kind: str = "application/octet-stream") -> str:
    """The answer's Location."""
    connection = http.client.HTTPConnection(address, timeout=60)
    try:
        connection.request(method, path, body, {"Content-Type": kind})
        answer = connection.getresponse()
        answer.read()
        if answer.status != wanted:
            raise Failed(f"the registry says {answer.status} to {method} {path[:60]}")
        return answer.getheader("Location") or ""
    finally:
        connection.close()


def measured(run: Run, registry: Registry, number: int) -> None:
    """Round `number` of pull, first run and load, interleaved.

    Every round has images of its own, and none is removed before the end: a file system is slow for a while where
    many files have just been deleted (ext4 does not give their inodes out again at once).
    """
    tools = [t for t in run.tools if t.user is None]
    megabytes = registry.megabytes
    layers = files.big_layers(registry.folder, megabytes, f"pull {number}")
    _push(registry.address, layers, str(number))
    reference = f"{registry.address}/{_NAME}:{number}"

    def pull(tool: Tool) -> None:
        os.sync()  # what others have written is not waited for in this one's time
        words = ["--tls-verify=false"] if tool.name == PODMAN else []
        run.note(f"pull {megabytes} MB, cold", tool, tool.run(run.folder, "pull", *words, reference, images=True))
        with run.project(tool, "first", f"services:\n  s1: {{image: '{reference}'}}\n") as place:
            run.note("first run --rm after pull", tool, tool.run(place, "run", "--rm", "-T", "s1", "true"))

    able = run.each(tools, pull)
    layers = files.big_layers(registry.folder, megabytes, f"load {number}")
    archive = files.archive(registry.folder / "big.tar", layers, f"{_NAME}:load{number}")

    def load(tool: Tool) -> None:
        os.sync()
        run.note(f"load {megabytes} MB", tool, tool.run(run.folder, "load", "-i", str(archive), images=True))

    run.each(able, load)


def builds(run: Run) -> None:
    """Six steps after FROM: with a first step that no cache can know, and again with nothing changed."""

    def cold(tool: Tool) -> None:
        place = run.place(tool, "build", f"services:\n  s1: {{build: ., image: 'kap-bench-built:{tool.slug}'}}\n")
        (place / "app").mkdir(exist_ok=True)
        for number in range(20):
            (place / "app" / f"f{number}").write_bytes(bytes([number]) * 10_000)
        (place / "stamp").write_bytes(os.urandom(16).hex().encode())
        (place / "Dockerfile").write_text(_DOCKERFILE)
        os.sync()
        run.note("build of 6 steps, cold", tool, tool.run(place, "build"))

    def cached(tool: Tool) -> None:
        run.note("build of 6 steps, cached", tool, tool.run(run.folder / tool.slug / "build", "build"))

    run.each(run.each([t for t in run.tools if t.user is None], cold), cached)
