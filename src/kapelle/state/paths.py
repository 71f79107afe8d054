"""Where Kapelle keeps things. KAP_HOME moves all four places below itself; root uses the system's folders.

XDG Base Directory Specification; Filesystem Hierarchy Standard for root. Directories are made 0700 (data
below the system's place 0711, so that a mapped user can pass through it).
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from kapelle.errors import StateError
from kapelle.light import NamedTuple


class Paths(NamedTuple):
    data: str  # images/, volumes/NAME/_data, containers/ID/{upper,work,merged}
    state: str  # projects/NAME/…, networks/NAME.json: survives a reboot
    run: str  # projects/NAME/{socket,…}: gone after a reboot
    config: str  # config.toml

    @property
    def images(self) -> str:
        return f"{self.data}/images"

    @property
    def volumes(self) -> str:
        return f"{self.data}/volumes"

    @property
    def networks(self) -> str:
        return f"{self.state}/networks"

    @property
    def projects(self) -> str:
        return f"{self.state}/projects"

    def project(self, name: str) -> str:
        return f"{self.state}/projects/{name}"

    def project_run(self, name: str) -> str:
        return f"{self.run}/projects/{name}"

    def container(self, project: str, container_id: str) -> str:
        return f"{self.state}/projects/{project}/containers/{container_id}"

    def container_data(self, container_id: str) -> str:
        return f"{self.data}/containers/{container_id}"

    def volume_data(self, name: str) -> str:
        return f"{self.data}/volumes/{name}/_data"


_SHARED = "/tmp/kapelle-"  # where the run folder is without XDG_RUNTIME_DIR: others may write there, too


def guard(paths: Paths) -> None:
    """Make the run folder in a shared place at once, and refuse one that is not this user's own.

    StateError for a link, another owner, or a mode that lets others in: they could have put something there.
    """
    if not paths.run.startswith(_SHARED):
        return
    try:
        os.mkdir(paths.run, 0o700)
    except FileExistsError:
        info = os.lstat(paths.run)
        if info.st_uid != os.geteuid() or info.st_mode & 0o170077 != 0o040000:
            raise StateError(
                f"{paths.run} is not a folder of this user's alone",
                why="somebody else may have put it there",
                hint="set XDG_RUNTIME_DIR (a login session has it), or remove that folder",
            ) from None
    except OSError as e:
        raise StateError(f"can't make the folder {paths.run}: {e.strerror}", hint="set XDG_RUNTIME_DIR") from None


def find(environ: Mapping[str, str] = os.environ, uid: int | None = None) -> Paths:
    """The four places for this user. Makes nothing."""
    uid = os.geteuid() if uid is None else uid
    home = environ.get("KAP_HOME")
    if home:
        home = os.path.abspath(home)
        return Paths(f"{home}/data", f"{home}/state", f"{home}/run", f"{home}/config")
    if uid == 0:
        return Paths("/var/lib/kapelle", "/var/lib/kapelle", "/run/kapelle", "/etc/kapelle")
    user_home = environ.get("HOME") or os.path.expanduser("~")

    def xdg(variable: str, default: str) -> str:
        value = environ.get(variable, "")
        return value if value.startswith("/") else f"{user_home}/{default}"  # relative ones are to be ignored

    runtime = environ.get("XDG_RUNTIME_DIR", "")
    run = f"{runtime}/kapelle" if runtime.startswith("/") else f"/tmp/kapelle-{uid}"
    return Paths(
        f"{xdg('XDG_DATA_HOME', '.local/share')}/kapelle",
        f"{xdg('XDG_STATE_HOME', '.local/state')}/kapelle",
        run,
        f"{xdg('XDG_CONFIG_HOME', '.config')}/kapelle",
    )
