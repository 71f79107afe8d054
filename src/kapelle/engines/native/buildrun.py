"""RUN of a build: a container of a hidden project, with the same walls as any other."""

from __future__ import annotations

import os
import select
import time
from types import TracebackType
from typing import Any

from kapelle.engines.native import client, limits, messages, removal
from kapelle.engines.native.container_status import new_status
from kapelle.engines.native.launcher import APT_SETTING
from kapelle.errors import EngineError
from kapelle.images.types import RunRequest
from kapelle.linux import caps, fsops
from kapelle.state import store
from kapelle.state.paths import Paths


class BuildRunner:
    """A `Runner` (images.types): call it with a RunRequest. Its keeper lives from the first RUN to `__exit__`."""

    def __init__(self, paths: Paths, *, offline: bool = False) -> None:
        """offline: a RUN has no network, whatever it asks for."""
        self.paths = paths
        self.offline = offline
        self.project = f"_build-{os.getpid()}-{os.urandom(3).hex()}"
        self.network = f"{self.project}_default"
        self.started = False

    def __enter__(self) -> BuildRunner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.started:
            return
        base = f"{self.paths.project(self.project)}/containers"
        for container_id in store.names_in(base):
            intent = store.read_json(f"{base}/{container_id}/container.json")
            try:
                client.request(
                    self.paths, self.project,
                    {"op": "stop", "id": container_id, "signal": "SIGKILL", "timeout": 0}, start=False,
                )  # fmt: skip
                client.request(self.paths, self.project, {"op": "forget", "id": container_id}, start=False)
            except EngineError:
                pass
            if intent is not None:
                removal.remove_container(self.paths, self.project, intent, volumes=False)
        client.leave(self.paths, self.project)
        try:
            os.unlink(f"{self.paths.networks}/{self.network}.json")
        except FileNotFoundError:
            pass
        store.remove_tree(self.paths.project(self.project))
        store.remove_tree(self.paths.project_run(self.project))

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
            self._copy({out_read: "stdout", err_read: "stderr"}, request)
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
            client.request(self.paths, self.project, {"op": "forget", "id": container_id}, start=False)
            removal.remove_container(self.paths, self.project, intent, volumes=False)
            self._clean(request)

    def _copy(self, streams: dict[int, str], request: RunRequest) -> None:
        poll = select.poll()
        for fd in streams:
            poll.register(fd, select.POLLIN)
        left = dict(streams)
        while left:
            for fd, _ in poll.poll():
                data = os.read(fd, 65536)
                if not data:
                    poll.unregister(fd)
                    del left[fd]
                elif request.output is not None:
                    request.output(left[fd], data)

    def _begin(self) -> None:
        if self.started:
            return
        self.started = True
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
                "read_only_paths": list(fsops.READ_ONLY), "read_only": False, "sysctls": [], "ulimits": [],
                "oom_score_adj": None, "shm_size": request.shm_size or 64 << 20, "tty": False, "init": False,
                "namespaces": {"net": network, "ipc": "own", "pid": "own", "uts": "own"}, "cgroups": [],
            },
        }  # fmt: skip

    def _clean(self, request: RunRequest) -> None:
        """Take the places of mounts out of the changes again: they are empty, and belong to no layer."""
        targets = ["/etc/hosts", "/etc/resolv.conf", "/etc/hostname", "/proc", "/sys", "/dev", APT_SETTING]
        targets += [t for _, t, _ in request.binds] + [t for t, _ in request.tmpfs]
        for target in sorted(targets, key=len, reverse=True):
            removal.unmake_target(request.upper, target)
