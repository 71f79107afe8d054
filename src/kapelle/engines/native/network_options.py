"""Which settings of a network this engine knows, and what it says of the others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from kapelle.light import TYPE_CHECKING

if TYPE_CHECKING:  # the supervisor has no use for them
    from kapelle.model.project import Network, Project
    from kapelle.model.service import Service

_BRIDGE = "com.docker.network.bridge."
MTU = "com.docker.network.driver.mtu"
ICC = f"{_BRIDGE}enable_icc"  # false: containers of the network do not reach each other
BINDING = f"{_BRIDGE}host_binding_ipv4"  # where ports without an address of their own are published

# What makes no difference here, or has none to make.
_AS_IT_IS = {
    f"{_BRIDGE}enable_ip_masquerade": "true",
    f"{_BRIDGE}inhibit_ipv4": "false",
    f"{_BRIDGE}gateway_mode_ipv4": "nat",
    f"{_BRIDGE}gateway_mode_ipv6": "nat",
    f"{_BRIDGE}default_bridge": "false",
}
_WHY = {
    f"{_BRIDGE}name": "bridges lie in a network namespace of the project, under names of their own",
    f"{_BRIDGE}enable_ip_masquerade": "what leaves the machine has the machine's address",
    f"{_BRIDGE}gateway_mode_ipv4": "what leaves the machine has the machine's address",
    f"{_BRIDGE}gateway_mode_ipv6": "what leaves the machine has the machine's address",
}


def is_false(options: Mapping[str, str], key: str) -> bool:
    return options.get(key, "").lower() in ("false", "0", "f")


def not_honoured(network: Network) -> Iterator[tuple[str, str]]:
    """(key below the network, why)."""
    for key, value in network.driver_opts:
        if key not in (MTU, ICC, BINDING) and _AS_IT_IS.get(key) != value.lower():
            yield f"driver_opts.{key}", _WHY.get(key, "this engine does not know it")
    if network.enable_ipv4 is False:
        yield "enable_ipv4", "every network has IPv4 here"


def binding(project: Project, service: Service) -> str:
    """The host address for ports that name none, where a network of the service gives one."""
    keys = {a.network for a in service.networks} or {"default"}
    return next((v for n in project.networks if n.key in keys for k, v in n.driver_opts if k == BINDING), "")
