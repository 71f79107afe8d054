"""The canonical tree of a project → `model.Project`. One line per key; what is not bound stays in `raw`."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from kapelle.compose import units
from kapelle.compose.tree import Map, mark_at, position
from kapelle.errors import Position
from kapelle.light import Any
from kapelle.model.project import FileSource, Network, Project, Volume
from kapelle.model.service import (
    BlockIo,
    Build,
    Dependency,
    DeviceRequest,
    FileGrant,
    HealthCheck,
    Hook,
    Mount,
    NetworkAttachment,
    Port,
    Probe,
    Service,
    Ulimit,
)

Pairs = tuple[tuple[str, str], ...]


class Places(Mapping[str, Position]):
    """Where the paths below a service were written: "ports[0].target" → its position; looked up when asked."""

    def __init__(self, tree: Map, mark: Any) -> None:
        self._tree = tree
        self._mark = mark

    def __getitem__(self, path: str) -> Position:
        steps: list[str | int] = []
        for part in path.replace("[", ".[").split(".") if path else ():
            steps.append(int(part[1:-1]) if part.startswith("[") else part)
        found = position(mark_at(self._tree, steps) if steps else self._mark)
        if found is None or (steps and steps[0] not in self._tree):
            raise KeyError(path)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._tree)

    def __len__(self) -> int:
        return len(self._tree)


def service(
    name: str, tree: Map, mark: Any, config_hash: str, known: Collection[str], contents: Mapping[str, str] = {}
) -> Service:
    """One service from its canonical tree. `known`: services that are on; optional dependencies on others go."""
    deploy = tree.get("deploy") or {}
    resources = deploy.get("resources") or {}
    limits, reservations = resources.get("limits") or {}, resources.get("reservations") or {}
    logging = tree.get("logging") or {}
    return Service(
        name=name,
        image=tree.get("image", ""),
        build=_build(tree["build"]) if tree.get("build") else None,
        command=_words(tree.get("command")),
        entrypoint=_words(tree.get("entrypoint")),
        environment=tuple((tree.get("environment") or {}).items()),
        user=tree.get("user", ""),
        working_dir=tree.get("working_dir", ""),
        ports=tuple(_port(p) for p in tree.get("ports") or ()),
        expose=tuple(tree.get("expose") or ()),
        mounts=tuple(_mount(m) for m in tree.get("volumes") or ()) + tuple(_tmpfs(t) for t in tree.get("tmpfs") or ()),
        volumes_from=tuple(tree.get("volumes_from") or ()),
        networks=tuple(_network(k, v) for k, v in (tree.get("networks") or {}).items()),
        network_mode=tree.get("network_mode", ""),
        depends_on=tuple(
            Dependency(k, v["condition"], v.get("required", True), v.get("restart", False))
            for k, v in (tree.get("depends_on") or {}).items()
            if v.get("required", True) or k in known
        ),
        healthcheck=_health(tree["healthcheck"]) if tree.get("healthcheck") else None,
        probe=_probe(tree),
        map_user=_map_user(tree),
        restart=_restart(tree, deploy),
        restart_delay=_seconds((deploy.get("restart_policy") or {}).get("delay")),
        restart_window=_seconds((deploy.get("restart_policy") or {}).get("window")),
        scale=_scale(tree, deploy),
        container_name=tree.get("container_name", ""),
        hostname=tree.get("hostname", ""),
        domainname=tree.get("domainname", ""),
        labels=_pairs(tree.get("labels")),
        annotations=_pairs(tree.get("annotations")),
        profiles=tuple(tree.get("profiles") or ()),
        configs=tuple(_grant(g, "/") for g in tree.get("configs") or ()),
        secrets=tuple(_grant(g, "/run/secrets/") for g in tree.get("secrets") or ()),
        stop_signal=tree.get("stop_signal", ""),
        stop_grace_period=_seconds(tree.get("stop_grace_period")),
        init=tree.get("init"),
        tty=tree.get("tty", False),
        stdin_open=tree.get("stdin_open", False),
        attach=tree.get("attach", True),
        read_only=tree.get("read_only", False),
        privileged=tree.get("privileged", False),
        cap_add=tuple(tree.get("cap_add") or ()),
        cap_drop=tuple(tree.get("cap_drop") or ()),
        security_opt=tuple(tree.get("security_opt") or ()),
        group_add=tuple(tree.get("group_add") or ()),
        userns_mode=tree.get("userns_mode", ""),
        ipc=tree.get("ipc", ""),
        pid=tree.get("pid", ""),
        uts=tree.get("uts", ""),
        cgroup=tree.get("cgroup", ""),
        cgroup_parent=tree.get("cgroup_parent", ""),
        devices=tuple(
            (d.get("source", ""), d.get("target") or d.get("source", ""), d.get("permissions", "rwm"))
            for d in tree.get("devices") or ()
        ),
        device_cgroup_rules=tuple(tree.get("device_cgroup_rules") or ()),
        device_requests=(
            *_requests("gpus", tree.get("gpus")),
            *_requests("deploy.resources.reservations.devices", reservations.get("devices")),
        ),
        dns=tuple(tree.get("dns") or ()),
        dns_search=tuple(tree.get("dns_search") or ()),
        dns_opt=tuple(tree.get("dns_opt") or ()),
        extra_hosts=_hosts(tree.get("extra_hosts")),
        links=_links(tree.get("links")),
        external_links=_links(tree.get("external_links")),
        mac_address=tree.get("mac_address", ""),
        sysctls=_pairs(tree.get("sysctls")),
        ulimits=_ulimits(tree.get("ulimits")),
        shm_size=_int(tree.get("shm_size")),
        mem_limit=_int(limits.get("memory", tree.get("mem_limit"))),
        mem_reservation=_int(reservations.get("memory", tree.get("mem_reservation"))),
        memswap_limit=_int(tree.get("memswap_limit")),
        mem_swappiness=_int(tree.get("mem_swappiness")),
        cpus=_float(limits.get("cpus", tree.get("cpus"))),
        cpu_shares=_int(tree.get("cpu_shares")),
        cpu_quota=_int(tree.get("cpu_quota")),
        cpu_period=_int(tree.get("cpu_period")),
        cpu_rt_runtime=_int(tree.get("cpu_rt_runtime")),
        cpu_rt_period=_int(tree.get("cpu_rt_period")),
        cpuset=tree.get("cpuset", ""),
        pids_limit=_int(limits.get("pids", tree.get("pids_limit"))),
        oom_score_adj=_int(tree.get("oom_score_adj")),
        oom_kill_disable=tree.get("oom_kill_disable", False),
        blkio=_block_io(tree.get("blkio_config") or {}),
        logging_driver=logging.get("driver", ""),
        logging_options=_pairs(logging.get("options")),
        pull_policy=tree.get("pull_policy", ""),
        platform=tree.get("platform", ""),
        pre_start=tuple(_hook(h) for h in tree.get("pre_start") or ()),
        post_start=tuple(_hook(h) for h in tree.get("post_start") or ()),
        pre_stop=tuple(_hook(h) for h in tree.get("pre_stop") or ()),
        extensions=tuple((k, v) for k, v in tree.items() if k.startswith("x-")),
        config_hash=config_hash,
        contents=tuple(contents.items()),
        raw=tree,
        where=Places(tree, mark),
    )


def project(
    tree: Map,
    disabled: Map,
    *,
    name: str,
    working_dir: str,
    files: tuple[str, ...],
    env_files: tuple[str, ...],
    profiles: tuple[str, ...],
    hashes: Mapping[str, str],
    contents: Mapping[str, Mapping[str, str]],
    resource_hash: Any,
    environ: Mapping[str, str],
) -> Project:
    """The whole project. `hashes`: service → config hash; `resource_hash` digests a network's or volume's tree."""
    services, networks, volumes = (tree.get(k) or Map() for k in ("services", "networks", "volumes"))
    return Project(
        name=name,
        working_dir=working_dir,
        files=files,
        services=tuple(
            service(n, services[n], services.at.get(n), hashes.get(n, ""), services, contents[n])
            for n in sorted(services)
            if services[n]
        ),
        networks=tuple(
            Network(
                key=key,
                name=item.get("name") or f"{name}_{key}",
                driver=item.get("driver", ""),
                driver_opts=_pairs(item.get("driver_opts")),
                external=bool(item.get("external")),
                internal=item.get("internal", False),
                attachable=item.get("attachable", False),
                enable_ipv4=item.get("enable_ipv4"),
                enable_ipv6=item.get("enable_ipv6"),
                ipam=tuple((item.get("ipam") or {}).get("config") or ()),
                labels=_pairs(item.get("labels")),
                config_hash=resource_hash(item),
                where=position(networks.at.get(key)),
            )
            for key, item in networks.items()
        ),
        volumes=tuple(
            Volume(
                key=key,
                name=item.get("name") or f"{name}_{key}",
                driver=item.get("driver", ""),
                driver_opts=_pairs(item.get("driver_opts")),
                external=bool(item.get("external")),
                labels=_pairs(item.get("labels")),
                config_hash=resource_hash(item),
                where=position(volumes.at.get(key)),
            )
            for key, item in volumes.items()
        ),
        configs=_files(tree.get("configs"), environ),
        secrets=_files(tree.get("secrets"), environ),
        disabled=tuple(service(n, disabled[n], disabled.at.get(n), "", services) for n in sorted(disabled)),
        profiles=profiles,
        env_files=env_files,
        extensions=tuple((k, v) for k, v in tree.items() if k.startswith("x-")),
        raw=tree,
    )


def _files(tree: Any, environ: Mapping[str, str]) -> tuple[FileSource, ...]:
    found = []
    for key, item in (tree or {}).items():
        if not isinstance(item, Map):
            continue
        variable = item.get("environment", "")
        content = item.get("content")
        if variable and content is None:
            content = environ.get(variable)
        found.append(
            FileSource(
                key, item.get("name", ""), item.get("file", ""), variable, content, bool(item.get("external")),
                position(tree.at.get(key)),
            )
        )  # fmt: skip
    return tuple(found)


def _build(tree: Map) -> Build:
    return Build(
        context=tree.get("context", "."),
        dockerfile=tree.get("dockerfile", "Dockerfile"),
        dockerfile_inline=tree.get("dockerfile_inline", ""),
        args=tuple((tree.get("args") or {}).items()),
        target=tree.get("target", ""),
        labels=_pairs(tree.get("labels")),
        tags=tuple(tree.get("tags") or ()),
        network=tree.get("network", ""),
        additional_contexts=_pairs(tree.get("additional_contexts")),
        secrets=tuple(_grant(g, "/run/secrets/") for g in tree.get("secrets") or ()),
        extra_hosts=_hosts(tree.get("extra_hosts")),
        shm_size=_int(tree.get("shm_size")),
        ulimits=_ulimits(tree.get("ulimits")),
        platforms=tuple(tree.get("platforms") or ()),
        cache_from=tuple(tree.get("cache_from") or ()),
        cache_to=tuple(tree.get("cache_to") or ()),
        ssh=tuple((s.partition("=")[0], s.partition("=")[2]) for s in tree.get("ssh") or ()),
        no_cache=tree.get("no_cache", False),
        pull=tree.get("pull", False),
        privileged=tree.get("privileged", False),
        no_cache_filter=tuple(tree.get("no_cache_filter") or ()),
        entitlements=tuple(tree.get("entitlements") or ()),
    )


def _port(tree: Map) -> Port:
    return Port(
        target=tree.get("target", 0),
        published=str(tree.get("published", "")),
        protocol=tree.get("protocol", "tcp"),
        host_ip=tree.get("host_ip", ""),
        mode=tree.get("mode", "ingress"),
        name=tree.get("name", ""),
        app_protocol=tree.get("app_protocol", ""),
    )


def _mount(tree: Map) -> Mount:
    bind, volume, tmpfs = (tree.get(k) or {} for k in ("bind", "volume", "tmpfs"))
    size = tmpfs.get("size")
    return Mount(
        type=tree["type"],
        source=tree.get("source", ""),
        target=tree.get("target", ""),
        read_only=tree.get("read_only", False),
        create_host_path=bind.get("create_host_path", "bind" not in tree),
        propagation=bind.get("propagation", ""),
        recursive=bind.get("recursive", ""),
        nocopy=volume.get("nocopy", False),
        subpath=volume.get("subpath", "") or (tree.get("image") or {}).get("subpath", ""),
        tmpfs_size=int(size) if size else None,
        tmpfs_mode=tmpfs.get("mode"),
    )


def _tmpfs(text: str) -> Mount:
    target, _, options = text.partition(":")
    return Mount("tmpfs", "", target, tmpfs_options=options)


def _network(key: str, tree: Any) -> NetworkAttachment:
    tree = tree or {}
    return NetworkAttachment(
        network=key,
        aliases=tuple(tree.get("aliases") or ()),
        ipv4_address=tree.get("ipv4_address", ""),
        ipv6_address=tree.get("ipv6_address", ""),
        mac_address=tree.get("mac_address", ""),
        priority=tree.get("priority", 0),
        gw_priority=tree.get("gw_priority", 0),
        interface_name=tree.get("interface_name", ""),
        link_local_ips=tuple(tree.get("link_local_ips") or ()),
        driver_opts=_pairs(tree.get("driver_opts")),
    )


def _health(tree: Map) -> HealthCheck:
    if tree.get("disable"):
        return HealthCheck(("NONE",))
    return HealthCheck(
        test=_words(tree.get("test")),
        interval=_seconds(tree.get("interval")),
        timeout=_seconds(tree.get("timeout")),
        retries=tree.get("retries"),
        start_period=_seconds(tree.get("start_period")),
        start_interval=_seconds(tree.get("start_interval")),
    )


def _probe(tree: Map) -> Probe | None:
    if "x-kap-probe" not in tree:
        return None
    from kapelle.compose import probe

    return probe.read(tree, lambda *_: None)  # what is wrong with it was told when the tree was checked


def _map_user(tree: Map) -> str:
    if "x-kap-map-user" not in tree:
        return ""
    from kapelle.compose import mapuser

    return mapuser.read(tree, lambda *_: None)


def _restart(tree: Map, deploy: Any) -> str:
    """deploy.restart_policy beats restart (none → no, any → always)."""
    policy = deploy.get("restart_policy") or {}
    condition = policy.get("condition")
    if not policy:
        return str(tree.get("restart", ""))
    if condition == "none":
        return "no"
    name = "on-failure" if condition == "on-failure" else "always"
    attempts = policy.get("max_attempts")
    return f"{name}:{attempts}" if attempts else name


def _scale(tree: Map, deploy: Any) -> int:
    value = tree.get("scale", deploy.get("replicas", 1))
    return 1 if deploy.get("mode") == "global" else int(value)


def _grant(tree: Map, folder: str) -> FileGrant:
    source = tree.get("source", "")
    target = tree.get("target") or source
    return FileGrant(
        source,
        target if target.startswith("/") else folder + target,
        tree.get("uid"),
        tree.get("gid"),
        tree.get("mode"),
    )


def _hook(tree: Map) -> Hook:
    return Hook(
        command=_words(tree.get("command")) or (),
        user=tree.get("user", ""),
        privileged=tree.get("privileged", False),
        working_dir=tree.get("working_dir", ""),
        environment=tuple(k if v is None else f"{k}={v}" for k, v in (tree.get("environment") or {}).items()),
        image=tree.get("image", ""),
        per_replica=tree.get("per_replica", False),
    )


def _block_io(tree: Any) -> BlockIo:
    def rows(key: str, value: str) -> tuple[tuple[str, int], ...]:
        return tuple((row.get("path", ""), int(row.get(value, 0))) for row in tree.get(key) or ())

    return BlockIo(
        _int(tree.get("weight")), rows("weight_device", "weight"), rows("device_read_bps", "rate"),
        rows("device_write_bps", "rate"), rows("device_read_iops", "rate"), rows("device_write_iops", "rate"),
    )  # fmt: skip


def _requests(key: str, tree: Any) -> Iterator[DeviceRequest]:
    for number, row in enumerate(tree or ()):
        yield DeviceRequest(
            f"{key}[{number}]",
            row.get("driver", ""),
            int(row.get("count", 0)),
            tuple(str(i) for i in row.get("device_ids") or ()),
            tuple(row.get("capabilities") or ()),
            _pairs(row.get("options")),
        )


def _ulimits(tree: Any) -> tuple[Ulimit, ...]:
    return tuple(
        Ulimit(name, v, v) if isinstance(v, int) else Ulimit(name, v.get("soft", 0), v.get("hard", 0))
        for name, v in (tree or {}).items()
    )


def _links(rows: Sequence[str] | None) -> tuple[tuple[str, str], ...]:
    """`NAME` and `NAME:ALIAS`."""
    return tuple((row.partition(":")[0], row.rpartition(":")[2]) for row in rows or ())


def _hosts(rows: Any) -> Pairs:
    return tuple((name, address) for name, _, address in (row.partition("=") for row in rows or ()))


def _pairs(tree: Any) -> Pairs:
    return tuple((str(k), "" if v is None else str(v)) for k, v in (tree or {}).items())


def _words(value: Any) -> tuple[str, ...] | None:
    return None if value is None else tuple(value)


def _seconds(text: str | None) -> float | None:
    return None if text is None else units.seconds(text)


def _int(value: Any) -> int | None:
    return None if value is None else int(value)


def _float(value: Any) -> float | None:
    return None if value is None else float(value)
