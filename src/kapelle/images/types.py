"""What an image is to the rest of Kapelle, and what the builder asks for a RUN."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from kapelle.light import Any, NamedTuple


class Image(NamedTuple):
    """An image in the store. `config` is the OCI image config (image-spec config.md), whole."""

    id: str  # sha256:<digest of the config>
    names: tuple[str, ...]  # docker.io/library/redis:7-alpine …: full references
    config: Mapping[str, Any]
    layers: tuple[str, ...]  # diff-IDs, lowest first
    created: float = 0.0
    size: int = 0  # bytes of all unpacked layers
    standin: str = ""  # what a stand-in says of itself ("PostgreSQL 16.x on Debian 12, not Alpine")
    repo_digests: tuple[str, ...] = ()


class RunRequest(NamedTuple):
    """One RUN of a build: a command in a container over given layers, its changes left in `upper`."""

    layers: tuple[str, ...]  # unpacked layer directories, lowest first
    upper: str  # empty directory for the changes (overlay upperdir)
    work: str  # empty directory on the same file system (overlay workdir)
    args: tuple[str, ...]
    env: tuple[str, ...]
    cwd: str = "/"
    user: str = ""  # name or uid[:gid], looked up inside
    binds: tuple[tuple[str, str, bool], ...] = ()  # host path, target, read-only; targets are made, and unmade after
    stacks: tuple[tuple[tuple[str, ...], str, str], ...] = ()  # layers, target, path inside; read-only
    tmpfs: tuple[tuple[str, int | None], ...] = ()
    network: str = "default"  # default, none, host
    extra_hosts: tuple[tuple[str, str], ...] = ()
    hostname: str = "buildkitsandbox"
    shm_size: int | None = None
    ulimits: tuple[tuple[str, int, int], ...] = ()  # name, soft, hard
    cancelled: Callable[[], bool] | None = None  # asked now and then: has another stage failed?
    output: Callable[[str, bytes], None] | None = None  # stream, bytes as they come


Runner = Callable[[RunRequest], int]  # returns the exit code
