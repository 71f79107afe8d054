"""`--ports=auto`: published ports that are taken give way to free ones, the same ones each time.

What was chosen is kept by project in `ports/NAME.json`, with the folder it was chosen for; `down` leaves it. A port
that is not taken is published as the file says, but one that was moved once stays where it went.
"""

from __future__ import annotations

from collections.abc import Sequence

from kapelle.engines.native import ports
from kapelle.engines.native.ports import PortSpec
from kapelle.errors import EngineError
from kapelle.light import Any, NamedTuple
from kapelle.model.project import Project
from kapelle.model.service import Port, Service
from kapelle.plan import steps
from kapelle.plan.observed import Container
from kapelle.state import store
from kapelle.state.paths import Paths

BRIDGED = ("", "bridge", "default")


class Choice(NamedTuple):
    """Where one port of a service went."""

    row: int  # in the service's ports
    wanted: str
    number: int
    because: str  # who has the wanted one; "" when it was moved earlier


def spec_of(port: Port) -> PortSpec | None:
    """What to reserve for a port of the file; None when any free one will do."""
    first, _, last = port.published.partition("-")
    return PortSpec(port.host_ip, int(first), int(last or first), port.target, port.protocol) if first else None


class Publishing(NamedTuple):
    """A container that is about to publish its service's ports."""

    name: str
    service: Service
    number: int  # 0 for a one-off


def publishing(wanted: tuple[steps.Step, ...], project: Project, have: Sequence[Container]) -> list[Publishing]:
    """The containers of a plan that will publish ports: new ones, then those that are there and are started again."""
    found = []
    made = set()
    starting = {s.name for s in wanted if isinstance(s, steps.StartContainer)}
    for step in wanted:
        if isinstance(step, steps.CreateContainer):
            made.add(step.name)
            if step.publish and (step.name in starting or step.oneoff):
                found.append(Publishing(step.name, step.service, 0 if step.oneoff else step.number))
    for container in have:
        service = project.service(container.service)
        if container.name in starting - made and service is not None and not container.oneoff:
            found.append(Publishing(container.name, service, container.number))
    return [p for p in found if p.service.ports and p.service.network_mode in BRIDGED]


def freed(wanted: tuple[steps.Step, ...], have: Sequence[Container]) -> frozenset[tuple[int, str]]:
    """(port, protocol) of containers that the plan stops or replaces: free again when something is started."""
    gone = {s.name for s in wanted if isinstance(s, steps.StopContainer)}
    gone |= {s.replaces.name for s in wanted if isinstance(s, steps.CreateContainer) and s.replaces}
    return frozenset((p.published, p.protocol) for c in have if c.name in gone for p in c.ports)


_MOVABLE = ("KAP201", "KAP205")  # taken; not for this user
_UNPRIVILEGED = 8000  # 80 → 8080, 443 → 8443


class Memory:
    """The choices of one project, read once and written when they change."""

    def __init__(self, paths: Paths, project: Project) -> None:
        self._directory = f"{paths.state}/ports"
        self._path = f"{self._directory}/{project.name}.json"
        self._folder = project.working_dir
        known: dict[str, Any] = store.read_json(self._path) or {}
        self._chosen: dict[str, int] = known.get("ports", {}) if known.get("folder") == self._folder else {}
        self._changed = False

    def get(self, key: str) -> int:
        return int(self._chosen.get(key, 0))

    def put(self, key: str, number: int) -> None:
        if self._chosen.get(key) != number:
            self._chosen[key] = number
            self._changed = True

    def save(self) -> None:
        if self._changed:
            store.make_directory(self._directory)
            store.write_json(self._path, {"folder": self._folder, "ports": self._chosen}, sync=True)


def choose(
    memory: Memory, service: Service, number: int, own: frozenset[tuple[int, str]], held: list[Any]
) -> list[Choice]:
    """Where the ports of one container go that can't go where the file says. EngineError when nothing is free.

    `own`: (port, protocol) that are held now but will be free (see `freed`). The sockets that hold the ports of this
    run are added to `held`; whoever called lets go of them when all is chosen.
    """
    found = []
    for row, port in enumerate(service.ports):
        wanted = spec_of(port)
        if wanted is None:
            continue
        key = f"{service.name}/{number}/{port.host_ip}:{port.published}:{port.target}/{port.protocol}"
        known = memory.get(key)
        if known and take(wanted._replace(published=known, published_end=known), own, held) is None:
            found.append(Choice(row, port.published, known, ""))
            continue
        refusal = take(wanted, own, held)
        if refusal is None:
            continue
        if refusal.code not in _MOVABLE:
            raise refusal
        beyond = _UNPRIVILEGED if refusal.code == "KAP205" else 0
        chosen = _free(wanted, wanted.published_end + (beyond or 1), own, held)
        if not chosen:
            raise refusal
        memory.put(key, chosen)
        holder = next((text for label, text in refusal.details if label == "held by"), "")
        why = "this user may not use it" if beyond else "it is taken"
        found.append(Choice(row, port.published, chosen, f"held by {holder}" if holder else why))
    return found


def take(wanted: PortSpec, own: frozenset[tuple[int, str]], held: list[Any]) -> EngineError | None:
    """Reserve a port; why it can't be had, or None."""
    if any((n, wanted.protocol) in own for n in range(wanted.published, wanted.published_end + 1)):
        return None
    try:
        held += ports.reserve_one(wanted)
    except EngineError as e:
        return e
    return None


def _free(wanted: PortSpec, first: int, own: frozenset[tuple[int, str]], held: list[Any]) -> int:
    """The first port from `first` on that is free on all addresses of a wanted one, 0 when none of a hundred is."""
    for number in range(first, min(first + 100, 65536)):
        if take(wanted._replace(published=number, published_end=number), own, held) is None:
            return number
    return 0


def moved(service: Service, choices: list[Choice]) -> Service:
    """The service with its ports where they went. Its config hash stays that of the file."""
    rows = list(service.ports)
    for choice in choices:
        rows[choice.row] = rows[choice.row]._replace(published=str(choice.number))
    return service._replace(ports=tuple(rows))


def as_made(paths: Paths, project: str, container_id: str, service: Service) -> Service:
    """The service with the ports that a container which is there was made with: they may have moved."""
    intent = store.read_json(f"{paths.container(project, container_id)}/container.json") if container_id else None
    rows = (intent or {}).get("ports", ())
    if len(rows) != len(service.ports):
        return service
    return moved(service, [Choice(n, "", row["published"], "") for n, row in enumerate(rows) if _single(row)])


def _single(row: dict[str, Any]) -> bool:
    return bool(row["published"]) and row["published_end"] in (0, row["published"])


def move(paths: Paths, project: str, container_id: str, service: Service, choices: list[Choice]) -> bool:
    """Write down where the ports of a container that is there go when it is started next; False when nothing moved."""
    path = f"{paths.container(project, container_id)}/container.json"
    intent = store.read_json(path)
    if intent is None or len(intent["ports"]) != len(service.ports):
        return False
    before = [(row["published"], row["published_end"]) for row in intent["ports"]]
    for row, port in zip(intent["ports"], moved(service, choices).ports, strict=True):
        spec = spec_of(port)
        if spec is not None:
            row.update(published=spec.published, published_end=spec.published_end)
    if before == [(row["published"], row["published_end"]) for row in intent["ports"]]:
        return False
    store.write_json(path, intent, sync=True)
    return True


def text_of(service: str, choice: Choice) -> str:
    """What is told when a port moves."""
    where = f"{service} is published on port {choice.number} in place of {choice.wanted}"
    return f"{where} (--ports=auto): {choice.because or 'as before'}"
