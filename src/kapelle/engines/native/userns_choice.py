"""Which containers of root get a user namespace of their own, of which ids, and what can't be had together with one.

`userns_mode` of a service, else KAP_USERNS, else `userns` in config.toml. As an ordinary user all containers are in
one already: there is nothing to choose then.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping

from kapelle.engines.native import limits, rung
from kapelle.errors import EngineError
from kapelle.linux import idmap
from kapelle.linux.idmap import Ids
from kapelle.model.project import Project
from kapelle.model.service import Service
from kapelle.state.paths import find

MODES = ("", "host", "private", "auto")
_OWN = ("private", "auto")
_NAMES = ("kapelle", "root", "0")  # whose range in /etc/subuid and /etc/subgid; the first that has one
_FEWEST = 1000
_ELSE = Ids(0x7000_0000, 0x7000_0000, 65536)  # above what systemd and adduser give away, below 2^31


def chosen(service: Service, environ: Mapping[str, str]) -> Ids | None:
    """The ids of this service's containers; None for the host's own. EngineError for a setting that is none."""
    mode = service.userns_mode or setting(environ)
    return available() if mode in _OWN and rung.current() == "R1" else None


def require(services: Iterable[Service], asked: str, environ: Mapping[str, str]) -> None:
    """--require=userns as root: each service has one of its own. EngineError KAP701."""
    if "userns" not in rung.words_of(asked) or rung.current() != "R1":
        return
    for service in services:
        if chosen(service, environ) is None:
            raise EngineError(
                f'--require=userns is not met: service "{service.name}" has no user namespace of its own',
                where=limits.place(service, "userns_mode"),
                hint="KAP_USERNS=private, or userns_mode: private on the service",
                code="KAP701",
            )


def setting(environ: Mapping[str, str]) -> str:
    """What holds for a service that says nothing: "", "host", "private" or "auto"."""
    where, value = "KAP_USERNS", environ.get("KAP_USERNS", "")
    if not value:
        where = f"{find(environ).config}/config.toml"
        value = _configured(where)
    if value in MODES:
        return value
    raise EngineError(f"{where}: invalid user namespace mode: {value}", hint="private or host", code="KAP321")


def _configured(path: str) -> str:
    if not os.path.exists(path):
        return ""
    import tomllib

    try:
        with open(path, "rb") as f:
            return str(tomllib.load(f).get("userns", ""))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise EngineError(f"{path} can't be read: {e}", hint="correct the file, or move it away") from e
    except OSError as e:
        raise EngineError(f"{path} can't be read: {e.strerror}") from e


def available() -> Ids:
    """The range of `kapelle` or root in /etc/subuid and /etc/subgid, else a high one of our own."""
    for name in _NAMES:
        uids, gids = (idmap.subordinate(f"/etc/{file}", (name,)) for file in ("subuid", "subgid"))
        if min(uids[1], gids[1]) >= _FEWEST:
            return Ids(uids[0], gids[0], min(uids[1], gids[1]))
    return _ELSE


def mistakes(service: Service, project: Project, environ: Mapping[str, str]) -> list[EngineError]:
    """What can't be had in a user namespace of its own, and why there can't be one here."""
    try:
        setting(environ)  # a wrong one is told whatever the file says
        if service.userns_mode not in MODES:
            return []  # told with the other modes
        ids = chosen(service, environ)
        problems = [] if ids is None else list(_problems(service, project, environ, ids))
    except EngineError as e:
        return [e]
    return [
        EngineError(f'service "{service.name}": {what}', where=limits.place(service, key), hint=hint, code="KAP321")
        for key, what, hint in problems
    ]


def _problems(
    service: Service, project: Project, environ: Mapping[str, str], ids: Ids
) -> Iterator[tuple[str, str, str]]:
    hint = "userns_mode: host for this service"
    if service.privileged:
        yield "privileged", "privileged mode is incompatible with user namespaces", hint
    if service.network_mode == "host":
        yield "network_mode", "cannot share the host's network namespace when user namespaces are enabled", hint
    if service.pid == "host":
        yield "pid", "cannot share the host PID namespace when user namespaces are enabled", hint
    for key in ("network_mode", "ipc", "pid"):
        kind, _, name = getattr(service, key).partition(":")
        other = project.service(name) if kind == "service" else None
        if other is not None and chosen(other, environ) is None:
            yield key, f"{name} has no user namespace of its own", "userns_mode: private for both, or host"
    binds = {m.source: f"volumes[{at}]" for at, m in enumerate(service.mounts) if m.type == "bind"}
    below = {m.source for m in service.mounts if m.recursive != "disabled"}
    for place, why in refusals([find(environ).data, *binds], below, ids):
        yield binds.get(place, "userns_mode"), f"it can't have a user namespace of its own: {place}: {why}", hint


def refusals(places: list[str], below: set[str], ids: Ids) -> list[tuple[str, str]]:
    """(place, why) for each that can't be seen through an id-mapped mount, tried in a child. Makes nothing.

    `below`: those whose further mounts must be mapped, too. The first is a folder that may have to be made yet.
    """
    from kapelle.engines.native.userns import unmappable
    from kapelle.linux import fsops, process
    from kapelle.linux import mount as m
    from kapelle.linux import namespaces as ns

    if process.kernel() < (5, 19):
        return [(places[0], "Linux 5.19 or newer is needed for layers in id-mapped mounts")]
    reading, writing = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            ns.unshare(ns.CLONE_NEWNS)
            space = idmap.namespace((idmap.Range(0, ids.uids, ids.size),), (idmap.Range(0, ids.gids, ids.size),))
            for number, place in enumerate(places):
                while number == 0 and not os.path.isdir(place):
                    place = os.path.dirname(place)
                if not os.path.exists(place):
                    continue  # told otherwise, or made
                try:
                    tree = fsops.clone_tree(fsops.Bind(place, ""))
                    m.set_attributes(tree, m.MOUNT_ATTR_IDMAP, recursive=place in below, userns=space)
                    os.close(tree)
                except OSError as e:
                    os.write(writing, f"{number} {unmappable(e)}\n".encode())
        except OSError as e:
            os.write(writing, f"0 {e.strerror}\n".encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8", errors="replace") as f:
        rows = [line.rstrip("\n").partition(" ") for line in f]
    os.waitpid(child, 0)
    return [(places[int(number)], why) for number, _, why in rows]
