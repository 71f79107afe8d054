"""The merged tree → the whole project: defaults, implied parts, names; what is not used is left out. Pure."""

from __future__ import annotations

from collections.abc import Callable

from kapelle.compose.near import did_you_mean
from kapelle.compose.tree import Map, Seq, position
from kapelle.errors import ComposeFileError, KapelleError
from kapelle.light import Any


def contexts(tree: Map, base: str) -> None:
    """A build without a context has the folder of the files it is written in."""
    for service in (tree.get("services") or {}).values():
        build = service.get("build") if isinstance(service, Map) else None
        if isinstance(build, Map) and build.get("context") is None:
            build["context"] = base


def defaults(tree: Map) -> None:
    """Implied parts of services: the default network, dependencies, build defaults, targets of secrets."""
    used_default = False
    for service in services(tree).values():
        _build(service)
        if not service.get("networks") and "network_mode" not in service and "provider" not in service:
            service["networks"] = Map({"default": None})
        if "default" in (service.get("networks") or {}):
            used_default = True
        _dependencies(service)
        if service.get("pull_policy") == "if_not_present":
            service["pull_policy"] = "missing"
    if used_default:
        networks = tree.setdefault("networks", Map())
        if networks.get("default") is None:
            networks["default"] = Map()
    targets_of_secrets(tree)


def targets_of_secrets(tree: Map) -> None:
    for service in services(tree).values():
        for grant in service.get("secrets") or ():
            grant.setdefault("target", f"/run/secrets/{grant.get('source', '')}")


def services(tree: Map) -> Map:
    found = tree.get("services")
    if not isinstance(found, Map):
        found = tree["services"] = Map()
    return found


def _build(service: Map) -> None:
    build = service.get("build")
    if isinstance(build, Map) and "dockerfile_inline" not in build:
        build.setdefault("dockerfile", "Dockerfile")


def _dependencies(service: Map) -> None:
    implied: list[tuple[str, bool, Any]] = []
    for key in ("network_mode", "ipc", "pid", "uts", "cgroup"):
        mode = service.get(key)
        if isinstance(mode, str) and mode.startswith("service:"):
            implied.append((mode[8:], True, service.at.get(key)))
    for link in service.get("links") or ():
        implied.append((link.split(":")[0], True, service.at.get("links")))
    for source in service.get("volumes_from") or ():
        if not source.startswith("container:"):
            implied.append((source.split(":")[0], False, service.at.get("volumes_from")))
    if not implied:
        return
    needs = service.setdefault("depends_on", Map())
    for name, restart, mark in implied:
        if name not in needs:
            row = Map({"condition": "service_started", "required": True})
            if restart:
                row["restart"] = True
            needs.put(name, row, mark)


def names(tree: Map, project: str) -> None:
    """Names of networks, volumes, configs and secrets: PROJECT_key, or as written."""
    for kind in ("networks", "volumes", "configs", "secrets"):
        for key, item in list((tree.get(kind) or {}).items()):
            if item is None:
                item = tree[kind][key] = Map()
            external = item.get("external")
            if isinstance(external, Map):
                item.setdefault("name", external.get("name", key))
                item["external"] = True
            if item.get("external") is False:
                item.drop("external")
            item.setdefault("name", key if item.get("external") else f"{project}_{key}")


def drop_unused(tree: Map) -> None:
    """Leave out networks, volumes, configs and secrets that no service of the tree uses."""
    kinds = ("networks", "volumes", "configs", "secrets", "models")
    used: dict[str, set[str]] = {kind: set() for kind in kinds}
    for service in services(tree).values():
        used["networks"].update(service.get("networks") or ())
        used["models"].update(service.get("models") or ())
        used["volumes"].update(
            m["source"] for m in service.get("volumes") or () if m.get("type") == "volume" and m.get("source")
        )
        for kind in ("configs", "secrets"):
            used[kind].update(g.get("source") for g in service.get(kind) or ())
        build = service.get("build")
        if isinstance(build, Map):
            used["secrets"].update(g.get("source") for g in build.get("secrets") or ())
    for kind, wanted in used.items():
        have = tree.get(kind)
        if isinstance(have, Map):
            for key in [k for k in have if k not in wanted]:
                have.drop(key)
            if not have:
                tree.drop(kind)


Wrong = Callable[..., None]


def consistency(tree: Map, disabled: Map) -> list[KapelleError]:
    """References that lead nowhere, and settings that exclude each other."""
    mistakes: list[KapelleError] = []
    known = services(tree)

    def wrong(text: str, mark: Any, hint: str = "", code: str = "") -> None:
        mistakes.append(
            ComposeFileError(f"{text}: invalid compose project", where=position(mark), hint=hint, code=code)
        )

    for name, service in known.items():
        if not (service.get("image") or "build" in service or "provider" in service):
            wrong(
                f'service "{name}" has neither an image nor a build context specified',
                known.at.get(name),
                f"add image: or build: to {name}",
            )
        for other, row in (service.get("depends_on") or {}).items():
            if other in known or (other in disabled and not row.get("required", True)):
                continue
            mark = service["depends_on"].at.get(other) or service.at.get("depends_on")
            if other in disabled:
                profiles = ", ".join(disabled[other].get("profiles") or ())
                wrong(
                    f'service "{name}" depends on undefined service "{other}"', mark,
                    f"{other} is in profile {profiles}, which is not active: kap --profile NAME …, "
                    "or set required: false on the dependency", "KAP403",
                )  # fmt: skip
            else:
                wrong(
                    f'service "{name}" depends on undefined service "{other}"', mark,
                    did_you_mean(other, known)
                    or f'define "{other}" under services, or set required: false on the dependency',
                )  # fmt: skip
        if service.get("network_mode") and service.get("networks"):
            wrong(
                f"service {name} declares mutually exclusive `network_mode` and `networks`",
                service.at.get("network_mode"),
                "remove one of them",
            )
        _references(tree, name, service, wrong)
        _built(name, service, known, wrong)
        _pairs(name, service, wrong)
        _targets(name, service, wrong)
        _limits(name, service, wrong)
        _own(name, service, wrong)
    mistakes += _circle(known)
    _contents(tree, wrong)
    return mistakes


def _own(name: str, service: Map, wrong: Wrong) -> None:
    """Keys of ours."""
    if "x-kap-probe" in service:
        from kapelle.compose import probe

        probe.read(service, lambda text, mark, hint: wrong(f"services.{name}.{text}", mark, hint))
    if "x-kap-map-user" in service:
        from kapelle.compose import mapuser

        mapuser.read(service, lambda text, mark, hint: wrong(f"services.{name}.{text}", mark, hint))


def _contents(tree: Map, wrong: Wrong) -> None:
    """Configs and secrets have one source, external volumes nothing but a name."""
    for kind, sources in (("configs", ("file", "environment", "content")), ("secrets", ("file", "environment"))):
        for key, item in (tree.get(kind) or {}).items():
            given = [k for k in sources if item is not None and k in item]
            mark = tree[kind].at.get(key)
            if len(given) > 1:
                wrong(f"{kind}.{key}: {'|'.join(sources)} attributes are mutually exclusive", mark, f"keep {given[0]}:")
            elif not given and not (item and ("driver" in item or item.get("external"))):
                wrong(f"{kind}.{key}: one of {'|'.join(sources)} must be set", mark, "add file: ./PATH")
    for key, item in (tree.get("volumes") or {}).items():
        if item and item.get("external") is True:
            for other in item:
                if other not in ("name", "external") and not other.startswith("x-"):
                    wrong(
                        f'volumes.{key}: conflicting parameters "external" and "{other}" specified',
                        item.at.get(other), f"remove {other}:, who made the volume has decided it",
                    )  # fmt: skip


def _built(name: str, service: Map, known: Map, wrong: Wrong) -> None:
    build = service.get("build")
    if not isinstance(build, Map):
        return
    if build.get("dockerfile_inline") and build.get("dockerfile"):
        wrong(
            f'service "{name}" declares mutualy exclusive dockerfile and dockerfile_inline',
            build.at.get("dockerfile_inline"), "keep one of them",
        )  # fmt: skip
    for key, value in (build.get("additional_contexts") or {}).items():
        other = value.removeprefix("service:")
        if other != value and not (other in known and "build" in known[other]):
            what = "non-buildable" if other in known else "unknown"
            wrong(
                f'service "{name}" declares {what} service "{other}" as additional contexts {key}',
                build["additional_contexts"].at.get(key),
            )
    if build.get("platforms") and service.get("platform") and service["platform"] not in build["platforms"]:
        wrong(
            f'service.build.platforms MUST include service.platform "{service["platform"]}"',
            service.at.get("platform"), f"add {service['platform']} to build.platforms",
        )  # fmt: skip


def _targets(name: str, service: Map, wrong: Wrong) -> None:
    """No two mounts at one place."""
    taken: dict[str, str] = {}
    rows = [("tmpfs", n, t.partition(":")[0]) for n, t in enumerate(service.get("tmpfs") or ())]
    rows += [("volumes", n, m.get("target", "")) for n, m in enumerate(service.get("volumes") or ())]
    for key, number, target in rows:
        place = f"services.{name}.{key}[{number}]"
        if target in taken:
            wrong(f"{place}: target {target} already mounted as {taken[target]}", service[key].at[number], "remove one")
        taken[target] = place


def _limits(name: str, service: Map, wrong: Wrong) -> None:
    test = (service.get("healthcheck") or {}).get("test")
    if test and test[0] not in ("CMD", "CMD-SHELL", "NONE"):
        wrong(
            'healthcheck.test must start either by "CMD", "CMD-SHELL" or "NONE"',
            service["healthcheck"].at.get("test"), "write the command as a text, or put CMD first",
        )  # fmt: skip
    deploy = service.get("deploy") or Map()
    for place, tree, key in (("scale", service, "scale"), ("deploy.replicas", deploy, "replicas")):
        if isinstance(tree.get(key), int) and tree[key] < 0:
            wrong(f"services.{name}.{place}: must be greater than or equal to 0", tree.at.get(key))
    for watch in (service.get("develop") or {}).get("watch") or ():
        if not watch.get("target") and watch.get("action") not in ("rebuild", "restart"):
            wrong(
                f"services.{name}.develop.watch: target is required for non-rebuild actions",
                watch.at.get("action"), "add target: PATH",
            )  # fmt: skip


def _references(tree: Map, name: str, service: Map, wrong: Wrong) -> None:
    for network in service.get("networks") or ():
        if network not in (tree.get("networks") or {}):
            wrong(
                f'service "{name}" refers to undefined network {network}',
                service["networks"].at.get(network) or service.at.get("networks"),
                did_you_mean(network, tree.get("networks") or ())
                or f'add "{network}:" under networks at the top level',
            )
    for number, mount in enumerate(service.get("volumes") or ()):
        source = mount.get("source")
        if mount.get("type") == "volume" and source and source not in (tree.get("volumes") or {}):
            wrong(
                f'service "{name}" refers to undefined volume {source}',
                service["volumes"].at[number],
                did_you_mean(source, tree.get("volumes") or ())
                or f'add "{source}:" under volumes at the top level; a folder begins with ./ or /',
            )
    for kind in ("configs", "secrets"):
        rows = service.get(kind) or Seq()
        for number, grant in enumerate(rows):
            if grant.get("source") not in (tree.get(kind) or {}):
                wrong(
                    f'service "{name}" refers to undefined {kind[:-1]} {grant.get("source")}',
                    rows.at[number],
                    did_you_mean(grant.get("source", ""), tree.get(kind) or ())
                    or f'add "{grant.get("source")}:" under {kind} at the top level',
                )
    for model in service.get("models") or ():
        if model not in (tree.get("models") or {}):
            wrong(
                f'service "{name}" refers to undefined model {model}', service.at.get("models"), "add it under models"
            )
    build = service.get("build") or {}
    for number, grant in enumerate(build.get("secrets") or ()):
        if grant.get("source", "") not in (tree.get("secrets") or {}):
            wrong(
                f'service "{name}" refers to undefined build secret {grant.get("source", "")}',
                build["secrets"].at[number], "add it under secrets at the top level",
            )  # fmt: skip


_SAME = (
    ("mem_limit", ("limits", "memory")),
    ("mem_reservation", ("reservations", "memory")),
    ("cpus", ("limits", "cpus")),
    ("pids_limit", ("limits", "pids")),
)


def _pairs(name: str, service: Map, wrong: Wrong) -> None:
    """Two spellings of one setting must agree."""
    deploy = service.get("deploy") or {}
    for key, (group, field) in _SAME:
        group_rows = (deploy.get("resources") or {}).get(group)
        if service.get(key) not in (None, 0, "0") and group_rows is not None and service[key] != group_rows.get(field):
            wrong(
                f"services.{name}: can't set distinct values on '{key}' and 'deploy.resources.{group}.{field}'",
                service.at.get(key),
                f"remove {key}, or give both the same value",
            )
    replicas = deploy.get("replicas")
    if "scale" in service and replicas is not None and service["scale"] != replicas:
        wrong(
            f"services.{name}: can't set distinct values on 'scale' and 'deploy.replicas'",
            service.at.get("scale"),
            "remove one of them",
        )
    scale = service.get("scale", replicas)
    if service.get("container_name") and isinstance(scale, int) and scale > 1:
        wrong(
            f"services.deploy.replicas: can't set container_name and {name} as container name must be unique",
            service.at.get("container_name"),
            "remove container_name",
        )


def _circle(known: Map) -> list[KapelleError]:
    """The first circle of dependencies, as `a -> b -> a`."""
    state: dict[str, int] = {}
    for start in known:
        trail: list[str] = []
        stack = [(start, iter(known[start].get("depends_on") or ()))]
        if state.get(start):
            continue
        state[start] = 1
        trail.append(start)
        while stack:
            name, rest = stack[-1]
            following = next(rest, None)
            if following is None:
                stack.pop()
                trail.pop()
                state[name] = 2
            elif following in known and state.get(following) == 1:
                circle = [*trail[trail.index(following) :], following]
                where = position(known[name].get("depends_on").at.get(following) or known[name].at.get("depends_on"))
                return [
                    ComposeFileError(
                        f"dependency cycle detected: {' -> '.join(circle)}", where=where, hint="remove one of them"
                    )
                ]
            elif following in known and not state.get(following):
                state[following] = 1
                trail.append(following)
                stack.append((following, iter(known[following].get("depends_on") or ())))
    return []
