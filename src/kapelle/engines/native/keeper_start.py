"""The first moments of a keeper: see the interpreter through read-only mounts, start again from there.

An image whose entry point is a script with `#!/proc/self/exe` makes the kernel run our Python inside the
container, from where it could be opened for writing (CVE-2019-5736). Through a read-only mount it can't.
Imports next to nothing, because it all happens twice.
"""

from __future__ import annotations

import os
import sys

from kapelle.linux import mount as m
from kapelle.linux import namespaces as ns
from kapelle.linux import process

PROTECTED = "KAP_INTERPRETER_PROTECTED"


def main() -> None:
    """Entry of a new keeper process: argv[1] is the project's settings as JSON, descriptor 3 the socket."""
    if os.environ.pop(PROTECTED, "") != "1":
        process.close_range(4)  # what the command happened to have open
        if os.geteuid() != 0:  # a command that only looks has revived it
            from kapelle.engines.native import rung

            rung.enter(os.environ.get("KAP_RUNG", ""))
        protect_interpreter()
    from kapelle.engines.native import keeper

    keeper.main()


def protect_interpreter() -> None:
    """In a private mount namespace, bind the interpreter and our package read-only onto themselves; exec again."""
    ns.unshare(ns.CLONE_NEWNS)
    m.mount(None, "/", None, m.MS_REC | m.MS_SLAVE)
    for place in interpreter_places():
        m.mount(place, place, None, m.MS_BIND)
        fd = os.open(place, os.O_PATH | os.O_CLOEXEC)
        m.set_attributes(fd, m.MOUNT_ATTR_RDONLY)
        os.close(fd)
    os.set_inheritable(3, True)
    os.execve(os.path.realpath(sys.executable), sys.orig_argv, {**os.environ, PROTECTED: "1"})


def interpreter_places() -> tuple[str, ...]:
    """The files and folders of the host that we run from: what an image must never be able to write to."""
    package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    return (os.path.realpath(sys.executable), package)
