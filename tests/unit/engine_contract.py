"""What every engine must do, as tests: subclass `EngineContract` and give it an engine and an image that runs.

The fake passes it in memory (test_engine_fake.py); a real engine passes the same on a kernel.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from kapelle.engine.executor import execute
from kapelle.engine.protocol import Engine
from kapelle.errors import EngineError
from kapelle.events import Event, LogLine, Progress
from kapelle.model.project import Network, Project, Volume
from kapelle.model.service import Dependency, Mount, NetworkAttachment, Service
from kapelle.plan import acts, steps
from kapelle.plan.down import DownOptions, down
from kapelle.plan.observed import Container, Observed
from kapelle.plan.up import UpOptions, up


class EngineContract:
    """Give `engine` and `image` as fixtures; `runs` and `ends` are commands that go on, and that end with 3."""

    name = "contract"
    runs: tuple[str, ...] = ("sleep", "1000")
    ends: tuple[str, ...] = ("sh", "-c", "echo one; echo two; exit 3")

    @pytest.fixture
    def image(self) -> str:
        raise NotImplementedError

    @pytest.fixture
    def engine(self) -> Any:
        raise NotImplementedError

    def service(self, name: str, image: str, **changes: Any) -> Service:
        made = Service(name, image=image, command=self.runs, networks=(NetworkAttachment("default"),))
        return made._replace(**{"config_hash": "h", "stop_grace_period": 1.0, "init": True, **changes})

    def project(self, *services: Service, **changes: Any) -> Project:
        network = Network("default", f"{self.name}_default")
        return Project(self.name, "/", (), services, (network,))._replace(**changes)

    def observe(self, engine: Engine, project: Project) -> Observed:
        return engine.observe(project.name, tuple(project.image_of(s) for s in project.services))

    def bring_up(self, engine: Engine, project: Project, **options: Any) -> list[Event]:
        events: list[Event] = []
        plan = up(project, self.observe(engine, project), UpOptions(**options))
        execute(plan, engine, project, events.append)
        return events

    def take_down(self, engine: Engine, project: Project, **options: Any) -> None:
        wanted = DownOptions(from_files=False, remove_orphans=True, **options)
        execute(down(project, self.observe(engine, project), wanted), engine, project, _ignore)

    def containers(self, engine: Engine) -> tuple[Container, ...]:
        return engine.observe(self.name).containers

    def test_up_makes_what_is_observed_and_down_leaves_nothing(self, engine: Engine, image: str) -> None:
        project = self.project(self.service("a", image), self.service("b", image))
        self.bring_up(engine, project)
        try:
            found = self.containers(engine)
            assert [(c.name, c.status, c.service) for c in found] == [
                ("contract-a-1", "running", "a"),
                ("contract-b-1", "running", "b"),
            ]
            assert all(len(c.id) == 64 and c.project == "contract" and c.config_hash == "h" for c in found)
            assert "contract_default" in [n.name for n in engine.networks()]
            assert up(project, self.observe(engine, project)).steps == ()
        finally:
            self.take_down(engine, project)
        assert self.containers(engine) == ()
        assert "contract_default" not in [n.name for n in engine.networks()]

    def test_each_act_tells_its_words(self, engine: Engine, image: str) -> None:
        project = self.project(self.service("a", image))
        events = self.bring_up(engine, project)
        self.take_down(engine, project)
        words = [e.text for e in events if isinstance(e, Progress) and e.resource == "container"]
        assert words == ["Creating", "Created", "Starting", "Started"]

    def test_stop_start_kill_and_restart_change_the_status(self, engine: Engine, image: str) -> None:
        project = self.project(self.service("a", image))
        self.bring_up(engine, project)
        try:
            for plan, status in (
                (acts.stop, "exited"),
                (acts.start, "running"),
                (acts.pause, "paused"),
                (acts.unpause, "running"),
                (acts.restart, "running"),
                (acts.kill, "exited"),
            ):
                execute(plan(self.observe(engine, project)), engine, project, _ignore)
                assert [c.status for c in self.containers(engine)] == [status]
            assert self.containers(engine)[0].exit_code == 137
        finally:
            self.take_down(engine, project)

    def test_a_recreate_keeps_the_name_and_the_anonymous_volume(self, engine: Engine, image: str) -> None:
        first = self.service("a", image, mounts=(Mount("volume", "", "/data"),))
        self.bring_up(engine, self.project(first))
        second = self.project(first._replace(config_hash="other"))
        try:
            before = self.containers(engine)[0]
            self.bring_up(engine, second)
            after = self.containers(engine)[0]
            assert (after.name, after.config_hash, after.status) == (before.name, "other", "running")
            assert after.id != before.id
            assert after.mounts == before.mounts
        finally:
            self.take_down(engine, second, volumes=True)
        assert before.mounts[0][1] not in [v.name for v in engine.volumes()]

    def test_a_named_volume_outlives_its_containers(self, engine: Engine, image: str) -> None:
        service = self.service("a", image, mounts=(Mount("volume", "data", "/data"),))
        project = self.project(service, volumes=(Volume("data", "contract_data"),))
        self.bring_up(engine, project)
        self.take_down(engine, project)
        assert "contract_data" in [v.name for v in engine.volumes()]
        self.take_down(engine, project, volumes=True)
        assert "contract_data" not in [v.name for v in engine.volumes()]

    def test_output_and_exit_code_are_kept(self, engine: Engine, image: str) -> None:
        project = self.project(self.service("job", image, command=self.ends))
        self.bring_up(engine, project)
        try:
            ended = list(engine.wait(self.containers(engine)))
            assert [(c.name, code) for c, code in ended] == [("contract-job-1", 3)]
            lines = texts(engine.logs(self.containers(engine)))
            assert lines == [b"one", b"two"]
            assert texts(engine.logs(self.containers(engine), tail=1)) == [b"two"]
            assert texts(engine.logs(self.containers(engine), follow=True)) == [b"one", b"two"]
            assert [(c.status, c.exit_code) for c in self.containers(engine)] == [("exited", 3)]
        finally:
            self.take_down(engine, project)

    def test_a_dependency_that_fails_is_told_and_the_dependent_does_not_start(self, engine: Engine, image: str) -> None:
        job = self.service("job", image, command=self.ends)
        needs = (Dependency("job", "service_completed_successfully"),)
        project = self.project(job, self.service("web", image, depends_on=needs))
        try:
            with pytest.raises(EngineError, match='service "job" didn\'t complete successfully: exit 3'):
                self.bring_up(engine, project)
            assert {c.service: c.status for c in self.containers(engine)} == {"job": "exited", "web": "created"}
        finally:
            self.take_down(engine, project)

    def test_a_running_container_is_not_removed_without_force(self, engine: Engine, image: str) -> None:
        project = self.project(self.service("a", image))
        self.bring_up(engine, project)
        try:
            with pytest.raises(EngineError, match="running"):
                engine.perform(steps.RemoveContainer("contract-a-1", "a"), project, _ignore)
            assert [c.status for c in self.containers(engine)] == ["running"]
        finally:
            self.take_down(engine, project)

    def test_a_network_in_use_stays(self, engine: Engine, image: str) -> None:
        project = self.project(self.service("a", image))
        self.bring_up(engine, project)
        events: list[Event] = []
        try:
            engine.perform(steps.RemoveNetwork("contract_default"), project, events.append)
            assert [e.text for e in events if isinstance(e, Progress)] == ["Removing", "Resource is still in use"]
        finally:
            self.take_down(engine, project)


def texts(lines: Iterable[LogLine]) -> list[bytes]:
    """Line by line: an engine may give several that came together."""
    return [text for line in lines for text in line.joined_by(b"\n").split(b"\n")]


def _ignore(_: Event) -> None:
    return None
