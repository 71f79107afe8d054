"""What each instruction does to a stage. One function per instruction, in a table."""

from __future__ import annotations

import posixpath
import stat
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from kapelle.errors import ImageError
from kapelle.events import BuildOutput
from kapelle.images.build import copying, expand
from kapelle.images.build.copying import LayerWriter, Owner
from kapelle.images.build.dockerfile import Instruction
from kapelle.images.build.rootfs import Rootfs
from kapelle.images.build.state import StageState

if TYPE_CHECKING:
    from kapelle.images.build.builder import Context

Step = Callable[["Context", StageState, Instruction, str], None]


def perform(context: Context, state: StageState, instruction: Instruction, headline: str) -> None:
    STEPS[instruction.name](context, state, instruction, headline)


def _words(context: Context, state: StageState, instruction: Instruction) -> list[str]:
    return expand.words(instruction.text, state.lookup, context.escape)


def _said(context: Context, headline: str, *, cached: bool = False) -> None:
    context.emit(BuildOutput(context.options.service, headline, cached=cached))


def rootfs(context: Context, state: StageState) -> Rootfs:
    return Rootfs(tuple(context.store.layer_dir(d) for d in state.layers))


# ---- settings ----------------------------------------------------------------------------------------------


def _arg(context: Context, state: StageState, instruction: Instruction, _headline: str) -> None:
    for word in _words(context, state, instruction):
        key, equals, value = word.partition("=")
        if key in context.given:
            state.arguments[key] = context.given[key]
        elif equals:
            state.arguments[key] = value
        else:
            state.arguments[key] = context.arguments.get(key)


def _pairs(context: Context, state: StageState, instruction: Instruction) -> dict[str, str]:
    """`k=v k2="v 2"`, or the old `k the rest`."""
    first = instruction.text.split(None, 1)
    if "=" not in first[0] and len(first) == 2:
        return {first[0]: expand.word(first[1], state.lookup, context.escape)}
    found: dict[str, str] = {}
    for word in _words(context, state, instruction):
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise ImageError(
                f'Syntax error - can\'t find = in "{word}". Must be of the form: name=value',
                where=instruction.where,
                code="KAP511",
            )
        found[key] = value
    return found


def _env(context: Context, state: StageState, instruction: Instruction, headline: str) -> None:
    state.set_env(_pairs(context, state, instruction))
    _setting(context, state, instruction, headline)


def _label(context: Context, state: StageState, instruction: Instruction, headline: str) -> None:
    state.config["Labels"] = {**(state.config.get("Labels") or {}), **_pairs(context, state, instruction)}
    _setting(context, state, instruction, headline)


def _setting(context: Context, state: StageState, instruction: Instruction, headline: str) -> None:
    state.add_setting(str(instruction))
    _said(context, headline)


def _user(context: Context, state: StageState, instruction: Instruction, headline: str) -> None:
    state.config["User"] = expand.word(instruction.text, state.lookup, context.escape)
    _setting(context, state, instruction, headline)


def _expose(context: Context, state: StageState, instruction: Instruction, headline: str) -> None:
    ports = dict(state.config.get("ExposedPorts") or {})
    for word in _words(context, state, instruction):
        port, _, protocol = word.partition("/")
        first, _, last = port.partition("-")
        if not first.isdigit() or (last and not last.isdigit()):
            raise ImageError(f"invalid containerPort: {word}", where=instruction.where, code="KAP511")
        for number in range(int(first), int(last or first) + 1):
            ports[f"{number}/{protocol.lower() or 'tcp'}"] = {}
    state.config["ExposedPorts"] = ports
    _setting(context, state, instruction, headline)


def _volume(context: Context, state: StageState, instruction: Instruction, headline: str) -> None:
    words = instruction.json() or _words(context, state, instruction)
    state.config["Volumes"] = {**(state.config.get("Volumes") or {}), **{w: {} for w in words}}
    _setting(context, state, instruction, headline)


def _stopsignal(context: Context, state: StageState, instruction: Instruction, headline: str) -> None:
    state.config["StopSignal"] = expand.word(instruction.text, state.lookup, context.escape)
    _setting(context, state, instruction, headline)


def _shell(context: Context, state: StageState, instruction: Instruction, headline: str) -> None:
    words = instruction.json()
    if not words:
        raise ImageError("SHELL requires the arguments to be in JSON form", where=instruction.where, code="KAP511")
    state.shell = state.config["Shell"] = words
    _setting(context, state, instruction, headline)


def _cmd(context: Context, state: StageState, instruction: Instruction, headline: str) -> None:
    state.config["Cmd"] = instruction.json() if instruction.json() is not None else [*state.shell, instruction.text]
    state.command_set = True
    _setting(context, state, instruction, headline)


def _entrypoint(context: Context, state: StageState, instruction: Instruction, headline: str) -> None:
    words = instruction.json()
    state.config["Entrypoint"] = words if words is not None else [*state.shell, instruction.text]
    if not state.command_set:
        state.config.pop("Cmd", None)  # the base image's command was for the base image's entry point
    _setting(context, state, instruction, headline)


def _healthcheck(context: Context, state: StageState, instruction: Instruction, headline: str) -> None:
    word, _, rest = instruction.text.partition(" ")
    if word.upper() == "NONE":
        state.config["Healthcheck"] = {"Test": ["NONE"]}
        _setting(context, state, instruction, headline)
        return
    if word.upper() != "CMD":
        raise ImageError(f'Unknown type "{word}" in HEALTHCHECK (try CMD)', where=instruction.where, code="KAP511")
    command = instruction._replace(text=rest.strip())
    words = command.json()
    check: dict[str, Any] = {"Test": ["CMD", *words] if words is not None else ["CMD-SHELL", command.text]}
    for flag, key in (
        ("--interval", "Interval"), ("--timeout", "Timeout"), ("--start-period", "StartPeriod"),
        ("--start-interval", "StartInterval"),
    ):  # fmt: skip
        value = instruction.flag(flag)
        if value:
            check[key] = _nanoseconds(value, instruction)
    if instruction.flag("--retries"):
        check["Retries"] = int(instruction.flag("--retries"))
    state.config["Healthcheck"] = check
    _setting(context, state, instruction, headline)


def _nanoseconds(text: str, instruction: Instruction) -> int:
    import re

    unit = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
    if not re.fullmatch(r"(\d+(\.\d+)?(h|ms|m|s|us|ns))+", text):
        raise ImageError(f"invalid duration {text}", where=instruction.where, hint="write 30s or 1m30s", code="KAP511")
    return round(sum(float(n) * unit[u] for n, _, u in re.findall(r"(\d+(\.\d+)?)(h|ms|m|s|us|ns)", text)) * 1e9)


def _onbuild(context: Context, state: StageState, instruction: Instruction, headline: str) -> None:
    state.config["OnBuild"] = [*(state.config.get("OnBuild") or ()), instruction.text]
    _setting(context, state, instruction, headline)


def _maintainer(context: Context, state: StageState, instruction: Instruction, headline: str) -> None:
    _setting(context, state, instruction, headline)


# ---- layers ------------------------------------------------------------------------------------------------


def _workdir(context: Context, state: StageState, instruction: Instruction, headline: str) -> None:
    path = expand.word(instruction.text, state.lookup, context.escape)
    path = posixpath.normpath(posixpath.join(state.config.get("WorkingDir") or "/", path))
    state.config["WorkingDir"] = path
    tree = rootfs(context, state)
    real = tree.resolve(path)
    if not real or tree.entry(real) is not None:
        _setting(context, state, instruction, headline)
        return

    def make(diff: str, _work: str) -> None:
        LayerWriter(diff, tree).directory(real)

    _layer(context, state, instruction, headline, ("workdir", path), make)


def _layer(
    context: Context,
    state: StageState,
    instruction: Instruction,
    headline: str,
    meaning: tuple[Any, ...],
    make: Callable[[str, str], None],
) -> None:
    """A step that changes files: its layer from the cache, or made now."""
    key = state.meaning(*meaning)
    known = None if context.options.no_cache else context.cache.find(key)
    if known is not None and context.store.has_layer(str(known["layer"])):
        state.add_layer(str(known["layer"]), key, str(instruction))
        _said(context, headline, cached=True)
        return
    _said(context, headline)
    with context.store.new_layer() as place:
        make(f"{place}/diff", f"{place}/work")
        diff_id = context.store.commit_layer(f"{place}/diff")
    context.cache.put(key, {"layer": diff_id})
    state.add_layer(diff_id, key, str(instruction))


def _owner(context: Context, state: StageState, instruction: Instruction) -> Owner | None:
    text = expand.word(instruction.flag("--chown"), state.lookup, context.escape)
    if not text:
        return None
    tree = rootfs(context, state)
    user, _, group = text.partition(":")

    def number(name: str, file: str, what: str) -> tuple[int, int]:
        if name.isdigit():
            return int(name), int(name)
        for line in tree.read(file).splitlines():
            row = line.split(":")
            if len(row) > 2 and row[0] == name and row[2].isdigit():
                return int(row[2]), int(row[3]) if len(row) > 3 and row[3].isdigit() else int(row[2])
        raise ImageError(f"unable to find {what} {name} in the image", where=instruction.where, code="KAP510")

    uid, own_group = number(user, "etc/passwd", "user") if user else (0, 0)
    gid = number(group, "etc/group", "group")[0] if group else own_group
    return Owner(uid, gid)


def _source_tree(context: Context, state: StageState, instruction: Instruction) -> tuple[Rootfs, str]:
    """(tree, a key for it; "" for the build context, whose content is digested)."""
    name = expand.word(instruction.flag("--from"), state.lookup, context.escape)
    if not name:
        return context.tree, ""
    for key, path in context.options.build.additional_contexts:
        if key == name and "://" not in path:
            return Rootfs((path,)), ""
    stage = context.stages.find(name)
    if stage is not None and stage.number in context.done:
        other = context.done[stage.number]
        return rootfs(context, other), other.key
    image = context.resolve(name)
    return Rootfs(context.store.layer_dirs(image)), image.id


def _copy(context: Context, state: StageState, instruction: Instruction, headline: str) -> None:
    words = instruction.json() or _words(context, state, instruction)
    markers = [w for w in words if w.startswith("<<")]
    if len(words) < 2:
        raise ImageError(
            f"{instruction.name} requires at least two arguments, but only one was provided",
            where=instruction.where, hint=f"{instruction.name} SOURCE DESTINATION", code="KAP511",
        )  # fmt: skip
    *sources, to = words
    plain = [s for s in sources if s not in markers]
    remote = [s for s in plain if instruction.name == "ADD" and s.startswith(("http://", "https://"))]
    git = [s for s in plain if instruction.name == "ADD" and (s.startswith("git@") or s.endswith(".git"))]
    if git:
        raise ImageError(
            f"ADD of a git repository is not here: {git[0]}", where=instruction.where, hint="clone it and COPY",
            code="KAP511",
        )  # fmt: skip
    tree, tree_key = _source_tree(context, state, instruction)
    parents = any(k == "--parents" and v != "false" for k, v in instruction.flags)
    exclude = tuple(v for k, v in instruction.flags if k == "--exclude")
    ignore = context.ignore if tree is context.tree else None
    chosen: list[tuple[str, list[copying.Item]]] = []
    for pattern in (s for s in plain if s not in remote):
        found = copying.select(tree, pattern, ignore, exclude, parents=parents)
        if not found and not any(c in pattern for c in "*?["):
            left_out = ignore is not None and ignore.ignores(pattern.strip("./"))
            raise ImageError(
                f'"{pattern}" not found in the build context'
                if not tree_key
                else f'"{pattern}" not found in {instruction.flag("--from")}',
                where=instruction.where,
                hint=".dockerignore leaves it out" if left_out else "paths are below build.context",
                code="KAP510",
            )
        chosen += found
    if not chosen and not remote and not markers:
        raise ImageError(f"no source files were found: {' '.join(sources)}", where=instruction.where, code="KAP510")
    downloads = [(url, _download(context, url, instruction)) for url in remote]
    heredocs = [
        (h.name, expand.variables(h.content, state.lookup) if h.expand else h.content) for h in instruction.heredocs
    ]
    owner, mode = _owner(context, state, instruction), _mode(instruction)
    cwd = state.config.get("WorkingDir") or "/"
    content = (
        [[path, copying.digest_rows(items, context.cache)] for path, items in chosen] if not tree_key else [tree_key]
    )
    meaning = (
        instruction.name.lower(), sources, to, cwd, owner, mode, exclude, parents, content, heredocs,
        [[u, __import__("hashlib").sha256(d).hexdigest()] for u, d in downloads],
    )  # fmt: skip
    below = rootfs(context, state)

    def make(diff: str, _work: str) -> None:
        writer = LayerWriter(diff, below)
        into = len(chosen) + len(heredocs) + len(downloads) > 1
        place = copying.destination(below, to, cwd, chosen, into=into)
        for path, items in chosen:
            _put(instruction, writer, diff, below, place, path, items, owner, mode, parents=parents)
        for name, text in heredocs:
            writer.text(place + name if place.endswith("/") else place, text, owner, mode)
        for url, data in downloads:
            _put_download(writer, place, url, data, owner, mode)

    _layer(context, state, instruction, headline, meaning, make)


def _put(
    instruction: Instruction, writer: LayerWriter, diff: str, below: Rootfs, place: str, path: str,
    items: list[copying.Item], owner: Owner | None, mode: int | None, *, parents: bool,
) -> None:  # fmt: skip
    """One chosen source into its place: a file, an archive to unpack (ADD), or a folder's content."""
    single = (
        len(items) == 1 and not stat.S_ISDIR(items[0].entry.info.st_mode) and items[0].to == posixpath.basename(path)
    )
    if single and not parents:
        item = items[0]
        if (
            instruction.name == "ADD"
            and stat.S_ISREG(item.entry.info.st_mode)
            and copying.extract(item.entry.real, diff, below, place.strip("/"))
        ):
            return
        writer.put(item, f"{place}{item.to}".strip("/") if place.endswith("/") else place, owner, mode)
        return
    writer.directory(place.strip("/"), owner or Owner(0, 0))
    for item in items:
        writer.put(item, f"{place.strip('/')}/{item.to}".strip("/"), owner, mode)


def _put_download(
    writer: LayerWriter, place: str, url: str, data: bytes, owner: Owner | None, mode: int | None
) -> None:
    name = posixpath.basename(url.partition("?")[0]) or "index"
    path = f"{place}{name}".strip("/") if place.endswith("/") else place
    writer.text(path, "", owner, 0o600 if mode is None else mode)
    with open(f"{writer.diff}/{path}", "wb") as f:
        f.write(data)


def _download(context: Context, url: str, instruction: Instruction) -> bytes:
    from kapelle.images import offline, proxies, registry

    offline.refuse(context.environ, f"ADD {url}", where=instruction.where)
    pool = registry.open_pool(proxies.for_url(url, context.environ) or "", context.environ)
    try:
        answer = pool.request("GET", url, timeout=60, retries=2)
    except Exception as e:
        raise ImageError(f"ADD {url}: {type(e).__name__}: {e}", where=instruction.where, code="KAP510") from None
    if answer.status != 200:
        raise ImageError(f"ADD {url}: the server answers {answer.status}", where=instruction.where, code="KAP510")
    data: bytes = answer.data
    wanted = instruction.flag("--checksum")
    if wanted:
        import hashlib

        if wanted != f"sha256:{hashlib.sha256(data).hexdigest()}":
            raise ImageError(f"ADD {url}: digest mismatch, wanted {wanted}", where=instruction.where, code="KAP510")
    return data


def _mode(instruction: Instruction) -> int | None:
    text = instruction.flag("--chmod")
    if not text:
        return None
    try:
        return int(text, 8)
    except ValueError:
        raise ImageError(
            f"invalid --chmod {text}", where=instruction.where, hint="write it as 755", code="KAP511"
        ) from None


def _run(context: Context, state: StageState, instruction: Instruction, headline: str) -> None:
    from kapelle.images.build.running import run_step

    arguments = {k: v for k, v in sorted(state.arguments.items()) if v is not None}
    heredocs = [list(h) for h in instruction.heredocs]
    meaning = (
        "run", instruction.text, instruction.flags, heredocs, state.shell, arguments, state.config.get("Env"),
        state.config.get("User"), state.config.get("WorkingDir"),
    )  # fmt: skip
    _layer(
        context, state, instruction, headline, meaning,
        lambda diff, work: run_step(context, state, instruction, headline, diff, work),
    )  # fmt: skip


STEPS: dict[str, Step] = {
    "ADD": _copy, "ARG": _arg, "CMD": _cmd, "COPY": _copy, "ENTRYPOINT": _entrypoint, "ENV": _env, "EXPOSE": _expose,
    "HEALTHCHECK": _healthcheck, "LABEL": _label, "MAINTAINER": _maintainer, "ONBUILD": _onbuild, "RUN": _run,
    "SHELL": _shell, "STOPSIGNAL": _stopsignal, "USER": _user, "VOLUME": _volume, "WORKDIR": _workdir,
}  # fmt: skip
