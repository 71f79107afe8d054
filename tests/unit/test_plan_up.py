"""Plans: values in, text out."""

from __future__ import annotations

from typing import Any

import pytest

from kapelle.engine.executor import execute
from kapelle.errors import KapelleError
from kapelle.model.project import Network, Project
from kapelle.model.service import Dependency, NetworkAttachment, Service
from kapelle.plan import down, up
from kapelle.plan.graph import Builder, Plan
from kapelle.plan.observed import Container, Observed, ObservedImage, ObservedNetwork
from kapelle.plan.steps import StartContainer, key_of

HERE = {"app:1": ObservedImage("sha256:1", ("app:1",))}


def service(name: str, *needs: str, condition: str = "service_started", **changes: Any) -> Service:
    made = Service(name, image="app:1", config_hash="h", networks=(NetworkAttachment("default"),))
    return made._replace(depends_on=tuple(Dependency(n, condition) for n in needs), **changes)


def project(*services: Service) -> Project:
    return Project("demo", "/p", (), services, (Network("default", "demo_default"),))


def running(name: str, number: int = 1, **changes: Any) -> Container:
    made = Container("a" * 64, f"demo-{name}-{number}", "demo", name, number, status="running", config_hash="h")
    return made._replace(image_id="sha256:1", **changes)


def lines(plan: Plan) -> list[str]:
    return str(plan).splitlines()


def test_a_first_up_makes_network_containers_and_starts_them_in_order() -> None:
    plan = up.plan_up(project(service("db"), service("web", "db")), Observed(images=HERE), up.Options())
    assert lines(plan) == [
        "create network demo_default: no such network",
        "create demo-db-1: no such container  (after create network demo_default)",
        "create demo-web-1: no such container  (after create network demo_default)",
        "start demo-db-1: created  (after create demo-db-1)",
        "start demo-web-1: created  (after create demo-web-1, start demo-db-1)",
    ]


def test_a_second_up_with_nothing_new_does_nothing() -> None:
    there = Observed((running("db"),), (ObservedNetwork("demo_default", "n"),), images=HERE)
    assert lines(up.plan_up(project(service("db")), there, up.Options())) == []


def test_a_changed_configuration_recreates_and_says_why() -> None:
    there = Observed((running("db", config_hash="old"),), (ObservedNetwork("demo_default", "n"),), images=HERE)
    assert lines(up.plan_up(project(service("db")), there, up.Options()))[0] == (
        "recreate demo-db-1: configuration changed"
    )
    assert lines(up.plan_up(project(service("db")), there, up.Options(no_recreate=True))) == []


def test_a_health_condition_is_an_edge() -> None:
    plan = up.plan_up(
        project(service("db"), service("web", "db", condition="service_healthy")), Observed(images=HERE), up.Options()
    )
    wait = "wait db service_healthy for web"
    assert f"{wait}: web depends on it  (after start demo-db-1)" in lines(plan)
    assert wait in plan.after["start demo-web-1"]


def test_scaling_down_removes_the_highest_numbers_and_up_refills_gaps() -> None:
    there = Observed((running("web", 1), running("web", 3)), (ObservedNetwork("demo_default", "n"),), images=HERE)
    fewer = lines(up.plan_up(project(service("web")), there, up.Options(scale={"web": 1})))
    assert fewer[0] == "stop demo-web-3: scale is 1"
    more = lines(up.plan_up(project(service("web")), there, up.Options(scale={"web": 3})))
    assert more[0] == "create demo-web-2: no such container"


def test_an_orphan_is_told_or_removed() -> None:
    there = Observed((running("old"),), (ObservedNetwork("demo_default", "n"),), images=HERE)
    assert "demo-old-1" in up.plan_up(project(), there, up.Options()).notices[0]
    assert lines(up.plan_up(project(), there, up.Options(remove_orphans=True)))[0].startswith("stop demo-old-1")


def test_an_unknown_service_is_refused_with_the_known_ones() -> None:
    with pytest.raises(KapelleError, match="no such service: wbe"):
        up.plan_up(project(service("web")), Observed(), up.Options(services=("wbe",)))


def test_down_stops_dependents_first_and_removes_the_network_last() -> None:
    label = {"com.docker.compose.depends_on": "db:service_started:false"}
    there = Observed(
        (running("db"), running("web", labels=label)), (ObservedNetwork("demo_default", "n", project="demo"),)
    )
    text = lines(down.plan_down("demo", there, down.Options()))
    assert text[0] == "stop demo-web-1"
    assert text[-1].startswith("remove network demo_default")
    assert any(row.startswith("stop demo-db-1  (after stop demo-web-1)") for row in text)


class Recorder:
    """Performs nothing; remembers what it was asked, and fails where told to."""

    def __init__(self, fail: str = "") -> None:
        self.done: list[str] = []
        self.fail = fail

    def perform(self, step: Any, *_: Any) -> None:
        if key_of(step) == self.fail:
            raise KapelleError(f"{self.fail} failed")
        self.done.append(key_of(step))


def diamond() -> Plan:
    builder = Builder()
    a = builder.add(StartContainer("a", "a"))
    b, c = (builder.add(StartContainer(n, n), [a]) for n in "bc")
    builder.add(StartContainer("d", "d"), [b, c])
    return builder.plan()


def test_the_executor_honours_every_edge() -> None:
    engine = Recorder()
    execute(diamond(), project(), engine, print)  # type: ignore[arg-type]
    assert (engine.done[0], sorted(engine.done[1:3]), engine.done[3]) == ("start a", ["start b", "start c"], "start d")


def test_the_first_failure_stops_what_follows_and_keeps_its_words() -> None:
    engine = Recorder(fail="start b")
    with pytest.raises(KapelleError, match="start b failed"):
        execute(diamond(), project(), engine, print)  # type: ignore[arg-type]
    assert "start d" not in engine.done
