"""Volumes: a folder each below the data place, with volume.json beside `_data`. Names are global, as in Docker."""

from __future__ import annotations

import os
import time

from kapelle.errors import EngineError
from kapelle.light import Any
from kapelle.plan.observed import ObservedVolume
from kapelle.state import store
from kapelle.state.paths import Paths

ANONYMOUS_LABEL = "com.docker.volume.anonymous"


def create(
    paths: Paths,
    name: str,
    *,
    driver: str = "local",
    options: dict[str, str] | None = None,
    labels: dict[str, str] | None = None,
    config_hash: str = "",
) -> bool:
    """Make a volume; False when there is one already. Raises EngineError for a driver we have not."""
    if driver not in ("", "local"):
        raise EngineError(
            f'volume "{name}" asks for the driver "{driver}", which is not here',
            hint="remove driver:, or use local with driver_opts type, o and device",
        )
    _device(name, options or {})
    directory = f"{paths.data}/volumes/{name}"
    if os.path.exists(f"{directory}/volume.json"):
        return False
    store.make_directory(f"{paths.data}/volumes", 0o711)
    temporary = f"{directory}.{os.getpid()}.tmp"
    store.remove_tree(temporary)
    os.mkdir(temporary, 0o711)
    os.mkdir(f"{temporary}/_data")
    os.chmod(f"{temporary}/_data", 0o755)
    store.write_json(
        f"{temporary}/volume.json",
        {
            "name": name, "driver": driver or "local", "options": options or {}, "labels": labels or {},
            "created": time.time(), "config_hash": config_hash,
        },
        sync=True,
    )  # fmt: skip
    try:
        os.rename(temporary, directory)
    except OSError:
        store.remove_tree(temporary)
        if os.path.exists(f"{directory}/volume.json"):
            return False
        raise EngineError(f"can't make the volume {name} below {paths.data}/volumes") from None
    return True


def _device(name: str, options: dict[str, str]) -> str:
    """The folder that driver_opts bind as the volume; "" without one. EngineError for what can't be a volume."""
    if not options:
        return ""
    unknown = sorted(set(options) - {"type", "o", "device"})
    if unknown:
        raise EngineError(
            f'volume "{name}": driver_opts {unknown[0]} is not known', hint="type, o and device are", code="KAP320"
        )
    words = options.get("o", "").split(",")
    if "bind" in words or "rbind" in words:
        if not options.get("device", "").startswith("/"):
            raise EngineError(
                f'volume "{name}": driver_opts device is no folder of this machine',
                hint="device: /FOLDER",
                code="KAP320",
            )
        return options["device"]
    if not options.get("type") or options["type"] == "none":
        raise EngineError(f'volume "{name}": driver_opts want a type', hint="type: tmpfs, nfs, ext4 …", code="KAP320")
    return ""


def filesystem(paths: Paths, name: str) -> dict[str, str] | None:
    """What has to be mounted before the volume can be used; None for a folder."""
    record: dict[str, Any] | None = store.read_json(f"{paths.data}/volumes/{name}/volume.json")
    options = (record or {}).get("options") or {}
    if not options or _device(name, options):
        return None
    return {"name": name, "type": options["type"], "device": options.get("device", ""), "o": options.get("o", "")}


def location(paths: Paths, name: str) -> str:
    """Where a volume's data is: its own folder, or the one that its driver_opts bind. EngineError when that is gone."""
    record: dict[str, Any] | None = store.read_json(f"{paths.data}/volumes/{name}/volume.json")
    device = _device(name, (record or {}).get("options") or {})
    if device and not os.path.isdir(device):
        raise EngineError(
            f'volume "{name}": its device {device} is no folder', hint=f"mkdir -p {device}", code="KAP601"
        )
    return device or paths.volume_data(name)


def is_anonymous(name: str) -> bool:
    return len(name) == 64 and all(c in "0123456789abcdef" for c in name)


def create_anonymous(paths: Paths, name: str) -> None:
    create(paths, name, labels={ANONYMOUS_LABEL: ""})


def remove(paths: Paths, name: str) -> bool:
    """Remove a volume and its data; False when there is none."""
    directory = f"{paths.data}/volumes/{name}"
    doomed = f"{directory}.{os.getpid()}-{os.urandom(4).hex()}.tmp"
    try:
        os.rename(directory, doomed)
    except FileNotFoundError:
        return False
    store.remove_tree(doomed)
    return True


def observed(paths: Paths) -> tuple[ObservedVolume, ...]:
    """Every volume, by name."""
    found = []
    for name in store.names_in(f"{paths.data}/volumes"):
        record: dict[str, Any] | None = store.read_json(f"{paths.data}/volumes/{name}/volume.json")
        if record is None:
            continue
        labels = record["labels"]
        found.append(
            ObservedVolume(
                name=name,
                project=labels.get("com.docker.compose.project", ""),
                key=labels.get("com.docker.compose.volume", ""),
                driver=record["driver"],
                mountpoint=paths.volume_data(name),
                labels=labels,
                options=record["options"],
                created=record["created"],
                config_hash=record["config_hash"],
            )
        )
    return tuple(found)
