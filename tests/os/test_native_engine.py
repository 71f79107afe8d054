"""The native engine on this kernel: real namespaces, a real program (a static busybox), as root."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kapelle.engines.native import execution, records
from kapelle.engines.native.engine import NativeEngine
from kapelle.errors import EngineError
from kapelle.events import Event
from kapelle.linux import fsops
from kapelle.model.project import Network, Project
from kapelle.model.service import HealthCheck, NetworkAttachment, Service
from kapelle.plan import steps
from kapelle.plan.observed import Container
from kapelle.state.paths import Paths, find

BUSYBOX = shutil.which("busybox") or ""
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: namespaces and mounts"),
    pytest.mark.skipif(not BUSYBOX, reason="needs a static busybox (Debian's busybox-static)"),
]


def wait_until(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.01)


class Bench:
    """One project of one service, run by the engine."""

    def __init__(self, home: Path) -> None:
        self.paths: Paths = find({"KAP_HOME": str(home)})
        self.engine = NativeEngine(self.paths, {})
        self.events: list[Event] = []
        store = self.engine.store
        with store.new_layer() as layer:
            root = Path(layer.diff) if hasattr(layer, "diff") else Path(str(layer)) / "diff"
            (root / "bin").mkdir(parents=True, exist_ok=True)
            shutil.copy(BUSYBOX, root / "bin/busybox")
            for name in ("sh", "sleep", "echo", "cat", "mount", "id", "unshare", "nslookup", "touch", "ls"):
                (root / "bin" / name).symlink_to("busybox")
            diff_id = store.commit_layer(str(root))
        store.put_image({"config": {"Env": ["PATH=/bin"]}, "os": "linux"}, (diff_id,), ("box:1",))
        self.project = Project("t", str(home), (), ())

    def make(self, service: Service) -> None:
        network = Network("default", "t_default")
        service = service._replace(image="box:1", networks=(NetworkAttachment("default"),))
        self.project = self.project._replace(services=(service,), networks=(network,))
        if not os.path.exists(f"{self.paths.networks}/t_default.json"):
            self.perform(steps.CreateNetwork(network))
        self.perform(steps.CreateContainer(service, "t-s-1", 1))

    def perform(self, step: steps.Step) -> None:
        self.engine.perform(step, self.project, self.events.append)

    def start(self, script: str, **changes: object) -> Container:
        service = Service("s", command=("sh", "-c", script))._replace(**changes)
        self.make(service)
        self.perform(steps.StartContainer("t-s-1", "s"))
        return self.now()

    def now(self) -> Container:
        return records.containers(self.paths, "t")[0]

    def output(self) -> list[str]:
        return [
            text.decode() for line in self.engine.logs((self.now(),)) for text in line.joined_by(b"\n").split(b"\n")
        ]

    def run(self, *command: str) -> tuple[int, str]:
        reading, writing = os.pipe()
        process = execution.start(self.paths, self.now(), list(command), streams=(writing, writing, writing))
        os.close(writing)
        with open(reading) as f:
            text = f.read()
        return process.wait(), text

    def ours(self, name: str) -> list[int]:
        found = []
        for entry in os.listdir("/proc"):
            try:
                cmdline = Path(f"/proc/{entry}/cmdline").read_bytes() if entry.isdigit() else b""
                if self.paths.run.encode() in cmdline and Path(f"/proc/{entry}/comm").read_text().strip() == name:
                    found.append(int(entry))
            except OSError:
                continue
        return found

    def close(self) -> None:
        for container in records.containers(self.paths, "t"):
            self.perform(steps.RemoveContainer(container.name, "s", force=True, volumes=True))
        self.engine.settle("t")
        wait_until(lambda: not self.ours("kap-keeper") and not self.ours("kap-supervisor"))


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


def test_a_container_runs_says_its_lines_and_ends_with_its_code(bench: Bench) -> None:
    bench.start("echo out; echo err >&2; exit 3")
    wait_until(lambda: bench.now().status == "exited")
    assert sorted(bench.output()) == ["err", "out"]
    assert bench.now().exit_code == 3


def test_a_container_has_its_own_name_processes_and_address(bench: Bench) -> None:
    container = bench.start("sleep 1000")
    assert bench.run("cat", "/etc/hostname") == (0, f"{container.id[:12]}\n")
    assert container.networks[0].ipv4.startswith("172.")
    assert bench.run("sh", "-c", "ls -d /proc/[0-9]*")[1].split()[0] == "/proc/1"


def test_the_walls_stand(bench: Bench) -> None:
    bench.start("sleep 1000")
    assert bench.run("mount", "-t", "tmpfs", "x", "/mnt")[0] != 0
    assert bench.run("unshare", "-m", "true")[0] != 0
    assert bench.run("sh", "-c", "echo 1 > /proc/sys/kernel/panic")[0] != 0
    for path in fsops.MASKED:  # hidden behind nothing: an empty file or folder, where the kernel has it at all
        look = f"[ -e {path} ] || exit 0; if [ -d {path} ]; then ls {path}; else cat {path}; fi"
        assert bench.run("sh", "-c", look) == (0, ""), path
    status = bench.run("cat", "/proc/self/status")[1]
    assert "CapEff:\t00000000a80425fb" in status
    assert "Seccomp:\t2" in status
    assert "NoNewPrivs:\t0" in status


def test_no_descriptor_of_ours_is_left_in_the_container(bench: Bench) -> None:
    bench.start("ls /proc/self/fd; sleep 1000")
    wait_until(lambda: len(bench.output()) >= 4)
    assert bench.output() == ["0", "1", "2", "3"]  # 3 is ls's own


def test_a_container_outlives_a_killed_supervisor_without_losing_a_line(bench: Bench) -> None:
    bench.start("i=0; while [ $i -lt 40 ]; do i=$((i+1)); echo $i; sleep 0.05; done; exit 7")
    first = bench.ours("kap-supervisor")[0]
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: bench.now().status == "exited")
    wait_until(lambda: len(bench.output()) == 40)
    assert bench.output() == [str(n) for n in range(1, 41)]
    assert bench.now().exit_code == 7


def test_a_container_outlives_a_killed_keeper(bench: Bench) -> None:
    bench.start("sleep 1000")
    os.kill(bench.ours("kap-keeper")[0], signal.SIGKILL)
    wait_until(lambda: len(bench.ours("kap-keeper")) >= 1 and len(bench.ours("kap-supervisor")) == 1)
    assert bench.run("echo", "still here") == (0, "still here\n")


def test_a_health_check_is_noticed_as_soon_as_it_passes(bench: Bench) -> None:
    bench.start("sleep 0.3; touch /ready; sleep 1000", healthcheck=HealthCheck(("CMD-SHELL", "ls /ready"), 30, 5, 3))
    bench.perform(steps.WaitFor("s", ("t-s-1",), "service_healthy"))
    assert bench.now().health == "healthy"


def test_waiting_for_what_can_no_longer_be_healthy_fails_with_the_last_lines(bench: Bench) -> None:
    bench.start("echo broken; exit 4", healthcheck=HealthCheck(("CMD", "false"), 30, 5, 3))
    with pytest.raises(EngineError, match=r"t-s-1 exited \(4\)") as caught:
        bench.perform(steps.WaitFor("s", ("t-s-1",), "service_healthy", wanted_by="web"))
    assert ("last lines", "broken") in caught.value.details


def test_a_missing_program_is_told_with_code_127_and_nothing_runs(bench: Bench) -> None:
    bench.make(Service("s", command=("no-such-program",)))
    with pytest.raises(EngineError, match="executable file not found") as caught:
        bench.perform(steps.StartContainer("t-s-1", "s"))
    assert caught.value.exit_code == 1
    assert (bench.now().status, bench.now().exit_code) == ("exited", 127)


def test_a_restart_policy_starts_it_again(bench: Bench) -> None:
    bench.start("exit 1", restart="on-failure:2")
    wait_until(lambda: bench.now().restarts == 2 and bench.now().status == "exited")


def test_exec_passes_the_programs_code_on(bench: Bench) -> None:
    bench.start("sleep 1000")
    assert bench.run("sh", "-c", "exit 42")[0] == 42
