"""Walks the stages a target needs and makes an image of them. Steps done before come from the cache."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import Any

from kapelle.errors import ImageError, KapelleError, Position
from kapelle.events import BuildOutput, Emit, Notice, Progress
from kapelle.images.build import dockerfile, expand, hostsettings, stages
from kapelle.images.build.cache import Cache, key_of
from kapelle.images.build.ignore import Ignore
from kapelle.images.build.rootfs import Rootfs
from kapelle.images.build.state import StageState
from kapelle.images.store import Store
from kapelle.images.types import Image, Runner
from kapelle.light import NamedTuple
from kapelle.model.service import Build

NOT_HONOURED = (
    ("ssh", "SSH agents are not given to builds"),
    ("cache_to", "caches are not exported"),
    ("cache_from", "caches are not imported; the local one is used"),
)


class BuildOptions(NamedTuple):
    name: str  # the image's name
    service: str
    build: Build
    no_cache: bool = False
    pull: bool = False
    host_settings: bool = False
    secrets: tuple[tuple[str, str], ...] = ()  # name, content: for RUN --mount=type=secret


class Context(NamedTuple):
    """What every stage of one build shares."""

    options: BuildOptions
    store: Store
    cache: Cache
    run: Runner
    resolve: Callable[[str], Image]
    emit: Emit
    environ: Mapping[str, str]
    stages: stages.Stages
    escape: str
    tree: Rootfs  # the build context
    ignore: Ignore
    arguments: Mapping[str, str]  # ARG before FROM, with --build-arg
    given: Mapping[str, str]  # --build-arg and build.args
    total: int  # steps of all needed stages
    done: dict[int, StageState]  # finished stages
    step: list[int]  # steps so far

    @property
    def secrets(self) -> tuple[tuple[str, str], ...]:
        return self.options.secrets


def build(
    options: BuildOptions,
    store: Store,
    run: Runner,
    resolve: Callable[[str], Image],
    emit: Emit,
    environ: Mapping[str, str],
) -> Image:
    """Build an image and name it. Raises ImageError with the Dockerfile's line; earlier steps stay cached."""
    emit(Progress("service", options.name, "Building"))
    for key, reason in NOT_HONOURED:
        if getattr(options.build, key):
            emit(Notice(f"build.{key} of service {options.service}: {reason}"))
    text, name, ignore = _files(options.build)
    parsed = dockerfile.parse(text, name)
    split = stages.split(parsed)
    target = stages.target(split, options.build.target)
    cache = Cache(store.root)
    given = {k: v for k, v in options.build.args if v is not None}
    arguments = _global_arguments(split, given, parsed.escape)
    needed = _needed(split, target, arguments, parsed.escape)
    context = Context(
        options=options,
        store=store,
        cache=cache,
        run=run,
        resolve=resolve,
        emit=emit,
        environ=environ,
        stages=split,
        escape=parsed.escape,
        tree=Rootfs((options.build.context,)),
        ignore=ignore,
        arguments=arguments,
        given=given,
        total=sum(1 + sum(i.name not in ("ARG",) for i in s.instructions) for s in needed),
        done={},
        step=[0],
    )
    try:
        for stage in needed:
            _stage(context, stage)
        image = _finish(context, context.done[target.number])
    finally:
        cache.close()
    emit(Progress("service", options.name, "Built", "done"))
    return image


def _files(wanted: Build) -> tuple[str, str, Ignore]:
    """(Dockerfile text, its name in messages, the ignore rules)."""
    if "://" in wanted.context or wanted.context.startswith("git@"):
        raise ImageError(
            f"a build context that is a URL can't be used: {wanted.context}",
            hint="clone it, and give the folder as context",
            code="KAP511",
        )
    if not os.path.isdir(wanted.context):
        raise ImageError(
            f"unable to prepare context: path {wanted.context} not found", code="KAP511", hint="check build.context"
        )
    path = os.path.join(wanted.context, wanted.dockerfile)
    ignore_text = ""
    for candidate in (f"{path}.dockerignore", os.path.join(wanted.context, ".dockerignore")):
        if os.path.isfile(candidate):
            with open(candidate, encoding="utf-8", errors="replace") as f:
                ignore_text = f.read()
            break
    if wanted.dockerfile_inline:
        return wanted.dockerfile_inline, "dockerfile_inline", Ignore(ignore_text)
    try:
        with open(path, encoding="utf-8") as f:
            return f.read(), _shown(path), Ignore(ignore_text)
    except UnicodeDecodeError:
        raise ImageError(f"{_shown(path)} is no text in UTF-8", code="KAP511") from None
    except OSError as e:
        raise ImageError(
            f"failed to read dockerfile: open {_shown(path)}: {(e.strerror or '').lower()}",
            hint="name it with build.dockerfile",
            code="KAP511",
        ) from None


def _shown(path: str) -> str:
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else relative


def _global_arguments(split: stages.Stages, given: Mapping[str, str], escape: str) -> dict[str, str]:
    found: dict[str, str] = dict(platform_arguments())
    for instruction in split.arguments:
        for word in expand.words(instruction.text, found.get, escape):
            key, equals, value = word.partition("=")
            found[key] = given.get(key, value if equals else "")
    return found


def platform_arguments() -> dict[str, str]:
    """BUILDPLATFORM and its like (BuildKit's automatic platform arguments)."""
    arch = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
    found: dict[str, str] = {}
    for prefix in ("BUILD", "TARGET"):
        found |= {
            f"{prefix}PLATFORM": f"linux/{arch}", f"{prefix}OS": "linux", f"{prefix}ARCH": arch, f"{prefix}VARIANT": "",
        }  # fmt: skip
    return found


def _needed(
    split: stages.Stages, target: stages.Stage, arguments: Mapping[str, str], escape: str
) -> list[stages.Stage]:
    """The target and all stages that it is made from, in order."""
    wanted: set[int] = set()
    left = [target]
    while left:
        stage = left.pop()
        if stage.number in wanted:
            continue
        wanted.add(stage.number)
        names = [_base_name(stage, arguments, escape)]
        for instruction in stage.instructions:
            names.append(instruction.flag("--from"))
            for key, value in instruction.flags:
                if key == "--mount":
                    names += [p.partition("=")[2] for p in value.split(",") if p.startswith("from=")]
        for name in filter(None, names):
            other = split.find(name)
            if other is not None and other.number < stage.number:
                left.append(other)
    return [s for s in split.all if s.number in wanted]


def _base_name(stage: stages.Stage, arguments: Mapping[str, str], escape: str) -> str:
    try:
        return expand.word(stage.base, arguments.get, escape)
    except expand.ExpandError as e:
        raise ImageError(str(e), where=stage.start.where, code="KAP511") from None


def _stage(context: Context, stage: stages.Stage) -> None:
    from kapelle.images.build.steps import perform

    base = _base_name(stage, context.arguments, context.escape)
    if not base:
        raise ImageError(f"base name ({stage.base}) should not be blank", where=stage.start.where, code="KAP511")
    context.step[0] += 1
    context.emit(
        BuildOutput(context.options.service, f"[{_label(stage)}{context.step[0]}/{context.total}] FROM {base}")
    )
    earlier = context.stages.find(base)
    if earlier is not None and earlier.number < stage.number:
        state = context.done[earlier.number].child()
    elif base == "scratch":
        state = StageState.scratch()
    else:
        state = StageState.of_image(_base_image(context, base, stage.start.where))
    context.done[stage.number] = state
    for trigger in state.take_triggers():
        for instruction in dockerfile.parse(trigger, f"ONBUILD of {base}").instructions:
            _one(context, stage, state, instruction, perform)
    for instruction in stage.instructions:
        _one(context, stage, state, instruction, perform)


def _base_image(context: Context, name: str, where: Position) -> Image:
    for key, path in context.options.build.additional_contexts:
        if key == name and path.startswith("docker-image://"):
            name = path.removeprefix("docker-image://")
    try:
        return context.resolve(name)
    except KapelleError as e:
        e.where = e.where or where
        raise


def _one(
    context: Context, stage: stages.Stage, state: StageState, instruction: dockerfile.Instruction, perform: Any
) -> None:
    if instruction.name != "ARG":
        context.step[0] += 1
    headline = f"[{_label(stage)}{context.step[0]}/{context.total}] {instruction}"
    try:
        perform(context, state, instruction, headline)
    except expand.ExpandError as e:
        raise ImageError(f"failed to process {instruction}: {e}", where=instruction.where, code="KAP511") from None
    except KapelleError as e:
        e.where = e.where or instruction.where
        raise
    except OSError as e:
        raise ImageError(
            f"{instruction}: {(e.strerror or str(e)).lower()} {e.filename or ''}".strip(),
            where=instruction.where,
            code="KAP510",
        ) from None


def _label(stage: stages.Stage) -> str:
    return f"{stage.name} " if stage.name else ""


def _finish(context: Context, state: StageState) -> Image:
    """Put the image into the store under its names."""
    options = context.options
    config = state.config
    labels = {**(config.get("Labels") or {}), **dict(options.build.labels)}
    if labels:
        config["Labels"] = labels
    arch = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
    whole = {
        "architecture": arch,
        "os": "linux",
        "created": _created(context.environ),
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": list(state.layers)},
        "history": state.history,
    }
    known = context.cache.find(key_of("image", state.key, labels, list(options.build.tags), options.name))
    if known is not None:
        found = context.store.image(str(known["image"]))
        if found is not None and all(context.store.has_layer(d) for d in found.layers):
            for name in (options.name, *options.build.tags):
                context.store.tag(name, found.id)
            return context.store.image(found.id) or found
    image = context.store.put_image(whole, state.layers, (options.name, *options.build.tags))
    context.cache.put(key_of("image", state.key, labels, list(options.build.tags), options.name), {"image": image.id})
    return image


def _created(environ: Mapping[str, str]) -> str:
    """SOURCE_DATE_EPOCH, or now."""
    epoch = environ.get("SOURCE_DATE_EPOCH", "")
    seconds = int(epoch) if epoch.isdigit() else int(time.time())
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def run_environment(context: Context, state: StageState) -> tuple[tuple[str, ...], tuple[tuple[str, str, bool], ...]]:
    """Variables and mounts of a RUN: ARG under ENV; the host's proxies, and its settings when asked for."""
    env = {k: v for k, v in state.arguments.items() if v is not None}
    settings = hostsettings.HostSettings(hostsettings.proxies(context.environ))
    if context.options.host_settings:
        more = hostsettings.host_settings(context.environ)
        settings = hostsettings.HostSettings((*settings.env, *more.env), more.binds)
    rows = {row.partition("=")[0]: row.partition("=")[2] for row in settings.env}
    rows.update(env)
    rows.update(state.env())
    return tuple(f"{k}={v}" for k, v in rows.items()), settings.binds
