"""Short ways to say projects and what is there, for the tests of plans."""

from __future__ import annotations

from typing import Any

from kapelle.model.project import Network, Project
from kapelle.model.service import Dependency, NetworkAttachment, Service
from kapelle.plan.graph import Plan
from kapelle.plan.observed import Container, Endpoint, Observed, ObservedImage, ObservedNetwork
from kapelle.plan.steps import key_of, line_of

HERE = {"app:1": ObservedImage("sha256:1", ("app:1",))}
NETWORK = (ObservedNetwork("demo_default", "n", "demo", "default"),)


def service(name: str, *needs: str, condition: str = "service_started", **changes: Any) -> Service:
    made = Service(name, image="app:1", config_hash="h", networks=(NetworkAttachment("default"),))
    return made._replace(**{"depends_on": tuple(Dependency(n, condition) for n in needs), **changes})


def project(*services: Service, **changes: Any) -> Project:
    return Project("demo", "/p", (), services, (Network("default", "demo_default"),))._replace(**changes)


def running(name: str, number: int = 1, **changes: Any) -> Container:
    made = Container(f"{name}{number}".ljust(64, "a"), f"demo-{name}-{number}", "demo", name, number, status="running")
    made = made._replace(config_hash="h", image_id="sha256:1", image="app:1", networks=(Endpoint("demo_default"),))
    return made._replace(**changes)


def exited(name: str, number: int = 1, **changes: Any) -> Container:
    return running(name, number, status="exited", **changes)


def depending(*needs: str, condition: str = "service_started", restart: bool = False) -> dict[str, str]:
    rows = ",".join(f"{n}:{condition}:{str(restart).lower()}" for n in needs)
    return {"com.docker.compose.depends_on": rows}


def there(*containers: Container, **changes: Any) -> Observed:
    return Observed(containers, NETWORK, images=HERE)._replace(**changes)


def lines(plan: Plan) -> list[str]:
    """One line per step: what and why."""
    return [line_of(step) for step in plan.steps]


def edges(plan: Plan) -> dict[str, tuple[str, ...]]:
    return {key_of(n.step): n.after for n in plan.nodes if n.after}
