"""COPY and ADD: what is chosen, its key, and how it goes into a layer."""

from __future__ import annotations

import os
import posixpath
import stat

from kapelle.errors import ImageError
from kapelle.events import Notice
from kapelle.images.build import archives, chmod, copying, dockerfile, expand, making, owners, remote, sources
from kapelle.images.build.context import Context
from kapelle.images.build.copying import Item, LayerWriter
from kapelle.images.build.dockerfile import Instruction
from kapelle.images.build.owners import ROOT, Owner
from kapelle.images.build.rootfs import Rootfs
from kapelle.images.build.state import StageState
from kapelle.light import NamedTuple
from kapelle.linux import idmap


class Chosen(NamedTuple):
    """What the sources of one instruction are."""

    found: tuple[tuple[str, list[Item]], ...]  # path as written, what is copied of it
    fetched: tuple[remote.Fetched, ...]
    heredocs: tuple[tuple[str, str], ...]
    sources: int  # words before the destination


class How(NamedTuple):
    owner: Owner | None  # None: as it was in the source
    mode: chmod.Mode | None
    parents: bool
    unpack: bool  # archives of the context
    unpack_fetched: bool


def copy(context: Context, state: StageState, instruction: Instruction, headline: str, *, fresh: bool) -> None:
    """COPY or ADD."""
    given = instruction.json()
    lookup = state.lookup
    if given is not None:
        words = [expand.word(w, lookup, context.escape) for w in given]
    else:
        words = expand.words(instruction.text, lookup, context.escape)
    if len(words) < 2:
        raise ImageError(
            f"{instruction.name} requires at least two arguments, but only one was provided. "
            "Destination could not be determined",
            where=instruction.where, hint=f"{instruction.name} SOURCE DESTINATION", code="KAP511",
        )  # fmt: skip
    *named, to = words
    link = instruction.switch("--link")
    below = sources.rootfs(context, state)
    name = expand.word(instruction.flag("--from"), lookup, context.escape)
    source = sources.source(context, name, instruction.where)
    how = _how(context, state, instruction, below, kept=bool(source.key))
    exclude = tuple(expand.word(e, lookup, context.escape) for e in instruction.all("--exclude"))
    if how.owner not in (None, ROOT) and not idmap.has_many():
        text = f"{instruction.name} --chown is not kept: this user has one id, which owns every file"
        context.emit(Notice(text, where=instruction.where, once="build-chown"))
    chosen = _choose(context, state, instruction, named, source, name, exclude, how)
    cwd = state.config.get("WorkingDir") or "/"
    meaning = (
        instruction.name.lower(), named, posixpath.join(cwd, to), how.owner, instruction.flag("--chmod"), how.parents,
        exclude, how.unpack, [f.key for f in chosen.fetched], chosen.heredocs,
    )  # fmt: skip
    parent = None if link else state

    def by_content() -> str:
        rows = [
            [path, copying.digest_rows(items, context.cache, owners=bool(source.key))] for path, items in chosen.found
        ]
        return making.key(context, parent, *meaning, rows)

    def make(diff: str, _work: str) -> None:
        _write(LayerWriter(diff, Rootfs(()) if link else below), instruction, chosen, how, to, cwd)

    created_by = str(instruction)
    if source.key:  # the other stage's layers are the same, or else what is chosen of them
        keys = (making.key(context, parent, *meaning, source.key),)
        making.layer(context, state, headline, created_by, keys, make, fresh=fresh, later=by_content)
    else:
        making.layer(context, state, headline, created_by, (by_content(),), make, fresh=fresh)


def _how(context: Context, state: StageState, instruction: Instruction, below: Rootfs, *, kept: bool) -> How:
    chown = expand.word(instruction.flag("--chown"), state.lookup, context.escape)
    owner = owners.lookup(chown, below, instruction.where) if chown else None if kept else ROOT
    text = expand.word(instruction.flag("--chmod"), state.lookup, context.escape)
    try:
        mode = chmod.parse(text) if text else None
    except ValueError:
        raise ImageError(
            f"invalid --chmod {text}", where=instruction.where, hint="write it as 755 or u=rwX,go=rX", code="KAP511"
        ) from None
    asked = bool(instruction.all("--unpack"))
    unpack = instruction.switch("--unpack")
    return How(
        owner,
        mode,
        instruction.switch("--parents"),
        instruction.name == "ADD" and (unpack or not asked),
        instruction.name == "ADD" and unpack,
    )


def _choose(
    context: Context, state: StageState, instruction: Instruction, named: list[str], source: sources.Source, name: str,
    exclude: tuple[str, ...], how: How,
) -> Chosen:  # fmt: skip
    found: list[tuple[str, list[Item]]] = []
    fetched: list[remote.Fetched] = []
    for pattern in named:
        if dockerfile.markers(pattern) and instruction.heredocs and pattern.startswith("<<"):
            continue
        if instruction.name == "ADD" and remote.is_remote(pattern):
            fetched.append(remote.fetch(context, pattern, instruction))
            continue
        some = copying.select(source.tree, pattern, source.ignore, exclude, parents=how.parents)
        if not some:
            raise _missing(instruction, source, pattern, name)
        found += some
    heredocs = tuple(
        (h.name, expand.variables(h.content, state.lookup, context.escape) if h.expand else h.content)
        for h in instruction.heredocs
    )
    return Chosen(tuple(found), tuple(fetched), heredocs, len(named))


def _missing(instruction: Instruction, source: sources.Source, pattern: str, name: str) -> ImageError:
    left_out = source.ignore is not None and source.ignore.ignores(posixpath.normpath("/" + pattern).strip("/"))
    if any(c in pattern for c in "*?["):
        what = f"no source files were found: {pattern}"
    else:
        what = f'"{pattern}" not found in {name or "the build context"}'
    if left_out:
        hint = ".dockerignore leaves it out"
    else:
        hint = "paths are below build.context" if not name else ""
    return ImageError(what, where=instruction.where, hint=hint, code="KAP510")


def _write(writer: LayerWriter, instruction: Instruction, chosen: Chosen, how: How, to: str, cwd: str) -> None:
    files = len(chosen.found) + len(chosen.fetched) + len(chosen.heredocs)
    place = copying.destination(
        writer.below, to, cwd, several=chosen.sources > 1, many=files > 1, name=instruction.name
    )  # fmt: skip
    folder = place.strip("/")
    for path, items in chosen.found:
        _put(writer, place, path, items, how)
    for name, text in chosen.heredocs:
        path = f"{folder}/{name}".strip("/") if place.endswith("/") else folder
        writer.content(path, text.encode(), how.owner or ROOT, how.mode)
    for fetched in chosen.fetched:
        if fetched.folder:
            for item in copying.whole(Rootfs((fetched.folder,))):
                writer.put(item, f"{folder}/{item.to}".strip("/"), how.owner, how.mode)
        elif how.unpack_fetched and archives.is_archive(fetched.file):
            archives.extract(fetched.file, writer, folder, how.owner)
        else:
            path = f"{folder}/{fetched.name}".strip("/") if place.endswith("/") else folder
            with open(fetched.file, "rb") as f:
                writer.content(path, f.read(), how.owner, how.mode, 0o600)
            if fetched.modified is not None:
                os.utime(f"{writer.diff}/{path}", (fetched.modified, fetched.modified))


def _put(writer: LayerWriter, place: str, path: str, items: list[Item], how: How) -> None:
    """One chosen source into its place: a file, an archive to unpack (ADD), or a folder's content."""
    folder = place.strip("/")
    single = len(items) == 1 and not stat.S_ISDIR(items[0].entry.info.st_mode)
    if single and not how.parents and items[0].to == posixpath.basename(path):
        item = items[0]
        if how.unpack and stat.S_ISREG(item.entry.info.st_mode) and archives.is_archive(item.entry.real):
            archives.extract(item.entry.real, writer, folder, how.owner if how.owner != ROOT else None)
            return
        writer.put(item, f"{folder}/{item.to}".strip("/") if place.endswith("/") else folder, how.owner, how.mode)
        return
    writer.directory(folder, how.owner or ROOT)
    for item in items:
        writer.put(item, f"{folder}/{item.to}".strip("/"), how.owner, how.mode)
