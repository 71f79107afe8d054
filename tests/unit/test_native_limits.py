"""What limits become in the files of control groups, and the BPF program that holds a container to its devices."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from kapelle.engines.native import cgroup_tree, cgroups, devices, limit_checks, limits
from kapelle.linux import bpf
from kapelle.model.service import BlockIo, Service

MIB = 1 << 20


def rows(service: Service) -> dict[str, tuple[limits.Rows, limits.Rows]]:
    return {s.key: (s.v1, s.v2) for s in limits.settings(limits.of(service), lambda _: "8:16")}


def test_memory_and_swap_are_together_in_v1_and_apart_in_v2() -> None:
    found = rows(Service("a", mem_limit=32 * MIB, memswap_limit=40 * MIB))
    assert found["mem_limit"] == (
        (("memory.limit_in_bytes", str(32 * MIB)),), (("memory.max", str(32 * MIB)),),
    )  # fmt: skip
    assert found["memswap_limit"] == (
        (("memory.memsw.limit_in_bytes", str(40 * MIB)),), (("memory.swap.max", str(8 * MIB)),),
    )  # fmt: skip


def test_swap_is_as_much_as_memory_unless_the_file_says_so_and_minus_one_is_no_limit() -> None:
    assert rows(Service("a", mem_limit=32 * MIB))[""][1] == (("memory.swap.max", str(32 * MIB)),)
    assert rows(Service("a", mem_limit=32 * MIB, memswap_limit=-1))["memswap_limit"][1] == (("memory.swap.max", "max"),)


def test_processors_become_a_quota_and_shares_a_weight() -> None:
    found = rows(Service("a", cpus=1.5, cpu_shares=1024))
    assert found["cpus"] == (
        (("cpu.cfs_period_us", "100000"), ("cpu.cfs_quota_us", "150000")), (("cpu.max", "150000 100000"),),
    )  # fmt: skip
    assert found["cpu_shares"][1] == (("cpu.weight", "39"),)


def test_block_io_has_the_devices_number_and_v2s_words() -> None:
    found = rows(Service("a", blkio=BlockIo(10, (("/dev/sdb", 1000),), device_write_iops=(("/dev/sdb", 30),))))
    assert found["blkio_config.weight"][1] == (("io.bfq.weight|io.weight", "10|1"),)
    assert found["blkio_config.weight_device[0]"][1] == (("io.bfq.weight|io.weight", "8:16 1000|8:16 10000"),)
    assert found["blkio_config.device_write_iops[0]"] == (
        (("blkio.throttle.write_iops_device", "8:16 30"),), (("io.max", "8:16 wiops=30"),),
    )  # fmt: skip


def tree(root: Path, controllers: str, *, handed: str = "") -> Path:
    """A v2 hierarchy of plain files, with one group in it."""
    group = root / "own"
    group.mkdir(parents=True)
    for folder in (root, group):
        (folder / "cgroup.controllers").write_text(controllers)
        (folder / "cgroup.subtree_control").write_text(handed)
        (folder / "cgroup.procs").write_text("")
    return group


def test_a_parent_group_is_absolute_a_slice_or_below_our_own() -> None:
    below = cgroup_tree.below
    assert below("/h/own", "/h", "") == "/h/own"
    assert below("/h/own", "/h", "/lab/one") == "/h/lab/one"
    assert below("/h/own", "/h", "lab/one") == "/h/own/lab/one"
    assert below("/h/own", "/h", "big-small.slice") == "/h/big.slice/big-small.slice"
    assert below("/h/own", "/h", "../../etc") == "/h/own/etc"


def test_our_leaf_counts_as_the_group_that_it_is_in() -> None:
    text = "5:cpu,cpuacct:/a\n1:name=systemd:/s\n0::/u/"
    assert cgroup_tree.memberships(text) == {"cpu": "/a", "cpuacct": "/a", "name=systemd": "/s", "unified": "/u"}


def test_groups_are_made_where_the_controllers_are_handed_down(tmp_path: Path) -> None:
    group = tree(tmp_path / "h", "cpu memory", handed="cpu memory")
    assert cgroup_tree.base_for(str(group), str(tmp_path / "h"), "p", {"memory"}) == (str(group), "")
    assert cgroup_tree.base_for(str(group), str(tmp_path / "h"), "p", set()) == (str(group), "")


def test_v2_without_the_controller_is_told(tmp_path: Path) -> None:
    group = tree(tmp_path / "h", "cpu")
    made = cgroups.ProjectCgroups("p", str(tmp_path / "h"))
    made.own = {"unified": str(group)}
    found = made.create("c" * 64, limits.of(Service("a", mem_limit=32 * MIB, mem_swappiness=5, privileged=True)))
    assert found.notes == [
        ("mem_limit", "no memory control group can be made here"),
        ("mem_swappiness", "no memory control group can be made here"),
    ]
    assert [os.path.basename(p) for p in found.paths] == ["kapelle-p-cccccccccccc"]
    assert made.of("c" * 64) == found.paths


def test_a_v2_group_is_made_beside_v1_only_where_it_is_of_use(tmp_path: Path) -> None:
    group = tree(tmp_path / "h", "hugetlb")
    made = cgroups.ProjectCgroups("p", str(tmp_path / "h"))
    v1 = {name: str(tmp_path / name) for name in ("devices", "freezer")}
    made.mounted |= v1
    made.own = {"unified": str(group), **v1}
    alone = made.create("a" * 64, limits.of(Service("a", privileged=True)))
    assert [os.path.dirname(p) for p in alone.paths] == list(v1.values())
    wanting = made.create("b" * 64, limits.of(Service("b", mem_limit=32 * MIB, privileged=True)))
    assert os.path.dirname(wanting.paths[-1]) == str(group), "v1 has no memory here"
    del made.own["freezer"]
    pausing = made.create("c" * 64, limits.of(Service("c", privileged=True)))
    assert os.path.dirname(pausing.paths[-1]) == str(group)


def test_a_file_that_the_kernel_lacks_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "memory"
    folder.mkdir()
    setting = limits.Setting("mem_swappiness", "memory", (("memory.swappiness", "5"),), ())
    assert cgroups._set(setting, {"memory": str(folder)}) == "this kernel has no memory.swappiness"
    assert "no memory control group" in cgroups._set(setting, {})
    (folder / "cgroup.controllers").write_text("memory")
    assert cgroups._set(setting, {"unified": str(folder)}) == "control groups v2 have no such setting"


@pytest.mark.parametrize(("text", "numbers"), [("0", {0}), ("0-2,4", {0, 1, 2, 4})])
def test_processors_are_read_as_the_kernel_writes_them(text: str, numbers: set[int]) -> None:
    assert limit_checks.processors(text) == numbers


def test_a_range_that_goes_backwards_is_no_range() -> None:
    with pytest.raises(ValueError, match="3-1"):
        limit_checks.processors("3-1")


def run(program: bytes, kind: str, major: int, minor: int, access: str) -> int:
    """A small interpreter of the eBPF that device programs use."""
    bits = sum({"m": 1, "r": 2, "w": 4}[letter] for letter in access)
    context = struct.pack("=III", bits << 16 | {"b": 1, "c": 2}[kind], major, minor)
    code = list(struct.iter_unpack("=BBhi", program))
    registers = [0] * 6
    at = 0
    while True:
        op, both, offset, value = code[at]
        dst, src = both & 15, both >> 4
        at += 1
        if op == 0x95:
            return registers[0]
        if op == 0x61:
            registers[dst] = struct.unpack_from("=I", context, offset)[0]
        elif op == 0x55:
            at += offset if registers[dst] != value else 0
        else:
            old = registers[dst]
            registers[dst] = {0xBF: registers[src], 0xB7: value, 0x57: old & value, 0x77: old >> value}[op]


def test_the_program_allows_what_docker_allows_and_the_files_rules() -> None:
    program = bpf.device_program([*devices.DEFAULT, devices.parse("c 13:* rw"), devices.parse("b 8:16 r")])
    allowed = {
        ("c", 1, 3, "rw"): 1, ("c", 1, 11, "r"): 0, ("c", 1, 11, "m"): 1, ("b", 8, 0, "r"): 0, ("b", 8, 0, "m"): 1,
        ("c", 13, 77, "rw"): 1, ("c", 13, 77, "w"): 1, ("b", 13, 77, "r"): 0, ("b", 8, 16, "r"): 1,
        ("b", 8, 16, "rw"): 0, ("c", 136, 5, "rw"): 1,
    }  # fmt: skip
    assert {row: run(program, *row) for row in allowed} == allowed


def test_a_rule_for_all_devices_allows_all() -> None:
    assert run(bpf.device_program([devices.parse("a *:* rwm")]), "b", 8, 0, "rwm") == 1
    with pytest.raises(ValueError, match="invalid device cgroup format"):
        devices.parse("d 1:1 r")
