"""The first moments of a keeper: see the interpreter through read-only mounts, start again from there.

An image whose entry point is a script with `#!/proc/self/exe` makes the kernel run our Python inside the
container, from where it could be opened for writing (CVE-2019-5736). Through a read-only mount it can't.
Imports next to nothing, because it all happens twice.
"""

from __future__ import annotations

import os
import sys
from fcntl import F_DUPFD_CLOEXEC, fcntl

from kapelle.light import TYPE_CHECKING, signal
from kapelle.linux import mount as m
from kapelle.linux import namespaces as ns
from kapelle.linux import process

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import NoReturn

PROTECTED = "KAP_INTERPRETER_PROTECTED"


def main() -> None:
    """Entry of a new keeper process: argv[1] is the project's settings as JSON, descriptor 3 the socket."""
    if os.environ.pop(PROTECTED, "") != "1":
        process.close_range(4)  # what the command happened to have open
        if os.geteuid() != 0:  # a command that only looks has revived it
            from kapelle.engines.native import rung

            rung.enter(os.environ.get("KAP_RUNG", ""))
        protect_interpreter(sys.orig_argv, os.environ)
    from kapelle.engines.native import keeper

    keeper.main()


def begin(argv: list[str], environment: dict[str, str], null: int, log: int, listening: int) -> NoReturn:
    """In a child that a command has forked: become the keeper. One start of the interpreter less than by `main`."""
    try:
        os.setsid()
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        for number in range(1, 32):
            if number not in (signal.SIGKILL, signal.SIGSTOP):
                signal.signal(number, signal.SIG_DFL)
        null, log, listening = (fcntl(fd, F_DUPFD_CLOEXEC, 4) for fd in (null, log, listening))
        for fd, place in ((null, 0), (log, 1), (log, 2), (listening, 3)):
            os.dup2(fd, place)
        process.close_range(4)
        protect_interpreter(argv, environment)
    except BaseException as e:
        os.write(2, f"the keeper did not start: {e}\n".encode())
    finally:
        os._exit(1)


def protect_interpreter(argv: list[str], environment: Mapping[str, str]) -> None:
    """In a private mount namespace, bind the interpreter and our package read-only onto themselves; exec again."""
    ns.unshare(ns.CLONE_NEWNS)
    m.mount(None, "/", None, m.MS_REC | m.MS_SLAVE)
    for place in interpreter_places():
        m.mount(place, place, None, m.MS_BIND)
        fd = os.open(place, os.O_PATH | os.O_CLOEXEC)
        m.set_attributes(fd, m.MOUNT_ATTR_RDONLY)
        os.close(fd)
    os.set_inheritable(3, True)
    os.execve(os.path.realpath(sys.executable), argv, {**environment, PROTECTED: "1"})


def interpreter_places() -> tuple[str, ...]:
    """The files and folders of the host that we run from: what an image must never be able to write to."""
    package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    return (os.path.realpath(sys.executable), package)
