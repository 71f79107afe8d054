"""Pull: reference → image in the store. Asks mirrors and registry in turn, chooses the platform, brings the missing
layers in parallel, checks everything, records the image. What fails leaves nothing.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

from kapelle.errors import ImageError
from kapelle.events import Emit, Notice, Progress
from kapelle.images import layers, manifests, mirrors, platforms, reference, sidebyside, writeout
from kapelle.images.mirrors import Settings as Settings
from kapelle.images.mirrors import settings as settings
from kapelle.images.reference import Reference, familiar
from kapelle.images.registry import Registry
from kapelle.images.store import Descriptor, Store
from kapelle.images.types import Image
from kapelle.images.wire import Refused
from kapelle.light import NamedTuple

_DEPTH = 3  # indexes in indexes
_TOLD_EVERY = 0.1  # seconds between two events of one layer
_AGES = {"daily": 86400.0, "weekly": 604800.0}
POLICIES = ("always", "missing", "if_not_present", "never", "build", "daily", "weekly")


class Unreachable(ImageError):
    """The registry is not to be had: refused, blocked, no route, no name, no trusted TLS. A stand-in may help."""


class _Wanted(NamedTuple):
    """What the manifests say is to be brought."""

    registry: Registry
    repository: str
    manifest: bytes
    config: bytes
    layers: tuple[Descriptor, ...]
    diff_ids: tuple[str, ...]
    digest: str  # of what the tag stands for: index or manifest


def pull(
    name: str, store: Store, settings: Settings, emit: Emit, *, policy: str = "missing", platform: str = ""
) -> Image:
    """Bring an image into the store if `policy` (compose-spec pull_policy) asks for it, and return it.

    platform: "linux/arm64", or "" for this machine. Raises Unreachable when no endpoint could be asked, ImageError
    (KAP501 limits and faults, KAP502 not found or denied, KAP503 platform, KAP504 damaged) otherwise.
    """
    ref = reference.parse(name)
    wanted = platforms.parse(platform) if platform else platforms.host()
    have = store.find(str(ref))
    if have is not None and not _due(ref, store, policy) and _fits(have, wanted, asked=bool(platform)):
        return have
    if policy == "never":
        raise ImageError(
            f"image {familiar(ref)} is not here, and its pull policy is never",
            hint=f"kap pull --policy missing, or kap load -i FILE to bring {familiar(ref)}",
            code="KAP502",
        )
    shown = familiar(ref)
    tell = _Teller(emit, shown)
    tell.image("Pulling")
    try:
        image = _pull(ref, shown, store, settings, tell, wanted, asked=bool(platform))
    except ImageError as e:
        tell.image("Error", "error", e.what)
        raise
    tell.image("Pulled", "done")
    return image


def _due(ref: Reference, store: Store, policy: str) -> bool:
    """Whether an image that is here is asked for again."""
    if policy in ("missing", "if_not_present", "never", "build", ""):
        return False
    if ref.digest:
        return False  # its content can't change
    age = _AGES.get(policy)
    if policy.startswith("every_"):
        age = _duration(policy.removeprefix("every_"))
        if age is None:
            raise ImageError(f'"{policy}" is not a pull policy', hint="write it as every_12h or every_2d")
    if age is None:
        if policy != "always":
            raise ImageError(f'"{policy}" is not a pull policy', hint=f"use one of {', '.join(POLICIES)}, every_12h")
        return True
    return time.time() - store.named_at(ref) >= age


def _duration(text: str) -> float | None:
    """Seconds of compose-spec's 1w2d3h4m5s; None if it is none."""
    units = {"w": 604800, "d": 86400, "h": 3600, "m": 60, "s": 1}
    total, digits = 0.0, ""
    for character in text:
        if character.isascii() and character.isdigit():
            digits += character
        elif character in units and digits:
            total += int(digits) * units[character]
            digits = ""
        else:
            return None
    return total if text and not digits else None


def _fits(image: Image, wanted: platforms.Platform, *, asked: bool) -> bool:
    """Whether an image that is here is of the platform. Only one that was asked for is a reason to pull again."""
    if not asked:
        return True
    config = image.config
    texts = [str(config.get(k) or "") for k in ("os", "architecture", "variant")]
    if not texts[1]:
        return True
    return platforms.best([platforms.Platform(*texts)], wanted) is not None


class _Teller:
    """Events of one pull, from several threads, one at a time."""

    def __init__(self, emit: Emit, image: str) -> None:
        self._emit = emit
        self._image = image
        self._lock = threading.Lock()

    def image(self, text: str, state: str = "working", details: str = "") -> None:
        with self._lock:
            self._emit(Progress("image", self._image, text, state, details=details))

    def layer(self, blob: Descriptor, text: str, state: str = "working", current: int = 0) -> None:
        name = blob.digest.partition(":")[2][:12]
        total = 0 if text == "Already exists" else blob.size
        current = blob.size if text in ("Unpacking", "Pull complete") else current
        with self._lock:
            self._emit(Progress("layer", name, text, state, current=current, total=total, parent=self._image))

    def notice(self, text: str) -> None:
        with self._lock:
            self._emit(Notice(text))


def _pull(
    ref: Reference,
    shown: str,
    store: Store,
    settings: Settings,
    tell: _Teller,
    platform: platforms.Platform,
    *,
    asked: bool,
) -> Image:
    try:
        store.prepare()
    except OSError as e:
        raise layers.fault(e, f"image {shown} could not be stored") from e
    refusals: list[tuple[str, Refused]] = []
    for number, endpoint in enumerate(mirrors.endpoints(ref, settings), 1):
        label = f"mirror {number}" if endpoint.mirror else ref.registry
        registry = Registry(endpoint, ref.registry, settings)
        try:
            same = None if asked else _unmoved(registry, store, ref, platform)
            if same is not None:
                return same
            wanted = _resolve(registry, store, ref, shown, platform, tell, asked=asked)
            with store.using():
                return _bring(wanted, ref, shown, store, tell)
        except Refused as e:
            refusals.append((label, e))
        except OSError as e:
            raise layers.fault(e, f"image {shown} could not be stored") from e
    raise _failure(shown, ref, refusals, _others(store, ref))


def _unmoved(registry: Registry, store: Store, ref: Reference, platform: platforms.Platform) -> Image | None:
    """The image that the tag still stands for, if it is here; its name is confirmed."""
    if ref.digest or not store.lookup(ref):
        return None
    digest = registry.digest(registry.endpoint.asked or ref.repository, ref.tag)
    with store.using():
        image_id = store.lookup(ref._replace(tag="", digest=digest)) if digest else ""
        image = store.image(image_id) if image_id else None
        if image is None or not all(map(store.has_layer, image.layers)):
            return None
        own = platforms.Platform(*(str(image.config.get(k) or "") for k in ("os", "architecture", "variant")))
        if platforms.normal(own) != platforms.normal(platform):
            return None  # of another platform's pull, or an index may have a nearer one
        store.tag(str(ref), image.id)
        return image


def _others(store: Store, ref: Reference) -> tuple[str, ...]:
    """Other tags of the repository that are here."""
    found = (reference.parse(name) for names in store.names().values() for name in names)
    return tuple(sorted(familiar(other) for other in found if other.name == ref.name and other.tag))[:5]


# -- what to bring ------------------------------------------------------------------------------------------------


def _resolve(
    registry: Registry,
    store: Store,
    ref: Reference,
    shown: str,
    platform: platforms.Platform,
    tell: _Teller,
    *,
    asked: bool,
) -> _Wanted:
    repository = registry.endpoint.asked or ref.repository
    data, kind, digest = registry.manifest(repository, ref.wanted)
    top = digest
    parsed = manifests.parse(data, kind, f"image {shown}")
    depth = 0
    while isinstance(parsed, manifests.Index):
        depth += 1
        offers = [m.platform for m in parsed.manifests]
        place = platforms.best(offers, platform)
        if place is None and not asked:
            running = [
                i for i, p in enumerate(offers) if p.architecture not in ("", "unknown") and platforms.emulated(p)
            ]
            place = running[0] if running else None
            if place is not None:
                tell.notice(f"{shown}: has no variant for {platform}; {offers[place]} runs by emulation, slower")
        if place is None or depth > _DEPTH:
            raise platforms.misfit(shown, offers, platform, asked=asked)
        blob = parsed.manifests[place].blob
        data, kind, _ = registry.manifest(repository, blob.digest)
        if len(data) != blob.size:
            raise layers.wrong(f"manifest {blob.digest[:19]} of {shown}", "size", str(blob.size), str(len(data)))
        parsed = manifests.parse(data, kind or blob.media_type, f"image {shown}")
    config = _here(store, parsed.config) or _config(registry, repository, parsed.config, shown)
    ids = manifests.diff_ids(config, f"image {shown}")
    if len(ids) != len(parsed.layers):
        raise ImageError(
            f"image {shown} can't be read: its manifest has {len(parsed.layers)} layers, its config {len(ids)}",
            code="KAP504",
        )
    own = manifests.platform_of(config, f"image {shown}")
    if depth == 0 and own.architecture and platforms.best([own], platform) is None:
        if asked or not platforms.emulated(own):
            raise platforms.misfit(shown, [own], platform, asked=asked)
        tell.notice(f"{shown}: is for {own} and runs by emulation, slower")
    return _Wanted(registry, repository, data, config, parsed.layers, ids, top)


def _here(store: Store, blob: Descriptor) -> bytes | None:
    """A config that the store has, whole."""
    data = store.read_blob(blob.digest) if blob.digest.startswith("sha256:") else None
    good = data is not None and f"sha256:{hashlib.sha256(data).hexdigest()}" == blob.digest and len(data) == blob.size
    return data if good else None


def _config(registry: Registry, repository: str, blob: Descriptor, shown: str) -> bytes:
    if blob.size > manifests.MOST_CONFIG:
        raise ImageError(f"image {shown} can't be read: its config has {blob.size} bytes", code="KAP504")
    data = b""
    for piece in registry.blob(repository, blob.digest, blob.size):
        data += piece
        if len(data) > blob.size:
            break
    what = f"the config of {shown}"
    if len(data) != blob.size:
        raise layers.wrong(what, "size", str(blob.size), str(len(data)))
    algorithm, _, digits = blob.digest.partition(":")
    got = hashlib.new(algorithm, data).hexdigest()
    if got != digits:
        raise layers.wrong(what, "digest", blob.digest, f"{algorithm}:{got}")
    return data


# -- the layers ---------------------------------------------------------------------------------------------------


def _bring(wanted: _Wanted, ref: Reference, shown: str, store: Store, tell: _Teller) -> Image:
    """Bring what is missing, make it safe on the disk, then show it: layers first, the record after."""
    blobs = dict(zip(wanted.diff_ids, wanted.layers, strict=True))
    with ExitStack() as stack:
        missing = []
        for diff_id in sorted(blobs):  # everyone takes these locks in the same order
            if store.has_layer(diff_id):
                continue
            lock = store.lock_layer(diff_id)
            if lock is None:
                tell.layer(blobs[diff_id], "Waiting")  # another kap is bringing it
                lock = store.lock_layer(diff_id, wait=None)
                assert lock is not None
            stack.callback(os.close, lock)
            if not store.has_layer(diff_id):
                missing.append(diff_id)
        order = [d for d in dict.fromkeys(wanted.diff_ids) if d in missing]
        for diff_id, blob in blobs.items():
            if diff_id not in missing:
                tell.layer(blob, "Already exists", "done")
        paths = {d: stack.enter_context(store.temporary()) for d in order}
        crew = _Crew(wanted, shown, store, tell)
        with writeout.meanwhile(store.root):
            crew.run([(d, blobs[d], paths[d]) for d in order])
        if order:
            store.sync()
        for diff_id in order:
            store.publish_layer(paths[diff_id], diff_id, crew.kept.get(diff_id, ""))
        names = [str(ref._replace(digest=""))] if ref.tag else []
        pins = {wanted.digest, ref.digest} - {""}
        names += [f"{ref.name}@{digest}" for digest in sorted(pins)]
        return store.put_image(wanted.config, wanted.diff_ids, tuple(names), manifest=wanted.manifest)


class _Crew:
    """Threads that bring layers. The first failure stops the others and is what is raised."""

    def __init__(self, wanted: _Wanted, shown: str, store: Store, tell: _Teller) -> None:
        self._wanted = wanted
        self._shown = shown
        self._store = store
        self._tell = tell
        self._stop = threading.Event()
        self._keep = store.keeps_archives
        self.kept: dict[str, str] = {}  # diff-ID → digest of the blob that lies beside the unpacked layer

    def run(self, jobs: list[tuple[str, Descriptor, str]]) -> None:
        """Bring each (diff-ID, blob, temporary directory). Raises what the first failing one raised."""
        if not jobs:
            return
        for _, blob, _ in jobs:
            self._tell.layer(blob, "Pulling fs layer")
        largest_first = sorted(jobs, key=lambda job: job[1].size, reverse=True)
        sidebyside.each(largest_first, lambda job: self._one(*job), self._stop, "pull")

    def _one(self, diff_id: str, blob: Descriptor, path: str) -> None:
        self._tell.layer(blob, "Downloading")
        chunks = self._chunks(blob)
        what = f"layer {blob.digest.partition(':')[2][:12]} of {self._shown}"
        try:
            taken = layers.take(
                self._store, path, chunks,
                what=what, blob=blob, diff_id=diff_id, counted=self._count(blob), keep=self._keep,
            )  # fmt: skip
            self.kept[diff_id] = taken.kept
        except ImageError:
            if self._stop.is_set():
                raise layers.Cancelled from None
            raise
        self._tell.layer(blob, "Pull complete", "done", current=blob.size)

    def _chunks(self, blob: Descriptor) -> Iterator[bytes]:
        """The layer's bytes: from the registry, or where a foreign layer's manifest says that it is."""
        wanted = self._wanted
        try:
            yield from wanted.registry.blob(wanted.repository, blob.digest, blob.size, self._stop.is_set)
            return
        except Refused as e:
            if e.kind != "missing" or not blob.urls:
                raise
            first = e
        for url in blob.urls:
            try:
                yield from wanted.registry.elsewhere(url, blob.size, self._stop.is_set)
                return
            except Refused as e:
                if e.kind == "failed":  # some of it has come
                    raise
        raise first

    def _count(self, blob: Descriptor) -> Callable[[int], None]:
        last = time.monotonic()
        unpacking = False

        def count(size: int) -> None:
            nonlocal last, unpacking
            if self._stop.is_set():
                raise layers.Cancelled
            now = time.monotonic()
            if size >= blob.size and not unpacking:
                unpacking = True
                self._tell.layer(blob, "Unpacking")
            elif now - last >= _TOLD_EVERY and not unpacking:
                last = now
                self._tell.layer(blob, "Downloading", current=size)

        return count


# -- what went wrong ----------------------------------------------------------------------------------------------


def _failure(
    shown: str, ref: Reference, refusals: list[tuple[str, Refused]], others: tuple[str, ...] = ()
) -> ImageError:
    """One error of all that was tried. What the registry itself says counts most; mirrors may lack an image."""
    rows = tuple((label, e.row) for label, e in refusals)
    if others:
        rows = (*rows, ("have", f"{', '.join(others)} {'is' if len(others) == 1 else 'are'} here"))
    kinds = {e.kind for _, e in refusals}
    last = refusals[-1][1]
    hints = [e.hint for _, e in refusals if e.hint]
    if last.kind == "unreachable":
        return Unreachable(
            f"image {shown} could not be pulled: its registry can't be reached from here",
            details=rows,
            hint=hints[0]
            if hints
            else f"name a mirror: KAP_MIRRORS={ref.registry}=https://…  or bring the image: kap load -i FILE",
        )
    if last.kind == "missing":
        return ImageError(
            f"image {shown} is in no registry that was asked",
            details=rows,
            hint="check name and tag; if a build makes it, give the service a build section",
            code="KAP502",
        )
    if last.kind == "denied":
        return ImageError(
            f"image {shown} does not exist in its registry, or needs a login",
            details=rows,
            hint=f"check name and tag, or log in: {last.hint}" if last.hint else "check name and tag",
            code="KAP502",
        )
    hint = "try again later"
    if "limit" in kinds and last.hint:
        hint = f"log in for a higher limit: {last.hint}, or name a mirror: KAP_MIRRORS={ref.registry}=https://…"
    return ImageError(f"image {shown} could not be pulled", details=rows, hint=hint)
