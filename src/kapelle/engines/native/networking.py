"""The networks of a project as its supervisor keeps them: made when needed, adopted, shared with other projects."""

from __future__ import annotations

import os
from collections.abc import MutableMapping

from kapelle.engines.native import sharing
from kapelle.engines.native.container import Container
from kapelle.engines.native.intake import STAGE
from kapelle.engines.native.keeper_channel import KeeperChannel
from kapelle.engines.native.loop import Loop
from kapelle.errors import KapelleError
from kapelle.light import Any
from kapelle.plan.observed import Endpoint, PublishedPort
from kapelle.state import store
from kapelle.state.paths import Paths

# beginnings of names in the keeper's store that are not the network's
_STREAMS = ("tty:", "stdin:", "stdout:", "stderr:", STAGE)
_OF_CONTAINERS = ("port", "dns-udp", "dns-tcp", "tty", "stdin", "stdout", "stderr")


class Networking:
    def __init__(
        self, project: str, paths: Paths, loop: Loop, fds: MutableMapping[str, int], keeper: KeeperChannel
    ) -> None:
        """`fds`: all that the keeper holds for us, by name (changed here)."""
        self._project = project
        self._paths = paths
        self._loop = loop
        self._keeper = keeper
        self.fds = fds
        self.made: Any = None  # the ProjectNetwork, once a container needs one
        self.shared: dict[str, list[str]] = {}  # network → other projects on it

    def ensure(self) -> Any:
        """The project's network, made or adopted. Raises KapelleError."""
        if self.made is not None and self.made.leaving:  # somebody comes after all: a new one, in the place of the old
            try:
                self.made.close()
                self._sync()
            except OSError:
                pass  # what could not be taken away is adopted
            finally:
                self.made = None
        if self.made is None:
            from kapelle.engines.native.network import ProjectNetwork

            known = dict(self.fds)
            self.made = ProjectNetwork(self._project, self._loop, f"{self._paths.run}/network", known)
            self.made.bridges.elsewhere = lambda: sharing.subnets(self._paths)
            self._sync()
            sharing.show_netns(self._paths, self._project, self.fds["netns"])
        return self.made

    def leave(self) -> None:
        """No container is there, and soon there will be no project: begin to take the network down."""
        if self.made is not None and not self.made.leaving:
            self.made.leave()

    def close(self) -> None:
        """Take down what there is of the network, by whomever it was made. Raises OSError, KapelleError."""
        if "netns" in self.fds:
            (self.made or self.ensure()).close()
            sharing.hide_netns(self._paths, self._project)

    def _sync(self) -> None:
        """Give the keeper the network's new descriptors, take back those it no longer needs."""
        have = {n: fd for n, fd in self.made.fds.items() if n != "listen" and not n.startswith(_STREAMS)}
        for name, fd in have.items():
            if self.fds.get(name) != fd:
                self.fds[name] = fd
                self._keeper.keep(name, fd)
        gone = [n for n in self.fds if n not in have and n != "listen" and not n.startswith(_STREAMS)]
        for name in gone:  # closed already: whoever becomes the keeper in the middle of this must not find them
            del self.fds[name]
        for name in gone:
            self._keeper.drop(name)

    def warm_up(self) -> None:
        """Load what nearly every start needs, while the command still reads its file."""
        import kapelle.engines.native.network  # noqa: F401

    def prepare(self, name: str) -> None:
        """Make a network before the first container goes on it. Raises OSError, KapelleError."""
        self.ensure()
        self._add_network(name)
        self._sync()

    def attach(self, container: Container, netns: int) -> tuple[tuple[Endpoint, ...], tuple[PublishedPort, ...]]:
        """Connect a container to its networks and publish its ports; idempotent. Raises KapelleError."""
        from kapelle.engines.native.network import EndpointSpec, PortSpec

        network = self.ensure()
        previous = {row[0]: Endpoint(*row) for row in container.status["networks"]}
        wanted = []
        for row in container.intent["networks"]:
            self._add_network(row["network"])
            before = previous.get(row["network"])
            wanted.append(
                EndpointSpec(
                    network=row["network"],
                    ifname=row["ifname"],
                    aliases=tuple(row["aliases"]),
                    ipv4=row["ipv4"],
                    ipv6=row["ipv6"],
                    mac=row["mac"],
                    previous=before.ipv4 if before else "",
                    previous6=before.ipv6 if before else "",
                    gateway_priority=int(row.get("gateway_priority", 0)),
                    link_local=tuple(row.get("link_local", ())),
                )
            )
        shared = [row["network"] for row in container.intent["networks"] if self.shared.get(row["network"])]
        with sharing.locked(self._paths, *shared):
            for name in shared:
                network.meet(name, sharing.neighbours(self._paths, name, self.shared[name]))
            endpoints = network.attach(
                container.id,
                container.intent["name"],
                netns,
                tuple(wanted),
                servers=tuple(container.intent["dns"]),
                links=tuple((name, alias) for name, alias in container.intent.get("links", ())),
            )
            if shared:
                container.status["networks"] = [list(e) for e in endpoints]
                store.write_json(f"{container.directory}/status.json", container.status)
        for name in shared:
            self._wire(name)
        sharing.tell(self._paths, sorted({p for name in shared for p in self.shared[name]}))
        ports: tuple[PublishedPort, ...] = ()
        if container.intent["ports"]:
            earlier = {(p[0], p[2], p[3]): p[1] for p in container.status["ports"]}
            rows = []
            for row in container.intent["ports"]:
                spec = PortSpec(**row)
                if not spec.published:
                    known = earlier.get((spec.host_ip, spec.target, spec.protocol), 0)
                    spec = spec._replace(published=known, published_end=known)
                rows.append(spec)
            ports = network.publish(container.id, tuple(rows))
        self._sync()
        return endpoints, ports

    def _add_network(self, name: str) -> None:
        from kapelle.engines.native.network import NetworkSpec

        path = f"{self._paths.networks}/{name}.json"
        with sharing.locked(self._paths, name):
            record = store.read_json(path)
            if record is None:
                raise KapelleError(f"network {name} not found", hint="kap up makes it again")
            changed = sharing.join(self._paths, record, self._project)
            self.shared[name] = sharing.users_of(record, self._project)
            spec = NetworkSpec(
                name=name,
                id=record["id"],
                driver=record["driver"],
                internal=record["internal"],
                subnets=tuple(record["subnets"]),
                gateways=tuple(record["gateways"]),
                enable_ipv6=record["enable_ipv6"],
                options=tuple((k, v) for k, v in record["options"].items()),
                ip_ranges=tuple(record.get("ip_ranges", ())),
                reserved=tuple(record.get("reserved", ())),
            )
            filled = self.made.bridges.add(spec)
            if changed or (filled.subnets, filled.gateways) != (spec.subnets, spec.gateways):
                record.update(subnets=list(filled.subnets), gateways=list(filled.gateways))
                store.write_json(path, record)

    def _wire(self, name: str) -> None:
        """Join our bridge of a shared network with those of the other projects that are on it now."""
        from kapelle.engines.native.uplink import mark_of

        for project in self.shared[name]:
            netns = sharing.netns_of(self._paths, project)
            if netns < 0:
                continue
            try:
                self.made.bridges.wire(name, mark_of(project, f"{self._paths.run}/network"), netns)
            except OSError as e:
                self.made.warnings.append(f"network {name} is not joined with project {project}: {e.strerror}")
            finally:
                os.close(netns)

    def neighbours_changed(self) -> None:
        """Another project has changed something on a network that we share."""
        if self.made is None or self.made.leaving:
            return
        for name in list(self.shared):
            record = store.read_json(f"{self._paths.networks}/{name}.json")
            if record is None:
                continue
            self.shared[name] = sharing.users_of(record, self._project)
            self.made.meet(name, sharing.neighbours(self._paths, name, self.shared[name]))
            self._wire(name)

    def _holds(self, container_id: str) -> bool:
        return any(held_for(name) == container_id for name in self.fds)

    def drop_strays(self, alive: set[str]) -> None:
        """Take back what is held for containers that are not `alive`: they ended while there was no supervisor."""
        strays = {held_for(name) for name in self.fds} - alive - {""}
        for container_id in strays:
            for name in [n for n in self.fds if held_for(n) == container_id and n.startswith(_STREAMS)]:
                os.close(self.fds.pop(name))
                self._keeper.drop(name)
        if any(self._holds(container_id) for container_id in strays):
            network = self.ensure()
            for container_id in strays:
                network.detach(container_id)
            self._sync()
        if self.made is not None:
            self.made.adopted()

    def detach(self, container: Container) -> None:
        if self.made is None and self._holds(container.id):
            self.ensure()  # the one before us had put it there
        if self.made is not None:
            self.made.unpublish(container.id)
            self.made.detach(container.id)
            self._sync()
            near = {p for row in container.intent["networks"] for p in self.shared.get(row["network"], ())}
            self._loop.later(0, lambda: sharing.tell(self._paths, sorted(near)))  # once its end is written down

    def warnings(self) -> list[str]:
        """What does not work here for the whole project, as sentences."""
        return [] if self.made is None else self.made.warnings

    def host_gateway(self) -> str:
        """The address under which containers reach the host; "" while there is no network."""
        if self.made is None:
            return ""
        return str(getattr(self.made, "host_address", "") or "")

    def remove(self, name: str) -> None:
        """A network is not wanted any more."""
        if self.made is not None and not self.made.leaving:
            self.made.bridges.remove(name)


def held_for(name: str) -> str:
    """The container that a descriptor is held for, from its name; "" when it is the project's."""
    kind, _, rest = name.partition(":")
    return rest.partition("|")[0] if kind in _OF_CONTAINERS else ""
