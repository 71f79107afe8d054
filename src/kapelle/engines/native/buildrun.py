"""RUN of a build: a container of a hidden project, with the same walls as any other."""

from __future__ import annotations

import fcntl
import os
import select
import time
from collections.abc import Mapping
from threading import Lock
from types import TracebackType

from kapelle.engines.native import client, fuse, limits, messages, removal, stacking
from kapelle.engines.native.container_status import new_status
from kapelle.engines.native.launch_words import APT_SETTING
from kapelle.errors import EngineError
from kapelle.events import Emit
from kapelle.images.types import RunRequest
from kapelle.light import Any
from kapelle.linux import caps, fsops
from kapelle.state import store
from kapelle.state.paths import Paths

_MARK = "build.lock"
_LAST_MOMENT = 5.0  # seconds
_living: list[BuildRunner] = []


def _clear(paths: Paths, project: str) -> None:
    """End what a build has running, and remove all that is its."""
    base = f"{paths.project(project)}/containers"
    for container_id in store.names_in(base):
        intent = store.read_json(f"{base}/{container_id}/container.json")
        _end(paths, project, container_id)
        if intent is not None:
            removal.remove_container(paths, project, intent, volumes=False)
    client.leave(paths, project)
    try:
        os.unlink(f"{paths.networks}/{project}_default.json")
    except FileNotFoundError:
        pass
    store.remove_tree(paths.project(project))
    store.remove_tree(paths.project_run(project))


def _end(paths: Paths, project: str, container_id: str) -> None:
    """Kill a step's container if it runs, and have the supervisor forget it."""
    stop = {"op": "stop", "id": container_id, "signal": "SIGKILL", "timeout": 0}
    for request in (stop, {"op": "forget", "id": container_id}):
        try:
            client.request(paths, project, request, start=False)
        except EngineError:
            pass


def sweep(paths: Paths) -> None:
    """Remove what builds have left that were killed: the mark of a living one is locked."""
    try:
        names = [n for n in os.listdir(os.path.dirname(paths.project("_build"))) if n.startswith("_build-")]
    except OSError:
        return
    for name in names:
        try:
            fd = os.open(f"{paths.project(name)}/{_MARK}", os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            continue  # it begins or ends this moment
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _clear(paths, name)
        except BlockingIOError:
            pass
        finally:
            os.close(fd)


def close_all() -> None:
    """End every build of this process: a command is interrupted while its threads still build.

    The threads clear away what is theirs once their steps are killed; they get a few seconds.
    """
    for runner in list(_living):
        runner.kill()
    deadline = time.monotonic() + _LAST_MOMENT
    while _living and time.monotonic() < deadline:
        time.sleep(0.01)


class BuildRunner:
    """A `Runner` (images.types): call it with a RunRequest. Its keeper lives from the first RUN to `__exit__`."""

    def __init__(self, paths: Paths, environ: Mapping[str, str], emit: Emit, *, offline: bool = False) -> None:
        """offline: a RUN has no network, whatever it asks for."""
        self.paths = paths
        self.environ = environ
        self.emit = emit
        self.stacking = stacking.KERNEL
        self.offline = offline
        self.project = f"_build-{os.getpid()}-{os.urandom(3).hex()}"
        self.network = f"{self.project}_default"
        self.started = False
        self.closed = False
        self._mark = -1  # locked as long as we live
        self._lock = Lock()  # stages run in several threads

    def __enter__(self) -> BuildRunner:
        _living.append(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def kill(self) -> None:
        """Kill the steps that run, and begin no other."""
        self.closed = True
        for container_id in store.names_in(f"{self.paths.project(self.project)}/containers"):
            _end(self.paths, self.project, container_id)

    def close(self) -> None:
        """End what runs, for this is over. Done once."""
        with self._lock:
            started, self.started, self.closed = self.started, False, True
        try:
            if started:
                _clear(self.paths, self.project)
                os.close(self._mark)
        finally:
            if self in _living:
                _living.remove(self)

    def __call__(self, request: RunRequest) -> int:
        """Run one command; its changes are in `request.upper` when it returns the exit code."""
        self._begin()
        if self.offline:
            request = request._replace(network="none")
        container_id = os.urandom(32).hex()
        directory = self.paths.container(self.project, container_id)
        data = self.paths.container_data(container_id)
        store.make_directory(directory)
        store.make_directory(f"{data}/merged", 0o711)
        for name in ("hosts", "resolv.conf", "hostname"):
            os.close(os.open(f"{directory}/{name}", os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))
        intent = self._intent(request, container_id, directory, f"{data}/merged")
        if self.stacking == stacking.COPY:
            intent["launch"]["upper"] = f"{data}/upper"
            store.make_directory(f"{data}/upper", 0o755)
        stacking.prepare(intent["launch"], self.stacking, data)
        store.write_json(f"{directory}/container.json", intent)
        store.write_json(f"{directory}/status.json", new_status())
        out_read, out_write = os.pipe2(os.O_CLOEXEC)
        err_read, err_write = os.pipe2(os.O_CLOEXEC)
        null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        sock = client.ensure(self.paths, self.project)
        try:
            messages.send(sock, {"op": "start", "id": container_id}, (null, out_write, err_write))
            for fd in (out_write, err_write, null):
                os.close(fd)
            self._copy({out_read: "stdout", err_read: "stderr"}, request, container_id)
            answer, _ = messages.receive(sock)
            client.checked(answer or {"error": "the supervisor of the build went away"})
            messages.send(sock, {"op": "wait", "ids": [container_id], "until": "exited"})
            answer, _ = messages.receive(sock)
            results: dict[str, Any] = client.checked(answer or {"error": "the supervisor of the build went away"})
            return int(results["results"][container_id]["exit_code"])
        finally:
            sock.close()
            os.close(out_read)
            os.close(err_read)
            _end(self.paths, self.project, container_id)
            if self.stacking != stacking.KERNEL:
                self._collect(request, intent["launch"])
            removal.remove_container(self.paths, self.project, intent, volumes=False)
            self._clean(request)

    def _collect(self, request: RunRequest, launch: Mapping[str, Any]) -> None:
        """The changes as the kernel's overlay would have left them."""
        if self.stacking == stacking.FUSE:
            fuse.settle(request.upper)
        else:
            stacking.changes(launch, request.upper)

    def _copy(self, streams: dict[int, str], request: RunRequest, container_id: str) -> None:
        poll = select.poll()
        for fd in streams:
            poll.register(fd, select.POLLIN)
        left = dict(streams)
        stopped = False
        while left:
            if not stopped and request.cancelled is not None and request.cancelled():
                stopped = True
                row = {"op": "stop", "id": container_id, "signal": "SIGKILL", "timeout": 0}
                client.request(self.paths, self.project, row, start=False)
            for fd, _ in poll.poll(200 if request.cancelled is not None else None):
                data = os.read(fd, 65536)
                if not data:
                    poll.unregister(fd)
                    del left[fd]
                elif request.output is not None:
                    request.output(left[fd], data)

    def _begin(self) -> None:
        with self._lock:
            if self.closed:
                raise EngineError("the build was interrupted")
            if self.started:
                return
            self.stacking = stacking.chosen(self.paths, self.environ, self.emit)
            self.started = True
            self._prepare()

    def _prepare(self) -> None:
        sweep(self.paths)
        store.make_directory(self.paths.project(self.project))
        self._mark = os.open(
            f"{self.paths.project(self.project)}/{_MARK}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
        fcntl.flock(self._mark, fcntl.LOCK_EX)
        store.make_directory(self.paths.networks)
        store.write_json(
            f"{self.paths.networks}/{self.network}.json",
            {
                "name": self.network, "id": os.urandom(32).hex(), "project": self.project, "key": "default",
                "driver": "bridge", "internal": False, "subnets": [], "gateways": [], "enable_ipv6": False,
                "options": {}, "labels": {}, "created": time.time(), "config_hash": "",
            },
        )  # fmt: skip

    def _intent(self, request: RunRequest, container_id: str, directory: str, merged: str) -> dict[str, Any]:
        mounts: list[dict[str, Any]] = [
            {"type": "bind", "source": f"{directory}/{name}", "target": f"/etc/{name}"}
            for name in ("hosts", "resolv.conf", "hostname")
        ]
        mounts += [{"type": "bind", "source": s, "target": t, "read_only": ro} for s, t, ro in request.binds]
        mounts += [
            {"type": "tmpfs", "target": t, "options": f"size={size},mode=1777" if size else "mode=1777"}
            for t, size in request.tmpfs
        ]
        mounts += [
            {"type": "image", "lowers": list(layers), "target": t, "inside": inside}
            for layers, t, inside in request.stacks
        ]
        network = {"default": "own", "none": "none", "host": "host"}.get(request.network, "own")
        row = {"network": self.network, "aliases": [], "ipv4": "", "ipv6": "", "mac": "", "ifname": ""}
        return {
            "version": 1, "id": container_id, "name": f"build-{container_id[:12]}", "project": self.project,
            "service": "build", "number": 0, "oneoff": True, "image": "", "image_id": "", "standin": "",
            "config_hash": "", "created": time.time(), "command": list(request.args), "labels": {}, "exposed": [],
            "restart": "no", "stop_signal": "SIGKILL", "stop_timeout": 0, "healthcheck": None,
            "network_mode": "" if network == "own" else network, "networks": [row] if network == "own" else [],
            "ports": [], "extra_hosts": [list(p) for p in request.extra_hosts], "dns": [], "dns_search": [],
            "dns_opt": [], "stdin_open": False, "tty": False, "remove_on_exit": False,
            "logging": {"driver": "", "options": {}}, "mounts": [], "anonymous": [], "limits": limits.none(),
            "hooks": {},
            "launch": {
                "lowers": list(request.layers), "upper": request.upper, "work": request.work, "merged": merged,
                "hostname": request.hostname, "domainname": "", "mounts": mounts, "devices": [],
                "args": list(request.args), "env": list(request.env), "cwd": request.cwd, "user": request.user,
                "groups": [], "caps": sorted(caps.effective_set((), (), False)), "privileged": False,
                "no_new_privileges": False, "seccomp": "", "apparmor": "", "masked": list(fsops.MASKED),
                "read_only_paths": list(fsops.READ_ONLY), "read_only": False, "sysctls": [],
                "ulimits": [list(u) for u in request.ulimits],
                "oom_score_adj": None, "shm_size": request.shm_size or 64 << 20, "tty": False, "init": False,
                "namespaces": {"net": network, "ipc": "own", "pid": "own", "uts": "own"}, "cgroups": [],
            },
        }  # fmt: skip

    def _clean(self, request: RunRequest) -> None:
        """Take the places of mounts out of the changes again: they are empty, and belong to no layer."""
        targets = ["/etc/hosts", "/etc/resolv.conf", "/etc/hostname", "/proc", "/sys", "/dev", APT_SETTING]
        targets += [t for _, t, _ in request.binds] + [t for t, _ in request.tmpfs]
        targets += [t for _, t, _ in request.stacks]
        for target in sorted(targets, key=len, reverse=True):
            removal.unmake_target(request.upper, target)
