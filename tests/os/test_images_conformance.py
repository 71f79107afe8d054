"""The rules that the OCI distribution-spec v1.1 has for clients, as a list: each row is a rule and what shows it.

`MUST`, `SHOULD` and `MAY` are the specification's; the rows follow its sections. Rules that concern errors of
transport and hostile answers are in test_images_misbehaving.py.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kapelle.errors import ImageError
from kapelle.images import mirrors, platforms, registry, upload
from kapelle.images.pull import pull
from kapelle.images.push import push
from kapelle.images.store import Store
from kapelle.images.types import Image
from kapelle.state.paths import find
from tests import badregistry
from tests.badregistry import ARCH, DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, BadRegistry, digest


class Client:
    """Our side, with its store, and the registry's with what it was asked."""

    def __init__(self, folder: Path, server: BadRegistry) -> None:
        self.server = server
        self.store = Store(str(folder / "images"))
        self.settings = mirrors.settings(
            {"HOME": str(folder), "PATH": "/usr/bin:/bin"}, find({"KAP_HOME": str(folder)})
        )

    def pull(self, name: str, platform: str = "") -> Image:
        return pull(f"{self.server.address}/{name}", self.store, self.settings, lambda _: None, policy="always",
                    platform=platform)  # fmt: skip

    def push(self, name: str) -> str:
        return push(f"{self.server.address}/{name}", self.store, self.settings, lambda _: None).digest

    def push_one(self) -> Any:
        """An image pulled from here goes to another repository that has none of it."""
        self.server.image("app", "1", {"hello": b"one"}, {"data": bytes(range(256)) * 400})
        image = self.pull("app:1")
        self.server.blobs.clear()
        self.server.asked.clear()
        self.store.tag(f"{self.server.address}/team/copy:v1", image.id)
        return self.push("team/copy:v1")

    def text(self, image: Image) -> str:
        return Path(self.store.layer_dirs(image)[0], "hello").read_text()


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    monkeypatch.setattr(registry, "_PAUSES", (0.01,))
    monkeypatch.setattr(upload, "_PAUSES", (0.01,))
    with badregistry.running() as server:
        yield Client(tmp_path, server)


def index(server: BadRegistry, name: str, kind: str, rows: list[tuple[str, dict[str, str]]]) -> None:
    found = []
    for tag, platform in rows:
        data, media_type = server.manifests[f"app/{tag}"]
        row: dict[str, Any] = {"mediaType": media_type, "digest": digest(data), "size": len(data)}
        found.append({**row, "platform": {"os": "linux", **platform}} if platform else row)
    server.manifest("app", name, {"schemaVersion": 2, "mediaType": kind, "manifests": found}, kind)


# -- pulling ------------------------------------------------------------------------------------------------------


def a_manifest_is_asked_for_with_all_types_that_are_understood(c: Client) -> None:
    c.server.image("app", "1", {"hello": b"x"})
    c.pull("app:1")
    asked = next(a for a in c.server.asked if "/manifests/" in a.path)
    for kind in (OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST):
        assert kind in asked.headers["accept"]


def a_manifest_by_digest_is_verified_against_it(c: Client) -> None:
    c.server.image("app", "1", {"hello": b"x"})
    pin = digest(c.server.manifests["app/1"][0])
    assert c.text(c.pull(f"app@{pin}")) == "x"
    c.server.image("app", "2", {"hello": b"y"})
    other = digest(c.server.manifests["app/2"][0])
    c.server.manifests[f"app/{other}"] = c.server.manifests[f"app/{pin}"]
    with pytest.raises(ImageError) as caught:
        c.pull(f"app@{other}")
    assert caught.value.code == "KAP504"


def a_reference_with_tag_and_digest_is_asked_for_by_digest(c: Client) -> None:
    c.server.image("app", "1", {"hello": b"x"})
    pin = digest(c.server.manifests["app/1"][0])
    c.server.image("app", "1", {"hello": b"moved"})
    assert c.text(c.pull(f"app:1@{pin}")) == "x"
    assert "/v2/app/manifests/1" not in c.server.paths()


def sha512_digests_are_understood(c: Client) -> None:
    tree = c.server.image("app", "1", {"hello": b"x"})
    row = tree["layers"][0]
    data = c.server.blobs.pop(row["digest"])
    row["digest"] = f"sha512:{hashlib.sha512(data).hexdigest()}"
    c.server.blobs[row["digest"]] = data
    c.server.manifest("app", "1", tree, OCI_MANIFEST)
    assert c.text(c.pull("app:1")) == "x"


def a_name_that_is_unknown_is_told_as_missing(c: Client) -> None:
    with pytest.raises(ImageError) as caught:
        c.pull("nothing:1")
    assert caught.value.code == "KAP502"


def blobs_are_fetched_once_though_an_image_has_them_twice(c: Client) -> None:
    tree = c.server.image("app", "1", {"hello": b"x"}, {"hello": b"x"})
    c.pull("app:1")
    assert c.server.paths().count(f"/v2/app/blobs/{tree['layers'][0]['digest']}") == 1


def what_is_here_is_not_fetched_again(c: Client) -> None:
    c.server.image("app", "1", {"hello": b"x"})
    c.pull("app:1")
    c.server.asked.clear()
    c.pull("app:1")
    assert not [p for p in c.server.paths() if "/blobs/" in p and len(c.server.blobs[p.rpartition("/")[2]]) > 1000]


def a_tag_that_has_not_moved_is_asked_for_by_head_alone(c: Client) -> None:
    c.server.image("app", "1", {"hello": b"x"})
    image = c.pull("app:1")
    c.server.asked.clear()
    assert c.pull("app:1") == image
    assert [a.method for a in c.server.asked if "/manifests/" in a.path] == ["HEAD"]
    c.server.image("app", "1", {"hello": b"moved"})
    assert c.text(c.pull("app:1")) == "moved"
    c.server.when("HEAD", "/manifests/", lambda r: r.answer(405))
    c.server.image("app", "1", {"hello": b"again"})
    assert c.text(c.pull("app:1")) == "again"


def a_docker_manifest_is_pulled(c: Client) -> None:
    c.server.image("app", "1", {"hello": b"docker"}, kind=DOCKER_MANIFEST)
    assert c.text(c.pull("app:1")) == "docker"


def a_docker_manifest_without_types_of_its_parts_is_pulled(c: Client) -> None:
    tree = c.server.image("app", "1", {"hello": b"typeless"}, kind=DOCKER_MANIFEST)
    for row in (tree["config"], *tree["layers"]):
        del row["mediaType"]
    c.server.manifest("app", "1", tree, DOCKER_MANIFEST)
    assert c.text(c.pull("app:1")) == "typeless"


def the_old_format_is_refused_with_its_name(c: Client) -> None:
    for kind in ("application/vnd.docker.distribution.manifest.v1+prettyjws", "application/json"):
        c.server.manifest("app", "1", {"schemaVersion": 1, "name": "app", "tag": "1", "fsLayers": []}, kind)
        with pytest.raises(ImageError, match="schema 1") as caught:
            c.pull("app:1")
        assert caught.value.code == "KAP504"


def a_plain_layer_is_pulled(c: Client) -> None:
    tree = c.server.image("app", "1", {"hello": b"plain"})
    data = gzip.decompress(c.server.blobs[tree["layers"][0]["digest"]])
    tree["layers"] = [
        {"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": c.server.blob(data), "size": len(data)}
    ]
    c.server.manifest("app", "1", tree, OCI_MANIFEST)
    assert c.text(c.pull("app:1")) == "plain"


def a_zstd_layer_is_pulled(c: Client) -> None:
    zstd = pytest.importorskip("backports.zstd")
    tree = c.server.image("app", "1", {"hello": b"zstd"})
    data = zstd.compress(gzip.decompress(c.server.blobs[tree["layers"][0]["digest"]]))
    tree["layers"] = [
        {"mediaType": "application/vnd.oci.image.layer.v1.tar+zstd", "digest": c.server.blob(data), "size": len(data)}
    ]
    c.server.manifest("app", "1", tree, OCI_MANIFEST)
    assert c.text(c.pull("app:1")) == "zstd"


def a_manifest_without_a_media_type_is_taken_by_its_header(c: Client) -> None:
    tree = c.server.image("app", "1", {"hello": b"x"})
    del tree["mediaType"]
    c.server.manifest("app", "1", tree, OCI_MANIFEST)
    assert c.text(c.pull("app:1")) == "x"


def unknown_fields_are_no_error(c: Client) -> None:
    tree = c.server.image("app", "1", {"hello": b"x"})
    tree.update(annotations={"a": "b"}, subject=None, artifactType="x/y", org_example_new={"a": [1]})
    c.server.manifest("app", "1", tree, OCI_MANIFEST)
    assert c.text(c.pull("app:1")) == "x"


def an_artifact_that_is_no_image_is_told(c: Client) -> None:
    tree = c.server.image("app", "1", {"hello": b"x"})
    data = b"{}"
    tree["config"] = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": c.server.blob(data), "size": 2}
    c.server.manifest("app", "1", tree, OCI_MANIFEST)
    with pytest.raises(ImageError, match="no container image"):
        c.pull("app:1")


def the_registry_chooses_https_or_http_on_loopback_alone(c: Client) -> None:
    assert [e.schemes for e in mirrors.endpoints(_ref("far.example/app"), c.settings)] == [("https",)]
    assert [e.schemes for e in mirrors.endpoints(_ref("localhost:5000/app"), c.settings)] == [("https", "http")]


def _ref(name: str) -> Any:
    from kapelle.images import reference

    return reference.parse(name)


# -- platforms ----------------------------------------------------------------------------------------------------


def an_index_gives_the_image_of_this_machine(c: Client) -> None:
    c.server.image("app", "a", {"hello": b"other"}, arch="s390x")
    c.server.image("app", "b", {"hello": b"mine"})
    for kind, tag in ((OCI_INDEX, "oci"), (DOCKER_LIST, "docker")):
        index(c.server, tag, kind, [("a", {"architecture": "s390x"}), ("b", {"architecture": ARCH})])
        assert c.text(c.pull(f"app:{tag}")) == "mine"


def an_asked_platform_is_given_by_its_variant(c: Client) -> None:
    for variant in ("v5", "v6", "v7"):
        c.server.image("app", variant, {"hello": variant.encode()}, arch="arm", variant=variant)
    rows = [(v, {"architecture": "arm", "variant": v}) for v in ("v5", "v6", "v7")]
    index(c.server, "all", OCI_INDEX, rows)
    for wanted, got in (("linux/arm/v7", "v7"), ("linux/arm/v6", "v6"), ("linux/arm", "v7"), ("linux/arm/v8", "v7")):
        assert c.text(c.pull("app:all", wanted)) == got
    assert platforms.parse("linux/arm") == platforms.Platform("linux", "arm", "v7")


def a_platform_that_is_not_offered_is_told_with_those_that_are(c: Client) -> None:
    c.server.image("app", "a", {"hello": b"other"}, arch="s390x")
    index(c.server, "all", OCI_INDEX, [("a", {"architecture": "s390x"})])
    with pytest.raises(ImageError) as caught:
        c.pull("app:all", "linux/riscv64")
    assert caught.value.code == "KAP503"


def attestations_in_an_index_are_no_images(c: Client) -> None:
    c.server.image("app", "b", {"hello": b"mine"})
    c.server.image("app", "sbom", {"hello": b"attestation"})
    rows = [("sbom", {"os": "unknown", "architecture": "unknown"}), ("b", {"architecture": ARCH})]
    index(c.server, "all", OCI_INDEX, rows)
    assert c.text(c.pull("app:all")) == "mine"


# -- pushing ------------------------------------------------------------------------------------------------------


def blobs_are_there_before_their_manifest(c: Client) -> None:
    c.push_one()
    puts = [a.path for a in c.server.asked if a.method == "PUT"]
    assert puts[-1] == "/v2/team/copy/manifests/v1"
    assert all("/blobs/uploads/" in p for p in puts[:-1])
    tree = json.loads(c.server.manifests["team/copy/v1"][0])
    assert all(row["digest"] in c.server.blobs for row in (*tree["layers"], tree["config"]))


def a_blob_is_looked_for_before_it_is_sent(c: Client) -> None:
    c.push_one()
    asked = [(a.method, a.path) for a in c.server.asked if "/blobs/" in a.path]
    assert asked[0][0] == "HEAD"
    first_post = next(i for i, (m, _) in enumerate(asked) if m == "POST")
    assert any(m == "HEAD" for m, _ in asked[:first_post])


def a_mount_names_the_blob_and_its_repository(c: Client) -> None:
    c.push_one()
    mounts = [a.path for a in c.server.asked if "mount=" in a.path]
    assert mounts
    assert all(re.fullmatch(r"/v2/team/copy/blobs/uploads/\?mount=sha256:[0-9a-f]{64}&from=app", p) for p in mounts)


def the_upload_place_is_used_as_it_was_given(c: Client) -> None:
    c.push_one()
    for asked in c.server.asked:
        if asked.method == "PUT" and "/uploads/" in asked.path:
            assert "?state=a%2Fb&digest=sha256:" in asked.path


def a_body_has_its_length_and_type(c: Client) -> None:
    c.push_one()
    for asked in c.server.asked:
        if asked.method == "PUT":
            assert int(asked.headers["content-length"]) == len(asked.body)
            kind = asked.headers["content-type"]
            assert kind == ("application/octet-stream" if "/uploads/" in asked.path else OCI_MANIFEST)
        if asked.method == "POST":
            assert asked.headers["content-length"] == "0"


def a_manifests_type_is_its_header(c: Client) -> None:
    c.push_one()
    data, kind = c.server.manifests["team/copy/v1"]
    assert json.loads(data)["mediaType"] == kind


def the_digest_that_is_told_is_that_of_the_manifest(c: Client) -> None:
    assert c.push_one() == digest(c.server.manifests["team/copy/v1"][0])


def chunks_follow_each_other_with_their_ranges(c: Client) -> None:
    c.server.when("PUT", "/uploads/", lambda r: r.answer(413) if len(r.body) > 300 else False)
    old, upload._CHUNK = upload._CHUNK, 500
    try:
        c.push_one()
    finally:
        upload._CHUNK = old
    last: dict[str, int] = {}
    patches = [a for a in c.server.asked if a.method == "PATCH"]
    assert patches
    for asked in patches:
        first, end = map(int, asked.headers["content-range"].split("-"))
        place = asked.path.partition("?")[0]
        assert first == last.get(place, -1) + 1
        assert end - first + 1 == len(asked.body)
        last[place] = end


RULES: tuple[Callable[[Client], None], ...] = (
    a_manifest_is_asked_for_with_all_types_that_are_understood,
    a_manifest_by_digest_is_verified_against_it,
    a_reference_with_tag_and_digest_is_asked_for_by_digest,
    sha512_digests_are_understood,
    a_name_that_is_unknown_is_told_as_missing,
    blobs_are_fetched_once_though_an_image_has_them_twice,
    what_is_here_is_not_fetched_again,
    a_tag_that_has_not_moved_is_asked_for_by_head_alone,
    a_docker_manifest_is_pulled,
    a_docker_manifest_without_types_of_its_parts_is_pulled,
    the_old_format_is_refused_with_its_name,
    a_plain_layer_is_pulled,
    a_zstd_layer_is_pulled,
    a_manifest_without_a_media_type_is_taken_by_its_header,
    unknown_fields_are_no_error,
    an_artifact_that_is_no_image_is_told,
    the_registry_chooses_https_or_http_on_loopback_alone,
    an_index_gives_the_image_of_this_machine,
    an_asked_platform_is_given_by_its_variant,
    a_platform_that_is_not_offered_is_told_with_those_that_are,
    attestations_in_an_index_are_no_images,
    blobs_are_there_before_their_manifest,
    a_blob_is_looked_for_before_it_is_sent,
    a_mount_names_the_blob_and_its_repository,
    the_upload_place_is_used_as_it_was_given,
    a_body_has_its_length_and_type,
    a_manifests_type_is_its_header,
    the_digest_that_is_told_is_that_of_the_manifest,
    chunks_follow_each_other_with_their_ranges,
)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_client_keeps_the_rule(client: Client, rule: Callable[[Client], None]) -> None:
    rule(client)
