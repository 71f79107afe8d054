"""What the file asks of one service. Frozen values: times in seconds, sizes in bytes, paths absolute.

NamedTuples, because they import five times faster than frozen dataclasses.
`None` always means "the file does not say": the image's or the engine's default holds.
"""

from __future__ import annotations

from collections.abc import Mapping

from kapelle.errors import Position
from kapelle.light import Any, NamedTuple


class Port(NamedTuple):
    target: int
    published: str = ""  # "" = an ephemeral one; "8000"; "8000-8010" = one free port of the range
    protocol: str = "tcp"  # tcp, udp
    host_ip: str = ""  # "" = every address, IPv4 and IPv6
    mode: str = "ingress"
    name: str = ""
    app_protocol: str = ""


class Mount(NamedTuple):
    type: str  # volume, bind, tmpfs, image
    source: str  # volume key ("" = anonymous), host path, image; "" for tmpfs
    target: str
    read_only: bool = False
    create_host_path: bool = True  # bind: make a missing source a directory
    propagation: str = ""  # bind
    recursive: str = ""  # bind: enabled, disabled, writable, readonly
    nocopy: bool = False  # volume
    subpath: str = ""  # volume, image
    tmpfs_size: int | None = None
    tmpfs_mode: int | None = None
    tmpfs_options: str = ""  # the rest of a `tmpfs: /run:uid=1000,…`


class HealthCheck(NamedTuple):
    """How a container tells that it is ready. Fields left None come from the image, then 30/30/3/0/5."""

    test: tuple[str, ...] | None = None  # ("CMD", …), ("CMD-SHELL", "…"), ("NONE",)
    interval: float | None = None
    timeout: float | None = None
    retries: int | None = None
    start_period: float | None = None
    start_interval: float | None = None


class Probe(NamedTuple):
    """`x-kap-probe`: a health check that the engine makes itself, without a program in the image."""

    kind: str  # tcp, http, file, log
    port: int = 0  # tcp, http
    path: str = ""  # http, file
    status: int = 0  # http; 0: any from 200 to 399
    pattern: str = ""  # log: a regular expression
    timing: HealthCheck = HealthCheck()

    def __str__(self) -> str:
        about = {"tcp": self.port, "http": f"http://localhost:{self.port}{self.path}", "file": self.path}
        return f"x-kap-probe {self.kind} {about.get(self.kind, self.pattern)}"


class Dependency(NamedTuple):
    service: str
    condition: str = "service_started"  # service_healthy, service_completed_successfully
    required: bool = True
    restart: bool = False


class NetworkAttachment(NamedTuple):
    network: str  # key in the file
    aliases: tuple[str, ...] = ()
    ipv4_address: str = ""
    ipv6_address: str = ""
    mac_address: str = ""
    priority: int = 0
    gw_priority: int = 0
    interface_name: str = ""
    link_local_ips: tuple[str, ...] = ()
    driver_opts: tuple[tuple[str, str], ...] = ()


class FileGrant(NamedTuple):
    """A config or secret given to a service."""

    source: str  # key in the file
    target: str  # absolute path in the container
    uid: str | None = None
    gid: str | None = None
    mode: int | None = None


class Ulimit(NamedTuple):
    name: str
    soft: int
    hard: int


class BlockIo(NamedTuple):
    """Limits on block devices: rows of (path of a device, weight or rate)."""

    weight: int | None = None  # 10 to 1000
    weight_device: tuple[tuple[str, int], ...] = ()
    device_read_bps: tuple[tuple[str, int], ...] = ()
    device_write_bps: tuple[tuple[str, int], ...] = ()
    device_read_iops: tuple[tuple[str, int], ...] = ()
    device_write_iops: tuple[tuple[str, int], ...] = ()


class DeviceRequest(NamedTuple):
    """Devices by what they can do (gpus, deploy.resources.reservations.devices)."""

    key: str  # where in the file: "gpus[0]"
    driver: str = ""
    number: int = 0  # -1 = all; 0 when `ids` say which
    ids: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    options: tuple[tuple[str, str], ...] = ()


class Hook(NamedTuple):
    command: tuple[str, ...]
    user: str = ""
    privileged: bool = False
    working_dir: str = ""
    environment: tuple[str, ...] = ()
    image: str = ""  # pre_start only
    per_replica: bool = False  # pre_start only


class Build(NamedTuple):
    context: str  # absolute path (or URL)
    dockerfile: str = "Dockerfile"  # relative to context, or absolute
    dockerfile_inline: str = ""
    args: tuple[tuple[str, str | None], ...] = ()
    target: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    tags: tuple[str, ...] = ()
    network: str = ""
    additional_contexts: tuple[tuple[str, str], ...] = ()
    secrets: tuple[FileGrant, ...] = ()
    extra_hosts: tuple[tuple[str, str], ...] = ()
    shm_size: int | None = None
    ulimits: tuple[Ulimit, ...] = ()
    platforms: tuple[str, ...] = ()
    cache_from: tuple[str, ...] = ()
    cache_to: tuple[str, ...] = ()
    ssh: tuple[tuple[str, str], ...] = ()
    no_cache: bool = False
    pull: bool = False
    privileged: bool = False
    no_cache_filter: tuple[str, ...] = ()
    entitlements: tuple[str, ...] = ()


class Service(NamedTuple):
    """A service, its defaults applied. The canonical tree it was bound from is `raw`."""

    name: str
    image: str = ""  # "" only when there is a build: see Project.image_of
    build: Build | None = None
    command: tuple[str, ...] | None = None  # () is an explicit empty list
    entrypoint: tuple[str, ...] | None = None
    environment: tuple[tuple[str, str | None], ...] = ()  # env_file folded in; None = unset at the caller
    user: str = ""
    working_dir: str = ""
    ports: tuple[Port, ...] = ()
    expose: tuple[str, ...] = ()
    mounts: tuple[Mount, ...] = ()  # volumes and tmpfs
    volumes_from: tuple[str, ...] = ()
    networks: tuple[NetworkAttachment, ...] = ()
    network_mode: str = ""  # "", none, host, bridge, service:X, container:X
    depends_on: tuple[Dependency, ...] = ()  # implied ones (links, network_mode, …) included
    healthcheck: HealthCheck | None = None
    probe: Probe | None = None  # x-kap-probe
    map_user: str = ""  # x-kap-map-user: "", caller, UID or UID:GID
    restart: str = ""  # "", no, always[:N], unless-stopped, on-failure[:N]
    restart_delay: float | None = None  # deploy.restart_policy: instead of the growing pause
    restart_window: float | None = None  # deploy.restart_policy: a run this long is a success
    scale: int = 1
    container_name: str = ""
    hostname: str = ""
    domainname: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    annotations: tuple[tuple[str, str], ...] = ()
    profiles: tuple[str, ...] = ()
    configs: tuple[FileGrant, ...] = ()
    secrets: tuple[FileGrant, ...] = ()
    stop_signal: str = ""
    stop_grace_period: float | None = None
    init: bool | None = None
    tty: bool = False
    stdin_open: bool = False
    attach: bool = True
    read_only: bool = False
    privileged: bool = False
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    security_opt: tuple[str, ...] = ()
    group_add: tuple[str, ...] = ()
    userns_mode: str = ""
    ipc: str = ""
    pid: str = ""
    uts: str = ""
    cgroup: str = ""
    cgroup_parent: str = ""
    devices: tuple[tuple[str, str, str], ...] = ()  # source, target, permissions
    device_cgroup_rules: tuple[str, ...] = ()
    device_requests: tuple[DeviceRequest, ...] = ()  # gpus and deploy.resources.reservations.devices
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_opt: tuple[str, ...] = ()
    extra_hosts: tuple[tuple[str, str], ...] = ()  # name, address (or host-gateway)
    links: tuple[tuple[str, str], ...] = ()  # service, alias
    external_links: tuple[tuple[str, str], ...] = ()  # container of any project, alias
    mac_address: str = ""
    sysctls: tuple[tuple[str, str], ...] = ()
    ulimits: tuple[Ulimit, ...] = ()
    shm_size: int | None = None
    mem_limit: int | None = None
    mem_reservation: int | None = None
    memswap_limit: int | None = None
    mem_swappiness: int | None = None
    cpus: float | None = None
    cpu_shares: int | None = None
    cpu_quota: int | None = None
    cpu_period: int | None = None
    cpu_rt_runtime: int | None = None
    cpu_rt_period: int | None = None
    cpuset: str = ""
    pids_limit: int | None = None
    oom_score_adj: int | None = None
    oom_kill_disable: bool = False
    blkio: BlockIo = BlockIo()
    logging_driver: str = ""
    logging_options: tuple[tuple[str, str], ...] = ()
    pull_policy: str = ""
    platform: str = ""
    pre_start: tuple[Hook, ...] = ()
    post_start: tuple[Hook, ...] = ()
    pre_stop: tuple[Hook, ...] = ()
    extensions: tuple[tuple[str, Any], ...] = ()  # x-*
    contents: tuple[tuple[str, str], ...] = ()  # "configs.KEY", "secrets.KEY" → digest of what they hold
    config_hash: str = ""  # 64 hex: digest of what forces a recreate
    raw: Mapping[str, Any] = {}  # canonical tree, as `config --format json` prints it
    where: Mapping[str, Position] = {}  # "ports[0].target" -> where it was written


# Settings that don't touch a container that is there: it need not be replaced for them.
_WITHOUT_EFFECT = frozenset(("build", "pull_policy", "scale", "depends_on", "profiles", "develop", "attach"))
# … and of deploy, which is mostly for swarm, those that do
_DEPLOYED = ("resources", "restart_policy")


def effective(raw: Mapping[str, Any]) -> dict[str, Any]:
    """A service's settings that make a container what it is: without notes (x-*) and what only plans and swarm read."""
    own = {
        k: v for k, v in raw.items() if k not in _WITHOUT_EFFECT and (not k.startswith("x-") or k.startswith("x-kap-"))
    }
    deploy = {k: v for k, v in (own.pop("deploy", None) or {}).items() if k in _DEPLOYED}
    return {**own, "deploy": deploy} if deploy else own
