"""The systemd unit that brings a project back at boot: its text, its place, putting it there and taking it away."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence

from kapelle.errors import EngineError
from kapelle.light import NamedTuple
from kapelle.state.paths import Paths

_STOP_TIMEOUT = 120  # seconds that systemd gives the containers at shutdown
_HANDED_ON = ("KAP_HOME", "KAP_COMPAT", "KAP_USERNS", "PYTHONPATH")  # XDG_* and HOME are the user manager's own


class Unit(NamedTuple):
    name: str  # kapelle-shop.service
    path: str
    text: str
    user: bool  # of the user's manager, not the system's

    @property
    def systemctl(self) -> tuple[str, ...]:
        return ("systemctl", "--user") if self.user else ("systemctl",)


def unit(project: str, paths: Paths, environ: Mapping[str, str], *, root: bool) -> Unit:
    """The unit of a project: the system's for root, else the user's own."""
    name = f"kapelle-{project}.service"
    home = environ.get("XDG_CONFIG_HOME") or f"{environ.get('HOME', '')}/.config"
    folder = "/etc/systemd/system" if root else f"{home}/systemd/user"
    kap = " ".join(map(_word, (*command(), "-p", project, "autostart")))
    variables = [f"Environment={_word(f'{k}={_absolute(k, environ[k])}')}" for k in _HANDED_ON if environ.get(k)]
    needed = sorted({paths.data, paths.state})
    rows = [
        "[Unit]",
        f"Description=Kapelle project {project}",
        "After=network-online.target local-fs.target",
        "Wants=network-online.target",
        f"RequiresMountsFor={' '.join(map(_word, needed))}",
        "",
        "[Service]",
        "Type=oneshot",
        "RemainAfterExit=yes",
        "Delegate=yes",
        *variables,
        f"ExecStart={kap} boot",
        f"ExecStop={kap} halt",
        f"TimeoutStopSec={_STOP_TIMEOUT}",
        "",
        "[Install]",
        f"WantedBy={'multi-user.target' if root else 'default.target'}",
    ]
    return Unit(name, f"{folder}/{name}", "\n".join(rows) + "\n", not root)


def command() -> list[str]:
    """This very kap, by absolute paths: at boot there is no PATH of ours."""
    return [os.path.abspath(sys.executable), "-m", "kapelle"]


def _absolute(name: str, value: str) -> str:
    if name == "PYTHONPATH":
        return ":".join(os.path.abspath(p) for p in value.split(":") if p)
    return os.path.abspath(value) if name == "KAP_HOME" else value


def _word(text: str) -> str:
    """A word in systemd's quoting (systemd.syntax(7)); % and $ are specifiers and variables there."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"' if any(c.isspace() or c in "\\\"'" for c in text) else escaped


Run = Callable[[Sequence[str]], int]


def runs_here() -> bool:
    """Is systemd this machine's init? (sd_booted(3))"""
    return os.path.isdir("/run/systemd/system")


def install(found: Unit, run: Run) -> None:
    """Write the unit and have it started at boot from now on. EngineError when it can't be written or enabled."""
    try:
        os.makedirs(os.path.dirname(found.path), exist_ok=True)
        with open(found.path, "w", encoding="utf-8") as f:
            f.write(found.text)
    except OSError as e:
        raise EngineError(f"{found.path} can't be written: {e.strerror}", code="KAP902") from None
    for words in (("daemon-reload",), ("enable", found.name)):
        _checked(run, (*found.systemctl, *words))


def remove(found: Unit, run: Run) -> bool:
    """Take the unit away, whatever runs goes on; False when there was none."""
    if not os.path.lexists(found.path):
        return False
    _checked(run, (*found.systemctl, "disable", found.name))
    try:
        os.unlink(found.path)
    except OSError as e:
        raise EngineError(f"{found.path} can't be removed: {e.strerror}", code="KAP902") from None
    _checked(run, (*found.systemctl, "daemon-reload"))
    return True


def _checked(run: Run, words: Sequence[str]) -> None:
    code = run(words)
    if code:
        raise EngineError(f"{' '.join(words)} failed ({code})", hint="its own words stand above", code="KAP902")
