"""What this machine lets us do, each thing tried in a child: what is lost without it, and who can give it back how."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable

from kapelle.engines.native import cgroup_tree, fuse, rung, stacking, trying, userns_choice
from kapelle.light import NamedTuple
from kapelle.linux import mount as m
from kapelle.linux import namespaces as ns
from kapelle.linux import nft, process, route, seccomp
from kapelle.state.paths import Paths


class Finding(NamedTuple):
    name: str
    ok: bool
    seen: str  # what was found
    lost: str = ""  # what does not work without it
    admin: str = ""  # the command of the administrator that mends it
    user: str = ""  # what the user can do without one


class Report(NamedTuple):
    rung: str  # "" where containers can't be started
    findings: tuple[Finding, ...]


def examine(paths: Paths, wanted: str = "", overlay: str = "") -> Report:
    """Try everything. `wanted`: KAP_RUNG; `overlay`: KAP_OVERLAY. Leaves nothing behind."""
    told = trying.in_child(lambda: rung.enter(wanted))
    found = [
        _namespaces(told),
        _subordinate_ids(told),
        _overlay(paths, wanted, overlay),
        _filter(wanted),
        _firewall(wanted),
        _ports(),
        _limits(),
        _kernel(),
        _tun(),
    ]
    if told == "R1":
        found.insert(2, _own_namespaces(paths))
    return Report(told if told in rung.WORDS else "", tuple(found))


def admin_script(report: Report) -> str:
    """A shell script of all that an administrator can do once."""
    rows = [f"# {f.name}: {f.lost}\n{f.admin}\n" for f in report.findings if f.admin and not f.ok]
    return "#!/bin/sh\n# For Kapelle, to be run once as root.\nset -eu\n" + ("".join(rows) or "# nothing to do\n")


def _on_rung(wanted: str, call: Callable[[], None]) -> str:
    """ "" when `call` works on the best rung, in mount and network namespaces of its own; else the error's words."""

    def go() -> str:
        if not rung.enter(wanted):
            return "!no user namespace"
        ns.unshare(ns.CLONE_NEWNS | ns.CLONE_NEWNET)
        m.mount(None, "/", None, m.MS_REC | m.MS_SLAVE)
        call()
        return "ok"

    said = trying.in_child(go)
    return "" if said == "ok" else said.lstrip("!") or "the child died"


def _namespaces(told: str) -> Finding:
    name = "namespaces"
    if told == "R1":
        return Finding(name, True, "root")
    if told:
        return Finding(name, True, "user namespaces are allowed")
    cause = rung.cause()
    mend = {
        "user.max_user_namespaces = 0": "sysctl -w user.max_user_namespaces=15000",
        "kernel.unprivileged_userns_clone = 0": "sysctl -w kernel.unprivileged_userns_clone=1",
        "kernel.apparmor_restrict_unprivileged_userns = 1": (
            "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
        ),
    }.get(cause, "")
    if os.geteuid() == 0:
        return Finding(
            name, False, "CAP_SYS_ADMIN is missing", "containers",
            user="start the outer container with --privileged or --cap-add SYS_ADMIN",
        )  # fmt: skip
    seen = cause or rung.refusal(rung.Ids())
    return Finding(name, False, seen, "containers", mend, "run kap as root, or in a job that is root")


def _subordinate_ids(told: str) -> Finding:
    name = "subordinate ids"
    if told == "R1":
        return Finding(name, True, "not needed by root")
    user = _user()
    ids = rung.ids_of_user()
    if ids.helpers[0]:
        return Finding(name, True, f"{ids.uids[1].size} from {ids.uids[1].outside} on")
    lost = "separate users inside a container: one id has to do for all"
    helpers = all(rung.program(h) for h in ("newuidmap", "newgidmap"))
    commands = [] if helpers else ["apt-get install -y uidmap"]
    from kapelle.linux import idmap

    if not all(idmap.subordinate(f"/etc/{f}", (user, str(os.getuid())))[1] for f in ("subuid", "subgid")):
        first = _free_ids()
        span = f"{first}-{first + 65535}"
        commands.append(f"usermod --add-subuids {span} --add-subgids {span} {user}")
    seen = "no newuidmap" if not helpers else f"no range for {user} in /etc/subuid and /etc/subgid"
    return Finding(name, False, seen, lost, " && ".join(commands), "user: of a service, where its image allows it")


def _own_namespaces(paths: Paths) -> Finding:
    """`userns_mode: private`, for root only."""
    name = "own user namespaces"
    ids = userns_choice.available()
    refused = userns_choice.refusals([paths.data], set(), ids)
    if not refused:
        return Finding(name, True, f"userns_mode: private maps {ids.size} ids from {ids.uids} on")
    lost = "userns_mode: private"
    return Finding(
        name, False, refused[0][1], lost, user="KAP_HOME=FOLDER on a file system that can (ext4, xfs, btrfs)"
    )


def _free_ids() -> int:
    """The first id behind all ranges that are given."""
    last = 100000
    for path in ("/etc/subuid", "/etc/subgid"):
        try:
            with open(path) as f:
                for line in f:
                    _, first, count = [*line.strip().split(":"), "", "", ""][:3]
                    if first.isdigit() and count.isdigit():
                        last = max(last, int(first) + int(count))
        except OSError:
            continue
    return last


def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _overlay(paths: Paths, wanted: str, forced: str) -> Finding:
    place = paths.data
    while not os.path.isdir(place):
        place = os.path.dirname(place)

    def find() -> str:
        if not rung.enter(wanted):
            return "!no user namespace"
        return " ".join(stacking.find(paths))

    how, _, why = trying.in_child(find).partition(" ")
    if how not in (stacking.KERNEL, stacking.FUSE, stacking.COPY):
        seen = f"{place}: {how.lstrip('!')} {why}".rstrip()
        return Finding("storage", False, seen, "images and containers", user="KAP_HOME=FOLDER")
    if forced in (stacking.FUSE, stacking.COPY):
        lacking = fuse.missing() if forced == stacking.FUSE else ""
        seen = f"{place}, by KAP_OVERLAY={forced}; {why or 'overlay works'}"
        if lacking:
            return Finding("storage", False, f"{seen}; {lacking}", "containers' file systems", user="KAP_OVERLAY=copy")
        return Finding("storage", True, seen)
    if how == stacking.KERNEL:
        return Finding("storage", True, f"overlay on {place}")
    elsewhere = "KAP_HOME=FOLDER on a file system of another kind (ext4, xfs, tmpfs)"
    if how == stacking.FUSE:
        seen = f"fuse-overlayfs on {place}; {why}"
        return Finding("storage", False, seen, "speed: files are passed by a program", "modprobe overlay", elsewhere)
    mend = "chmod 666 /dev/fuse" if fuse.program() else "apt-get install -y fuse-overlayfs"
    lost = "time and space: each container has a copy of its image"
    return Finding("storage", False, f"copies on {place}; {why}", lost, f"modprobe overlay || {mend}", elsewhere)


def _filter(wanted: str) -> Finding:
    error = _on_rung(wanted, lambda: seccomp.load(seccomp.filter_for(frozenset())))
    return Finding("system-call filter", not error, error or "can be set", "containers" if error else "")


def _firewall(wanted: str) -> Finding:
    def rules() -> None:
        with nft.open_nft() as netlink, route.open_route() as links:
            links.request((route.link_up(1),))
            nft.batch(netlink, [nft.table("doctor"), nft.base_chain("doctor", "p", "nat", nft.PREROUTING, nft.DSTNAT)])

    error = _on_rung(wanted, rules)
    if not error:
        return Finding("networks", True, "interfaces and nf_tables rules can be made")
    return Finding(
        "networks", False, error, "walls between networks, and ways out of them",
        "modprobe -a nf_tables nft_chain_nat nft_masq nft_redir nft_fib_ipv4 veth bridge",
    )  # fmt: skip


def _ports() -> Finding:
    if os.geteuid() == 0:
        return Finding("published ports", True, "all")
    try:
        with open("/proc/sys/net/ipv4/ip_unprivileged_port_start") as f:
            first = int(f.read())
    except (OSError, ValueError):
        first = 1024
    if first <= 80:
        return Finding("published ports", True, f"from {first} on")
    return Finding(
        "published ports", False, f"from {first} on", f"ports below {first}",
        "sysctl -w net.ipv4.ip_unprivileged_port_start=80", "publish higher ones, or kap up --ports=auto",
    )  # fmt: skip


def _limits() -> Finding:
    seen = cgroup_tree.writable()
    if seen:
        return Finding("limits", True, ", ".join(seen))
    lost = "mem_limit, cpus, pids_limit and what else is set by control groups"
    user = f"systemd-run --user --scope -p Delegate=yes {os.path.basename('kap')} up" if _has_systemd() else ""
    admin = (
        "mkdir -p /etc/systemd/system/user@.service.d && printf '[Service]\\nDelegate=cpu cpuset io memory pids\\n' "
        "> /etc/systemd/system/user@.service.d/delegate.conf && systemctl daemon-reload"
        if _has_systemd()
        else ""
    )
    return Finding("limits", False, "no control group can be written", lost, admin, user)


def _has_systemd() -> bool:
    return os.path.isdir("/run/systemd/system")


def _kernel() -> Finding:
    ok = process.kernel() >= (5, 12)
    return Finding("kernel", ok, os.uname().release, "" if ok else "containers: 5.12 or newer is needed")


def _tun() -> Finding:
    try:
        os.close(os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC))
        return Finding("tun device", True, "there, and not needed")
    except OSError as e:
        return Finding("tun device", True, f"{(e.strerror or '').lower()}; not needed: Kapelle's own forwarder serves")
