"""What one build is asked for, and what all its stages share."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from kapelle.errors import ImageError, Position
from kapelle.events import BuildOutput, Emit
from kapelle.images.build.cache import Cache
from kapelle.images.build.dockerfile import Dockerfile
from kapelle.images.build.exchange import Brought
from kapelle.images.build.ignore import Ignore
from kapelle.images.build.rootfs import Rootfs
from kapelle.images.build.stages import Stages
from kapelle.images.build.state import StageState
from kapelle.images.store import Store
from kapelle.images.types import Image, Runner
from kapelle.light import NamedTuple
from kapelle.model.service import Build


class BuildOptions(NamedTuple):
    name: str  # the image's name; "" for none
    service: str  # "" when no compose file has asked
    build: Build
    no_cache: bool = False
    pull: bool = False
    host_settings: bool = False
    secrets: tuple[tuple[str, bytes], ...] = ()  # id, content: for RUN --mount=type=secret
    ssh: tuple[tuple[str, str], ...] = ()  # id, an agent's socket or a key file: for RUN --mount=type=ssh
    no_cache_stages: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()  # network.host
    push: Callable[[str], None] | None = None  # send the image of that name to its registry
    directory: str = "."  # where relative paths of caches begin
    places: Mapping[str, Position] = {}  # of keys of the build section in the file


class Context(NamedTuple):
    """What every stage of one build shares. Stages may run in several threads."""

    options: BuildOptions
    store: Store
    cache: Cache
    run: Runner
    resolve: Callable[[str], Image]
    emit: Emit
    environ: Mapping[str, str]
    dockerfile: Dockerfile
    stages: Stages
    tree: Rootfs  # the build context
    ignore: Ignore
    arguments: Mapping[str, str]  # ARG before FROM, with --build-arg
    given: Mapping[str, str]  # --build-arg and build.args
    epoch: int | None  # SOURCE_DATE_EPOCH
    brought: Brought  # caches of others
    done: dict[int, StageState]  # stages by number, begun or complete
    failed: list[BaseException]  # the first failure: all others stop

    @property
    def escape(self) -> str:
        return self.dockerfile.escape

    def say(
        self,
        step: str,
        line: str = "",
        stream: str = "stdout",
        *,
        cached: bool = False,
        ended: str = "",
        seconds: float = 0.0,
    ) -> None:
        self.emit(BuildOutput(self.options.service, step, line, stream, cached, ended, seconds))

    def cancelled(self) -> bool:
        return bool(self.failed)


class Cancelled(ImageError):
    """A stage ends because another one has failed."""
