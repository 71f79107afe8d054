"""Stand-ins for official images, made from Debian packages and wheels when no registry answers.

A recipe is one module of `recipes`: NAMES, BASE (does it lie on the Debian base?), variants(tag) (what may be made of a
tag, best first, each one word), release(variant) (the Debian release), build(kitchen, variant), and maybe
unmet(tag, version) (what the tag names that was not given).
What was made is remembered under its variant; asked for again it is there at once, without a network.

    standins/made/KEY.json      layers, config and words of a finished recipe
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module, resources

from kapelle.errors import ImageError
from kapelle.events import Emit, Notice, Progress
from kapelle.images import offline, platforms, reference
from kapelle.images.layers import fault
from kapelle.images.standins import custom, pypi
from kapelle.images.standins.custom import Recipe
from kapelle.images.standins.recipes import RECIPES
from kapelle.images.standins.records import remembered
from kapelle.images.store import Store
from kapelle.images.types import Image
from kapelle.light import Any

# what people ask for and nobody can make of Debian's packages → what to take instead
_INSTEAD = {
    "alpine": "debian:bookworm-slim or busybox",
    "mysql": "mariadb, which speaks the same protocol; MySQL itself is another product that Debian does not have",
    "percona": "mariadb, which speaks the same protocol",
    "ubuntu": "debian:bookworm-slim",
    "valkey": "redis, which speaks the same protocol",
}


def available(name: str, environ: Mapping[str, str] = os.environ) -> bool:
    """Is there a recipe for this reference? Only official images of the default registry have one of ours."""
    try:
        return recipe_of(reference.parse(name), environ) is not None
    except ImageError as e:
        if e.code == "KAP513":
            raise  # a recipe of the user's own that is to be mended
        return False


def advice(name: str) -> str:
    """What to take instead of an image that has no stand-in, or ""."""
    try:
        ref = reference.parse(name)
    except ImageError:
        return ""
    instead = _INSTEAD.get(ref.repository.removeprefix("library/"), "") if _is_official(ref) else ""
    return f"in place of {reference.familiar(ref)}: {instead}" if instead else ""


def is_made(name: str, store: Store, environ: Mapping[str, str] = os.environ) -> bool:
    """Can `provide` give it without a network?"""
    ref = reference.parse(name)
    recipe = recipe_of(ref, environ)
    return recipe is not None and any(_remembered(store, k) for k in _keys(recipe, ref.tag).values())


def is_outdated(image: Image, name: str, environ: Mapping[str, str]) -> bool:
    """Has the user's recipe changed since this stand-in was made? An edition of Kapelle changes nothing that runs."""
    ref = reference.parse(name)
    recipe = recipe_of(ref, environ)
    if recipe is None or not recipe.path:
        return False
    labels = image.config.get("config", {}).get("Labels") or {}
    return recipe.digest != str(labels.get("org.kapelle.standin.recipe", "")).rpartition("-")[2]


def version_made(recipe: Recipe, tag: str, store: Store) -> str:
    """The version of what lies here for a tag and is what it asks for, or ""."""
    found = (_remembered(store, key) for key in _keys(recipe, tag).values())
    return next((str(m["version"]) for m in found if m is not None and not recipe.unmet(tag, m["version"])), "")


def provide(name: str, store: Store, settings: Any, emit: Emit, *, environ: Mapping[str, str]) -> Image:
    """Make (or find) the stand-in for a reference, name it so in the store, say so loudly, and return it.

    ImageError when there is no recipe, no mirror answers, a package is missing, or an index can't be trusted.
    """
    from kapelle.images.standins.kitchen import Kitchen

    del settings  # registries' settings have no say here
    ref = reference.parse(name)
    short = reference.familiar(ref)
    recipe = recipe_of(ref, environ)
    if recipe is None:
        raise ImageError(
            f"there is no stand-in for {short}",
            hint=advice(name) or f"stand-ins exist for {', '.join(sorted(RECIPES))}: see  kap standins",
        )
    kitchen = Kitchen(store, platforms.host().architecture, environ, emit, name)
    store.prepare()
    with store.using():  # no collector takes a layer before its image is recorded
        try:
            made = _made(kitchen, recipe, ref.tag)
        except OSError as e:
            raise fault(e, f"the stand-in for {short} could not be made") from e
        image = _record(store, ref, recipe, made)
    emit(Progress("image", name, "Pulled", "done", details=image.standin))
    emit(Notice(f"{short}: registry not reachable; using a stand-in ({image.standin})", once=f"standin-{short}"))
    return image


def _record(store: Store, ref: reference.Reference, recipe: Recipe, made: Mapping[str, Any]) -> Image:
    """Put the image of a finished recipe, under the name that was asked for."""
    unmet = recipe.unmet(ref.tag, made["version"])
    missing = [w for w in (unmet, "Alpine" if "alpine" in ref.tag.lower() else "") if w]
    text = made["given"] + (f", not {' and not '.join(missing)}" if missing else "")
    config = dict(made["config"])
    config["Labels"] = {
        "org.kapelle.standin": f"{reference.familiar(ref)}: {text}",
        "org.kapelle.standin.recipe": made["key"],
        "org.kapelle.standin.sources": "; ".join(made["sources"]),
    }
    whole = {
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(made["date"])),
        "architecture": platforms.host().architecture,
        "os": "linux",
        "config": config,
        "history": [{"created_by": f"stand-in {made['key']}", "comment": text} for _ in made["layers"]],
    }
    return store.put_image(whole, tuple(made["layers"]), (str(ref),), text)


def recipe_of(ref: reference.Reference, environ: Mapping[str, str]) -> Recipe | None:
    """The user's recipe for an image, else ours."""
    if ref.digest:
        return None  # what is asked for by digest can't be anything else
    found = custom.find(reference.familiar(ref._replace(tag="")), environ)
    if found is not None:
        return found
    name = RECIPES.get(ref.repository.removeprefix("library/")) if _is_official(ref) else None
    return ours(name) if name else None


def ours(name: str) -> Recipe:
    """The recipe of a module of `recipes`."""
    return Recipe(name, import_module(f"kapelle.images.standins.recipes.{name}"))


def _is_official(ref: reference.Reference) -> bool:
    return ref.registry == reference.DEFAULT_REGISTRY and ref.repository.startswith("library/")


def _keys(recipe: Recipe, tag: str) -> dict[str, str]:
    """Variant → the name of its record, best first."""
    edition = _edition() + (f"-{recipe.digest}" if recipe.digest else "")
    machine = platforms.host().architecture
    return {v: f"{recipe.name}-{v}-{machine}-{edition}" for v in recipe.variants(tag)}


def _remembered(store: Store, key: str) -> dict[str, Any] | None:
    """The record of what was made under a key, if its layers are still there."""
    made = remembered(store, "made", key)
    return made if made is not None and all(store.has_layer(d) for d in made["layers"]) else None


def _made(kitchen: Any, recipe: Recipe, tag: str) -> dict[str, Any]:
    """The record of what is just what the tag asks for and was made before, else of the first variant to be had."""
    store: Store = kitchen.store
    keys = _keys(recipe, tag)
    troubles: list[str] = []
    with _lock(store, f"{recipe.name}-{next(iter(keys))}"):
        found = {v: made for v, key in keys.items() if (made := _remembered(store, key)) is not None}
        for made in found.values():
            if not recipe.unmet(tag, made["version"]):
                return made
        if found and offline.is_on(kitchen.environ):
            return next(iter(found.values()))
        if not found:
            offline.refuse(kitchen.environ, f"the stand-in for {recipe.name}:{tag}, which was never made here,")
        for variant, key in keys.items():
            if variant in found:
                return found[variant]
            try:
                return _make(kitchen, recipe, variant, key)
            except pypi.NotThere as e:
                troubles.append(str(e))
    raise ImageError(
        f"the stand-in for {recipe.name} can't be made: its parts are not to be had",
        details=tuple(("tried", t) for t in troubles),
        hint="set pip's index (PIP_INDEX_URL) to one that has them",
    )


def _make(kitchen: Any, recipe: Recipe, variant: str, key: str) -> dict[str, Any]:
    store: Store = kitchen.store
    release = recipe.release(variant)
    below = (_base(kitchen, release),) if recipe.module.BASE else ()
    kitchen.tell("Building")
    with store.new_layer() as path:
        tree = kitchen.start(release, f"{path}/diff", tuple(store.layer_dir(d) for d in below))
        made = recipe.build(kitchen, variant)
        tree.finish()
        with os.scandir(f"{path}/diff") as entries:
            empty = not any(entries)
        layers = below if empty else (*below, store.commit_layer(f"{path}/diff"))
    words = f"{made.product} {made.version}" + (f" {made.note}" if made.note else "")
    if recipe.name != "debian":
        words += (
            f" on Debian {kitchen.archive(release).version}"
            if below
            else f" of Debian {kitchen.archive(release).version}"
        )
    record = {
        "key": key, "layers": list(layers), "config": dict(made.config), "given": words, "version": made.version,
        "date": kitchen.date, "sources": [*dict.fromkeys(kitchen.sources)],
    }  # fmt: skip
    kitchen.remember("made", key, record)
    return record


def _base(kitchen: Any, release: str) -> str:
    """The diff-ID of a release's base layer, made if it is not there."""
    from kapelle.images.standins.recipes import debian

    store: Store = kitchen.store
    key = f"base-{release}-{kitchen.architecture}-{_edition()}"
    with _lock(store, key):
        made = kitchen.remembered("made", key)
        if made is None or not store.has_layer(made["layers"][0]):
            with store.new_layer() as path:
                tree = kitchen.start(release, f"{path}/diff")
                debian.base(kitchen)
                tree.finish()
                made = {"layers": [store.commit_layer(f"{path}/diff")]}
            kitchen.remember("made", key, made)
    return str(made["layers"][0])


def _edition() -> str:
    """A digest of the recipes' own text: what another edition of Kapelle made is made anew."""
    digest = hashlib.sha256()
    top = resources.files("kapelle.images.standins")
    for part in (top, top.joinpath("recipes"), top.joinpath("data")):
        for entry in sorted(part.iterdir(), key=lambda e: e.name):
            if entry.is_file() and not entry.name.endswith(".pyc"):
                digest.update(entry.name.encode() + b"\0" + entry.read_bytes())
    return digest.hexdigest()[:12]


@contextmanager
def _lock(store: Store, key: str) -> Iterator[None]:
    """One maker at a time; others wait and then find it made."""
    directory = f"{store.root}/standins/locks"
    os.makedirs(directory, 0o700, exist_ok=True)
    fd = os.open(f"{directory}/{key}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
