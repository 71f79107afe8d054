"""Start one more process in a running container: exec, health checks, hooks."""

from __future__ import annotations

from kapelle.light import TYPE_CHECKING, Any, socket

if TYPE_CHECKING:
    from kapelle.engines.native.container import Container
    from kapelle.engines.native.supervisor import Supervisor


def join(
    supervisor: Supervisor, container: Container, wanted: dict[str, Any], streams: list[int]
) -> tuple[int, socket.socket]:
    """Begin it: (pid, the socket it speaks on until its exec). `wanted` goes before what the container's own is."""
    launch = container.intent["launch"]
    env = {row.partition("=")[0]: row for row in launch["env"]}
    env.update({row.partition("=")[0]: row for row in wanted.get("env", ())})
    spec = {
        **launch,
        "args": wanted["args"],
        "env": list(env.values()),
        "cwd": wanted.get("cwd") or launch["cwd"],
        "user": wanted.get("user") or launch["user"],
        "users": () if wanted.get("user") else launch.get("users", ()),
        "tty": bool(wanted.get("tty")),
        "size": wanted.get("size"),
        "cgroups": supervisor.cgroups.of(container.id),
        "mounts": [],
        "rung": supervisor.rung,
        "confined": container.status.get("devices", True),
    }
    if wanted.get("privileged"):
        from kapelle.linux import caps

        spec.update(caps=sorted(caps.effective_set((), (), True)), seccomp=None, confined=True)
    message = {"op": "join", "target": container.pid, "host_pid": launch["namespaces"]["pid"] == "host"}
    return supervisor.keeper.begin(message, spec, () if spec["tty"] else streams)
