"""What was found: the values an engine's `observe` returns. Nothing here reads anything."""

from __future__ import annotations

from collections.abc import Mapping

from kapelle.light import NamedTuple


class Endpoint(NamedTuple):
    """A container's place on a network."""

    network: str  # the network's name
    ipv4: str = ""  # "172.18.0.2/16"
    ipv6: str = ""
    mac: str = ""
    gateway: str = ""
    aliases: tuple[str, ...] = ()


class PublishedPort(NamedTuple):
    host_ip: str
    published: int
    target: int
    protocol: str = "tcp"


class Container(NamedTuple):
    id: str  # 64 hex
    name: str
    project: str
    service: str
    number: int  # replica number; 0 for a one-off
    oneoff: bool = False
    image: str = ""  # the reference asked for
    image_id: str = ""  # sha256:…
    status: str = "created"  # created running paused restarting exited dead
    health: str = ""  # "", starting, healthy, unhealthy
    exit_code: int = 0
    oom_killed: bool = False
    memory_peak: int = 0  # bytes, when it was killed for want of memory
    error: str = ""
    pid: int = 0
    created: float = 0.0  # seconds since the epoch
    started: float = 0.0
    finished: float = 0.0
    restarts: int = 0
    config_hash: str = ""
    command: tuple[str, ...] = ()  # path and arguments that run
    labels: Mapping[str, str] = {}
    ports: tuple[PublishedPort, ...] = ()
    exposed: tuple[str, ...] = ()  # "80/tcp" of the image and the file that are not published
    networks: tuple[Endpoint, ...] = ()
    mounts: tuple[tuple[str, str, str], ...] = ()  # type, name or source, target
    standin: bool = False
    rung: str = ""  # R1 …

    @property
    def alive(self) -> bool:
        return self.status in ("running", "paused", "restarting")


class ObservedNetwork(NamedTuple):
    name: str
    id: str
    project: str = ""
    key: str = ""
    driver: str = "bridge"
    internal: bool = False
    subnets: tuple[str, ...] = ()
    gateways: tuple[str, ...] = ()
    labels: Mapping[str, str] = {}
    options: Mapping[str, str] = {}
    created: float = 0.0
    config_hash: str = ""


class ObservedVolume(NamedTuple):
    name: str
    project: str = ""
    key: str = ""
    driver: str = "local"
    mountpoint: str = ""
    labels: Mapping[str, str] = {}
    options: Mapping[str, str] = {}
    created: float = 0.0
    config_hash: str = ""


class ObservedImage(NamedTuple):
    id: str
    names: tuple[str, ...]
    standin: bool = False


class Observed(NamedTuple):
    """All that is there of one project, and what it refers to outside."""

    containers: tuple[Container, ...] = ()
    networks: tuple[ObservedNetwork, ...] = ()
    volumes: tuple[ObservedVolume, ...] = ()
    images: Mapping[str, ObservedImage] = {}  # by the reference the project uses
