"""Which services are on: profiles, and services named on the command line. Pure."""

from __future__ import annotations

from kapelle.compose.normalise import services
from kapelle.compose.tree import Map


def split(tree: Map, active: tuple[str, ...], named: tuple[str, ...]) -> Map:
    """Take services of inactive profiles out of the tree; they are returned.

    Naming a service of an inactive profile turns its profiles on, and with them all their services.
    """
    have = services(tree)
    on = set(active)
    for name in named:
        wanted = (have.get(name) or {}).get("profiles") or ()
        if not on.intersection(wanted):
            on.update(wanted)
    off = Map()
    for name in list(have):
        wanted = have[name].get("profiles") or ()
        if wanted and "*" not in on and not on.intersection(wanted):
            off.put(name, have[name], have.at.get(name))
            have.drop(name)
    return off
