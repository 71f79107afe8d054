"""Limits and devices of a container as the file has them, read back inside it; what can't be is told with its place."""

from __future__ import annotations

import json
import os
import stat

import pytest

from kapelle.engines.native import cgroup_tree
from tests.scenarios.conftest import Kap

pytestmark = pytest.mark.root


def writable(*controllers: str) -> bool:
    """May groups be made in all of these v1 hierarchies?"""
    own = cgroup_tree.own()
    return all(name in own and os.access(own[name], os.W_OK) for name in controllers)


def needs(*controllers: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not writable(*controllers), reason=f"needs writable v1 groups: {', '.join(controllers)}")


def says(kap: Kap, settings: str, script: str) -> tuple[int, str, str]:
    kap.file(f"services:\n  a:\n    image: busybox\n    {settings}\n")
    done = kap("run", "--rm", "-T", "a", "sh", "-c", script)
    return done.code, done.out.strip(), done.err


def reads(kap: Kap, settings: str, *files: str) -> list[str]:
    code, out, err = says(kap, settings, " && ".join(f"cat /sys/fs/cgroup/{f}" for f in files))
    assert code == 0, err
    return out.splitlines()


def block_device() -> str:
    """A block device of this machine; "" when there is none."""
    for name in sorted(os.listdir("/dev"), reverse=True):
        try:
            if stat.S_ISBLK(os.stat(f"/dev/{name}").st_mode):
                return f"/dev/{name}"
        except OSError:
            continue
    return ""


@needs("memory")
def test_memory_limits_are_in_the_groups_files_with_as_much_swap_by_default(kap: Kap) -> None:
    files = ("memory/memory.limit_in_bytes", "memory/memory.memsw.limit_in_bytes")
    mib = 1 << 20
    assert reads(kap, "mem_limit: 32m", *files) == [str(32 * mib), str(64 * mib)]
    assert reads(kap, "{mem_limit: 32m, memswap_limit: 40m}"[1:-1].replace(", ", "\n    "), *files) == [
        str(32 * mib), str(40 * mib),
    ]  # fmt: skip
    settings = "deploy: {resources: {limits: {memory: 48m}, reservations: {memory: 16m}}}\n    mem_swappiness: 7"
    files = (files[0], "memory/memory.soft_limit_in_bytes", "memory/memory.swappiness")
    assert reads(kap, settings, *files) == [str(48 * mib), str(16 * mib), "7"]


@needs("cpu", "cpuset", "pids")
def test_processors_and_numbers_of_processes_are_limited_as_asked(kap: Kap) -> None:
    quota = ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")
    assert reads(kap, "cpus: 0.5", *quota) == ["50000", "100000"]
    assert reads(kap, "cpu_quota: 20000\n    cpu_period: 40000", *quota) == ["20000", "40000"]
    assert reads(kap, "cpu_shares: 77\n    cpuset: '0'", "cpu/cpu.shares", "cpuset/cpuset.cpus") == ["77", "0"]
    assert reads(kap, "deploy: {resources: {limits: {pids: 33}}}", "pids/pids.max") == ["33"]
    assert reads(kap, "pids_limit: -1", "pids/pids.max") == ["max"]


@needs("pids")
def test_a_container_has_no_more_processes_than_its_limit(kap: Kap) -> None:
    script = "for i in 1 2 3 4 5 6 7 8; do sleep 5 & done; wait"
    code, _, err = says(kap, "pids_limit: 5", script)
    assert code != 0
    assert "can't fork" in err


@needs("blkio")
def test_block_io_is_limited_for_a_device_by_its_number(kap: Kap) -> None:
    device = block_device()
    if not device:
        pytest.skip("needs a block device")
    number = os.stat(device).st_rdev
    label = f"{os.major(number)}:{os.minor(number)}"
    settings = (
        f"blkio_config: {{device_read_bps: [{{path: {device}, rate: 12mb}}], device_write_bps: [{{path: {device}, "
        f"rate: 1024k}}], device_read_iops: [{{path: {device}, rate: 120}}], device_write_iops: [{{path: {device}, "
        "rate: 30}]}"
    )
    throttle = "blkio/blkio.throttle"
    files = [f"{throttle}.{way}_{what}_device" for way in ("read", "write") for what in ("bps", "iops")]
    assert reads(kap, settings, *files) == [
        f"{label} {12 << 20}", f"{label} 120", f"{label} {1 << 20}", f"{label} 30",
    ]  # fmt: skip


@needs("cpu")
def test_a_parent_group_is_made_below_ours_and_goes_again(kap: Kap) -> None:
    kap.file(
        "services:\n  a: {image: busybox, command: [sleep, '1000'], cgroup_parent: kap-inner/deep, cgroup: host}\n"
    )
    kap.ok("up", "-d")
    pid = str(kap.ok("exec", "-T", "a", "cat", "/proc/self/cgroup").out)
    row = next(line for line in pid.splitlines() if ":cpu:" in line)
    assert "/kap-inner/deep/kapelle-" in row, "cgroup: host shows the path from the root"
    made = f"{cgroup_tree.own()['cpu']}/kap-inner"
    assert os.path.isdir(made)
    kap.ok("down", "-t", "0")
    assert not os.path.exists(made)


@needs("cpu")
def test_a_container_sees_its_own_group_as_the_root_unless_it_shares_the_hosts_view(kap: Kap) -> None:
    kap.file("services:\n  a: {image: busybox}\n  b: {image: busybox, cgroup: host}\n")
    own = kap.ok("run", "--rm", "-T", "a", "cat", "/proc/self/cgroup").out.splitlines()
    assert {line.partition("/")[2] for line in own if ":cpu:" in line} == {""}
    shared = kap.ok("run", "--rm", "-T", "b", "cat", "/proc/self/cgroup").out
    assert "kapelle-" in shared


def test_a_limit_that_the_kernel_refuses_is_told_once_with_its_place_and_the_container_runs(kap: Kap) -> None:
    kap.file(
        "services:\n  a:\n    image: busybox\n    command: [sleep, '99']\n    cpu_rt_runtime: 999999999\n    scale: 3\n"
    )
    done = kap.ok("up", "-d")
    assert done.err.count("cpu_rt_runtime is not honoured") == 1
    assert 'compose.yaml:5:5: service "a": cpu_rt_runtime is not honoured: ' in done.err
    assert {row["State"] for row in kap.ps().values()} == {"running"}


@pytest.mark.parametrize(
    ("settings", "place", "words"),
    [
        ("mem_limit: 1m", "4:5", "minimum memory limit allowed is 6MB"),
        ("mem_limit: 20m\n    memswap_limit: 10m", "5:5", "should be larger than memory limit"),
        ("memswap_limit: 10m", "4:5", "needs a memory limit"),
        ("cpus: 4096", "4:5", "range of CPUs is from 0.01 to"),
        ("cpus: 1\n    cpu_quota: 5000", "5:5", "cannot both be set"),
        ("cpuset: '0-4095'", "4:5", "requested CPUs are not available: requested 0-4095"),
        ("cpuset: x", "4:5", "invalid value x for cpuset cpus"),
        ("deploy: {resources: {limits: {memory: 2m}}}", "4:35", "minimum memory limit"),
        ("blkio_config: {weight: 5}", "4:20", "range of blkio weight is from 10 to 1000"),
        ("blkio_config: {device_read_bps: [{path: /dev/nope, rate: 1}]}", "4:38", "/dev/nope: no such file"),
        ("device_cgroup_rules: ['c 1:3 x']", "4:27", "invalid device cgroup format: 'c 1:3 x'"),
        ("devices: ['/dev/null', '/dev/nope']", "4:28", 'custom device "/dev/nope": no such file'),
        ("devices: ['/etc/passwd']", "4:15", "/etc/passwd is not a device node"),
        ("devices: ['/dev/null:/dev/x:rq']", "4:15", "invalid device mode: rq"),
        ("ulimits: {nofiles: 5}", "4:15", "invalid ulimit type: nofiles"),
        ("ulimits: {nofile: {soft: 9, hard: 5}}", "4:15", "less than or equal to hard limit"),
        ("cgroup_parent: ../out", "4:5", "invalid cgroup parent"),
    ],
)
def test_what_can_not_be_is_refused_with_its_place_before_anything_is_made(
    kap: Kap, settings: str, place: str, words: str
) -> None:
    kap.file(f"services:\n  a:\n    image: busybox\n    {settings}\n")
    done = kap("up", "-d")
    assert done.code == 1, done
    assert f"compose.yaml:{place}: " in done.err
    assert words in done.err
    assert "Traceback" not in done.err
    assert kap.ps() == {}


def spare_device() -> tuple[str, int, int]:
    """A character device that no container has by default, and that may be opened without harm."""
    for path in ("/dev/fuse", "/dev/loop-control", "/dev/hwrng"):
        if os.path.exists(path):
            number = os.stat(path).st_rdev
            return path, os.major(number), os.minor(number)
    pytest.skip("needs a device that may be opened without harm")


@needs("devices")
def test_a_device_that_the_container_was_not_given_can_be_made_but_not_opened(kap: Kap) -> None:
    _, major, minor = spare_device()
    made = f"mknod /x c {major} {minor} && "
    script = f"{made} {{ (: < /x) 2>/dev/null || echo refused; }}; mknod /n c 1 3 && cat /n && echo null"
    assert says(kap, "init: false", script)[1] == "refused\nnull"
    opened = f"{made} (: < /x) && echo read; (: > /x) 2>/dev/null || echo refused"
    assert says(kap, f"device_cgroup_rules: ['c {major}:* r']", opened)[1] == "read\nrefused"
    assert says(kap, "device_cgroup_rules: ['a *:* rwm']", f"{made} (: < /x) && echo read")[1] == "read"
    assert says(kap, "privileged: true", f"{made} (: < /x) && echo read")[1] == "read"


@needs("devices")
def test_a_process_that_comes_later_is_held_to_the_same_devices(kap: Kap) -> None:
    _, major, minor = spare_device()
    kap.file("services:\n  a: {image: busybox, command: [sleep, '1000']}\n")
    kap.ok("up", "-d")
    script = f"mknod /x c {major} {minor} && {{ (: < /x) 2>/dev/null || echo refused; }}"
    assert kap.ok("exec", "-T", "a", "sh", "-c", script).out == "refused\n"


@needs("devices")
def test_devices_are_given_with_their_permissions(kap: Kap) -> None:
    path, _, _ = spare_device()
    script = "ls -l /dev/mine | cut -c1; (: < /dev/mine) && echo read; (: > /dev/mine) 2>/dev/null || echo not written"
    assert says(kap, f"devices: ['{path}:/dev/mine:r']", script)[1] == "c\nread\nnot written"
    assert says(kap, f"devices: ['{path}']", f"(: < {path}) && (: > {path}) && echo both")[1] == "both"


def test_a_privileged_container_has_the_hosts_devices_and_a_writable_sys(kap: Kap) -> None:
    device = block_device() or "/dev/kmsg"
    script = f"ls {device}; touch /sys/kernel/x 2>&1 | grep -c read-only; (: < {device}) && echo opened"
    assert says(kap, "privileged: true", script)[1].split() == [device, "0", "opened"]


# busybox' tail keeps what it reads until a line ends, and /dev/zero has no line.
HOG = "tail /dev/zero"


@needs("memory")
def test_a_memory_hog_is_killed_at_its_limit_and_that_it_was_memory_is_told_everywhere(kap: Kap) -> None:
    kap.file(
        f"services:\n  hog:\n    image: busybox\n    command: [sh, -c, 'exec {HOG}']\n    mem_limit: 16m\n"
        "  other: {image: busybox, command: [sh, -c, 'kill -9 $$$$; sleep 9'], init: true}\n"
    )
    name = f"{kap.folder.name}-hog-1"
    done = kap("up")
    assert "hog-1 exited with code 137" in done.out + done.err
    told = f"compose.yaml:5:5: {name} was killed by the kernel: out of memory (exit 137, signal 9) [KAP801]"
    assert done.err.count("KAP801") == 1, "the other one was killed too, but not for memory"
    assert told in done.err
    assert "limit  mem_limit 16 MB" in done.err
    row = kap.ps()[name]
    assert row["ExitCode"] == 137
    assert row["Status"].startswith("Exited (137) ")
    assert row["Status"].endswith(" (out of memory)")
    assert "memory" not in kap.ps()[f"{kap.folder.name}-other-1"]["Status"]
    events = kap.ok("events", "--json", "--since", "1h", "--until", "0s").out
    actions = [json.loads(line)["action"] for line in events.splitlines() if '"hog"' in line]
    assert actions.index("oom") == actions.index("die") - 1


@needs("memory")
def test_who_waits_for_a_service_that_runs_out_of_memory_hears_why(kap: Kap) -> None:
    kap.file(
        f"services:\n  hog:\n    image: busybox\n    command: [sh, -c, 'echo working; exec {HOG}']\n"
        "    deploy: {resources: {limits: {memory: 16m}}}\n    healthcheck: {test: [CMD, 'false'], interval: 60s}\n"
    )
    done = kap("up", "-d", "--wait")
    assert done.code == 1
    assert "compose.yaml:5:35: " in done.err
    assert "out of memory (exit 137, signal 9) [KAP801]" in done.err
    assert "last lines  working" in done.err


@needs("memory")
def test_a_one_off_that_runs_out_of_memory_says_so(kap: Kap) -> None:
    kap.file("services:\n  a: {image: busybox, mem_limit: 16m}\n")
    done = kap("run", "--rm", "-T", "a", "sh", "-c", f"exec {HOG}")
    assert done.code == 137
    assert "KAP801" in done.err


def seccomp_file(kap: Kap, *rules: dict[str, object], default: str = "SCMP_ACT_ALLOW") -> None:
    kap.file(json.dumps({"defaultAction": default, "syscalls": rules}), "profile.json")


def test_a_seccomp_profile_of_the_project_refuses_what_it_names(kap: Kap) -> None:
    seccomp_file(kap, {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38})
    script = "mkdir /x 2>&1 || touch /y && echo touched"
    for options in ("[seccomp=profile.json]", "['seccomp:./profile.json', 'no-new-privileges:true']"):
        found = says(kap, f"security_opt: {options}", script)
        assert found[1] == "mkdir: can't create directory '/x': Function not implemented\ntouched"
    kap.file("services:\n  a: {image: busybox, command: [sleep, '99'], security_opt: [seccomp=profile.json]}\n")
    kap.ok("up", "-d")
    assert kap("exec", "-T", "a", "mkdir", "/z").code == 1, "a process that comes later is held to it, too"
    (kap.folder / "deep").mkdir()
    kap.folder = kap.folder / "deep"
    found = kap.ok("-f", "../compose.yaml", "run", "--rm", "-T", "a", "sh", "-c", "mkdir /z 2>&1 || echo refused").out
    kap.folder = kap.folder.parent
    assert "refused" in found, "its place is relative to the project"


def test_a_profile_may_depend_on_arguments(kap: Kap) -> None:
    rule = {"names": ["kill"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 1, "value": 10, "op": "SCMP_CMP_EQ"}]}
    seccomp_file(kap, rule)
    script = "sleep 9 & kill -USR2 $! && echo sent; sleep 9 & kill -USR1 $! || echo refused"
    assert says(kap, "security_opt: [seccomp=profile.json]", script)[1] == "sent\nrefused"


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("seccomp=missing.json", "opening seccomp profile (missing.json) failed: no such file"),
        ("seccomp=compose.yaml", "seccomp profile compose.yaml: it is not JSON"),
        ("no-new-privs", "invalid --security-opt 1: 'no-new-privs'"),
        ("no-new-privileges:maybe", "invalid --security-opt 2: 'no-new-privileges:maybe'"),
        ("systempaths=confined", "invalid --security-opt 2: 'systempaths=confined'"),
        ("selinux=off", "invalid --security-opt 2: 'selinux=off'"),
    ],
)
def test_a_security_option_that_is_not_one_is_refused_with_its_place(kap: Kap, option: str, words: str) -> None:
    kap.file(f"services:\n  a:\n    image: busybox\n    security_opt: ['label=disable', '{option}']\n")
    done = kap("up", "-d")
    assert done.code == 1
    assert f'compose.yaml:4:37: service "a": {words}' in done.err
    assert kap.ps() == {}


def test_walls_that_this_kernel_has_not_are_told_and_the_container_runs(kap: Kap) -> None:
    if os.path.exists("/sys/module/apparmor") or os.path.exists("/sys/fs/selinux"):
        pytest.skip("this kernel has them")
    kap.file(
        "services:\n  a:\n    image: busybox\n    command: [sleep, '99']\n"
        "    security_opt: ['apparmor=strict', 'label=type:svirt_t', 'label=disable', 'apparmor=unconfined']\n"
    )
    done = kap.ok("up", "-d")
    assert 'compose.yaml:5:20: service "a": security_opt[0] is not honoured: AppArmor is not enabled' in done.err
    assert "security_opt[1] is not honoured: SELinux is not enabled" in done.err
    assert "security_opt[2]" not in done.err
    assert "security_opt[3]" not in done.err
    assert kap.state(f"{kap.folder.name}-a-1") == "running"


def test_system_paths_are_open_when_the_file_says_so(kap: Kap) -> None:
    script = "cat /proc/keys | wc -c; (echo 1 > /proc/sys/kernel/printk_ratelimit_burst) 2>&1 | grep -c 'Read-only'"
    assert says(kap, "init: false", script)[1] == "0\n1"
    assert says(kap, "security_opt: [systempaths=unconfined]", "mount | grep -c ' /proc/'")[1] == "0"


def cdi_devices(kap: Kap) -> None:
    """A specification of a fake device that is /dev/full under another name."""
    folder = kap.folder / "cdi"
    folder.mkdir()
    kap.file("from the host", "library")
    edits = {
        "env": ["HAVE_ONE=yes"],
        "deviceNodes": [{"path": "/dev/vendor/one", "hostPath": "/dev/full", "fileMode": 0o622, "gid": 44}],
        "mounts": [{"hostPath": str(kap.folder / "library"), "containerPath": "/opt/library", "options": ["ro"]}],
        "hooks": [{"hookName": "createContainer", "path": "/usr/bin/update"}],
        "additionalGIDs": [44],
    }
    spec = {"cdiVersion": "0.6.0", "kind": "vendor.com/gpu", "devices": [{"name": "0", "containerEdits": edits}]}
    kap.file(json.dumps(spec), "cdi/vendor.json")
    kap.environment["KAP_CDI_DIRS"] = str(folder)


@pytest.mark.parametrize(
    "settings",
    [
        "devices: ['vendor.com/gpu=0']",
        "gpus: [{driver: cdi, device_ids: ['vendor.com/gpu=0']}]",
        "deploy: {resources: {reservations: {devices: [{driver: cdi, capabilities: [gpu], "
        "device_ids: ['vendor.com/gpu=0']}]}}}",
    ],
    ids=["devices", "gpus", "deploy"],
)
def test_a_cdi_device_appears_with_its_node_files_variables_and_groups(kap: Kap, settings: str) -> None:
    cdi_devices(kap)
    script = (
        "ls -ln /dev/vendor/one | awk '{print $1, $4, $5 $6}'; echo $$HAVE_ONE; cat /opt/library; echo; id -G; "
        "(echo x > /opt/library) 2>&1 | grep -c 'Read-only'; (echo x > /dev/vendor/one) 2>&1 | grep -o 'No space.*'"
    ).replace("$$", "$")
    _, out, err = says(kap, settings, script)
    assert out.splitlines() == ["crw--w--w- 44 1,7", "yes", "from the host", "0 44", "1", "No space left on device"]
    assert 'service "a": not run for its devices: createContainer /usr/bin/update' in err


@pytest.mark.parametrize(
    ("settings", "place", "words"),
    [
        ("devices: ['vendor.com/gpu=7']", "4:15", "unresolvable CDI device vendor.com/gpu=7"),
        ("gpus: [{driver: tpu, count: 1}]", "4:12", 'could not select device driver "tpu" with capabilities: [[gpu]]'),
        (
            "deploy: {resources: {reservations: {devices: [{driver: cdi, capabilities: [x], device_ids: [a]}]}}}",
            "4:51",
            "unresolvable CDI device a",
        ),
    ],
)
def test_a_device_that_no_driver_has_is_refused_with_its_place(kap: Kap, settings: str, place: str, words: str) -> None:
    cdi_devices(kap)
    kap.file(f"services:\n  a:\n    image: busybox\n    {settings}\n")
    done = kap("up", "-d")
    assert done.code == 1
    assert f"compose.yaml:{place}: " in done.err
    assert words in done.err
    assert "known here  vendor.com/gpu=0" in done.err
    assert kap.ps() == {}


def test_who_shares_an_ipc_namespace_shares_its_memory_too(kap: Kap) -> None:
    kap.file(
        "services:\n  a: {image: busybox, ipc: shareable, command: [sleep, '99']}\n"
        "  b: {image: busybox, ipc: 'service:a', command: [sleep, '99']}\n"
        "  c: {image: busybox, command: [sleep, '99']}\n"
    )
    kap.ok("up", "-d")
    kap.ok("exec", "-T", "a", "sh", "-c", "echo shared > /dev/shm/x")
    assert kap.ok("exec", "-T", "b", "cat", "/dev/shm/x").out == "shared\n"
    assert kap("exec", "-T", "c", "cat", "/dev/shm/x").code == 1
    namespaces = {n: kap.ok("exec", "-T", n, "readlink", "/proc/self/ns/ipc").out for n in "abc"}
    assert namespaces["a"] == namespaces["b"] != namespaces["c"]


def test_the_hosts_ipc_and_none_at_all(kap: Kap) -> None:
    own = os.readlink("/proc/self/ns/ipc")
    mark = f"/dev/shm/kap-{os.getpid()}"
    with open(mark, "w") as f:
        f.write("of the host")
    try:
        script = f"readlink /proc/self/ns/ipc; cat {mark}"
        assert says(kap, "ipc: host", script)[1] == f"{own}\nof the host"
    finally:
        os.unlink(mark)
    script = "readlink /proc/self/ns/ipc; mount | grep -c /dev/shm"
    code, out, _ = says(kap, "ipc: none", script)
    assert code == 1
    assert out.splitlines()[0] != own
    assert out.splitlines()[1] == "0"


def test_the_hosts_name_is_a_containers_when_it_shares_it(kap: Kap) -> None:
    name = os.uname().nodename
    assert says(kap, "uts: host", "hostname; echo $HOSTNAME; cat /etc/hostname")[1].splitlines() == [name] * 3
    assert says(kap, "userns_mode: host", "echo accepted") == (0, "accepted", says(kap, "init: false", "")[2])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("ipc: mine", "invalid IPC mode: mine"),
        ("pid: none", "invalid PID mode: none"),
        ("uts: 'container:x'", "invalid UTS mode: container:x"),
        ("userns_mode: keep-id", "invalid USER mode: keep-id"),
        ("uts: host\n    hostname: x", "conflicting options: hostname and the UTS mode"),
    ],
)
def test_a_namespace_that_is_none_is_refused_with_its_place(kap: Kap, settings: str, words: str) -> None:
    kap.file(f"services:\n  a:\n    image: busybox\n    {settings}\n")
    done = kap("up", "-d")
    assert done.code == 1
    assert f'compose.yaml:4:5: service "a": {words}' in done.err
    assert kap.ps() == {}


def test_a_ulimit_beyond_what_may_be_set_is_lowered_and_said(kap: Kap) -> None:
    with open("/proc/sys/fs/nr_open") as f:
        most = int(f.read())
    _, out, err = says(kap, f"ulimits: {{nofile: {most * 2}, core: 0}}", "ulimit -n; ulimit -c")
    number, core = out.split()
    assert int(number) <= most
    assert core == "0"
    assert (
        f'compose.yaml:4:15: service "a": ulimits.nofile is not honoured: the most that may be set here is {number}'
        in err
    )


def test_how_soon_a_service_is_killed_for_memory_can_be_chosen(kap: Kap) -> None:
    _, out, _ = says(kap, "oom_score_adj: 321", "cat /proc/self/oom_score_adj")
    assert out.split()[-1] == "321"


def test_what_is_only_for_others_is_told(kap: Kap) -> None:
    kap.file(
        "services:\n  a:\n    image: busybox\n    command: [sleep, '99']\n    runtime: runc\n    isolation: hyperv\n"
        "    storage_opt: {size: 1G}\n    deploy: {resources: {reservations: {cpus: '0.5'}}}\n"
    )
    err = kap.ok("up", "-d").err
    for place, key in (("5:5", "runtime"), ("6:5", "isolation"), ("7:5", "storage_opt")):
        assert f'compose.yaml:{place}: service "a": {key} is not honoured' in err
    assert "deploy.resources.reservations.cpus is not honoured" in err
    kap.file(
        "services:\n  a:\n    image: busybox\n    command: [sleep, '99']\n    secrets: [s]\n"
        "    volumes:\n      - {type: bind, source: ., target: /here, consistency: cached}\n"
        "    develop: {watch: [{path: ., action: rebuild}]}\n"
        "secrets:\n  s: {environment: HOME, driver: vault}\n"
        "networks:\n  default: {ipam: {driver: other, options: {a: b}}}\n"
    )
    for told in (kap.ok("up", "-d").err, kap.ok("config", "--check").out):
        assert 'service "a": volumes[0].consistency is not honoured' in told
        assert "compose.yaml:8:5: " in told
        assert 'service "a": develop is not honoured: files are not watched' in told
        assert 'secret "s": driver is not honoured' in told
        for key in ("driver", "options"):
            assert f'network "default": ipam.{key} is not honoured' in told
    kap.file("services:\n  a: {image: busybox, command: [sleep, '99'], isolation: default}\n")
    assert "isolation is not honoured" not in kap.ok("up", "-d").err
