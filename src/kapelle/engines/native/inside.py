"""Work on a container's files from inside its root: a child of the command enters it, so that no link of the container
can lead to the host's files, and tells by a pipe what it found.

A running container is seen as its processes see it. Of a stopped one the layers, changes, volumes and bind mounts are
mounted once more, in a mount namespace that ends with the child.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable

from kapelle.engines.native import fuse, stacking, userns
from kapelle.errors import EngineError, KapelleError
from kapelle.light import Any, BinaryIO
from kapelle.linux import fsops, process
from kapelle.linux import mount as m
from kapelle.linux import namespaces as ns
from kapelle.plan.observed import Container
from kapelle.state import store
from kapelle.state.paths import Paths


class Child:
    """A child in a container's root. `stream` is the other end of what it writes or reads."""

    def __init__(self, pid: int, stream: BinaryIO, errors: int) -> None:
        self.pid = pid
        self.stream = stream
        self._errors = errors

    def end(self) -> None:
        """Wait for its end. EngineError with what it said when it failed."""
        self.stream.close()
        with os.fdopen(self._errors, "rb") as f:
            said = f.read().decode("utf-8", "replace")
        _, status = os.waitpid(self.pid, 0)
        if said:
            told = json.loads(said)
            raise EngineError(str(told["what"]), hint=str(told["hint"]), code="KAP330")
        if status:
            raise EngineError("the work inside the container was cut off", code="KAP330")


def start(paths: Paths, container: Container, body: Callable[[BinaryIO], None], *, writes: bool) -> Child:
    """Run `body` in a child in the container's root; it writes to the stream it is given, or (`writes` false) reads it.

    All that `body` needs is imported by now: the host's files are out of sight there. Needs a process with one thread.
    """
    reading, writing = os.pipe2(os.O_CLOEXEC)
    errors, telling = os.pipe2(os.O_CLOEXEC)
    intent: dict[str, Any] | None = store.read_json(
        f"{paths.container(container.project, container.id)}/container.json"
    )
    if intent is None:
        raise EngineError(f"no such container: {container.name}")
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(errors)
            os.close(reading if writes else writing)
            with os.fdopen(writing if writes else reading, "wb" if writes else "rb") as stream:
                _enter(container, intent)
                body(stream)
            code = 0
        except BrokenPipeError:
            code = 0  # the other side has what it wanted
        except KapelleError as e:
            _tell(telling, e.what, e.hint)
        except OSError as e:
            _tell(telling, f"{e.filename}: {e.strerror}" if e.filename else str(e.strerror or e), "")
        except BaseException as e:
            _tell(telling, f"internal error: {type(e).__name__}: {e}", "")
        finally:
            os._exit(code)
    os.close(telling)
    os.close(writing if writes else reading)
    stream = os.fdopen(reading, "rb") if writes else os.fdopen(writing, "wb")
    return Child(pid, stream, errors)


def _tell(fd: int, what: str, hint: str) -> None:
    os.write(fd, json.dumps({"what": what, "hint": hint}).encode())


def _enter(container: Container, intent: dict[str, Any]) -> None:
    process.prctl(process.PR_SET_DUMPABLE, 0)
    if container.pid and container.status in ("running", "paused"):
        pidfd = os.pidfd_open(container.pid)
        ns.setns(pidfd, ns.CLONE_NEWNS)
        os.chdir("/")
        if userns.ids_of(intent["launch"]) is not None:  # ids as the container has them
            userns.enter(pidfd)
            process.prctl(process.PR_SET_DUMPABLE, 0)
        os.umask(0)
        return
    launch = intent["launch"]
    served = fuse.stand_by(launch) if launch.get("stacking") == stacking.FUSE else None
    ns.unshare(ns.CLONE_NEWNS)
    m.mount(None, "/", None, m.MS_REC | m.MS_SLAVE)
    stacking.mount(launch, served)
    binds = [
        fsops.Bind(row["source"], row["target"], row.get("read_only", False))
        for row in launch["mounts"]
        if row["type"] == "bind" and os.path.exists(row["source"])
    ]
    trees = [(fsops.clone_tree(op), op) for op in fsops.in_order(list(binds)) if isinstance(op, fsops.Bind)]
    fsops.enter_root(launch["merged"])
    for fd, op in trees:
        target = fsops.make_target(op.target, directory=(os.fstat(fd).st_mode & 0o170000) == 0o040000)
        fsops.attach_tree(fd, target)
        os.close(fd)
    os.umask(0)
