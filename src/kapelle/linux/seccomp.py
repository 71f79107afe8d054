"""The system-call filter (seccomp(2)) with the meaning of Docker's default profile, as a classic BPF program.

What is allowed is everything the kernel headers name but the calls below, which need a capability that a
container does not hold, or which Docker's profile leaves out. Refused calls give EPERM, unknown ones ENOSYS.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Iterable, Mapping

from kapelle.linux import libc

EPERM, ENOSYS = 1, 38
_RET_ALLOW = 0x7FFF0000
_RET_ERRNO = 0x00050000
_LD, _JEQ, _JGE, _JSET, _RET = 0x20, 0x15, 0x35, 0x45, 0x06
_NR, _ARCH, ARGS = 0, 4, 16
_AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32 = 0x40000000
_MODE_FILTER = 1
_CLONE_NAMESPACES = 0x7E020000  # CLONE_NEWNS, CGROUP, UTS, IPC, USER, PID, NET
_PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)
_SOCKET_FAMILIES_REFUSED = (38, 40)  # AF_ALG, AF_VSOCK

# Left out whatever the capabilities.
_NEVER = frozenset(
    [
        "_sysctl",
        "add_key",
        "afs_syscall",
        "create_module",
        "epoll_ctl_old",
        "epoll_wait_old",
        "get_kernel_syms",
        "getpmsg",
        "io_uring_enter",
        "io_uring_register",
        "io_uring_setup",
        "kexec_file_load",
        "kexec_load",
        "keyctl",
        "move_pages",
        "nfsservctl",
        "pkey_free_old",
        "putpmsg",
        "query_module",
        "request_key",
        "security",
        "sysfs",
        "tuxcall",
        "uselib",
        "userfaultfd",
        "ustat",
        "vserver",
    ]
)
# Allowed when the capability is held.
_NEEDS = {
    "CAP_SYS_ADMIN": (
        "bpf clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount mount_setattr move_mount "
        "open_tree open_tree_attr perf_event_open pivot_root quotactl quotactl_fd setdomainname sethostname setns "
        "swapoff swapon umount umount2 unshare"
    ),
    "CAP_DAC_READ_SEARCH": "open_by_handle_at",
    "CAP_SYS_BOOT": "reboot",
    "CAP_SYS_CHROOT": "chroot",
    "CAP_SYS_MODULE": "delete_module finit_module init_module",
    "CAP_SYS_PACCT": "acct",
    "CAP_SYS_PTRACE": "kcmp pidfd_getfd process_madvise",
    "CAP_SYS_RAWIO": "iopl ioperm",
    "CAP_SYS_TIME": "clock_settime settimeofday stime",
    "CAP_SYS_TTY_CONFIG": "vhangup",
    "CAP_SYS_NICE": "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
    "CAP_SYSLOG": "syslog",
}
# Answered with success and not done, where there is one id only: package managers change owners that are all the same.
FAKED = frozenset(
    "chown fchown fchownat lchown setfsgid setfsuid setgid setgroups setregid setresgid setresuid setreuid "
    "setuid".split()
)
_cache: dict[tuple[frozenset[str], str, bool], bytes] = {}


class Program:
    """Instructions with labels: jumps are resolved at the end. Offsets of conditional jumps hold 255 at most."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, int, str, str]] = []  # code, k, label if true, label if false
        self.labels: dict[str, int] = {}

    def add(self, code: int, k: int, true: str = "", false: str = "") -> None:
        self.rows.append((code, k, true, false))

    def label(self, name: str) -> None:
        self.labels[name] = len(self.rows)

    def assemble(self) -> bytes:
        out = bytearray()
        for at, (code, k, true, false) in enumerate(self.rows):
            jumps = [self.labels[name] - at - 1 if name else 0 for name in (true, false)]
            if max(jumps) > 255:
                raise ValueError("jump too far")
            out += struct.pack("=HBBI", code, jumps[0], jumps[1], k)
        return bytes(out)


Look = Callable[[Program, str], None]  # adds a verdict that depends on arguments; the text makes its labels its own


def numbers_of(arch: str) -> dict[str, int]:
    """System call names to numbers for x86_64 or aarch64."""
    if arch == "aarch64":
        from kapelle.linux import syscalls_aarch64

        return syscalls_aarch64.NUMBERS
    from kapelle.linux import syscalls_x86_64

    return syscalls_x86_64.NUMBERS


def allowed_names(caps: frozenset[str], arch: str = libc.MACHINE) -> frozenset[str]:
    """The calls that pass; those of `_LOOKS` only with certain arguments."""
    refused = set(_NEVER)
    for cap, names in _NEEDS.items():
        if cap not in caps:
            refused.update(names.split())
    return frozenset(numbers_of(arch)) - refused


def filter_for(caps: frozenset[str], arch: str = libc.MACHINE, *, faking: bool = False) -> bytes:
    """The program for a container with these capabilities: an array of struct sock_filter. `faking`: those of FAKED."""
    key = caps, arch, faking
    if key not in _cache:
        numbers = numbers_of(arch)
        allowed = {numbers[name] for name in allowed_names(caps, arch)}
        arguments = {} if "CAP_SYS_ADMIN" in caps else {numbers["clone"]: "clone"}
        arguments |= {numbers["personality"]: "personality", numbers["socket"]: "socket"}
        refused = {n: ENOSYS if name == "clone3" else EPERM for name, n in numbers.items() if n not in allowed}
        verdicts: dict[int, str] = dict.fromkeys(allowed, "allow")
        verdicts |= {n: f"errno{e}" for n, e in refused.items()}
        if faking:
            verdicts |= {numbers[name]: "errno0" for name in FAKED if name in numbers}
        _cache[key] = build(arch, verdicts | arguments, f"errno{ENOSYS}", _LOOKS)
    return _cache[key]


def build(arch: str, verdicts: Mapping[int, str], otherwise: str, looks: Mapping[str, Look]) -> bytes:
    """A program of a verdict per number: "allow", "errnoN", "returnN", or the name of one that looks further."""
    program = Program()
    program.add(_LD, _ARCH)
    program.add(_JEQ, _AUDIT[arch], "native", "foreign")
    program.label("foreign")
    program.add(_RET, _RET_ERRNO | ENOSYS)  # 32-bit calls: there is no such call here
    program.label("native")
    program.add(_LD, _NR)
    if arch == "x86_64":
        program.add(_JGE, _X32, "foreign2", "known")
        program.label("foreign2")
        program.add(_RET, _RET_ERRNO | ENOSYS)
        program.label("known")
    _search(program, _ranges(verdicts, otherwise), looks)
    return program.assemble()


def _ranges(verdicts: Mapping[int, str], otherwise: str) -> list[tuple[int, str]]:
    """(first number, verdict) of each run of equal verdicts, in order, covering all numbers."""
    rows: list[tuple[int, str]] = []
    for number in range(max(verdicts) + 2):
        verdict = verdicts.get(number, otherwise)
        if not rows or rows[-1][1] != verdict:
            rows.append((number, verdict))
    return rows


def _search(program: Program, rows: list[tuple[int, str]], looks: Mapping[str, Look]) -> None:
    """A binary search by jumps; each leaf holds its verdict, so that no jump is long."""
    if len(rows) == 1:
        _verdict(program, rows[0][1], looks)
        return
    middle = len(rows) // 2
    here = len(program.rows)
    program.add(_JGE, rows[middle][0], f"r{here}", f"l{here}")
    program.label(f"l{here}")
    size = Program()
    _search(size, rows[:middle], looks)
    if len(size.rows) > 200:  # too far for a conditional jump: go by an unconditional one
        program.rows.pop()
        program.add(_JGE, rows[middle][0], f"far{here}", f"near{here}")
        program.label(f"far{here}")
        program.add(0x05, len(size.rows))
        program.label(f"near{here}")
    _search(program, rows[:middle], looks)
    program.label(f"r{here}")
    _search(program, rows[middle:], looks)


def _verdict(program: Program, verdict: str, looks: Mapping[str, Look]) -> None:
    if verdict == "allow":
        program.add(_RET, _RET_ALLOW)
    elif verdict.startswith("errno"):
        program.add(_RET, _RET_ERRNO | int(verdict[5:]))
    elif verdict.startswith("return"):
        program.add(_RET, int(verdict[6:]))
    else:
        looks[verdict](program, f"{verdict}{len(program.rows)}")


def _look_clone(program: Program, here: str) -> None:
    program.add(_LD, ARGS)
    program.add(_JSET, _CLONE_NAMESPACES, f"{here}no", f"{here}yes")
    program.label(f"{here}no")
    program.add(_RET, _RET_ERRNO | EPERM)
    program.label(f"{here}yes")
    program.add(_RET, _RET_ALLOW)


def _look_personality(program: Program, here: str) -> None:
    _look_values(program, here, _PERSONALITIES, _RET_ALLOW, _RET_ERRNO | EPERM)


def _look_socket(program: Program, here: str) -> None:
    _look_values(program, here, _SOCKET_FAMILIES_REFUSED, _RET_ERRNO | EPERM, _RET_ALLOW)


def _look_values(program: Program, here: str, values: Iterable[int], found: int, other: int) -> None:
    program.add(_LD, ARGS)
    for number, value in enumerate(values):
        program.add(_JEQ, value, f"{here}found", f"{here}{number}")
        program.label(f"{here}{number}")
    program.add(_RET, other)
    program.label(f"{here}found")
    program.add(_RET, found)


_LOOKS: dict[str, Look] = {"clone": _look_clone, "personality": _look_personality, "socket": _look_socket}


class _Fprog(ctypes.Structure):
    _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


def load(program: bytes) -> None:
    """Put the filter on this process and all it starts. Needs CAP_SYS_ADMIN or no_new_privs."""
    fprog = _Fprog(len(program) // 8, program)
    result = libc.lib.syscall(
        ctypes.c_long(libc.SYS_seccomp), ctypes.c_ulong(_MODE_FILTER), ctypes.c_ulong(0), ctypes.byref(fprog)
    )
    if result < 0:
        libc.raise_errno("seccomp")
