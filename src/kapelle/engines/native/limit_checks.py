"""Limits that can be known not to work before anything is created: refused as dockerd does, with their place."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from kapelle.engines.native import devices, given_devices, limits
from kapelle.errors import EngineError
from kapelle.light import NamedTuple
from kapelle.linux import rlimits
from kapelle.model.service import Service

_LEAST_MEMORY = 6 << 20
Problem = tuple[str, str, str]  # compose key, what is wrong, hint


class Machine(NamedTuple):
    cpus: int
    online: frozenset[int]

    @staticmethod
    def here() -> Machine:
        try:
            with open("/sys/devices/system/cpu/online") as f:
                online = processors(f.read().strip())
        except (OSError, ValueError):
            online = frozenset(range(os.cpu_count() or 1))
        return Machine(len(online), online)


def processors(text: str) -> frozenset[int]:
    """The numbers of "0-2,4". Raises ValueError."""
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        low, high = int(first), int(last) if dash else int(first)
        if high < low or high > 1 << 16:
            raise ValueError(text)
        found.update(range(low, high + 1))
    return frozenset(found)


def mistakes(service: Service, machine: Machine) -> list[EngineError]:
    """Every limit of a service that can't be, with its place."""
    rows = [*_memory(service), *_cpu(service, machine), *_block_io(service), *_devices(service), *_others(service)]
    return [
        EngineError(
            f'service "{service.name}": {what}', where=limits.place(service, key), hint=hint, code="KAP321"
        )
        for key, what, hint in rows
    ]  # fmt: skip


def _memory(s: Service) -> Iterator[Problem]:
    memory, swap, reserved = s.mem_limit or 0, s.memswap_limit or 0, s.mem_reservation or 0
    if memory and memory < _LEAST_MEMORY:
        yield "mem_limit", "minimum memory limit allowed is 6MB", "raise the limit to 6m or more"
    if memory and 0 < swap < memory:
        yield (
            "memswap_limit", "minimum memoryswap limit should be larger than memory limit",
            "it is memory and swap together; -1 is no limit",
        )  # fmt: skip
    if swap > 0 and not memory:
        yield "memswap_limit", "a memoryswap limit needs a memory limit", "add mem_limit"
    if s.mem_swappiness is not None and not -1 <= s.mem_swappiness <= 100:
        yield "mem_swappiness", f"invalid value {s.mem_swappiness}, valid memory swappiness range is 0-100", ""
    if reserved and reserved < _LEAST_MEMORY:
        yield "mem_reservation", "minimum memory reservation allowed is 6MB", "raise the reservation to 6m or more"
    if memory and reserved > memory:
        yield "mem_reservation", "minimum memory limit can not be less than memory reservation limit", "lower it"


def _cpu(s: Service, machine: Machine) -> Iterator[Problem]:
    if s.cpus is not None and s.cpus and not 0.01 <= s.cpus <= machine.cpus:
        only = f"there are only {machine.cpus} CPUs available"
        yield "cpus", f"range of CPUs is from 0.01 to {machine.cpus}.00, as {only}", f"at most {machine.cpus}"
    if s.cpus and (s.cpu_period or s.cpu_quota):
        key = "cpu_period" if s.cpu_period else "cpu_quota"
        yield key, f"conflicting options: cpus and {key} cannot both be set", f"leave out {key}"
    if s.cpu_period and not 1000 <= s.cpu_period <= 1_000_000:
        yield "cpu_period", "CPU cfs period can not be less than 1ms (1000) or larger than 1s (1000000)", ""
    if s.cpu_quota and 0 < s.cpu_quota < 1000:
        yield "cpu_quota", "CPU cfs quota can not be less than 1ms (1000)", ""
    if s.cpu_shares is not None and s.cpu_shares < 0:
        yield "cpu_shares", f"invalid CPU shares ({s.cpu_shares}): value must be a positive integer", ""
    if s.cpu_rt_runtime and s.cpu_rt_period and s.cpu_rt_runtime > s.cpu_rt_period:
        yield "cpu_rt_runtime", "cpu real-time runtime cannot be higher than cpu real-time period", ""
    if s.cpuset:
        try:
            wanted = processors(s.cpuset)
        except ValueError:
            yield "cpuset", f"invalid value {s.cpuset} for cpuset cpus", "write it as 0-2,4"
            return
        if wanted - machine.online:
            have = _spelled(machine.online)
            yield "cpuset", f"requested CPUs are not available: requested {s.cpuset}, available: {have}", ""


def _spelled(numbers: frozenset[int]) -> str:
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and runs[-1][1] + 1 == number:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


def _block_io(s: Service) -> Iterator[Problem]:
    weights = [("blkio_config.weight", s.blkio.weight or 0)]
    weights += [(f"blkio_config.weight_device[{n}]", w) for n, (_, w) in enumerate(s.blkio.weight_device)]
    for key, weight in weights:
        if weight and not 10 <= weight <= 1000:
            yield key, "range of blkio weight is from 10 to 1000", ""
    for key, path in limits.block_devices(s.blkio):
        try:
            if not stat.S_ISBLK(os.stat(path).st_mode):
                yield key, f"{path} is not a block device", "lsblk -p lists those of this machine"
        except OSError as e:
            yield key, f"{path}: {(e.strerror or '').lower()}", "lsblk -p lists the block devices of this machine"


def _devices(s: Service) -> Iterator[Problem]:
    for at, text in enumerate(s.device_cgroup_rules):
        try:
            devices.parse(text)
        except ValueError as e:
            yield f"device_cgroup_rules[{at}]", str(e), "write it as 'c 13:* rw' (kind, numbers, access)"
    for at, (source, _, access) in enumerate(s.devices):
        key = f"devices[{at}]"
        if not (0 < len(access) <= 3 and set(access) <= set("rwm")):
            yield key, f"invalid device mode: {access}", "its letters are r, w and m"
        if given_devices.is_name(source):
            continue
        try:
            mode = os.stat(source).st_mode
        except OSError as e:
            what = (e.strerror or "").lower()
            yield key, f'error gathering device information while adding custom device "{source}": {what}', ""
            continue
        if not (stat.S_ISCHR(mode) or stat.S_ISBLK(mode) or stat.S_ISDIR(mode)):
            yield key, f"{source} is not a device node", "mount it under volumes:"


def _others(s: Service) -> Iterator[Problem]:
    if s.cgroup_parent and ".." in s.cgroup_parent.split("/"):
        yield "cgroup_parent", f"invalid cgroup parent: {s.cgroup_parent}", "name a group below"
    for limit in s.ulimits:
        if not rlimits.known(limit.name):
            yield f"ulimits.{limit.name}", f"invalid ulimit type: {limit.name}", "such as nofile, nproc or core"
        elif limit.hard >= 0 and (limit.soft > limit.hard or limit.soft < 0):
            what = f"ulimit soft limit must be less than or equal to hard limit: {limit.soft} > {limit.hard}"
            yield f"ulimits.{limit.name}", what, ""
