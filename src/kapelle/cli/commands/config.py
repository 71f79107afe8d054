"""`config`: the merged, interpolated, normalised file, or one aspect of it."""

from __future__ import annotations

from kapelle.cli.flags import Args, Flag
from kapelle.errors import KapelleError
from kapelle.light import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kapelle.cli.context import Context
    from kapelle.compose.load import Loaded

NAME = "config"
HELP = "print the merged, interpolated, normalised file"
ARGUMENTS = "[SERVICE...]"
FLAGS = (
    Flag("--check", help="report every mistake of all files in one go, and what is surprising in them"),
    Flag("--explain", value="PATH", default=None, help="say where the value at a path comes from"),
    Flag("--schema", help="print a JSON Schema of what is accepted, for editors"),
    Flag("--environment", help="print the variables that interpolation sees"),
    Flag("--format", value="FORMAT", default="yaml", choices=("yaml", "json"), help="yaml or json"),
    Flag("--hash", value="SERVICES", default="", help='print config hashes of these services, "*" for all'),
    Flag("--images", help="image names, one per line"),
    Flag("--lock-image-digests", help="print an override file that pins each image by digest"),
    Flag("--models", help="model names, one per line"),
    Flag("--networks", help="network keys, one per line"),
    Flag("--no-consistency", help="don't check references between parts"),
    Flag("--no-env-resolution", help="accepted for docker compose; env_file is always resolved, as there"),
    Flag("--no-interpolate", help="leave ${…} as written"),
    Flag("--no-normalize", help="leave out defaults and implied parts"),
    Flag("--no-path-resolution", help="leave relative paths as written"),
    Flag("--output", "-o", value="FILE", default="", help="write to this file"),
    Flag("--profiles", help="profile names, one per line"),
    Flag("--quiet", "-q", help="check only, print nothing"),
    Flag("--resolve-image-digests", help="write images as name@digest"),
    Flag("--services", help="service names, one per line"),
    Flag("--variables", help="table of the variables that the file uses"),
    Flag("--volumes", help="volume keys, one per line"),
)


def run(context: Context, args: Args) -> int:
    if args.schema:
        import json

        from kapelle.compose.schema import schema

        return _give(context, args, json.dumps(schema(), indent=2) + "\n")
    if args.check:
        from kapelle.cli.checking import report

        text, wrong = report(context, args.format)
        _give(context, args, "" if args.quiet else text)
        return 1 if wrong else 0
    if args.explain is not None:
        from kapelle.cli.explaining import explain

        return _give(context, args, explain(context, args.explain, args.format))
    options = context.options._replace(
        interpolate=not (args.no_interpolate or args.variables),
        normalize=not args.no_normalize,
        resolve_paths=not args.no_path_resolution,
        consistency=not (args.no_consistency or args.no_interpolate or args.variables),
        resolve_env=not (args.no_interpolate or args.variables),
    )
    from kapelle.compose import load as loading

    loaded = loading.load(options, context.cwd, context.environ, services=tuple(args.rest))
    if not args.quiet:
        for notice in loaded.notices:
            context.emit(notice)
    if args.quiet:
        return 0
    return _give(context, args, _text(context, args, loaded))


def _give(context: Context, args: Args, text: str) -> int:
    """Write to standard output, or where --output says."""
    if args.output:
        try:
            with open(args.output, "w") as f:
                f.write(text)
        except OSError as e:
            raise KapelleError(f"can't write {args.output}: {(e.strerror or '').lower()}") from None
    else:
        context.stdout.write(text)
    return 0


def _text(context: Context, args: Args, loaded: Loaded) -> str:
    tree = loaded.tree
    if args.services:
        return _lines(sorted(tree.get("services") or ()))
    if args.volumes:
        return _lines(sorted(tree.get("volumes") or ()))
    if args.networks:
        return _lines(sorted(tree.get("networks") or ()))
    if args.models:
        return _lines(sorted(tree.get("models") or ()))
    if args.images:
        return _lines([loaded.project.image_of(s) for s in loaded.project.services])
    if args.profiles:
        return _lines(loaded.all_profiles)
    if args.environment:
        return _lines(f"{k}={v}" for k, v in sorted(loaded.variables.items()))
    if args.hash:
        return _hashes(args.hash, loaded)
    if args.variables:
        return _variables(tree)
    if args.rest:
        _only(tree, args.rest, context.options.all_resources)
    if args.resolve_image_digests or args.lock_image_digests:
        _pin(context, loaded)
    if args.lock_image_digests:
        from kapelle.compose.tree import Map

        tree = Map({"services": Map({n: Map({"image": s["image"]}) for n, s in (tree.get("services") or {}).items()})})
    from kapelle.compose import dump

    if args.no_interpolate:
        return dump.as_written(tree, args.format)
    return dump.to_json(tree) if args.format == "json" else dump.to_yaml(tree)


def _lines(rows: Any) -> str:
    return "".join(f"{row}\n" for row in rows)


def _hashes(wanted: str, loaded: Loaded) -> str:
    known = {s.name: s.config_hash for s in loaded.project.services}
    names = sorted(known) if wanted == "*" else wanted.split(",")
    for name in names:
        if name not in known:
            raise _no_service(name, known)
    return _lines(f"{name} {known[name]}" for name in names)


def _no_service(name: str, known: Any) -> KapelleError:
    from kapelle.compose.near import did_you_mean

    return KapelleError(
        f"no such service: {name}",
        details=(("known", ", ".join(sorted(known))),),
        hint=did_you_mean(name, known),
        code="KAP304",
    )


def _only(tree: Any, names: list[str], all_resources: bool) -> None:
    """Keep the named services and what they depend on, and what those use."""
    from kapelle.compose import normalise

    have = normalise.services(tree)
    for name in names:
        if name not in have:
            raise _no_service(name, have)
    keep: set[str] = set()
    left = list(names)
    while left:
        name = left.pop()
        if name in have and name not in keep:
            keep.add(name)
            left += list(have[name].get("depends_on") or ())
    for name in [n for n in have if n not in keep]:
        have.drop(name)
    if not all_resources:
        normalise.drop_unused(tree)


def _variables(tree: Any) -> str:
    from kapelle.compose.interpolate import Invalid, uses

    rows: dict[str, tuple[str, str, str, str]] = {}

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            for item in value.values():
                walk(item)
        elif isinstance(value, list):
            for item in value:
                walk(item)
        elif isinstance(value, str) and "$" in value:
            try:
                found = uses(value)
            except Invalid:
                return
            for use in found:
                default = use.word if use.operator.endswith("-") else ""
                alternate = use.word if use.operator.endswith("+") else ""
                required = "true" if use.operator.endswith("?") else "false"
                rows.setdefault(use.name, (use.name, required, default, alternate))

    walk(tree)
    from kapelle.render.tables import table

    return table(("NAME", "REQUIRED", "DEFAULT VALUE", "ALTERNATE VALUE"), [rows[n] for n in sorted(rows)], least=20)


def _pin(context: Context, loaded: Loaded) -> None:
    """Images as name@digest, asked of the store (or its registry, pulled when need be)."""
    from kapelle.images import reference
    from kapelle.images.mirrors import settings
    from kapelle.images.pull import pull

    store = context.store()
    for service in (loaded.tree.get("services") or {}).values():
        name = service.get("image")
        if not name or "@" in name:
            continue
        image = store.find(name) or pull(name, store, settings(context.environ, context.paths), context.emit)
        ref = reference.parse(name)
        digests = [d for d in image.repo_digests if d.partition("@")[0].endswith(ref.repository)]
        if digests:
            service["image"] = f"{name}@{digests[0].partition('@')[2]}"
