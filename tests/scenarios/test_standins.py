"""Stand-ins as their users meet them: real servers that keep what the official images promise.

All need package registries (Debian, PyPI) for the first time on a machine; with KAP_TEST_HOME they are found made.
"""

from __future__ import annotations

import gzip
import json

import pytest

from tests.checks import wait_until
from tests.scenarios.conftest import ROOT, Kap, answers, free_port

pytestmark = pytest.mark.network


def test_mariadb_makes_database_and_user_runs_the_scripts_and_keeps_what_was_written(kap: Kap) -> None:
    scripts = kap.folder / "init"
    scripts.mkdir()
    (scripts / "1.sql").write_text("create table t (x varchar(20)); insert into t values ('plain');\n")
    (scripts / "2.sql.gz").write_bytes(gzip.compress(b"insert into t values ('packed');\n"))
    (scripts / "3.sh").write_text("docker_process_sql <<<\"insert into t values ('$MARIADB_USER')\"\n")
    (kap.folder / "secret.txt").write_text("se'c\\r%t\n")
    kap.file("""
        services:
          db:
            image: mariadb:10.11
            environment:
              MARIADB_ROOT_PASSWORD_FILE: /run/secrets/root
              MYSQL_DATABASE: app_db
              MARIADB_USER: app
              MYSQL_PASSWORD: pw
            secrets: [root]
            volumes: ["data:/var/lib/mysql", "./init:/docker-entrypoint-initdb.d:ro"]
            healthcheck: {test: [CMD, healthcheck.sh, --connect, --innodb_initialized], interval: 1s, retries: 60}
        secrets: {root: {file: secret.txt}}
        volumes: {data: {}}
    """)
    kap.ok("up", "-d", "--wait")

    def ask(sql: str, user: str = "app", password: str = "pw") -> list[str]:
        words = ("mariadb", "-h127.0.0.1", f"-u{user}", f"-p{password}", "-N", "-e", sql)
        return kap.ok("exec", "-T", "db", *words).out.split()

    assert ask("select x from app_db.t") == ["plain", "packed", "app"]
    assert ask("show databases like 'test'", "root", "se'c\\r%t") == []
    denied = kap("exec", "-T", "db", "mariadb", "-h127.0.0.1", "-uroot", "-pwrong", "-e", "select 1")
    assert "Access denied" in denied.err
    ask("insert into app_db.t values ('later')")
    kap.ok("up", "-d", "--wait", "--force-recreate")
    assert ask("select x from app_db.t") == ["plain", "packed", "app", "later"]
    assert kap.ok("exec", "-T", "db", "stat", "-c", "%U %u", "/var/lib/mysql/app_db").out.split() == ["mysql", "999"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("MARIADB_DATABASE: x", "password option is not specified"),
        ("{MARIADB_ROOT_PASSWORD: a, MARIADB_USER: root, MARIADB_PASSWORD: b}", 'MARIADB_USER="root"'),
        ("{MARIADB_ROOT_PASSWORD: a, MARIADB_ROOT_PASSWORD_FILE: /etc/hostname}", "are exclusive"),
    ],
)
def test_mariadb_refuses_to_start_without_a_clear_password(kap: Kap, settings: str, said: str) -> None:
    shape = settings if settings.startswith("{") else f"{{{settings}}}"
    kap.file(f"services:\n  db: {{image: 'mariadb:10.11', environment: {shape}}}\n")
    done = kap("run", "--rm", "-T", "db")
    assert done.code == 1
    assert said in done.out + done.err


def test_mariadb_tells_a_random_root_password(kap: Kap) -> None:
    kap.file("services:\n  db: {image: 'mariadb:10.11', environment: {MARIADB_RANDOM_ROOT_PASSWORD: 1}}\n")
    kap.ok("up", "-d")
    wait_until(lambda: "init process done" in kap.ok("logs", "db").out, 60)
    line = next(x for x in kap.ok("logs", "--no-log-prefix", "db").out.splitlines() if "GENERATED ROOT PASSWORD: " in x)
    password = line.partition("PASSWORD: ")[2].strip()
    ask = ("exec", "-T", "db", "mariadb", "-uroot", f"-p{password}", "-N", "-e", "select 40 + 2")
    wait_until(lambda: kap(*ask).out.strip() == "42", 60)


def test_rabbitmq_has_the_user_and_host_of_its_variables_and_passes_messages_on(kap: Kap) -> None:
    kap.file("""
        services:
          mq:
            image: rabbitmq:3-management
            environment:
              RABBITMQ_DEFAULT_USER: someone
              RABBITMQ_DEFAULT_PASS: secret
              RABBITMQ_DEFAULT_VHOST: place
              RABBITMQ_ERLANG_COOKIE: biscuit
            healthcheck:
              {test: rabbitmq-diagnostics -q check_port_connectivity, interval: 1s, timeout: 20s, retries: 60}
    """)
    kap.ok("up", "-d", "--wait")

    def ctl(*words: str) -> str:
        return kap.ok("exec", "-T", "mq", *words).out

    admin = ("rabbitmqadmin", "-u", "someone", "-p", "secret", "-V", "place")
    assert ctl("rabbitmqctl", "-q", "list_vhosts", "--no-table-headers").split() == ["place"]
    ctl(*admin, "declare", "queue", "name=jobs")
    ctl(*admin, "publish", "routing_key=jobs", "payload=hello")
    assert json.loads(ctl(*admin, "-f", "raw_json", "get", "queue=jobs"))[0]["payload"] == "hello"
    assert ctl("sh", "-c", "cat /var/lib/rabbitmq/.erlang.cookie; stat -c %u /var/lib/rabbitmq/mnesia").split() == [
        "biscuit",
        "999",
    ]


def test_rabbitmq_without_management_has_no_such_port_and_refuses_settings_of_the_past(kap: Kap) -> None:
    kap.file("services:\n  mq: {image: 'rabbitmq:3', environment: {RABBITMQ_DEFAULT_PASS_FILE: /x}}\n")
    done = kap("run", "--rm", "-T", "mq")
    assert done.code == 1
    assert "RABBITMQ_DEFAULT_PASS_FILE is set but deprecated" in done.out + done.err
    plugins = kap.ok("run", "--rm", "-T", "--entrypoint", "cat", "mq", "/etc/rabbitmq/enabled_plugins").out
    assert plugins == "[rabbitmq_prometheus].\n"


_MEMCACHED = r'exec 3<>/dev/tcp/127.0.0.1/11211; printf "set a 0 0 3\r\nabc\r\nget a\r\nquit\r\n" >&3; cat <&3; id -u'


def test_memcached_keeps_values_as_its_own_user(kap: Kap) -> None:
    kap.file("services:\n  cache: {image: 'memcached:1.6-alpine', command: [-m, '32']}\n")
    kap.ok("up", "-d")
    wait_until(lambda: kap("exec", "-T", "cache", "bash", "-c", _MEMCACHED).code == 0)
    said = kap.ok("exec", "-T", "cache", "bash", "-c", _MEMCACHED).out.split()
    assert said == ["STORED", "VALUE", "a", "0", "3", "abc", "END", "11211"]


def test_node_serves_and_has_npm_and_the_user_node(kap: Kap) -> None:
    port = free_port()
    (kap.folder / "app.js").write_text(
        "require('http').createServer((q, r) => r.end(`hello from ${process.version}`)).listen(3000)\n"
    )
    kap.file(f"""
        services:
          web:
            image: node:20-alpine
            command: app.js
            user: node
            working_dir: /home/node
            volumes: ["./app.js:/home/node/app.js:ro"]
            ports: ["127.0.0.1:{port}:3000"]
            init: true
    """)
    kap.ok("up", "-d")
    answers(f"http://127.0.0.1:{port}/", "hello from v20.")
    script = "for tool in npm npx corepack; do $tool --version >/dev/null || exit 9; done; id -u; echo $NODE_VERSION"
    uid, version = kap.ok("exec", "-T", "web", "sh", "-c", script).out.split()
    assert uid == "1000"
    assert version.startswith("20.")


def test_node_takes_what_is_no_command_as_its_own_words(kap: Kap) -> None:
    kap.file("services:\n  n: {image: 'node:20', volumes: ['./say.js:/say.js:ro']}\n")
    (kap.folder / "say.js").write_text("console.log('script')\n")
    assert kap.ok("run", "--rm", "-T", "n", "-p", "6*7").out == "42\n"
    assert kap.ok("run", "--rm", "-T", "n", "/say.js").out == "script\n"
    assert kap.ok("run", "--rm", "-T", "n", "echo", "command").out == "command\n"


def test_the_list_has_versions_sources_and_what_is_made(kap: Kap) -> None:
    kap.ok("standins", "build", "busybox:1.35")
    told = json.loads(kap.ok("standins", "--format", "json").out)
    rows = {(r["Image"], r["Version"]): r for r in told["Standins"]}
    assert rows["busybox", "1.35"]["Here"] == "1.35.0"
    assert rows["postgres", "16"]["Source"].startswith("PyPI")
    assert {"node", "mariadb", "memcached", "rabbitmq"} <= {name for name, _ in rows}
    assert {p["Kind"] for p in told["Places"]} == {"Debian", "PyPI"}
    assert "busybox     1.35" in kap.ok("standins").out
    done = kap("standins", "build", "mysql:8")
    assert done.code == 1
    assert "in place of mysql:8: mariadb" in done.err


def test_the_guide_s_recipe_works_as_it_is_printed(kap: Kap) -> None:
    text = (ROOT / "docs/guide-standins.md").read_text().partition("```python\n")[2].partition("```")[0]
    folder = kap.home / "config/standins"
    folder.mkdir(parents=True, exist_ok=True)
    recipe = folder / "eclipse-mosquitto.py"
    recipe.write_text(text)
    for path in (folder, recipe):
        path.chmod(path.stat().st_mode & ~0o022)
    try:
        kap.file("""
            services:
              broker:
                image: eclipse-mosquitto:2
                volumes: ["./open.conf:/mosquitto/config/mosquitto.conf:ro"]
        """)
        (kap.folder / "open.conf").write_text("listener 1883\nallow_anonymous true\n")
        kap.ok("standins", "build", "eclipse-mosquitto:2")  # anew, if the guide has changed since the last time
        kap.ok("up", "-d")
        publish = ("exec", "-T", "broker", "mosquitto_pub", "-t", "a", "-r", "-m", "hello")
        wait_until(lambda: kap(*publish).code == 0, 30)
        assert kap.ok("exec", "-T", "broker", "mosquitto_sub", "-t", "a", "-C", "1").out == "hello\n"
        assert "eclipse-mosquitto" in kap.ok("standins").out
        recipe.write_text(text.replace("tree = kitchen.tree", "tree = kitchen.treee"))
        done = kap("standins", "build", "eclipse-mosquitto:2")
        assert done.code == 1
        line = next(n for n, x in enumerate(text.splitlines(), 1) if "tree = kitchen.tree" in x)
        assert f"{recipe}:{line}:1: the recipe failed: AttributeError" in done.err
        assert "Traceback" not in done.err
        recipe.chmod(0o666)
        assert "others may write to it" in kap("standins", "build", "eclipse-mosquitto:2").err
    finally:
        recipe.unlink()


_MEETS = """
import os, time
from kapelle.images.standins.kitchen import Made

NAMES = ("{mine}",)
BASE = False


def variants(tag):
    return ("1",)


def release(variant):
    return "bookworm"


def build(kitchen, variant):
    open("{folder}/{mine}", "w").close()
    end = time.monotonic() + 30
    while not os.path.exists("{folder}/{other}"):
        if time.monotonic() > end:
            raise TimeoutError("the other one is not made meanwhile")
        time.sleep(0.02)
    kitchen.tree.write("{mine}", "")
    return Made({{"Cmd": ["/none"]}}, "Meeting", "1")
"""


def test_several_stand_ins_of_one_up_are_made_side_by_side(kap: Kap) -> None:
    folder = kap.home / "config/standins"
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    met = kap.folder / "met"
    met.mkdir()
    names = (("meets-alpha", "meets-beta"), ("meets-beta", "meets-alpha"))
    try:
        for mine, other in names:
            path = folder / f"{mine}.py"
            path.write_text(_MEETS.format(mine=mine, other=other, folder=met))
            path.chmod(0o644)
        tag = kap.folder.parent.name.replace("_", "").lower()[-20:] + str(free_port())
        kap.file(f"services:\n  a: {{image: 'meets-alpha:{tag}'}}\n  b: {{image: 'meets-beta:{tag}'}}\n")
        kap.ok("create")
        assert len(kap.ps()) == 2
    finally:
        for mine, _ in names:
            (folder / f"{mine}.py").unlink(missing_ok=True)
