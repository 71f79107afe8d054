"""ARG before the first FROM, and what is predefined. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from kapelle.images import platforms
from kapelle.images.build import expand, stages


def of_file(split: stages.Stages, given: Mapping[str, str], escape: str, target: str = "") -> dict[str, str]:
    """Global arguments: the automatic platform ones, then ARGs before FROM with what is given for them."""
    found: dict[str, str] = {**automatic(), "TARGETSTAGE": target or "default"}
    found.update({k: v for k, v in given.items() if k in found})
    for instruction in split.arguments:
        for word in expand.words(instruction.text, found.get, escape):
            key, equals, value = word.partition("=")
            if key in given:
                found[key] = given[key]
            elif equals:
                found[key] = value
    return found


def automatic() -> dict[str, str]:
    """BUILDPLATFORM and its like (BuildKit's automatic platform arguments)."""
    here = platforms.host()
    found: dict[str, str] = {}
    for prefix in ("BUILD", "TARGET"):
        found |= {
            f"{prefix}PLATFORM": str(here), f"{prefix}OS": here.os, f"{prefix}ARCH": here.architecture,
            f"{prefix}VARIANT": here.variant,
        }  # fmt: skip
    return found
