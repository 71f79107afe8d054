"""Stand-ins made from the real archives, and run: each keeps what the official image promises.

Needs root (a mount namespace with the image's layers) and a Debian mirror and PyPI by the host's settings.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kapelle.errors import ImageError
from kapelle.events import Event, Notice
from kapelle.images.standins import provide
from kapelle.images.store import Store

pytestmark = [pytest.mark.root, pytest.mark.network]

_ENTER = r"""
set -e
mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" "$2/merged"
cd "$2/merged"
mount -t proc proc proc
mount -t tmpfs tmpfs dev
mkdir dev/shm
for name in null zero random urandom full tty; do touch dev/$name; mount --bind /dev/$name dev/$name; done
ln -s /proc/self/fd dev/fd
ln -s /proc/self/fd/1 dev/stdout
ln -s /proc/self/fd/2 dev/stderr
rm -f etc/resolv.conf
cp -L /etc/resolv.conf /etc/hosts etc/
ip link set lo up 2>/dev/null || true
shift 2
exec chroot . "$@"
"""

Run = Callable[..., str]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    if os.geteuid() != 0:
        pytest.skip("needs root: mounts an image's layers")
    root = tmp_path_factory.mktemp("standins")
    yield Store(f"{root}/images")
    shutil.rmtree(root)


@pytest.fixture
def run(store: Store, tmp_path: Path) -> Run:
    """Run a shell script in a fresh container of an image, in the host's network or its own."""

    def run(name: str, script: str, *, network: bool = False, environ: dict[str, str] | None = None) -> str:
        try:
            image = store.find(name) or provide.provide(name, store, None, lambda _: None, environ=os.environ)
        except ImageError as e:
            if "no Debian mirror answers" in e.what:
                pytest.skip(f"{e.what}: {e.details}")
            raise
        for part in ("upper", "work", "merged"):
            (tmp_path / part).mkdir(exist_ok=True)
        config = image.config["config"]
        settings = [*config.get("Env", ()), *(f"{k}={v}" for k, v in (environ or {}).items())]
        directory = config.get("WorkingDir") or "/"
        inner = ["/usr/bin/env", "-i", "HOME=/root", *settings, "/bin/sh", "-c", f"cd {directory}\n{script}"]
        flags = ["--mount", "--pid", "--fork", "--kill-child", "--ipc", *([] if network else ["--net"])]
        lowers = ":".join(reversed(store.layer_dirs(image)))
        done = subprocess.run(
            ["unshare", *flags, "sh", "-c", _ENTER, "sh", lowers, str(tmp_path), *inner],
            capture_output=True, text=True, timeout=100, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def until(command: str) -> str:
    return f"n=0; until {command}; do n=$((n+1)); [ $n -lt 100 ] || exit 9; sleep 0.1; done\n"


def test_debian_lets_apt_install_more(run: Run) -> None:
    out = run(
        "debian:bookworm-slim",
        "apt-get update >/dev/null && apt-get check && dpkg --audit && apt-get install -y --no-install-recommends "
        "postgresql-client >/dev/null 2>&1 && psql --version && dpkg --audit && su -s /bin/sh nobody -c id",
        network=True,
    )
    assert "psql (PostgreSQL) 15" in out
    assert "uid=65534(nobody)" in out


def test_redis_runs_as_its_user_and_is_open_to_its_network(run: Run) -> None:
    out = run(
        "redis:7-alpine",
        "docker-entrypoint.sh redis-server >/dev/null &\n" + until("redis-cli ping 2>/dev/null")
        + "redis-cli config get protected-mode; redis-cli config get dir; stat -c %u /proc/$(redis-cli info server | "
        "sed -n 's/^process_id:\\([0-9]*\\).*/\\1/p')\nredis-cli set a b; redis-cli shutdown; wait; ls -n /data",
    )  # fmt: skip
    assert out.split("\n")[0:6] == ["PONG", "protected-mode", "no", "dir", "/data", "999"]
    assert "999 999" in out.replace("      ", " ")
    assert "dump.rdb" in out


def test_redis_keeps_a_configuration_file_s_protected_mode(run: Run) -> None:
    out = run(
        "redis:7-alpine",
        "echo 'protected-mode yes' >/tmp/r.conf; docker-entrypoint.sh /tmp/r.conf >/dev/null &\n"
        + until("redis-cli ping 2>/dev/null") + "redis-cli config get protected-mode; redis-cli shutdown",
    )  # fmt: skip
    assert "protected-mode\nyes" in out


def test_nginx_serves_its_page_and_fills_templates_in(run: Run) -> None:
    out = run(
        "nginx:alpine",
        "mkdir /etc/nginx/templates; echo 'server { listen 81; return 200 \"${GREETING} $host\"; }' "
        ">/etc/nginx/templates/x.conf.template\n/docker-entrypoint.sh nginx -g 'daemon off;' &\n"
        + until("curl -sf http://127.0.0.1/ >/dev/null")
        + "curl -s http://127.0.0.1/; curl -s http://127.0.0.1:81/; kill -QUIT $(cat /run/nginx.pid); wait",
        environ={"GREETING": "hello"},
    )  # fmt: skip
    assert "Welcome to nginx!" in out
    assert "hello 127.0.0.1" in out
    assert '"GET / HTTP/1.1" 200' in out  # the access log is standard output


_POSTGRES = (
    "docker-entrypoint.sh postgres >/tmp/log 2>&1 &\n"
    + until("psql -h 127.0.0.1 -U agent -d memory -Atc 'select 1' >/dev/null 2>&1")
    + "psql -h 127.0.0.1 -U agent -d memory -Atc "
)


def test_postgres_makes_the_database_and_runs_the_scripts(run: Run) -> None:
    out = run(
        "postgres:16-alpine",
        "cd /docker-entrypoint-initdb.d; echo \"create table t(x text); insert into t values ('grüße')\" >1.sql\n"
        "echo \"create extension pg_trgm; insert into t values ('packed')\" | gzip >2.sql.gz\n"
        "echo 'psql -U \"$POSTGRES_USER\" \"$POSTGRES_DB\" -c \"insert into t select version()\"' >3.sh\n"
        f"{_POSTGRES} 'select upper(x) from t; show server_encoding'\npg_isready -U agent\n"
        'stat -c %u "$PGDATA"; stat -c %u /proc/$(head -1 "$PGDATA/postmaster.pid")\n'
        'PGPASSWORD=wrong psql -h "$(hostname -i 2>/dev/null || echo 127.0.0.1)" -U agent memory -c "select 1" 2>&1\n'
        'kill -INT $(head -1 "$PGDATA/postmaster.pid"); wait; tail -1 /tmp/log',
        environ={"POSTGRES_USER": "agent", "POSTGRES_DB": "memory", "POSTGRES_PASSWORD_FILE": "/etc/hostname",
                 "PGPASSWORD": "localhost"},
    )  # fmt: skip
    assert "GRÜßE\nPACKED\nPOSTGRESQL 16." in out
    assert "UTF8" in out
    assert "accepting connections" in out
    assert "\n70\n70\n" in out  # the Alpine image's user
    assert out.rstrip().endswith("database system is shut down")


def test_postgres_refuses_to_start_without_a_password(run: Run) -> None:
    out = run("postgres:16-alpine", "docker-entrypoint.sh postgres 2>&1 || echo code $?")
    assert "superuser password is not specified" in out
    assert "code 1" in out


def test_postgres_runs_as_any_user(run: Run) -> None:
    out = run(
        "postgres:16-alpine",
        f"export PGDATA=/tmp/data\nsetpriv --reuid 1234 --regid 1234 --clear-groups {_POSTGRES} 'select 42'\n"
        'stat -c %u /tmp/data; kill -INT $(head -1 "$PGDATA/postmaster.pid"); wait',
        environ={"POSTGRES_USER": "agent", "POSTGRES_DB": "memory", "POSTGRES_HOST_AUTH_METHOD": "trust"},
    )
    assert out.split() == ["42", "1234"]


def test_python_installs_from_an_index_and_has_no_curl(run: Run) -> None:
    out = run(
        "python:3.12-slim",
        "python -c 'import sys, ssl, sqlite3, venv; print(sys.executable, sys.version_info[:2] <= (3, 12))'\n"
        "echo $LANG; command -v curl || echo no curl; mkdir -p /tmp/p/thing\n"
        "echo 'print(\"made\")' >/tmp/p/thing/__main__.py; touch /tmp/p/thing/__init__.py\n"
        'echo \'from setuptools import setup; setup(name="thing", packages=["thing"])\' >/tmp/p/setup.py\n'
        "pip install -q --no-build-isolation --root-user-action ignore /tmp/p && python -m thing && pip list",
    )
    assert "/usr/local/bin/python True\nC.UTF-8\nno curl\nmade\n" in out
    assert "thing" in out.split("made")[1]


def test_busybox_has_its_commands(run: Run) -> None:
    assert run("busybox", "echo a b | awk '{ print $2 }'; id -u; wget --help 2>&1 | grep -c BusyBox") == "b\n0\n1\n"


def test_the_versions_asked_for_and_given_are_told(store: Store, run: Run) -> None:
    run("python:3.12-slim", "true")
    seen: list[Event] = []
    image = provide.provide("python:3.12-slim", store, None, seen.append, environ={})  # no settings: nothing is fetched
    assert image.standin.startswith("Python 3.11.")
    assert image.standin.endswith(" on Debian 12, not 3.12")
    assert [e.text for e in seen if isinstance(e, Notice)] == [
        f"python:3.12-slim: registry not reachable; using a stand-in ({image.standin})"
    ]


@pytest.mark.parametrize("name", ["busybox", "memcached:1.6.18", "redis:7", "node:20"])
def test_the_same_parts_give_the_same_image(store: Store, tmp_path: Path, name: str) -> None:
    """From two empty stores; what was downloaded may be shared, it goes by digest."""
    digests = []
    for place in ("one", "two"):
        fresh = Store(f"{tmp_path}/{place}")
        os.makedirs(f"{fresh.root}/standins")
        os.makedirs(f"{store.root}/standins/blobs", exist_ok=True)
        os.symlink(f"{store.root}/standins/blobs", f"{fresh.root}/standins/blobs")
        image = provide.provide(name, fresh, None, lambda _: None, environ=os.environ)
        digests.append((image.id, image.layers))
    assert digests[0] == digests[1]
