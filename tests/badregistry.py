"""A registry in the test's own process: it behaves until a rule says otherwise, and remembers what it was asked.

A rule is (method, a part of the path, what to do, how often). What to do is a function of the request that returns True
when it has answered; else the registry goes on as it should.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import re
import select
import socket
import ssl
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

from tests.registry_access import Tls

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
ARCH = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def layer(files: dict[str, bytes]) -> bytes:
    """A plain tar."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


class Asked(NamedTuple):
    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def authorization(self) -> str:
        return self.headers.get("authorization", "")


class Rule(NamedTuple):
    method: str
    part: str
    act: Callable[[Request], bool]
    times: list[int]


class BadRegistry(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, tls: Tls | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Request)
        if tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tls.cert, tls.key)
            self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, tuple[bytes, str]] = {}  # NAME/tag or NAME/digest
        self.uploads: dict[str, bytearray] = {}
        self.asked: list[Asked] = []
        self.rules: list[Rule] = []
        self.tokens: set[str] = set()  # those taken; empty: everybody may
        self.beyond: int | None = None  # the port that it gives tunnels to, as a proxy
        self.lock = threading.Lock()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_port}"

    def when(self, method: str, part: str, act: Callable[[Request], bool], times: int = 1 << 30) -> None:
        self.rules.append(Rule(method, part, act, [times]))

    def blob(self, data: bytes) -> str:
        self.blobs[digest(data)] = data
        return digest(data)

    def manifest(self, name: str, tag: str, tree: Any, kind: str) -> str:
        data = tree if isinstance(tree, bytes) else json.dumps(tree).encode()
        self.manifests[f"{name}/{tag}"] = self.manifests[f"{name}/{digest(data)}"] = (data, kind)
        return digest(data)

    def image(
        self,
        name: str,
        tag: str,
        *files: dict[str, bytes],
        arch: str = ARCH,
        variant: str = "",
        kind: str = OCI_MANIFEST,
    ) -> dict[str, Any]:
        """Put an image of gzip layers; its manifest."""
        plain = [layer(f) for f in files]
        config = {
            "os": "linux",
            "architecture": arch,
            "config": {"Cmd": ["/x"]},
            "rootfs": {"type": "layers", "diff_ids": [digest(p) for p in plain]},
            **({"variant": variant} if variant else {}),
        }
        packed = [gzip.compress(p, mtime=0) for p in plain]
        data = json.dumps(config).encode()
        flavour = "docker" if kind == DOCKER_MANIFEST else "oci"
        types = {
            "oci": ("application/vnd.oci.image.config.v1+json", "application/vnd.oci.image.layer.v1.tar+gzip"),
            "docker": (
                "application/vnd.docker.container.image.v1+json",
                "application/vnd.docker.image.rootfs.diff.tar.gzip",
            ),
        }[flavour]
        tree = {
            "schemaVersion": 2,
            "mediaType": kind,
            "config": {"mediaType": types[0], "digest": self.blob(data), "size": len(data)},
            "layers": [{"mediaType": types[1], "digest": self.blob(p), "size": len(p)} for p in packed],
        }
        self.manifest(name, tag, tree, kind)
        return tree

    def paths(self, method: str = "GET") -> list[str]:
        return [a.path for a in self.asked if a.method == method]


class Request(BaseHTTPRequestHandler):
    server: BadRegistry
    protocol_version = "HTTP/1.1"
    body = b""

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except (ConnectionError, ValueError):
            self.close_connection = True

    def answer(self, status: int, body: bytes = b"", **headers: str) -> bool:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        return True

    def cut(self) -> bool:
        """Break the connection off."""
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True
        return True

    def error(self, status: int, code: str, words: str = "", **headers: str) -> bool:
        body = json.dumps({"errors": [{"code": code, "message": words or code.lower()}]}).encode()
        return self.answer(status, body, Content_Type="application/json", **headers)

    def serve(self) -> None:
        if self.path.startswith("http://"):  # asked as a proxy
            self.path = "/" + self.path.split("/", 3)[3]
        size = int(self.headers.get("Content-Length") or 0)
        for rule in self.server.rules:
            if rule.method == self.command and rule.part in self.path and rule.act.__name__ == "early":
                with self.server.lock:
                    due, rule.times[0] = rule.times[0] > 0, rule.times[0] - 1
                if due:
                    rule.act(self)
                    return
        self.body = self.rfile.read(size)
        headers = {k.lower(): v for k, v in self.headers.items()}
        with self.server.lock:
            self.server.asked.append(Asked(self.command, self.path, headers, self.body))
        for rule in self.server.rules:
            if rule.method != self.command or rule.part not in self.path or rule.act.__name__ == "early":
                continue
            with self.server.lock:
                due, rule.times[0] = rule.times[0] > 0, rule.times[0] - 1
            if due and rule.act(self):
                return
        if self.server.tokens and headers.get("authorization") not in self.server.tokens:
            self.error(401, "UNAUTHORIZED", WWW_Authenticate='Basic realm="x"')
            return
        if self.path.rstrip("/") == "/v2":
            self.answer(200, b"{}")
        elif match := re.fullmatch(r"/v2/(.+)/manifests/([^/]+)", self.path):
            self.about_manifest(match[1], match[2])
        elif match := re.fullmatch(r"/v2/(.+)/blobs/(sha\d+:\w+)", self.path):
            self.about_blob(match[2])
        elif match := re.fullmatch(r"/v2/(.+)/blobs/uploads/(\w*)", urlsplit(self.path).path):
            self.about_upload(match[1], match[2])
        else:
            self.answer(404)

    def do_CONNECT(self) -> None:
        """As a proxy: a tunnel to `server.beyond`, whatever host is asked for."""
        with self.server.lock:
            headers = {k.lower(): v for k, v in self.headers.items()}
            self.server.asked.append(Asked("CONNECT", self.path, headers, b""))
        if self.server.beyond is None:
            self.send_error(403)
            return
        self.close_connection = True
        with socket.create_connection(("127.0.0.1", self.server.beyond)) as far:
            self.send_response(200)
            self.end_headers()
            ends = {far: self.connection, self.connection: far}
            while True:
                for end in select.select(list(ends), [], [])[0]:
                    data = end.recv(65536)
                    if not data:
                        return
                    ends[end].sendall(data)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = serve

    def about_manifest(self, name: str, tag: str) -> None:
        if self.command == "PUT":
            self.server.manifest(name, tag, self.body, self.headers.get("Content-Type", ""))
            self.answer(201, Location=self.path)
            return
        found = self.server.manifests.get(f"{name}/{tag}")
        if found is None:
            self.error(404, "MANIFEST_UNKNOWN")
        else:
            self.answer(200, found[0], Content_Type=found[1], Docker_Content_Digest=digest(found[0]))

    def about_blob(self, wanted: str) -> None:
        data = self.server.blobs.get(wanted)
        if data is None:
            self.error(404, "BLOB_UNKNOWN")
            return
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if asked:
            first = int(asked[1])
            self.answer(206, data[first:], Content_Range=f"bytes {first}-{len(data) - 1}/{len(data)}")
        else:
            self.answer(200, data)

    def about_upload(self, name: str, key: str) -> None:
        uploads = self.server.uploads
        query = parse_qs(urlsplit(self.path).query)
        if self.command == "POST":
            if query.get("mount", [""])[0] in self.server.blobs and "from" in query:
                self.answer(201, Location=f"/v2/{name}/blobs/{query['mount'][0]}")
                return
            key = os.urandom(8).hex()
            uploads[key] = bytearray()
            self.answer(202, Location=f"/v2/{name}/blobs/uploads/{key}?state=a%2Fb")
            return
        if key not in uploads:
            self.error(404, "BLOB_UPLOAD_UNKNOWN")
            return
        have = uploads[key]
        asked = re.fullmatch(r"(\d+)-(\d+)", self.headers.get("Content-Range", ""))
        if self.command != "GET" and asked and int(asked[1]) != len(have):
            self.error(416, "BLOB_UPLOAD_INVALID")
            return
        place = f"/v2/{name}/blobs/uploads/{key}?state=a%2Fb"
        have += self.body
        if self.command == "PUT":
            if digest(bytes(have)) != query.get("digest", [""])[0]:
                self.error(400, "DIGEST_INVALID")
                return
            self.server.blob(bytes(have))
            self.answer(201, Location=f"/v2/{name}/blobs/{digest(bytes(have))}")
        else:
            self.answer(202 if self.command == "PATCH" else 204, Location=place, Range=f"0-{max(len(have) - 1, 0)}")

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def running(tls: Tls | None = None) -> Iterator[BadRegistry]:
    server = BadRegistry(tls)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


if __name__ == "__main__":  # python -m tests.badregistry: one image, in a process of its own
    alone = BadRegistry()
    alone.image(
        "app", "1", {f"d{n}/f{m}": bytes([n, m]) * 3000 for n in range(3) for m in range(3)}, {"b": b"two" * 5000}
    )
    print(alone.address, flush=True)
    alone.serve_forever()
