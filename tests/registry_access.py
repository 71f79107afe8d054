"""What guards a test's registry: TLS made by openssl, a password file, a server that gives tokens."""

from __future__ import annotations

import base64
import ctypes
import json
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

USER, PASSWORD = "anna", "s3cret word"


class Tls:
    """A CA of the test's own, and certificates: a server's for 127.0.0.1, localhost, registry.test; a client's."""

    def __init__(self, folder: Path, *, ask_clients: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.ask_clients = ask_clients
        self.ca, self.key, self.cert = folder / "ca.crt", folder / "server.key", folder / "server.crt"
        ca_key = folder / "ca.key"
        openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", ca_key, "-out", self.ca, "-days", "2",
                "-subj", "/CN=test ca", "-addext", "basicConstraints=critical,CA:TRUE")  # fmt: skip
        self.client_key, self.client_cert = folder / "client.key", folder / "client.crt"
        request, names = folder / "request.csr", folder / "names"
        names.write_text("subjectAltName=IP:127.0.0.1,DNS:localhost,DNS:registry.test\n")
        for key, cert in ((self.key, self.cert), (self.client_key, self.client_cert)):
            openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", request, "-subj", "/CN=test")
            openssl("x509", "-req", "-in", request, "-CA", self.ca, "-CAkey", ca_key, "-CAcreateserial", "-out", cert,
                    "-days", "2", "-extfile", names)  # fmt: skip

    @property
    def config(self) -> str:
        ask = f", clientcas: ['{self.ca}']" if self.ask_clients else ""
        return f", tls: {{certificate: '{self.cert}', key: '{self.key}'{ask}}}"


def openssl(*words: object) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)


def password_file(path: Path) -> str:
    """A file of one user as docker-registry reads it (bcrypt), and the configuration that names it."""
    crypt = ctypes.CDLL("libcrypt.so.1").crypt
    crypt.restype = ctypes.c_char_p
    hashed: bytes = crypt(PASSWORD.encode(), b"$2b$05$abcdefghijklmnopqrstuu")
    path.write_text(f"{USER}:{hashed.decode()}\n")
    return f"auth: {{htpasswd: {{realm: test, path: '{path}'}}}}\n"


class Tokens(ThreadingHTTPServer):
    """Gives bearer tokens for the registry of a test; what it was asked is in `asked`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Giver)
        folder.mkdir(parents=True, exist_ok=True)
        self.key, self.cert = folder / "token.key", folder / "token.crt"
        openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", self.key, "-out", self.cert, "-days", "2",
                "-subj", "/CN=tokens")  # fmt: skip
        self.asked: list[dict[str, list[str]]] = []
        self.lifetime = 300
        self.anonymous_may = {"pull"}

    @property
    def config(self) -> str:
        realm = f"http://127.0.0.1:{self.server_port}/token"
        return f"auth: {{token: {{realm: '{realm}', service: test, issuer: test, rootcertbundle: '{self.cert}'}}}}\n"

    def sign(self, access: list[dict[str, object]], subject: str) -> str:
        text = "".join(self.cert.read_text().splitlines()[1:-1])
        now = int(time.time())
        claims = {
            "iss": "test", "sub": subject, "aud": "test", "exp": now + self.lifetime, "nbf": now - 10, "iat": now - 10,
            "jti": str(now), "access": access,
        }  # fmt: skip
        head = {"typ": "JWT", "alg": "RS256", "x5c": [text]}
        packed = ".".join(_base64(json.dumps(part).encode()) for part in (head, claims))
        done = subprocess.run(
            ["openssl", "dgst", "-sha256", "-sign", str(self.key)],
            input=packed.encode(), capture_output=True, check=True,
        )  # fmt: skip
        return f"{packed}.{_base64(done.stdout)}"


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class _Giver(BaseHTTPRequestHandler):
    server: Tokens

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        self.server.asked.append(query)
        given = self.headers.get("Authorization", "")
        known = given == "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if given and not known:
            self.send_response(401)
            self.end_headers()
            return
        access: list[dict[str, object]] = []
        for scope in query.get("scope", []):
            kind, name, actions = scope.split(":", 2)
            allowed = set(actions.split(",")) if known else set(actions.split(",")) & self.server.anonymous_may
            access.append({"type": kind, "name": name, "actions": sorted(allowed)})
        body = json.dumps({"token": self.server.sign(access, USER if known else "")}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def tokens(folder: Path) -> Iterator[Tokens]:
    server = Tokens(folder)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
