"""Why a container no longer is what the file asks for, in the file's own words.

A container carries a short digest of each of its settings in a label, so that a later plan can name the key that
differs ("environment.LOG_LEVEL changed") without keeping a copy of the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from kapelle.light import Any
from kapelle.model.project import Project
from kapelle.model.service import Service, effective
from kapelle.plan.observed import Container, Observed

KEYS_LABEL = "org.kapelle.config-keys"
_BEFORE = "dev.kapelle.config-keys"  # what it was called up to 0.1.0; containers made then still compare
_DEEP = ("environment", "labels", "sysctls", "healthcheck", "networks", "logging", "ulimits", "extra_hosts")


def digests(service: Service) -> str:
    """`key=digest,…` of the settings that make a container what it is. For names in messages, not for safety."""
    return ",".join(f"{key}={value}" for key, value in _digests(service))


def _digests(service: Service) -> Iterator[tuple[str, str]]:
    for key, content in service.contents:
        yield f"the content of {key}", _digest(content)
    raw = effective(service.raw)
    for key in sorted(raw):
        if "," in key or "=" in key:
            continue
        value = raw[key]
        if key == "deploy":
            for name in value:
                yield f"deploy.{name}", _digest(value[name])
        elif key in _DEEP and isinstance(value, Mapping):
            for name in sorted(value, key=str):
                if "," not in str(name) and "=" not in str(name):
                    yield f"{key}.{name}", _digest(value[name])
        else:
            yield key, _digest(value)


def _digest(value: Any) -> str:
    from zlib import crc32

    return f"{crc32(_canonical(value).encode('utf-8', 'surrogatepass')):08x}"


def _canonical(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{k!r}:{_canonical(value[k])}" for k in sorted(value, key=str)) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(_canonical(v) for v in value) + "]"
    return repr(value)


def changed_keys(service: Service, container: Container) -> list[str]:
    """Keys whose values differ from those the container was made with; [] when that is not known."""
    label = container.labels.get(KEYS_LABEL, "") or container.labels.get(_BEFORE, "")
    if not label:
        return []
    before = dict(part.split("=", 1) for part in label.split(",") if "=" in part)
    now = dict(_digests(service))
    words = []
    for key in sorted({*before, *now}):
        if key not in now:
            words.append(f"{key} removed")
        elif key not in before:
            words.append(f"{key} added")
        elif before[key] != now[key]:
            words.append(f"{key} changed")
    return words


def recreate_reason(project: Project, service: Service, container: Container, observed: Observed) -> str:
    """Why this container must be replaced, or "" when it may stay."""
    if service.config_hash and container.config_hash != service.config_hash:
        keys = changed_keys(service, container)
        if not keys:
            return "configuration changed"
        more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
        return ", ".join(keys[:3]) + more
    image = observed.images.get(project.image_of(service))
    if image is not None and container.image_id and image.id != container.image_id:
        return f"image changed: {short_id(container.image_id)} -> {short_id(image.id)}"
    return ""


def short_id(identifier: str) -> str:
    return identifier.removeprefix("sha256:")[:12]
