"""Namespaces that a service may not have: refused as dockerd refuses them, with their place."""

from __future__ import annotations

from collections.abc import Iterator

from kapelle.engines.native import limits, userns_choice
from kapelle.errors import EngineError
from kapelle.model.service import Service

_SHARED = ("service:", "container:")
# key, what Docker calls it, values, may it be another container's?
_MODES = (
    ("ipc", "IPC", ("", "none", "private", "shareable", "host"), True),
    ("pid", "PID", ("", "private", "host"), True),
    ("uts", "UTS", ("", "private", "host"), False),
    ("userns_mode", "USER", userns_choice.MODES, False),
)


def mistakes(service: Service) -> list[EngineError]:
    return [
        EngineError(f'service "{service.name}": {what}', where=limits.place(service, key), hint=hint, code="KAP321")
        for key, what, hint in _problems(service)
    ]


def _problems(service: Service) -> Iterator[tuple[str, str, str]]:
    for key, name, values, shared in _MODES:
        value: str = getattr(service, key)
        of_other = shared and value.startswith(_SHARED) and not value.endswith(":")
        if value not in values and not of_other:
            known = [*filter(None, values), *(("service:NAME", "container:NAME") if shared else ())]
            yield key, f"invalid {name} mode: {value}", f"one of {', '.join(known)}"
    if service.uts == "host" and (service.hostname or service.domainname):
        yield "uts", "conflicting options: hostname and the UTS mode", "leave out hostname or uts"
