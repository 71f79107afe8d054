"""The acts of an engine, as values. Each carries its cause; `line_of` is the line a plan shows.

One class per verb; `key_of` names the step in the graph ("start demo-web-1").
"""

from __future__ import annotations

from kapelle.light import NamedTuple
from kapelle.model.project import Network, Volume
from kapelle.model.service import Service
from kapelle.plan.observed import Container


class PullImage(NamedTuple):
    image: str
    service: str
    policy: str = "missing"  # missing, always
    because: str = ""
    platform: str = ""
    fallback_build: bool = False  # the service has a build section too: a failed pull is no error


class BuildImage(NamedTuple):
    image: str
    service: str
    because: str = ""
    no_cache: bool = False
    pull: bool = False


class CreateNetwork(NamedTuple):
    network: Network
    because: str = ""


class RemoveNetwork(NamedTuple):
    name: str
    because: str = ""


class CreateVolume(NamedTuple):
    volume: Volume
    because: str = ""


class RemoveVolume(NamedTuple):
    name: str
    because: str = ""


class RemoveImage(NamedTuple):
    image: str
    because: str = ""


class CreateContainer(NamedTuple):
    """Also a recreate: `replaces` is then the old container, whose anonymous volumes follow."""

    service: Service
    name: str
    number: int
    because: str = ""
    replaces: Container | None = None
    renew_anonymous: bool = False
    oneoff: bool = False
    slug: str = ""  # one-off: 64 hex
    labels: tuple[tuple[str, str], ...] = ()
    remove_on_exit: bool = False
    use_aliases: bool = True  # one-offs answer to the service's names only when asked
    publish: bool = True  # one-offs publish only when asked
    timeout: float | None = None  # grace for the container that is replaced


class StartContainer(NamedTuple):
    name: str
    service: str
    because: str = ""


class StopContainer(NamedTuple):
    name: str
    service: str
    because: str = ""
    timeout: float | None = None  # None: the service's grace period
    halt: bool = False  # the machine goes down: it is to come back at boot
    removing: bool = False  # a RemoveContainer follows


class KillContainer(NamedTuple):
    name: str
    service: str
    signal: str = "SIGKILL"
    because: str = ""


class RemoveContainer(NamedTuple):
    name: str
    service: str
    because: str = ""
    volumes: bool = False  # anonymous volumes too
    force: bool = False


class RestartContainer(NamedTuple):
    name: str
    service: str
    because: str = ""
    timeout: float | None = None


class PauseContainer(NamedTuple):
    name: str
    service: str
    because: str = ""


class UnpauseContainer(NamedTuple):
    name: str
    service: str
    because: str = ""


class WaitFor(NamedTuple):
    """Wait until containers of a service reach a condition.

    condition: service_started, service_healthy, service_completed_successfully, running_or_healthy (up --wait).
    """

    service: str
    names: tuple[str, ...]
    condition: str
    wanted_by: str = ""  # the dependent service; "" = the command line
    required: bool = True
    because: str = ""
    timeout: float | None = None


Step = (
    PullImage
    | BuildImage
    | CreateNetwork
    | RemoveNetwork
    | CreateVolume
    | RemoveVolume
    | RemoveImage
    | CreateContainer
    | StartContainer
    | StopContainer
    | KillContainer
    | RemoveContainer
    | RestartContainer
    | PauseContainer
    | UnpauseContainer
    | WaitFor
)


# verb, and the field that names what it acts on
VERBS: dict[type, tuple[str, str]] = {
    PullImage: ("pull", "image"),
    BuildImage: ("build", "image"),
    CreateNetwork: ("create network", "network"),
    RemoveNetwork: ("remove network", "name"),
    CreateVolume: ("create volume", "volume"),
    RemoveVolume: ("remove volume", "name"),
    RemoveImage: ("remove image", "image"),
    CreateContainer: ("create", "name"),
    StartContainer: ("start", "name"),
    StopContainer: ("stop", "name"),
    KillContainer: ("kill", "name"),
    RemoveContainer: ("remove", "name"),
    RestartContainer: ("restart", "name"),
    PauseContainer: ("pause", "name"),
    UnpauseContainer: ("unpause", "name"),
    WaitFor: ("wait", "service"),
}


def key_of(step: Step) -> str:
    """The step's name in a plan's graph, unique in it: "start demo-web-1"."""
    verb, field = VERBS[type(step)]
    subject = getattr(step, field)
    if isinstance(step, WaitFor):
        return f"wait {subject} {step.condition}" + (f" for {step.wanted_by}" if step.wanted_by else "")
    if isinstance(step, CreateContainer) and step.replaces:
        verb = "recreate"
    return f"{verb} {subject if isinstance(subject, str) else subject.name}"


def line_of(step: Step) -> str:
    """The step as a plan shows it: "start demo-web-1: was exited"."""
    return key_of(step) + (f": {step.because}" if step.because else "")
