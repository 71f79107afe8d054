"""What of the host a file asks for: told before the first start, because a stranger's file may ask for all of it."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator, Mapping

from kapelle.engine.support import place_of
from kapelle.events import Notice
from kapelle.light import Any, NamedTuple
from kapelle.model.service import Service

_ROOT_ALIKE = "which is as good as being {who} on this host"
_NAMESPACES = {  # key → meaning of "host"
    "network_mode": "uses the host's network: services on its 127.0.0.1 answer to it",
    "pid": "sees all processes of the host and may signal those of its user",
    "ipc": "shares the host's shared memory and semaphores",
}
_CAPABILITIES = {
    "ALL": f"every capability, {_ROOT_ALIKE}",
    "SYS_ADMIN": f"mounts and namespaces, {_ROOT_ALIKE}",
    "SYS_MODULE": "loading code into the kernel",
    "SYS_RAWIO": "the host's memory and disks without their drivers",
    "SYS_BOOT": "restarting the host",
    "DAC_READ_SEARCH": "reading every file whose file system it sees",
    "BPF": "loading programs into the kernel",
    "MAC_ADMIN": "changing the host's access rules",
}
_UNCONFINED = {
    "seccomp": "all system calls are allowed",
    "apparmor": "AppArmor does not hold it back",
    "systempaths": "/proc and /sys of the host can be written",
}
_SOCKETS = ("docker.sock", "podman.sock", "containerd.sock", "crio.sock", "system_bus_socket")
_PLACES = {  # a folder of the host → what it holds
    "/": "all files of the host",
    "/boot": "the host's kernel",
    "/dev": "the host's devices",
    "/etc": "the host's settings and passwords",
    "/etc/shadow": "the host's passwords",
    "/etc/sudoers.d": "who may become root on the host",
    "/home": "all users' home folders",
    "/proc": "the host's processes",
    "/root": "root's home folder",
    "/run": "the sockets of the host's services",
    "/sys": "the host's kernel settings",
    "/usr": "the host's programs",
    "/var": "the data of the host's services",
    "/var/lib": "the data of the host's services",
    "/var/lib/docker": "Docker's containers and volumes",
    "/var/run": "the sockets of the host's services",
}
_IN_HOME = {
    "": "your whole home folder", ".ssh": "your SSH keys", ".gnupg": "your GnuPG keys", ".aws": "your AWS keys",
    ".kube": "your Kubernetes access", ".docker": "your registry passwords", ".config": "your programs' settings",
}  # fmt: skip


class Access(NamedTuple):
    key: str  # below the service
    text: str


def notices(services: Iterable[Service], *, home: str, root: bool) -> list[Notice]:
    """One for each thing that is asked for, in the order of the services, with its place."""
    who = "root" if root else "you"
    return [
        Notice(
            f'service "{service.name}": {asked.text.format(who=who)}',
            where=service.where.get(asked.key) or place_of(service, asked.key.partition("[")[0]),
            once=f"host:{service.name}:{asked.key}",
        )
        for service in services
        for asked in of(service, home)
    ]


def of(service: Service, home: str) -> Iterator[Access]:
    if service.privileged:
        yield Access("privileged", f"privileged: true gives it all devices and rights, {_ROOT_ALIKE}")
    for key, meaning in _NAMESPACES.items():
        if getattr(service, key) == "host":
            yield Access(key, f"{key}: host: it {meaning}")
    for at, name in enumerate(service.cap_add):
        meaning = _CAPABILITIES.get(name.upper().removeprefix("CAP_"), "")
        if meaning:
            yield Access(f"cap_add[{at}]", f"cap_add {name} gives it {meaning}")
    for at, option in enumerate(service.security_opt):
        key, _, value = option.replace("=", ":", 1).partition(":")
        if value == "unconfined" and key in _UNCONFINED:
            yield Access(f"security_opt[{at}]", f"security_opt {option}: {_UNCONFINED[key]}")
    for at, (source, _, _) in enumerate(service.devices):
        yield Access(f"devices[{at}]", f"devices gives it the host's {source}")
    for at, row in enumerate(service.raw.get("volumes") or ()):
        yield from _bind(at, row, home)
    for name in ("post_start", "pre_stop"):
        for at, hook in enumerate(getattr(service, name)):
            if hook.privileged:
                yield Access(f"{name}[{at}]", f"{name} runs a privileged command, {_ROOT_ALIKE}")


def _bind(at: int, row: Mapping[str, Any], home: str) -> Iterator[Access]:
    if row.get("type") != "bind":
        return
    source = posixpath.normpath(str(row.get("source", "")))
    may = "read" if row.get("read_only") else "read and change"
    name = posixpath.basename(source)
    if name in _SOCKETS:
        yield Access(f"volumes[{at}]", f"the bind of {source} lets it command that service, {_ROOT_ALIKE}")
        return
    meaning = _PLACES.get(source, "")
    if home not in ("", "/") and (source == home or source.startswith(f"{home}/")):
        meaning = _IN_HOME.get(source[len(home) + 1 :], "")
    elif home.startswith(f"{source.rstrip('/')}/") and not meaning:
        meaning = "a folder around your home"
    if meaning:
        yield Access(f"volumes[{at}]", f"the bind of {source} lets it {may} {meaning}")
