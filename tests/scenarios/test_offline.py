"""--offline: nothing asks the network, what is here will do, what is not is named."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from tests.scenarios.conftest import Kap


class Watcher:
    """A proxy that all traffic would go through, and that only counts."""

    def __init__(self) -> None:
        self.seen = 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.environment = {
            name: f"http://127.0.0.1:{self._socket.getsockname()[1]}"
            for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")
        } | {"no_proxy": "", "NO_PROXY": ""}
        threading.Thread(target=self._count, daemon=True).start()

    def _count(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.seen += 1
            connection.close()

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


@pytest.fixture
def watcher() -> Iterator[Watcher]:
    made = Watcher()
    yield made
    made.close()


def test_what_is_here_runs_without_a_word_to_the_network(kap: Kap, watcher: Watcher) -> None:
    kap.file("services:\n  a: {image: busybox, init: true, command: [sleep, '1000'], pull_policy: always}\n")
    kap.ok("pull")
    said = kap.ok("up", "-d", "--offline", **watcher.environment)
    assert kap.state(f"{kap.folder.name.lower()}-a-1") == "running"
    assert "its pull policy is always; the image that is here is used" in said.err
    kap.ok("run", "--rm", "--offline", "a", "true", **watcher.environment)
    kap.ok("up", "-d", "--force-recreate", KAP_OFFLINE="1", **watcher.environment)
    assert watcher.seen == 0
    kap("pull", **watcher.environment)
    assert watcher.seen > 0, "the watcher sees nothing: this test shows nothing"


def test_images_that_are_not_here_are_named_together_before_anything_is_made(kap: Kap, watcher: Watcher) -> None:
    kap.file("services:\n  a: {image: busybox}\n  b:\n    image: example/none:1\n  c: {image: 'example/none:2'}\n")
    done = kap("up", "-d", "--offline", **watcher.environment)
    assert done.code == 1
    assert "2 images are not here, and --offline forbids to get them" in done.err
    assert "example/none:1" in done.err
    assert "example/none:2" in done.err
    assert "kap bundle save" in done.err
    assert not kap.ps()
    kap.file("services:\n  b:\n    image: example/none:1\n")
    done = kap("create", KAP_OFFLINE="1", **watcher.environment)
    assert "compose.yaml:3:5: image example/none:1 is not here, and --offline forbids to get it" in done.err
    assert watcher.seen == 0


def test_builds_use_what_is_in_the_store_and_their_steps_have_no_network(kap: Kap, watcher: Watcher) -> None:
    kap.file("services:\n  a: {build: .}\n")
    (kap.folder / "Dockerfile").write_text(
        'FROM busybox\nRUN cut -d: -f1 -s /proc/net/dev | tr -d \' \' >/links\nCMD ["cat", "/links"]\n'
    )
    kap.ok("standins", "build", "busybox")
    kap.ok("build", "--offline", "--no-cache", **watcher.environment)
    assert kap.ok("run", "--rm", "--offline", "-T", "a", **watcher.environment).out.split() == ["lo"]
    (kap.folder / "Dockerfile").write_text("FROM example/none:3\n")
    done = kap("build", "--offline", **watcher.environment)
    assert "image example/none:3 is not here, and --offline forbids to get it" in done.err
    (kap.folder / "Dockerfile").write_text("FROM busybox\nADD http://example.com/x /x\n")
    done = kap("build", "--offline", **watcher.environment)
    assert "ADD http://example.com/x needs the network, and --offline forbids to use it" in done.err
    (kap.folder / "Dockerfile").write_text("FROM busybox\nADD https://example.com/x.git /x\n")
    done = kap("build", "--offline", "-t", "x", ".", **watcher.environment)
    assert "the repository https://example.com/x.git needs the network" in done.err
    assert watcher.seen == 0


@pytest.mark.parametrize(
    "words",
    [
        ("pull", "--offline"),
        ("--offline", "pull"),
        ("up", "--offline", "--pull", "always"),
        ("build", "--offline", "--pull"),
    ],
    ids=" ".join,
)
def test_what_can_only_be_done_with_a_network_is_told_as_a_contradiction(kap: Kap, words: tuple[str, ...]) -> None:
    kap.file("services:\n  a: {image: busybox}\n")
    done = kap(*words)
    assert done.code != 0
    assert "--offline" in done.err
    assert "[KAP010]" in done.err or "leave out" in done.err


@pytest.mark.network
def test_a_stand_in_that_was_made_serves_other_names_of_the_same_version_offline(kap: Kap, watcher: Watcher) -> None:
    kap.ok("standins", "build", "busybox:1.35")
    kap.ok("standins", "build", "--offline", "busybox:1.35.0-musl", **watcher.environment)
    done = kap(
        "standins",
        "build",
        "--offline",
        "nginx:1.26-perl",
        **{**watcher.environment, "KAP_HOME": str(kap.folder / "h")},
    )
    assert "which was never made here, needs the network, and --offline forbids" in done.err
    assert watcher.seen == 0
