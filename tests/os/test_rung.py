"""An ordinary user: which rung it is, what a host that forbids says, what works without containers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kapelle.engines.native import rung

pytestmark = [
    pytest.mark.rootless,
    pytest.mark.skipif(os.geteuid() == 0, reason="is about an ordinary user"),
]

# Ours is a user namespace in which no further ones may be made, and where we are nobody special.
FORBIDDEN = """
import os, sys
from kapelle.linux import idmap
uid, gid = os.getuid(), os.getgid()
idmap.enter_single(uid, gid)
idmap.write("/proc/sys/user/max_user_namespaces", "0")
os.execv(sys.executable, [sys.executable, "-m", "kapelle", *sys.argv[1:]])
"""


def kap(folder: Path, *words: str, forbidden: bool = False, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "KAP_HOME": str(folder / "home"), **environment}
    if not (folder / "compose.yaml").exists():
        (folder / "compose.yaml").write_text("services: {web: {image: 'x:1', build: .}}\n")
    command = [sys.executable, *(["-c", FORBIDDEN] if forbidden else ["-m", "kapelle"]), *words]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("words", [("up", "-d"), ("build",), ("run", "web")])
def test_a_host_that_forbids_namespaces_is_told_with_its_setting_and_nothing_is_made(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    done = kap(tmp_path, *words, forbidden=True)
    assert done.returncode == 1
    assert "KAP701" in done.stderr
    assert "user.max_user_namespaces = 0" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "home").glob("**/container.json"))


@pytest.mark.parametrize("words", [("config", "-q"), ("version",), ("ps",), ("ls",), ("volume", "ls"), ("plan",)])
def test_what_starts_nothing_works_even_there(tmp_path: Path, words: tuple[str, ...]) -> None:
    done = kap(tmp_path, *words, forbidden=True)
    assert done.returncode == 0, done.stderr


def test_the_doctor_says_the_rung_and_what_would_give_more(tmp_path: Path) -> None:
    done = kap(tmp_path, "doctor")
    assert done.returncode == 0, done
    wanted = "R2" if rung.ids_of_user().helpers[0] and os.environ.get("KAP_RUNG") != "R3" else "R3"
    assert f"rung {wanted}" in done.stdout
    forbidden = kap(tmp_path, "doctor", forbidden=True)
    assert forbidden.returncode == 1
    assert "user.max_user_namespaces = 0" in forbidden.stdout
    assert "sysctl -w user.max_user_namespaces=" in forbidden.stdout


def test_less_is_chosen_when_asked_for_and_refused_when_more_is_required(tmp_path: Path) -> None:
    done = kap(tmp_path, "doctor", KAP_RUNG="R3")
    assert "rung R3" in done.stdout
    refused = kap(tmp_path, "up", "--require=root", "-d")
    assert refused.returncode == 1
    assert "KAP701" in refused.stderr
    assert "--require=root" in refused.stderr
    odd = kap(tmp_path, "up", "--require=nothing", "-d")
    assert odd.returncode == 1
    assert "no such demand" in odd.stderr


# Two processes of one user: the first shows its namespace as a keeper does, the second enters where none may be tried.
SHARED = """
import os, sys
from kapelle.engines.native import rung
folder, reading, writing = sys.argv[1], *os.pipe()
go = os.pipe()
keeper = os.fork()
if keeper == 0:
    os.close(go[1])
    rung.enter("R3")
    rung.show(folder)
    os.write(writing, b"+")
    os.read(go[0], 1)
    os._exit(0)
os.read(reading, 1)
theirs = os.stat(f"/proc/{keeper}/ns/user").st_ino
mounts = os.stat("/proc/self/ns/mnt").st_ino
rung._tried = lambda ids: sys.exit("it was tried again")
assert rung.enter("R3", shown=folder) == "R3"
assert os.stat("/proc/self/ns/user").st_ino == theirs
assert os.stat("/proc/self/ns/mnt").st_ino != mounts
"""


def test_the_namespace_of_a_living_keeper_is_joined_without_trying_another(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SHARED, str(tmp_path)], capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 0, done.stderr


def test_the_namespace_that_was_tried_is_the_one_that_is_entered() -> None:
    code = (
        "import os; from kapelle.engines.native import rung; real = rung._tried; made = []\n"
        "def tried(ids):\n"
        "    space, why = real(ids); made.append(os.fstat(space).st_ino); return space, why\n"
        "rung._tried = tried\n"
        "assert rung.enter() in ('R2', 'R3')\n"
        "assert made == [os.stat('/proc/self/ns/user').st_ino]\n"
        "assert (os.getuid(), os.getgid()) == (0, 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, done.stderr
