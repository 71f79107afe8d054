"""Runs inside a container (python -I -S): tries every row of attempts.py and prints JSON, name → what came of it.

A try returns "" when it was refused, else words that say what it got. It changes nothing that outlives the container
even where it succeeds: what is written is what is there already.
"""

from __future__ import annotations

import ctypes
import errno
import glob
import json
import os
import resource
import signal
import socket
import stat
import struct
import sys
import tempfile
import threading
from collections.abc import Callable

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from attempts import ATTEMPTS, CAPABILITIES, MASKED, REFUSED

libc = ctypes.CDLL(None, use_errno=True)
NUMBERS: dict[str, int] = {}
GIVEN: dict[str, str] = {}  # what the test knows of the world outside
WALLS = (errno.EPERM, errno.EACCES, errno.EROFS, errno.ENOSYS)


def call(name: str | int, *args: object) -> int:
    """0 or more where the call went through, else -errno."""
    number = NUMBERS.get(name, -1) if isinstance(name, str) else name
    if number < 0:
        return -errno.ENOSYS
    words = [a if not isinstance(a, int) else ctypes.c_long(a) for a in args]
    words += [ctypes.c_long(0)] * (6 - len(words))
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *words)
    return -ctypes.get_errno() if result == -1 else int(result)


def got(result: int, what: str = "") -> str:
    """ "" when a wall answered."""
    if -result in WALLS:
        return ""
    return f"{what} {errno.errorcode.get(-result, result) if result < 0 else 'went through'}".strip()


def any_of(*found: str) -> str:
    return "; ".join(filter(None, found))


def opened(path: str, flags: int = os.O_WRONLY) -> str:
    """Opens for writing; what is not there is no way out."""
    try:
        os.close(os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK))
    except OSError:
        return ""
    return f"{path} can be opened"


def mounted(kind: bytes, target: bytes = b"/mnt", data: bytes | int = 0, flags: int = 0) -> str:
    return got(call("mount", kind, target, kind, flags, data), f"mount {kind.decode()}")


def mount_tmpfs() -> str:
    return mounted(b"tmpfs")


def mount_proc() -> str:
    return mounted(b"proc")


def mount_sysfs() -> str:
    return mounted(b"sysfs")


def mount_by_new_calls() -> str:
    return any_of(got(call("fsopen", b"tmpfs", 0)), got(call("fsmount", -1, 0, 0)), got(call("fspick", -100, b"/", 0)))


def bind_mount() -> str:
    return got(call("mount", b"/bin", b"/mnt", 0, 4096, 0))


def remount_root() -> str:
    return got(call("mount", 0, b"/", 0, 32 | 4096, 0))


def remount_read_only_bind() -> str:
    return got(call("mount", 0, b"/ro", 0, 32 | 4096, 0))


def set_attributes_of_bind() -> str:
    return got(call("mount_setattr", -100, b"/ro", 0, struct.pack("QQQQ", 0, 1, 0, 0), 32))


def write_read_only_bind() -> str:
    return any_of(opened("/ro/new", os.O_CREAT | os.O_WRONLY), opened("/ro/there"))


def unmount_masks() -> str:
    places = [*MASKED, "/proc/sys", "/sys", "/ro", "/etc/hosts"]
    return any_of(*(got(call("umount2", p.encode(), f), p) for p in places for f in (0, 2) if os.path.exists(p)))


def clone_tree() -> str:
    return got(call("open_tree", -100, b"/", 1))


def pivot_root() -> str:
    return got(call("pivot_root", b"/", b"/"))


def chroot_and_climb() -> str:
    """The classic: a chroot below the working directory, then up by .. as far as it goes."""
    inside = os.stat("/")
    if os.fork() == 0:
        jail = tempfile.mkdtemp()
        here = os.open("/", os.O_RDONLY)
        try:
            os.chroot(jail)
        except OSError:
            os._exit(0)
        os.fchdir(here)
        for _ in range(64):
            os.chdir("..")
        os.chroot(".")
        now = os.stat("/")
        os._exit(0 if (now.st_dev, now.st_ino) == (inside.st_dev, inside.st_ino) else 1)
    return "another root" if os.wait()[1] else ""


def open_by_handle() -> str:
    handle = ctypes.create_string_buffer(struct.pack("Ii", 8, 1) + struct.pack("II", 2, 0))
    return any_of(
        *(got(call("open_by_handle_at", fd, handle, 0)) for fd in (os.open(p, os.O_RDONLY) for p in ("/", "/ro")))
    )


def host_root_by_proc() -> str:
    """The canary lies on the host only."""
    found = ""
    for pid in [p for p in os.listdir("/proc") if p.isdigit()]:
        for link in ("root", "cwd", "fd/0", "fd/1", "fd/2", "fd/3"):
            for up in ("", "/..", "/../../../../../../../../../.."):
                if os.path.exists(f"/proc/{pid}/{link}{up}{GIVEN['canary']}"):
                    found = f"by /proc/{pid}/{link}{up}"
    return found


def core_pattern() -> str:
    return opened("/proc/sys/kernel/core_pattern")


def kernel_settings() -> str:
    places = [f"{d}/{n}" for d in ("/proc/sys/kernel", "/proc/sys/vm", "/proc/sys/fs") for n in os.listdir(d)]
    return any_of(*(opened(p) for p in places if os.path.isfile(p)))


def own_settings() -> str:
    return any_of(
        opened("/proc/sys/net/ipv4/ip_forward"),
        opened("/proc/sys/net/ipv4/conf/all/route_localnet"),
        opened("/proc/sys/net/core/somaxconn"),
    )


def binfmt_misc() -> str:
    return any_of(opened("/proc/sys/fs/binfmt_misc/register"), got(call("mount", b"b", b"/mnt", b"binfmt_misc", 0, 0)))


def sysrq_trigger() -> str:
    return opened("/proc/sysrq-trigger")


def uevent_helper() -> str:
    return any_of(opened("/sys/kernel/uevent_helper"), opened("/sys/class/mem/null/uevent"))


def sys_kernel() -> str:
    found = []
    for top in ("/sys/kernel", "/sys/module", "/sys/power", "/sys/fs", "/sys/block", "/sys/class/net"):
        for folder, _, names in os.walk(top):
            found += [opened(f"{folder}/{name}") for name in names]
            if folder.count("/") > 4:
                break
    return any_of(*found)[:300]


def security_folder() -> str:
    places = ("/sys/kernel/security", "/sys/kernel/debug", "/sys/kernel/tracing", "/sys/fs/bpf", "/sys/fs/selinux")
    return any_of(
        *(opened(f"{p}/new", os.O_CREAT | os.O_WRONLY) for p in places),
        opened("/sys/kernel/tracing/trace"),
        opened("/sys/kernel/debug/sched/features"),
    )


def masked_paths() -> str:
    found = ""
    for path in MASKED:
        try:
            seen = os.listdir(path) if os.path.isdir(path) else open(path, "rb").read(64)
        except OSError:
            continue
        if seen:
            found += f"{path} shows {seen!r:.40}; "
        if os.path.isdir(path):
            found += opened(f"{path}/new", os.O_CREAT | os.O_WRONLY)
    for path in glob.glob("/sys/devices/system/cpu/cpu*/thermal_throttle"):
        if os.listdir(path):
            found += f"{path} is shown; "
    return found


def read_only_paths() -> str:
    found = []
    for top in ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sysrq-trigger"):
        for folder, _, names in os.walk(top):
            found += [opened(f"{folder}/{name}") for name in names]
    return any_of(*found)


def kernel_log() -> str:
    space = ctypes.create_string_buffer(4096)
    return any_of(
        got(call("syslog", 3, space, 4096)), opened("/dev/kmsg", os.O_RDONLY), opened("/proc/kmsg", os.O_RDONLY)
    )


def chmod_host_null() -> str:
    """The test looks at the host's node afterwards; where we are refused there is nothing to see."""
    inside = os.stat("/dev/null")
    for fd in (0, 1, 2):
        told = os.fstat(fd)
        if stat.S_ISCHR(told.st_mode) and (told.st_dev, told.st_ino) != (inside.st_dev, inside.st_ino):
            try:
                os.fchmod(fd, stat.S_IMODE(told.st_mode))
            except OSError:
                continue
            return f"descriptor {fd} is a node of the host's"
    return ""


def mount_cgroup_v1() -> str:
    return any_of(
        *(got(call("mount", b"c", b"/mnt", b"cgroup", 0, o), o.decode()) for o in (b"rdma", b"memory", b"none,name=x")),
        mounted(b"cgroup2"),
    )


def _groups(name: str) -> list[str]:
    return [p for deep in ("", "*/", "*/*/") for p in glob.glob(f"/sys/fs/cgroup/{deep}{name}")]


def release_agent() -> str:
    return any_of(*(opened(p) for n in ("release_agent", "notify_on_release") for p in _groups(n)))


def own_limits() -> str:
    names = ("memory.limit_in_bytes", "memory.max", "pids.max", "cpu.max", "cpu.cfs_quota_us", "devices.allow")
    return any_of(*(opened(p) for n in names for p in _groups(n)))


def leave_group() -> str:
    found = [opened(p) for n in ("cgroup.procs", "tasks") for p in _groups(n)]
    for folder in ("/sys/fs/cgroup", *glob.glob("/sys/fs/cgroup/*")):
        try:
            os.mkdir(f"{folder}/below")
            os.rmdir(f"{folder}/below")
            found.append(f"made {folder}/below")
        except OSError:
            pass
    return any_of(*found)


def see_other_groups() -> str:
    rows = [row.rstrip("\n").split(":", 2)[2] for row in open("/proc/self/cgroup")]
    return any_of(*(row for row in rows if row != "/"))


def _node(kind: int, major: int, minor: int, how: int = os.O_RDONLY) -> str:
    """Made and opened in every place that may have device nodes; without the hardware (ENXIO) a wall says nothing."""
    found = ""
    for folder in ("/", "/dev", "/tmp", "/dev/shm", "/rw"):
        path = f"{folder}/node-{major}-{minor}"
        try:
            os.mknod(path, kind | 0o600, os.makedev(major, minor))
        except OSError:
            continue
        try:
            os.close(os.open(path, how | os.O_NONBLOCK))
            found = f"{path} can be opened"
        except OSError as e:
            if e.errno not in (*WALLS, errno.ENXIO, errno.ENODEV):
                found = f"{path}: {e.strerror}"
        finally:
            os.unlink(path)
    return found


def block_device() -> str:
    found = []
    for row in open("/proc/partitions").read().splitlines()[2:]:
        major, minor = row.split()[:2]
        found += [_node(stat.S_IFBLK, int(major), int(minor), how) for how in (os.O_RDONLY, os.O_RDWR)]
    return any_of(*found)


def memory_device() -> str:
    return any_of(
        *(_node(stat.S_IFCHR, 1, minor, how) for minor in (1, 2, 4, 11) for how in (os.O_RDONLY, os.O_WRONLY))
    )


def fuse_device() -> str:
    return any_of(*(_node(stat.S_IFCHR, *number, os.O_RDWR) for number in ((10, 229), (10, 232), (10, 237), (10, 203))))


def _sets() -> dict[str, int]:
    rows = dict(row.split(":\t", 1) for row in open("/proc/self/status").read().splitlines() if ":\t" in row)
    return {key: int(rows[key], 16) for key in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}


def capability_sets() -> str:
    have = _sets()
    wanted = {"CapInh": 0, "CapPrm": CAPABILITIES, "CapEff": CAPABILITIES, "CapBnd": CAPABILITIES, "CapAmb": 0}
    if os.getuid():
        wanted |= {"CapPrm": 0, "CapEff": 0}
    return any_of(*(f"{k} is {have[k]:x}" for k, bits in wanted.items() if have[k] != bits))


def capabilities_by_exec() -> str:
    """A program with set-uid and with every file capability is run as another user, which starts without any."""
    with open("/bin/busybox", "rb") as f:
        program = f.read()
    found = ""
    for mark, mode in (("suid", 0o4755), ("caps", 0o755)):
        path = f"/rw/{mark}"
        with open(path, "wb") as f:
            f.write(program)
        os.chmod(path, mode)
        if mark == "caps":
            try:
                os.setxattr(path, "security.capability", struct.pack("<IIIII", 0x02000001, 2**32 - 1, 0, 2**32 - 1, 0))
            except OSError:
                continue
        reading, writing = os.pipe()
        if os.fork() == 0:
            try:
                os.setresuid(1, 1, 1)
            except OSError:
                pass
            os.dup2(writing, 1)
            try:
                os.execv(path, ["cat", "/proc/self/status"])
            except OSError:
                os._exit(1)
        os.close(writing)
        told = os.fdopen(reading).read()
        os.wait()
        for row in told.splitlines():
            if row.startswith("Cap") and int(row.split()[1], 16) & ~CAPABILITIES:
                found += f"{mark}: {row}; "
    return found


def raise_capabilities() -> str:
    found = ""
    for bit in (21, 12, 16, 17, 19, 2):
        held = _sets()["CapPrm"] | 1 << bit
        data = struct.pack("=IIIIII", held & 0xFFFFFFFF, held & 0xFFFFFFFF, held & 0xFFFFFFFF, 0, 0, 0)
        found += got(call("capset", struct.pack("=II", 0x20080522, 0), data), f"capability {bit}")
    return found


def ambient_capabilities() -> str:
    return any_of(*(got(call("prctl", 47, 2, bit, 0, 0), f"capability {bit}") for bit in (21, 12, 19, 2)))


def new_user_namespace() -> str:
    return any_of(got(call("unshare", 0x10000000), "unshare"), clone_flags())


def new_namespaces() -> str:
    kinds = (0x20000, 0x40000000, 0x20000000, 0x08000000, 0x04000000, 0x02000000, 0x80)
    return any_of(*(got(call("unshare", flag), f"unshare {flag:#x}") for flag in kinds))


def enter_namespaces() -> str:
    return any_of(
        *(
            got(call("setns", os.open(f"/proc/1/ns/{n}", os.O_RDONLY), 0), n)
            for n in ("mnt", "net", "uts", "ipc", "user")
            if os.access(f"/proc/1/ns/{n}", os.R_OK)
        )
    )


def clone3_namespaces() -> str:
    args = ctypes.create_string_buffer(struct.pack("8Q", 0x10000000, 0, 0, 0, signal.SIGCHLD, 0, 0, 0))
    result = call("clone3", args, 64)
    if result == 0:
        os._exit(0)
    return got(result)


def raise_limits() -> str:
    found = ""
    for kind in (resource.RLIMIT_NOFILE, resource.RLIMIT_CORE, resource.RLIMIT_NPROC):
        _, hard = resource.getrlimit(kind)
        if hard == resource.RLIM_INFINITY:
            continue
        try:
            resource.setrlimit(kind, (hard, hard + 1))
            found += f"limit {kind} was raised; "
        except (OSError, ValueError):
            pass
    return found


def nice() -> str:
    try:
        os.setpriority(os.PRIO_PROCESS, 0, -5)
    except OSError:
        return ""
    return "a higher priority"


def host_name() -> str:
    return any_of(got(call("sethostname", b"x", 1)), got(call("setdomainname", b"x", 1)))


def refused_calls() -> str:
    """In a child each: a call that comes through could end us. What is no wall is the kernel's answer to nonsense."""
    found = ""
    for name in REFUSED:
        if name not in NUMBERS:
            continue
        result = _in_child(lambda name=name: call(name, -1, -1, -1, -1, -1))
        if -result not in WALLS:
            found += f"{name}: {errno.errorcode.get(-result, result)}; "
    return found


def _in_child(body: Callable[[], int]) -> int:
    reading, writing = os.pipe()
    if os.fork() == 0:
        result = body()
        os.write(writing, str(result).encode())
        os._exit(0)
    os.close(writing)
    told = os.read(reading, 64)
    os.close(reading)
    os.wait()
    return int(told or 0)


def unknown_calls() -> str:
    return any_of(*(f"{n}: {r}" for n in (400, 470, 511, 600, 1 << 20) if (r := call(n)) != -errno.ENOSYS))


def other_architecture() -> str:
    if os.uname().machine != "x86_64":
        return ""
    return any_of(
        *(
            f"{n:#x}: {r}"
            for n in (0x40000000 + 165, 0x40000000 + 272, 0x40000000 + 39)
            if (r := call(n)) != -errno.ENOSYS
        ),
        _by_int80(),
    )


def _by_int80() -> str:
    """getpid by its 32-bit door: mov eax,20; int 0x80; ret."""
    import mmap

    code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(b"\xb8\x14\x00\x00\x00\xcd\x80\xc3")
    address = ctypes.addressof(ctypes.c_char.from_buffer(code))
    result = _in_child(ctypes.CFUNCTYPE(ctypes.c_int)(address))
    return "" if result in (-errno.ENOSYS, 0) else f"int 0x80: {result}"


def clone_flags() -> str:
    found = ""
    for flag in (0x10000000, 0x20000, 0x40000000, 0x20000000, 0x08000000, 0x04000000, 0x02000000):
        result = call("clone", flag | signal.SIGCHLD, 0, 0, 0, 0)
        if result == 0:
            os._exit(0)
        found += got(result, f"clone {flag:#x}")
    return found


def personality() -> str:
    return any_of(got(call("personality", 0x0040000)), got(call("personality", 0x0400000)))


def odd_sockets() -> str:
    return any_of(got(call("socket", 38, 5, 0), "AF_ALG"), got(call("socket", 40, 1, 0), "AF_VSOCK"))


def keyrings() -> str:
    return any_of(
        got(call("keyctl", 0, -3, 0)),
        got(call("add_key", b"user", b"x", b"y", 1, -3)),
        got(call("request_key", b"user", b"x", 0, -3)),
    )


def filter_stays() -> str:
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.dup2(writing, 1)
        os.execv("/bin/busybox", ["cat", "/proc/self/status"])
    os.close(writing)
    told = os.fdopen(reading).read()
    os.wait()
    return "" if "Seccomp:\t2" in told else told


def io_uring() -> str:
    return got(call("io_uring_setup", 8, ctypes.create_string_buffer(120)))


def see_outside() -> str:
    mine = {p for p in os.listdir("/proc") if p.isdigit()}
    outside = GIVEN["pid"]
    names = {p: open(f"/proc/{p}/cmdline", "rb").read() for p in mine if os.path.exists(f"/proc/{p}/cmdline")}
    own = (b"init", b"sleep 1000", b"sh -c")
    told = {p: n.rstrip(b"\0").replace(b"\0", b" ") for p, n in names.items()}
    strange = [f"{p} {n!r}" for p, n in told.items() if n and b"probe" not in n and not n.startswith(own)]
    if os.path.exists(f"/proc/{outside}") and outside not in mine:
        strange.append(outside)
    return any_of(*strange)


def kill_outside() -> str:
    """Signal 0 to all numbers: only those of this container may answer."""
    mine = {int(p) for p in os.listdir("/proc") if p.isdigit()}
    mine |= {int(t) for p in mine for t in _threads(p)}
    found = []
    for pid in range(1, 70000):
        try:
            os.kill(pid, 0)
        except OSError:
            continue
        if pid not in mine:
            found.append(str(pid))
    return any_of(*found[:10])


def _threads(pid: int) -> list[str]:
    try:
        return os.listdir(f"/proc/{pid}/task")
    except OSError:
        return []


def trace_outside() -> str:
    found = []
    pid = int(GIVEN["pid"])
    if not os.path.exists(f"/proc/{pid}"):
        space = ctypes.create_string_buffer(64)
        local = ctypes.create_string_buffer(struct.pack("QQ", ctypes.addressof(space), 8))
        for name, result in (
            ("ptrace", call("ptrace", 16, pid, 0, 0)),
            ("process_vm_readv", call("process_vm_readv", pid, local, 1, local, 1, 0)),
        ):
            if -result not in (*WALLS, errno.ESRCH):
                found.append(f"{name}: {result}")
    return any_of(*found)


def parent_of_first() -> str:
    with open("/proc/1/stat") as f:
        return "" if f.read().rpartition(")")[2].split()[1] == "0" else "it has one"


def look_into_init() -> str:
    with open("/proc/1/comm") as f:
        if f.read() != "init\n":
            return ""
    return any_of(
        opened("/proc/1/mem", os.O_RDONLY),
        opened("/proc/1/environ", os.O_RDONLY),
        opened("/proc/1/exe", os.O_RDONLY),
        opened("/proc/1/maps", os.O_RDONLY),
    )


def leaked_descriptors() -> str:
    """Those at our own start are in GIVEN["fds"]; those of pid 1 are looked at too."""
    found = [fd for fd in GIVEN["fds"].split() if fd not in ("0", "1", "2")]
    try:
        found += [f"1: {fd}" for fd in os.listdir("/proc/1/fd") if fd not in ("0", "1", "2") and os.getpid() != 1]
    except PermissionError:
        pass
    return any_of(*found)


def streams_are_pipes() -> str:
    found = []
    for fd in (0, 1, 2):
        told = os.fstat(fd)
        inside = stat.S_ISFIFO(told.st_mode) or stat.S_ISSOCK(told.st_mode) or stat.S_ISCHR(told.st_mode)
        if not inside:
            found.append(f"{fd} is {os.readlink(f'/proc/self/fd/{fd}')}")
    return any_of(*found)


def leaked_environment() -> str:
    allowed = ("PATH", "HOME", "HOSTNAME", "TERM", "PWD", "SHLVL", "PROBE_GIVEN", "LC_CTYPE")
    own = [k for k in os.environ if k not in allowed and not k.lower().endswith("_proxy")]
    try:
        with open("/proc/1/environ", "rb") as f:
            own += [r.decode() for r in f.read().split(b"\0") if b"KAP_" in r]
    except OSError:
        pass
    return any_of(*own)


def overwrite_interpreter() -> str:
    found = []
    for pid in ("1", "self"):
        path = f"/proc/{pid}/exe"
        try:
            name = os.readlink(path)
        except OSError:
            continue
        if "busybox" in name:
            continue  # the container's own
        if opened(path, os.O_WRONLY) or opened(path, os.O_RDWR):
            found.append(f"{path} -> {name}")
        try:
            os.chmod(path, stat.S_IMODE(os.stat(path).st_mode))
            found.append(f"the mode of {path} -> {name}")
        except OSError:
            pass
    return any_of(*found)


def shared_memory() -> str:
    found = [row for row in open("/proc/sysvipc/shm").read().splitlines()[1:]]
    found += [n for n in os.listdir("/dev/shm")]
    return any_of(*found)


def terminal_of_host() -> str:
    found = [n for n in os.listdir("/dev/pts") if n != "ptmx"]
    try:
        import fcntl

        fcntl.ioctl(0, 0x5412, b"x")
        found.append("TIOCSTI")
    except OSError:
        pass
    return any_of(*found, opened("/dev/tty"), opened("/dev/console"), opened("/dev/tty0"), opened("/dev/ptmx0"))


def _asked(host: str, port: int) -> str:
    """Something else may answer there (a host's proxy): only what the test has put there says the secret."""
    try:
        with socket.create_connection((host, port), 1.5) as s:
            s.send(b"GET / HTTP/1.0\r\n\r\n")
            answer = b""
            while data := s.recv(4096):
                answer += data
    except OSError:
        return ""
    return f"{host}:{port} answers" if GIVEN["secret"].encode() in answer else ""


def host_loopback() -> str:
    rows = [row.split() for row in open("/proc/net/route").read().splitlines()[1:]]
    ways = [socket.inet_ntoa(struct.pack("=I", int(r[2], 16))) for r in rows if r[1] == "00000000"]
    return any_of(*(_asked(host, int(GIVEN["port"])) for host in ("127.0.0.1", *ways, "10.0.2.2", "169.254.1.2")))


def abstract_socket() -> str:
    with socket.socket(socket.AF_UNIX) as s:
        try:
            s.connect("\0" + GIVEN["abstract"])
        except OSError:
            return ""
    return "connected"


def our_sockets() -> str:
    rows = open("/proc/net/unix").read().splitlines()[1:]
    return any_of(*(row for row in rows if "kapelle" in row or "socket" in row.rpartition(" ")[2]))


def host_interfaces() -> str:
    names = {row.split(":")[0].strip() for row in open("/proc/net/dev").read().splitlines()[2:]}
    return any_of(*(n for n in names if n != "lo" and not n.startswith("eth")))


def own_interfaces() -> str:
    import fcntl

    found = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        try:
            fcntl.ioctl(s, 0x8914, struct.pack("16sH14x", b"lo", 0x49))
            found.append("flags of lo")
        except OSError:
            pass
    for protocol, message in ((0, 16), (12, 0x0A00)):  # RTM_NEWLINK; nf_tables NEWTABLE
        try:
            with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol) as s:
                s.bind((0, 0))
                s.settimeout(1)
                s.send(struct.pack("=IHHII", 32, message, 5 | 0x600, 1, 0) + b"\0" * 16)
                told = s.recv(4096)
                code = struct.unpack_from("=i", told, 16)[0]
                if -code not in (*WALLS, errno.EOPNOTSUPP, errno.EINVAL):
                    found.append(f"netlink {protocol}: {code}")
        except OSError:
            pass
    return any_of(*found)


def other_project() -> str:
    return _asked(GIVEN["other"], 8000)


def other_project_name() -> str:
    found = []
    for name in GIVEN["names"].split():
        try:
            found.append(f"{name} is {socket.getaddrinfo(name, 80)[0][4][0]}")
        except OSError:
            continue
    return any_of(*found)


def low_port_of_dns() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        try:
            s.bind(("127.0.0.11", 53))
        except OSError:
            return ""
    return "bound"


def main() -> None:
    GIVEN["fds"] = " ".join(n for n in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{n}"))
    GIVEN.update(json.loads(os.environ["PROBE_GIVEN"]))
    NUMBERS.update({k: int(v) for k, v in (row.split("=") for row in GIVEN["numbers"].split())})
    signal.alarm(120)
    assert threading.active_count() == 1
    tempfile.tempdir = "/tmp"
    chosen = sys.argv[1:]
    told = {}
    for attempt in ATTEMPTS:
        if chosen and attempt.name not in chosen:
            continue
        try:
            told[attempt.name] = globals()[attempt.name]()
        except Exception as e:  # a try that breaks has not shown anything
            told[attempt.name] = f"the try itself failed: {type(e).__name__}: {e}"
    print(json.dumps(told))


main()
