"""The image store: blobs, unpacked layers, image records and names on disk. Several processes share it.

    oci-layout, index.json          blobs/sha256/HEX     configs, manifests, layers as they came (`blobs`)
    images/HEX.json                 one record per image (HEX of its ID)
    names/QUOTED                    "sha256:ID\\nfull reference\\n"
    layers/HEX/diff                 a layer unpacked, as overlayfs reads it (HEX of its diff-ID)
    layers/HEX/layer.json, frame    its sizes and digests; what `frame` needs to make its archive again
    tmp/…                           work under way: a directory is dead when its flock is free
    locks/…                         flocks: one per layer that is being made, `store` (shared: using, else: collecting)

Whatever is written goes to tmp/ first, is synced, and is renamed: a kill -9 or a full disk leaves temporaries only.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator, Mapping, Set

from kapelle.errors import ImageError, StateError
from kapelle.images import reference, trees
from kapelle.images.storefolder import HEX, StoreFolder, digits_of
from kapelle.images.types import Image
from kapelle.light import Any, NamedTuple, jsontext
from kapelle.light.managed import contextmanager

CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"


class Descriptor(NamedTuple):
    """A blob as a manifest names it (OCI image-spec descriptor.md)."""

    media_type: str
    digest: str
    size: int
    urls: tuple[str, ...] = ()  # where else a foreign layer is

    def row(self) -> dict[str, Any]:
        """As JSON has it."""
        row = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        return {**row, "urls": list(self.urls)} if self.urls else row


class Layer(NamedTuple):
    """What is known of an unpacked layer."""

    diff_id: str
    size: int = 0  # bytes of its files
    tar_size: int = 0  # bytes of its archive, plain
    blobs: tuple[Descriptor, ...] = ()  # compressed forms a registry has
    frame: bool = False  # its archive can be made again from the record


class Removed(NamedTuple):
    """What a removal took away."""

    layers: tuple[str, ...] = ()  # diff-IDs
    freed: int = 0  # bytes of their files
    postponed: bool = False  # others were using the store: layers that nothing has stay for the next `gc`


class Store(StoreFolder):
    """Images by name and ID, their layers by diff-ID."""

    # -- looking up -----------------------------------------------------------------------------------------------

    def find(self, name: str) -> Image | None:
        """The image of that reference (`redis:7`, `redis@sha256:…`, `PROJECT-SERVICE`) or ID (`sha256:…`, or at
        least 12 of its digits). None if there is none; ImageError if `name` can be neither.
        """
        digits = name.removeprefix("sha256:")
        by_id = digits != name or (len(digits) >= 12 and set(digits) <= HEX)
        if digits == name and len(digits) != 64:
            try:
                image_id = self.lookup(reference.parse(name))
            except ImageError:
                if not by_id:
                    raise
                image_id = ""
            if image_id:
                return self.image(image_id)
        return self._by_prefix(digits) if by_id and digits and set(digits) <= HEX else None

    def lookup(self, ref: reference.Reference) -> str:
        """The ID a reference stands for, or "". A digest decides where there is one, whatever the tag."""
        if ref.digest:
            ref = ref._replace(tag="")
        try:
            with open(self.name_path(str(ref)), encoding="utf-8") as f:
                return f.readline().strip()
        except FileNotFoundError:
            return ""

    def _by_prefix(self, digits: str) -> Image | None:
        if len(digits) == 64:
            return self.image(f"sha256:{digits}")
        found = [n for n in self.listed("images") if n.startswith(digits)]
        if len(found) > 1:
            raise ImageError(f"{digits} is the beginning of {len(found)} image IDs", hint="give more digits")
        return self.image("sha256:" + found[0].removesuffix(".json")) if found else None

    def image(self, image_id: str, names: tuple[str, ...] | None = None) -> Image | None:
        """The image of a full ID, whole; None if it (or its config) is not there."""
        record = self.record(image_id)
        if record is None:
            return None
        config = self.read_blob(image_id)
        if config is None:
            return None
        if names is None:
            names = self.names().get(image_id, ())
        return Image(
            image_id,
            tuple(n for n in names if "@" not in n),
            jsontext.loads(config),
            tuple(record["layers"]),
            float(record.get("created") or 0.0),
            int(record.get("size") or 0),
            record.get("standin") or "",
            tuple(n for n in names if "@" in n),
        )

    def record(self, image_id: str) -> dict[str, Any] | None:
        """The image's own record: layers, created, size, standin, manifest (digest), labels of ours."""
        try:
            with open(f"{self.root}/images/{digits_of(image_id)}.json", "rb") as f:
                record: dict[str, Any] = jsontext.loads(f.read())
        except FileNotFoundError:
            return None
        except ValueError as e:
            raise StateError(f"the record of image {image_id[:19]} is damaged", why=str(e)) from e
        return record

    def all(self) -> list[Image]:
        """Every image, newest first."""
        names = self.names()
        found = []
        for entry in self.listed("images"):
            image_id = "sha256:" + entry.removesuffix(".json")
            image = self.image(image_id, names.get(image_id, ()))
            if image is not None:
                found.append(image)
        return sorted(found, key=lambda i: (-i.created, i.id))

    def names(self) -> dict[str, tuple[str, ...]]:
        """Image ID → full references."""
        found: dict[str, list[str]] = {}
        for entry in self.listed("names"):
            try:
                with open(f"{self.root}/names/{entry}", encoding="utf-8") as f:
                    image_id, name = f.read().split("\n")[:2]
            except (FileNotFoundError, ValueError):
                continue
            found.setdefault(image_id, []).append(name)
        return {image_id: tuple(sorted(names)) for image_id, names in found.items()}

    # -- layers ---------------------------------------------------------------------------------------------------

    def layer_dir(self, diff_id: str) -> str:
        """The directory of an unpacked layer. ImageError if it is not there."""
        path = f"{self.root}/layers/{digits_of(diff_id)}/diff"
        if not os.path.isdir(path):
            raise ImageError(
                f"layer {diff_id[:19]} is not in the image store", hint="pull, load or build the image again"
            )
        return path

    def layer_dirs(self, image: Image) -> tuple[str, ...]:
        """The directories of an image's layers, lowest first."""
        return tuple(self.layer_dir(d) for d in image.layers)

    def has_layer(self, diff_id: str) -> bool:
        return os.path.isdir(f"{self.root}/layers/{digits_of(diff_id)}/diff")

    def layer(self, diff_id: str) -> Layer:
        """What is known of a layer; ImageError if it is not there."""
        directory = os.path.dirname(self.layer_dir(diff_id))
        try:
            with open(f"{directory}/layer.json", "rb") as f:
                known = jsontext.loads(f.read())
        except (FileNotFoundError, ValueError):
            known = {}
        blobs = tuple(
            Descriptor(b["mediaType"], b["digest"], b["size"], tuple(b.get("urls", ()))) for b in known.get("blobs", ())
        )
        frame = bool(known.get("frame")) and os.path.exists(f"{directory}/frame")
        return Layer(diff_id, known.get("size", 0), known.get("tarSize", 0), blobs, frame)

    def layer_archive(self, diff_id: str) -> Iterator[bytes]:
        """A layer's plain tar, made from its directory. Its digest is the diff-ID unless the frame is missing."""
        from kapelle.images import frame, tarwrite

        directory = os.path.dirname(self.layer_dir(diff_id))
        if self.layer(diff_id).frame:
            return frame.archive(f"{directory}/frame", f"{directory}/diff")
        return tarwrite.layer(f"{directory}/diff")

    @contextmanager
    def new_layer(self) -> Iterator[str]:
        """A temporary directory on the store's file system, with diff/ and work/ in it; removed at the end."""
        with self.temporary() as path:
            os.mkdir(f"{path}/diff", 0o755)
            os.mkdir(f"{path}/work", 0o700)
            yield path

    def commit_layer(self, directory: str) -> str:
        """Take over a directory of overlay-style changes (on the store's file system, at rest) and return its diff-ID:
        the digest of the tar stream `tarwrite` makes of it. If the store has that layer, the directory is dropped.
        """
        import hashlib

        from kapelle.images import tarwrite

        digest = hashlib.sha256()
        tar_size = 0
        for piece in tarwrite.layer(directory):
            digest.update(piece)
            tar_size += len(piece)
        diff_id = f"sha256:{digest.hexdigest()}"
        if self.has_layer(diff_id):
            trees.remove(directory)
            return diff_id
        with self.temporary() as path:
            os.rename(directory, f"{path}/diff")
            self.finish_layer(path, Layer(diff_id, _tree_size(f"{path}/diff"), tar_size))
            self.sync()
            self.publish_layer(path, diff_id)
        return diff_id

    def finish_layer(self, path: str, layer: Layer) -> None:
        """Write layer.json into a temporary that holds diff/ (and frame)."""
        with open(f"{path}/layer.json", "wb") as f:
            f.write(_layer_record(layer))

    def add_blob(self, diff_id: str, blob: Descriptor) -> None:
        """Remember a packed form of a layer: it needs not be packed to see that a registry has it."""
        layer = self.layer(diff_id)
        if blob not in layer.blobs:
            data = _layer_record(layer._replace(blobs=(*layer.blobs, blob)))
            self.write(f"layers/{digits_of(diff_id)}/layer.json", data)

    def publish_layer(self, path: str, diff_id: str, kept: str = "") -> None:
        """Rename a finished, synced temporary to its place; if another was quicker, leave it to be removed.

        kept: digest of the file `blob` in it, which gets its own place first.
        """
        from kapelle.images import blobs

        self.make("layers")
        if kept:
            blobs.keep(self, f"{path}/blob", kept)
        for extra in ("work",):
            trees.remove(f"{path}/{extra}")
        try:
            os.rename(path, f"{self.root}/layers/{digits_of(diff_id)}")
        except OSError as e:
            if e.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise

    # -- images and names -----------------------------------------------------------------------------------------

    def put_image(
        self,
        config: Mapping[str, Any] | bytes,
        layers: tuple[str, ...],
        names: tuple[str, ...] = (),
        standin: str = "",
        *,
        manifest: bytes = b"",
        labels: Mapping[str, Any] | None = None,
    ) -> Image:
        """Record an image whose layers are in the store, and name it. Returns it as `find` would.

        config: the OCI image config; given as bytes it is kept to the letter (its digest is the ID), given as a
        mapping, rootfs is filled in. manifest: as a registry gave it; else one is made. labels: kept in the record.
        """
        import hashlib

        if not isinstance(config, bytes):
            whole = dict(config)
            whole["rootfs"] = {"type": "layers", "diff_ids": list(layers)}
            whole.setdefault("architecture", _architecture())
            whole.setdefault("os", "linux")
            config = jsontext.dumps(whole, sort=True).encode()
        parsed = jsontext.loads(config)
        image_id = f"sha256:{hashlib.sha256(config).hexdigest()}"
        full = tuple(str(reference.parse(n)) for n in names)
        with self.using():
            known = [self.layer(d) for d in layers]  # ImageError if one is missing
            self.write_blob(config)
            if not manifest:
                manifest = self.known_manifest(image_id) or self._made_manifest(image_id, len(config), known)
            record = {
                "id": image_id,
                "layers": list(layers),
                "created": seconds(parsed.get("created")) or time.time(),
                "size": sum(k.size for k in known),
                "standin": standin,
                **self._manifest_fields(manifest),
                **({"labels": dict(labels)} if labels else {}),
            }
            self.make("images")
            self.write(f"images/{digits_of(image_id)}.json", jsontext.dumps(record).encode())
            for name in full:
                self._put_name(name, image_id)
            self.show()
        image = self.image(image_id)
        if image is None:
            raise StateError(
                f"image {image_id[:19]} was removed by another kap while it was recorded", hint="try again"
            )
        return image

    def _manifest_fields(self, manifest: bytes) -> dict[str, Any]:
        """Keep a manifest: what a record says of it. `layout` is the form that index.json shows."""
        from kapelle.images import blobs

        return {
            "manifest": self.write_blob(manifest),
            "manifestSize": len(manifest),
            "layout": self.write_blob(blobs.oci_form(manifest)),
        }

    def known_manifest(self, image_id: str) -> bytes | None:
        """The manifest an image has, if its layers are all here as it says: with it they can go out as they came."""
        from kapelle.images import blobs

        record = self.record(image_id)
        data = self.read_blob(record["manifest"]) if record and record.get("manifest") else None
        return data if data is not None and blobs.is_whole(self, data) else None

    def _made_manifest(self, image_id: str, size: int, known: list[Layer]) -> bytes:
        """An OCI manifest for an image that came without one. Layers that never were packed are, if that is quick."""
        from kapelle.images import blobs, packing

        packed = packing.pack_new(self, known) if self.keeps_archives else {}
        rows = []
        for layer in known:
            forms = (*packed.get(layer.diff_id, ()), *layer.blobs)
            here = [b for b in forms if blobs.has(self, b)] or list(forms)
            rows.append(blobs.as_oci(here[0]) if here else Descriptor(LAYER_TYPE, layer.diff_id, layer.tar_size))
        return jsontext.dumps(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST_TYPE,
                "config": {"mediaType": CONFIG_TYPE, "digest": image_id, "size": size},
                "layers": [row.row() for row in rows],
            },
        ).encode()

    def set_manifest(self, image_id: str, manifest: bytes) -> None:
        """What a registry has of the image now is what the store shows of it."""
        record = self.record(image_id)
        if record is not None:
            record |= self._manifest_fields(manifest)
            self.write(f"images/{digits_of(image_id)}.json", jsontext.dumps(record).encode())
            self.show()

    def tag(self, name: str, image_id: str) -> None:
        """Give an image of the store a further name (moving it from another image). ImageError if there is none."""
        with self.using():
            if self.record(image_id) is None:
                raise ImageError(f"there is no image {image_id}", code="KAP502")
            self._put_name(str(reference.parse(name)), image_id)
            self.show()

    def untag(self, name: str) -> str | None:
        """Take a name away and return the ID it stood for; None if it stood for nothing."""
        ref = reference.parse(name)
        image_id = self.lookup(ref)
        if not image_id:
            return None
        try:
            os.unlink(self.name_path(str(ref._replace(tag="") if ref.digest else ref)))
        except FileNotFoundError:
            return None
        self.show()
        return image_id

    def named_at(self, ref: reference.Reference) -> float:
        """When a name was last set or confirmed (seconds since the epoch); 0.0 if it is not known."""
        try:
            return os.stat(self.name_path(str(ref))).st_mtime
        except FileNotFoundError:
            return 0.0

    def remove(
        self, image_id: str, in_use: Callable[[], Set[str]] = frozenset, *, unless: Callable[[], bool] | None = None
    ) -> Removed:
        """Remove an image, its names, and the layers that nothing else has: see `collect.remove`."""
        from kapelle.images import collect

        return collect.remove(self, image_id, in_use, unless=unless)

    def gc(self, in_use: Callable[[], Set[str]]) -> Removed:
        """Remove what no image and no container has: see `collect.gc`."""
        from kapelle.images import collect

        return collect.gc(self, in_use)

    def layers(self) -> tuple[str, ...]:
        """The diff-IDs of all layers that are here."""
        return tuple(f"sha256:{n}" for n in self.listed("layers") if len(n) == 64)

    def show(self) -> None:
        from kapelle.images import layoutindex

        layoutindex.write(self)

    def _put_name(self, name: str, image_id: str) -> None:
        self.make("names")
        self.write(os.path.relpath(self.name_path(name), self.root), f"{image_id}\n{name}\n".encode())

    def name_path(self, name: str) -> str:
        quoted = name.replace("%", "%25").replace("/", "%2F")
        if len(quoted) > 200:
            import hashlib

            quoted = quoted[:100] + "%" + hashlib.sha256(name.encode()).hexdigest()
        return f"{self.root}/names/{quoted}"

    # -- blobs ----------------------------------------------------------------------------------------------------

    def read_blob(self, digest: str) -> bytes | None:
        try:
            with open(f"{self.root}/blobs/sha256/{digits_of(digest)}", "rb") as f:
                return f.read()
        except FileNotFoundError:
            return None

    def write_blob(self, data: bytes) -> str:
        """Keep a small blob (config, manifest); returns its digest."""
        import hashlib

        digest = hashlib.sha256(data).hexdigest()
        path = f"blobs/sha256/{digest}"
        if not os.path.exists(f"{self.root}/{path}"):
            self.make("blobs/sha256")
            self.write(path, data)
        return f"sha256:{digest}"


def _layer_record(layer: Layer) -> bytes:
    return jsontext.dumps(
        {
            "diffID": layer.diff_id,
            "size": layer.size,
            "tarSize": layer.tar_size,
            "frame": layer.frame,
            "blobs": [b.row() for b in layer.blobs],
        }
    ).encode()


def _architecture() -> str:
    from kapelle.images import platforms

    return platforms.host().architecture


def seconds(text: Any) -> float:
    """RFC 3339 → seconds since the epoch; 0.0 where there is none."""
    if not isinstance(text, str) or len(text) < 19:
        return 0.0
    import calendar

    try:
        whole = calendar.timegm(time.strptime(text[:19], "%Y-%m-%dT%H:%M:%S"))
    except (ValueError, OverflowError):
        return 0.0
    return float(max(whole, 0))


def _tree_size(root: str) -> int:
    """Bytes of all files below, each hard-linked one once."""
    total, seen = 0, set()
    for directory, _, names, fd in os.fwalk(root):
        del directory
        for name in names:
            info = os.stat(name, dir_fd=fd, follow_symlinks=False)
            if info.st_nlink > 1:
                if (info.st_dev, info.st_ino) in seen:
                    continue
                seen.add((info.st_dev, info.st_ino))
            if (info.st_mode & 0o170000) == 0o100000:
                total += info.st_size
    return total
