"""What is there of ours on this machine: what every test must leave as it found it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

OURS = b"kapelle.engines.native"


def wait_until(
    condition: Callable[[], object], seconds: float = 20, what: str | Callable[[], str] = "it did not come true in time"
) -> None:
    """Wait for a condition with a deadline. `what` is asked when it has passed."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what if isinstance(what, str) else what()
        time.sleep(0.02)


def processes() -> set[str]:
    """Keepers, supervisors and children that have not exec'd yet, as "pid command"."""
    found = set()
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            if os.stat(f"/proc/{entry}").st_uid != os.geteuid():
                continue  # another user's suite may run beside
            command = Path(f"/proc/{entry}/cmdline").read_bytes()
        except OSError:
            continue
        if OURS in command:
            found.add(f"process {entry} {command[:200].decode('utf-8', 'replace')}")
    return found


def links() -> set[str]:
    """Uplinks on the host."""
    if os.geteuid() != 0:
        return set()  # only root makes some, and its suite may run beside
    return {f"link {n}" for n in os.listdir("/sys/class/net") if n.startswith("kap-")}


def tables() -> set[str]:
    """Our nf_tables tables and rules on the host."""
    from kapelle.linux import nft

    try:
        with nft.open_nft() as netlink:
            names = {f"table {name}" for _, name in nft.tables(netlink) if name.startswith("kapelle")}
            return names | {
                f"rule {r.table} {r.chain} {r.comment}" for r in nft.rules(netlink) if "kapelle" in r.comment
            }
    except OSError:
        return set()


def mounts() -> set[str]:
    """Overlay mounts of containers that the host can see: there must be none."""
    with open("/proc/self/mountinfo") as f:
        return {f"mount {line.split()[4]}" for line in f if "/containers/" in line and "/merged" in line}


def all_of_ours() -> set[str]:
    return processes() | links() | tables() | mounts()
