"""A step that changes files: its layer from the cache, or made now."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from kapelle.images.build import exchange
from kapelle.images.build.context import Context
from kapelle.images.build.dockerfile import Instruction
from kapelle.images.build.state import StageState
from kapelle.light import Any

Make = Callable[[str, str], None]  # given the empty upper and work directories


def layer(
    context: Context,
    state: StageState,
    headline: str,
    created_by: str,
    keys: tuple[str, ...],
    make: Make,
    *,
    fresh: bool = False,
    later: Callable[[], str] | None = None,
) -> None:
    """Add a layer to the stage. `keys`: any of them in the cache will do; `later` makes a further one, at a cost.

    `fresh`: not from the cache.
    """
    context.say(headline)
    wanted = [*keys]
    known = None if fresh else _known(context, wanted)
    if known is None and later is not None:
        wanted.append(later())
        known = None if fresh else _known(context, wanted[-1:])
        if known is not None:
            for key in keys:
                context.cache.put(key, {"layer": known})
    if known is not None:
        state.add_layer(known, wanted, created_by)
        context.say(headline, cached=True)
        return
    began = time.monotonic()
    with context.store.new_layer() as place:
        make(f"{place}/diff", f"{place}/work")
        if context.epoch is not None:
            clamp(f"{place}/diff", context.epoch)
        diff_id = context.store.commit_layer(f"{place}/diff")
    for key in wanted:
        context.cache.put(key, {"layer": diff_id})
    state.add_layer(diff_id, wanted, created_by)
    context.say(headline, ended="done", seconds=time.monotonic() - began)


def _known(context: Context, keys: list[str]) -> str | None:
    for key in keys:
        found = context.cache.find(key)
        if found is not None and context.store.has_layer(str(found["layer"])):
            return str(found["layer"])
        diff_id = exchange.layer(key, context.brought, context.store)
        if diff_id is not None:
            context.cache.put(key, {"layer": diff_id})
            return diff_id
    return None


def setting(state: StageState, instruction: Instruction) -> None:
    """A step that changes the image's config alone is not shown, as BuildKit does not show it."""
    state.add_setting(str(instruction))


def key(context: Context, state: StageState | None, *parts: Any) -> str:
    """The key of a layer over a stage's files (None: over nothing, `--link`)."""
    from kapelle.images.build.cache import key_of

    return key_of("layer 2", state.key if state is not None else "", context.epoch, *parts)


def clamp(directory: str, epoch: int) -> None:
    """SOURCE_DATE_EPOCH: nothing in a layer is younger."""
    for base, folders, names in os.walk(directory, topdown=False):
        for path in [*(os.path.join(base, n) for n in (*names, *folders)), base]:
            if os.lstat(path).st_mtime > epoch:
                os.utime(path, (epoch, epoch), follow_symlinks=False)
