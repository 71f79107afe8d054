"""What a service and its image become: pure, no kernel."""

from __future__ import annotations

from typing import Any

import pytest

from kapelle.engines.native import hosts, spec
from kapelle.engines.native.clients import reached
from kapelle.engines.native.preflight import _looks_like_file
from kapelle.engines.native.signals import signal_number
from kapelle.errors import KapelleError
from kapelle.images.types import Image
from kapelle.model.project import Network, Project
from kapelle.model.service import HealthCheck, Mount, NetworkAttachment, Port, Service

IMAGE = {
    "Entrypoint": ["/entry"],
    "Cmd": ["serve"],
    "Env": ["PATH=/bin", "LANG=C"],
    "ExposedPorts": {"80/tcp": {}},
    "Volumes": {"/data": {}},
    "WorkingDir": "/srv",
    "User": "app",
}


def intent(service: Service, **changes: Any) -> dict[str, Any]:
    project = Project("demo", "/p", ("/p/compose.yaml",), (service,), (Network("default", "demo_default"),))
    inputs = spec.Inputs(
        id="ab" * 32,
        name=f"demo-{service.name}-1",
        number=1,
        oneoff=False,
        slug="",
        created=0.0,
        rootfs={"lowers": ["/l"], "upper": "/u", "work": "/w", "merged": "/m"},
        volumes={"/data": ("c" * 64, "/v/c")},
        files={},
        state_dir="/state",
        version="1",
    )._replace(**changes)
    return spec.intent(project, service, Image("sha256:1", (), {"config": IMAGE}, ()), inputs)


def test_the_images_entrypoint_and_command_run_when_the_file_says_nothing() -> None:
    assert intent(Service("web"))["command"] == ["/entry", "serve"]


def test_a_command_in_the_file_replaces_the_images_command_alone() -> None:
    assert intent(Service("web", command=("test",)))["command"] == ["/entry", "test"]


def test_an_entrypoint_in_the_file_drops_the_images_command() -> None:
    assert intent(Service("web", entrypoint=("/mine",)))["command"] == ["/mine"]


def test_an_empty_entrypoint_drops_the_images() -> None:
    assert intent(Service("web", entrypoint=(), command=("sh",)))["command"] == ["sh"]


def test_the_files_variables_win_and_null_removes_one() -> None:
    env = intent(Service("web", environment=(("LANG", "de"), ("PATH", None), ("A", "1"))))["launch"]["env"]
    assert env == ["LANG=de", "A=1"]


def test_user_working_directory_and_hostname_come_from_the_image_unless_given() -> None:
    launch = intent(Service("web"))["launch"]
    assert (launch["user"], launch["cwd"], launch["hostname"]) == ("app", "/srv", "ab" * 6)
    launch = intent(Service("web", user="5", working_dir="/x", hostname="h"))["launch"]
    assert (launch["user"], launch["cwd"], launch["hostname"]) == ("5", "/x", "h")


def test_an_image_volume_not_covered_by_the_file_is_mounted_and_filled() -> None:
    rows = [m for m in intent(Service("web"))["launch"]["mounts"] if m["target"] == "/data"]
    assert rows == [{"type": "bind", "source": "/v/c", "target": "/data", "copy_up": True}]


def test_names_on_a_network_are_service_container_short_id_and_aliases() -> None:
    service = Service("web", networks=(NetworkAttachment("default", aliases=("www",)),))
    row = intent(service)["networks"][0]
    assert row["network"] == "demo_default"
    assert row["aliases"] == ["web", "demo-web-1", "ab" * 6, "www"]


def test_a_one_off_does_not_answer_to_the_services_name() -> None:
    assert intent(Service("web"), use_aliases=False)["networks"][0]["aliases"] == ["demo-web-1", "ab" * 6]


def test_ports_of_a_one_off_are_not_published_unless_asked() -> None:
    service = Service("web", ports=(Port(80, "8000-8010"),))
    assert intent(service, publish=False)["ports"] == []
    assert intent(service)["ports"][0]["published_end"] == 8010


def test_a_container_on_no_network_has_none() -> None:
    found = intent(Service("web", network_mode="none"))
    assert found["networks"] == []
    assert found["launch"]["namespaces"]["net"] == "own"


def test_the_default_walls_are_dockers() -> None:
    launch = intent(Service("web"))["launch"]
    assert launch["no_new_privileges"] is False
    assert launch["seccomp"] == ""
    assert "/proc/kcore" in launch["masked"]
    assert len(launch["caps"]) == 14


def test_privileged_takes_the_walls_away() -> None:
    launch = intent(Service("web", privileged=True))["launch"]
    assert launch["seccomp"] is None
    assert launch["masked"] == []


@pytest.mark.parametrize("option", ["no-new-privileges", "no-new-privileges:true", "no-new-privileges=true"])
def test_no_new_privileges_is_set_on_request(option: str) -> None:
    assert intent(Service("web", security_opt=(option,)))["launch"]["no_new_privileges"] is True


def test_a_health_check_of_the_file_completes_the_images() -> None:
    image = {"Test": ["CMD", "up"], "Interval": 5_000_000_000}
    found = spec.health(HealthCheck(retries=7), image)
    assert found == {
        "test": ["CMD", "up"], "interval": 5.0, "timeout": 30.0, "retries": 7, "start_period": 0.0,
        "start_interval": 5.0,
    }  # fmt: skip


def test_none_switches_the_images_health_check_off() -> None:
    assert spec.health(HealthCheck(test=("NONE",)), {"Test": ["CMD", "up"]}) is None


def test_tmpfs_options_become_flags_and_data() -> None:
    row = spec._tmpfs(Mount("tmpfs", "", "/run", tmpfs_options="exec,uid=5", tmpfs_size=100))
    assert row["options"] == "uid=5,size=100,mode=1777"
    assert row["flags"] == 6  # nosuid, nodev


def test_hosts_name_the_container_on_each_address() -> None:
    text = hosts.hosts("web", "", ("172.18.0.2/16",), (("db.local", "10.0.0.1"),))
    assert "10.0.0.1\tdb.local\n" in text
    assert text.endswith("172.18.0.2\tweb\n")


def test_resolv_conf_asks_our_server_and_keeps_the_hosts_search() -> None:
    text = hosts.resolv_conf((), (), "nameserver 9.9.9.9\nsearch corp.example\n")
    assert text == "nameserver 127.0.0.11\nsearch corp.example\noptions ndots:0\n"


def test_host_gateway_is_resolved() -> None:
    assert hosts.extra_hosts([["a", "host-gateway"]], "10.1.1.1") == (
        ("a", "10.1.1.1"),
        ("host.docker.internal", "10.1.1.1"),
    )


@pytest.mark.parametrize(
    ("until", "status", "health", "code", "verdict"),
    [
        ("running", "running", "", 0, "reached"),
        ("running", "exited", "", 0, "failed"),
        ("healthy", "running", "starting", 0, "waiting"),
        ("healthy", "running", "healthy", 0, "reached"),
        ("healthy", "running", "unhealthy", 0, "failed"),
        ("healthy", "running", "", 0, "failed"),
        ("healthy", "exited", "", 1, "failed"),
        ("exited", "running", "", 0, "waiting"),
        ("exited", "exited", "", 3, "reached"),
        ("ready", "exited", "", 0, "reached"),
        ("ready", "exited", "", 1, "failed"),
        ("ready", "restarting", "", 1, "waiting"),
    ],
)
def test_a_condition_is_reached_waited_for_or_lost(
    until: str, status: str, health: str, code: int, verdict: str
) -> None:
    assert reached(until, {"status": status, "health": health, "exit_code": code}) == verdict


@pytest.mark.parametrize(("name", "number"), [("SIGTERM", 15), ("term", 15), ("9", 9), ("SIGRTMIN+3", 37)])
def test_signals_are_read_in_every_spelling(name: str, number: int) -> None:
    assert signal_number(name) == number


def test_an_unknown_signal_is_a_mistake_with_a_next_step() -> None:
    with pytest.raises(KapelleError, match="invalid signal: SIGFOO"):
        signal_number("SIGFOO")


@pytest.mark.parametrize(
    ("source", "target", "is_file"),
    [("/p/nginx.conf", "/etc/nginx.conf", True), ("/p/data", "/data", False), ("/p/v1.2", "/v1.2", False)],
)
def test_a_missing_source_that_looks_like_a_file_is_not_made_a_folder(source: str, target: str, is_file: bool) -> None:
    assert _looks_like_file(Mount("bind", source, target)) is is_file
