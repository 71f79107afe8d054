"""Walks the stages a target needs and makes an image of them. Steps done before come from the cache."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from kapelle.errors import ImageError, KapelleError, Position
from kapelle.events import Emit, Progress
from kapelle.images import platforms
from kapelle.images.build import arguments, dockerfile, exchange, expand, inputs, schedule, sources, stages, steps
from kapelle.images.build.cache import Cache, key_of, sweep
from kapelle.images.build.context import BuildOptions, Cancelled, Context
from kapelle.images.build.rootfs import Rootfs
from kapelle.images.build.state import COMMENT, StageState
from kapelle.images.store import Store
from kapelle.images.types import Image, Runner
from kapelle.light import Any

__all__ = ["BuildOptions", "build"]


def build(
    options: BuildOptions,
    store: Store,
    run: Runner,
    resolve: Callable[[str], Image],
    emit: Emit,
    environ: Mapping[str, str],
) -> Image:
    """Build an image and name it. Raises ImageError with the Dockerfile's line; earlier steps stay cached."""
    emit(Progress("service", options.service or options.name or "image", "Building"))
    sweep(store.root)
    cache = Cache(store.root)
    try:
        image = _build(options, store, run, resolve, emit, environ, cache)
    finally:
        cache.close()
    emit(Progress("service", options.service or options.name or "image", "Built", "done"))
    return image


def _build(
    options: BuildOptions, store: Store, run: Runner, resolve: Callable[[str], Image], emit: Emit,
    environ: Mapping[str, str], cache: Cache,
) -> Image:  # fmt: skip
    given_files = inputs.read(options.build, cache, environ)
    contexts = tuple(
        (k, inputs.context(k, v, options, store, cache, environ)) for k, v in options.build.additional_contexts
    )
    options = options._replace(build=options.build._replace(additional_contexts=contexts))
    parsed = dockerfile.parse(given_files.text, given_files.name)
    _check_syntax(parsed, given_files.name)
    split = stages.split(parsed)
    target = stages.target(split, options.build.target)
    given = {k: v if v is not None else environ[k] for k, v in options.build.args if v is not None or k in environ}
    context = Context(
        options=options,
        store=store,
        cache=cache,
        run=run,
        resolve=resolve,
        emit=emit,
        environ=environ,
        dockerfile=parsed,
        stages=split,
        tree=Rootfs((given_files.folder,)),
        ignore=given_files.ignore,
        arguments=arguments.of_file(split, given, parsed.escape, options.build.target),
        given=given,
        epoch=_epoch(environ, given),
        brought=exchange.bring(options, store, resolve, emit),
        done={},
        failed=[],
    )
    depends = {
        stage.number: stages.dependencies(
            stage, split, context.arguments.get, parsed.escape, lambda n: sources.named(context, n) is not None
        )
        for stage in split.all
    }
    schedule.run(
        stages.needed(depends, target.number), depends, lambda n: _stage(context, split.all[n]), context.failed
    )
    image = _finish(context, context.done[target.number])
    if options.build.cache_to:
        made = [step for n in sorted(context.done) for step in context.done[n].steps]
        exchange.take_out(options, store, made)
    return image


def _check_syntax(parsed: dockerfile.Dockerfile, name: str) -> None:
    """`# syntax=docker/dockerfile:…` is read here whatever its version; other languages are not."""
    wanted = dict(parsed.directives).get("syntax", "")
    image = wanted.partition("@")[0].rpartition("/")[2].partition(":")[0]
    if wanted and image not in ("dockerfile", "dockerfile-upstream"):
        raise ImageError(
            f"# syntax={wanted}: only docker/dockerfile is read here",
            where=Position(name, 1, 1), hint="build it with docker buildx, and load the image", code="KAP511",
        )  # fmt: skip


def _epoch(environ: Mapping[str, str], given: Mapping[str, str]) -> int | None:
    text = given.get("SOURCE_DATE_EPOCH") or environ.get("SOURCE_DATE_EPOCH", "")
    return int(text) if text.isdigit() else None


def _stage(context: Context, stage: stages.Stage) -> None:
    base, where = _expanded(context, stage, stage.base), stage.start.where
    if not base:
        raise ImageError(
            f"base name ({stage.base}) should not be blank", where=where, code="KAP511",
            hint="an ARG in it has no value: give it one before FROM, or with --build-arg",
        )  # fmt: skip
    _check_platform(context, stage)
    shown = [i for i in stage.instructions if i.name in steps.SHOWN]
    count = _Count(_label(context, stage), len(shown) + 1)
    headline = count.next(f"FROM {base}")
    context.say(headline)
    began = time.monotonic()
    state, cached = _base(context, stage, base)
    if cached:
        context.say(headline, cached=True)
    else:
        context.say(headline, ended="done", seconds=time.monotonic() - began)
    context.done[stage.number] = state
    triggers = state.take_triggers()
    for trigger in triggers:
        for instruction in dockerfile.parse(trigger, f"ONBUILD of {base}").instructions:
            count.total += instruction.name in steps.SHOWN
            _one(context, stage, state, instruction, count)
    for instruction in stage.instructions:
        _one(context, stage, state, instruction, count)


def _expanded(context: Context, stage: stages.Stage, text: str) -> str:
    try:
        return expand.word(text, context.arguments.get, context.escape)
    except expand.ExpandError as e:
        raise _excerpt(context, ImageError(str(e), where=stage.start.where, code="KAP511")) from None


def _check_platform(context: Context, stage: stages.Stage) -> None:
    """FROM --platform: this machine's, in whatever spelling; others can't be built here."""
    text = _expanded(context, stage, stage.platform) if stage.platform else ""
    if not text:
        return
    try:
        wanted = platforms.parse(text)
    except ImageError as e:
        e.where = stage.start.where
        raise
    if wanted != platforms.normal(platforms.host()):
        raise ImageError(
            f"FROM --platform={text}: only images of this machine's platform ({platforms.host()}) are built here",
            where=stage.start.where, hint="--platform=$BUILDPLATFORM, and let the compiler cross-build", code="KAP511",
        )  # fmt: skip


def _base(context: Context, stage: stages.Stage, base: str) -> tuple[StageState, bool]:
    """The state a stage begins with, and whether nothing had to be fetched for it."""
    named = sources.named(context, stage.name) if stage.name else None
    named = named or sources.named(context, base)
    if named is not None and not named.startswith("docker-image://"):
        return _folder(context, named), False
    earlier = context.stages.find(base) if named is None else None
    if earlier is not None and earlier.number < stage.number:
        return context.done[earlier.number].child(), True
    if base == "scratch":
        return StageState.scratch(), True
    name = (named or base).removeprefix("docker-image://")
    have = context.store.find(name) if not context.options.pull else None
    return StageState.of_image(sources.base_image(context, name, stage.start.where)), have is not None


def _folder(context: Context, path: str) -> StageState:
    """A named context that is a folder, as the root of a stage."""
    from kapelle.images.build import copying, making
    from kapelle.images.build.owners import ROOT

    state = StageState.scratch()
    items = copying.whole(Rootfs((path,)))

    def make(diff: str, _work: str) -> None:
        writer = copying.LayerWriter(diff, Rootfs(()))
        for item in items:
            writer.put(item, item.to, ROOT, None)

    key = making.key(context, None, "folder", copying.digest_rows(items, context.cache))
    making.layer(context, state, f"[context] load {path}", "FROM a folder", (key,), make)
    return state


class _Count:
    """Numbers of a stage's steps, as they are shown."""

    def __init__(self, label: str, total: int) -> None:
        self.label = label
        self.total = total
        self.number = 0

    def next(self, text: str) -> str:
        self.number += 1
        return f"[{self.label}{self.number}/{self.total}] {text}"


def _label(context: Context, stage: stages.Stage) -> str:
    if stage.name:
        return f"{stage.name} "
    return f"stage-{stage.number} " if len(context.stages.all) > 1 else ""


def _one(
    context: Context, stage: stages.Stage, state: StageState, instruction: dockerfile.Instruction, count: _Count
) -> None:
    if context.failed:
        raise Cancelled("another stage has failed")
    text = str(instruction)
    headline = count.next(text if len(text) < 400 else f"{text[:399]}…") if instruction.name in steps.SHOWN else text
    fresh = context.options.no_cache or (stage.name in context.options.no_cache_stages and bool(stage.name))
    try:
        steps.perform(context, state, instruction, headline, fresh=fresh)
        return
    except Cancelled:
        raise
    except expand.ExpandError as e:
        error: KapelleError = ImageError(f"failed to process {text!r}: {e}", where=instruction.where, code="KAP511")
    except KapelleError as e:
        e.where = e.where or instruction.where
        error = e
    except OSError as e:
        error = ImageError(
            f"{text}: {(e.strerror or str(e)).lower()} {e.filename or ''}".strip(),
            where=instruction.where,
            code="KAP510",
        )
    if instruction.name in steps.SHOWN:
        context.say(headline, ended=f"error {error.what}")
    raise _excerpt(context, error, instruction.last) from None


def _excerpt(context: Context, error: KapelleError, last: int = 0) -> KapelleError:
    """Show the Dockerfile's lines around the place of an error."""
    lines = context.dockerfile.lines
    place = error.where
    if place is None or place.line > len(lines) or place.file != _file_of(context):
        return error
    last = min(max(last, place.line), place.line + 8)
    rows: list[tuple[str, str]] = []
    for number in range(max(1, place.line - 2), min(len(lines), last + 1) + 1):
        mark = ">>>" if place.line <= number <= last else "   "
        rows.append((("file" if not rows else ""), f"{number:4} {mark} {lines[number - 1]}".rstrip()))
    while rows and not rows[-1][1].strip("0123456789 "):
        rows.pop()
    error.details = (*error.details, *rows)
    return error


def _file_of(context: Context) -> str:
    return context.dockerfile.instructions[0].where.file


def _finish(context: Context, state: StageState) -> Image:
    """Put the image into the store under its names."""
    options = context.options
    config = state.config
    labels = {**(config.get("Labels") or {}), **dict(options.build.labels)}
    if labels:
        config["Labels"] = labels
    here = platforms.host()
    names = tuple(dict.fromkeys(n for n in (options.name, *options.build.tags) if n))
    key = key_of("image 2", state.layers, config, state.history, context.epoch, _inline(context) and state.steps)
    known = context.cache.find(key)
    if known is not None and not options.no_cache:
        found = context.store.image(str(known["image"]))
        if found is not None and all(context.store.has_layer(d) for d in found.layers):
            for name in names:
                context.store.tag(name, found.id)
            return context.store.image(found.id) or found
    created = _created(context.epoch)
    history = [
        {"created": created, **row} if row.get("comment") == COMMENT and "created" not in row else row
        for row in state.history
    ]
    whole: dict[str, Any] = {
        "architecture": here.architecture,
        **({"variant": here.variant} if here.variant else {}),
        "os": "linux",
        "created": created,
        **({"author": state.author} if state.author else {}),
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": list(state.layers)},
        "history": history,
    }
    if _inline(context):
        whole[exchange.IN_CONFIG] = [list(step) for step in state.steps]
    image = context.store.put_image(whole, state.layers, names)
    context.cache.put(key, {"image": image.id})
    return image


def _inline(context: Context) -> bool:
    """Does the image carry the keys of its layers, so that others can take them as a cache?"""
    rows = context.options.build.cache_to
    return context.given.get("BUILDKIT_INLINE_CACHE") in ("1", "true") or any("type=inline" in r for r in rows)


def _created(epoch: int | None) -> str:
    """SOURCE_DATE_EPOCH, or now."""
    seconds = epoch if epoch is not None else int(time.time())
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
