"""A container as `docker inspect` shows it, from its intent (container.json) and its status: values to an object."""

from __future__ import annotations

from collections.abc import Mapping

from kapelle.light import Any
from kapelle.plan.observed import Container
from kapelle.render.words import rfc3339

_NEVER = "0001-01-01T00:00:00Z"


def inspected(
    container: Container, intent: Mapping[str, Any], status: Mapping[str, Any], place: str, networks: Mapping[str, str]
) -> dict[str, Any]:
    """place: the folder of its state. networks: name → id."""
    launch: Mapping[str, Any] = intent["launch"]
    args = list(intent["command"])
    return {
        "Id": container.id,
        "Created": _time(container.created),
        "Path": args[0] if args else "",
        "Args": args[1:],
        "State": _state(container, status),
        "Image": container.image_id,
        "ResolvConfPath": f"{place}/resolv.conf",
        "HostnamePath": f"{place}/hostname",
        "HostsPath": f"{place}/hosts",
        "LogPath": f"{place}/log",
        "Name": f"/{container.name}",
        "RestartCount": container.restarts,
        "Driver": "overlay2",
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": launch.get("apparmor") or "",
        "ExecIDs": None,
        "HostConfig": _host(intent, launch),
        "GraphDriver": {
            "Data": {
                "LowerDir": ":".join(reversed(launch.get("lowers") or ())),
                "MergedDir": launch.get("merged", ""),
                "UpperDir": launch.get("upper", ""),
                "WorkDir": launch.get("work", ""),
            },
            "Name": "overlay2",
        },
        "Mounts": _mounts(intent, launch),
        "Config": _config(container, intent, launch),
        "NetworkSettings": _network(container, intent, networks),
    }


def _time(seconds: float) -> str:
    return rfc3339(round(seconds * 1e9)) if seconds else _NEVER


def _state(container: Container, status: Mapping[str, Any]) -> dict[str, Any]:
    value: dict[str, Any] = {
        "Status": container.status,
        "Running": container.alive,
        "Paused": container.status == "paused",
        "Restarting": container.status == "restarting",
        "OOMKilled": container.oom_killed,
        "Dead": container.status == "dead",
        "Pid": container.pid,
        "ExitCode": container.exit_code,
        "Error": container.error,
        "StartedAt": _time(container.started),
        "FinishedAt": _time(container.finished),
    }
    if container.health or status.get("health_log"):
        value["Health"] = {
            "Status": container.health or "unhealthy",
            "FailingStreak": int(status.get("failing") or 0),
            "Log": [_probe(row) for row in status.get("health_log") or ()],
        }
    return value


def _probe(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "Start": _time(float(row.get("start") or 0)),
        "End": _time(float(row.get("end") or 0)),
        "ExitCode": int(row.get("code") or 0),
        "Output": str(row.get("output") or ""),
    }


def _config(container: Container, intent: Mapping[str, Any], launch: Mapping[str, Any]) -> dict[str, Any]:
    check = intent.get("healthcheck")
    value: dict[str, Any] = {
        "Hostname": launch.get("hostname") or "",
        "Domainname": launch.get("domainname") or "",
        "User": launch.get("user") or "",
        "AttachStdin": False,
        "AttachStdout": not container.oneoff,
        "AttachStderr": not container.oneoff,
        "ExposedPorts": {port: {} for port in sorted({*container.exposed, *_targets(intent)})} or None,
        "Tty": bool(intent.get("tty")),
        "OpenStdin": bool(intent.get("stdin_open")),
        "StdinOnce": False,
        "Env": list(launch.get("env") or ()),
        "Cmd": list(intent["command"]),
        "Image": container.image,
        "Volumes": {target: {} for kind, _, target in intent["mounts"] if kind == "volume"} or None,
        "WorkingDir": launch.get("cwd") or "",
        "Entrypoint": None,
        "OnBuild": None,
        "Labels": dict(container.labels),
        "StopSignal": intent.get("stop_signal") or "SIGTERM",
        "StopTimeout": int(intent.get("stop_timeout") or 0),
    }
    if check:
        value["Healthcheck"] = {
            "Test": list(check["test"]),
            "Interval": round(check["interval"] * 1e9),
            "Timeout": round(check["timeout"] * 1e9),
            "StartPeriod": round(check["start_period"] * 1e9),
            "StartInterval": round(check["start_interval"] * 1e9),
            "Retries": int(check["retries"]),
        }
    return value


def _targets(intent: Mapping[str, Any]) -> list[str]:
    return [f"{row['target']}/{row['protocol']}" for row in intent.get("ports") or ()]


def _host(intent: Mapping[str, Any], launch: Mapping[str, Any]) -> dict[str, Any]:
    limits: Mapping[str, Any] = intent.get("limits") or {}
    policy, _, count = str(intent.get("restart") or "no").partition(":")
    bindings: dict[str, list[dict[str, str]]] = {}
    for row in intent.get("ports") or ():
        published = row["published"]
        binding = {"HostIp": row["host_ip"], "HostPort": str(published) if published else ""}
        bindings.setdefault(f"{row['target']}/{row['protocol']}", []).append(binding)
    names = {row["target"]: row for row in launch.get("mounts") or ()}
    binds = []
    for kind, source, target in intent["mounts"]:
        if kind in ("bind", "volume"):
            binds.append(f"{source}:{target}:{'ro' if names.get(target, {}).get('read_only') else 'rw'}")
    networks = intent.get("networks") or ()
    return {
        "Binds": binds or None,
        "NetworkMode": intent.get("network_mode") or (networks[0]["network"] if networks else "default"),
        "PortBindings": bindings,
        "RestartPolicy": {"Name": policy, "MaximumRetryCount": int(count or 0)},
        "AutoRemove": bool(intent.get("remove_on_exit")),
        "LogConfig": {
            "Type": (intent.get("logging") or {}).get("driver") or "json-file",
            "Config": dict((intent.get("logging") or {}).get("options") or {}),
        },
        "CapAdd": None,
        "CapDrop": None,
        "Dns": list(intent.get("dns") or ()),
        "DnsOptions": list(intent.get("dns_opt") or ()),
        "DnsSearch": list(intent.get("dns_search") or ()),
        "ExtraHosts": [":".join(pair) for pair in intent.get("extra_hosts") or ()],
        "GroupAdd": list(launch.get("groups") or ()) or None,
        "IpcMode": _mode(launch, "ipc", "private"),
        "PidMode": _mode(launch, "pid", ""),
        "UTSMode": _mode(launch, "uts", ""),
        "CgroupnsMode": _mode(launch, "cgroup", "private"),
        "UsernsMode": "private" if launch.get("userns") else "",
        "Privileged": bool(launch.get("privileged")),
        "PublishAllPorts": False,
        "ReadonlyRootfs": bool(launch.get("read_only")),
        "SecurityOpt": ["no-new-privileges"] if launch.get("no_new_privileges") else None,
        "ShmSize": int(launch.get("shm_size") or 0),
        "Init": bool(launch.get("init")),
        "OomScoreAdj": int(launch.get("oom_score_adj") or 0),
        "Sysctls": dict(launch.get("sysctls") or ()),
        "Ulimits": [{"Name": n, "Soft": soft, "Hard": hard} for n, soft, hard in launch.get("ulimits") or ()],
        "Memory": int(limits.get("memory") or 0),
        "MemoryReservation": int(limits.get("memory_reservation") or 0),
        "MemorySwap": int(limits.get("memory_swap") or 0),
        "NanoCpus": round(float(limits.get("cpus") or 0) * 1e9),
        "CpuShares": int(limits.get("cpu_shares") or 0),
        "CpusetCpus": str(limits.get("cpuset") or ""),
        "PidsLimit": limits.get("pids"),
        "MaskedPaths": list(launch.get("masked") or ()),
        "ReadonlyPaths": list(launch.get("read_only_paths") or ()),
    }


def _mode(launch: Mapping[str, Any], kind: str, own: str) -> str:
    mode = str((launch.get("namespaces") or {}).get(kind) or "own")
    return own if mode == "own" else mode


def _mounts(intent: Mapping[str, Any], launch: Mapping[str, Any]) -> list[dict[str, Any]]:
    made = {row["target"]: row for row in launch.get("mounts") or ()}
    found = []
    for kind, source, target in intent["mounts"]:
        row: Mapping[str, Any] = made.get(target, {})
        read_only = bool(row.get("read_only"))
        value = {"Type": kind}
        if kind == "volume":
            value |= {"Name": source, "Source": str(row.get("source") or ""), "Driver": "local"}
        else:
            value["Source"] = source
        found.append(
            {
                **value,
                "Destination": target,
                "Mode": "ro" if read_only else "z" if kind == "volume" else "rw" if kind == "bind" else "",
                "RW": not read_only,
                "Propagation": str(row.get("propagation") or ("rprivate" if kind == "bind" else "")),
            }
        )
    return found


def _network(container: Container, intent: Mapping[str, Any], networks: Mapping[str, str]) -> dict[str, Any]:
    from kapelle.cli.commands.network import endpoint_id

    ports: dict[str, list[dict[str, str]] | None] = {port: None for port in container.exposed}
    for p in container.ports:
        rows = ports.get(f"{p.target}/{p.protocol}") or []
        rows.append({"HostIp": p.host_ip or "0.0.0.0", "HostPort": str(p.published)})
        ports[f"{p.target}/{p.protocol}"] = rows
    found = {}
    for e in container.networks:
        address, _, prefix = e.ipv4.partition("/")
        address6, _, prefix6 = e.ipv6.partition("/")
        network_id = networks.get(e.network, "")
        found[e.network] = {
            "Aliases": list(e.aliases),
            "MacAddress": e.mac,
            "NetworkID": network_id,
            "EndpointID": endpoint_id(container.id, network_id) if address else "",
            "Gateway": e.gateway,
            "IPAddress": address,
            "IPPrefixLen": int(prefix or 0),
            "IPv6Gateway": "",
            "GlobalIPv6Address": address6,
            "GlobalIPv6PrefixLen": int(prefix6 or 0),
            "DNSNames": list(e.aliases),
        }
    mode = intent.get("network_mode")
    if not found and mode in ("host", "none"):
        found[mode] = {"Aliases": None, "IPAddress": "", "Gateway": "", "MacAddress": "", "NetworkID": ""}
    first = next(iter(found.values()), {}) if len(found) == 1 else {}
    return {
        "Bridge": "",
        "SandboxKey": "",
        "Ports": ports,
        "EndpointID": "",
        "Gateway": first.get("Gateway", ""),
        "IPAddress": first.get("IPAddress", ""),
        "IPPrefixLen": first.get("IPPrefixLen", 0),
        "MacAddress": first.get("MacAddress", ""),
        "Networks": found,
    }
