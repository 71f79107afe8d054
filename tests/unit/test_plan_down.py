"""`down` and the acts on what is there."""

from __future__ import annotations

import pytest
from planning import depending, edges, exited, lines, project, running, service, there

from kapelle.errors import KapelleError
from kapelle.model.project import Volume
from kapelle.model.service import Build
from kapelle.plan import acts
from kapelle.plan.down import DownOptions, down
from kapelle.plan.observed import Observed, ObservedVolume

PAIR = (running("db"), running("web", labels=depending("db")))


def test_down_stops_dependents_first_and_removes_the_network_last() -> None:
    plan = down(project(service("db"), service("web")), there(*PAIR))
    assert lines(plan) == [
        "stop demo-web-1: down",
        "stop demo-db-1: down",
        "remove demo-web-1: down",
        "remove demo-db-1: down",
        "remove network demo_default: down",
    ]
    assert edges(plan) == {
        "stop demo-db-1": ("stop demo-web-1",),
        "remove demo-web-1": ("stop demo-web-1",),
        "remove demo-db-1": ("stop demo-db-1",),
    }


def test_down_with_nothing_there_says_so() -> None:
    assert down(project(), Observed()).warnings == ('No resource found to remove for project "demo".',)


def test_down_leaves_one_offs_and_switched_off_services_unless_orphans_go() -> None:
    have = there(running("web"), running("web", 0, oneoff=True), running("debug"))
    stays = down(project(service("web"), disabled=(service("debug"),)), have)
    assert [line for line in lines(stays) if line.startswith("stop")] == ["stop demo-web-1: down"]
    all_go = down(project(service("web")), have, DownOptions(remove_orphans=True))
    assert len([line for line in lines(all_go) if line.startswith("stop")]) == 3


def test_down_without_files_takes_every_service_of_the_project() -> None:
    plan = down(project(), there(*PAIR), DownOptions(from_files=False))
    assert len(plan.steps) == 5


def test_volumes_go_only_when_asked_and_external_ones_never() -> None:
    volumes = (ObservedVolume("demo_data", "demo", "data"), ObservedVolume("keep", "demo", "keep"))
    wanted = project(service("db"), volumes=(Volume("data", "demo_data"), Volume("keep", "keep", external=True)))
    assert "volume" not in down(wanted, there(volumes=volumes)).text().replace("and volumes", "")
    plan = down(wanted, there(running("db"), volumes=volumes), DownOptions(volumes=True))
    assert [line for line in lines(plan) if "volume" in line and "remove volume" in line] == [
        "remove volume demo_data: down --volumes"
    ]


def test_rmi_local_removes_only_images_without_a_name_of_their_own() -> None:
    wanted = project(service("a", image="", build=Build("/p")), service("b"))
    local = lines(down(wanted, there(), DownOptions(images="local")))
    assert [line for line in local if "image" in line] == ["remove image demo-a: down --rmi local"]
    every = lines(down(wanted, there(), DownOptions(images="all")))
    assert len([line for line in every if line.startswith("remove image")]) == 2


def test_down_of_one_service_leaves_the_network_that_others_use() -> None:
    plan = down(project(service("db"), service("web")), there(*PAIR), DownOptions(targets=("web",)))
    assert lines(plan) == ["stop demo-web-1: down", "remove demo-web-1: down"]


def test_stop_is_parallel_where_nothing_depends() -> None:
    plan = acts.stop(there(running("a"), running("b"), exited("c")))
    assert lines(plan) == ["stop demo-b-1: stop", "stop demo-a-1: stop"]
    assert edges(plan) == {}


def test_start_follows_the_labels_and_waits_for_conditions() -> None:
    have = there(exited("db"), exited("web", labels=depending("db", condition="service_healthy")))
    plan = acts.start(have)
    wait = "wait db service_healthy for web"
    assert edges(plan) == {wait: ("start demo-db-1",), "start demo-web-1": (wait,)}


def test_start_without_a_container_is_an_error_with_the_next_step() -> None:
    with pytest.raises(KapelleError, match='service "web" has no container to start') as e:
        acts.start(Observed(), ("web",))
    assert e.value.hint == "kap up -d web"


def test_restart_takes_dependents_with_restart_true_along() -> None:
    have = there(running("db"), running("web", labels=depending("db", restart=True)))
    assert lines(acts.restart(have, ("db",))) == [
        "restart demo-db-1: restart",
        "restart demo-web-1: db is restarted (restart: true)",
    ]
    assert lines(acts.restart(have, ("db",), deps=False)) == ["restart demo-db-1: restart"]


def test_rm_takes_what_does_not_run_and_with_stop_all() -> None:
    have = there(running("a"), exited("b"))
    assert lines(acts.remove(have)) == ["remove demo-b-1: rm"]
    assert len(lines(acts.remove(have, stop_first=True))) == 3


def test_kill_pause_and_unpause_take_what_runs() -> None:  # a paused one fails to be paused again, as Docker's
    have = there(running("a"), exited("b"), running("c", status="paused"))
    assert lines(acts.kill(have)) == ["kill demo-a-1: kill", "kill demo-c-1: kill"]
    assert lines(acts.pause(have)) == ["pause demo-a-1: pause", "pause demo-c-1: pause"]
    assert lines(acts.unpause(have)) == ["unpause demo-a-1: unpause", "unpause demo-c-1: unpause"]
