"""`kap buildx build PATH`, and `kap build PATH`: one image from a folder, by docker's words, without a compose file."""

from __future__ import annotations

import json
import os
import sys

from kapelle.cli.flags import Args, Flag
from kapelle.errors import UsageError
from kapelle.events import Notice
from kapelle.light import TYPE_CHECKING, Any, signal

if TYPE_CHECKING:
    from kapelle.cli.context import Context
    from kapelle.images.build.cache import Cache
    from kapelle.images.build.context import BuildOptions
    from kapelle.images.build.outputs import Output
    from kapelle.images.types import Image
    from kapelle.model.service import Build

ARGUMENTS = "PATH | URL | -"
# what docker's command has and compose's has not
OWN = (
    Flag("--tag", "-t", value="NAME[:TAG]", repeat=True, help="name of the image"),
    Flag("--file", "-f", value="FILE", default="", help="the Dockerfile; default: PATH/Dockerfile"),
    Flag("--target", value="STAGE", default="", help="stop at this stage"),
    Flag("--no-cache-filter", value="STAGE", repeat=True, help="stages that are not taken from the cache"),
    Flag(
        "--secret", value="id=ID[,src=FILE]", repeat=True, help="secret for RUN --mount=type=secret (or env=VARIABLE)"
    ),
    Flag("--label", value="KEY=VALUE", repeat=True, help="label of the image"),
    Flag("--build-context", value="NAME=PATH", repeat=True, help="further context"),
    Flag("--iidfile", value="FILE", default="", help="write the image's ID to a file"),
    Flag("--metadata-file", value="FILE", default="", help="write the result's digests to a file"),
    Flag("--load", help="keep the image here (it always is)"),
    Flag("--output", "-o", value="OUTPUT", repeat=True, help="type=local|tar|oci|docker|image,dest=PATH"),
    Flag("--platform", value="PLATFORM", repeat=True, help="this machine's; no other can be built here"),
    Flag("--cache-from", value="CACHE", repeat=True, help="type=local,src=FOLDER or an image"),
    Flag("--cache-to", value="CACHE", repeat=True, help="type=local,dest=FOLDER or type=inline"),
    Flag("--network", value="MODE", default="", help="default, none or host: of RUN"),
    Flag("--add-host", value="HOST:IP", repeat=True, help="further line of /etc/hosts"),
    Flag("--shm-size", value="BYTES", default="", help="size of /dev/shm"),
    Flag("--ulimit", value="NAME=SOFT:HARD", repeat=True, help="limit of processes"),
    Flag("--allow", value="ENTITLEMENT", repeat=True, help="network.host"),
    Flag("--attest", value="ATTESTATION", repeat=True, hidden=True),
    Flag("--rm", default=True, hidden=True),
    Flag("--cpu-quota", value="N", hidden=True),
    Flag("--cgroup-parent", value="NAME", hidden=True),
    Flag("--squash", hidden=True),
    Flag("--isolation", value="KIND", hidden=True),
    Flag("--security-opt", value="OPT", repeat=True, hidden=True),
)
COMMON = (
    Flag("--build-arg", value="NAME=VALUE", repeat=True, help="build argument, beats build.args"),
    Flag("--builder", value="NAME", default="", hidden=True),
    Flag("--check", help="read the Dockerfiles and report mistakes, build nothing"),
    Flag("--compress", hidden=True),
    Flag("--force-rm", hidden=True),
    Flag("--memory", "-m", value="BYTES", default="", hidden=True),
    Flag("--no-cache", help="ignore cached layers"),
    Flag("--no-rm", hidden=True),
    Flag("--offline", help="never use the network: bases that are here will do, a RUN has none"),
    Flag("--progress", value="KIND", default="", help="auto, plain, tty, quiet or rawjson"),
    Flag("--provenance", value="MODE", default="", hidden=True),
    Flag("--pull", help="ask the registry for newer base images"),
    Flag("--push", help="push after building"),
    Flag("--quiet", "-q", help="no build output; print the image's ID"),
    Flag("--sbom", value="MODE", default="", hidden=True),
    Flag("--ssh", value="default|ID=PATH", repeat=True, help="SSH agent for RUN --mount=type=ssh"),
)
# flags that do nothing here, and why that is told
_UNUSED = (
    ("builder", "there is one builder here"),
    ("memory", "build steps are not limited"),
    ("cpu_quota", "build steps are not limited"),
    ("cgroup_parent", "build steps are not limited"),
    ("provenance", "attestations are not made"),
    ("sbom", "attestations are not made"),
    ("attest", "attestations are not made"),
    ("squash", "layers are kept"),
    ("isolation", "is for Windows containers"),
    ("security_opt", "a build step has what any container has"),
)


def check_offline(context: Context, args: Args) -> None:
    """--offline, and what it excludes."""
    from kapelle.images import offline

    if args.offline:
        context.go_offline()
    for flag in ("pull", "push"):
        if getattr(args, flag) and offline.is_on(context.environ):
            raise UsageError(f"--{flag} and --offline exclude each other", hint="leave out one of the two")


def tell_unused(context: Context, args: Args) -> None:
    for key, why in _UNUSED:
        value = getattr(args, key, None)
        if value and value not in ("false", "default") and key in args.given:
            context.emit(Notice(f"--{key.replace('_', '-')} is not honoured: {why}"))


def end_as_interrupted() -> None:
    """SIGTERM ends a build as Ctrl-C does: what it has running goes with it."""

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


def run(context: Context, args: Args) -> int:
    end_as_interrupted()
    if len(args.rest) != 1:
        raise UsageError(
            f"'kap buildx build' requires 1 argument, {len(args.rest)} given",
            hint="kap build -t NAME .  (or - or a URL)",
        )
    context.command = "buildx build"
    check_offline(context, args)
    if args.progress:
        context.choose_progress(args.progress)
    if args.quiet:
        context.quieten()
    tell_unused(context, args)
    from kapelle.images.build import outputs
    from kapelle.images.build.cache import Cache

    wanted = [outputs.parse(o) for o in args.output]
    cache = Cache(context.paths.images)  # of what comes on standard input
    try:
        options = _options(context, args, wanted, cache)
        if args.check:
            return check(context, options.build)
        image = _build(context, options)
        names = tuple(dict.fromkeys(n for n in (options.name, *options.build.tags) if n))
        _write(context, args, image, names, wanted)
        return 0
    finally:
        cache.close()


def _build(context: Context, options: BuildOptions) -> Image:
    from kapelle.engines.native import rung
    from kapelle.engines.native.imagesource import ImageSource

    rung.require()
    return ImageSource(context.paths, context.store(), context.environ).build_alone(options, context.emit)


def _options(context: Context, args: Args, wanted: list[Output], cache: Cache) -> BuildOptions:
    from kapelle.engines.native import building
    from kapelle.errors import ImageError
    from kapelle.images import platforms
    from kapelle.images.build.context import BuildOptions
    from kapelle.images.build.remote import is_remote
    from kapelle.model.service import Build, Ulimit

    here = platforms.normal(platforms.host())
    others = [p for row in args.platform for p in row.split(",") if platforms.parse(p) != here]
    if others:
        names = ",".join(others)
        raise ImageError(
            f"--platform {names}: only images of this machine's platform ({here}) are built", code="KAP503"
        )
    path = args.rest[0]
    folder, dockerfile = path, args.file
    if path == "-":
        folder, dockerfile = _standard_input(cache), args.file
    elif not is_remote(path):
        folder = os.path.join(context.cwd, path)
    if dockerfile == "-":
        text = sys.stdin.read()
    else:
        text = ""
        if dockerfile and not is_remote(path) and not is_remote(dockerfile) and path != "-":
            dockerfile = os.path.join(context.cwd, dockerfile)
    tags = [*args.tag, *(o.name for o in wanted if o.name)]
    build = Build(
        context=folder,
        dockerfile=dockerfile if dockerfile and dockerfile != "-" else "Dockerfile",
        dockerfile_inline=text,
        args=arguments(context, args.build_arg),
        target=args.target,
        labels=tuple((row.partition("=")[0], row.partition("=")[2]) for row in args.label),
        tags=tuple(tags[1:]),
        network=args.network,
        additional_contexts=tuple(_context(context, row) for row in args.build_context),
        extra_hosts=tuple(_host(row) for row in args.add_host),
        shm_size=_bytes(args.shm_size) if args.shm_size else None,
        ulimits=tuple(Ulimit(*_ulimit(row)) for row in args.ulimit),
        cache_from=tuple(args.cache_from),
        cache_to=tuple(args.cache_to),
    )
    return BuildOptions(
        name=tags[0] if tags else "",
        service="",
        build=build,
        no_cache=args.no_cache,
        pull=args.pull,
        host_settings=context.environ.get("KAP_HOST_SETTINGS", "").lower() in ("1", "true", "yes", "on"),
        secrets=tuple(_secret(context, row) for row in args.secret),
        ssh=building.ssh(ssh_rows(args.ssh), context.environ, context.cwd),
        no_cache_stages=tuple(s.lower() for row in args.no_cache_filter for s in row.split(",")),
        allow=tuple(args.allow),
        directory=context.cwd,
    )


def _standard_input(cache: Cache) -> str:
    """A Dockerfile or an archive on standard input, in a folder that goes when the cache is closed."""
    from kapelle.images.build import inputs

    place = cache.fresh("stdin")
    with open(f"{place}/input", "wb") as f:
        while data := sys.stdin.buffer.read(1 << 20):
            f.write(data)
    return inputs.unpacked(f"{place}/input", f"{place}/tree", "on standard input")


def arguments(context: Context, rows: list[str]) -> tuple[tuple[str, str], ...]:
    """--build-arg: `NAME=VALUE`, or NAME with the value of the caller's variable."""
    given = [(row.partition("=")[0], row.partition("=")[2]) for row in rows if "=" in row]
    return tuple(given + [(row, context.environ[row]) for row in rows if "=" not in row and row in context.environ])


def ssh_rows(rows: list[str]) -> tuple[tuple[str, str], ...]:
    return tuple((row.partition("=")[0], row.partition("=")[2]) for row in rows)


def _context(context: Context, row: str) -> tuple[str, str]:
    name, equals, value = row.partition("=")
    if not equals:
        raise UsageError(f'invalid argument "{row}" for --build-context', hint="--build-context NAME=PATH")
    from kapelle.compose.paths import is_remote

    return name, value if is_remote(value) else os.path.join(context.cwd, value)


def _host(row: str) -> tuple[str, str]:
    name, _, address = row.partition("=") if "=" in row else row.partition(":")
    return name, address.strip("[]")


def _bytes(text: str) -> int:
    import re

    found = re.fullmatch(r"(\d+)\s*([kmgt]?)i?b?", text.lower())
    if found is None:
        raise UsageError(f'invalid size: "{text}"', hint="write 64m")
    return int(found[1]) << {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}[found[2]]


def _ulimit(row: str) -> tuple[str, int, int]:
    name, _, values = row.partition("=")
    soft, _, hard = values.partition(":")
    try:
        return name, int(soft), int(hard or soft)
    except ValueError:
        raise UsageError(f'invalid ulimit argument: "{row}"', hint="--ulimit nofile=1024:2048") from None


def _secret(context: Context, row: str) -> tuple[str, bytes]:
    options = dict((k.strip().lower(), v) for k, _, v in (p.partition("=") for p in row.split(",")))
    name = options.get("id", "")
    if not name:
        raise UsageError(f'invalid secret "{row}"', hint="--secret id=ID,src=FILE or id=ID,env=VARIABLE")
    path = options.get("src") or options.get("source") or ""
    variable = options.get("env") or (path if options.get("type") == "env" else "")
    if not variable and not path and name in context.environ:
        variable = name
    if variable:
        if variable not in context.environ:
            raise UsageError(f"secret {name}: the variable {variable} is not set")
        return name, context.environ[variable].encode()
    try:
        with open(os.path.join(context.cwd, path or name), "rb") as f:
            return name, f.read()
    except OSError as e:
        raise UsageError(f"secret {name}: {path or name}: {(e.strerror or '').lower()}") from None


def _write(context: Context, args: Args, image: Image, names: tuple[str, ...], wanted: list[Output]) -> None:
    from kapelle.engines.native import building
    from kapelle.images.build import outputs

    store = context.store()
    for output in wanted:
        outputs.write(output, image, names, store)
    if args.push or any(o.push for o in wanted):
        push(context, names)
    if args.iidfile:
        _file(args.iidfile, image.id)
    if args.metadata_file:
        record: dict[str, Any] = store.record(image.id) or {}
        _file(args.metadata_file, json.dumps(building.metadata(image, names, record), indent=2))
    if args.quiet:
        context.stdout.write(f"{image.id}\n")


def _file(path: str, text: str) -> None:
    try:
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)
    except OSError as e:
        raise UsageError(f"can't write {path}: {(e.strerror or '').lower()}") from None


def push(context: Context, names: tuple[str, ...]) -> None:
    """--push: each of the image's names."""
    from kapelle.engines.native import building
    from kapelle.engines.native.imagesource import ImageSource

    if not names:
        raise UsageError("--push needs the image's name", hint="kap build --push -t REGISTRY/NAME:TAG .")
    images = ImageSource(context.paths, context.store(), context.environ)
    for name in names:
        building.push(images, name, context.emit)


def check(context: Context, build: Build) -> int:
    """Read a Dockerfile for its mistakes and what is probably one; 1 when there is any."""
    from kapelle.images.build import dockerfile, inputs, lint, stages
    from kapelle.images.build.cache import Cache

    cache = Cache(context.paths.images)
    try:
        given = inputs.read(build, cache, context.environ)
    finally:
        cache.close()
    parsed = dockerfile.parse(given.text, given.name)
    split = stages.split(parsed)
    stages.target(split, build.target)
    found = lint.check(parsed, split)
    for warning in found:
        context.stdout.write(lint.text(warning, parsed) + "\n")
    if not found:
        context.stdout.write("Check complete, no warnings found.\n")
    else:
        context.stdout.write(f"Check complete, {len(found)} warning{'s' * (len(found) > 1)} found.\n")
    return 1 if found else 0
