"""The fake engine does what every engine must do."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from engine_contract import EngineContract

from kapelle.engine.fake import Behaviour, FakeEngine
from kapelle.engine.support import mistakes, notices
from kapelle.errors import Position
from kapelle.model.project import Project
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
