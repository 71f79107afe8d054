"""The table of the escape suite: what a process in a container tries and what stands in its way.

`docs/security.md` shows it (tools/security_doc.py writes it there); tests/scenarios/test_escapes.py runs each row.
Without imports of ours: it is read inside the container, too.
"""

from __future__ import annotations

from typing import NamedTuple


class Attempt(NamedTuple):
    """A function of the same name in probe.py tries it."""

    name: str
    area: str
    words: str  # what is tried
    wall: str  # what refuses it
    unlike: str = ""  # where a rung differs from R1, and why


MOUNTS = "Mounts"
KERNEL = "/proc and /sys"
CGROUPS = "Control groups"
DEVICES = "Devices"
RIGHTS = "Capabilities and users"
CALLS = "System calls"
OUTSIDE = "Processes outside"
NETWORK = "Network"

_IDS = "R2, R3: the user namespace owns none of it, too"

ATTEMPTS: tuple[Attempt, ...] = (
    Attempt("mount_tmpfs", MOUNTS, "mount a tmpfs", "filter, no CAP_SYS_ADMIN"),
    Attempt("mount_proc", MOUNTS, "mount a new, unmasked /proc", "filter, no CAP_SYS_ADMIN"),
    Attempt("mount_sysfs", MOUNTS, "mount a new, writable /sys", "filter, no CAP_SYS_ADMIN"),
    Attempt("mount_by_new_calls", MOUNTS, "the same by fsopen(2)", "filter, no CAP_SYS_ADMIN"),
    Attempt("bind_mount", MOUNTS, "bind one folder over another", "filter, no CAP_SYS_ADMIN"),
    Attempt("remount_root", MOUNTS, "remount / with other flags", "filter, no CAP_SYS_ADMIN"),
    Attempt("remount_read_only_bind", MOUNTS, "make a read-only bind mount writable", "filter, no CAP_SYS_ADMIN"),
    Attempt("set_attributes_of_bind", MOUNTS, "the same by mount_setattr(2)", "filter, no CAP_SYS_ADMIN"),
    Attempt("write_read_only_bind", MOUNTS, "write into a read-only bind mount", "mount is read-only"),
    Attempt("unmount_masks", MOUNTS, "unmount what hides /proc/keys, /sys/firmware", "filter, no CAP_SYS_ADMIN"),
    Attempt("clone_tree", MOUNTS, "open_tree(2) of / for a copy without masks", "filter, no CAP_SYS_ADMIN"),
    Attempt("pivot_root", MOUNTS, "pivot_root(2)", "filter, no CAP_SYS_ADMIN"),
    Attempt("chroot_and_climb", MOUNTS, "chroot into a folder, climb above it with ..", "the mount namespace's root"),
    Attempt("open_by_handle", MOUNTS, "open_by_handle_at(2), the host's files by inode (shocker)", "filter"),
    Attempt("host_root_by_proc", MOUNTS, "find the host's root by /proc/*/root and /proc/*/cwd", "pid namespace"),
    Attempt("core_pattern", KERNEL, "write /proc/sys/kernel/core_pattern", "read-only mount"),
    Attempt("kernel_settings", KERNEL, "write /proc/sys/kernel/*, vm/*, fs/*", "read-only mount"),
    Attempt("own_settings", KERNEL, "write /proc/sys/net/* of its own namespace", "read-only mount"),
    Attempt("binfmt_misc", KERNEL, "register a binary format", "read-only mount"),
    Attempt("sysrq_trigger", KERNEL, "write /proc/sysrq-trigger", "read-only mount"),
    Attempt("uevent_helper", KERNEL, "write /sys/kernel/uevent_helper, /sys/class/mem/null/uevent", "read-only mount"),
    Attempt("sys_kernel", KERNEL, "write /sys/kernel/*, /sys/module/*, /sys/power/*", "read-only mount"),
    Attempt("security_folder", KERNEL, "write /sys/kernel/security, debug, tracing, fs/bpf", "read-only mount"),
    Attempt("masked_paths", KERNEL, "read or write what Docker masks (kcore, keys, timer_list, firmware …)", "masks"),
    Attempt("read_only_paths", KERNEL, "write below /proc/bus, fs, irq, sys, sysrq-trigger", "read-only mount"),
    Attempt("kernel_log", KERNEL, "read the kernel's log (syslog(2), /dev/kmsg, /proc/kmsg)", "filter, no node"),
    Attempt("chmod_host_null", KERNEL, "change the mode or owner of the host's /dev/null by a standard stream",
            "the streams are the container's own", "R2, R3: the node is the host's, which this user may not change"),
    Attempt("mount_cgroup_v1", CGROUPS, "mount a cgroup v1 hierarchy for its release_agent", "filter"),
    Attempt("release_agent", CGROUPS, "write release_agent and notify_on_release", "read-only mount"),
    Attempt("own_limits", CGROUPS, "raise its own limits, allow itself devices", "read-only mount"),
    Attempt("leave_group", CGROUPS, "move itself into another group, make one below", "read-only mount"),
    Attempt("see_other_groups", CGROUPS, "see groups above its own", "cgroup namespace"),
    Attempt("block_device", DEVICES, "make a node of the host's disk and read it", "device rules",
            "R2, R3: a node can't be made at all"),
    Attempt("memory_device", DEVICES, "make and open nodes of /dev/mem, kmem, port, kmsg", "device rules",
            "R2, R3: a node can't be made at all"),
    Attempt("fuse_device", DEVICES, "make and open nodes of /dev/fuse, net/tun, kvm, loop-control", "device rules",
            "R2, R3: a node can't be made at all"),
    Attempt("capability_sets", RIGHTS, "hold a capability that Docker does not give", "bounding set"),
    Attempt("capabilities_by_exec", RIGHTS, "gain one by running a set-uid or file-capability program", "bounding set"),
    Attempt("raise_capabilities", RIGHTS, "raise CAP_SYS_ADMIN by capset(2)", "bounding set"),
    Attempt("ambient_capabilities", RIGHTS, "raise ambient ones beyond the set", "bounding set"),
    Attempt("new_user_namespace", RIGHTS, "unshare(2) or clone(2) a user namespace", "filter"),
    Attempt("new_namespaces", RIGHTS, "unshare(2) mount, net, pid, ipc, uts, cgroup, time", "filter"),
    Attempt("enter_namespaces", RIGHTS, "setns(2) into a namespace file", "filter"),
    Attempt("clone3_namespaces", RIGHTS, "clone3(2), whose flags a filter can't see", "filter: ENOSYS"),
    Attempt("raise_limits", RIGHTS, "raise a hard limit", "no CAP_SYS_RESOURCE"),
    Attempt("nice", RIGHTS, "a priority above the host's others", "no CAP_SYS_NICE"),
    Attempt("host_name", RIGHTS, "change host and domain name", "filter, no CAP_SYS_ADMIN"),
    Attempt("refused_calls", CALLS, "each call that Docker's profile refuses, by number", "filter"),
    Attempt("unknown_calls", CALLS, "numbers that no kernel header names yet", "filter: ENOSYS"),
    Attempt("other_architecture", CALLS, "the same calls in their x32 and 32-bit numbers", "filter: ENOSYS"),
    Attempt("clone_flags", CALLS, "clone(2) with flags of namespaces", "filter"),
    Attempt("personality", CALLS, "personality(2) ADDR_NO_RANDOMIZE", "filter"),
    Attempt("odd_sockets", CALLS, "sockets of AF_ALG and AF_VSOCK", "filter"),
    Attempt("keyrings", CALLS, "keyctl(2), add_key(2), request_key(2): the host's keys", "filter"),
    Attempt("filter_stays", CALLS, "the filter is there after fork and exec", "seccomp(2) is inherited"),
    Attempt("io_uring", CALLS, "io_uring_setup(2), calls that no filter sees", "filter"),
    Attempt("see_outside", OUTSIDE, "see a process of the host by its number", "pid namespace"),
    Attempt("kill_outside", OUTSIDE, "kill(2) every number there is", "pid namespace"),
    Attempt("trace_outside", OUTSIDE, "ptrace(2), process_vm_readv(2) of a process outside", "pid namespace"),
    Attempt("parent_of_first", OUTSIDE, "a parent of the first process", "pid namespace"),
    Attempt("look_into_init", OUTSIDE, "read memory and files of the small init (init: true)", "not dumpable"),
    Attempt("leaked_descriptors", OUTSIDE, "a descriptor besides 0, 1, 2", "all are closed before the program runs"),
    Attempt("streams_are_pipes", OUTSIDE, "open a file of the host again by a standard stream (/proc/self/fd)",
            "files are copied through a pipe"),
    Attempt("leaked_environment", OUTSIDE, "a variable or path of the one who started it", "made anew"),
    Attempt("overwrite_interpreter", OUTSIDE, "write to /proc/self/exe, /proc/1/exe (CVE-2019-5736)",
            "our programs lie behind read-only mounts"),
    Attempt("shared_memory", OUTSIDE, "System V and POSIX shared memory of the host", "ipc namespace"),
    Attempt("terminal_of_host", OUTSIDE, "a terminal of the host, TIOCSTI into one", "devpts of its own"),
    Attempt("host_loopback", NETWORK, "connect to a service on the host's 127.0.0.1", "network namespace"),
    Attempt("abstract_socket", NETWORK, "connect to an abstract unix socket of the host", "network namespace"),
    Attempt("our_sockets", NETWORK, "find a socket of Kapelle's own", "mount namespace"),
    Attempt("host_interfaces", NETWORK, "see the host's network interfaces", "network namespace"),
    Attempt("own_interfaces", NETWORK, "change addresses, routes, firewall rules", "no CAP_NET_ADMIN"),
    Attempt("other_project", NETWORK, "connect to another project's container", "a namespace per project"),
    Attempt("other_project_name", NETWORK, "resolve the name of another project's service", "DNS per container"),
    Attempt("low_port_of_dns", NETWORK, "answer for 127.0.0.11 in the DNS's place", "its socket is there first"),
)  # fmt: skip

# What Docker leaves a container: its exact set.
CAPABILITIES = 0xA80425FB

# The calls that Docker's documentation names as refused; of each architecture's that has them.
REFUSED = (
    "acct add_key bpf clock_settime create_module delete_module finit_module get_kernel_syms get_mempolicy "
    "init_module ioperm iopl kcmp kexec_file_load kexec_load keyctl lookup_dcookie mbind mount move_pages nfsservctl "
    "open_by_handle_at perf_event_open pivot_root query_module quotactl reboot request_key set_mempolicy setns "
    "settimeofday swapon swapoff sysfs _sysctl umount2 unshare uselib userfaultfd ustat vhangup io_uring_setup "
    "io_uring_enter io_uring_register fsopen fsmount fsconfig fspick move_mount open_tree mount_setattr quotactl_fd "
    "fanotify_init syslog setdomainname sethostname process_madvise pidfd_getfd set_mempolicy_home_node"
).split()

MASKED = (
    "/proc/asound /proc/acpi /proc/interrupts /proc/kcore /proc/keys /proc/latency_stats /proc/timer_list "
    "/proc/timer_stats /proc/sched_debug /proc/scsi /sys/firmware /sys/devices/virtual/powercap"
).split()
