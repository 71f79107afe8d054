"""--offline and KAP_OFFLINE=1: nothing of ours asks the network. What is here will do; what is not is named.

`wire.open_pool` is the one door to the network and refuses whatever has not been refused with better words before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kapelle.errors import ImageError, Position

VARIABLE = "KAP_OFFLINE"
_TRUE = ("1", "true", "yes", "on")


def is_on(environ: Mapping[str, str]) -> bool:
    return environ.get(VARIABLE, "").lower() in _TRUE


def refuse(environ: Mapping[str, str], what: str, *, where: Position | None = None) -> None:
    """ImageError if `what` ("ADD https://…") would need the network and that is off."""
    if is_on(environ):
        raise ImageError(
            f"{what} needs the network, and --offline forbids to use it",
            where=where,
            hint=f"do it once without --offline (and {VARIABLE}), or bring what it fetches with the project",
            code="KAP512",
        )


def missing(names: Sequence[str], *, where: Position | None = None) -> ImageError:
    """The error for images that are needed and not here."""
    one = len(names) == 1
    return ImageError(
        f"image {names[0]} is not here, and --offline forbids to get it"
        if one
        else f"{len(names)} images are not here, and --offline forbids to get them",
        where=where,
        details=() if one else tuple(("image" if n == 0 else "", name) for n, name in enumerate(names)),
        hint="where there is a network: kap bundle save FILE, and here: kap up --from FILE; or kap load -i FILE",
        code="KAP502",
    )
