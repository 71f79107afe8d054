"""Reading what is there without opening the engine, for the commands that only look: `ps`, `logs`, `ls`, `port` …

The native engine's state folders are read by its own lean modules; images, steps and the model are not loaded
(`ps` has a budget). Other engines are asked as they are.
"""

from __future__ import annotations

from collections.abc import Iterator

from kapelle.light import TYPE_CHECKING
from kapelle.plan.observed import Container, Observed, ObservedNetwork, ObservedVolume
from kapelle.state.paths import Paths

if TYPE_CHECKING:
    from kapelle.cli.context import Context
    from kapelle.engine.protocol import Engine
    from kapelle.events import LogLine


class NativeReader:
    """The looking half of the native engine."""

    name = "native"

    def __init__(self, paths: Paths) -> None:
        self.paths = paths

    def observe(self, project: str, images: tuple[str, ...] = ()) -> Observed:
        """As the engine's `observe`, without images."""
        from kapelle.engines.native import records

        found = tuple(records.containers(self.paths, project))
        return Observed(containers=found, networks=self.networks(), volumes=self.volumes())

    def project_containers(self, project: str) -> tuple[Container, ...]:
        from kapelle.engines.native import records

        return tuple(records.containers(self.paths, project))

    def containers(self) -> tuple[Container, ...]:
        from kapelle.engines.native import records

        return tuple(c for project in records.projects(self.paths) for c in records.containers(self.paths, project))

    def networks(self) -> tuple[ObservedNetwork, ...]:
        from kapelle.engines.native import records

        return records.networks(self.paths)

    def volumes(self) -> tuple[ObservedVolume, ...]:
        from kapelle.engines.native import volumes

        return volumes.observed(self.paths)

    def logs(
        self,
        containers: tuple[Container, ...],
        *,
        follow: bool = False,
        tail: int | None = None,
        since: int | None = None,
        until: int | None = None,
    ) -> Iterator[LogLine]:
        from kapelle.engines.native import output

        return output.lines(self.paths, containers, follow=follow, tail=tail, since=since, until=until)


class EngineReader:
    """Any other engine, asked for the same."""

    def __init__(self, engine: Engine) -> None:
        self.name = engine.name
        self.observe = engine.observe
        self.containers = engine.containers
        self.networks = engine.networks
        self.volumes = engine.volumes
        self.logs = engine.logs

    def project_containers(self, project: str) -> tuple[Container, ...]:
        return self.observe(project).containers


Reader = NativeReader | EngineReader


def reader(context: Context) -> Reader:
    """What to read from for this command."""
    if context.engine_name() == "native":
        return NativeReader(context.paths)
    return EngineReader(context.engine())
