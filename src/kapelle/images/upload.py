"""What a push asks of a registry (OCI distribution-spec v1.1, "Push"): is a blob there, mount it from a neighbour, send
it, name a manifest. A blob goes in one piece; where that breaks off, or is too much for what stands in front of the
registry, in chunks from where it got to.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from urllib.parse import quote, urljoin, urlsplit

from urllib3.exceptions import HTTPError

from kapelle.images.registry import Registry
from kapelle.images.store import Descriptor
from kapelle.images.wire import Refused
from kapelle.light import Any, BinaryIO

_CHUNK = 16 << 20
_MOST_CHUNK = 1 << 30  # a registry that wants larger ones gets these
_TRIES = 5
_PAUSES = (0.2, 0.6, 1.5, 3.0)
_PATIENCE = 60.0  # seconds without an answer after all was sent: the registry checks the digest
_OCTETS = "application/octet-stream"

Counted = Callable[[int], None]  # told how many bytes have gone


class Uploads:
    """Pushes to one repository. May be used by several threads."""

    def __init__(self, registry: Registry, repository: str) -> None:
        self._registry = registry
        self._repository = registry.endpoint.asked or repository
        self._least = 0  # bytes of a chunk that is not the last
        self._scope = f"repository:{registry.endpoint.prefix}{self._repository}:pull,push"

    def has(self, digest: str) -> bool:
        """Does the repository have that blob?"""
        url = self._registry.url(self._repository, f"blobs/{digest}")
        answer = self._registry.exchange("HEAD", url, {}, self._scope, good=(200, 404, 405))
        answer.drain_conn()
        return int(answer.status) == 200

    def begin(self, digest: str = "", source: str = "") -> str:
        """Begin an upload: where to send it. With `source`, ask for the blob of that repository instead: "" if the
        registry has taken it over.
        """
        url = self._registry.url(self._repository, "blobs/uploads/")
        scope = self._scope
        if source:
            url += f"?mount={quote(digest, safe=':')}&from={quote(source, safe='')}"
            scope += f" repository:{self._registry.endpoint.prefix}{source}:pull"
        answer = self._registry.exchange("POST", url, {"Content-Length": "0"}, scope, good=(201, 202))
        answer.drain_conn()
        if answer.status == 201 and source:
            return ""
        least = answer.headers.get("OCI-Chunk-Min-Length", "")
        if least.isdigit():
            self._least = min(int(least), _MOST_CHUNK)
        return self._place(url, answer)

    def send(self, blob: Descriptor, content: BinaryIO, place: str, counted: Counted) -> None:
        """Send a blob; `content` can be read from any place. place: from `begin`, or "". Raises Refused."""
        done, fails, chunk = 0, 0, 0
        while True:
            start = done
            try:
                if not place:
                    place, done = self.begin(), 0
                while chunk and done < blob.size:
                    size = min(max(chunk, self._least), blob.size - done)
                    place, done = self._patch(place, content, done, size, counted)
                self._put(place, blob, content, done, counted)
                counted(blob.size)
                return
            except Refused as e:
                if e.status == 413 and chunk != _CHUNK // 4:
                    chunk = _CHUNK if not chunk else _CHUNK // 4
                elif e.kind not in ("unreachable", "failed", "missing") or e.status in (400, 403, 405, 501):
                    raise
                else:
                    chunk = chunk or _CHUNK
                fails = 1 if done > start else fails + 1
                if fails >= _TRIES:
                    raise Refused(e.kind, f"{e.row} ({fails} tries)", e.hint) from None
                time.sleep(_PAUSES[min(fails, len(_PAUSES)) - 1])
                if self.has(blob.digest):
                    return  # all had come: only the answer was lost
                place, done = self._where(place)
                if done > blob.size:
                    place, done = "", 0

    def _patch(self, place: str, content: BinaryIO, done: int, size: int, counted: Counted) -> tuple[str, int]:
        headers = {
            "Content-Type": _OCTETS,
            "Content-Length": str(size),
            "Content-Range": f"{done}-{done + size - 1}",
        }
        answer = self._once("PATCH", place, headers, lambda: Window(content, done, size, counted), (202, 204))
        return self._place(place, answer), _reached(answer, done + size)

    def _put(self, place: str, blob: Descriptor, content: BinaryIO, done: int, counted: Counted) -> None:
        size = blob.size - done
        url = f"{place}{'&' if urlsplit(place).query else '?'}digest={quote(blob.digest, safe=':')}"
        headers = {"Content-Type": _OCTETS, "Content-Length": str(size)}
        if done and size:
            headers["Content-Range"] = f"{done}-{blob.size - 1}"
        self._once("PUT", url, headers, lambda: Window(content, done, size, counted), (201, 204))

    def _once(self, method: str, url: str, headers: dict[str, str], body: Callable[[], Any], good: Any) -> Any:
        """Nothing is sent twice unasked: whoever repeats has to know how far it came."""
        scope = self._scope if self._registry.is_own(url) else ""
        answer = self._registry.exchange(
            method, url, headers, scope, body=body, good=good, patience=_PATIENCE, again=False
        )
        answer.drain_conn()
        return answer

    def _where(self, place: str) -> tuple[str, int]:
        """How far an upload came: its place and bytes; ("", 0) if it has to begin anew."""
        if not place:
            return "", 0
        scope = self._scope if self._registry.is_own(place) else ""
        try:
            answer = self._registry.exchange("GET", place, {}, scope, good=(204, 202, 200), again=False)
            answer.drain_conn()
        except (Refused, HTTPError):
            return "", 0
        return self._place(place, answer), _reached(answer, 0)

    def _place(self, url: str, answer: Any) -> str:
        location = str(answer.headers.get("Location", ""))
        if not location:
            if urlsplit(url).path.endswith("/uploads/"):
                raise Refused("failed", "it names no place to send a layer to")
            return url
        target = urljoin(url, location)
        here, there = urlsplit(url), urlsplit(target)
        if there.scheme not in ("http", "https") or (here.scheme == "https" and there.scheme == "http"):
            raise Refused("failed", f"it wants a layer sent by {there.scheme or 'nothing'}, which is not done")
        return target

    def manifest(self, name: str, data: bytes, media_type: str) -> None:
        """Name a manifest by a tag, or by its digest."""
        url = self._registry.url(self._repository, f"manifests/{name}")
        headers = {"Content-Type": media_type, "Content-Length": str(len(data))}
        self._registry.exchange("PUT", url, headers, self._scope, body=lambda: data, good=(200, 201, 202)).drain_conn()


class Window:
    """A part of a file as a request's body, its reading counted."""

    def __init__(self, content: BinaryIO, start: int, size: int, counted: Counted) -> None:
        self._content = content
        self._start = start
        self._left = size
        self._at = start
        self._counted = counted
        content.seek(start)

    def read(self, size: int = -1) -> bytes:
        wanted = self._left if size is None or size < 0 else min(size, self._left)
        data = self._content.read(wanted) if wanted else b""
        self._left -= len(data)
        self._at += len(data)
        if data:
            self._counted(self._at)
        return data

    def __len__(self) -> int:
        return self._left


def _reached(answer: Any, expected: int) -> int:
    """How many bytes the registry has, by its Range header ("0-1023")."""
    last = answer.headers.get("Range", "").removeprefix("bytes=").partition("-")[2]
    if last.isdigit():
        return int(last) + 1 if int(last) or expected else 0
    return expected
