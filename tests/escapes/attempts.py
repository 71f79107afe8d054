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


class Elsewhere(NamedTuple):
    """What is no single try of a process: the test that shows it, as FILE::NAME."""

    area: str
    words: str
    wall: str
    test: str


IMAGES = "Images and archives"
FILES = "Files and links"
STREAMS = "Standard streams"

_FILES = "tests/scenarios/test_escapes_files.py"
_STREAMS = "tests/scenarios/test_escapes_streams.py"
_WALLS = "tests/scenarios/test_walls.py"
_TAR = "tests/unit/test_images_tar.py"

ELSEWHERE: tuple[Elsewhere, ...] = (
    Elsewhere(FILES, "a link in an image as the place of a mount or a working directory", "mounts after pivot_root",
              f"{_WALLS}::test_a_link_in_an_image_leads_no_mount_and_no_folder_out_of_the_container"),
    Elsewhere(FILES, "a working directory /proc/self/fd/N (CVE-2024-21626)", "no descriptor of ours is open",
              f"{_WALLS}::test_a_working_directory_in_proc_shows_nothing_of_the_host"),
    Elsewhere(FILES, "a volume's subpath that is a link to the host", "openat2 RESOLVE_IN_ROOT",
              "tests/scenarios/test_storage.py::test_a_volumes_subpath_leads_nowhere_else"),
    Elsewhere(FILES, "a link planted in a volume that is filled or removed", "no link is followed",
              f"{_FILES}::test_a_link_in_a_volume_is_not_followed_when_the_volume_is_filled_or_removed"),
    Elsewhere(FILES, "a mount inside /proc, to catch what we write there", "refused at the start",
              f"{_FILES}::test_nothing_is_mounted_inside_proc"),
    Elsewhere(FILES, "/etc/passwd and /etc/group as links, pipes, endless files", "read inside the root, bounded",
              f"{_FILES}::test_an_odd_passwd_file_neither_hangs_the_start_nor_shows_the_hosts"),
    Elsewhere(FILES, "a folder swapped for a link while cp copies (CVE-2018-15664)", "cp works inside the root",
              f"{_FILES}::test_a_folder_that_turns_into_a_link_during_a_copy_leads_nowhere"),
    Elsewhere(FILES, "links and hostile archives through cp, both ways", "cp works inside the root",
              "tests/scenarios/test_copying.py::test_hostile_archives_are_refused"),
    Elsewhere(FILES, "links of a stopped container, read and written by cp", "cp works inside the root",
              f"{_FILES}::test_what_a_stopped_container_left_as_links_leads_nowhere"),
    Elsewhere(FILES, "links and pipes through export and commit", "taken as what they are",
              f"{_FILES}::test_export_and_commit_take_links_and_devices_as_what_they_are"),
    Elsewhere(FILES, "an image's device node where no device rules can be set", "root is nodev, no CAP_MKNOD",
              "tests/scenarios/test_escapes.py::test_without_rules_for_devices_no_node_can_be_made_or_opened"),
    Elsewhere(FILES, "our interpreter behind /proc/PID/exe (CVE-2019-5736)", "read-only mounts",
              f"{_WALLS}::test_the_interpreter_behind_the_containers_lies_behind_a_read_only_mount"),
    Elsewhere(STREAMS, "overwrite the file that is its input", "a pipe",
              f"{_STREAMS}::test_a_file_given_as_input_is_read_and_can_not_be_written"),
    Elsewhere(STREAMS, "read the file that takes its output", "a pipe",
              f"{_STREAMS}::test_a_file_that_takes_the_output_gets_all_of_it_and_can_not_be_read"),
    Elsewhere(STREAMS, "climb from a folder that is its input", "a pipe",
              f"{_STREAMS}::test_a_folder_given_as_input_opens_no_way_up"),
    Elsewhere(STREAMS, "change the host's /dev/null", "the container's own takes its place",
              f"{_STREAMS}::test_the_hosts_null_device_is_not_a_containers_to_change"),
    Elsewhere(IMAGES, "a layer's path that leads out (.., absolute, through links)", "own reader, no link followed",
              f"{_TAR}::test_no_name_and_no_link_leads_out_of_the_layer"),
    Elsewhere(IMAGES, "a layer's device nodes, set-uid files, owners without names", "kept, or skipped without root",
              f"{_TAR}::test_device_nodes_are_made_only_where_root_may_and_never_fail_a_user"),
    Elsewhere(IMAGES, "bombs: a small layer that unpacks to far more, endless headers", "bounded",
              f"{_TAR}::test_a_bomb_is_stopped"),
    Elsewhere(IMAGES, "sizes and checksums that lie", "refused",
              f"{_TAR}::test_what_lies_about_itself_is_refused"),
    Elsewhere(IMAGES, "a layer whose digest is wrong", "refused, nothing kept",
              "tests/os/test_images_registry.py::test_a_corrupted_layer_is_refused_and_nothing_is_kept"),
    Elsewhere(IMAGES, "a RUN of a Dockerfile that looks for more than a container has", "launched as one",
              f"{_FILES}::test_a_run_of_a_build_has_no_more_than_a_container"),
    Elsewhere(IMAGES, "a COPY through a link of the image to the host", "resolved inside the stage's root",
              "tests/os/test_build_steps.py::test_a_copy_never_follows_a_link_of_the_image_to_the_host"),
)  # fmt: skip
