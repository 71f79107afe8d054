"""Pure: a service, its image and the chosen names → what to launch. The result is the container's intent
(container.json), plain JSON values; nothing here touches a disk or the kernel.
"""

from __future__ import annotations

from collections.abc import Mapping

from kapelle.engines.native import limits, network_options, security
from kapelle.engines.native.cdi import Edits
from kapelle.engines.native.volumes import is_anonymous
from kapelle.images.types import Image
from kapelle.light import Any, NamedTuple
from kapelle.linux import caps, fsops
from kapelle.linux import mount as m
from kapelle.linux.idmap import Ids
from kapelle.model.project import Project
from kapelle.model.service import HealthCheck, Mount, NetworkAttachment, Probe, Service

LABEL = "com.docker.compose."
_DEFAULT_SHM = 64 << 20

# Where a namespace comes from: our own, the host's, none at all, or another container's ("container:ID").
Namespaces = dict[str, str]


class Inputs(NamedTuple):
    """All that the intent is made from besides the service: chosen by the engine, known before the start."""

    id: str  # 64 hex
    name: str
    number: int
    oneoff: bool
    slug: str
    created: float
    rootfs: Mapping[str, Any]  # lowers, upper, work, merged
    volumes: Mapping[str, tuple[str, str]]  # mount target -> (volume name, host path) of volume mounts
    files: Mapping[str, str]  # target of a config or secret -> host path
    state_dir: str  # hosts, resolv.conf, hostname live there
    version: str
    labels: tuple[tuple[str, str], ...] = ()
    publish: bool = True
    use_aliases: bool = True
    remove_on_exit: bool = False
    given: Edits = Edits()  # with gpus and devices by CDI name
    caller: tuple[int, int] = (0, 0)  # for x-kap-map-user
    userns: Ids | None = None  # as root: those of a user namespace of its own
    containers: Mapping[str, str] = {}  # service -> container id, for service:X modes


def intent(project: Project, service: Service, image: Image, inputs: Inputs) -> dict[str, Any]:
    """The container's intent. Raises nothing: what can't be honoured was refused before."""
    config = image.config.get("config") or {}
    args = arguments(service, config)
    privileged = service.privileged
    namespaces = _namespaces(service, inputs)
    walls = security.of(service)
    hosts_name = "host" in (namespaces["net"], namespaces["uts"])
    hostname = "" if hosts_name and not service.hostname else (service.hostname or inputs.id[:12])
    held = caps.effective_set(service.cap_add, service.cap_drop, privileged)
    raw_paths = privileged or walls.raw_paths
    mounts = _mounts(service, inputs)
    networks = _networks(project, service, inputs)
    return {
        "version": 1,
        "id": inputs.id,
        "name": inputs.name,
        "project": project.name,
        "service": service.name,
        "number": inputs.number,
        "oneoff": inputs.oneoff,
        "image": project.image_of(service),
        "image_id": image.id,
        "standin": image.standin,
        "config_hash": service.config_hash,
        "created": inputs.created,
        "command": args,
        "labels": _labels(project, service, image, inputs),
        "exposed": _exposed(service, config),
        "restart": restart_policy(service),
        "restart_delay": service.restart_delay,
        "restart_window": service.restart_window,
        "stop_signal": service.stop_signal or config.get("StopSignal") or "SIGTERM",
        "stop_timeout": 10.0 if service.stop_grace_period is None else service.stop_grace_period,
        "healthcheck": health(service.healthcheck, config.get("Healthcheck"), service.probe),
        "network_mode": service.network_mode,
        "networks": networks,
        "ports": _ports(service, network_options.binding(project, service)) if inputs.publish and networks else [],
        "links": [list(pair) for pair in (*service.links, *service.external_links)],
        "extra_hosts": [list(pair) for pair in service.extra_hosts],
        "dns": list(service.dns),
        "dns_search": list(service.dns_search),
        "dns_opt": list(service.dns_opt),
        "stdin_open": service.stdin_open,
        "tty": service.tty,
        "remove_on_exit": inputs.remove_on_exit,
        "logging": {"driver": service.logging_driver, "options": dict(service.logging_options)},
        "mounts": [[kind, source, target] for kind, source, target in _shown_mounts(service, inputs)],
        "anonymous": [name for name, _ in inputs.volumes.values() if is_anonymous(name)],
        "limits": limits.of(service, inputs.given.nodes),
        "notes": [["", f"not run for its devices: {hook}"] for hook in inputs.given.hooks],
        "hooks": {
            "post_start": [_hook(h) for h in service.post_start],
            "pre_stop": [_hook(h) for h in service.pre_stop],
        },
        "launch": {
            **inputs.rootfs,
            "hostname": hostname,
            "domainname": service.domainname,
            "mounts": mounts,
            "devices": _devices(service, inputs.given),
            "all_devices": privileged,
            "args": args,
            "env": with_variables(environment(service, config), inputs.given.env),
            "cwd": service.working_dir or config.get("WorkingDir") or "/",
            "user": service.user or config.get("User") or "",
            "userns": list(inputs.userns) if inputs.userns is not None else None,
            "map_user": service.map_user,
            "caller": list(inputs.caller),
            "groups": [*service.group_add, *map(str, inputs.given.groups)],
            "caps": sorted(held),
            "privileged": privileged,
            "no_new_privileges": walls.no_new_privileges,
            "seccomp": None if privileged or walls.seccomp == "unconfined" else "",
            "apparmor": walls.apparmor if security.has_apparmor() and not privileged else "",
            "writable_cgroups": privileged or walls.writable_cgroups,
            "masked": [] if raw_paths else list(fsops.MASKED),
            "read_only_paths": [] if raw_paths else list(fsops.READ_ONLY),
            "read_only": service.read_only,
            "sysctls": [list(pair) for pair in service.sysctls],
            "ulimits": [[u.name, u.soft, u.hard] for u in service.ulimits],
            "oom_score_adj": service.oom_score_adj,
            "shm_size": service.shm_size or _DEFAULT_SHM,
            "tty": service.tty,
            "init": bool(service.init),
            "namespaces": namespaces,
            "cgroups": [],
        },
    }


def arguments(service: Service, config: Mapping[str, Any]) -> list[str]:
    """ENTRYPOINT and CMD after the file's say: an entrypoint in the file drops the image's CMD."""
    if service.entrypoint is not None:
        entrypoint = list(service.entrypoint)
        command = list(service.command or ())
    else:
        entrypoint = list(config.get("Entrypoint") or ())
        command = list(service.command if service.command is not None else config.get("Cmd") or ())
    return entrypoint + command


def environment(service: Service, config: Mapping[str, Any]) -> list[str]:
    """The image's variables under the file's. A variable of value None is left out, the image's too."""
    env: dict[str, str] = {}
    for row in config.get("Env") or ():
        key, _, value = row.partition("=")
        env[key] = value
    for key, given in service.environment:
        if given is None:
            env.pop(key, None)
        else:
            env[key] = given
    return [f"{key}={value}" for key, value in env.items()]


def with_variables(env: list[str], given: tuple[str, ...]) -> list[str]:
    """Variables that come with devices win over all others."""
    rows = {row.partition("=")[0]: row for row in (*env, *given)}
    return list(rows.values())


_TIMES: dict[str, Any] = {"interval": 30.0, "timeout": 30.0, "retries": 3, "start_period": 0.0, "start_interval": 5.0}


def health(
    wanted: HealthCheck | None, image: Mapping[str, Any] | None, probe: Probe | None = None
) -> dict[str, Any] | None:
    """The health check that runs, times in seconds; None when there is none. OCI times are nanoseconds.

    A test in the file comes first, then its x-kap-probe, then what the image says.
    """
    if probe is not None and (wanted is None or wanted.test is None):
        times = dict(_TIMES)
        for given in (wanted, probe.timing):
            times.update({k: v for k, v in (given._asdict() if given else {}).items() if k != "test" and v})
        return {"test": [str(probe)], **times, "probe": {**probe._asdict(), "timing": None}}
    have: dict[str, Any] = {}
    if image:
        have = {
            "test": list(image.get("Test") or ()),
            "interval": (image.get("Interval") or 0) / 1e9 or None,
            "timeout": (image.get("Timeout") or 0) / 1e9 or None,
            "start_period": (image.get("StartPeriod") or 0) / 1e9 or None,
            "start_interval": (image.get("StartInterval") or 0) / 1e9 or None,
            "retries": image.get("Retries") or None,
        }
    if wanted is not None:
        have.update({k: list(v) if isinstance(v, tuple) else v for k, v in wanted._asdict().items() if v is not None})
    test = have.get("test") or []
    if not test or test[0] == "NONE":
        return None
    return {"test": test, **{k: have.get(k) or d for k, d in _TIMES.items()}}


def restart_policy(service: Service) -> str:
    """no, always, unless-stopped, on-failure or on-failure:N; deploy.restart_policy is folded in by the loader."""
    return service.restart or "no"


def _namespaces(service: Service, inputs: Inputs) -> Namespaces:
    def mode(value: str, *, own: tuple[str, ...] = ("", "private", "shareable")) -> str:
        if value in own:
            return "own"
        if value.startswith("service:"):
            return f"container:{inputs.containers[value.removeprefix('service:')]}"
        return value

    net = mode(service.network_mode)
    return {
        "net": net if net == "host" or net.startswith("container:") else "own",  # else its own, on which networks ever
        "ipc": mode(service.ipc),
        "pid": mode(service.pid),
        "uts": mode(service.uts),
        "cgroup": "host" if service.cgroup == "host" else "own",
    }


def _networks(project: Project, service: Service, inputs: Inputs) -> list[dict[str, Any]]:
    mode = service.network_mode
    if mode in ("host", "none") or mode.startswith(("service:", "container:")):
        return []
    names = {n.key: n.name for n in project.networks}
    attachments = sorted(service.networks, key=lambda a: (-a.priority, a.network))
    if mode not in ("", "bridge", "default"):
        attachments = [NetworkAttachment(mode)]  # a network that is there, by its name
        names = {}
    common = [service.name] if inputs.use_aliases else []
    rows = []
    for a in attachments or [NetworkAttachment("default")]:
        own = [*common, inputs.name, inputs.id[:12], *(a.aliases if inputs.use_aliases else ())]
        rows.append(
            {
                "network": names.get(a.network, a.network),
                "aliases": list(dict.fromkeys(own)),
                "ipv4": a.ipv4_address,
                "ipv6": a.ipv6_address,
                "mac": a.mac_address or service.mac_address,
                "ifname": a.interface_name,
                "gateway_priority": a.gw_priority,
                "link_local": list(a.link_local_ips),
            }
        )
    return rows


def _ports(service: Service, address: str) -> list[dict[str, Any]]:
    rows = []
    for p in service.ports:
        first, _, last = p.published.partition("-")
        rows.append(
            {
                "host_ip": p.host_ip or address,
                "published": int(first or 0),
                "published_end": int(last or first or 0),
                "target": p.target,
                "protocol": p.protocol,
            }
        )
    return rows


def _exposed(service: Service, config: Mapping[str, Any]) -> list[str]:
    rows = [e if "/" in e else f"{e}/tcp" for e in (*(config.get("ExposedPorts") or {}), *service.expose)]
    return sorted(set(rows))


def _mounts(service: Service, inputs: Inputs) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for name in ("resolv.conf", "hostname", "hosts"):
        rows.append({"type": "bind", "source": f"{inputs.state_dir}/{name}", "target": f"/etc/{name}"})
    covered = set()
    for mount in service.mounts:
        covered.add(mount.target)
        if mount.type == "tmpfs":
            rows.append(_tmpfs(mount))
        elif mount.type == "volume":
            _, path = inputs.volumes[mount.target]
            row = _bind(path, mount, copy_up=not mount.nocopy and not mount.subpath)
            rows.append({**row, "subpath": mount.subpath} if mount.subpath else row)
        elif mount.type == "bind":
            rows.append({**_bind(mount.source, mount), "mapped": bool(service.map_user)})
    for target, (_, path) in inputs.volumes.items():
        if target not in covered:
            rows.append({"type": "bind", "source": path, "target": target, "copy_up": True})
    for target, path in inputs.files.items():
        rows.append({"type": "bind", "source": path, "target": target, "read_only": True})
    for kind, source, target, options in inputs.given.mounts:
        if kind == "tmpfs":
            rows.append(_tmpfs(Mount("tmpfs", "", target, tmpfs_options=",".join(options))))
        else:
            rows.append({"type": "bind", "source": source, "target": target, "read_only": "ro" in options})
    return rows


def _devices(service: Service, given: Edits) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [{"source": s, "target": t} for s, t, _ in service.devices if s.startswith("/")]
    return rows + [
        {"source": n.source, "target": n.target, "number": n.number, "uid": n.uid, "gid": n.gid, "mode": n.mode}
        for n in given.nodes
    ]


def _bind(source: str, mount: Mount, *, copy_up: bool = False) -> dict[str, Any]:
    return {
        "type": "bind",
        "source": source,
        "target": mount.target,
        "read_only": mount.read_only,
        "recursive": mount.recursive != "disabled",
        "read_only_below": mount.recursive != "writable",
        "propagation": mount.propagation,
        "copy_up": copy_up,
    }


_MOUNT_FLAGS = {
    "ro": (m.MS_RDONLY, True), "rw": (m.MS_RDONLY, False), "nosuid": (m.MS_NOSUID, True), "suid": (m.MS_NOSUID, False),
    "nodev": (m.MS_NODEV, True), "dev": (m.MS_NODEV, False), "noexec": (m.MS_NOEXEC, True),
    "exec": (m.MS_NOEXEC, False), "noatime": (m.MS_NOATIME, True),
}  # fmt: skip


def _tmpfs(mount: Mount) -> dict[str, Any]:
    flags = m.MS_NOSUID | m.MS_NODEV | m.MS_NOEXEC
    options = []
    for word in filter(None, mount.tmpfs_options.split(",")):
        flag = _MOUNT_FLAGS.get(word)
        if flag is None:
            options.append(word)
        else:
            flags = flags | flag[0] if flag[1] else flags & ~flag[0]
    if mount.tmpfs_size is not None:
        options.append(f"size={mount.tmpfs_size}")
    if mount.tmpfs_mode is not None:
        options.append(f"mode={mount.tmpfs_mode:o}")
    elif not any(o.startswith("mode=") for o in options):
        options.append("mode=1777")
    if mount.read_only:
        flags |= m.MS_RDONLY
    return {"type": "tmpfs", "target": mount.target, "flags": flags, "options": ",".join(options)}


def _shown_mounts(service: Service, inputs: Inputs) -> list[tuple[str, str, str]]:
    rows = [
        (
            mount.type,
            inputs.volumes[mount.target][0] if mount.type == "volume" else mount.source,
            mount.target,
        )
        for mount in service.mounts
    ]
    targets = {target for _, _, target in rows}
    rows += [("volume", name, target) for target, (name, _) in inputs.volumes.items() if target not in targets]
    rows += [("bind", path, target) for target, path in inputs.files.items()]
    return rows


def _labels(project: Project, service: Service, image: Image, inputs: Inputs) -> dict[str, str]:
    own = {
        "project": project.name,
        "service": service.name,
        "container-number": str(inputs.number),
        "oneoff": "True" if inputs.oneoff else "False",
        "config-hash": service.config_hash,
        "image": image.id,
        "depends_on": ",".join(f"{d.service}:{d.condition}:{str(d.restart).lower()}" for d in service.depends_on),
        "project.config_files": ",".join(project.files),
        "project.working_dir": project.working_dir,
        "version": inputs.version,
    }
    if project.env_files:
        own["project.environment_file"] = ",".join(project.env_files)
    if inputs.oneoff:
        own["slug"] = inputs.slug
    labels: dict[str, str] = dict((image.config.get("config") or {}).get("Labels") or {})
    labels.update(dict(service.labels))
    labels.update({LABEL + key: value for key, value in own.items()})
    labels.update(dict(inputs.labels))
    return labels


def _hook(hook: Any) -> dict[str, Any]:
    return {
        "args": list(hook.command),
        "user": hook.user,
        "cwd": hook.working_dir,
        "env": list(hook.environment),
        "privileged": hook.privileged,
    }
