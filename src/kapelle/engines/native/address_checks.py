"""Addresses of the file that can't be: told with their place before anything is made."""

from __future__ import annotations

from collections.abc import Iterator

from kapelle.engines.native import ipam, limits
from kapelle.errors import EngineError, Position
from kapelle.model.project import Network, Project
from kapelle.model.service import NetworkAttachment, Service

_MAC = r"[0-9a-fA-F]{2}([:-][0-9a-fA-F]{2}){5}"
_LINK_LOCAL = (ipam.parse_subnet("169.254.0.0/16"), ipam.parse_subnet("fe80::/10"))


def _is_mac(text: str) -> bool:
    import re  # not for those who ask for none

    return re.fullmatch(_MAC, text) is not None


def mistakes(service: Service, project: Project) -> list[EngineError]:
    networks = {n.key: n for n in project.networks}
    found = [("mac_address", *row) for row in _mac(service.mac_address)]
    for at in service.networks:
        base = f"networks.{at.network}"
        found += [(f"{base}.mac_address", *row) for row in _mac(at.mac_address)]
        found += [(f"{base}.{key}", a, b) for key, a, b in _addresses(at, networks.get(at.network))]
    return [_error(service, limits.place(service, key), what, hint) for key, what, hint in found]


def _error(service: Service, where: Position | None, what: str, hint: str) -> EngineError:
    return EngineError(f'service "{service.name}": {what}', where=where, hint=hint, code="KAP202")


def _mac(text: str) -> Iterator[tuple[str, str]]:
    if text and not _is_mac(text):
        yield f"invalid MAC address: {text}", "write six bytes, such as 02:42:ac:11:00:02"
    elif text and int(text[:2], 16) & 1:
        yield f"invalid MAC address: {text} is one of a group", "make its first byte even"


def _addresses(at: NetworkAttachment, network: Network | None) -> Iterator[tuple[str, str, str]]:
    subnets = _subnets(network) if network is not None and not network.external else None
    for key, text, bits in (("ipv4_address", at.ipv4_address, 32), ("ipv6_address", at.ipv6_address, 128)):
        if not text:
            continue
        try:
            number, have = ipam.to_number(text.partition("/")[0])
        except ValueError:
            have = 0
        if have != bits:
            yield key, f"invalid address: {text}", f"write an IPv{4 if bits == 32 else 6} address"
            continue
        mine = [s for s in subnets or () if s.bits == bits]
        if mine and not any(s.has(number) for s in mine):
            shown = ", ".join(map(str, mine))
            yield key, f"address {text} does not lie in {shown}", "choose another, or change ipam.config.subnet"
    for text in at.link_local_ips:
        try:
            number, bits = ipam.to_number(text)
        except ValueError:
            number, bits = 0, 0
        if not any(s.bits == bits and s.has(number) for s in _LINK_LOCAL):
            yield "link_local_ips", f"invalid link-local address: {text}", "one of 169.254.0.0/16 or fe80::/10"


def _subnets(network: Network) -> list[ipam.Subnet]:
    """The subnets that the file gives it; what is no subnet is told where the network is made."""
    found = []
    for row in network.ipam:
        try:
            found.append(ipam.parse_subnet(str(row.get("subnet") or "")))
        except ValueError:
            continue
    return found
