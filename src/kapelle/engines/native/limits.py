"""Pure: a service's limits → files of control groups, v1 and v2 (cgroups(7), the kernel's admin-guide).

`of` is what container.json keeps. `settings` are the files to write, each with the compose key that it comes from, so
that what can't be written is told with its place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from kapelle.errors import Position
from kapelle.light import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from kapelle.engines.native.cdi import Node
    from kapelle.model.service import BlockIo, Service

Limits = dict[str, Any]
Rows = tuple[tuple[str, str], ...]
Numbers = Callable[[str], str]  # path of a block device → "major:minor"

DEFAULT_PERIOD = 100_000  # microseconds
_DEPLOYED = {
    "mem_limit": "deploy.resources.limits.memory",
    "cpus": "deploy.resources.limits.cpus",
    "pids_limit": "deploy.resources.limits.pids",
    "mem_reservation": "deploy.resources.reservations.memory",
}
_V2_NAMES = {"blkio": "io"}  # the others have the same name in v1 and v2


class Setting(NamedTuple):
    """Files to write for one key, in order. `a|b` is the first file that is there (values too, if they differ);
    no rows: there is no such file."""

    key: str  # "" = Docker's own default, of which nothing is said
    controller: str  # as v1 names it
    v1: Rows
    v2: Rows

    @property
    def controller_v2(self) -> str:
        return _V2_NAMES.get(self.controller, self.controller)


def of(service: Service, given: Sequence[Node] = ()) -> Limits:
    """The limits as container.json has them. `given`: nodes of devices by CDI name."""
    return {
        "memory": service.mem_limit,
        "memory_swap": service.memswap_limit,
        "memory_reservation": service.mem_reservation,
        "swappiness": service.mem_swappiness,
        "oom_kill_disable": service.oom_kill_disable,
        "cpus": service.cpus,
        "cpu_shares": service.cpu_shares,
        "cpu_quota": service.cpu_quota,
        "cpu_period": service.cpu_period,
        "cpu_rt_runtime": service.cpu_rt_runtime,
        "cpu_rt_period": service.cpu_rt_period,
        "cpuset": service.cpuset,
        "pids": service.pids_limit,
        "blkio": {k: [list(r) for r in v] if isinstance(v, tuple) else v for k, v in service.blkio._asdict().items()},
        "cgroup_parent": service.cgroup_parent,
        "privileged": service.privileged,
        "devices": [list(d) for d in service.devices if d[0].startswith("/")]
        + [[n.source, n.target, n.access, n.number] for n in given],
        "device_rules": list(service.device_cgroup_rules),
    }


def none() -> Limits:
    """Limits of a container that asks for none."""
    from kapelle.model.service import Service

    return of(Service(""))


def place(service: Service, key: str) -> Position | None:
    """Where the file says it: the key itself, or its twin under deploy.resources."""
    path = key
    while path:
        for name in (path, _DEPLOYED.get(path, "")):
            where = service.where.get(name) if name else None
            if where is not None:
                return where
        path = path.rpartition(".")[0] if "." in path else path.partition("[")[0] if "[" in path else ""
    return service.where.get("")


def settings(limits: Mapping[str, Any], number: Numbers) -> list[Setting]:
    """What is to be written for these limits, in the order to write it."""
    return [*_memory(limits), *_cpu(limits), *_others(limits), *_block_io(limits.get("blkio") or {}, number)]


def _memory(limits: Mapping[str, Any]) -> list[Setting]:
    memory, swap = limits.get("memory"), limits.get("memory_swap")
    rows = []
    if memory:
        text = str(memory)
        rows.append(
            Setting("mem_limit", "memory", (("memory.limit_in_bytes", text),), (("memory.max", text),))
        )  # fmt: skip
        total = swap or 2 * memory  # as much swap as memory, unless the file says otherwise
        v2 = "max" if total < 0 else str(max(0, total - memory))
        rows.append(
            Setting("memswap_limit" if swap else "", "memory", (("memory.memsw.limit_in_bytes", str(total)),),
                    (("memory.swap.max", v2),))
        )  # fmt: skip
    if limits.get("memory_reservation"):
        text = str(limits["memory_reservation"])
        rows.append(
            Setting("mem_reservation", "memory", (("memory.soft_limit_in_bytes", text),), (("memory.low", text),))
        )
    if limits.get("swappiness") is not None:
        rows.append(Setting("mem_swappiness", "memory", (("memory.swappiness", str(limits["swappiness"])),), ()))
    if limits.get("oom_kill_disable"):
        rows.append(Setting("oom_kill_disable", "memory", (("memory.oom_control", "1"),), ()))
    return rows


def _cpu(limits: Mapping[str, Any]) -> list[Setting]:
    rows = []
    cpus, quota, period = limits.get("cpus"), limits.get("cpu_quota"), limits.get("cpu_period")
    if cpus:
        key, quota, period = "cpus", round(cpus * DEFAULT_PERIOD), DEFAULT_PERIOD
    else:
        key = "cpu_quota" if quota else "cpu_period"
    if quota or period:
        v1 = ((("cpu.cfs_period_us", str(period)),) if period else ()) + (
            (("cpu.cfs_quota_us", str(quota)),) if quota else ()
        )
        most = str(quota) if quota and quota > 0 else "max"
        rows.append(Setting(key, "cpu", v1, (("cpu.max", f"{most} {period or DEFAULT_PERIOD}"),)))
    if limits.get("cpu_shares"):
        shares = max(2, min(262_144, limits["cpu_shares"]))
        weight = 1 + (shares - 2) * 9999 // 262_142
        rows.append(Setting("cpu_shares", "cpu", (("cpu.shares", str(shares)),), (("cpu.weight", str(weight)),)))
    for key, file in (("cpu_rt_period", "cpu.rt_period_us"), ("cpu_rt_runtime", "cpu.rt_runtime_us")):
        if limits.get(key):
            rows.append(Setting(key, "cpu", ((file, str(limits[key])),), ()))
    if limits.get("cpuset"):
        row = (("cpuset.cpus", limits["cpuset"]),)
        rows.append(Setting("cpuset", "cpuset", row, row))
    return rows


def _others(limits: Mapping[str, Any]) -> list[Setting]:
    pids = limits.get("pids") or 0
    if pids <= 0:
        return []  # 0 and -1: as many as there may be
    return [Setting("pids_limit", "pids", (("pids.max", str(pids)),), (("pids.max", str(pids)),))]


# BlockIo's field, v1 file, word of v2's io.max
_THROTTLES = (
    ("device_read_bps", "blkio.throttle.read_bps_device", "rbps"),
    ("device_write_bps", "blkio.throttle.write_bps_device", "wbps"),
    ("device_read_iops", "blkio.throttle.read_iops_device", "riops"),
    ("device_write_iops", "blkio.throttle.write_iops_device", "wiops"),
)


def _block_io(wanted: Mapping[str, Any], number: Numbers) -> list[Setting]:
    rows = []
    if wanted.get("weight"):
        rows.append(_weight("blkio_config.weight", "blkio.weight|blkio.bfq.weight", "", int(wanted["weight"])))
    for at, (path, weight) in enumerate(wanted.get("weight_device") or ()):
        files = "blkio.weight_device|blkio.bfq.weight_device"
        rows.append(_weight(f"blkio_config.weight_device[{at}]", files, f"{number(path)} ", int(weight)))
    for field, file, word in _THROTTLES:
        for at, (path, rate) in enumerate(wanted.get(field) or ()):
            device = number(path)
            rows.append(
                Setting(f"blkio_config.{field}[{at}]", "blkio", ((file, f"{device} {rate}"),),
                        (("io.max", f"{device} {word}={rate}"),))
            )  # fmt: skip
    return rows


def _weight(key: str, v1: str, device: str, weight: int) -> Setting:
    """BFQ's range is Docker's, 10 to 1000; that of io.weight goes to 10000."""
    scaled = 1 + (weight - 10) * 9999 // 990
    v2 = ("io.bfq.weight|io.weight", f"{device}{weight}|{device}{scaled}")
    return Setting(key, "blkio", ((v1, f"{device}{weight}"),), (v2,))


def block_devices(blkio: BlockIo) -> list[tuple[str, str]]:
    """(key, path) of each device that the file limits."""
    found: list[tuple[str, str]] = []
    for field in ("weight_device", *(row[0] for row in _THROTTLES)):
        rows: Sequence[tuple[str, int]] = getattr(blkio, field)
        found += [(f"blkio_config.{field}[{at}]", path) for at, (path, _) in enumerate(rows)]
    return found
