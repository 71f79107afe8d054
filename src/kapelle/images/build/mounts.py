"""RUN --mount: bind, cache, tmpfs, secret, ssh → what the container gets, and what of it belongs to the step's key."""

from __future__ import annotations

import os
import posixpath
import re
import stat
from contextlib import ExitStack

from kapelle.errors import ImageError
from kapelle.images.build import copying, expand, masking, sources
from kapelle.images.build.context import Context
from kapelle.images.build.copying import Item, LayerWriter
from kapelle.images.build.dockerfile import Instruction
from kapelle.images.build.owners import ROOT, Owner
from kapelle.images.build.rootfs import Rootfs
from kapelle.images.build.state import StageState
from kapelle.light import NamedTuple
from kapelle.linux import idmap

_TARGETS = ("target", "dst", "destination")
_SOURCES = ("source", "src")
_READING = ("ro", "readonly")
_WRITING = ("rw", "readwrite")
# type → the keys it takes
TYPES: dict[str, tuple[str, ...]] = {
    "bind": ("from", *_SOURCES, *_TARGETS, *_READING, *_WRITING),
    "cache": ("id", "from", "sharing", "mode", "uid", "gid", *_SOURCES, *_TARGETS, *_READING, *_WRITING),
    "tmpfs": ("size", *_TARGETS),
    "secret": ("id", "required", "mode", "uid", "gid", "env", *_TARGETS, *_SOURCES),
    "ssh": ("id", "required", "mode", "uid", "gid", *_TARGETS, *_SOURCES),
}


class Mount(NamedTuple):
    type: str
    options: dict[str, str]
    target: str  # absolute; "" when none is given

    def first(self, keys: tuple[str, ...]) -> str:
        return next((self.options[k] for k in keys if self.options.get(k)), "")

    @property
    def writable(self) -> bool:
        on = ("", "true", "1")
        if any(self.options.get(k, "false") in on for k in _WRITING):
            return True
        default = self.type == "cache"
        return default and not any(self.options.get(k, "false") in on for k in _READING)


class Given(NamedTuple):
    """What the mounts of one RUN come to."""

    masked: list[str]  # folders that were laid over a context, to hide what .dockerignore leaves out
    binds: list[tuple[str, str, bool]]
    stacks: list[tuple[tuple[str, ...], str, str]]
    tmpfs: list[tuple[str, int | None]]
    env: list[str]


def read(context: Context, state: StageState, instruction: Instruction) -> list[Mount]:
    """The mounts as written. ImageError KAP511 for what is none."""
    return [_mount(context, state, instruction, value) for value in instruction.all("--mount")]


def _mount(context: Context, state: StageState, instruction: Instruction, value: str) -> Mount:
    options: dict[str, str] = {}
    for part in value.split(","):
        key, equals, text = part.partition("=")
        if equals:
            text = expand.word(text, state.lookup, context.escape)
        options[key.strip().lower()] = text
    kind = options.pop("type", "bind")
    known = TYPES.get(kind)
    if known is None:
        raise ImageError(
            f"unsupported mount type {kind!r}", where=instruction.where, hint=f"one of {', '.join(TYPES)}",
            code="KAP511",
        )  # fmt: skip
    odd = next((k for k in options if k not in known), None)
    if odd is not None:
        raise ImageError(
            f"unexpected key '{odd}' in --mount={value}", where=instruction.where,
            hint=f"type={kind} takes {', '.join(known)}", code="KAP511",
        )  # fmt: skip
    target = next((options[k] for k in _TARGETS if options.get(k)), "")
    if target:
        target = posixpath.normpath(posixpath.join(state.config.get("WorkingDir") or "/", target))
    elif kind in ("bind", "cache", "tmpfs"):
        raise ImageError(
            f"--mount={value} has no target", where=instruction.where, hint="add target=/a/folder", code="KAP511"
        )
    if target == "/":
        raise ImageError(f"invalid mount target /: --mount={value}", where=instruction.where, code="KAP511")
    return Mount(kind, options, target)


def meaning(context: Context, found: list[Mount], instruction: Instruction) -> list[object]:
    """What of the mounts decides the result: all but what a cache, a secret and an agent hold."""
    rows: list[object] = []
    for mount in found:
        row: list[object] = [mount.type, sorted(mount.options.items()), mount.target]
        if mount.type == "bind":
            source = sources.source(context, mount.options.get("from", ""), instruction.where)
            if source.key:
                row.append(source.key)
            else:
                items = _items(source, mount, instruction)
                row.append(copying.digest_rows(items, context.cache))
        rows.append(row)
    return rows


def _items(source: sources.Source, mount: Mount, instruction: Instruction) -> list[Item]:
    path = mount.first(_SOURCES) or "."
    chosen = copying.select(source.tree, re.sub(r"([*?\[])", r"\\\1", path), source.ignore, ())
    if not chosen:
        raise _missing(mount, instruction)
    return chosen[0][1]


def _missing(mount: Mount, instruction: Instruction) -> ImageError:
    return ImageError(
        f'mount source "{mount.first(_SOURCES) or "/"}" not found in '
        f"{mount.options.get('from') or 'the build context'}",
        where=instruction.where,
        code="KAP510",
    )


def give(
    context: Context, instruction: Instruction, found: list[Mount], stack: ExitStack, *, masks: bool = True
) -> Given:
    """`masks`: a context without what .dockerignore leaves out is an overlay; else a copy of what is left."""
    given = Given([], [], [], [], [])
    for number, mount in enumerate(found):
        if mount.type == "bind":
            _bind(context, instruction, mount, given, masks=masks)
        elif mount.type == "cache":
            _cache(context, instruction, mount, given, stack)
        elif mount.type == "tmpfs":
            given.tmpfs.append((mount.target, _size(mount, instruction)))
        elif mount.type == "secret":
            _secret(context, instruction, mount, given)
        else:
            from kapelle.images.build import agents

            agents.give(context, instruction, mount, number, given, stack)
    return given


def _bind(context: Context, instruction: Instruction, mount: Mount, given: Given, *, masks: bool) -> None:
    source = sources.source(context, mount.options.get("from", ""), instruction.where)
    path = source.tree.resolve(mount.first(_SOURCES))
    entry = source.tree.entry(path)
    if entry is None:
        raise _missing(mount, instruction)
    if source.layers and not mount.writable:
        given.stacks.append((source.layers, mount.target, path))
        return
    plain = source.ignore is None or not source.ignore.rules
    if plain and not source.layers and not mount.writable:
        given.binds.append((entry.real, mount.target, True))
        return
    if source.ignore is not None and not mount.writable and masks and stat.S_ISDIR(entry.info.st_mode):
        mask = context.cache.fresh("mask")
        masking.make(source.tree, source.ignore, mask)
        given.masked.append(mask)
        given.stacks.append(((*source.tree.layers, mask), mount.target, path))
        return
    # what is written is thrown away: a copy
    place = context.cache.fresh("bind")
    writer = LayerWriter(place, Rootfs(()))
    owner = None if source.key else ROOT
    for item in _items(source, mount, instruction):
        writer.put(item, f"tree/{item.to}" if stat.S_ISDIR(entry.info.st_mode) else "tree", owner, None)
    if not os.path.lexists(f"{place}/tree"):
        os.mkdir(f"{place}/tree", 0o755)
    given.binds.append((f"{place}/tree", mount.target, not mount.writable))


def _cache(context: Context, instruction: Instruction, mount: Mount, given: Given, stack: ExitStack) -> None:
    sharing = mount.options.get("sharing", "shared")
    if sharing not in ("shared", "private", "locked"):
        raise ImageError(
            f"unsupported sharing value {sharing!r}", where=instruction.where, hint="shared, private or locked",
            code="KAP511",
        )  # fmt: skip
    owner, mode = owner_of(mount, instruction), mode_of(mount, instruction, 0o755)
    name = mount.options.get("id") or mount.target
    attempt = 0
    while True:
        path, new = context.cache.mount(name if not attempt else f"{name}#{attempt}", mode, *owner)
        if sharing == "shared":
            break
        held = context.cache.lock(path, wait=sharing == "locked")
        if held is not None:
            stack.callback(os.close, held)
            break
        attempt += 1  # private: another step has it
    if new and mount.options.get("from"):
        source = sources.source(context, mount.options["from"], instruction.where)
        writer = LayerWriter(path, Rootfs(()))
        for item in _items(source, mount, instruction):
            writer.put(item, item.to, None, None)
    given.binds.append((path, mount.target, not mount.writable))


def _secret(context: Context, instruction: Instruction, mount: Mount, given: Given) -> None:
    name = mount.options.get("id") or mount.first(_SOURCES) or posixpath.basename(mount.target)
    if not name:
        raise ImageError("a secret mount needs an id", where=instruction.where, code="KAP511")
    content = dict(context.options.secrets).get(name)
    if content is None:
        if required(mount):
            raise ImageError(
                f"secret {name}: not found", where=instruction.where, code="KAP510",
                hint=f"add it to build.secrets, or give --secret id={name},src=FILE",
            )  # fmt: skip
        return
    variable = mount.options.get("env")
    if variable:
        try:
            given.env.append(f"{variable}={content.decode()}")
        except UnicodeDecodeError:
            raise ImageError(f"secret {name} is no text", where=instruction.where, code="KAP510") from None
        if not mount.target:
            return
    path = f"{context.cache.secret()}/secret"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as f:
        f.write(content)
    os.chmod(path, mode_of(mount, instruction, 0o400))
    idmap.chown(path, *owner_of(mount, instruction))
    given.binds.append((path, mount.target or f"/run/secrets/{name}", True))


def required(mount: Mount) -> bool:
    return mount.options.get("required", "false").lower() in ("", "true", "1")


def mode_of(mount: Mount, instruction: Instruction, default: int) -> int:
    text = mount.options.get("mode", "")
    if not text:
        return default
    if not re.fullmatch(r"0?[0-7]{1,4}", text):
        raise ImageError(f"invalid value {text} for mode", where=instruction.where, code="KAP511")
    return int(text, 8)


def owner_of(mount: Mount, instruction: Instruction) -> Owner:
    found = []
    for key in ("uid", "gid"):
        text = mount.options.get(key, "")
        if text and not text.isdigit():
            raise ImageError(f"invalid value {text} for {key}", where=instruction.where, code="KAP511")
        found.append(int(text) if text else 0)
    return Owner(*found)


def _size(mount: Mount, instruction: Instruction) -> int | None:
    text = mount.options.get("size", "").lower()
    if not text:
        return None
    found = re.fullmatch(r"(\d+)([kmgt]?)i?b?", text)
    if found is None:
        raise ImageError(f"invalid value {text} for size", where=instruction.where, code="KAP511")
    return int(found[1]) << {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}[found[2]]
