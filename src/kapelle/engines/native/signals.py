"""Signals by the names that files and commands use."""

from __future__ import annotations

from kapelle.errors import KapelleError
from kapelle.light import signal


def signal_number(name: str) -> int:
    """A signal's number from SIGTERM, TERM, 15 or SIGRTMIN+3; KapelleError for anything else."""
    if name.isdigit() and 0 < int(name) < 65:
        return int(name)
    full = name.upper() if name.upper().startswith("SIG") else f"SIG{name.upper()}"
    base, plus, offset = full.partition("+")
    number = getattr(signal, base, None)
    if not isinstance(number, int):
        raise KapelleError(f"invalid signal: {name}", hint="use a name such as SIGTERM or a number")
    return int(number) + (int(offset) if plus and offset.isdigit() else 0)
