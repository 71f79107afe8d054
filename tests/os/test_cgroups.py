"""Control groups of this kernel: the v2 leaf rule and device programs, where they may be had."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from kapelle.engines.native import cgroup_tree, devices, launcher
from kapelle.linux import bpf

pytestmark = pytest.mark.root


@pytest.fixture
def group() -> Iterator[str]:
    """A new v2 group below our own."""
    base = cgroup_tree.own().get(cgroup_tree.UNIFIED, "")
    if not base or not os.access(base, os.W_OK):
        pytest.skip("needs a writable v2 group")
    path = f"{base}/kapelle-test-{os.getpid()}"
    os.mkdir(path)
    yield path
    for folder, _, _ in os.walk(path, topdown=False):
        os.rmdir(folder)


def inside(group: str, act: object) -> int:
    """The exit code of a child in the group that calls `act`."""
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            with open(f"{group}/cgroup.procs", "w") as f:
                f.write("0")
            code = act()  # type: ignore[operator]
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def opens(path: str) -> int:
    try:
        os.close(os.open(path, os.O_RDWR))
    except PermissionError:
        return 1
    return 0


def test_a_program_on_a_v2_group_holds_its_processes_to_the_rules(group: str) -> None:
    try:
        bpf.attach_device_program(group, [r for r in devices.DEFAULT if (r.major, r.minor) != (1, 5)])
    except OSError as e:
        pytest.skip(f"this kernel takes no device program: {e}")
    assert inside(group, lambda: opens("/dev/null")) == 0
    assert inside(group, lambda: opens("/dev/zero")) == 1
    assert opens("/dev/zero") == 0, "who is not in the group is not held"


def test_controllers_are_handed_down_once_no_process_is_in_the_way(group: str) -> None:
    hierarchy = cgroup_tree.mounted()[cgroup_tree.UNIFIED]
    some = sorted(cgroup_tree.words_of(f"{hierarchy}/cgroup.controllers"))
    if not some or not cgroup_tree.hand_down(group, hierarchy, some[:1]):
        pytest.skip("needs a v2 controller")
    cgroup_tree.write(f"{group}/cgroup.subtree_control", f"-{some[0]}")

    def inner() -> int:  # a "keeper" in the group, with a "supervisor" as its child
        pid = os.fork()
        if pid == 0:
            found, leaf = cgroup_tree.base_for(group, hierarchy, "p", some[:1])
            good = found == group and leaf == f"{group}/kapelle.leaf-p" and cgroup_tree.own()["unified"] == group
            good = good and some[0] in cgroup_tree.words_of(f"{group}/cgroup.subtree_control")
            cgroup_tree.leave_leaf(leaf, some[:1])
            good = (
                good and not os.path.exists(leaf) and str(os.getpid()) in cgroup_tree.words_of(f"{group}/cgroup.procs")
            )
            os._exit(0 if good else 1)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    assert inside(group, inner) == 0


def test_others_in_our_group_leave_the_groups_above(group: str) -> None:
    hierarchy = cgroup_tree.mounted()[cgroup_tree.UNIFIED]
    some = sorted(cgroup_tree.words_of(f"{hierarchy}/cgroup.controllers"))
    if not some or not cgroup_tree.hand_down(group, hierarchy, some[:1]):
        pytest.skip("needs a v2 controller")
    own = f"{group}/crowded"
    os.mkdir(own)

    def crowded() -> int:
        pid = os.fork()
        if pid == 0:
            if os.fork() == 0:
                found, leaf = cgroup_tree.base_for(own, hierarchy, "p", some[:1])
                os._exit(0 if (found, leaf) == (group, "") else 1)
            os._exit(os.waitstatus_to_exitcode(os.wait()[1]))
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    assert inside(own, crowded) == 0


def test_a_v1_group_is_entered_by_its_tasks_and_the_whole_container_is_in_it() -> None:
    base = cgroup_tree.own().get("pids", "")
    if not base or not os.access(base, os.W_OK):
        pytest.skip("needs a writable v1 group")
    path = f"{base}/kapelle-test-{os.getpid()}"
    os.mkdir(path)
    ours, theirs = socket.socketpair()

    def enter() -> int:
        launcher._enter_cgroup(path, theirs)
        child = os.fork()
        if child == 0:
            os._exit(_in_group(path))
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    try:
        pid = os.fork()
        if pid == 0:
            code = 99
            try:
                code = enter()
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    finally:
        ours.close()
        theirs.close()
        os.rmdir(path)


def _in_group(path: str) -> int:
    with open("/proc/self/cgroup") as f:
        mine = cgroup_tree.memberships(f.read())["pids"]
    return 0 if path.endswith(mine) else 1
