"""A registry that misbehaves (tests/badregistry.py): what a pull and a push make of it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kapelle.errors import ImageError
from kapelle.events import Event
from kapelle.images import auth, logins, mirrors, registry
from kapelle.images.pull import Unreachable, pull
from kapelle.images.push import push
from kapelle.images.store import Store
from kapelle.state.paths import find
from tests import badregistry
from tests.badregistry import BadRegistry, Request, digest
from tests.registry_access import Tls

RANDOM = bytes((i * i * 7 + i // 251) % 256 for i in range(400_000))


class Place:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = Store(str(folder / "images"))
        self.events: list[Event] = []
        self.environ = {"HOME": str(folder), "PATH": "/usr/bin:/bin"}

    @property
    def settings(self) -> mirrors.Settings:
        return mirrors.settings(self.environ, find({"KAP_HOME": str(self.folder)}))

    def pull(self, name: str, *, policy: str = "always", platform: str = "") -> Path:
        image = pull(name, self.store, self.settings, self.events.append, policy=policy, platform=platform)
        return Path(self.store.layer_dirs(image)[-1])

    def whole(self) -> bool:
        """Is nothing half-made in the store?"""
        return not list((self.folder / "images/tmp").glob("*")) and not self.store.all()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setattr(registry, "_PAUSES", (0.01,))
    return Place(tmp_path)


@pytest.fixture
def bad() -> Iterator[BadRegistry]:
    with badregistry.running() as server:
        yield server


@pytest.fixture
def other() -> Iterator[BadRegistry]:
    with badregistry.running() as server:
        yield server


def app(bad: BadRegistry) -> str:
    bad.image("app", "1", {"hello": b"one"}, {"data": RANDOM})
    return f"{bad.address}/app:1"


# -- broken connections, busy servers -----------------------------------------------------------------------------


def test_a_broken_layer_is_resumed_where_it_broke(place: Place, bad: BadRegistry) -> None:
    name = app(bad)
    blob = max(bad.blobs.values(), key=len)

    def half(r: Request) -> bool:
        asked = r.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-")
        first = int(asked)
        part = blob[first : first + len(blob) // 3]
        status = {"Content_Range": f"bytes {first}-{len(blob) - 1}/{len(blob)}"} if first else {}
        r.answer(206 if first else 200, part, Content_Length=str(len(blob) - first), **status)
        return r.cut()

    bad.when("GET", digest(blob), half, 2)
    assert (place.pull(name) / "data").read_bytes() == RANDOM
    ranges = [a.headers.get("range", "") for a in bad.asked if digest(blob) in a.path]
    assert ranges[0] == ""
    assert [int(r[6:-1]) > 0 for r in ranges[1:]] == [True, True]


def test_a_registry_that_can_not_resume_sends_all_again_and_nothing_is_doubled(place: Place, bad: BadRegistry) -> None:
    name = app(bad)
    blob = max(bad.blobs.values(), key=len)

    def half(r: Request) -> bool:
        r.answer(200, blob[: len(blob) // 2], Content_Length=str(len(blob)))
        return r.cut()

    def again(r: Request) -> bool:
        return r.answer(200, blob)

    bad.when("GET", digest(blob), half, 1)
    bad.when("GET", digest(blob), again)
    assert (place.pull(name) / "data").read_bytes() == RANDOM


def test_a_resumed_answer_that_begins_elsewhere_is_refused(place: Place, bad: BadRegistry) -> None:
    name = app(bad)
    blob = max(bad.blobs.values(), key=len)

    def half(r: Request) -> bool:
        r.answer(200, blob[: len(blob) // 2], Content_Length=str(len(blob)))
        return r.cut()

    def late(r: Request) -> bool:
        end = len(blob) - 1
        return r.answer(206, blob[-10:], Content_Range=f"bytes {len(blob) - 10}-{end}/{len(blob)}")

    bad.when("GET", digest(blob), half, 1)
    bad.when("GET", digest(blob), late)
    with pytest.raises(ImageError):
        place.pull(name)
    assert place.whole()


def test_a_connection_that_always_breaks_is_given_up_and_nothing_is_kept(place: Place, bad: BadRegistry) -> None:
    name = app(bad)
    blob = max(bad.blobs.values(), key=len)
    bad.when("GET", digest(blob), lambda r: r.cut())
    with pytest.raises(ImageError):
        place.pull(name)
    assert place.whole()


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_server_that_is_down_for_a_moment_is_asked_again(place: Place, bad: BadRegistry, status: int) -> None:
    name = app(bad)
    bad.when("GET", "/manifests/", lambda r: r.answer(status), 2)
    bad.when("GET", "/blobs/", lambda r: r.answer(status), 1)
    assert (place.pull(name) / "data").exists()


def test_a_server_that_stays_down_is_out_of_reach(place: Place, bad: BadRegistry) -> None:
    name = app(bad)
    bad.when("GET", "/manifests/", lambda r: r.answer(503))
    with pytest.raises(Unreachable) as caught:
        place.pull(name)
    assert "503" in caught.value.details[0][1]


def test_a_short_retry_after_is_waited_for(place: Place, bad: BadRegistry) -> None:
    name = app(bad)
    bad.when("GET", "/manifests/", lambda r: r.answer(429, Retry_After="1"), 1)
    began = time.monotonic()
    place.pull(name)
    assert time.monotonic() - began >= 1


def test_a_long_limit_is_told_with_its_time_and_the_way_out(place: Place, bad: BadRegistry) -> None:
    name = app(bad)
    bad.when("GET", "/manifests/", lambda r: r.error(429, "TOOMANYREQUESTS", Retry_After="2460"))
    began = time.monotonic()
    with pytest.raises(ImageError) as caught:
        place.pull(name)
    assert time.monotonic() - began < 2
    assert caught.value.code == "KAP501"
    assert caught.value.details == (
        (bad.address, "429 too many requests, free again in 41 min (anonymous, per address)"),
    )
    assert f"kap login {bad.address}" in caught.value.hint


# -- redirects and credentials ------------------------------------------------------------------------------------


def test_a_redirect_to_another_host_is_followed_without_credentials(
    place: Place, bad: BadRegistry, other: BadRegistry
) -> None:
    name = app(bad)
    other.blobs = dict(bad.blobs)
    bad.tokens = {auth.Credentials("me", "it").basic}
    bad.when("GET", "/blobs/", lambda r: r.answer(307, Location=f"http://{other.address}{r.path}"))
    logins.keep(bad.address, auth.Credentials("me", "it"), place.environ)
    assert (place.pull(name) / "data").exists()
    assert any(a.authorization for a in bad.asked)
    assert other.asked
    assert not any(a.authorization for a in other.asked)


def test_credentials_do_not_come_back_after_a_foreign_hop(place: Place, bad: BadRegistry, other: BadRegistry) -> None:
    name = app(bad)
    bad.tokens = {auth.Credentials("me", "it").basic}

    def away(r: Request) -> bool:
        return "Authorization" in r.headers and r.answer(307, Location=f"http://{other.address}/hop")

    bad.when("GET", "/manifests/", away)
    other.when("GET", "/hop", lambda r: r.answer(307, Location=f"http://{bad.address}/v2/app/manifests/1"))
    logins.keep(bad.address, auth.Credentials("me", "it"), place.environ)
    with pytest.raises(ImageError):
        place.pull(name)
    assert [bool(a.authorization) for a in bad.asked if "/manifests/" in a.path] == [False, True, False]


def test_a_redirect_from_https_to_http_is_not_followed(place: Place, other: BadRegistry, tmp_path: Path) -> None:
    tls = Tls(tmp_path / "tls")
    with badregistry.running(tls) as server:
        name = app(server)
        other.blobs = dict(server.blobs)
        place.environ["SSL_CERT_FILE"] = str(tls.ca)
        assert (place.pull(name) / "data").exists()
        server.image("app", "2", {"new": RANDOM[:-1]})
        other.blobs = dict(server.blobs)
        server.when("GET", "/blobs/", lambda r: r.answer(307, Location=f"http://{other.address}{r.path}"))
        with pytest.raises(ImageError) as caught:
            place.pull(f"{server.address}/app:2")
        assert "https to http" in caught.value.details[0][1]
        assert other.asked == []


def test_an_upload_place_that_leaves_https_is_refused(
    place: Place, other: BadRegistry, bad: BadRegistry, tmp_path: Path
) -> None:
    tls = Tls(tmp_path / "tls")
    with badregistry.running(tls) as server:
        place.environ["SSL_CERT_FILE"] = str(tls.ca)
        place.pull(app(other))
        place.store.tag(f"{server.address}/app:1", place.store.all()[0].id)
        server.when("POST", "/uploads/", lambda r: r.answer(202, Location=f"http://{bad.address}/v2/x/blobs/uploads/1"))
        with pytest.raises(ImageError) as caught:
            push(f"{server.address}/app:1", place.store, place.settings, place.events.append)
        assert caught.value.code == "KAP508"
        assert bad.asked == []


def test_endless_redirects_end(place: Place, bad: BadRegistry) -> None:
    name = app(bad)
    bad.when("GET", "/manifests/", lambda r: r.answer(302, Location=r.path))
    with pytest.raises(ImageError) as caught:
        place.pull(name)
    assert "redirects more than" in caught.value.details[0][1]


@pytest.mark.parametrize("target", ["ftp://a.example/x", "file:///etc/passwd"])
def test_a_redirect_out_of_http_is_not_followed(place: Place, bad: BadRegistry, target: str) -> None:
    name = app(bad)
    bad.when("GET", "/blobs/", lambda r: r.answer(302, Location=target))
    with pytest.raises(ImageError):
        place.pull(name)
    assert place.whole()


def test_a_token_server_elsewhere_gets_no_password_in_the_clear(place: Place, bad: BadRegistry) -> None:
    name = app(bad)
    realm = "http://tokens.example:1/token"
    bad.when("GET", "/manifests/", lambda r: r.answer(401, WWW_Authenticate=f'Bearer realm="{realm}"'))
    logins.keep(bad.address, auth.Credentials("me", "it"), place.environ)
    sent: list[dict[str, str]] = []
    from kapelle.images.registry import Registry

    def request(self: Registry, url: str, headers: dict[str, str], *_: object, **__: object) -> object:
        if "tokens.example" in url:
            sent.append(headers)
            raise OSError("not asked in this test")
        return original(self, url, headers, *_, **__)

    original = Registry._request
    try:
        Registry._request = request  # type: ignore[method-assign,assignment]
        with pytest.raises(ImageError):
            place.pull(name)
    finally:
        Registry._request = original  # type: ignore[method-assign]
    assert sent == [{}]


# -- proxies ------------------------------------------------------------------------------------------------------


def test_a_proxy_is_asked_for_what_is_not_this_machine(place: Place, bad: BadRegistry) -> None:
    app(bad)
    place.environ["http_proxy"] = f"http://me:s%20ecret@{bad.address}"
    place.environ["KAP_MIRRORS"] = "far.example=http://registry.test"
    assert (place.pull("far.example/app:1") / "data").exists()
    wanted = auth.Credentials("me", "s ecret").basic
    assert {a.headers.get("proxy-authorization") for a in bad.asked if "/v2/" in a.path} == {wanted}
    assert not any(a.authorization for a in bad.asked)


def test_tls_goes_through_a_proxy_in_a_tunnel_that_sees_no_credentials(
    place: Place, bad: BadRegistry, tmp_path: Path
) -> None:
    tls = Tls(tmp_path / "tls")
    with badregistry.running(tls) as server:
        app(server)
        bad.beyond = server.server_port
        server.tokens = {auth.Credentials("me", "it").basic}
        logins.keep("registry.test", auth.Credentials("me", "it"), place.environ)
        place.environ |= {"SSL_CERT_FILE": str(tls.ca), "HTTPS_PROXY": f"http://{bad.address}"}
        assert (place.pull("registry.test/app:1") / "data").exists()
        assert {a.method for a in bad.asked} == {"CONNECT"}
        assert not any(a.authorization for a in bad.asked)
        bad.beyond = None
        with pytest.raises(Unreachable) as caught:
            place.pull("registry.test/app:1")
        assert "proxy" in caught.value.details[0][1]


# -- lies ---------------------------------------------------------------------------------------------------------


def test_a_layer_of_other_bytes_is_refused(place: Place, bad: BadRegistry) -> None:
    name = app(bad)
    blob = max(bad.blobs.values(), key=len)
    bad.when("GET", digest(blob), lambda r: r.answer(200, blob[:-1] + b"x"))
    with pytest.raises(ImageError) as caught:
        place.pull(name)
    assert caught.value.code == "KAP504"
    assert place.whole()


def test_more_bytes_than_the_manifest_says_are_refused(place: Place, bad: BadRegistry) -> None:
    name = app(bad)
    blob = max(bad.blobs.values(), key=len)
    bad.when("GET", digest(blob), lambda r: r.answer(200, blob + b"more"))
    with pytest.raises(ImageError) as caught:
        place.pull(name)
    assert caught.value.code == "KAP504"
    assert place.whole()


def test_a_manifest_of_another_digest_is_refused(place: Place, bad: BadRegistry) -> None:
    app(bad)
    pinned = digest(bad.manifests["app/1"][0])
    bad.image("app", "2", {"evil": b"x"})
    bad.when("GET", "/manifests/", lambda r: r.answer(200, bad.manifests["app/2"][0], Content_Type="x/y"))
    with pytest.raises(ImageError) as caught:
        place.pull(f"{bad.address}/app@{pinned}")
    assert caught.value.code == "KAP504"


def test_a_digest_header_that_is_not_the_bodys_is_refused(place: Place, bad: BadRegistry) -> None:
    name = app(bad)
    data, kind = bad.manifests["app/1"]
    bad.when(
        "GET", "/manifests/", lambda r: r.answer(200, data, Content_Type=kind, Docker_Content_Digest=digest(b"other"))
    )
    with pytest.raises(ImageError) as caught:
        place.pull(name)
    assert caught.value.code == "KAP504"


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t["layers"][0].update(size=-1),
        lambda t: t["layers"][0].update(size="12"),
        lambda t: t["layers"][0].update(size=1 << 60),
        lambda t: t["layers"][0].update(digest="sha256:../../etc/passwd"),
        lambda t: t["layers"][0].update(digest="md5:" + "0" * 32),
        lambda t: t["layers"][0].update(urls=["http://a/"] * 1000),
        lambda t: t.update(layers=[t["layers"][0]] * 5000),
        lambda t: t.update(layers=t["layers"][:1]),
        lambda t: t.update(layers="none"),
        lambda t: t.update(config=None),
        lambda t: t.update(manifests=[]),
        lambda t: t["config"].update(size=1 << 30),
        lambda t: t.update(schemaVersion=1),
    ],
)
def test_hostile_manifests_are_refused_and_nothing_is_kept(place: Place, bad: BadRegistry, change: object) -> None:
    tree = bad.image("app", "1", {"hello": b"one"}, {"data": RANDOM})
    change(tree)  # type: ignore[operator]
    bad.manifest("app", "1", tree, badregistry.OCI_MANIFEST)
    with pytest.raises(ImageError) as caught:
        place.pull(f"{bad.address}/app:1")
    assert caught.value.code in ("KAP504", "KAP501")
    assert place.whole()


@pytest.mark.parametrize("data", [b"", b"[]", b"null", b"{", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 100_000])
def test_what_is_no_manifest_is_refused(place: Place, bad: BadRegistry, data: bytes) -> None:
    bad.manifest("app", "1", data, badregistry.OCI_MANIFEST)
    with pytest.raises(ImageError):
        place.pull(f"{bad.address}/app:1")


def test_an_endless_manifest_is_cut_off(place: Place, bad: BadRegistry) -> None:
    name = app(bad)

    def endless(r: Request) -> bool:
        r.send_response(200)
        r.send_header("Content-Type", badregistry.OCI_MANIFEST)
        r.end_headers()
        try:
            for _ in range(4096):
                r.wfile.write(b" " * (1 << 16))
        except OSError:
            pass
        r.close_connection = True
        return True

    bad.when("GET", "/manifests/", endless)
    with pytest.raises(ImageError, match="MiB"):
        place.pull(name)


def test_indexes_in_indexes_end(place: Place, bad: BadRegistry) -> None:
    app(bad)
    inner = bad.manifests["app/1"]
    kind = badregistry.OCI_MANIFEST
    for _ in range(8):
        row = {"mediaType": kind, "digest": digest(inner[0]), "size": len(inner[0])}
        row_platform = {**row, "platform": {"os": "linux", "architecture": badregistry.ARCH}}
        kind = badregistry.OCI_INDEX
        bad.manifest("app", "deep", {"schemaVersion": 2, "mediaType": kind, "manifests": [row_platform]}, kind)
        inner = bad.manifests["app/deep"]
    with pytest.raises(ImageError):
        place.pull(f"{bad.address}/app:deep")


def test_a_web_page_in_place_of_a_registry_is_no_registry(place: Place, bad: BadRegistry) -> None:
    name = app(bad)
    bad.when("GET", "/manifests/", lambda r: r.answer(200, b"<html>Sign in</html>", Content_Type="text/html"))
    with pytest.raises(Unreachable):
        place.pull(name)


# -- foreign layers -----------------------------------------------------------------------------------------------


def test_a_foreign_layer_comes_from_where_its_manifest_says_without_credentials(
    place: Place, bad: BadRegistry, other: BadRegistry
) -> None:
    tree = bad.image("app", "1", {"hello": b"one"}, {"data": RANDOM})
    row = tree["layers"][1]
    row["mediaType"] = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
    row["urls"] = [f"http://{other.address}/gone", f"http://{other.address}/v2/x/blobs/{row['digest']}"]
    bad.manifest("app", "1", tree, badregistry.OCI_MANIFEST)
    other.blobs[row["digest"]] = bad.blobs.pop(row["digest"])
    assert (place.pull(f"{bad.address}/app:1") / "data").read_bytes() == RANDOM
    assert not any(a.authorization for a in other.asked)
    place.store.tag(f"{bad.address}/copy:1", place.store.all()[0].id)
    push(f"{bad.address}/copy:1", place.store, place.settings, place.events.append)
    assert row["digest"] not in bad.blobs  # not handed on
    assert json.loads(bad.manifests["copy/1"][0])["layers"][1]["urls"] == row["urls"]


# -- pushes -------------------------------------------------------------------------------------------------------


@pytest.fixture
def pushed(place: Place, bad: BadRegistry, other: BadRegistry, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of an image of 400 kB here, for a push to `bad`. Chunks are small."""
    from kapelle.images import upload

    monkeypatch.setattr(upload, "_PAUSES", (0.01,))
    monkeypatch.setattr(upload, "_CHUNK", 40_000)
    other.image("app", "1", {"hello": b"one"}, {"data": RANDOM})
    place.pull(f"{other.address}/app:1")
    name = f"{bad.address}/app:1"
    place.store.tag(name, place.store.all()[0].id)
    return name


def put(place: Place, name: str) -> None:
    push(name, place.store, place.settings, place.events.append)


def is_there(bad: BadRegistry) -> bool:
    tree = json.loads(bad.manifests["app/1"][0])
    return all(row["digest"] in bad.blobs for row in (*tree["layers"], tree["config"]))


def test_a_blob_goes_in_one_piece(place: Place, bad: BadRegistry, pushed: str) -> None:
    put(place, pushed)
    assert is_there(bad)
    assert bad.paths("PATCH") == []
    assert all("state=a%2Fb&digest=sha256:" in p or "/manifests/" in p for p in bad.paths("PUT"))


def test_a_broken_push_goes_on_in_chunks_from_where_it_got_to(place: Place, bad: BadRegistry, pushed: str) -> None:
    def early(r: Request) -> bool:
        size = int(r.headers["Content-Length"])
        part = r.rfile.read(size // 2)
        key = r.path.split("/uploads/")[1].partition("?")[0]
        r.server.uploads[key] += part
        return r.cut()

    bad.when("PUT", "/uploads/", early, 1)
    put(place, pushed)
    assert is_there(bad)


def test_a_body_that_is_too_large_for_a_proxy_goes_in_chunks(place: Place, bad: BadRegistry, pushed: str) -> None:
    def full(r: Request) -> bool:
        return r.answer(413) if len(r.body) > 50_000 else False

    for method in ("PUT", "PATCH"):
        bad.when(method, "/uploads/", full)
    put(place, pushed)
    assert is_there(bad)
    ranges = [a.headers["content-range"] for a in bad.asked if a.method == "PATCH"]
    assert ranges[0] == "0-39999"


def test_chunks_are_as_large_as_the_registry_wants_them(place: Place, bad: BadRegistry, pushed: str) -> None:
    bad.when("PUT", "/uploads/", lambda r: r.answer(413) if len(r.body) > 150_000 else False)

    def begin(r: Request) -> bool:
        key = os.urandom(4).hex()
        r.server.uploads[key] = bytearray()
        place = f"/v2/app/blobs/uploads/{key}"
        return r.answer(202, Location=place, OCI_Chunk_Min_Length="100000")

    bad.when("POST", "/uploads/", begin)
    put(place, pushed)
    assert is_there(bad)
    sizes = [len(a.body) for a in bad.asked if a.method == "PATCH"]
    assert sizes
    assert all(size == 100_000 for size in sizes[:-1])


def test_chunks_that_break_are_sent_again_from_the_range_the_registry_tells(
    place: Place, bad: BadRegistry, pushed: str
) -> None:
    bad.when("PUT", "/uploads/", lambda r: r.answer(413) if len(r.body) > 50_000 else False)
    bad.when("PATCH", "/uploads/", lambda r: r.cut(), 2)
    bad.when("PATCH", "/uploads/", lambda r: r.answer(503), 1)
    put(place, pushed)
    assert is_there(bad)


def test_an_upload_that_the_registry_forgot_begins_anew(place: Place, bad: BadRegistry, pushed: str) -> None:
    def forget(r: Request) -> bool:
        r.server.uploads.clear()
        return r.cut()

    bad.when("PUT", "/uploads/", forget, 1)
    put(place, pushed)
    assert is_there(bad)


def test_a_lost_answer_to_a_whole_blob_sends_nothing_again(place: Place, bad: BadRegistry, pushed: str) -> None:
    def lost(r: Request) -> bool:
        r.server.blob(r.body)
        return r.cut()

    bad.when("PUT", "/uploads/", lost)
    put(place, pushed)
    assert is_there(bad)
    assert len([p for p in bad.paths("PUT") if "/uploads/" in p]) == 3


def test_a_push_waits_for_a_short_retry_after(place: Place, bad: BadRegistry, pushed: str) -> None:
    bad.when("PUT", "/uploads/", lambda r: r.answer(429, Retry_After="0"), 2)
    put(place, pushed)
    assert is_there(bad)


def test_a_registry_that_mounts_nothing_gets_the_bytes(place: Place, bad: BadRegistry, pushed: str) -> None:
    put(place, pushed)
    place.store.tag(f"{bad.address}/second:1", place.store.all()[0].id)
    bad.when("HEAD", "/v2/second/blobs/", lambda r: r.answer(404))

    def unmounted(r: Request) -> bool:
        key = os.urandom(4).hex()
        r.server.uploads[key] = bytearray()
        return r.answer(202, Location=f"/v2/second/blobs/uploads/{key}") if "mount=" in r.path else False

    bad.when("POST", "/v2/second/", unmounted)
    put(place, f"{bad.address}/second:1")
    assert "second/1" in bad.manifests


def test_a_push_that_stays_refused_is_told_with_the_registrys_words(
    place: Place, bad: BadRegistry, pushed: str
) -> None:
    bad.when("PUT", "/manifests/", lambda r: r.error(400, "MANIFEST_INVALID", "no such thing here"))
    with pytest.raises(ImageError) as caught:
        put(place, pushed)
    assert caught.value.code == "KAP508"
    assert "no such thing here" in caught.value.details[0][1]


def test_an_upload_place_on_another_host_gets_no_credentials(
    place: Place, bad: BadRegistry, other: BadRegistry, pushed: str
) -> None:
    bad.tokens = {auth.Credentials("me", "it").basic}
    logins.keep(bad.address, auth.Credentials("me", "it"), place.environ)
    other.asked.clear()

    def elsewhere(r: Request) -> bool:
        key = os.urandom(4).hex()
        other.uploads[key] = bytearray()
        return r.answer(202, Location=f"http://{other.address}/v2/app/blobs/uploads/{key}")

    bad.when("POST", "/uploads/", elsewhere)
    put(place, pushed)
    assert any(a.method == "PUT" for a in other.asked)
    assert not any(a.authorization for a in other.asked)


@pytest.mark.parametrize("location", ["ftp://a.example/x", ""])
def test_an_upload_place_that_is_none_is_refused(place: Place, bad: BadRegistry, pushed: str, location: str) -> None:
    bad.when("POST", "/uploads/", lambda r: r.answer(202, **({"Location": location} if location else {})))
    with pytest.raises(ImageError) as caught:
        put(place, pushed)
    assert caught.value.code == "KAP508"


# -- pull policies ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "asks_at_once", "asks_later"),
    [
        ("always", True, True), ("missing", False, False), ("if_not_present", False, False),
        ("never", False, False), ("build", False, False), ("daily", False, True), ("weekly", False, True),
        ("every_2h", False, True), ("every_1w2d", False, False), ("every_30m", False, True),
    ],
)  # fmt: skip
def test_a_pull_policy_says_when_a_tag_is_asked_for_again(
    place: Place, bad: BadRegistry, policy: str, asks_at_once: bool, asks_later: bool
) -> None:
    name = app(bad)
    place.pull(name)

    def asked() -> bool:
        bad.asked.clear()
        place.pull(name, policy=policy)
        return bool(bad.asked)

    assert asked() == asks_at_once
    week = time.time() - 8 * 86400
    for entry in (place.folder / "images/names").iterdir():
        os.utime(entry, (week, week))
    assert asked() == asks_later
    if asks_later and policy != "always":
        assert not asked()  # what was just confirmed is fresh


def test_a_policy_that_is_none_is_told(place: Place, bad: BadRegistry) -> None:
    name = app(bad)
    place.pull(name)
    with pytest.raises(ImageError, match="every_"):
        place.pull(name, policy="every_now_and_then")
