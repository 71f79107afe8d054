"""What is ours is private to the user: modes, places that others may write to, and secrets in nothing that is seen."""

from __future__ import annotations

import os
import re
import socket
import stat
from pathlib import Path

import pytest

from tests.checks import wait_until
from tests.scenarios.conftest import ROOT, Kap

SECRET = "s3cr3t-0f-the-test"
FILE = """services:
  a:
    image: busybox
    command: [sh, -c, 'echo started; sleep 1000']
    environment: {PASSWORD: "${WORD}"}
    secrets: [word]
    configs: [{source: conf, target: /conf}]
    healthcheck: {test: 'test -n "$$PASSWORD"', interval: 1s}
secrets:
  word: {environment: WORD}
configs:
  conf: {content: "key: ${WORD}"}
"""


def test_folders_sockets_logs_and_secrets_are_for_their_user_alone(kap: Kap) -> None:
    os.umask(0)  # what a careless shell has
    try:
        kap.file(FILE)
        kap.ok("up", "-d", "--wait", WORD=SECRET)
        kap.ok("run", "--rm", "-T", "a", "true", WORD=SECRET)
    finally:
        os.umask(0o022)
    found = []
    for top in ("state", "run", "config"):
        for folder, folders, names in os.walk(kap.home / top):
            for name in (*folders, *names) if not folder.endswith("/reports") else ():
                path = f"{folder}/{name}"
                info = os.lstat(path)
                if not stat.S_ISLNK(info.st_mode) and info.st_mode & 0o077 and not _is_mounted(path):
                    found.append(f"{path} {stat.filemode(info.st_mode)}")
    assert found == []


def _is_mounted(path: str) -> bool:
    """What every user in a container reads, in a folder that is closed: hosts, resolv.conf, hostname."""
    return Path(path).name in ("hosts", "resolv.conf", "hostname") or "/files/" in path


def test_a_secret_is_in_no_argument_event_log_or_error(kap: Kap) -> None:
    kap.file(FILE)
    said = [kap.ok("up", "-d", "--wait", WORD=SECRET)]
    lines = ""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            lines += Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace")
        except OSError:
            continue
    assert SECRET not in lines
    said += [kap(*words, WORD=SECRET) for words in (
        ("ps", "-a", "--format", "json"), ("logs",), ("ls", "--format", "json"), ("plan",), ("events", "--since", "1h",
        "--until", "0s", "--json"), ("exec", "-T", "a", "no-such-program"), ("up", "-d", "--scale", "nobody=2"),
    )]  # fmt: skip
    assert [d for d in said if SECRET in d.out + d.err] == []
    for path in (kap.home / "state").rglob("*"):
        if path.is_file() and path.name in ("events.jsonl", "keeper.log"):
            assert SECRET not in path.read_text(errors="replace"), path
    for path in (kap.home / "run").rglob("keeper.log"):
        assert SECRET not in path.read_text(errors="replace"), path


def test_nothing_listens_but_what_is_published(kap: Kap) -> None:
    before = _listening()
    kap.file("services:\n  a: {image: busybox, command: [httpd, -f, -p, '80'], init: true}\n")
    kap.ok("up", "-d")
    wait_until(lambda: kap.state(f"{kap.folder.name}-a-1") == "running")
    mine = _inodes(kap)
    assert [row for row in _listening() - before if row.rpartition(" ")[2] in mine] == []


def _listening() -> set[str]:
    """Listening sockets of the host: "address inode"."""
    found = set()
    for name in ("tcp", "tcp6"):
        for row in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            fields = row.split()
            if fields[3] == "0A":
                found.add(f"{fields[1]} {fields[9]}")
    return found


def _inodes(kap: Kap) -> set[str]:
    """Sockets that processes of this home hold."""
    found: set[str] = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if str(kap.home).encode() not in Path(f"/proc/{pid}/cmdline").read_bytes():
                continue
            for fd in os.listdir(f"/proc/{pid}/fd"):
                found |= set(re.findall(r"socket:\[(\d+)\]", os.readlink(f"/proc/{pid}/fd/{fd}")))
        except OSError:
            continue
    return found


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user")
def test_another_user_can_not_talk_to_a_supervisor_or_see_what_is_ours(kap: Kap) -> None:
    kap.file(FILE)
    kap.ok("up", "-d", WORD=SECRET)
    sockets = list((kap.home / "run").rglob("socket"))
    assert sockets
    child = os.fork()
    if child == 0:
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
        reached = False
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asking:
            try:
                asking.connect(str(sockets[0]))
                reached = True
            except OSError:
                pass
        reached = reached or os.access(kap.home / "state" / "projects", os.R_OK)
        os._exit(1 if reached else 0)
    assert os.waitpid(child, 0)[1] == 0


def test_no_shell_is_built_from_strings_and_nothing_of_ours_is_set_uid() -> None:
    shells = re.compile(
        r"shell\s*=\s*True|os\.system\(|os\.popen\(|getoutput\(|\bsubprocess\.(run|Popen|call)\(\s*f?[\"']"
    )
    for path in (*(ROOT / "src").rglob("*.py"), *(ROOT / "tools").rglob("*.py")):
        assert not shells.search(path.read_text()), path
        assert not path.stat().st_mode & 0o6000
