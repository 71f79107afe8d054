"""`top`: processes of each container, read from /proc."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

from kapelle.cli import common
from kapelle.cli.flags import Args
from kapelle.light import TYPE_CHECKING
from kapelle.render import tables

if TYPE_CHECKING:
    from kapelle.cli.context import Context
    from kapelle.plan.observed import Container

NAME = "top"
HELP = "list the processes of each container"
ARGUMENTS = "[SERVICE...]"
FLAGS = ()
COLUMNS = ("SERVICE", "#", "UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD")


def run(context: Context, args: Args) -> int:
    found = context.reader().project_containers(context.project_name())
    common.check_services(context, args.rest, found)
    rows: list[tuple[str, ...]] = []
    for container in found:
        if container.pid and container.status == "running" and (not args.rest or container.service in args.rest):
            rows += _processes(container)
    context.stdout.write(tables.table(COLUMNS, rows))
    return 0


def _processes(container: Container) -> Iterator[tuple[str, ...]]:
    """Every process in the container's pid namespace, by the host's numbers."""
    try:
        space = os.stat(f"/proc/{container.pid}/ns/pid").st_ino
    except OSError:
        return
    for name in sorted((n for n in os.listdir("/proc") if n.isdigit()), key=int):
        try:
            if os.stat(f"/proc/{name}/ns/pid").st_ino == space:
                yield (container.service, str(container.number), *_line(name))
        except OSError:
            continue  # it ended, or is not ours to look at


def _line(pid: str) -> tuple[str, ...]:
    """The columns of ps -ef for one process (proc_pid_stat(5))."""
    with open(f"/proc/{pid}/stat") as f:
        text = f.read()
    command = text[text.index("(") + 1 : text.rindex(")")]
    fields = text[text.rindex(")") + 2 :].split()
    with open(f"/proc/{pid}/cmdline", "rb") as f:
        words = f.read().rstrip(b"\0").replace(b"\0", b" ").decode("utf-8", "replace")
    ticks = os.sysconf("SC_CLK_TCK")
    with open("/proc/uptime") as f:
        began = time.time() - float(f.read().split()[0]) + int(fields[19]) / ticks
    used = (int(fields[11]) + int(fields[12])) / ticks
    share = int(100 * used / max(1.0, time.time() - began))
    owner = str(os.stat(f"/proc/{pid}").st_uid)
    return (
        _user(int(owner)),
        pid,
        fields[1],
        str(share),
        time.strftime("%H:%M" if time.time() - began < 86400 else "%b%d", time.localtime(began)),
        _terminal(int(fields[4])),
        time.strftime("%H:%M:%S", time.gmtime(used)),
        words or f"[{command}]",
    )


def _user(uid: int) -> str:
    if uid == 0:
        return "root"
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _terminal(device: int) -> str:
    major, minor = os.major(device), os.minor(device)
    return f"pts/{minor}" if 136 <= major <= 143 else "?"
