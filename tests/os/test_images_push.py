"""Pushes, logins and TLS against a real registry on loopback (Debian's docker-registry), and one that misbehaves."""

from __future__ import annotations

import base64
import json
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kapelle.errors import ImageError
from kapelle.events import Event, Progress
from kapelle.images import auth, logins, mirrors, reference
from kapelle.images.archive import load
from kapelle.images.pull import pull
from kapelle.images.push import Pushed, push
from kapelle.images.registry import Registry
from kapelle.images.store import Store
from kapelle.state.paths import find
from tests import registry, registry_access
from tests.os.test_images_registry import archive
from tests.registry_access import PASSWORD, USER, Tls

pytestmark = pytest.mark.skipif(not shutil.which("skopeo"), reason="needs skopeo (Debian) to read the registry")


class Place:
    """A home with a store that has an image, and what was told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = Store(str(folder / "images"))
        self.events: list[Event] = []
        self.paths = find({"KAP_HOME": str(folder)})
        self.environ: dict[str, str] = {"HOME": str(folder), "PATH": os.environ["PATH"]}

    @property
    def settings(self) -> mirrors.Settings:
        return mirrors.settings(self.environ, self.paths)

    def image(self, name: str, text: str = "pushed " * 4000) -> str:
        work = self.folder / "work"
        work.mkdir()
        found = load(str(archive(work, {"hello": text}, name)), self.store, self.events.append)
        shutil.rmtree(work)
        return found[0].id

    def push(self, name: str) -> Pushed:
        return push(name, self.store, self.settings, self.events.append)

    def pull(self, name: str, store: Store | None = None) -> str:
        store = store or Store(str(self.folder / "other"))
        return pull(name, store, self.settings, self.events.append, policy="always").id

    def log_in(self, address: str, password: str = PASSWORD) -> None:
        Registry(mirrors.own(address, self.settings), address, self.settings).log_in(auth.Credentials(USER, password))

    def layers(self) -> list[str]:
        return [e.text for e in self.events if isinstance(e, Progress) and e.resource == "layer"]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def open_registry(tmp_path: Path) -> Iterator[str]:
    with registry.running(tmp_path / "registry") as address:
        yield address


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    return Tls(tmp_path_factory.mktemp("tls"))


def inspect(address: str, *words: str) -> dict[str, Any]:
    command = ["skopeo", "inspect", "--tls-verify=false", *words, f"docker://{address}"]
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return found


# -- push ---------------------------------------------------------------------------------------------------------


def test_a_pushed_image_comes_back_the_same_and_skopeo_reads_it(place: Place, open_registry: str) -> None:
    name = f"{open_registry}/team/app:1"
    image_id = place.image(name)
    done = place.push(name)
    assert inspect(name)["Digest"] == done.digest
    assert place.pull(name) == image_id
    other = Store(str(place.folder / "other"))
    found = other.find(name)
    assert found is not None
    assert Path(other.layer_dirs(found)[0], "hello").read_text() == "pushed " * 4000


def test_a_second_push_sends_nothing_and_has_the_same_digest(place: Place, open_registry: str) -> None:
    name = f"{open_registry}/app:1"
    place.image(name)
    first = place.push(name)
    place.events.clear()
    assert place.push(name).digest == first.digest
    assert "Layer already exists" in place.layers()
    assert "Pushing" not in place.layers()


def test_a_layer_of_a_neighbouring_repository_is_mounted(place: Place, open_registry: str) -> None:
    image_id = place.image(f"{open_registry}/first:1")
    place.push(f"{open_registry}/first:1")
    place.store.tag(f"{open_registry}/second:1", image_id)
    place.events.clear()
    place.push(f"{open_registry}/second:1")
    assert "Mounted from first" in place.layers()
    assert "Pushing" not in place.layers()
    assert place.pull(f"{open_registry}/second:1") == image_id


def test_what_was_pulled_goes_out_with_the_digest_it_came_with(place: Place, open_registry: str) -> None:
    work = place.folder / "in"
    work.mkdir()
    source = f"docker-archive:{archive(work, {'hello': 'x' * 5000})}"
    command = ["skopeo", "copy", "--dest-tls-verify=false", "--insecure-policy", source]
    subprocess.run([*command, f"docker://{open_registry}/theirs:1"], check=True, capture_output=True)
    image_id = place.pull(f"{open_registry}/theirs:1", place.store)
    place.store.tag(f"{open_registry}/ours:1", image_id)
    assert place.push(f"{open_registry}/ours:1").digest == inspect(f"{open_registry}/theirs:1")["Digest"]


def test_the_pushed_digest_becomes_a_name_of_the_image(place: Place, open_registry: str) -> None:
    name = f"{open_registry}/app:1"
    image_id = place.image(name)
    done = place.push(name)
    found = place.store.find(f"{open_registry}/app@{done.digest}")
    assert found is not None
    assert found.id == image_id


def test_an_image_that_is_not_here_can_not_be_pushed(place: Place, open_registry: str) -> None:
    with pytest.raises(ImageError, match="does not exist locally") as caught:
        place.push(f"{open_registry}/nothing:1")
    assert caught.value.code == "KAP502"


def test_a_digest_can_not_be_pushed(place: Place) -> None:
    with pytest.raises(ImageError, match="digest reference"):
        place.push(f"a.example/app@sha256:{'1' * 64}")


# -- logins -------------------------------------------------------------------------------------------------------


@pytest.fixture
def guarded(tmp_path: Path, tls: Tls) -> Iterator[str]:
    """A registry with TLS of an unknown CA and a password."""
    with registry.running(
        tmp_path / "registry", registry_access.password_file(tmp_path / "passwords"), tls=tls
    ) as address:
        yield address


def trust(place: Place, address: str, tls: Tls, tool: str = "containers") -> None:
    folder = place.folder / ".config" / tool / "certs.d" / address
    folder.mkdir(parents=True)
    shutil.copy(tls.ca, folder / "ca.crt")


def test_a_registry_of_an_unknown_ca_is_refused_and_told(place: Place, guarded: str) -> None:
    name = guarded.replace("127.0.0.1", "localhost") + "/app:1"
    with pytest.raises(ImageError) as caught:
        place.pull(name)
    assert "can't be reached" in caught.value.what


@pytest.mark.parametrize("tool", ["containers", "docker"])
def test_a_registrys_own_ca_is_found_in_certs_d(place: Place, guarded: str, tls: Tls, tool: str) -> None:
    trust(place, guarded, tls, tool)
    place.log_in(guarded)
    with pytest.raises(ImageError, match="401"):
        place.log_in(guarded, "wrong")


def test_our_own_certificate_is_shown_to_a_registry_that_wants_one(place: Place, tmp_path: Path) -> None:
    tls = Tls(tmp_path / "tls", ask_clients=True)
    with registry.running(tmp_path / "registry", tls=tls) as address:
        trust(place, address, tls)
        name = f"{address}/app:1"
        image_id = place.image(name)
        with pytest.raises(ImageError):
            place.push(name)
        folder = place.folder / ".config/containers/certs.d" / address
        shutil.copy(tls.client_cert, folder / "me.cert")
        with pytest.raises(ImageError, match="missing key"):
            place.push(name)
        shutil.copy(tls.client_key, folder / "me.key")
        place.push(name)
        assert place.pull(name) == image_id


def test_push_and_pull_with_a_password_over_tls(place: Place, guarded: str, tls: Tls) -> None:
    trust(place, guarded, tls)
    name = f"{guarded}/app:1"
    image_id = place.image(name)
    with pytest.raises(ImageError, match="denied") as caught:
        place.push(name)
    assert caught.value.hint == f"kap login {guarded}"
    logins.keep(guarded, auth.Credentials(USER, PASSWORD), place.environ)
    place.push(name)
    assert place.pull(name) == image_id


def test_an_insecure_registry_of_dockers_daemon_json_needs_no_known_ca(place: Place, guarded: str) -> None:
    name = f"{guarded}/app:1"
    folder = place.folder / ".config/docker"
    folder.mkdir(parents=True)
    (folder / "daemon.json").write_text(json.dumps({"insecure-registries": ["127.0.0.0/8"]}))
    logins.keep(guarded, auth.Credentials(USER, PASSWORD), place.environ)
    place.image(name)
    place.push(name)


def test_registries_conf_moves_a_repository_and_names_mirrors(place: Place, open_registry: str) -> None:
    image_id = place.image(f"{open_registry}/moved/app:1")
    place.push(f"{open_registry}/moved/app:1")
    (place.folder / "registries.conf").write_text(
        f"[[registry]]\nprefix = 'quay.example/team'\nlocation = '{open_registry}/moved'\n"
        "[[registry]]\nlocation = 'far.example'\n[[registry.mirror]]\n"
        f"location = '{open_registry}/moved'\n"
        "[[registry]]\nprefix = 'bad.example'\nblocked = true\n"
    )
    place.environ["CONTAINERS_REGISTRIES_CONF"] = str(place.folder / "registries.conf")
    assert place.pull("quay.example/team/app:1") == image_id
    assert place.pull("far.example/app:1") == image_id
    with pytest.raises(ImageError, match="blocked"):
        place.pull("bad.example/app:1")


@pytest.fixture
def with_tokens(tmp_path: Path) -> Iterator[tuple[str, registry_access.Tokens]]:
    with (
        registry_access.tokens(tmp_path / "tokens") as server,
        registry.running(tmp_path / "registry", server.config) as address,
    ):
        yield address, server


def test_tokens_are_asked_for_with_the_scope_of_the_act(
    place: Place, with_tokens: tuple[str, registry_access.Tokens]
) -> None:
    address, server = with_tokens
    name = f"{address}/team/app:1"
    image_id = place.image(name)
    with pytest.raises(ImageError, match="denied"):
        place.push(name)
    logins.keep(address, auth.Credentials(USER, PASSWORD), place.environ)
    place.push(name)
    assert any("repository:team/app:pull,push" in query["scope"] for query in server.asked)
    server.asked.clear()
    (place.folder / ".docker/config.json").unlink()
    assert place.pull(name) == image_id  # anonymously
    assert {s for query in server.asked for s in query["scope"]} == {"repository:team/app:pull"}


def test_a_token_that_ends_is_asked_for_anew(place: Place, with_tokens: tuple[str, registry_access.Tokens]) -> None:
    address, server = with_tokens
    name = f"{address}/app:1"
    place.image(name)
    logins.keep(address, auth.Credentials(USER, PASSWORD), place.environ)
    server.lifetime = -600  # over before it is used: as the registry says at the second request
    with pytest.raises(ImageError, match="denied"):
        place.push(name)
    server.lifetime = 300
    place.push(name)
    assert len(server.asked) > 1


def test_a_login_is_tried_before_it_is_kept(place: Place, with_tokens: tuple[str, registry_access.Tokens]) -> None:
    address, _ = with_tokens
    place.log_in(address)
    with pytest.raises(ImageError, match="not accepted"):
        place.log_in(address, "wrong")


# -- config.json --------------------------------------------------------------------------------------------------


def test_a_login_is_kept_beside_what_else_is_in_config_json_for_the_user_alone(place: Place) -> None:
    folder = place.folder / ".docker"
    folder.mkdir()
    (folder / "config.json").write_text('{"psFormat": "x", "auths": {"a.example": {"auth": "YTpi"}}}')
    logins.keep("b.example:5000", auth.Credentials("me", "pass:word"), place.environ)
    tree = json.loads((folder / "config.json").read_text())
    assert tree["psFormat"] == "x"
    assert tree["auths"]["a.example"] == {"auth": "YTpi"}
    assert base64.b64decode(tree["auths"]["b.example:5000"]["auth"]) == b"me:pass:word"
    assert stat.S_IMODE((folder / "config.json").stat().st_mode) == 0o600
    assert auth.credentials("b.example:5000", place.environ) == auth.Credentials("me", "pass:word")
    assert logins.forget("b.example:5000", place.environ)
    assert not logins.forget("b.example:5000", place.environ)
    assert auth.credentials("b.example:5000", place.environ) is None


HELPER = """#!/bin/sh
here="$(dirname "$0")"
echo "$1 $#" >> "$here/calls"
case "$1" in
  store) cat > "$here/kept" ;;
  get) read -r server; if [ -f "$here/kept" ]; then cat "$here/kept"; else echo "credentials not found"; exit 1; fi ;;
  erase) rm -f "$here/kept" ;;
esac
"""


@pytest.mark.parametrize("config", ['{"credsStore": "test"}', '{"credHelpers": {"b.example": "test"}}'])
def test_a_credential_helper_keeps_the_login_and_no_file_or_argument_has_it(place: Place, config: str) -> None:
    folder = place.folder / ".docker"
    folder.mkdir()
    (folder / "config.json").write_text(config)
    helper = place.folder / "docker-credential-test"
    helper.write_text(HELPER)
    helper.chmod(0o755)
    place.environ["PATH"] = f"{place.folder}:{place.environ['PATH']}"
    assert auth.credentials("b.example", place.environ) is None
    assert logins.keep("b.example", auth.Credentials("me", "secret!"), place.environ) == ""
    assert auth.credentials("b.example", place.environ) == auth.Credentials("me", "secret!")
    assert "secret!" not in (folder / "config.json").read_text()
    assert all(line.endswith(" 1") for line in (place.folder / "calls").read_text().splitlines())
    assert logins.forget("b.example", place.environ)
    assert auth.credentials("b.example", place.environ) is None


def test_a_helper_that_is_not_installed_has_nothing_and_is_told_at_a_denial(place: Place, guarded: str) -> None:
    folder = place.folder / ".docker"
    folder.mkdir()
    (folder / "config.json").write_text('{"credsStore": "missing-one"}')
    place.environ["SSL_CERT_FILE"] = ""
    daemon = place.folder / ".config/docker"
    daemon.mkdir(parents=True)
    (daemon / "daemon.json").write_text(json.dumps({"insecure-registries": [guarded]}))
    with pytest.raises(ImageError) as caught:
        place.pull(f"{guarded}/app:1")
    assert "docker-credential-missing-one" in caught.value.hint


def test_the_default_registrys_login_is_filed_as_docker_files_it(place: Place) -> None:
    logins.keep("docker.io", auth.Credentials("me", "it"), place.environ)
    tree = json.loads((place.folder / ".docker/config.json").read_text())
    assert list(tree["auths"]) == ["https://index.docker.io/v1/"]
    assert reference.parse("redis").registry == "docker.io"
    assert auth.credentials("docker.io", place.environ) == auth.Credentials("me", "it")
