"""From a project to a bundle's list, and from a bundle to a project that can be brought up."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence

from kapelle.errors import ImageError, UsageError
from kapelle.events import Notice
from kapelle.images.bundle.collect import Collection
from kapelle.images.bundle.manifest import Manifest, SavedImage
from kapelle.light import TYPE_CHECKING

if TYPE_CHECKING:
    from kapelle.cli.context import Context
    from kapelle.images.store import Store
    from kapelle.model.project import FileSource, Project
    from kapelle.model.service import Service

_FROM = re.compile(r"^\s*FROM\s+(?:--\S+\s+)*(\S+)(?:\s+AS\s+(\S+))?\s*$", re.I | re.M)


def collect(
    context: Context, project: Project, services: Sequence[Service], *, skip: str, secrets: bool, inputs: bool
) -> Collection:
    """The files that the project needs, below the folder that has all compose files."""
    if "-" in project.files:
        raise UsageError(
            "a compose file from standard input can't be bundled", hint="write it to a file: -f compose.yaml"
        )
    read = [f for f in context.load([s.name for s in services]).sources if f != "-"]
    top = _top(project)
    found = Collection(top, (skip, f"{skip}.part"))
    for path in read:
        found.add(path, "compose file" if path in project.files else "file")
    env_file = f"{project.working_dir}/.env"
    if os.path.isfile(env_file):
        found.add(env_file, "env file")
    grants = {g.source for s in services for g in s.configs} | {g.source for s in services for g in s.secrets}
    for kind, sources in (("config", project.configs), ("secret", project.secrets)):
        for source in sources:
            if source.key in grants:
                _add_source(found, kind, source, secrets)
    for service in services:
        for mount in service.mounts:
            if mount.type == "bind":
                _add_bind(found, project, service.name, mount.source)
        if inputs and service.build is not None:
            _add_build(found, service)
    found.left_out += [
        f"variable {name}: it comes from your environment; write it to .env" for name in sorted(_from_caller(context))
    ]
    return found


def _from_caller(context: Context) -> set[str]:
    """Variables that the files use and that only the caller's environment has: they don't travel."""
    from kapelle.compose import load as loading

    options = context.options._replace(interpolate=False, normalize=False, consistency=False, resolve_env=False)
    own = {n: context.environ[n] for n in ("HOME", "PATH", "PWD") if n in context.environ}
    bare = loading.load(options, context.cwd, own)
    return {
        name
        for name in _used(bare.tree)
        if name in context.environ and bare.variables.get(name) != context.environ[name]
    }


def _used(value: object, key: str = "") -> Iterator[str]:
    """Names of variables in ${…}, and of those that `environment` passes on."""
    from kapelle.compose.interpolate import Invalid, uses

    if isinstance(value, dict):
        if key == "environment":
            yield from (str(name) for name, given in value.items() if given is None)
        for name, item in value.items():
            yield from _used(item, str(name))
    elif isinstance(value, list):
        for item in value:
            yield from _used(item)
    elif isinstance(value, str) and "$" in value:
        try:
            yield from (use.name for use in uses(value))
        except Invalid:
            return


def _top(project: Project) -> str:
    """The project's folder, or the one above it that has all compose files, too."""
    folders = [project.working_dir, *(os.path.dirname(f) for f in project.files)]
    top = os.path.commonpath(folders)
    home = os.path.expanduser("~")
    if top in ("/", home) and top != project.working_dir:
        raise UsageError(
            f"the compose files have no folder in common but {top}",
            hint="put them into the project's folder, or below one of its own",
        )
    return top


def _add_source(found: Collection, kind: str, source: FileSource, secrets: bool) -> None:
    if source.environment:
        found.left_out.append(f"{kind} {source.key}: it is a variable ({source.environment}) of your environment")
    elif source.file and kind == "secret" and not secrets:
        found.left_out.append(f"secret {source.key}: --with-secrets takes {source.file} along")
    elif source.file:
        found.add(source.file, f"{kind} {source.key}")


def _add_bind(found: Collection, project: Project, service: str, source: str) -> None:
    inside = source == project.working_dir or source.startswith(f"{project.working_dir}/")
    if not inside:
        found.left_out.append(f"mount of {service}: {source} lies outside of the project's folder")
    elif os.path.lexists(source):
        found.add(source, f"mount of {service}")


def _add_build(found: Collection, service: Service) -> None:
    build = service.build
    assert build is not None
    if "://" in build.context or build.context.startswith("git@"):
        found.left_out.append(f"build of {service.name}: {build.context} is no folder")
        return
    found.add(build.context, f"build of {service.name}")
    dockerfile = os.path.join(build.context, build.dockerfile)
    if not build.dockerfile_inline and os.path.isfile(dockerfile):
        found.add(dockerfile, f"build of {service.name}")
    for name, place in build.additional_contexts:
        if os.path.isdir(place):
            found.add(place, f"build context {name} of {service.name}")


def images(project: Project, services: Iterable[Service], store: Store, *, inputs: bool) -> tuple[SavedImage, ...]:
    """The images of services and their mounts; with build inputs, the bases that are here. ImageError if one isn't."""
    names: dict[str, bool] = {}
    for service in services:
        names[project.image_of(service)] = True
        names.update((m.source, True) for m in service.mounts if m.type == "image")
        if inputs and service.build is not None:
            names.update((n, False) for n in _bases(service) if n not in names)
    found = []
    for name, needed in names.items():
        image = store.find(name)
        if image is not None:
            found.append(SavedImage(name, image.id, image.standin))
        elif needed:
            raise ImageError(f"there is no image {name} here", hint="kap pull or kap build it first", code="KAP502")
    return tuple(found)


def _bases(service: Service) -> Iterator[str]:
    """What a Dockerfile builds upon, as far as it says so without arguments."""
    build = service.build
    assert build is not None
    text = build.dockerfile_inline
    if not text:
        try:
            with open(os.path.join(build.context, build.dockerfile), encoding="utf-8") as f:
                text = f.read()
        except (OSError, UnicodeDecodeError):
            return
    stages: set[str] = set()
    for name, stage in _FROM.findall(text):
        if "$" not in name and name != "scratch" and name.lower() not in stages:
            yield name
        stages.add(stage.lower())


def list_of(
    context: Context, project: Project, found: Collection, saved: tuple[SavedImage, ...], services: Sequence[str]
) -> Manifest:
    from kapelle import __version__

    env_files = [os.path.abspath(os.path.join(context.cwd, f)) for f in context.given.env_file]
    return Manifest(
        project.name,
        found.relative(project.working_dir),
        tuple(found.relative(f) for f in project.files),
        tuple(found.relative(f) for f in env_files if found.holds(f)),
        tuple(context.given.profile),
        tuple(services),
        saved,
        tuple(found.entries.values()),
        tuple(found.left_out),
        __version__,
    )


def bring_in(context: Context, path: str, to: str) -> Manifest:
    """Check a bundle, take its images over, extract its files, and make the command one that was given there."""
    from kapelle.images.bundle import read

    with read.opened(path, context.emit) as bundle:
        manifest = bundle.manifest
        folder = os.path.abspath(os.path.join(context.cwd, to or manifest.project))
        store = context.store()
        read.load_images(bundle, store, context.emit)
        read.extract(bundle, folder, context.emit)
    for text in manifest.left_out:
        context.emit(Notice(f"not in the bundle: {text}", once=f"bundle-{manifest.project}-{text}"))
    own_name = str(context.given.project_name or context.environ.get("COMPOSE_PROJECT_NAME", ""))
    for image in manifest.images if own_name else ():
        if image.name.startswith(f"{manifest.project}-"):  # what a service builds is called PROJECT-SERVICE
            store.tag(f"{own_name}-{image.name.removeprefix(f'{manifest.project}-')}", image.id)
    if not own_name and os.path.basename(folder) != manifest.project and not _names_itself(folder, manifest):
        text = f"the project is called {manifest.project}: in {folder} write  kap -p {manifest.project} …"
        context.emit(Notice(text, level="info"))
    context.settle_in(
        files=[f"{folder}/{f}" for f in manifest.files],
        env_files=[f"{folder}/{f}" for f in manifest.env_files],
        profiles=list(manifest.profiles),
        directory=os.path.normpath(f"{folder}/{manifest.directory}"),
        name=manifest.project,
    )
    return manifest


def _names_itself(folder: str, manifest: Manifest) -> bool:
    """Has a compose file a `name:`? Else the folder's name is the project's."""
    for path in manifest.files:
        with open(f"{folder}/{path}", encoding="utf-8", errors="replace") as f:
            if any(line.startswith("name:") for line in f):
                return True
    return False
