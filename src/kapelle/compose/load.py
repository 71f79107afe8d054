"""The order of phases: find the files, read and merge them, complete, check, bind. See docs/architecture.md."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from kapelle.compose import blanks, dotenv, normalise, profiles
from kapelle.compose.document import parse
from kapelle.compose.files import Reading
from kapelle.compose.remembered import Memory
from kapelle.compose.source import Source, decode
from kapelle.compose.tree import Map, Seq, position
from kapelle.errors import ComposeFileError, KapelleError, Mistakes
from kapelle.events import Notice
from kapelle.light import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from kapelle.compose.trace import Trace
    from kapelle.model.project import Project

NAMES = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")
OVERRIDES = tuple(f"{stem}.override.{ending}" for stem in ("compose", "docker-compose") for ending in ("yml", "yaml"))
_TRUE = ("1", "true", "yes", "on")


class Options(NamedTuple):
    files: tuple[str, ...] = ()  # -f; "-" = standard input
    project_name: str = ""  # -p
    project_directory: str = ""
    env_files: tuple[str, ...] = ()  # --env-file
    profiles: tuple[str, ...] = ()  # --profile
    all_resources: bool = False
    memory: str = ""  # folder for what the YAML reader said of files; "" = nothing is kept
    interpolate: bool = True
    normalize: bool = True
    resolve_paths: bool = True
    consistency: bool = True
    resolve_env: bool = True  # fold env_file into environment


class Loaded:
    """What a load gives. `project` is bound when it is first asked for: `config` mostly needs the tree alone."""

    def __init__(
        self, bind: Callable[[], Project], notices: tuple[Notice, ...], sources: tuple[str, ...],
        variables: Mapping[str, str], tree: Map, all_profiles: tuple[str, ...],
    ) -> None:  # fmt: skip
        self._bind = bind
        self._project: Project | None = None
        self.notices = notices
        self.sources = sources  # every file that was read
        self.variables = variables  # what interpolation sees
        self.tree = tree  # canonical, as `config` prints it
        self.all_profiles = all_profiles

    @property
    def project(self) -> Project:
        if self._project is None:
            self._project = self._bind()
        return self._project


def find_files(
    files: tuple[str, ...], directory: str, cwd: str, environ: Mapping[str, str]
) -> tuple[list[str], str, str]:
    """(absolute paths, base folder, a warning or ""). Raises ComposeFileError when there are none."""
    named = list(files)
    if not named and environ.get("COMPOSE_FILE"):
        named = [f for f in environ["COMPOSE_FILE"].split(environ.get("COMPOSE_PATH_SEPARATOR") or os.pathsep) if f]
    given = os.path.normpath(os.path.join(cwd, directory)) if directory else ""
    if named:
        paths = [f if f == "-" else os.path.normpath(os.path.join(cwd, f)) for f in named]
        first = cwd if paths[0] == "-" else os.path.dirname(paths[0])
        return paths, given or first, ""
    place = given or cwd
    while True:
        there = [n for n in NAMES if os.path.isfile(f"{place}/{n}")]
        if there:
            found = [f"{place}/{there[0]}"]
            found += [f"{place}/{n}" for n in OVERRIDES if os.path.isfile(f"{place}/{n}")][:1]
            warning = ""
            if len(there) > 1:
                warning = f"Found multiple config files with supported names: {', '.join(there)}; using {there[0]}"
            return found, given or place, warning
        parent = os.path.dirname(place)
        if parent == place:
            raise ComposeFileError(
                "no configuration file provided: not found",
                hint="run kap where a compose.yaml is (or below), or name one with -f FILE",
            )
        place = parent


class Prepared(NamedTuple):
    """What is known before the files are read: which they are, below which folder, and what variables they see."""

    reading: Reading
    variables: dict[str, str]  # the environment over .env
    visible: dict[str, str]  # the same with COMPOSE_PROJECT_NAME
    paths: list[str]
    base: str
    name: str  # given by flag or variable; "" when the files or their folder say it
    derived: str  # from the folder
    env_files: list[str]
    warning: str


def prepare(
    options: Options, cwd: str, environ: Mapping[str, str], trace: Trace | None = None, *, lenient: bool = False
) -> Prepared:
    """Find the files and the variables. Raises ComposeFileError."""
    source = Source(cwd, memory=Memory(options.memory) if options.memory else None)
    base_guess = os.path.normpath(os.path.join(cwd, options.project_directory)) if options.project_directory else ""
    variables = {**environ, "PWD": cwd}
    env_files: list[str] = []
    if not options.env_files and not environ.get("COMPOSE_ENV_FILES"):
        # .env beside the files may itself say which files (COMPOSE_FILE)
        start = base_guess or (_beside(options.files, cwd) if options.files else _climb(cwd))
        env_files = _default_env(start, environ)
    else:
        named = options.env_files or tuple(environ["COMPOSE_ENV_FILES"].split(","))
        env_files = [os.path.normpath(os.path.join(cwd, f)) for f in named]
        for file in env_files:
            if not source.is_file(file):
                raise ComposeFileError(f"couldn't find env file: {file}", hint="check the path after --env-file")
    reading = Reading(
        source, variables, interpolation=options.interpolate, resolve_paths=options.resolve_paths, trace=trace,
        lenient=lenient,
    )  # fmt: skip
    from_files: dict[str, str] = {}
    for file in env_files:
        from_files.update(reading.env_file(file, {**from_files, **environ}))
    variables.update({k: v for k, v in from_files.items() if k not in environ})
    paths, base, warning = find_files(options.files, options.project_directory, cwd, variables)
    name = options.project_name or variables.get("COMPOSE_PROJECT_NAME", "")
    if name:
        check_name(name)
    derived = normal_name(os.path.basename(base))
    visible = {**variables, "COMPOSE_PROJECT_NAME": name or derived}
    if not name:
        visible["COMPOSE_PROJECT_NAME"] = _name_in(paths, base, visible, source) or derived
    return Prepared(reading, variables, visible, paths, base, name, derived, env_files, warning)


def load(
    options: Options,
    cwd: str,
    environ: Mapping[str, str],
    *,
    services: tuple[str, ...] = (),
    trace: Trace | None = None,
) -> Loaded:
    """Load a project. `services`: named on the command line, which turns their profiles on.

    `trace` is told where everything comes from. Raises ComposeFileError, or Mistakes when there are several.
    """
    reading, variables, first, paths, base, name, derived, env_files, warning = prepare(options, cwd, environ, trace)
    tree = reading.stack(tuple(paths), base, first)
    name = name or normal_name(str(tree.get("name") or "")) or derived
    if not name:
        raise ComposeFileError("project name must not be empty", hint="give it one: -p NAME, or name: in the file")
    if reading.mistakes:
        _raise(reading.mistakes)
    tree.put("name", name, tree.at.get("name"))

    active = options.profiles or tuple(p for p in variables.get("COMPOSE_PROFILES", "").split(",") if p)
    every = sorted({p for s in normalise.services(tree).values() for p in s.get("profiles") or ()})
    off = profiles.split(tree, active if options.interpolate else ("*",), services)  # variables may stand in names
    if options.normalize:
        normalise.defaults(tree)
    elif options.interpolate:
        normalise.targets_of_secrets(tree)
    if options.consistency:
        mistakes = normalise.consistency(tree, off)
        if mistakes:
            _raise(mistakes)
    if options.normalize:
        normalise.names(tree, name)
    if not options.all_resources and options.interpolate:
        normalise.drop_unused(tree)
    blanks.zeros(tree)
    if options.resolve_env:
        for service in normalise.services(tree).values():
            environment(service, reading, first)
            if options.normalize:
                arguments(service, first)
    notices = [Notice(text, where=where) for text, where in reading.warnings]
    if warning:
        notices.insert(0, Notice(warning))
    notices += [
        Notice(f'The "{n}" variable is not set. Defaulting to a blank string.', where=where)
        for n, where in reading.missing.items()
    ]
    told = env_files if options.env_files else []
    return Loaded(
        lambda: _bind(tree, off, name, base, paths, told, active, variables),
        tuple(notices),
        tuple(reading.source.sources),
        first,
        tree,
        tuple(every),
    )


def _bind(
    tree: Map, off: Map, name: str, base: str, paths: list[str], env_files: list[str],
    active: tuple[str, ...], variables: Mapping[str, str],
) -> Project:  # fmt: skip
    from kapelle.compose import bind, hashing

    known = normalise.services(tree)
    contents = {n: hashing.contents(s, tree, variables) for n, s in known.items()}
    return bind.project(
        tree,
        off,
        name=name,
        working_dir=base,
        files=tuple(paths),
        env_files=tuple(env_files),
        profiles=active,
        hashes={n: hashing.service_hash(s, contents[n]) for n, s in known.items()},
        contents=contents,
        resource_hash=hashing.digest,
        environ=variables,
    )


def _raise(mistakes: list[KapelleError]) -> None:
    if len(mistakes) == 1:
        raise mistakes[0]
    raise Mistakes(tuple(mistakes))


def _beside(files: tuple[str, ...], cwd: str) -> str:
    return cwd if files[0] == "-" else os.path.dirname(os.path.normpath(os.path.join(cwd, files[0])))


def _climb(cwd: str) -> str:
    """The folder with the compose file, or the working directory."""
    place = cwd
    while True:
        if any(os.path.isfile(f"{place}/{n}") for n in NAMES):
            return place
        parent = os.path.dirname(place)
        if parent == place:
            return cwd
        place = parent


def _default_env(directory: str, environ: Mapping[str, str]) -> list[str]:
    if environ.get("COMPOSE_DISABLE_ENV_FILE", "").lower() in _TRUE:
        return []
    path = os.path.join(directory, ".env")
    return [path] if os.path.isfile(path) else []


def _name_in(paths: list[str], base: str, variables: Mapping[str, str], source: Source) -> str:
    """The last top-level `name:`, read ahead, because values may use ${COMPOSE_PROJECT_NAME}."""
    found = ""
    for path in paths:
        if path == "-":
            continue
        try:
            text = source.read(path)
        except OSError:
            continue
        if not any(line.startswith(b"name:") for line in text.splitlines()):
            continue
        ahead = Reading(Source(base), variables, interpolation=True, resolve_paths=False)
        name = ahead.shown(path)
        for document in parse(decode(text, name), name, source.memory):
            tree = document.tree
            if isinstance(tree, Map) and "name" in tree:
                alone = Map({"name": tree["name"]}, {"name": tree.at.get("name")})
                ahead.interpolate(alone, variables)
                found = str(alone["name"] or found)
    return found


def normal_name(text: str) -> str:
    """A project name from a folder's: lower case, only a-z0-9_-, no leading _ or -."""
    kept = "".join(c for c in text.lower() if c.isascii() and (c.isalnum() or c in "_-"))
    return kept.lstrip("_-")


def check_name(name: str) -> None:
    if normal_name(name) != name or not name:
        raise ComposeFileError(
            f'invalid project name "{name}": must consist only of lowercase alphanumeric characters, hyphens, '
            "and underscores as well as start with a letter or number",
            hint=f"use {normal_name(name) or 'another name'}",
        )


def environment(service: Map, reading: Reading, variables: Mapping[str, str]) -> None:
    """env_file under environment; names alone take the caller's value; label_file under labels."""
    values: dict[str, str | None] = {}
    rows = service.get("env_file") or Seq()
    for number, row in enumerate(rows):
        path = row.get("path", "")
        if not reading.source.is_file(path):
            if not row.get("required", True):
                continue
            raise ComposeFileError(
                f"env file {path} not found: stat {path}: no such file or directory",
                where=position(rows.at[number]),
                hint="create it, or set required: false",
            )
        before = {**_set(values), **_set(service.get("environment") or {})}
        found = _env_rows(path, row.get("format", ""), reading, variables, before)
        values.update(found)
        if reading.trace is not None:
            reading.trace.env_file(service, reading.shown(path), reading.source.text(path, path), found)
    own = service.get("environment") or Map()
    places = dict(own.at) if isinstance(own, Map) else {}
    for key, value in own.items():
        known = variables.get(key) if value is None else value
        values[key] = known
    if values:
        service.put("environment", Map(values, places), service.at.get("environment") or service.at.get("env_file"))
    service.drop("env_file")
    _label_files(service, reading, variables)


def arguments(service: Map, variables: Mapping[str, str]) -> None:
    """Build arguments that are names alone take the caller's value, or are none."""
    build = service.get("build")
    args = build.get("args") if isinstance(build, Map) else None
    if isinstance(args, Map):
        for key in [k for k, v in args.items() if v is None]:
            if key in variables:
                args[key] = variables[key]
            else:
                args.drop(key)


def _set(values: Mapping[str, str | None]) -> dict[str, str]:
    return {k: v for k, v in values.items() if v is not None}


def _env_rows(
    path: str, kind: str, reading: Reading, variables: Mapping[str, str], before: Mapping[str, str] | None = None
) -> dict[str, str | None]:
    name = reading.shown(path)
    text = reading.source.text(path, name)
    rows = dotenv.parse_raw(text) if kind == "raw" else dotenv.parse(text, name, variables.get, before)
    found: dict[str, str | None] = {}
    for key, value in rows:
        known = variables.get(key) if value is None else value
        if known is not None:
            found[key] = known
    return found


def _label_files(service: Map, reading: Reading, variables: Mapping[str, str]) -> None:
    files = service.get("label_file")
    if not files:
        return
    labels: dict[str, Any] = {}
    for path in files:
        if not reading.source.is_file(path):
            raise ComposeFileError(
                f"label file {path} not found: stat {path}: no such file or directory",
                where=position(service.at.get("label_file")),
            )
        labels.update(_env_rows(path, "", reading, variables))
    own = service.get("labels") or Map()
    service.put("labels", Map({**labels, **own}, dict(own.at)), service.at.get("labels"))
    service.drop("label_file")
