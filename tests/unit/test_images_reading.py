"""What is read about images without asking anybody: references, challenges, proxies, mirrors, the host's settings."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from kapelle.cli.commands.history import steps
from kapelle.errors import ImageError
from kapelle.images import auth, hostregistries, mirrors, platforms, proxies, reference, wire
from kapelle.images.identity import _scopes
from kapelle.images.platforms import Platform
from kapelle.state.paths import find


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("redis", "docker.io/library/redis:latest"),
        ("redis:7", "docker.io/library/redis:7"),
        ("team/app", "docker.io/team/app:latest"),
        ("index.docker.io/library/redis:7", "docker.io/library/redis:7"),
        ("localhost/app", "localhost/app:latest"),
        ("localhost:5000/app:1", "localhost:5000/app:1"),
        ("[::1]:5000/app", "[::1]:5000/app:latest"),
        ("quay.example/a/b/c", "quay.example/a/b/c:latest"),
        (f"redis@sha256:{'a' * 64}", f"docker.io/library/redis@sha256:{'a' * 64}"),
        (f"redis:7@sha256:{'a' * 64}", f"docker.io/library/redis:7@sha256:{'a' * 64}"),
    ],
)
def test_references_are_read_as_docker_does(text: str, full: str) -> None:
    ref = reference.parse(text)
    assert str(ref) == full
    assert reference.parse(reference.familiar(ref)) == ref


@pytest.mark.parametrize(
    "text",
    [
        "", ":1", "Redis", "a b", "redis:", "redis:a:b/", "-a", "a//b", "a/../b", "redis@sha256:12", f"{'f' * 64}",
        "a:" + "t" * 129, "x" * 300,
    ],
)  # fmt: skip
def test_what_is_no_reference_is_refused_with_a_reason(text: str) -> None:
    with pytest.raises(ImageError, match="is not an image reference"):
        reference.parse(text)


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        ('Bearer realm="https://a/t",service="s",scope="r:x:pull"', ("bearer", "https://a/t", "s", "r:x:pull")),
        ("bearer realm=https://a/t", ("bearer", "https://a/t", "", "")),
        ('Basic realm="a, b"', ("basic", "a, b", "", "")),
        ('Basic realm="x", Bearer realm="https://a/t"', ("bearer", "https://a/t", "", "")),
        ('Bearer realm="a\\"b"', ("bearer", 'a"b', "", "")),
        ("Negotiate", None),
        ("", None),
    ],
)  # fmt: skip
def test_challenges(header: str, wanted: tuple[str, ...] | None) -> None:
    found = auth.challenge(header)
    assert (tuple(found) if found else None) == wanted


@pytest.mark.parametrize(
    ("offered", "wanted", "asked"),
    [
        ("", "repository:a:pull", ["repository:a:pull"]),
        ("repository:b:pull", "repository:a:pull", ["repository:b:pull"]),
        ("repository:a:pull", "repository:a:pull,push", ["repository:a:pull", "repository:a:pull,push"]),
        ("repository:a:pull,push", "repository:a:pull,push repository:b:pull",
         ["repository:a:pull,push", "repository:b:pull"]),
        ("", "registry:catalog:*", []),
    ],
)  # fmt: skip
def test_what_a_token_is_asked_for(offered: str, wanted: str, asked: list[str]) -> None:
    assert _scopes(offered, wanted) == asked


@pytest.mark.parametrize(
    ("url", "proxy"),
    [
        ("https://a.example/", "http://p:1"),
        ("http://a.example/", "http://q:2"),
        ("https://127.0.0.1:5000/", None),
        ("https://localhost/", None),
        ("https://in.house/", None),
        ("https://deep.in.house/", None),
        ("https://within.house/", "http://p:1"),
        ("https://10.1.2.3/", None),
        ("https://b.example:8443/", None),
        ("https://b.example/", "http://p:1"),
    ],
)
def test_proxies_and_their_exceptions(url: str, proxy: str | None) -> None:
    environ = {
        "HTTPS_PROXY": "http://p:1",
        "http_proxy": "q:2",
        "NO_PROXY": "in.house, 10.0.0.0/8,b.example:8443",
    }
    assert proxies.for_url(url, environ) == proxy


def settings(folder: Path, **environ: str) -> mirrors.Settings:
    return mirrors.settings({"HOME": str(folder), **environ}, find({"KAP_HOME": str(folder)}))


def hosts(name: str, known: mirrors.Settings) -> list[tuple[str, str, tuple[str, ...]]]:
    ref = reference.parse(name)
    return [(e.host, e.prefix + (e.asked or ref.repository), e.schemes) for e in mirrors.endpoints(ref, known)]


def test_mirrors_come_in_their_order_then_the_registry(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config/config.toml").write_text(
        '[mirrors]\n"docker.io" = ["https://third.example/path"]\n[registries."plain.example"]\nplain-http = true\n'
    )
    known = settings(
        tmp_path, KAP_MIRRORS="http://first.example,docker.io=second.example", CONTAINERS_REGISTRIES_CONF="/dev/null"
    )
    assert hosts("redis", known) == [
        ("first.example", "library/redis", ("http",)),
        ("second.example", "library/redis", ("https",)),
        ("third.example", "path/library/redis", ("https",)),
        ("registry-1.docker.io", "library/redis", ("https",)),
    ]
    assert hosts("plain.example/a", known) == [("plain.example", "a", ("https", "http"))]


def test_registries_conf_has_rules_by_the_longest_prefix(tmp_path: Path) -> None:
    path = tmp_path / "registries.conf"
    path.write_text(
        "unqualified-search-registries = ['x']\n"
        "[[registry]]\nlocation = 'a.example'\n[[registry.mirror]]\nlocation = 'm.example/a'\ninsecure = true\n"
        "[[registry.mirror]]\nlocation = 'd.example'\npull-from-mirror = 'digest-only'\n"
        "[[registry]]\nprefix = 'a.example/team'\nlocation = 'b.example/x/y'\n"
        "[[registry]]\nprefix = '*.wild.example'\nlocation = 'w.example'\ninsecure = true\n"
        "[[registry]]\nlocation = 'no.example'\nblocked = true\n"
    )
    known = settings(tmp_path, CONTAINERS_REGISTRIES_CONF=str(path))
    assert hosts("a.example/app:1", known) == [
        ("m.example", "a/app", ("https", "http")),
        ("a.example", "app", ("https",)),
    ]
    assert hosts(f"a.example/app@sha256:{'a' * 64}", known)[1] == ("d.example", "app", ("https",))
    assert hosts("a.example/team/app", known) == [("b.example", "x/y/app", ("https",))]
    assert hosts("a.example/teammate/app", known)[-1] == ("a.example", "teammate/app", ("https",))
    assert hosts("r.wild.example/app", known) == [("w.example", "app", ("https", "http"))]
    with pytest.raises(ImageError, match="blocked"):
        hosts("no.example/app", known)
    path.write_text("[[registry]\n")
    with pytest.raises(ImageError, match=r"registries\.conf can't be read"):
        settings(tmp_path, CONTAINERS_REGISTRIES_CONF=str(path))


def test_dockers_daemon_json_has_mirrors_for_the_default_registry_and_insecure_hosts(tmp_path: Path) -> None:
    folder = tmp_path / ".config/docker"
    folder.mkdir(parents=True)
    (folder / "daemon.json").write_text(
        json.dumps({"registry-mirrors": ["https://m.example"], "insecure-registries": ["10.0.0.0/8", "i.example:5000"]})
    )
    known = settings(tmp_path, CONTAINERS_REGISTRIES_CONF="/dev/null")
    assert [h[0] for h in hosts("redis", known)] == ["m.example", "registry-1.docker.io"]
    assert [h[0] for h in hosts("other.example/redis", known)] == ["other.example"]
    for name, schemes in (("10.9.8.7:5000/a", 2), ("i.example:5000/a", 2), ("i.example/a", 1), ("11.0.0.1/a", 1)):
        assert len(hosts(name, known)[0][2]) == schemes, name
    (folder / "daemon.json").write_text("{")
    with pytest.raises(ImageError, match=r"daemon\.json can't be read"):
        hostregistries.read({"HOME": str(tmp_path), "CONTAINERS_REGISTRIES_CONF": "/dev/null"})


@pytest.mark.parametrize(
    ("row", "wanted"),
    [
        ({"auth": base64.b64encode(b"me:pass:word").decode()}, auth.Credentials("me", "pass:word")),
        ({"username": "me", "password": "it"}, auth.Credentials("me", "it")),
        ({"auth": base64.b64encode(b"me:").decode(), "identitytoken": "T"}, auth.Credentials("me", "", "T")),
        ({"auth": "not base64!"}, None),
        ({}, None),
    ],
)
def test_logins_of_config_json(tmp_path: Path, row: dict[str, str], wanted: auth.Credentials | None) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"auths": {"https://r.example/v2/": row}}))
    environ = {"DOCKER_CONFIG": str(tmp_path)}
    assert auth.credentials("r.example", environ) == wanted
    assert auth.credentials("other.example", environ) is None


def test_a_damaged_config_json_is_told(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ImageError, match=r"config\.json can't be read"):
        auth.credentials("r.example", {"DOCKER_CONFIG": str(tmp_path)})


@pytest.mark.parametrize(
    ("offers", "wanted", "best"),
    [
        (["linux/amd64", "linux/arm64"], "linux/arm64/v8", 1),
        (["linux/arm/v6", "linux/arm/v7"], "linux/arm/v7", 1),
        (["linux/arm/v5", "linux/arm/v6"], "linux/arm/v7", 1),
        (["linux/arm/v7"], "linux/arm/v6", None),
        (["windows/amd64", "linux/amd64"], "linux/amd64", 1),
        (["unknown/unknown"], "linux/amd64", None),
        ([], "linux/amd64", None),
    ],
)
def test_the_best_platform_of_an_index(offers: list[str], wanted: str, best: int | None) -> None:
    rows = [Platform(*o.split("/")) for o in offers]
    assert platforms.best(rows, platforms.parse(wanted)) == best


@pytest.mark.parametrize(
    ("text", "seconds"), [("30", 30.0), ("", None), ("soon", None), ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0)]
)
def test_retry_after(text: str, seconds: float | None) -> None:
    assert wire.retry_after(text) == seconds


def test_a_registrys_words_can_not_move_the_terminals_cursor() -> None:
    body = json.dumps({"errors": [{"message": "no\x1b[2Jthing\n here"}, {"code": "DENIED"}]}).encode()
    assert wire.message(body) == "no [2Jthing here; DENIED"
    assert wire.message(b"<html>") is None
    assert wire.message(b'{"errors": [1]}') is None


def test_history_matches_layers_to_the_steps_that_made_some() -> None:
    rows = [{"created_by": "a"}, {"created_by": "b", "empty_layer": True}, {"created_by": "c"}]
    assert [(r.get("created_by"), n) for r, n in steps(rows, [10, 20, 30])] == [
        (None, 30), ("c", 20), ("b", 0), ("a", 10),
    ]  # fmt: skip
    assert steps(None, [5]) == [({}, 5)]
