"""One layer's way into the store: bytes → both digests → plain tar → directory. Reading, hashing and inflating run
in a thread of their own beside the unpacking; nothing is kept unless every digest and size is as promised.
"""

from __future__ import annotations

import errno
import hashlib
import os
import queue
import threading
from collections.abc import Callable, Iterable, Iterator

from kapelle.errors import ImageError
from kapelle.images import blobs, compression, frame
from kapelle.images.store import Descriptor, Layer, Store
from kapelle.images.tarread import Stream, TarError
from kapelle.images.unpack import Unpacker
from kapelle.light import Any, NamedTuple

_AHEAD = 8  # pieces read before they are unpacked
_BOMB_FLOOR = 8 << 30  # plain bytes any layer may have
_BOMB_RATIO = 100  # and this many times its compressed size beyond

Counted = Callable[[int], None]  # told how many compressed bytes have come


class Taken(NamedTuple):
    """A layer that is unpacked in its temporary."""

    layer: Layer
    digest: str  # of the bytes as they came
    size: int
    kept: str = ""  # digest of the file `blob` in the temporary, if there is one


class Cancelled(Exception):
    """Another layer of the image failed, so this one stops. Never reaches a user."""


class _Pump:
    """Pulls pieces from an iterator in a thread; iterate over it to get them. Errors come out at the reader."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._queue: queue.Queue[bytes | BaseException | None] = queue.Queue(_AHEAD)
        self._stop = threading.Event()
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="layer", daemon=True)

    def __enter__(self) -> _Pump:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        while self._thread.is_alive():  # make room, so that it sees the mark
            try:
                self._queue.get_nowait()
            except queue.Empty:
                self._thread.join(0.02)

    def _run(self) -> None:
        end: BaseException | None = None
        try:
            for piece in self._pieces:
                self._queue.put(piece)
                if self._stop.is_set():
                    return
        except BaseException as e:  # handed over to the reading thread
            end = e
        self._queue.put(end)

    def __iter__(self) -> Iterator[bytes]:
        while not self._ended:
            piece = self._queue.get()
            if piece is None:
                self._ended = True
                return
            if isinstance(piece, BaseException):
                self._ended = True
                raise piece
            yield piece


def take(
    store: Store,
    path: str,
    chunks: Iterable[bytes],
    *,
    what: str,
    blob: Descriptor | None = None,
    diff_id: str = "",
    counted: Counted | None = None,
    keep: bool = False,
) -> Taken:
    """Unpack a layer's bytes into the temporary `path` (diff/, frame, layer.json). The caller syncs and publishes.

    what: names it in errors ("layer 4f5a… of redis:7"). blob, diff_id: what must come out, where it is known.
    keep: also leave them in the file `blob`, as they came; plain ones without a promised `blob` are packed for it.
    Raises ImageError.
    """
    wanted = keep and (blob is None or blob.digest.startswith("sha256:"))
    writer = blobs.Writer(f"{path}/blob", exact=blob is not None) if wanted else None
    hashes = _Hashes(chunks, blob, what, counted, writer.feed if writer else None)
    os.mkdir(f"{path}/diff", 0o755)
    root = os.open(f"{path}/diff", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with open(f"{path}/frame", "wb") as f, _Pump(hashes.plain_pieces()) as pump:
            recorder = frame.Writer(f)
            stream = Stream(iter(pump), lambda: max(_BOMB_FLOOR, _BOMB_RATIO * hashes.size))
            unpacked = Unpacker(root, recorder).run(stream)
            recorder.close()
            for _ in pump:
                raise TarError("bytes follow the end of the archive")  # not reached: the reader drains
        kept = writer.end(hashes.digest) if writer else None
    except (TarError, ImageError) as e:
        if e.why and what in e.what:
            raise
        raise ImageError(
            f"{what} can't be unpacked: {e.what}", why=e.why, hint=e.hint, details=e.details, code=e.code
        ) from e
    except OSError as e:
        raise fault(e, f"{what} could not be unpacked") from e
    finally:
        os.close(root)
        if writer:
            writer.close()
    hashes.check(diff_id)
    if not unpacked.exact:
        os.unlink(f"{path}/frame")
    known = blob or kept
    packed = (known,) if known is not None and known.digest != hashes.diff_id else ()
    layer = Layer(hashes.diff_id, unpacked.size, stream.count, packed, unpacked.exact)
    store.finish_layer(path, layer)
    return Taken(layer, hashes.digest, hashes.size, kept.digest if kept else "")


class _Hashes:
    """Digests of the bytes as they come and of the plain bytes, taken on the way: one for both if they come plain."""

    def __init__(
        self,
        chunks: Iterable[bytes],
        blob: Descriptor | None,
        what: str,
        counted: Counted | None,
        put: Callable[[bytes], None] | None,
    ) -> None:
        self._chunks = chunks
        self._put = put
        self._blob = blob
        self._what = what
        self._counted = counted
        self._packed: Any = hashlib.sha256()
        self._other: Any = None  # a digest by another algorithm that the manifest promised
        if blob is not None and not blob.digest.startswith("sha256:"):
            algorithm = blob.digest.partition(":")[0]
            if algorithm not in ("sha384", "sha512"):
                raise ImageError(f"{what} has a digest of an unknown kind: {algorithm}", code="KAP504")
            self._other = hashlib.new(algorithm)
        self._plain: Any = hashlib.sha256()
        self._is_packed: bool | None = None  # None until enough has come to tell
        self._head = b""
        self.size = 0

    def _came(self) -> Iterator[bytes]:
        for chunk in self._chunks:
            self.size += len(chunk)
            if self._blob is not None and self.size > self._blob.size:
                raise ImageError(
                    f"{self._what} is damaged: more bytes came than its manifest says ({self._blob.size})",
                    code="KAP504",
                )
            self._take(chunk)
            if self._other is not None:
                self._other.update(chunk)
            if self._counted is not None:
                self._counted(self.size)
            if self._put is not None:
                self._put(chunk)
            yield chunk

    def _take(self, chunk: bytes) -> None:
        if self._is_packed is None:
            self._head += chunk
            if len(self._head) < compression.MAGIC:
                return
            chunk, self._head = self._head, b""
            self._is_packed = bool(compression.kind_of(chunk))
        if self._is_packed:
            self._packed.update(chunk)

    def plain_pieces(self) -> Iterator[bytes]:
        for piece in compression.plain(self._came()):
            self._plain.update(piece)
            yield piece

    @property
    def digest(self) -> str:
        return f"sha256:{(self._packed if self._is_packed else self._plain).hexdigest()}"

    @property
    def diff_id(self) -> str:
        return f"sha256:{self._plain.hexdigest()}"

    def check(self, diff_id: str) -> None:
        if self._blob is not None:
            got = f"{self._other.name}:{self._other.hexdigest()}" if self._other is not None else self.digest
            if self.size != self._blob.size:
                raise wrong(self._what, "size", str(self._blob.size), str(self.size))
            if got != self._blob.digest:
                raise wrong(self._what, "digest", self._blob.digest, got)
        if diff_id and diff_id != self.diff_id:
            raise wrong(self._what, "content", diff_id, self.diff_id)


def wrong(what: str, kind: str, wanted: str, got: str) -> ImageError:
    """The error of bytes that are not what was promised."""
    return ImageError(
        f"{what} is damaged: its {kind} is not what the image says",
        details=(("wanted", wanted), ("got", got)),
        why="nothing of it was kept",
        hint="try again; if it stays, the registry or a proxy on the way has a damaged copy",
        code="KAP504",
    )


def fault(e: OSError, what: str) -> ImageError:
    """An OSError while the store is written, in a user's words."""
    if e.errno in (errno.ENOSPC, errno.EDQUOT):
        return ImageError(
            f"{what}: no space left on the disk" if e.errno == errno.ENOSPC else f"{what}: the disk quota is used up",
            why="what was half written has been removed",
            hint="make room, or move the store with KAP_HOME, and run the command again; layers take less room with "
            "keep_layer_archives = false (docs/guide-images.md)",
            code="KAP506",
        )
    return ImageError(f"{what}: {e.strerror or e}", why=str(e.filename or ""))
