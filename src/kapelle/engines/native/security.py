"""security_opt: what it says, what of it can't be, and a profile's filter."""

from __future__ import annotations

import os
from collections.abc import Iterator

from kapelle.engines.native import limits
from kapelle.errors import EngineError
from kapelle.light import NamedTuple
from kapelle.linux import caps, process
from kapelle.model.service import Service

_TRUE = ("", "1", "t", "true")
_FALSE = ("0", "f", "false")
_UNCONFINED = "unconfined"
_APPARMOR = "/sys/module/apparmor/parameters/enabled"
_SELINUX = "/sys/fs/selinux/enforce"


class Security(NamedTuple):
    """The options of a service; the last of a kind holds."""

    no_new_privileges: bool = False
    seccomp: str = ""  # a profile's file, unconfined, or "": our own filter
    apparmor: str = ""
    labels: tuple[str, ...] = ()
    raw_paths: bool = False  # systempaths=unconfined: nothing of /proc and /sys is masked
    writable_cgroups: bool = False


def split_option(option: str) -> tuple[str, str]:
    """`no-new-privileges:true`, `seccomp=unconfined`: both separators are in use."""
    for separator in ("=", ":"):
        if separator in option:
            key, _, value = option.partition(separator)
            return key, value
    return option, ""


def of(service: Service) -> Security:
    """Raises nothing: what is wrong was refused before (`mistakes`)."""
    found = Security()
    for key, value in map(split_option, service.security_opt):
        if key == "no-new-privileges":
            found = found._replace(no_new_privileges=value.lower() in _TRUE)
        elif key == "writable-cgroups":
            found = found._replace(writable_cgroups=value.lower() in _TRUE)
        elif key == "seccomp":
            found = found._replace(seccomp="" if value == "builtin" else value)
        elif key == "apparmor":
            found = found._replace(apparmor="" if value == _UNCONFINED else value)
        elif key == "label":
            found = found._replace(labels=(*found.labels, value))
        elif key == "systempaths":
            found = found._replace(raw_paths=value == _UNCONFINED)
    return found


def mistakes(service: Service, working_dir: str) -> list[EngineError]:
    """Options that are not known, and profiles that can't be read."""
    found = []
    for at, option in enumerate(service.security_opt):
        key, value = split_option(option)
        hint = ""
        if key == "seccomp":
            problem = _profile_problem(service, working_dir, value)
        elif key in ("no-new-privileges", "writable-cgroups"):
            problem = "" if value.lower() in _TRUE + _FALSE else f"invalid --security-opt 2: {option!r}"
            hint = f"write {key}:true"
        elif key == "systempaths":
            problem = "" if value == _UNCONFINED else f"invalid --security-opt 2: {option!r}"
            hint = "write systempaths=unconfined"
        elif key in ("apparmor", "label") and value:
            problem = ""
        else:
            problem = f"invalid --security-opt {2 if value else 1}: {option!r}"
            hint = "known: no-new-privileges, seccomp=, apparmor=, label=, systempaths=, writable-cgroups="
        if problem:
            where = limits.place(service, f"security_opt[{at}]")
            found.append(EngineError(f'service "{service.name}": {problem}', where=where, hint=hint, code="KAP322"))
    return found


def _profile_problem(service: Service, working_dir: str, value: str) -> str:
    try:
        filter_of(service, working_dir, value)
    except OSError as e:
        return f"opening seccomp profile ({value}) failed: {(e.strerror or str(e)).lower()}"
    except ValueError as e:
        return f"seccomp profile {value}: {e}"
    return ""


def filter_of(service: Service, working_dir: str, value: str) -> bytes | None:
    """The program of a profile's file, relative to the project; b"" is our own filter, None is no filter at all.

    Raises OSError, and ValueError for what the profile has wrong.
    """
    if value == _UNCONFINED or (not value and service.privileged):
        return None
    if value in ("", "builtin"):
        return b""
    from kapelle.linux import seccomp_profile

    with open(os.path.join(working_dir, value), encoding="utf-8") as f:
        text = f.read()
    held = caps.effective_set(service.cap_add, service.cap_drop, service.privileged)
    return seccomp_profile.compile_profile(text, held, kernel=process.kernel())


def has_apparmor() -> bool:
    try:
        with open(_APPARMOR) as f:
            return f.read().startswith("Y")
    except OSError:
        return False


def notes(service: Service) -> Iterator[tuple[str, str]]:
    """(compose key, why) of options that this kernel has nothing for."""
    for at, (key, value) in enumerate(map(split_option, service.security_opt)):
        if key == "apparmor" and value != _UNCONFINED and not has_apparmor():
            yield f"security_opt[{at}]", "AppArmor is not enabled in this kernel"
        if key == "label" and value != "disable":
            enabled = os.path.exists(_SELINUX)
            why = "labels are not set by this engine" if enabled else "SELinux is not enabled in this kernel"
            yield f"security_opt[{at}]", why
    for at, mount in enumerate(service.raw.get("volumes") or () if os.path.exists(_SELINUX) else ()):
        if (mount.get("bind") or {}).get("selinux"):
            yield f"volumes[{at}].bind.selinux", "files are not labelled by this engine"
