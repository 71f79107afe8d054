"""RUN: the command, its mounts and its environment → a RunRequest; its output → events; its failure → a message."""

from __future__ import annotations

import os
import tempfile
from contextlib import ExitStack
from typing import TYPE_CHECKING

from kapelle.errors import ImageError
from kapelle.events import BuildOutput
from kapelle.images.build import expand
from kapelle.images.build.dockerfile import Instruction
from kapelle.images.build.state import StageState
from kapelle.images.types import RunRequest
from kapelle.linux import idmap

if TYPE_CHECKING:
    from kapelle.images.build.builder import Context

_LAST_LINES = 10


def run_step(
    context: Context, state: StageState, instruction: Instruction, headline: str, diff: str, work: str
) -> None:
    """Run the command over the stage's layers; its changes are left in `diff`. ImageError KAP510 when it fails."""
    from kapelle.images.build.builder import run_environment

    env, binds = run_environment(context, state)
    with ExitStack() as stack:
        mounts, tmpfs, secrets = _mounts(context, state, instruction, stack)
        args, more = _command(state, instruction, stack)
        output = _Output(context, headline)
        code = context.run(
            RunRequest(
                layers=tuple(context.store.layer_dir(d) for d in state.layers),
                upper=diff,
                work=work,
                args=tuple(args),
                env=(*env, *secrets),
                cwd=state.config.get("WorkingDir") or "/",
                user=state.config.get("User") or "",
                binds=(*binds, *mounts, *more),
                tmpfs=tuple(tmpfs),
                network=instruction.flag("--network") or context.options.build.network or "default",
                extra_hosts=context.options.build.extra_hosts,
                shm_size=context.options.build.shm_size,
                output=output.take,
            )
        )
        output.close()
    if code:
        shown = instruction.text if len(instruction.text) < 200 else instruction.text[:200] + "…"
        details = [("command", shown)]
        details += [("output" if n == 0 else "", line) for n, line in enumerate(output.last)]
        raise ImageError(
            f'the build of service "{context.options.service}" failed: process "{_shown(args)}" '
            f"did not complete successfully: exit code: {code}",
            where=instruction.where,
            details=tuple(details),
            hint="the steps before it are cached: mend the line and build again",
            code="KAP510",
        )


def _shown(args: list[str]) -> str:
    text = " ".join(args)
    return text if len(text) < 120 else text[:117] + "…"


class _Output:
    """Bytes of a step → lines as events; the last ones are kept for the message."""

    def __init__(self, context: Context, headline: str) -> None:
        self.context = context
        self.headline = headline
        self.pending = {"stdout": b"", "stderr": b""}
        self.last: list[str] = []

    def take(self, stream: str, data: bytes) -> None:
        *whole, rest = (self.pending[stream] + data).replace(b"\r\n", b"\n").split(b"\n")
        self.pending[stream] = rest
        for line in whole:
            self._say(stream, line)

    def close(self) -> None:
        for stream, rest in self.pending.items():
            if rest:
                self._say(stream, rest)

    def _say(self, stream: str, line: bytes) -> None:
        text = line.decode("utf-8", "replace").rpartition("\r")[2]
        self.last = [*self.last, text][-_LAST_LINES:] if text.strip() else self.last
        self.context.emit(BuildOutput(self.context.options.service, self.headline, text, stream))


def _command(
    state: StageState, instruction: Instruction, stack: ExitStack
) -> tuple[list[str], list[tuple[str, str, bool]]]:
    """The words to run, and the mounts that they need (a script from a heredoc)."""
    words = instruction.json()
    if words is not None:
        return words, []
    if not instruction.heredocs:
        return [*state.shell, instruction.text], []
    first = instruction.heredocs[0]
    alone = instruction.text.lstrip("<-").strip("'\" ") == first.name
    if not alone:
        bodies = "".join(f"\n{h.content}{h.name}" for h in instruction.heredocs)
        return [*state.shell, instruction.text + bodies], []
    if not first.content.startswith("#!"):
        return [*state.shell, first.content], []
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="kap-heredoc-"))
    script = os.path.join(folder, "script")
    with open(script, "w") as f:
        f.write(first.content)
    os.chmod(script, 0o755)
    return ["/run/kapelle-heredoc"], [(script, "/run/kapelle-heredoc", True)]


def _mounts(
    context: Context, state: StageState, instruction: Instruction, stack: ExitStack
) -> tuple[list[tuple[str, str, bool]], list[tuple[str, int | None]], list[str]]:
    """--mount flags → binds, tmpfs, and variables of secrets."""
    binds: list[tuple[str, str, bool]] = []
    tmpfs: list[tuple[str, int | None]] = []
    env: list[str] = []
    for key, value in instruction.flags:
        if key != "--mount":
            continue
        options = dict(
            (k, v)
            for k, _, v in (p.partition("=") for p in expand.word(value, state.lookup, context.escape).split(","))
        )
        kind = options.get("type", "bind")
        target = options.get("target") or options.get("dst") or options.get("destination") or ""
        if target and not target.startswith("/"):
            target = os.path.join(state.config.get("WorkingDir") or "/", target)
        if kind == "cache":
            binds.append((context.cache.mount(options.get("id") or target), target, "readonly" in options))
        elif kind == "tmpfs":
            tmpfs.append((target, int(options["size"]) if options.get("size", "").isdigit() else None))
        elif kind == "bind":
            binds.append(_bind(context, instruction, options, target))
        elif kind == "secret":
            _secret(context, instruction, options, target, binds, env, stack)
        else:
            raise ImageError(
                f"RUN --mount=type={kind} can't be honoured", where=instruction.where, code="KAP511",
                hint="bind, cache, secret and tmpfs are here",
            )  # fmt: skip
    return binds, tmpfs, env


def _bind(context: Context, instruction: Instruction, options: dict[str, str], target: str) -> tuple[str, str, bool]:
    from kapelle.images.build.steps import rootfs

    name = options.get("from", "")
    source = (options.get("source") or options.get("src") or "").strip("/")
    tree = context.tree
    if name:
        stage = context.stages.find(name)
        if stage is not None and stage.number in context.done:
            tree = rootfs(context, context.done[stage.number])
        else:
            from kapelle.images.build.rootfs import Rootfs

            tree = Rootfs(context.store.layer_dirs(context.resolve(name)))
    found = tree.entry(tree.resolve(source))
    if found is None:
        raise ImageError(f"mount source {source or '/'} not found", where=instruction.where, code="KAP510")
    return found.real, target, True


def _secret(
    context: Context,
    instruction: Instruction,
    options: dict[str, str],
    target: str,
    binds: list[tuple[str, str, bool]],
    env: list[str],
    stack: ExitStack,
) -> None:
    name = options.get("id") or os.path.basename(target)
    content = dict(context.secrets).get(name)
    if content is None:
        if options.get("required") in ("true", "") and "required" in options:
            raise ImageError(
                f"secret {name}: not found", where=instruction.where, code="KAP510", hint="add it to build.secrets"
            )
        return
    if options.get("env"):
        env.append(f"{options['env']}={content}")
        if not target:
            return
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="kap-secret-"))
    path = os.path.join(folder, "secret")
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(fd, "w") as f:
        f.write(content)
    os.chmod(path, int(options.get("mode", "0400"), 8))
    if options.get("uid") or options.get("gid"):
        idmap.chown(path, int(options.get("uid") or 0), int(options.get("gid") or 0))
    binds.append((path, target or f"/run/secrets/{name}", True))
