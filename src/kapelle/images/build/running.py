"""RUN: the command, its mounts and its environment → a RunRequest; its output → events; its failure → a message."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack

from kapelle.errors import EngineError, ImageError
from kapelle.images.build import hostsettings, making, mounts
from kapelle.images.build.context import Cancelled, Context
from kapelle.images.build.dockerfile import Instruction, markers
from kapelle.images.build.state import StageState
from kapelle.images.types import RunRequest

_LAST_LINES = 20
_SCRIPT = "/run/kapelle-heredoc"
_NETWORKS = ("default", "none", "host")


def run(context: Context, state: StageState, instruction: Instruction, headline: str, *, fresh: bool) -> None:
    """RUN. ImageError KAP510 when the command fails."""
    _allowed(context, instruction)
    found = mounts.read(context, state, instruction)
    arguments = _arguments(context, state)
    words, script = command(state, instruction)
    meaning = (
        "run", words, script, arguments, state.config.get("Env"), state.config.get("User"),
        state.config.get("WorkingDir"), network(context, instruction), mounts.meaning(context, found, instruction),
    )  # fmt: skip
    shown = f"|{len(arguments)} {' '.join(f'{k}={v}' for k, v in arguments.items())} " if arguments else ""
    created_by = f"RUN {shown}{' '.join(words)}"

    def make(diff: str, work: str) -> None:
        with ExitStack() as stack:
            given = mounts.give(context, instruction, found, stack)
            try:
                _perform(context, state, instruction, headline, diff, work, given, words, script)
                return
            except EngineError:
                if not given.masked:
                    raise
        with ExitStack() as stack:  # the context's file system takes no overlay
            given = mounts.give(context, instruction, found, stack, masks=False)
            _perform(context, state, instruction, headline, diff, work, given, words, script)

    making.layer(context, state, headline, created_by, (making.key(context, state, *meaning),), make, fresh=fresh)


def _allowed(context: Context, instruction: Instruction) -> None:
    """A build step has what a container has, never more."""
    if instruction.flag("--security", "sandbox") != "sandbox":
        raise ImageError(
            f"RUN --security={instruction.flag('--security')} is not given: a build step has no more rights than any "
            "container",
            where=instruction.where, code="KAP511", hint="leave the flag out; what needs it can be done by kap run",
        )  # fmt: skip
    if instruction.all("--device"):
        raise ImageError(
            "RUN --device is not given: build steps get no devices", where=instruction.where, code="KAP511",
            hint="leave the flag out",
        )  # fmt: skip
    wanted = instruction.flag("--network")
    if wanted and wanted not in _NETWORKS:
        raise ImageError(
            f'unsupported network "{wanted}"', where=instruction.where, hint="default, none or host", code="KAP511"
        )
    if wanted == "host" and context.options.build.network != "host" and "network.host" not in context.options.allow:
        raise ImageError(
            "RUN --network=host needs the consent of who builds", where=instruction.where, code="KAP511",
            hint="build.network: host (or build.entitlements: [network.host], or --allow network.host)",
        )  # fmt: skip


def network(context: Context, instruction: Instruction) -> str:
    return instruction.flag("--network") or context.options.build.network or "default"


def _arguments(context: Context, state: StageState) -> dict[str, str]:
    """Build arguments that are set and have been declared."""
    return {k: v for k, v in sorted(state.arguments.items()) if v is not None and k not in state.env()}


def command(state: StageState, instruction: Instruction) -> tuple[list[str], str]:
    """The words to run, and a script that has to be in a file (a heredoc with #!)."""
    words = instruction.json()
    if words is not None:
        return words, ""
    if not instruction.heredocs:
        return [*state.shell, instruction.text], ""
    first = instruction.heredocs[0]
    if not _alone(instruction):
        bodies = "".join(f"\n{h.content}{h.name}" for h in instruction.heredocs)
        return [*state.shell, instruction.text + bodies], ""
    if not first.content.startswith("#!"):
        return [*state.shell, first.content], ""
    return [_SCRIPT], first.content


def _alone(instruction: Instruction) -> bool:
    """Is the heredoc itself the command, not a file given to one?"""
    text = instruction.text
    return len(markers(text)) == 1 and len(text.split()) == 1


def _perform(
    context: Context, state: StageState, instruction: Instruction, headline: str, diff: str, work: str,
    given: mounts.Given, words: list[str], script: str,
) -> None:  # fmt: skip
    env, binds = environment(context, state)
    more: list[tuple[str, str, bool]] = []
    if script:
        path = f"{context.cache.secret()}/script"
        with open(path, "w", encoding="utf-8") as f:
            f.write(script)
        os.chmod(path, 0o755)
        more.append((path, _SCRIPT, True))
    output = _Output(context, headline)
    build = context.options.build
    code = context.run(
        RunRequest(
            layers=tuple(context.store.layer_dir(d) for d in state.layers),
            upper=diff,
            work=work,
            args=tuple(words),
            env=(*env, *given.env),
            cwd=state.config.get("WorkingDir") or "/",
            user=state.config.get("User") or "",
            binds=(*binds, *given.binds, *more),
            stacks=tuple(given.stacks),
            tmpfs=tuple(given.tmpfs),
            network=network(context, instruction),
            extra_hosts=build.extra_hosts,
            hostname=context.given.get("BUILDKIT_SANDBOX_HOSTNAME", "buildkitsandbox"),
            shm_size=build.shm_size,
            ulimits=tuple((u.name, u.soft, u.hard) for u in build.ulimits),
            cancelled=context.cancelled,
            output=output.take,
        )
    )
    output.close()
    if context.failed:
        raise Cancelled("another stage has failed")
    if code:
        raise _failure(context, instruction, words, code, output)


def _failure(context: Context, instruction: Instruction, words: list[str], code: int, output: _Output) -> ImageError:
    service = context.options.service
    whose = f'the build of service "{service}" failed: ' if service else ""
    text = " ".join(words)
    text = text if len(text) < 160 else f"{text[:157]}…"
    killed = " (killed: out of memory?)" if code == 137 else ""
    return ImageError(
        f'{whose}process "{text}" did not complete successfully: exit code: {code}{killed}',
        where=instruction.where,
        details=tuple(("output" if n == 0 else "", line) for n, line in enumerate(output.last)),
        hint="the steps before it are cached: mend the line and build again",
        code="KAP510",
    )


class _Output:
    """Bytes of a step → lines as events; the last ones are kept for the message."""

    def __init__(self, context: Context, headline: str) -> None:
        self.context = context
        self.headline = headline
        self.began = time.monotonic()
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
        self.context.say(self.headline, text, stream, seconds=time.monotonic() - self.began)


def environment(context: Context, state: StageState) -> tuple[tuple[str, ...], tuple[tuple[str, str, bool], ...]]:
    """Variables and mounts of a RUN: ARG under ENV; the host's proxies, and its settings when asked for."""
    settings = hostsettings.HostSettings(hostsettings.proxies(context.environ))
    if context.options.host_settings:
        more = hostsettings.host_settings(context.environ)
        settings = hostsettings.HostSettings((*settings.env, *more.env), more.binds)
    rows = {row.partition("=")[0]: row.partition("=")[2] for row in settings.env}
    rows.update({k: v for k, v in context.given.items() if k.upper() in hostsettings.PROXIES})
    rows.update({k: v for k, v in state.arguments.items() if v is not None})
    rows.update(state.env())
    return tuple(f"{k}={v}" for k, v in rows.items()), settings.binds
