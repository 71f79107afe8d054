"""The part of `kills.py` inside the processes: names the points that each comes by, and kills at the one asked for.

Copied into a copy of the package, which imports it first; the product itself knows nothing of it. A point is a call
that changes something outside of the process (a system call of Python's own, or a wrapper in `kapelle.linux`), named by
where it is made; it is killed just before that call, which is just after the one before.
"""

from __future__ import annotations

import _thread
import json
import mmap
import os
import signal
import sys
import zlib
from typing import Any

PLACE = os.path.dirname(os.path.abspath(__file__))  # the package's copy
CONTROL = os.path.dirname(PLACE)  # where kills.py writes what is wanted
OFF = "KILLS_OFF"  # set for commands that nobody wants to kill
FIRED = 8  # the first eight bytes of what is shared number the turn
SLOT, SLOTS = 256, 1 << 14
_WRAPPERS = ("/linux/", "/state/store.py", "/native/messages.py", "/native/loop.py", "/light.py")
_CALLS = frozenset(
    "write writev pwrite mkdir rmdir unlink remove rename replace link symlink chmod fchmod chown fchown mkfifo mknod "
    "truncate ftruncate fsync posix_fallocate dup2 fork posix_spawn execve kill waitpid waitid pipe2 memfd_create "
    "splice readv setsid setresuid setresgid setgroups _exit chdir utime setxattr bind listen connect send sendmsg "
    "recvmsg accept _accept close socketpair flock fcntl ioctl pidfd_send_signal set_wakeup_fd setns unshare "
    "open".split()
)
_WORKING = frozenset(  # functions of kapelle.linux that call into the kernel by ctypes
    "mount umount set_attributes open_tree move_mount fsopen fsconfig fsmount pivot_root setns unshare prctl "
    "close_range "
    "set_domain_name load drop_bounding set_caps apply enter_single map_tree mount_setattr set_ids clear_command_line "
    "add_key attach_tree clone_tree mount_overlay enter_root mount_kernel_trees mask make_read_only write_maps".split()
)
_VALUES = str, bytes, bytearray, list, set, dict, tuple
_ROLES = {
    ("keeper.py", "run"): "keeper", ("supervisor.py", "run"): "supervisor", ("launcher.py", "launch"): "launcher",
    ("launcher.py", "join"): "join", ("launch_program.py", "become_init"): "launcher",
}  # fmt: skip


class Hook:
    def __init__(self) -> None:
        self.role = "keeper" if sys.argv[:1] == ["-c"] else "command"
        self.seen: dict[tuple[str, str], int] = {}
        self.wanted: dict[str, Any] = {}
        self.turn = b""
        with open(f"{CONTROL}/shared", "r+b") as f:  # memory alone: a launcher closes what is open and changes its root
            self.shared = mmap.mmap(f.fileno(), 0)

    def __call__(self, frame: Any, event: str, arg: Any) -> None:
        if event == "call":
            code = frame.f_code
            path: str = code.co_filename
            if not path.startswith(PLACE):
                return
            if code.co_name in ("run", "launch", "join", "_become_init"):
                self.role = _ROLES.get((path.rpartition("/")[2], code.co_name), self.role)
            if "/linux/" not in path or code.co_name not in _WORKING:
                return
            self.point(code.co_name, frame.f_back)
        elif event == "c_call":
            name = arg.__name__
            if isinstance(getattr(arg, "__self__", None), _VALUES):
                return
            if name in _CALLS or (name == "read" and frame.f_code.co_filename.endswith(("streams.py", "intake.py"))):
                self.point(name, frame)

    def point(self, name: str, frame: Any) -> None:
        while frame is not None and not frame.f_code.co_filename.startswith(PLACE):
            frame = frame.f_back
        if frame is None:
            return
        rows = []
        while frame is not None:
            path = frame.f_code.co_filename
            if path.startswith(PLACE):
                rows.append(f"{path[len(PLACE) + 1 :]}:{frame.f_lineno}")
                if not any(part in path for part in _WRAPPERS) or len(rows) > 3:
                    break
            frame = frame.f_back
        self.reached(f"{name} {' < '.join(rows)}")

    def reached(self, place: str) -> None:
        turn = self.shared[:8]
        if turn != self.turn:
            self.turn, self.seen = turn, {}
            with open(f"{CONTROL}/wanted.json") as f:
                self.wanted = json.load(f)
        key = self.role, place
        self.seen[key] = count = self.seen.get(key, 0) + 1
        mode = self.wanted.get("mode")
        if mode == "record" and count == 1:
            self.note(f"{self.role}\t{place}".encode()[:SLOT])
        elif mode == "kill" and self.wanted["role"] == self.role and self.wanted["place"] == place:
            if count == self.wanted["count"]:
                self.kill(self.wanted["victims"])

    def note(self, text: bytes) -> None:
        """Write it into the slot that its hash gives: others do the same at the same time."""
        at = zlib.crc32(text) % SLOTS
        while True:
            place = (1 + at) * SLOT
            there = self.shared[place : place + SLOT].rstrip(b"\0")
            if there == text:
                return
            if not there:
                self.shared[place : place + len(text)] = text
                return
            at = (at + 1) % SLOTS

    def kill(self, victims: list[str]) -> None:
        if self.shared[FIRED]:
            return  # once is enough: whoever comes after shall mend it
        self.shared[FIRED] = 1
        for entry in filter(str.isdigit, os.listdir("/proc")) if victims else ():
            try:
                with open(f"/proc/{entry}/comm") as f:
                    name = f.read().strip()
                with open(f"/proc/{entry}/cmdline", "rb") as f:
                    ours = CONTROL.encode() in f.read()
            except OSError:
                continue
            if (
                ours
                and int(entry) != os.getpid()
                and (name in victims or ("command" in victims and "kap-" not in name))
            ):
                os.kill(int(entry), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)


def install() -> None:
    if os.environ.get(OFF):
        return
    hook = Hook()
    start = _thread.start_new_thread

    def start_with_hook(function: Any, args: Any, *more: Any) -> int:
        def begin(*given: Any, **named: Any) -> None:
            sys.setprofile(hook)
            function(*given, **named)

        return start(begin, args, *more)

    _thread.start_new_thread = start_with_hook
    threading = sys.modules.get("threading")
    if threading is not None:
        threading._start_new_thread = start_with_hook  # type: ignore[attr-defined]
    sys.setprofile(hook)
