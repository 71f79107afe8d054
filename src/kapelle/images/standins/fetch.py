"""Downloads for stand-ins: checked against a digest, kept in the store by it, several at once, with progress.

standins/blobs/sha256/HEX     files as they were downloaded
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from urllib.parse import unquote, urlsplit

from kapelle.errors import ImageError
from kapelle.events import Emit, Progress
from kapelle.images import proxies, wire
from kapelle.light import Any, NamedTuple

_PIECE = 1 << 18
_WORKERS = 6
_TRIES = 3


class Unreachable(Exception):
    """A URL could not be had. `status` is the server's answer, 0 if there was none."""

    def __init__(self, url: str, why: str, status: int = 0) -> None:
        super().__init__(f"{url}: {why}")
        self.url, self.why, self.status = url, why, status


class Wanted(NamedTuple):
    """A file to have: the places it may come from, tried in order; its digest; its size (0: not known)."""

    urls: tuple[str, ...]
    sha256: str
    size: int
    name: str


class Fetcher:
    def __init__(
        self,
        root: str,
        environ: Mapping[str, str],
        emit: Emit,
        parent: str,
        *,
        apt_proxies: Mapping[str, str] | None = None,
        ca_files: Iterable[str] = (),
    ) -> None:
        """`root` is the folder of blobs, `parent` the image that progress is told for.

        apt_proxies: scheme → URL or DIRECT, before the environment's. ca_files: further certificates to trust.
        """
        self.root = root
        self._environ = dict(environ)
        self._emit = emit
        self._parent = parent
        self._apt_proxies = apt_proxies or {}
        self._ca_files = tuple(f for f in ca_files if f and os.path.exists(f))
        self._pools: dict[str, Any] = {}
        self._lock = threading.Lock()

    def trust(self, ca_file: str) -> None:
        """Trust further certificates from now on."""
        if ca_file and os.path.exists(ca_file) and ca_file not in self._ca_files:
            self._ca_files += (ca_file,)
            self._pools.clear()

    def path(self, sha256: str) -> str:
        return f"{self.root}/{sha256}"

    def read(self, url: str, *, limit: int = 64 << 20, headers: Mapping[str, str] | None = None) -> bytes:
        """A small file. Raises Unreachable."""
        parts: list[bytes] = []
        for piece in self._stream(url, headers or {}):
            parts.append(piece)
            limit -= len(piece)
            if limit < 0:
                raise Unreachable(url, "it is too large")
        return b"".join(parts)

    def get(self, files: Sequence[Wanted], what: str) -> list[str]:
        """Have all the files on the disk; returns their paths in the order given.

        Those that are there already are not fetched again. ImageError for what can't be had.
        """
        from concurrent.futures import ThreadPoolExecutor

        missing = [w for w in files if not os.path.exists(self.path(w.sha256))]
        if missing:
            os.makedirs(self.root, 0o700, exist_ok=True)
            progress = _Sum(self._emit, what, self._parent, sum(w.size for w in missing))
            with ThreadPoolExecutor(_WORKERS) as workers:
                running = [workers.submit(self._fetch, w, progress) for w in missing]
                try:
                    for task in running:
                        task.result()
                except BaseException:
                    progress.stopped = True
                    workers.shutdown(wait=True, cancel_futures=True)
                    raise
            self._emit(Progress("layer", what, "Downloaded", "done", "", progress.done, progress.done, self._parent))
        return [self.path(w.sha256) for w in files]

    def _fetch(self, wanted: Wanted, progress: _Sum) -> None:
        target = self.path(wanted.sha256)
        trouble: Unreachable | None = None
        for url in wanted.urls * _TRIES:
            temporary = f"{target}.{os.getpid()}.{threading.get_ident()}.part"
            digest, got = hashlib.sha256(), 0
            try:
                with open(temporary, "wb") as out:
                    for piece in self._stream(url, {}):
                        if progress.stopped:
                            return
                        digest.update(piece)
                        out.write(piece)
                        got += len(piece)
                        progress.add(len(piece))
                if digest.hexdigest() != wanted.sha256:
                    progress.add(-got)
                    trouble = Unreachable(url, f"its content is not what the index says ({got} bytes came)")
                    continue
                os.rename(temporary, target)
                return
            except Unreachable as e:
                progress.add(-got)
                trouble = e
            except OSError as e:
                raise ImageError(f"{wanted.name} could not be kept: {e.strerror}", code="KAP506") from e
            finally:
                try:
                    os.unlink(temporary)
                except FileNotFoundError:
                    pass
        assert trouble is not None
        raise ImageError(
            f"{wanted.name} can't be downloaded: {trouble.why}",
            details=(("tried", trouble.url),),
            why="a stand-in is made of it",
            hint="try again; if it stays, name another mirror with KAP_DEBIAN_MIRROR",
        )

    # -- HTTP -----------------------------------------------------------------------------------------------------

    def _stream(self, url: str, headers: Mapping[str, str]) -> Iterable[bytes]:
        scheme = urlsplit(url).scheme
        if scheme in ("file", ""):
            return _local(unquote(url.removeprefix("file:").removeprefix("//")), url)
        if scheme not in ("http", "https"):
            raise Unreachable(url, f"{scheme} addresses are not read")
        return self._http(url, headers)

    def _http(self, url: str, headers: Mapping[str, str]) -> Iterable[bytes]:
        try:
            answer = self._pool(url).request(
                "GET", url, headers={"User-Agent": "kapelle", **headers}, preload_content=False, redirect=True,
                timeout=30.0, retries=2,
            )  # fmt: skip
        except ImageError:
            raise
        except Exception as e:
            raise Unreachable(url, _reason(e)) from e
        try:
            if answer.status != 200:
                raise Unreachable(url, f"the server answers {answer.status}", answer.status)
            yield from answer.stream(_PIECE, decode_content=True)
        except Unreachable:
            raise
        except OSError:
            raise
        except Exception as e:
            raise Unreachable(url, _reason(e)) from e
        finally:
            answer.release_conn()

    def _pool(self, url: str) -> Any:
        scheme = urlsplit(url).scheme
        proxy = self._apt_proxies.get(scheme) or proxies.for_url(url, self._environ) or ""
        if proxy == "DIRECT":
            proxy = ""
        with self._lock:
            pool = self._pools.get(proxy)
            if pool is None:
                pool = self._pools[proxy] = wire.open_pool(proxy, self._environ)
                context = pool.connection_pool_kw.get("ssl_context")
                for path in self._ca_files:
                    if context is not None:
                        context.load_verify_locations(path)
        return pool


class _Sum:
    """Bytes of several downloads as one row of progress."""

    def __init__(self, emit: Emit, what: str, parent: str, total: int) -> None:
        self._emit, self._what, self._parent, self._total = emit, what, parent, total
        self._lock = threading.Lock()
        self._told = -1
        self.done = 0
        self.stopped = False

    def add(self, size: int) -> None:
        with self._lock:
            self.done += size
            step = self.done >> 20  # a row per MiB is enough for a bar
            if step == self._told:
                return
            self._told = step
            self._emit(
                Progress("layer", self._what, "Downloading", "working", "", self.done, self._total, self._parent)
            )


def _local(path: str, url: str) -> Iterable[bytes]:
    try:
        with open(path, "rb") as f:
            while piece := f.read(_PIECE):
                yield piece
    except OSError as e:
        raise Unreachable(url, e.strerror or str(e), 404 if isinstance(e, FileNotFoundError) else 0) from e


def _reason(e: BaseException) -> str:
    """The innermost cause in few words: "Connection refused"."""
    seen = getattr(e, "reason", None)
    while isinstance(seen, BaseException):
        e, seen = seen, getattr(seen, "reason", None)
    cause = e.__cause__ or e.__context__
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    text = str(e)
    return text.rsplit(": ", 1)[-1] if text.startswith(("<", "HTTP")) else text or type(e).__name__
