"""The root of a container: layers, mounts, devices and volumes, put together by its first process to be."""

from __future__ import annotations

import fcntl
import os

from kapelle.engines.native import devices, fuse, mapping, messages, userns, users
from kapelle.engines.native.launch_program import outer_ids, user_of
from kapelle.engines.native.launch_words import APT_SETTING, LaunchError, Spec, note
from kapelle.light import socket
from kapelle.linux import fsops, idmap, libc
from kapelle.linux import mount as m
from kapelle.linux import namespaces as ns


def build(spec: Spec, sync: socket.socket, ids: idmap.Ids | None, space: int, memory: int | None, device: int) -> None:
    """Put it together and enter it, in a mount namespace of our own. Raises LaunchError, OSError.

    `ids` and `space`: the user namespace that it gets, if any (-1); `memory`: what becomes /dev/shm, as from
    `shared_memory`; `device`: /dev/fuse where the layers are stacked that way, else -1.
    """
    m.mount(None, "/", None, m.MS_REC | m.MS_SLAVE)
    lowers = () if spec.get("stacking") == "copy" else tuple(spec["lowers"])
    overlay = fsops.Overlay(lowers, spec["upper"], spec["work"], spec["merged"], userxattr=spec["rung"] != "R1")
    ops = fsops.in_order([_op(row, ids) for row in spec["mounts"]])
    trees = {op.target: fsops.clone_tree(op) for op in ops if isinstance(op, fsops.Bind)}
    shown = _shown(space, overlay.merged, ids) if ids is not None else None
    for stack in (op for op in ops if isinstance(op, fsops.Stack)):
        lowers = stack.lowers if shown is None else shown.paths(stack.lowers)
        trees[stack.target] = fsops.stack_tree(stack._replace(lowers=lowers), userxattr=spec["rung"] != "R1")
    if device >= 0:
        fuse.mount(overlay.merged, device)
        messages.send(sync, {"at": "fuse"}, (device,))
        os.close(device)
    else:
        fsops.mount_overlay(overlay if shown is None else shown.overlay(overlay))
    # In a user namespace a device node can't be made: the host's own is bound in its place.
    host = fsops.clone_host_trees(privileged=bool(spec["privileged"])) if spec["rung"] != "R1" else {}
    rows = [{"source": "/dev", "target": "/dev"}] if spec.get("all_devices") else spec["devices"]
    nodes = [(_device_tree(spec, node), node) for row in rows for node in devices.node_of(row)]
    data = os.open(os.path.dirname(overlay.upper), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    fsops.enter_root(overlay.merged)
    _adopt_files(spec, data)
    os.close(data)
    privileged = bool(spec["privileged"])
    fsops.mount_kernel_trees(
        shm_size=spec["shm_size"],
        privileged=privileged,
        own_net=spec["namespaces"]["net"] == "own",
        tty_gid=None if spec["rung"] == "R3" else 5 if ids is None else ids.gids + 5,
        host=host,
        memory=memory,
    )
    _map_binds(spec, trees, sync, space)
    fsops.mount_cgroups(read_only=not spec.get("writable_cgroups"))
    for op in ops:
        _place(op, trees)
    for tree, node in nodes:
        if tree < 0:
            _make_device(node, ids or idmap.Ids(0, 0, 0))
        elif os.path.lexists(node.path):  # each container has that one
            os.close(tree)
        else:
            fsops.attach_tree(tree, fsops.make_target(node.path, directory=False))
            os.close(tree)


def finish(spec: Spec, user: users.User, ids: idmap.Ids | None) -> None:
    """What comes last: masks, what may only be read, the working directory. Raises LaunchError, OSError."""
    if spec["rung"] == "R3":
        _spare_apt_its_user()
    fsops.mask(tuple(spec["masked"]))
    fsops.make_read_only(tuple(spec["read_only_paths"]))
    _make_cwd(spec["cwd"], *outer_ids(spec, user))
    attributes = m.MOUNT_ATTR_RDONLY if spec["read_only"] else 0
    if not spec.get("confined", True) or ids is not None:  # an image may have brought nodes
        attributes |= m.MOUNT_ATTR_NODEV
    if attributes:
        root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        m.set_attributes(root, attributes)
        os.close(root)


def _shown(space: int, place: str, ids: idmap.Ids) -> userns.Shown:
    userns.act_as_root_of(ids)
    return userns.Shown(space, place)


def _adopt_files(spec: Spec, data: int) -> None:
    """`x-kap-map-user` in a user namespace: the image's files change hands, once in a container's life."""
    wanted = mapping.swap(spec, user_of(spec)) if spec["rung"] == "R2" else None
    if wanted is None:
        return
    try:
        os.close(os.open("adopted", os.O_WRONLY | os.O_CLOEXEC, dir_fd=data))
    except FileNotFoundError:
        mapping.adopt(wanted)
        os.close(os.open("adopted", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=data))


def _map_binds(spec: Spec, trees: dict[str, int], sync: socket.socket, space: int) -> None:
    """As root: the file's bind mounts are id-mapped by `x-kap-map-user`, all are for a user namespace of its own."""
    wanted = mapping.swap(spec, user_of(spec)) if spec["rung"] == "R1" else None
    ids = userns.ids_of(spec)
    for row in spec["mounts"]:
        swap = wanted if row.get("mapped") else None
        if row["type"] != "bind" or (swap is None and ids is None):
            continue
        tree, recursive = trees[row["target"]], bool(row.get("recursive", True))
        try:
            if swap is not None:
                mapping.map_tree(tree, swap, ids, recursive=recursive)
            else:
                m.set_attributes(tree, m.MOUNT_ATTR_IDMAP, recursive=recursive, userns=space)
        except OSError as e:
            why = f"{row['source']}: {userns.unmappable(e)}"
            if ids is not None:
                raise LaunchError(why, subject="userns_mode") from None
            note(sync, "x-kap-map-user", why)


def _make_cwd(cwd: str, uid: int, gid: int) -> None:
    if cwd and not os.path.isdir(cwd):
        try:
            os.makedirs(os.path.realpath(cwd), 0o755, exist_ok=True)
            idmap.chown(cwd, uid, gid)
        except OSError as e:
            raise LaunchError(f"can't make the working directory {cwd}: {e.strerror}", 126) from None


def _spare_apt_its_user() -> None:
    """apt goes to a user of its own for downloads, and checks that it did; where there is one id it is told not to."""
    if not os.path.isdir(os.path.dirname(APT_SETTING)):
        return
    made = "/dev/.apt"
    with open(made, "w") as f:
        f.write('APT::Sandbox::User "root";\n')
    m.mount(made, fsops.make_target(APT_SETTING, directory=False), None, m.MS_BIND)
    os.unlink(made)


def _op(row: Spec, ids: idmap.Ids | None) -> fsops.Op:
    if row["type"] == "image":
        return fsops.Stack(tuple(row["lowers"]), row["target"], row["inside"])
    if row["type"] == "tmpfs":
        options = userns.tmpfs_options(row.get("options", ""), ids)
        return fsops.Tmpfs(row["target"], options, row.get("flags", fsops.Tmpfs("").flags))
    return fsops.Bind(
        row["source"],
        row["target"],
        row.get("read_only", False),
        row.get("recursive", True),
        row.get("propagation", ""),
        row.get("copy_up", False),
        row.get("subpath", ""),
        bool(row.get("read_only_below", True)),
    )


def _place(op: fsops.Op, trees: dict[str, int]) -> None:
    if fsops.is_in_proc(op.target):  # what we write to /proc must arrive in the kernel
        raise LaunchError(f'"{op.target}" cannot be mounted because it is inside /proc', subject=op.target)
    if isinstance(op, fsops.Tmpfs):
        m.mount("tmpfs", fsops.make_target(op.target, directory=True), "tmpfs", op.flags, op.options or None)
        return
    fd = trees[op.target]
    target = fsops.make_target(op.target, directory=_is_directory(fd))
    if isinstance(op, fsops.Stack):
        fsops.attach_tree(fd, target)
        os.close(fd)
        return
    if op.copy_up:
        _fill_volume(fd, target)
    fsops.attach_tree(fd, target)
    os.close(fd)
    if op.propagation:
        m.mount(None, target, None, fsops.PROPAGATION[op.propagation])


def _is_directory(fd: int) -> bool:
    return (os.fstat(fd).st_mode & 0o170000) == 0o040000


def _fill_volume(tree: int, target: str) -> None:
    """A new volume takes the image's content at its place, once; another first user waits for it."""
    place = "/dev/.new-volume"
    os.mkdir(place, 0o700)
    writable = libc.syscall(libc.SYS_open_tree, tree, b"", 0x1000 | 1 | os.O_CLOEXEC, call="open_tree", subject=target)
    fsops.attach_tree(writable, place)
    os.close(writable)
    lock = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.listdir(place):
            fsops.copy_into(target, place)
    finally:
        os.close(lock)
        m.umount(place, m.MNT_DETACH)
        os.rmdir(place)


def _device_tree(spec: Spec, node: devices.Node) -> int:
    """The host's node as a detached tree where none can be made, -1 where it can."""
    return -1 if spec["rung"] == "R1" else fsops.clone_tree(fsops.Bind(node.source, ""))


def _make_device(node: devices.Node, ids: idmap.Ids) -> None:
    os.makedirs(os.path.dirname(node.path), 0o755, exist_ok=True)
    old = os.umask(0)
    try:
        os.mknod(node.path, node.mode, node.number)
        os.chown(node.path, ids.uids + node.uid, ids.gids + node.gid)
    except FileExistsError:
        pass
    finally:
        os.umask(old)


def shared_memory(mode: str) -> int | None:
    """/dev/shm of whom the IPC namespace is, as a detached tree; -1: none at all; None: one of its own.

    Another container's is cloned inside its mount namespace, where we run nothing of it.
    """
    if mode == "own":
        return None
    if mode == "none":
        return -1
    if not mode.startswith("pid:"):
        return fsops.clone_tree(fsops.Bind("/dev/shm", "/dev/shm")) if os.path.isdir("/dev/shm") else None
    home = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    theirs = os.open(f"/proc/{mode[4:]}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    try:
        ns.setns(theirs, ns.CLONE_NEWNS)
        try:
            return fsops.clone_tree(fsops.Bind("/dev/shm", "/dev/shm"))
        except FileNotFoundError:
            return -1
        finally:
            ns.setns(home, ns.CLONE_NEWNS)
    finally:
        os.close(home)
        os.close(theirs)
