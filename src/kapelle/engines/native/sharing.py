"""Networks that several projects are on (`external: true`): who else is there, and the wires to their bridges.

Each project has a network namespace and a bridge of its own for such a network; pairs of bridges are joined by a veth
whose ends are isolated ports, so that nothing goes in circles. Addresses and names of the others are read from their
state folders; who changes something tells the others ("neighbours" to their supervisors, no answer wanted).
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator

from kapelle.engines.native import client, messages, records
from kapelle.light import Any, NamedTuple
from kapelle.light.managed import contextmanager
from kapelle.linux import process
from kapelle.state import store
from kapelle.state.paths import Paths


class Neighbour(NamedTuple):
    """A container of another project on a network."""

    id: str
    name: str
    aliases: tuple[str, ...]
    ipv4: str  # with "/16"
    ipv6: str


def users_of(record: dict[str, Any], project: str) -> list[str]:
    """Other projects that are, or were, on a network of this record."""
    owner = [record["project"]] if record["project"] else []
    return [p for p in dict.fromkeys([*owner, *record.get("users", ())]) if p != project]


def join(paths: Paths, record: dict[str, Any], project: str) -> bool:
    """Write down that a project uses a network that is not its own. True when the record has changed."""
    if record["project"] == project or project in record.get("users", ()):
        return False
    alive = [p for p in record.get("users", ()) if os.path.isdir(paths.project(p))]
    record["users"] = [*alive, project]
    return True


def subnets(paths: Paths) -> list[str]:
    """The subnets of all networks of this installation."""
    found: list[str] = []
    for file in store.names_in(paths.networks):
        record = store.read_json(f"{paths.networks}/{file}") if file.endswith(".json") else None
        found += record["subnets"] if record else []
    return found


@contextmanager
def locked(paths: Paths, *networks: str) -> Iterator[None]:
    """Alone among all projects in choosing addresses on these networks."""
    fds = []
    try:
        for network in sorted(networks):  # in one order, so that two never wait for each other
            fds.append(os.open(f"{paths.networks}/.{network}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            fcntl.flock(fds[-1], fcntl.LOCK_EX)
        yield
    finally:
        for fd in fds:
            os.close(fd)


def neighbours(paths: Paths, network: str, projects: list[str]) -> list[Neighbour]:
    """The living containers of these projects on a network."""
    found = []
    for project in projects:
        for c in records.containers(paths, project):
            for place in c.networks:
                if c.pid and place.network == network and (place.ipv4 or place.ipv6):
                    found.append(Neighbour(c.id, c.name, place.aliases, place.ipv4, place.ipv6))
    return found


def show_netns(paths: Paths, project: str, fd: int) -> None:
    """Let other projects' supervisors find our network namespace: a descriptor of this process."""
    pid = os.getpid()
    store.write_json(_shown(paths, project), {"pid": pid, "start": process.start_time(pid), "fd": fd})


def hide_netns(paths: Paths, project: str) -> None:
    """Its network was taken down whole."""
    try:
        os.unlink(_shown(paths, project))
    except FileNotFoundError:
        pass


def was_left(paths: Paths, project: str) -> bool:
    """Did the project's last network not come down in order (all of it was killed)?"""
    return os.path.exists(_shown(paths, project))


def _shown(paths: Paths, project: str) -> str:
    return f"{paths.project_run(project)}/netns.json"


def netns_of(paths: Paths, project: str) -> int:
    """A descriptor of another project's network namespace; -1 when it has none now."""
    shown = store.read_json(_shown(paths, project))
    if not shown or process.start_time(int(shown["pid"])) != int(shown["start"]):
        return -1
    try:
        return os.open(f"/proc/{shown['pid']}/fd/{shown['fd']}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return -1


def tell(paths: Paths, projects: list[str]) -> None:
    """Have their supervisors look again. Nobody waits: two that tell each other must not block."""
    for project in projects:
        sock = client.connect(paths, project)
        if sock is not None:
            with sock:
                sock.setblocking(False)
                try:
                    messages.send(sock, {"op": "neighbours"})
                except OSError:
                    continue  # it looks when it starts anew
