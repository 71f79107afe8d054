"""The fake engine does what every engine must do."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from engine_contract import EngineContract

from kapelle.engine.fake import Behaviour, FakeEngine
from kapelle.engine.support import mistakes, notices
from kapelle.errors import Position
from kapelle.model.project import FileSource, Project
from kapelle.model.service import Service


class TestFakeEngine(EngineContract):
    @pytest.fixture
    def image(self) -> str:
        return "busybox:1"

    @pytest.fixture
    def engine(self) -> Iterator[FakeEngine]:
        engine = FakeEngine()
        engine.world.behaviours["job"] = Behaviour(exits=3, output=("one", "two"))
        yield engine
        engine.close()


def test_a_key_that_the_engine_does_not_honour_is_told_with_its_place() -> None:
    service = Service(
        "web",
        raw={"gpus": [{"count": 1}], "deploy": {"placement": {"constraints": ["a"]}}, "command": None},
        where={"gpus": Position("compose.yaml", 7, 5), "deploy": Position("compose.yaml", 9, 5)},
    )
    project = Project("demo", "/", (), (service,))
    refused = {"gpus": "no CDI devices here", "services.*.deploy.placement": "swarm only", "command": "x", "user": "y"}
    told = notices(project, project.services, refused)
    assert [(str(n.where), n.text) for n in told] == [
        ("compose.yaml:9:5", 'service "web": deploy.placement is not honoured: swarm only'),
        ("compose.yaml:7:5", 'service "web": gpus is not honoured: no CDI devices here'),
    ]
    assert [m.hint for m in mistakes(project, project.services, refused)] == ["remove deploy.placement", "remove gpus"]
    assert notices(project, project.services, {"gpus": ""}) == []


def test_an_item_of_a_list_and_a_part_of_the_project_are_told_with_their_places_too() -> None:
    mounts = [{"type": "bind"}, {"type": "bind", "consistency": "cached"}]
    service = Service("web", raw={"volumes": mounts}, where={"volumes[1]": Position("compose.yaml", 7, 9)})
    secret = FileSource("key", file="/key", where=Position("compose.yaml", 12, 3))
    raw = {"secrets": {"key": {"file": "/key", "driver": "vault"}}}
    project = Project("demo", "/", (), (service,), secrets=(secret,), raw=raw)
    refused = {"services.*.volumes[].consistency": "x", "secrets.*.driver": "y", "configs.*.template_driver": "z"}
    told = notices(project, project.services, refused)
    assert [(str(n.where), n.text) for n in told] == [
        ("compose.yaml:7:9", 'service "web": volumes[1].consistency is not honoured: x'),
        ("compose.yaml:12:3", 'secret "key": driver is not honoured: y'),
    ]
