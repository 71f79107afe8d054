"""Stand-ins from a small Debian archive that the tests make: signatures, indexes, packages, the base."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from standins_repository import Signer, package, publish

from kapelle.errors import ImageError
from kapelle.events import Event, Notice
from kapelle.images import platforms
from kapelle.images.standins import apt_settings, archive, fetch, openpgp, provide
from kapelle.images.store import Store

ARCHITECTURE = platforms.host().architecture


def stanza(name: str, version: str = "1.0", **more: str) -> str:
    rows = {"Package": name, "Version": version, "Architecture": ARCHITECTURE, **more, "Description": "a test"}
    return "\n".join(f"{k.replace('_', '-')}: {v}" for k, v in rows.items())


def packages() -> list[bytes]:
    passwd = "root:*:0:0:root:/root:/bin/bash\nnobody:*:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
    return [
        package(stanza("usr-is-merged"), {}),
        package(stanza("apt", Depends="libapt (>= 2~)", Multi_Arch="foreign"), {"usr/bin/apt-get": ("get", 0o755)}),
        package(
            stanza("libapt", "2.6", Multi_Arch="same"),
            {"lib/libapt.so.6": ("-> libapt.so.6.0", 0o777)},
            {"triggers": "interest-noawait /usr/lib/apt\n"},
        ),
        package(
            stanza("base-passwd", Essential="yes", Priority="required"),
            {
                "usr/share/base-passwd/passwd.master": (passwd, 0o644),
                "usr/share/base-passwd/group.master": ("root:*:0:\nshadow:*:42:\nnogroup:*:65534:\n", 0o644),
                "bin/sh": ("shell", 0o755),
                "var/run": ("/", 0o755),
                "etc/a.conf": ("setting", 0o644),
                "usr/share/doc/base-passwd/README": ("read me", 0o644),
                "usr/share/doc/base-passwd/copyright": ("free", 0o644),
            },
            {"conffiles": "/etc/a.conf\n", "postinst": "#!/bin/sh\nexit 7\n"},
        ),
    ]


@pytest.fixture
def signer() -> Signer:
    return Signer()


@pytest.fixture
def mirror(tmp_path: Path, signer: Signer) -> Path:
    publish(tmp_path / "debian", packages(), signer, architecture=ARCHITECTURE)
    return tmp_path / "debian"


@pytest.fixture
def environ(tmp_path: Path, mirror: Path, signer: Signer) -> Mapping[str, str]:
    (tmp_path / "keys.gpg").write_bytes(signer.ring)
    return {
        "KAP_DEBIAN_MIRROR": f"file://{mirror}",
        "KAP_DEBIAN_KEYRING": f"{tmp_path}/keys.gpg",
        "HOME": str(tmp_path),
    }


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(f"{tmp_path}/images")


def make(store: Store, environ: Mapping[str, str], name: str = "debian:bookworm-slim") -> tuple[str, list[Event]]:
    seen: list[Event] = []
    image = provide.provide(name, store, None, seen.append, environ=environ)
    return store.layer_dir(image.layers[0]), seen


def text(root: str, path: str) -> str:
    return Path(root, path).read_text()


def test_a_base_has_the_essential_packages_and_apt_with_what_they_need(
    store: Store, environ: Mapping[str, str]
) -> None:
    root, _ = make(store, environ)
    assert text(root, "usr/bin/apt-get") == "get"
    assert os.readlink(f"{root}/usr/lib/libapt.so.6") == "libapt.so.6.0"
    assert text(root, "usr/bin/sh") == "shell"
    assert os.readlink(f"{root}/bin") == "usr/bin"
    assert os.readlink(f"{root}/var/run") == "/run"


def test_dpkg_finds_every_package_installed_and_configured(store: Store, environ: Mapping[str, str]) -> None:
    root, _ = make(store, environ)
    status = text(root, "var/lib/dpkg/status")
    assert status.count("Status: install ok installed") == 4
    assert "Conffiles:\n /etc/a.conf 7dc22b2c6a992f0232345df41303f5ea\n" in status
    assert "/usr/bin/apt-get\n" in text(root, "var/lib/dpkg/info/apt.list")
    assert os.path.exists(f"{root}/var/lib/dpkg/info/libapt:{ARCHITECTURE}.list")
    assert text(root, "var/lib/dpkg/triggers/File") == f"/usr/lib/apt libapt:{ARCHITECTURE}/noawait\n"


def test_manuals_are_left_out_and_licences_stay(store: Store, environ: Mapping[str, str]) -> None:
    root, _ = make(store, environ)
    assert os.listdir(f"{root}/usr/share/doc/base-passwd") == ["copyright"]


def test_users_are_written_without_running_a_package_s_script(store: Store, environ: Mapping[str, str]) -> None:
    root, _ = make(store, environ)
    assert "root:x:0:0:root:/root:/bin/bash\n" in text(root, "etc/passwd")
    assert "_apt:x:" in text(root, "etc/passwd")
    assert text(root, "etc/shadow").startswith("root:*:")


def test_a_stand_in_says_loudly_what_it_is(store: Store, environ: Mapping[str, str]) -> None:
    _, seen = make(store, environ, "debian:bookworm")
    notices = [e.text for e in seen if isinstance(e, Notice) and "registry" in e.text]
    assert notices == ["debian:bookworm: registry not reachable; using a stand-in (Debian 12.99)"]
    image = store.find("debian:bookworm")
    assert image is not None
    assert image.standin == "Debian 12.99"
    assert image.config["config"]["Labels"]["org.kapelle.standin.sources"].startswith("file://")


def test_the_second_use_needs_no_mirror(store: Store, environ: Mapping[str, str], mirror: Path) -> None:
    first, _ = make(store, environ)
    mirror.rename(mirror.with_name("gone"))
    again, seen = make(store, environ, "debian:12")
    assert again == first
    assert any(isinstance(e, Notice) for e in seen)


def test_the_same_packages_give_the_same_layer(store: Store, environ: Mapping[str, str], tmp_path: Path) -> None:
    other = Store(f"{tmp_path}/other")
    make(store, environ)
    make(other, environ)
    one, two = store.find("debian:bookworm-slim"), other.find("debian:bookworm-slim")
    assert one is not None
    assert two is not None
    assert one.id == two.id


def test_a_changed_index_is_refused(store: Store, environ: Mapping[str, str], mirror: Path) -> None:
    path = mirror / "dists/bookworm/InRelease"
    path.write_bytes(path.read_bytes().replace(b"Version: 12.99", b"Version: 12.98"))
    with pytest.raises(ImageError, match="can't be trusted: the signature by A Test Key"):
        make(store, environ)


def test_an_index_of_an_unknown_key_is_refused(store: Store, environ: Mapping[str, str], mirror: Path) -> None:
    publish(mirror, packages(), Signer(b"x" * 32), architecture=ARCHITECTURE)
    with pytest.raises(ImageError, match="can't be trusted: it is signed by an unknown key"):
        make(store, environ)


def test_an_unsigned_index_is_refused(store: Store, environ: Mapping[str, str], mirror: Path) -> None:
    (mirror / "dists/bookworm/InRelease").write_text("Origin: Test\n")
    with pytest.raises(ImageError, match="can't be trusted: it is not signed"):
        make(store, environ)


def test_an_index_of_another_suite_is_refused(
    store: Store, environ: Mapping[str, str], mirror: Path, signer: Signer
) -> None:
    publish(mirror, packages(), signer, architecture=ARCHITECTURE, suite="trixie")
    (mirror / "dists/trixie/InRelease").replace(mirror / "dists/bookworm/InRelease")
    with pytest.raises(ImageError, match="is the index of trixie, not of bookworm"):
        make(store, environ)


def test_an_index_out_of_date_is_not_used(
    store: Store, environ: Mapping[str, str], mirror: Path, signer: Signer
) -> None:
    publish(mirror, packages(), signer, architecture=ARCHITECTURE, more="Valid-Until: Sat, 18 Jul 2020 10:16:37 UTC\n")
    apt = apt_settings.AptSettings((f"file://{mirror}",), (), {})
    fetcher = fetch.Fetcher(f"{store.root}/blobs", environ, print, "debian")
    with pytest.raises(ImageError, match="no Debian mirror answers") as caught:
        archive.open_archive("bookworm", ARCHITECTURE, fetcher, apt=apt, emit=print, environ=environ)
    assert "out of date (valid until Sat, 18 Jul 2020 10:16:37 UTC)" in caught.value.details[0][1]
    apt = apt._replace(check_valid_until=False)  # apt's Acquire::Check-Valid-Until
    assert (
        archive.open_archive("bookworm", ARCHITECTURE, fetcher, apt=apt, emit=print, environ=environ).point == "12.99"
    )


def test_a_package_list_that_is_not_the_signed_one_is_refused(
    store: Store, environ: Mapping[str, str], mirror: Path
) -> None:
    (mirror / f"dists/bookworm/main/binary-{ARCHITECTURE}/Packages.xz").write_bytes(b"something else")
    with pytest.raises(ImageError, match="the package list of bookworm can't be downloaded: its content is not"):
        make(store, environ)


def test_a_package_that_is_not_the_listed_one_is_refused_and_leaves_nothing(
    store: Store, environ: Mapping[str, str], mirror: Path
) -> None:
    for path in (mirror / "pool").iterdir():
        path.write_bytes(b"!<arch>\nbad")
    with pytest.raises(ImageError, match="its content is not what the index says"):
        make(store, environ)
    assert store.find("debian:bookworm-slim") is None
    assert os.listdir(f"{store.root}/tmp") == []


def test_a_missing_package_is_named_with_who_needs_it(
    store: Store, environ: Mapping[str, str], mirror: Path, signer: Signer
) -> None:
    publish(
        mirror,
        [package(stanza("usr-is-merged"), {}), package(stanza("apt", Depends="libapt (>= 9)"), {})],
        signer,
        architecture=ARCHITECTURE,
    )
    with pytest.raises(ImageError, match=r"Debian 12 has no package libapt \(>= 9\), which apt needs"):
        make(store, environ)


def test_no_mirror_says_what_was_tried_and_what_to_do(store: Store, environ: Mapping[str, str]) -> None:
    with pytest.raises(ImageError, match="no Debian mirror answers for bookworm") as caught:
        make(store, {**environ, "KAP_DEBIAN_MIRROR": "http://127.0.0.1:9/debian"})
    assert caught.value.details[0] == ("tried", "http://127.0.0.1:9/debian: Connection refused")
    assert "KAP_DEBIAN_MIRROR=" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("debian", True),
        ("redis:7-alpine", True),
        ("docker.io/library/nginx", True),
        ("alpine", False),
        ("somebody/redis", False),
        ("ghcr.io/library/redis", False),
        (f"redis@sha256:{'0' * 64}", False),
        ("not//a name", False),
    ],
)
def test_recipes_are_for_official_images_of_the_default_registry(name: str, answer: bool) -> None:
    assert provide.available(name) is answer


def test_a_signature_is_right_for_its_text_only() -> None:
    signer = Signer()
    keys = openpgp.read_keys(signer.ring)
    document = signer.clear("Codename: x\n- dashes\n-----and more\n")
    assert openpgp.signed_text(document, keys)[0] == b"Codename: x\n- dashes\n-----and more\n"
    for changed in (document.replace(b"x", b"y", 1), document.replace(b"- - dashes", b"- dashes\n- dashes")):
        with pytest.raises(openpgp.SignatureError):
            openpgp.signed_text(changed, keys)
