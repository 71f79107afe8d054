"""python: Debian's interpreter under the official image's names, with pip from PyPI (else Debian's).

Debian has one Python per release, so the nearest version that is not newer is given. `pip install` puts into
/usr/local without complaint, as in the official image; curl is as absent as in `slim`.
"""

from __future__ import annotations

import zipfile

from kapelle.images.standins import versions
from kapelle.images.standins.kitchen import Kitchen, Made, keep
from kapelle.images.standins.recipes.debian import PATH

NAMES = ("python",)
BASE = True
_HAVE = {"3.11": "bookworm", "3.13": "trixie"}
OFFERS = tuple((version, f"Debian {release}") for version, release in _HAVE.items())
_PIP = {"3.11": ("24.0", "65.5.1"), "3.13": ("25.", "")}  # pip and setuptools, as in the official images
_MARK = "EXTERNALLY-MANAGED"


def variants(tag: str) -> tuple[str, ...]:
    chosen = versions.nearest(tag, tuple(_HAVE))
    return (f"{chosen}-pip", chosen)  # with pip as PyPI has it, or else as Debian has it


def release(chosen: str) -> str:
    return _HAVE[chosen.removesuffix("-pip")]


def build(kitchen: Kitchen, chosen: str) -> Made:
    """Raises pypi.NotThere when pip is to come from PyPI and doesn't."""
    tree = kitchen.tree
    minor = chosen.removesuffix("-pip")
    home = f"usr/local/lib/python{minor}/dist-packages"
    wheels = []
    if chosen.endswith("-pip"):
        pip, setuptools = _PIP[minor]
        wheels.append(kitchen.wheel("pip", lambda v: v.startswith(pip)))
        if setuptools:
            wheels.append(kitchen.wheel("setuptools", lambda v: v == setuptools))
            wheels.append(kitchen.wheel("wheel", lambda v: v.startswith("0.45")))
    names = ["ca-certificates", "netbase", "tzdata", f"python{minor}", f"python{minor}-venv", "python3"]
    names += ["python3-distutils"] if minor == "3.11" else []
    names += [] if wheels else ["python3-pip", "python3-setuptools", "python3-wheel"]
    kitchen.install(names, lambda name: keep(name) and not name.endswith(f"/{_MARK}"))
    kitchen.certificates()
    tree.append("etc/dpkg/dpkg.cfg.d/slim", f"path-exclude /usr/lib/python3*/{_MARK}\n")
    for name in ("python", "python3", f"python{minor}"):
        tree.link(f"usr/local/bin/{name}", f"/usr/bin/python{minor}")
    for name in ("pydoc", "pydoc3"):
        tree.link(f"usr/local/bin/{name}", f"/usr/bin/pydoc{minor}")
    tree.directory(home)
    environment = [PATH, "LANG=C.UTF-8", f"PYTHON_VERSION={kitchen.version(f'python{minor}')}"]
    for path, version in wheels:
        _unpack(kitchen, path, home)
        if path == wheels[0][0]:
            environment.append(f"PYTHON_PIP_VERSION={version}")
    for name in ("pip", "pip3", f"pip{minor}"):
        tree.write(f"usr/local/bin/{name}", kitchen.data("pip.py"), 0o755)
    version = kitchen.version(f"python{minor}")
    return Made({"Env": environment, "Cmd": ["python3"]}, "Python", version)


def _unpack(kitchen: Kitchen, path: str, home: str) -> None:
    """A pure wheel's files (binary distribution format, PEP 427), with what pip notes of an installation."""
    with zipfile.ZipFile(path) as wheel:
        for item in wheel.infolist():
            if item.is_dir() or item.filename.split("/")[0].endswith(".data"):
                continue
            kitchen.tree.write(f"{home}/{item.filename}", wheel.read(item))
            if item.filename.endswith(".dist-info/RECORD"):
                kitchen.tree.write(f"{home}/{item.filename.rpartition('/')[0]}/INSTALLER", "pip\n")
