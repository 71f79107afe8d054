"""Push: an image of the store → its registry. What the registry has is not sent; what a neighbouring repository of it
has is mounted; the rest is packed and sent, several layers at a time. The manifest comes last.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from kapelle.errors import ImageError
from kapelle.events import Emit, Notice, Progress
from kapelle.images import blobs, layers, manifests, mirrors, packing, reference, sidebyside
from kapelle.images.mirrors import Settings
from kapelle.images.mirrors import settings as settings
from kapelle.images.reference import Reference, familiar
from kapelle.images.registry import Registry
from kapelle.images.store import CONFIG_TYPE, MANIFEST_TYPE, Descriptor, Store
from kapelle.images.types import Image
from kapelle.images.upload import Uploads
from kapelle.images.wire import Refused
from kapelle.light import Any, NamedTuple

_NEIGHBOURS = 4  # repositories asked for a layer
_TOLD_EVERY = 0.1  # seconds between two events of one layer


class Pushed(NamedTuple):
    reference: Reference
    digest: str  # of the manifest
    size: int


class _Sent(NamedTuple):
    """A layer as it is in the registry now."""

    blob: Descriptor
    diff_id: str  # differs from the image's only where its archive can't be made again


def push(name: str, store: Store, settings: Settings, emit: Emit) -> Pushed:
    """Send the image of that name. ImageError: KAP502 not here, KAP508 refused or broken off."""
    ref = reference.parse(name)
    if not ref.tag:
        raise ImageError("cannot push a digest reference", hint=f"give it a tag: kap tag {name} {familiar(ref)}")
    ref = ref._replace(digest="")
    shown = familiar(ref)
    image = store.find(str(ref))
    if image is None:
        raise ImageError(
            f"an image does not exist locally with the tag: {shown}", hint="kap image ls shows what is here",
            code="KAP502",
        )  # fmt: skip
    emit(Progress("image", shown, "Pushing"))
    registry = Registry(mirrors.own(ref.registry, settings, ref.name), ref.registry, settings)
    try:
        with store.using():
            pushed = _Push(ref, image, store, registry, emit).run()
    except Refused as e:
        emit(Progress("image", shown, "Error", "error", details=e.row))
        raise _failure(shown, ref, e) from None
    except ImageError as e:
        emit(Progress("image", shown, "Error", "error", details=e.what))
        raise
    except OSError as e:
        raise layers.fault(e, f"image {shown} could not be pushed") from e
    emit(Progress("image", shown, "Pushed", "done"))
    return pushed


def _failure(shown: str, ref: Reference, e: Refused) -> ImageError:
    what = {
        "denied": f"push access to {shown} is denied: the repository does not exist, or needs a login",
        "unreachable": f"image {shown} could not be pushed: its registry can't be reached from here",
        "limit": f"image {shown} could not be pushed: its registry takes no more for now",
    }.get(e.kind, f"image {shown} could not be pushed")
    hint = e.hint or ("try again later" if e.kind != "denied" else f"kap login {ref.registry}")
    return ImageError(what, details=((ref.registry, e.row),), hint=hint, code="KAP508")


class _Push:
    def __init__(self, ref: Reference, image: Image, store: Store, registry: Registry, emit: Emit) -> None:
        self._ref = ref
        self._shown = familiar(ref)
        self._image = image
        self._store = store
        self._uploads = Uploads(registry, ref.repository)
        self._emit = emit
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._neighbours = _neighbours(store, ref)

    def run(self) -> Pushed:
        record = self._store.record(self._image.id) or {}
        known = self._known_blobs(record)
        wanted = list(dict.fromkeys(self._image.layers))
        sent: dict[str, _Sent] = {}
        with ExitStack() as stack:
            places = {d: stack.enter_context(self._store.temporary()) for d in wanted}
            sidebyside.each(
                wanted, lambda d: sent.__setitem__(d, self._layer(d, known.get(d, ()), places[d])), self._stop, "push"
            )
        rows = [sent[d] for d in self._image.layers]
        config, manifest, kind = self._described(record, rows)
        digest = f"sha256:{hashlib.sha256(manifest).hexdigest()}"
        self._config(config)
        self._uploads.manifest(self._ref.tag, manifest, kind)
        self._store.tag(f"{self._ref.name}@{digest}", self._image.id)
        if f"sha256:{hashlib.sha256(config).hexdigest()}" == self._image.id and digest != record.get("manifest"):
            self._store.set_manifest(self._image.id, manifest)
        return Pushed(self._ref, digest, len(manifest))

    def _known_blobs(self, record: dict[str, Any]) -> dict[str, tuple[Descriptor, ...]]:
        """Each layer's packed forms: that of the image's own manifest first."""
        known = {d: self._store.layer(d).blobs for d in self._image.layers}
        parsed = self._own_manifest(record)
        data = self._store.read_blob(record.get("manifest") or "") if parsed is not None else None
        whole = data is not None and blobs.is_whole(self._store, data)  # then it goes out to the letter
        if parsed is not None and len(parsed.layers) == len(self._image.layers):
            for diff_id, blob in zip(self._image.layers, parsed.layers, strict=True):
                known[diff_id] = (blob,) if whole else tuple(dict.fromkeys((blob, *known[diff_id])))
        return known

    def _own_manifest(self, record: dict[str, Any]) -> manifests.Manifest | None:
        data = self._store.read_blob(record.get("manifest") or "") if record.get("manifest") else None
        parsed = manifests.parse(data, "", self._shown) if data else None
        return parsed if isinstance(parsed, manifests.Manifest) else None

    def _described(self, record: dict[str, Any], rows: Sequence[_Sent]) -> tuple[bytes, bytes, str]:
        """Config, manifest and its media type: to the letter as the image came, where that is what is there now."""
        config = self._store.read_blob(self._image.id)
        if config is None:
            raise ImageError(f"the config of {self._shown} is not in the store", hint="pull or build it again")
        parsed = self._own_manifest(record)
        if parsed is not None and [b.digest for b in parsed.layers] == [r.blob.digest for r in rows]:
            data = self._store.read_blob(record["manifest"])
            assert data is not None
            return config, data, json.loads(data).get("mediaType") or MANIFEST_TYPE
        if [r.diff_id for r in rows] != list(self._image.layers):
            changed = dict(self._image.config)
            changed["rootfs"] = {"type": "layers", "diff_ids": [r.diff_id for r in rows]}
            config = json.dumps(changed, sort_keys=True, separators=(",", ":")).encode()
            self._emit(Notice(f"{self._shown}: a layer had to be packed anew; its ID in the registry is another"))
        tree = {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": Descriptor(CONFIG_TYPE, f"sha256:{hashlib.sha256(config).hexdigest()}", len(config)).row(),
            "layers": [blobs.as_oci(r.blob).row() for r in rows],
        }
        return config, json.dumps(tree, separators=(",", ":")).encode(), MANIFEST_TYPE

    def _config(self, config: bytes) -> None:
        import io

        blob = Descriptor(CONFIG_TYPE, f"sha256:{hashlib.sha256(config).hexdigest()}", len(config))
        if not self._uploads.has(blob.digest):
            self._uploads.send(blob, io.BytesIO(config), "", lambda _: None)

    # -- layers ---------------------------------------------------------------------------------------------------

    def _layer(self, diff_id: str, known: Sequence[Descriptor], path: str) -> _Sent:
        name = diff_id[7:19]
        self._tell(name, "Preparing")
        for blob in known:
            if blob.urls and ("foreign" in blob.media_type or "nondistributable" in blob.media_type):
                self._tell(name, "Skipped foreign layer", "done")
                return _Sent(blob, diff_id)
            if self._uploads.has(blob.digest):
                self._tell(name, "Layer already exists", "done")
                return _Sent(blob, diff_id)
        place = ""
        for blob in [b for b in known if b.digest != diff_id][:2]:
            for source in self._neighbours.get(diff_id, ())[:_NEIGHBOURS]:
                try:
                    place = self._uploads.begin(blob.digest, source)
                except Refused as e:
                    if e.kind == "denied" or e.status in (400, 404, 405):
                        continue  # we may not read there, or it can't mount: the bytes are sent
                    raise
                if not place:
                    self._tell(name, f"Mounted from {source}", "done")
                    return _Sent(blob, diff_id)
        here = next((b for b in known if blobs.has(self._store, b)), None)
        if here is not None:  # as it came, or as an earlier push sent it
            self._send(name, here, blobs.path(self._store, here.digest), place)
            return _Sent(here, diff_id)
        packed = packing.pack(self._store, diff_id, f"{path}/blob", stop=self._stop.is_set)
        if self._uploads.has(packed.blob.digest):
            self._tell(name, "Layer already exists", "done")
        else:
            self._send(name, packed.blob, f"{path}/blob", place)
        if packed.diff_id == diff_id:
            if self._store.keeps_archives:
                packing.keep(self._store, diff_id, packed.blob, f"{path}/blob")
            else:
                self._store.add_blob(diff_id, packed.blob)
        return _Sent(packed.blob, packed.diff_id)

    def _send(self, name: str, blob: Descriptor, path: str, place: str) -> None:
        with open(path, "rb") as f:
            self._uploads.send(blob, f, place, self._count(name, blob.size))
        self._tell(name, "Pushed", "done", blob.size, blob.size)

    def _tell(self, name: str, text: str, state: str = "working", current: int = 0, total: int = 0) -> None:
        with self._lock:
            self._emit(Progress("layer", name, text, state, current=current, total=total, parent=self._shown))

    def _count(self, name: str, total: int) -> Callable[[int], None]:
        last = 0.0

        def count(size: int) -> None:
            nonlocal last
            if self._stop.is_set():
                raise layers.Cancelled
            now = time.monotonic()
            if now - last >= _TOLD_EVERY:
                last = now
                self._tell(name, "Pushing", "working", size, total)

        return count


def _neighbours(store: Store, ref: Reference) -> dict[str, list[str]]:
    """Layer → other repositories of that registry that should have it: images here were pulled from them, or pushed."""
    found: dict[str, list[str]] = {}
    for image in store.all():
        for name in image.repo_digests:
            other = reference.parse(name)
            if other.registry == ref.registry and other.repository != ref.repository:
                for diff_id in image.layers:
                    rows = found.setdefault(diff_id, [])
                    if other.repository not in rows:
                        rows.append(other.repository)
    return found
