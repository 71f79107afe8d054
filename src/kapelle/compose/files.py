"""Compose files → one merged canonical tree: documents, interpolation, include, extends, merge."""

from __future__ import annotations

import os
from collections.abc import Mapping

from kapelle.compose import blanks, dotenv, normalise, paths
from kapelle.compose.canonical import canonical
from kapelle.compose.document import parse
from kapelle.compose.interpolate import Required, interpolate, lookup_in
from kapelle.compose.keys import RESOURCES
from kapelle.compose.merge import merge, merge_service, remove_paths
from kapelle.compose.near import did_you_mean
from kapelle.compose.source import Source
from kapelle.compose.tree import Map, copy, path_text, position
from kapelle.errors import ComposeFileError, KapelleError, Position
from kapelle.light import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kapelle.compose.trace import Trace

_OBSOLETE = "the attribute `version` is obsolete, it will be ignored, please remove it to avoid potential confusion"


Removals = tuple[tuple[str | int, ...], ...]


class Reading:
    """One load: what was read, said and found wrong so far."""

    def __init__(
        self,
        source: Source,
        environ: Mapping[str, str],
        *,
        interpolation: bool,
        resolve_paths: bool,
        trace: Trace | None = None,
        lenient: bool = False,
    ) -> None:
        self.trace = trace
        self.lenient = lenient  # mistakes are kept and the reading goes on with what is left
        self.source = source
        self.environ = environ
        self.interpolation = interpolation
        self.resolve_paths = resolve_paths
        self.mistakes: list[KapelleError] = []
        self.warnings: list[tuple[str, Position | None]] = []
        self.missing: dict[str, Position | None] = {}
        self.files: dict[tuple[str, str], Map] = {}  # (path, base) -> canonical tree, for extends

    def shown(self, path: str) -> str:
        """A path as messages call it: relative to the working directory where that is shorter."""
        if path == "-":
            return "stdin"
        relative = os.path.relpath(path, self.source.cwd)
        return relative if not relative.startswith("..") else path

    def fault(self, error: KapelleError) -> None:
        """A mistake that leaves something out: raised, or kept when all are wanted."""
        if not self.lenient:
            raise error
        self.mistakes.append(error)

    def stack(
        self,
        files: tuple[str, ...],
        base: str,
        variables: Mapping[str, str],
        above: tuple[str, ...] = (),
        where: Position | None = None,
    ) -> Map:
        """Several files merged in order, with their includes and extends. `above`: files that include these."""
        merged = Map()
        for path in files:
            for tree, removals in self.documents(path, base, variables, where):
                own = self.extended(tree, path, base, variables, removals)
                own = self.included(own, path, base, variables, (*above, *files))
                if self.trace is not None:
                    self.trace.file(self.shown(path), tree, removals, included=bool(above))
                merged = merge(remove_paths(merged, removals), own)
        self.mistakes += blanks.settle(merged)
        normalise.contexts(merged, base if self.resolve_paths else ".")
        return merged

    def documents(
        self, path: str, base: str, variables: Mapping[str, str], where: Position | None = None
    ) -> list[tuple[Map, tuple[tuple[str | int, ...], ...]]]:
        """A file's documents in canonical form. `where`: what names the file, for errors."""
        name = self.shown(path)
        try:
            documents = parse(self.source.text(path, name), name, self.source.memory)
        except OSError as e:
            self.fault(
                ComposeFileError(
                    f"open {path}: {(e.strerror or 'failed').lower()}",
                    where=where,
                    hint="check the path after -f, include or extends",
                )
            )
            return []
        except ComposeFileError as e:
            self.fault(e)
            return []
        found = []
        for document in documents:
            tree = document.tree
            if tree is None or (isinstance(tree, Map) and not tree):
                raise ComposeFileError("empty compose file", where=Position(name, 1, 1), hint="begin with services:")
            if self.trace is not None:
                self.trace.text(tree, variables)
            if isinstance(tree, Map) and self.interpolation:
                self.interpolate(tree, variables)
            if isinstance(tree, Map) and "version" in tree:
                if not isinstance(tree["version"], str):
                    self.mistakes.append(
                        ComposeFileError(
                            f"validating {path}: version must be a string",
                            where=position(tree.at.get("version")),
                            hint="remove the line; it means nothing any more",
                        )
                    )
                self.warnings.append((f"{path}: {_OBSOLETE}", position(tree.at.get("version"))))
                tree.drop("version")
            result, mistakes = canonical(tree, path if path != "-" else name)
            self.mistakes += mistakes
            if mistakes and not self.lenient:
                result = Map()  # what is wrong in shape goes no further; the mistakes are told at the end
            if self.resolve_paths:
                paths.resolve(result, base, self.environ.get("HOME", "/"))
            found.append((result, document.removals))
        if not found:
            raise ComposeFileError("empty compose file", where=Position(name, 1, 1), hint="begin with services:")
        return found

    def interpolate(self, tree: Map, variables: Mapping[str, str]) -> None:
        def missing(name: str, mark: Any) -> None:
            self.missing.setdefault(name, position(mark))

        def wrong(error: Exception, path: tuple[str | int, ...], mark: Any) -> None:
            where = path_text(path)
            if isinstance(error, Required):
                what = f"required variable {error.name} is missing a value: {error.message}"
                text = f"error while interpolating {where}: {what}"
                hint = f"set it: {error.name}=… kap …, or in .env"
            else:
                text = f"invalid interpolation format for {where}.\nYou may need to escape any $ with another $."
                hint = "write $$ for a dollar sign, ${NAME} for a variable"
            self.mistakes.append(ComposeFileError(text, where=position(mark), hint=hint, code="KAP401"))

        interpolate(tree, lookup_in(variables), missing, wrong)

    # ---- extends -------------------------------------------------------------------------------------------

    def extended(self, tree: Map, path: str, base: str, variables: Mapping[str, str], removals: Removals = ()) -> Map:
        services = tree.get("services")
        if not isinstance(services, Map) or not any("extends" in s for s in services.values()):
            return tree
        out = copy(tree)
        done: dict[str, Map] = {}
        for name in services:
            try:
                out["services"][name] = self.extend(tree, name, path, base, variables, (), done, removals)
            except ComposeFileError as e:
                self.fault(e)
        result: Map = out
        return result

    def extend(
        self,
        tree: Map,
        name: str,
        path: str,
        base: str,
        variables: Mapping[str, str],
        chain: tuple[tuple[str, str], ...],
        done: dict[str, Map],
        removals: Removals = (),
    ) -> Map:
        """A service with all that it extends folded in."""
        service: Map = tree["services"][name]
        wanted = service.get("extends")
        if not isinstance(wanted, Map) or "service" not in wanted:
            return service
        where = position(service.at.get("extends"))
        if (path, name) in chain:
            names = " -> ".join(n for _, n in (*chain, (path, name)))
            raise ComposeFileError(f"Circular reference: {names}", where=where, hint="remove one extends of the circle")
        other, other_path, other_base = tree, path, base
        file = wanted.get("file")
        if file:
            other_path = self.source.absolute(file, base)
            other_base = os.path.dirname(other_path)
            other = self.foreign(other_path, other_base, variables, where)
        parent_name = wanted["service"] or ""
        if parent_name not in (other.get("services") or {}):
            shown = f" in {self.shown(other_path)}" if file else ""
            raise ComposeFileError(
                f'cannot extend service "{name}": service "{parent_name}" not found{shown}',
                where=where,
                hint=did_you_mean(parent_name, other.get("services") or ())
                or f"known there: {', '.join(other.get('services') or {}) or 'none'}",
            )
        parent = self.extend(
            other, parent_name, other_path, other_base, variables, (*chain, (path, name)), {}, () if file else removals
        )
        own = Map({k: v for k, v in service.items() if k != "extends"}, dict(service.at))
        own_removals = tuple(r[2:] for r in removals if r[:2] == ("services", name) and r[2:])
        result = merge_service(remove_paths(copy(parent), own_removals), own)
        if parent:  # an empty service extends nothing, and the key stays, as in the reference
            result.drop("extends")
        else:
            result.put("extends", wanted, service.at.get("extends"))
        done[name] = result
        return result

    def foreign(self, path: str, base: str, variables: Mapping[str, str], where: Position | None = None) -> Map:
        if (path, base) not in self.files:
            merged = Map()
            for tree, removals in self.documents(path, base, variables, where):
                merged = merge(remove_paths(merged, removals), tree)
            self.files[path, base] = merged
        return self.files[path, base]

    # ---- include -------------------------------------------------------------------------------------------

    def included(self, tree: Map, path: str, base: str, variables: Mapping[str, str], above: tuple[str, ...]) -> Map:
        items = tree.get("include")
        if not items:
            tree.drop("include")
            return tree
        out = Map({k: v for k, v in tree.items() if k != "include"}, dict(tree.at))
        for number, item in enumerate(items):
            where = position(items.at[number])
            try:
                inner = self.one_include(item, path, base, variables, above, where)
            except ComposeFileError as e:
                self.fault(e)
                continue
            for kind in ("services", *RESOURCES):
                for name, value in (inner.get(kind) or {}).items():
                    mine = out.get(kind)
                    if isinstance(mine, Map) and name in mine and mine[name] != value:
                        raise ComposeFileError(
                            f"{kind}.{name} conflicts with imported resource",
                            where=position(mine.at.get(name)) or where,
                            hint="change it by listing an override file in the include's own path:",
                        )
                    place = out.setdefault(kind, Map())
                    place.put(name, value, inner[kind].at.get(name))
        return out

    def one_include(
        self,
        item: Map,
        path: str,
        base: str,
        variables: Mapping[str, str],
        above: tuple[str, ...],
        where: Position | None,
    ) -> Map:
        files = tuple(self.source.absolute(p, base) for p in item.get("path") or ())
        for file in files:
            if file in above:
                names = " -> ".join([*map(self.shown, above), self.shown(file)])
                raise ComposeFileError(f"include cycle detected: {names}", where=where, hint="remove one include")
        directory = item.get("project_directory")
        inner_base = (
            self.source.absolute(directory, base) if directory else os.path.dirname(files[0]) if files else base
        )
        wanted = [self.source.absolute(p, base) for p in item.get("env_file") or ()]
        own: dict[str, str] = {}
        for env in wanted or [os.path.join(inner_base, ".env")]:
            if not self.source.is_file(env):
                if wanted:
                    raise ComposeFileError(
                        f"env file {env} not found: stat {env}: no such file or directory", where=where
                    )
                continue
            own.update(self.env_file(env, {**own, **variables}))
        return self.stack(files, inner_base, {**own, **variables}, above, where)

    def env_file(self, path: str, variables: Mapping[str, str]) -> dict[str, str]:
        """A .env file's variables; a name alone takes the caller's value."""
        name = self.shown(path)
        found: dict[str, str] = {}
        for key, value in dotenv.parse(self.source.text(path, name), name, variables.get):
            known = variables.get(key) if value is None else value
            if known is not None:
                found[key] = known
        if self.trace is not None:
            self.trace.variables(name, self.source.text(path, name), found)
        return found
