"""The C library, and how its failures become OSError. One place loads it; every other wrapper imports this.

It is loaded when first called: commands that only look need none of it, and ctypes takes 2 ms.
"""

from __future__ import annotations

import os
from struct import pack

TYPE_CHECKING = False  # typing takes longer to load than this module
if TYPE_CHECKING:
    import ctypes

    lib: ctypes.CDLL


def __getattr__(name: str) -> ctypes.CDLL:
    if name != "lib":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _load()


def _load() -> ctypes.CDLL:
    global lib
    import ctypes

    lib = ctypes.CDLL(None, use_errno=True)  # errno is kept per call
    lib.syscall.restype = ctypes.c_long
    return lib


MACHINE = os.uname().machine
_ARM = MACHINE == "aarch64"

# System calls the C library may have no function for (syscalls(2)); numbers above 423 are the same everywhere.
SYS_pivot_root = 41 if _ARM else 155
SYS_seccomp = 277 if _ARM else 317
SYS_memfd_create = 279 if _ARM else 319
SYS_move_mount = 429
SYS_fsopen = 430
SYS_fsconfig = 431
SYS_fsmount = 432
SYS_open_tree = 428
SYS_pidfd_open = 434
SYS_close_range = 436
SYS_openat2 = 437
SYS_mount_setattr = 442
SYS_keyctl = 219 if _ARM else 250
SYS_bpf = 280 if _ARM else 321


def raise_errno(call: str, subject: str = "") -> None:
    """Raise OSError for the failure of `call`, naming what it was about."""
    from ctypes import get_errno

    number = get_errno()
    raise OSError(number, f"{call}: {os.strerror(number)}", subject or None)


def syscall(number: int, *args: int | bytes | None, call: str = "syscall", subject: str = "") -> int:
    """syscall(2). Integers are passed at full width; bytes as pointers; None as NULL."""
    from ctypes import c_char_p, c_long

    converted = [c_char_p(a) if isinstance(a, bytes) or a is None else c_long(a) for a in args]
    result: int = (globals().get("lib") or _load()).syscall(c_long(number), *converted)
    if result < 0:
        raise_errno(call, subject)
    return result


_RESOLVE_NO_MAGICLINKS, _RESOLVE_IN_ROOT = 0x02, 0x10


def open_in_root(root: int, path: str, flags: int) -> int:
    """openat2(2) with RESOLVE_IN_ROOT: `root` is / for every link and every "..". Linux 5.6."""
    how = pack("=QQQ", flags, 0, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS)  # struct open_how
    return syscall(SYS_openat2, root, path.encode(), how, len(how), call="openat2", subject=path)
