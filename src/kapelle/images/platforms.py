"""Platforms: what this machine runs, what an index offers, which of it fits best (OCI image-spec image-index.md)."""

from __future__ import annotations

import os
from collections.abc import Iterable

from kapelle.errors import ImageError
from kapelle.light import NamedTuple

_MACHINES = {
    "x86_64": ("amd64", ""), "amd64": ("amd64", ""), "aarch64": ("arm64", ""), "arm64": ("arm64", ""),
    "armv8l": ("arm", "v8"), "armv7l": ("arm", "v7"), "armhf": ("arm", "v7"), "armv6l": ("arm", "v6"),
    "armel": ("arm", "v6"), "armv5tel": ("arm", "v5"),
    "i386": ("386", ""), "i486": ("386", ""), "i586": ("386", ""), "i686": ("386", ""),
    "ppc64le": ("ppc64le", ""), "s390x": ("s390x", ""), "riscv64": ("riscv64", ""), "loongarch64": ("loong64", ""),
    "mips64": ("mips64", ""),
}  # fmt: skip
_EMULATORS = {"amd64": "x86_64", "arm64": "aarch64", "386": "i386", "loong64": "loongarch64", "mips64le": "mips64el"}
_ARM_VARIANTS = ("v8", "v7", "v6", "v5")


class Platform(NamedTuple):
    os: str = "linux"
    architecture: str = ""
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(p for p in self if p)


def host() -> Platform:
    """This machine."""
    machine = os.uname().machine
    return Platform("linux", *_MACHINES.get(machine, (machine, "")))


def parse(text: str) -> Platform:
    """`linux/arm64/v8`, `linux/amd64`, `arm64`. ImageError for anything else."""
    parts = text.lower().split("/")
    if len(parts) == 1 and parts[0]:
        if parts[0] == "linux":
            return host()
        parts = ["linux", *parts]
    if not 2 <= len(parts) <= 3 or not all(parts):
        raise ImageError(
            f'"{text}" is not a platform', hint="write it as linux/amd64, linux/arm64 or linux/arm/v7", code="KAP503"
        )
    name, variant = _MACHINES.get(parts[1], (parts[1], ""))
    return normal(Platform(parts[0], name, parts[2] if len(parts) == 3 else variant))


def normal(platform: Platform) -> Platform:
    """The one spelling of a platform: arm64 is arm64/v8, arm is arm/v7, amd64/v1 is amd64."""
    system, architecture, variant = platform
    architecture, implied = _MACHINES.get(architecture, (architecture, ""))
    variant = variant or implied
    if variant and variant.isdigit():
        variant = f"v{variant}"
    if (architecture == "arm64" and variant == "v8") or (architecture == "amd64" and variant == "v1"):
        variant = ""
    if architecture == "arm" and not variant:
        variant = "v7"
    return Platform(system, architecture, variant)


def fitting(wanted: Platform) -> tuple[Platform, ...]:
    """What runs where `wanted` is asked for, best first: older variants, and the 32-bit sibling."""
    wanted = normal(wanted)
    system, architecture, variant = wanted
    found = [wanted]
    if architecture == "arm":
        rest = _ARM_VARIANTS[_ARM_VARIANTS.index(variant) + 1 :] if variant in _ARM_VARIANTS else ()
        found += [Platform(system, "arm", v) for v in rest]
    elif architecture == "arm64":
        if variant:
            found.append(Platform(system, "arm64"))
        found += [Platform(system, "arm", v) for v in _ARM_VARIANTS]
    elif architecture == "amd64":
        if variant in ("v2", "v3", "v4"):
            found += [Platform(system, "amd64", f"v{n}") for n in range(int(variant[1]) - 1, 1, -1)]
            found.append(Platform(system, "amd64"))
        found.append(Platform(system, "386"))
    return tuple(found)


def best(offers: Iterable[Platform], wanted: Platform) -> int | None:
    """Which of the offers to take: its place, or None if none fits. The first of equals wins."""
    ranks = {p: rank for rank, p in enumerate(fitting(wanted))}
    found: tuple[int, int] | None = None
    for place, offer in enumerate(offers):
        rank = ranks.get(normal(offer))
        if rank is not None and (found is None or rank < found[0]):
            found = (rank, place)
    return None if found is None else found[1]


def runs_here(platform: Platform) -> bool:
    """Whether this machine runs the platform's programs, by itself or by an emulator registered with binfmt_misc."""
    return best([platform], host()) is not None or emulated(platform)


def emulated(platform: Platform) -> bool:
    name = _EMULATORS.get(platform.architecture, platform.architecture)
    return platform.os == "linux" and os.path.exists(f"/proc/sys/fs/binfmt_misc/qemu-{name}")


def misfit(image: str, offers: Iterable[Platform], wanted: Platform, *, asked: bool) -> ImageError:
    """The error of an image that has nothing for `wanted`."""
    offered = tuple(dict.fromkeys(str(normal(p)) for p in offers if p.architecture not in ("", "unknown")))
    working = [p for p in offered if emulated(parse(p))]
    return ImageError(
        f"image {image} has no variant for {normal(wanted)}{'' if asked else ' (this machine)'}",
        details=(("offers", ", ".join(offered) or "nothing"), ("emulation", ", ".join(working) or "not installed")),
        hint=f"set  platform: {working[0]}  on the service (slower)"
        if working
        else "choose another tag, or ask the publisher for one; or install an emulator (qemu-user)",
        code="KAP503",
    )
