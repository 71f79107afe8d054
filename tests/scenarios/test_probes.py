"""`x-kap-probe`: health checks that the engine makes itself, of images without any tool."""

from __future__ import annotations

import os
import signal

import pytest

from tests.checks import wait_until
from tests.scenarios.conftest import Kap
from tests.scenarios.test_kills import ours

TOOLLESS = "healthcheck: {test: [CMD, none-such]}"


def health(kap: Kap, name: str) -> str:
    return str(kap.ps()[f"{kap.folder.name}-{name}-1"]["Health"])


@pytest.mark.parametrize(
    "probe, script",
    [
        ("{tcp: 5432}", "sleep 0.3; nc -ll -p 5432 -e true"),
        ("{tcp: '${PORT:-5432}'}", "httpd -f -p 127.0.0.1:5432"),
        ("{http: 'http://localhost:8080/health'}", "mkdir /w; echo ok > /w/health; httpd -f -p 8080 -h /w"),
        ("{http: {port: 8080, path: /none, status: 404}}", "mkdir /w; httpd -f -p 8080 -h /w"),
        ("{file: /run/ready}", "mkdir -p /run /a; ln -s /a/b /run/ready; sleep 0.3; touch /a/b; sleep 1000"),
        ("{log: '^ready .* [0-9]+$'}", "echo starting; sleep 0.3; echo ready at 12; sleep 1000"),
        ("{log: 'password:'}", "printf password:; sleep 1000"),
    ],
)
def test_a_service_is_healthy_once_its_probe_says_so(kap: Kap, probe: str, script: str) -> None:
    kap.file(
        f"services:\n  a:\n    image: busybox\n    command: [sh, -c, '{script}']\n    x-kap-probe: {probe}\n"
        "  b: {image: busybox, command: [sleep, '1000'], depends_on: {a: {condition: service_healthy}}}\n"
    )
    kap.ok("up", "-d", "--wait", timeout=30)
    assert health(kap, "a") == "healthy"
    assert kap.state(f"{kap.folder.name}-b-1") == "running"


@pytest.mark.parametrize(
    "probe, script, said",
    [
        ("tcp: 5432", "sleep 1000", "connection refused"),
        ("http: {port: 8080, path: /none}", "mkdir /w; httpd -f -p 8080 -h /w", "GET /none: 404"),
        ("http: {port: 8080}", "nc -ll -p 8080 -e cat", "no HTTP answer"),
        ("http: {port: 8080}, timeout: 200ms", "nc -ll -p 8080 -e sleep 10", "exceeded timeout"),
        ("file: /etc/../../../../../../../../../../proc/self/root/tmp/never", "sleep 1000", "no such file"),
        ("log: ready", "sleep 1000", "no line of output matches ready"),
    ],
)
def test_a_probe_that_fails_is_told_with_what_it_saw(kap: Kap, probe: str, script: str, said: str) -> None:
    kap.file(
        f"services:\n  a:\n    image: busybox\n    command: [sh, -c, '{script}']\n"
        f"    x-kap-probe: {{{probe}, interval: 300ms, retries: 2}}\n"
    )
    done = kap("up", "-d", "--wait", timeout=30)
    assert done.code == 1
    assert all(text in done.err for text in ("KAP302", said, "compose.yaml:5:")), done
    assert health(kap, "a") == "unhealthy"


def test_a_link_in_the_container_leads_a_file_probe_nowhere_outside(kap: Kap) -> None:
    (kap.folder / "canary").write_text("")
    kap.file(
        f"services:\n  a:\n    image: busybox\n    command: [sh, -c, 'ln -s {kap.folder}/canary /ready; sleep 1000']\n"
        "    x-kap-probe: {file: /ready, interval: 200ms, retries: 2}\n"
    )
    assert kap("up", "-d", "--wait", timeout=30).code == 1


def test_a_healthcheck_in_the_file_goes_before_the_probe(kap: Kap) -> None:
    kap.file(
        "services:\n  a: {image: busybox, command: [sleep, '9'], x-kap-probe: {tcp: 1}, healthcheck: {test: 'true'}}\n"
        "  b: {image: busybox, command: [sleep, '1000'], x-kap-probe: {file: /bin}, healthcheck: {interval: 1s}}\n"
        "  c: {image: busybox, command: [sleep, '1000'], x-kap-probe: {tcp: 1}, healthcheck: {disable: true}}\n"
    )
    kap.ok("up", "-d", "--wait", timeout=30)
    assert [health(kap, n) for n in "abc"] == ["healthy", "healthy", ""]


def test_a_probe_goes_on_under_the_next_supervisor_and_sees_earlier_output(kap: Kap) -> None:
    kap.file(
        "services:\n  a:\n    image: busybox\n"
        "    command: [sh, -c, 'echo ready; touch /x; sleep 2; rm /x; sleep 1000']\n"
        "    x-kap-probe: {log: ready, interval: 200ms, retries: 2}\n"
        "  b:\n    image: busybox\n    command: [sh, -c, 'touch /x; sleep 2; rm /x; sleep 1000']\n"
        "    x-kap-probe: {file: /x, interval: 200ms, retries: 2}\n"
    )
    kap.ok("up", "-d", "--wait", timeout=30)
    os.kill(int(ours(kap, "kap-supervisor")[0]), signal.SIGKILL)
    wait_until(lambda: health(kap, "b") == "unhealthy", 20)
    assert health(kap, "a") == "healthy"


@pytest.mark.parametrize(
    "probe, place, said",
    [
        ("{tcp: http}", "5:19", ".tcp: 'http' must be a whole number from 1 to 65535"),
        ("5432", "5:5", " must be a mapping"),
        ("{}", "5:5", " needs exactly one of tcp, http, file and log"),
        ("{tcp: 1, file: /x}", "5:27", " needs exactly one of"),
        ("{tpc: 1}", "5:19", ": unknown key 'tpc'"),
        ("{http: 'https://localhost/'}", "5:19", " is no http:// address"),
        ("{http: 'http://db:80/'}", "5:19", ".http: the host must be localhost"),
        ("{http: {port: 80, path: health}}", "5:36", ".http.path"),
        ("{file: relative}", "5:19", ".file: 'relative' must be an absolute path"),
        ("{log: '('}", "5:19", " is no regular expression"),
        ("{tcp: 1, interval: soon}", "5:27", ".interval: 'soon' is no duration"),
        ("{tcp: 1, retries: 0}", "5:27", ".retries: 0 must be a whole number"),
    ],
)
def test_a_wrong_probe_is_told_with_its_place(kap: Kap, probe: str, place: str, said: str) -> None:
    kap.file(f"services:\n  a:\n    image: busybox\n    command: [sleep, '1']\n    x-kap-probe: {probe}\n")
    for words in (("config", "--check"), ("config", "-q"), ("up", "-d")):
        done = kap(*words)
        assert done.code != 0, words
        told = done.out + done.err
        assert f"compose.yaml:{place}" in told, done
        assert said in told, done
    (kap.folder / "compose.yaml").unlink()
