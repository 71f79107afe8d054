"""What is there, read from the state folders and the kernel. Lean: `ps`, `logs` and `exec` stand on it."""

from __future__ import annotations

import time

from kapelle.engines.native.keeper_files import exit_code, read_exit
from kapelle.light import Any
from kapelle.linux import process
from kapelle.plan.observed import Container, Endpoint, ObservedNetwork, PublishedPort
from kapelle.state import store
from kapelle.state.paths import Paths

_EXIT_WAIT = 0.03  # seconds, for an exit code that the keeper may just be writing
_STATUS_WAIT = 2.0  # seconds, for a supervisor that lives and has not said yet what becomes of a run that ended


class Patience:
    """How long to wait, for all containers of a project together; asked only when one has just ended."""

    def __init__(self, paths: Paths, project: str) -> None:
        self._place = paths, project
        self._until = 0.0

    def until(self) -> float:
        """Monotonic seconds."""
        if not self._until:
            from kapelle.engines.native import client

            sock = client.connect(*self._place)
            self._until = time.monotonic() + (_EXIT_WAIT if sock is None else _STATUS_WAIT)
            if sock is not None:
                sock.close()
        return self._until


def containers(paths: Paths, project: str, intents: dict[str, dict[str, Any]] | None = None) -> list[Container]:
    """The project's containers, one-offs too, by service and number. Their intents go into `intents`, by id."""
    base = f"{paths.project(project)}/containers"
    boot = process.boot_id()
    patience = Patience(paths, project)
    found = []
    for container_id in store.names_in(base):
        record = one(f"{base}/{container_id}", boot, patience, intents)
        if record is not None:
            found.append(record)
    return sorted(found, key=lambda c: (c.service, c.oneoff, c.number, c.name))


def projects(paths: Paths) -> list[str]:
    """Names of all projects with state; those of builds in progress are left out."""
    return [name for name in store.names_in(paths.projects) if not name.startswith("_")]


def one(
    directory: str,
    boot: str,
    patience: Patience | None = None,
    intents: dict[str, dict[str, Any]] | None = None,
) -> Container | None:
    """One container from its folder; None when it is half-made or half-removed."""
    intent: dict[str, Any] | None = store.read_json(f"{directory}/container.json")
    if intent is None:
        return None
    if intents is not None:
        intents[intent["id"]] = intent
    status = _status_of(directory, boot, patience)
    state = status.get("status", "created")
    code, finished = int(status.get("exit_code", 0)), float(status.get("finished", 0.0))
    pid = int(status.get("pid", 0))
    if state in ("running", "paused") and not (
        status.get("boot") == boot and process.is_same(pid, int(status["start_time"]))
    ):
        # It ended and the supervisor has not said so (yet, or never: it was killed, or the machine restarted).
        told = _end_of(directory, pid) if status.get("boot") == boot else None
        state, pid = "exited", 0
        if told is not None:
            code, finished = exit_code(told[0]), told[1] / 1e9
        else:
            code, finished = 137, finished or float(status.get("started", 0.0))
    elif state in ("created", "exited") and pid:
        # Being started, or half started by a supervisor that died: a process is there, the program is not told yet.
        if not (status.get("boot") == boot and process.is_same(pid, int(status["start_time"]))):
            pid = 0
    elif state == "restarting" and status.get("boot") != boot:
        state, pid = "exited", 0
    ports = tuple(PublishedPort(*p) for p in status.get("ports", ())) if state in ("running", "paused") else ()
    published = {f"{p.target}/{p.protocol}" for p in ports}
    return Container(
        id=intent["id"],
        name=intent["name"],
        project=intent["project"],
        service=intent["service"],
        number=intent["number"],
        oneoff=intent["oneoff"],
        image=intent["image"],
        image_id=intent["image_id"],
        status=state,
        health=status.get("health", "") if state in ("running", "paused") else "",
        exit_code=code,
        oom_killed=bool(status.get("oom")),
        memory_peak=int(status.get("memory_peak", 0)),
        error=status.get("error", ""),
        pid=pid,
        created=intent["created"],
        started=float(status.get("started", 0.0)),
        finished=finished,
        restarts=int(status.get("restarts", 0)),
        config_hash=intent["config_hash"],
        command=tuple(intent["command"]),
        labels=_labels(intent),
        ports=ports,
        exposed=tuple(e for e in intent["exposed"] if e not in published),
        networks=tuple(
            _endpoint(row["network"], row["aliases"], status.get("networks", ())) for row in intent["networks"]
        ),
        mounts=tuple((kind, source, target) for kind, source, target in intent["mounts"]),
        standin=bool(intent["standin"]),
        rung=str(intent.get("rung", "R1")),
    )


def _labels(intent: dict[str, Any]) -> dict[str, str]:
    """With the rung, where it is not root's, and a user namespace of its own: for `ps --format json` and `inspect`."""
    labels: dict[str, str] = intent["labels"]
    rung = str(intent.get("rung", "R1"))
    if rung != "R1":
        return {**labels, "org.kapelle.rung": rung}
    own = intent["launch"].get("userns")
    return labels if not own else {**labels, "org.kapelle.userns": f"0:{own[0]}:{own[2]}"}


def _status_of(directory: str, boot: str, patience: Patience | None) -> dict[str, Any]:
    """status.json; of a run that has just ended when the supervisor has told, or nobody will."""
    while True:
        status: dict[str, Any] = store.read_json(f"{directory}/status.json") or {}
        pid = int(status.get("pid", 0))
        if (
            patience is None
            or status.get("status") not in ("running", "paused")
            or status.get("boot") != boot
            or process.is_same(pid, int(status["start_time"]))
            or time.monotonic() >= patience.until()
        ):
            return status
        time.sleep(0.002)


def _end_of(directory: str, pid: int) -> tuple[int, int] | None:
    """(wait status, nanoseconds) of a run that is over; None when nobody can know."""
    told = read_exit(f"{directory}/exit", pid)
    if told is not None:
        return told
    status = process.zombie_status(pid)
    return None if status is None else (status, time.time_ns())


def _endpoint(network: str, aliases: list[str], known: Any) -> Endpoint:
    for row in known:
        if row[0] == network:
            return Endpoint(row[0], row[1], row[2], row[3], row[4], tuple(row[5]))
    return Endpoint(network, aliases=tuple(aliases))


def networks(paths: Paths) -> tuple[ObservedNetwork, ...]:
    """Every network, by name."""
    found = []
    for file in store.names_in(paths.networks):
        if not file.endswith(".json") or file.startswith("_"):
            continue
        record: dict[str, Any] | None = store.read_json(f"{paths.networks}/{file}")
        if record is not None:
            found.append(
                ObservedNetwork(
                    name=record["name"],
                    id=record["id"],
                    project=record["project"],
                    key=record["key"],
                    driver=record["driver"],
                    internal=record["internal"],
                    subnets=tuple(record["subnets"]),
                    gateways=tuple(record["gateways"]),
                    labels=record["labels"],
                    options=record["options"],
                    created=record["created"],
                    config_hash=record["config_hash"],
                )
            )
    return tuple(found)
