"""How much room images, containers, volumes and the build cache take, as `docker system df` tells it."""

from __future__ import annotations

from collections.abc import Sequence

from kapelle.light import TYPE_CHECKING, NamedTuple
from kapelle.render import tables, words

if TYPE_CHECKING:
    from kapelle.cli.context import Context
    from kapelle.images.types import Image
    from kapelle.plan.observed import Container, ObservedVolume


class Usage(NamedTuple):
    images: tuple[Image, ...]
    shared: tuple[int, ...]  # bytes of each image's layers that another one has too
    layers: int  # bytes of all layers of images, each once, unpacked and as they came
    spare: int  # of those, the bytes that no container has
    containers: tuple[Container, ...]
    written: tuple[int, ...]  # bytes of each container's own layer
    volumes: tuple[ObservedVolume, ...]
    volume_sizes: tuple[int, ...]
    links: tuple[int, ...]  # containers that mount each volume
    cached: tuple[tuple[str, int], ...]  # layers of the build cache that no image has
    mounts: int  # bytes of cache mounts


def measure(context: Context) -> Usage:
    from kapelle.engines.native.layer_users import layers_in_use
    from kapelle.images import blobs, upkeep

    store = context.store()
    images = tuple(store.all())
    containers = context.reader().containers()
    volumes = tuple(sorted(context.reader().volumes(), key=lambda v: v.name))
    known = {d: store.layer(d) for d in store.layers()}
    sizes = {d: layer.size for d, layer in known.items()}
    rooms = {d: layer.size + blobs.room(store, layer) for d, layer in known.items()}
    owners: dict[str, int] = {}
    for image in images:
        for diff_id in dict.fromkeys(image.layers):
            owners[diff_id] = owners.get(diff_id, 0) + 1
    used = layers_in_use(context.paths)
    links: dict[str, int] = {}
    for container in containers:
        for kind, source, _ in container.mounts:
            if kind == "volume":
                links[source] = links.get(source, 0) + 1
    return Usage(
        images,
        tuple(sum(sizes.get(d, 0) for d in dict.fromkeys(i.layers) if owners[d] > 1) for i in images),
        sum(rooms.get(d, 0) for d in owners),
        sum(rooms.get(d, 0) for d in owners if d not in used),
        containers,
        tuple(upkeep.disk_usage(f"{context.paths.container_data(c.id)}/upper") for c in containers),
        volumes,
        tuple(upkeep.disk_usage(v.mountpoint) if v.mountpoint else 0 for v in volumes),
        tuple(links.get(v.name, 0) for v in volumes),
        tuple((d, sizes[d]) for d in sorted(upkeep.cached_layers(store)) if d in sizes and d not in owners),
        upkeep.mounts_size(store),
    )


def summary(usage: Usage) -> list[dict[str, str]]:
    """One object per kind: Type, TotalCount, Active, Size, Reclaimable."""
    active = {c.image_id for c in usage.containers}
    running = [c.alive for c in usage.containers]
    cache = sum(size for _, size in usage.cached) + usage.mounts
    idle = sum(size for size, alive in zip(usage.written, running, strict=True) if not alive)
    free = sum(size for size, links in zip(usage.volume_sizes, usage.links, strict=True) if not links)
    return [
        _row("Images", len(usage.images), sum(i.id in active for i in usage.images), usage.layers, usage.spare),
        _row("Containers", len(usage.containers), sum(running), sum(usage.written), idle),
        _row("Local Volumes", len(usage.volumes), sum(n > 0 for n in usage.links), sum(usage.volume_sizes), free),
        _row("Build Cache", len(usage.cached), 0, cache, cache),
    ]


def _row(kind: str, count: int, active: int, size: int, free: int) -> dict[str, str]:
    share = "" if kind == "Build Cache" or not size else f" ({free * 100 // size}%)"
    return {
        "Active": str(active),
        "Reclaimable": words.size(free, 4) + share,
        "Size": words.size(size, 4),
        "TotalCount": str(count),
        "Type": kind,
    }


def table(objects: Sequence[dict[str, str]]) -> str:
    keys = ("Type", "TotalCount", "Active", "Size", "Reclaimable")
    return tables.table(("TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"), [[o[k] for k in keys] for o in objects])


def verbose(usage: Usage) -> str:
    """Each of them."""
    from kapelle.cli import imagetables

    count: dict[str, int] = {}
    for container in usage.containers:
        count[container.image_id] = count.get(container.image_id, 0) + 1
    shared = dict(zip((i.id for i in usage.images), usage.shared, strict=True))
    images = [
        (
            row.repository,
            row.tag,
            imagetables.short(row.image.id),
            imagetables.ago(row.image.created),
            words.size(row.image.size),
            words.size(shared[row.image.id]),
            words.size(max(row.image.size - shared[row.image.id], 0)),
            str(count.get(row.image.id, 0)),
        )
        for row in imagetables.rows(usage.images)
    ]
    containers = [
        (c.id[:12], c.image, words.size(size), imagetables.ago(c.created), c.status, c.name)
        for c, size in zip(usage.containers, usage.written, strict=True)
    ]
    volumes = [
        (v.name, str(links), words.size(size))
        for v, links, size in zip(usage.volumes, usage.links, usage.volume_sizes, strict=True)
    ]
    cached = [(imagetables.short(d), words.size(size)) for d, size in usage.cached]
    heads = (
        "REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE", "SHARED SIZE", "UNIQUE SIZE", "CONTAINERS",
    )  # fmt: skip
    return "\n".join(
        [
            "Images space usage:\n\n" + tables.table(heads, images),
            "Containers space usage:\n\n"
            + tables.table(("CONTAINER ID", "IMAGE", "SIZE", "CREATED", "STATUS", "NAMES"), containers),
            "Local Volumes space usage:\n\n" + tables.table(("VOLUME NAME", "LINKS", "SIZE"), volumes),
            f"Build cache usage: {words.size(sum(s for _, s in usage.cached) + usage.mounts)}\n\n"
            + tables.table(("CACHE ID", "SIZE"), cached),
        ]
    )
