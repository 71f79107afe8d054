"""What the tools are given: compose files, and images as docker archives made from what the machine has."""

from __future__ import annotations

import glob
import hashlib
import io
import json
import os
import random
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterable
from pathlib import Path

import probe

IMAGE = "kap-bench:1"  # a static busybox
PYTHON_IMAGE = "kap-bench-python:1"  # the machine's interpreter and probe.py
PYTHON = "/usr/bin/python3"
PROBE = [PYTHON, "-I", "-S", "/probe.py"]
PEER = "/peer"
_APPLETS = ("sh", "sleep", "true", "echo", "cat", "ls", "cp", "mkdir", "sha256sum", "wc")


def sleepers(services: int) -> str:
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


def handlers(services: int) -> str:
    """Services that end by themselves when they get SIGTERM."""
    command = json.dumps(["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1000000 & wait $!; done"])
    return "services:\n" + "".join(f"  s{n}: {{image: {IMAGE}, command: {command}}}\n" for n in range(services))


def mixed(services: int) -> str:
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


# -- images ---------------------------------------------------------------------------------------------------------


def busybox_layer(path: Path) -> Path:
    program = shutil.which("busybox") or "/bin/busybox"
    if not os.path.exists(program):
        raise SystemExit("busybox is not here: apt-get install busybox-static")
    with tarfile.open(path, "w") as tar:
        tar.add(program, "bin/busybox")
        for name in _APPLETS:
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
        for name in ("tmp", "etc", "root"):
            directory = tarfile.TarInfo(name)
            directory.type, directory.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(directory)
    return path


def peer(path: Path) -> Path | None:
    """Both ends of traffic, compiled; None where nothing compiles C."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    source = Path(__file__).with_name("peer.c")
    if compiler is None or subprocess.run([compiler, "-O2", "-o", path, source], check=False).returncode:
        return None
    path.chmod(0o755)
    return path


def python_layer(path: Path, compiled: Path | None) -> Path:
    """The machine's own interpreter, its standard library and what both link to; `compiled`: the program of `peer`."""
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
        if compiled is not None:
            tar.add(compiled, PEER[1:])
    return path


def _wanted(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    left_out = ("/test", "/idlelib", "/tkinter", "/ensurepip", "/lib2to3", "/config-", "/dist-packages")
    return None if any(part in member.name for part in left_out) else member


def big_layers(folder: Path, megabytes: int, salt: str, layers: int = 6, files: int = 7200) -> list[Path]:
    """Layers that a registry could have: files of many sizes, half of their bytes random, half of them text.

    The first has busybox, so that the image runs. Two salts make images of which no layer is the same.
    """
    chance = random.Random(300)
    words = [chance.randbytes(chance.randint(2, 9)).hex().encode() for _ in range(500)]
    text = b" ".join(chance.choices(words, k=200_000))
    noise = chance.randbytes(4 << 20)
    found = [busybox_layer(folder / "big-0.tar")]
    average = megabytes * 1_000_000 // files
    for number in range(layers):
        path = folder / f"big-{number}.tar"
        with tarfile.open(path, "a" if number == 0 else "w") as tar:
            _add(tar, f"usr/lib/part{number}/salt", salt.encode())
            for file in range(files // layers):
                size = int(average * chance.choice((0.1, 0.3, 0.5, 0.7, 1.0, 1.2, 1.6, 2.6)))
                half = size // 2
                at = chance.randrange(len(noise) - half), chance.randrange(len(text) - half)
                data = noise[at[0] : at[0] + half] + text[at[1] : at[1] + half]
                _add(tar, f"usr/lib/part{number}/d{file % 40}/f{file}", data)
        if path not in found:
            found.append(path)
    return found


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mtime, member.mode = len(data), 1_700_000_000, 0o644
    tar.addfile(member, io.BytesIO(data))


def config_of(layers: Iterable[Path]) -> bytes:
    ids = [f"sha256:{digest(layer)}" for layer in layers]
    return json.dumps(
        {
            "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine],
            "os": "linux",
            "config": {"Env": ["PATH=/bin"], "Cmd": ["sh"]},
            "rootfs": {"type": "layers", "diff_ids": ids},
            "history": [{"created_by": "kap-bench"} for _ in ids],
        }
    ).encode()


def digest(path: Path) -> str:
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def archive(path: Path, layers: list[Path], name: str) -> Path:
    """Layers as an image in docker's archive format."""
    config = config_of(layers)
    config_name = hashlib.sha256(config).hexdigest() + ".json"
    names = [f"{number}/layer.tar" for number in range(len(layers))]
    manifest = json.dumps([{"Config": config_name, "RepoTags": [name], "Layers": names}]).encode()
    with tarfile.open(path, "w") as tar:
        for member_name, data in (("manifest.json", manifest), (config_name, config)):
            _add(tar, member_name, data)
        for layer, member_name in zip(layers, names, strict=True):
            tar.add(layer, member_name)
    path.chmod(0o644)
    return path
