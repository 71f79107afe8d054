"""What each instruction does to a stage. One function per instruction, in a table."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable

from kapelle.errors import ImageError
from kapelle.images.build import dockerfile, expand, making, owners, running, transfer
from kapelle.images.build.context import Context
from kapelle.images.build.copying import LayerWriter
from kapelle.images.build.dockerfile import Instruction
from kapelle.images.build.owners import ROOT
from kapelle.images.build.sources import rootfs
from kapelle.images.build.state import StageState
from kapelle.light import Any

Step = Callable[[Context, StageState, Instruction], None]
Making = Callable[..., None]  # …, headline, *, fresh

_FIRST = re.compile(r"""(?:"(?:\\.|[^"])*"|'[^']*'|[^\s"'])+""")  # a word, its quotes kept

SHOWN = ("ADD", "COPY", "RUN", "WORKDIR")  # steps with a number; the others change the config alone


def perform(context: Context, state: StageState, instruction: Instruction, headline: str, *, fresh: bool) -> None:
    """Do one instruction. `fresh`: not from the cache."""
    setting = SETTINGS.get(instruction.name)
    if setting is not None:
        setting(context, state, instruction)
        if instruction.name != "ARG":
            making.setting(state, instruction)
        return
    LAYERS[instruction.name](context, state, instruction, headline, fresh=fresh)


def _words(context: Context, state: StageState, instruction: Instruction) -> list[str]:
    given = instruction.json()
    if given is not None:
        return [expand.word(w, state.lookup, context.escape) for w in given]
    return expand.words(instruction.text, state.lookup, context.escape)


# ---- settings ----------------------------------------------------------------------------------------------


def _arg(context: Context, state: StageState, instruction: Instruction) -> None:
    for word in expand.words(instruction.text, state.lookup, context.escape):
        key, equals, value = word.partition("=")
        if key in context.given:
            state.arguments[key] = context.given[key]
        elif equals:
            state.arguments[key] = value
        else:
            state.arguments[key] = context.arguments.get(key)


def _pairs(context: Context, state: StageState, instruction: Instruction) -> dict[str, str]:
    """`k=v k2="v 2"`, or the old `k the rest`."""
    first = _FIRST.match(instruction.text)
    rest = instruction.text[first.end() :].strip() if first is not None else ""
    if first is not None and "=" not in first[0] and rest:
        return {expand.word(first[0], state.lookup, context.escape): expand.word(rest, state.lookup, context.escape)}
    found: dict[str, str] = {}
    for word in expand.words(instruction.text, state.lookup, context.escape):
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise ImageError(
                f'Syntax error - can\'t find = in "{word}". Must be of the form: name=value',
                where=instruction.where,
                code="KAP511",
            )
        found[key] = value
    return found


def _env(context: Context, state: StageState, instruction: Instruction) -> None:
    state.set_env(_pairs(context, state, instruction))


def _label(context: Context, state: StageState, instruction: Instruction) -> None:
    state.config["Labels"] = {**(state.config.get("Labels") or {}), **_pairs(context, state, instruction)}


def _user(context: Context, state: StageState, instruction: Instruction) -> None:
    state.config["User"] = expand.word(instruction.text, state.lookup, context.escape)


def _expose(context: Context, state: StageState, instruction: Instruction) -> None:
    ports = dict(state.config.get("ExposedPorts") or {})
    for word in _words(context, state, instruction):
        port, _, protocol = word.partition("/")
        first, _, last = port.partition("-")
        if not first.isdigit() or (last and not last.isdigit()):
            raise ImageError(f"invalid containerPort: {word}", where=instruction.where, code="KAP511")
        if not 0 < int(first) <= int(last or first) <= 65535:
            raise ImageError(f"invalid containerPort: {word}", where=instruction.where, code="KAP511")
        for number in range(int(first), int(last or first) + 1):
            ports[f"{number}/{protocol.lower() or 'tcp'}"] = {}
    state.config["ExposedPorts"] = ports


def _volume(context: Context, state: StageState, instruction: Instruction) -> None:
    words = _words(context, state, instruction)
    state.config["Volumes"] = {**(state.config.get("Volumes") or {}), **{w: {} for w in words}}


def _stopsignal(context: Context, state: StageState, instruction: Instruction) -> None:
    state.config["StopSignal"] = expand.word(instruction.text, state.lookup, context.escape)


def _shell(context: Context, state: StageState, instruction: Instruction) -> None:
    words = instruction.json()
    if not words:
        raise ImageError("SHELL requires the arguments to be in JSON form", where=instruction.where, code="KAP511")
    state.shell = state.config["Shell"] = words


def _cmd(context: Context, state: StageState, instruction: Instruction) -> None:
    state.config["Cmd"] = instruction.json() if instruction.json() is not None else [*state.shell, instruction.text]
    state.command_set = True


def _entrypoint(context: Context, state: StageState, instruction: Instruction) -> None:
    words = instruction.json()
    state.config["Entrypoint"] = words if words is not None else [*state.shell, instruction.text]
    if not state.command_set:
        state.config.pop("Cmd", None)  # the base image's command was for the base image's entry point


def _healthcheck(context: Context, state: StageState, instruction: Instruction) -> None:
    word, _, rest = instruction.text.partition(" ")
    if word.upper() == "NONE":
        state.config["Healthcheck"] = {"Test": ["NONE"]}
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
        retries = instruction.flag("--retries")
        if not retries.isdigit():
            raise ImageError(f"invalid --retries {retries}", where=instruction.where, code="KAP511")
        check["Retries"] = int(retries)
    state.config["Healthcheck"] = check


def _nanoseconds(text: str, instruction: Instruction) -> int:
    unit = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
    if not re.fullmatch(r"(\d+(\.\d+)?(h|ms|m|s|us|ns))+", text):
        raise ImageError(f"invalid duration {text}", where=instruction.where, hint="write 30s or 1m30s", code="KAP511")
    return round(sum(float(n) * unit[u] for n, _, u in re.findall(r"(\d+(\.\d+)?)(h|ms|m|s|us|ns)", text)) * 1e9)


def _onbuild(context: Context, state: StageState, instruction: Instruction) -> None:
    word = instruction.text.split(None, 1)[0].upper()
    if word in ("ONBUILD", "FROM", "MAINTAINER"):
        raise ImageError(f"{word} isn't allowed as an ONBUILD trigger", where=instruction.where, code="KAP511")
    bodies = "".join(f"\n{h.content}{h.name}" for h in instruction.heredocs)
    dockerfile.parse(instruction.text + bodies, str(instruction.where.file))  # what can't be read is told now
    state.config["OnBuild"] = [*(state.config.get("OnBuild") or ()), instruction.text + bodies]


def _maintainer(_context: Context, state: StageState, instruction: Instruction) -> None:
    state.author = instruction.text


# ---- layers ------------------------------------------------------------------------------------------------


def _workdir(context: Context, state: StageState, instruction: Instruction, headline: str, *, fresh: bool) -> None:
    path = expand.word(instruction.text, state.lookup, context.escape)
    path = posixpath.normpath(posixpath.join(state.config.get("WorkingDir") or "/", path))
    path = "/" + path.lstrip("/")
    state.config["WorkingDir"] = path
    tree = rootfs(context, state)
    real = tree.resolve(path)
    if not real or tree.entry(real) is not None:
        context.say(headline, cached=True)
        making.setting(state, instruction)
        return
    user = state.config.get("User") or ""
    owner = owners.lookup(user, tree, instruction.where) if user else ROOT

    def make(diff: str, _work: str) -> None:
        LayerWriter(diff, tree).directory(real, owner)

    key = making.key(context, state, "workdir", real, owner)
    making.layer(context, state, headline, str(instruction), (key,), make, fresh=fresh)


SETTINGS: dict[str, Step] = {
    "ARG": _arg, "CMD": _cmd, "ENTRYPOINT": _entrypoint, "ENV": _env, "EXPOSE": _expose, "HEALTHCHECK": _healthcheck,
    "LABEL": _label, "MAINTAINER": _maintainer, "ONBUILD": _onbuild, "SHELL": _shell, "STOPSIGNAL": _stopsignal,
    "USER": _user, "VOLUME": _volume,
}  # fmt: skip
LAYERS: dict[str, Making] = {"ADD": transfer.copy, "COPY": transfer.copy, "RUN": running.run, "WORKDIR": _workdir}
