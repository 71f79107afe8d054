"""What an engine is: it can observe a project and perform one step. Everything else is built on that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from kapelle.errors import KapelleError
from kapelle.events import Emit, LogLine
from kapelle.light import Protocol
from kapelle.model.project import Project
from kapelle.plan.observed import Container, Observed, ObservedNetwork, ObservedVolume
from kapelle.plan.steps import Step


class Engine(Protocol):
    """One engine, opened for one command. Not shared between processes; `perform` may be called by several threads."""

    name: str
    together: tuple[type, ...]  # kinds of steps of which several that may begin are given to `perform_together`

    def capabilities(self) -> Mapping[str, str]:
        """Key path -> "" when honoured, else why not ("services.*.gpus" -> "no CDI devices here")."""
        ...

    def foresee(self, project: Project) -> tuple[list[KapelleError], list[KapelleError]]:
        """What `up` would refuse on this machine, and what it would go on without; known without making anything."""
        ...

    def observe(self, project: str, images: tuple[str, ...] = ()) -> Observed:
        """What is there of `project`: containers (one-offs too), networks, volumes, the images named."""
        ...

    def perform(self, step: Step, project: Project, emit: Emit) -> None:
        """Do one step to its end, telling `emit` how it goes.

        Emits Progress for each state word; the executor adds none. Raises EngineError or ImageError with
        nothing half-made: a step that fails leaves what was there before it.
        """
        ...

    def perform_together(
        self, wanted: Sequence[Step], project: Project, emit: Emit
    ) -> tuple[Sequence[Step], Iterator[tuple[Step, BaseException | None]]]:
        """Perform several steps at once, as `perform`: (those that need to be performed by themselves, the others as
        they end, with what they raised).
        """
        ...

    def unperform(self, step: Step, project: Project, emit: Emit) -> None:
        """Undo a performed create step after a sibling failed, where Compose would undo it; else do nothing."""
        ...

    def logs(
        self,
        containers: tuple[Container, ...],
        *,
        follow: bool = False,
        tail: int | None = None,
        since: int | None = None,
        until: int | None = None,
    ) -> Iterator[LogLine]:
        """Lines of each container, oldest first; with `follow` as they come until all have ended. Times in ns."""
        ...

    def wait(self, containers: tuple[Container, ...]) -> Iterator[tuple[Container, int]]:
        """Yield each running container with its exit code as it ends."""
        ...

    def networks(self) -> tuple[ObservedNetwork, ...]: ...

    def volumes(self) -> tuple[ObservedVolume, ...]: ...

    def containers(self) -> tuple[Container, ...]:
        """Every container of every project."""
        ...

    def close(self) -> None: ...

    def check(self, wanted: tuple[Step, ...], project: Project) -> None:
        """Refuse what can be known not to work before anything is created (bind sources, taken ports)."""
        ...

    def rest(self) -> None:
        """A plan has been performed: let go of the images that were held for it."""
        ...

    def tidy(self, project: str) -> None:
        """Before a command that holds the project's lock looks: finish what killed ones left half done."""
        ...

    def settle(self, project: str) -> None:
        """After a `down`: let go of what only a living project needs."""
        ...
