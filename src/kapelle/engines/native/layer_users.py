"""Which layers containers have: what no removal of images may take, whatever became of the image since."""

from __future__ import annotations

import os
import re

from kapelle.state import store as files
from kapelle.state.paths import Paths

_LAYER = re.compile(rb"/layers/([0-9a-f]{64})/diff")


def layers_in_use(paths: Paths) -> set[str]:
    """The diff-IDs in the intents of all containers, builds' too: their roots, and images mounted as volumes."""
    found: set[str] = set()
    for project in files.names_in(paths.projects):
        base = f"{paths.project(project)}/containers"
        for container in files.names_in(base):
            try:
                with open(os.path.join(base, container, "container.json"), "rb") as f:
                    text = f.read()
            except (FileNotFoundError, NotADirectoryError):
                continue
            found.update(f"sha256:{digits.decode()}" for digits in _LAYER.findall(text))
    return found
