"""Which version, package, mirror and wheel a stand-in takes: values in, values out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from kapelle.images.standins import apt_settings, control, debian_version, fetch, pypi, resolve, versions
from kapelle.images.standins.recipes import RECIPES, busybox, mariadb, node, postgres, python, rabbitmq, redis


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("1.0", "1.1"), ("1.9", "1.10"), ("1.0~rc1", "1.0"), ("1.0", "1.0+b1"), ("1.0-1", "1.0-2"), ("9", "1:1"),
        ("1.0a", "1.0+"), ("1.0~~", "1.0~"), ("2.36-9+deb12u4", "2.36-9+deb12u10"), ("1.0-1~bpo1", "1.0-1"),
    ],
)  # fmt: skip
def test_debian_versions_are_ordered_as_dpkg_orders_them(older: str, newer: str) -> None:
    assert debian_version.compare(older, newer) < 0 < debian_version.compare(newer, older)
    assert debian_version.satisfies(newer, ">>", older)
    assert not debian_version.satisfies(older, ">=", newer)


def test_equal_debian_versions_may_be_written_differently() -> None:
    assert debian_version.compare("0:1.0-0", "1.0") == 0
    assert debian_version.compare("1.01", "1.1") == 0


@pytest.mark.parametrize(
    ("version", "upstream"), [("5:7.0.15-1~deb12u6", "7.0.15"), ("1.22.1-9+deb12u2", "1.22.1"), ("15.20+ds-1", "15.20")]
)
def test_the_upstream_version_has_no_debian_in_it(version: str, upstream: str) -> None:
    assert debian_version.upstream(version) == upstream


@pytest.mark.parametrize(
    ("tag", "given"),
    [("latest", "3.11"), ("3.11-slim", "3.11"), ("3.12-slim", "3.11"), ("3.13", "3.13"), ("3.14.1", "3.13"),
     ("3", "3.13"), ("3.9", "3.11"), ("alpine", "3.11"), ("3.11.2", "3.11")],
)  # fmt: skip
def test_the_nearest_version_that_is_not_newer_is_given(tag: str, given: str) -> None:
    assert versions.nearest(tag, ("3.11", "3.13")) == given


@pytest.mark.parametrize(
    ("tag", "given", "unmet"),
    [("3.12-slim", "3.11.2", "3.12"), ("3.11", "3.11.2", ""), ("latest", "3.11.2", ""),
     ("16.3-alpine", "16.15", "16.3"), ("7", "7.0.15", ""), ("16", "15.20", "16")],
)  # fmt: skip
def test_what_a_tag_asks_for_and_does_not_get_is_told(tag: str, given: str, unmet: str) -> None:
    assert versions.unmet(tag, given) == unmet


@pytest.mark.parametrize(
    ("tag", "variants"),
    [
        ("16-alpine", ("16.wheel.70", "16.pgserver.70", "15.debian.70")),
        ("17", ("17.wheel.999", "17.debian.999")),
        ("15-bookworm", ("15.wheel.999", "15.debian.999")),
        ("latest", ("18.wheel.999", "17.debian.999")),
        ("12", ("14.wheel.999", "15.debian.999")),
    ],
)
def test_postgres_prefers_the_exact_major_and_keeps_the_image_s_user(tag: str, variants: tuple[str, ...]) -> None:
    assert postgres.variants(tag) == variants


def test_every_recipe_has_what_a_recipe_needs() -> None:
    from importlib import import_module

    for name, module in RECIPES.items():
        recipe = import_module(f"kapelle.images.standins.recipes.{module}")
        assert name in recipe.NAMES
        for tag in ("latest", "alpine", "1", "99.9-slim", "bookworm-slim"):
            for variant in recipe.variants(tag):
                assert recipe.release(variant) in ("bookworm", "trixie")


def test_python_falls_back_to_debian_s_pip() -> None:
    assert python.variants("3.12-slim") == ("3.11-pip", "3.11")
    assert redis.variants("8-alpine") == ("8.0",)


@pytest.mark.parametrize(
    ("tag", "variants"),
    [
        ("20-alpine", ("20.wheel", "20.debian")),
        ("22.11.0-slim", ("22.11.0.wheel", "22.wheel", "20.debian")),
        ("lts", ("24.wheel", "20.debian")),
        ("jod-alpine", ("22.wheel", "20.debian")),
        ("18", ("18.debian",)),
        ("latest", ("24.wheel", "20.debian")),
        ("16-slim", ("18.debian",)),
    ],
)
def test_node_is_the_exact_version_where_a_wheel_has_it(tag: str, variants: tuple[str, ...]) -> None:
    assert node.variants(tag) == variants


def test_node_s_named_lines_are_met_by_their_number() -> None:
    assert node.unmet("lts-alpine", "24.1.0") == ""
    assert node.unmet("iron", "24.1.0") == "20"
    assert node.unmet("22.11.0", "22.20.0") == "22.11.0"


def test_mariadb_and_rabbitmq_are_the_nearest_of_debian_s() -> None:
    assert [mariadb.variants(t)[0] for t in ("10.6", "11", "lts", "10-jammy")] == ["10.11", "11.8", "11.8", "10.11"]
    assert rabbitmq.variants("3.13-management-alpine") == ("3.10_management",)
    assert rabbitmq.variants("4") == ("4.0",)


def test_busybox_s_commands_are_read_from_its_binary() -> None:
    program = b"\x7fELF junk [\0 more [\0[[\0acpid\0zcat\0\0after\0"
    assert busybox.applets(program) == ["[", "[[", "acpid", "zcat"]
    assert busybox.applets(b"no table") == []


# -- dependencies ------------------------------------------------------------------------------------------------------


def archive(
    *rows: str,
) -> tuple[Callable[[str], resolve.Package | None], Callable[[str], tuple[resolve.Package, ...]]]:
    """Packages written as "name version / dependencies / provides"."""
    found = {}
    for row in rows:
        head, depends, provides = row.split(" / ") if " / " in row else (row, "", "")
        name, version = head.split()
        found[name] = resolve.Package(
            name, version, "all", "", 0, "", control.relations(depends),
            tuple(g[0] for g in control.relations(provides)),
        )  # fmt: skip
    return found.get, lambda n: tuple(p for p in found.values() if any(r.name == n for r in p.provides))


def names(found: tuple[resolve.Package, ...]) -> list[str]:
    return [p.name for p in found]


def test_dependencies_of_dependencies_come_along() -> None:
    got = resolve.closure(["a"], *archive("a 1 / b (>= 1), c / ", "b 1 / c / ", "c 2"), {})
    assert names(got) == ["a", "b", "c"]


def test_an_alternative_that_is_there_is_enough() -> None:
    have = {"y": resolve.Package("y", "1", "all", "", 0, "")}
    assert names(resolve.closure(["a"], *archive("a 1 / x | y / ", "x 1"), have)) == ["a"]
    assert names(resolve.closure(["a"], *archive("a 1 / x | y / ", "x 1"), {})) == ["a", "x"]
    assert names(resolve.closure(["a"], *archive("a 1 / z | x / ", "x 1"), {})) == ["a", "x"]


def test_a_virtual_package_is_provided_by_another() -> None:
    rows = ("a 1 / mta / ", "postfix 1 /  / mta", "exim 1 /  / mta (= 4)")
    assert names(resolve.closure(["a"], *archive(*rows), {})) == ["a", "exim"]
    assert names(resolve.closure(["postfix", "a"], *archive(*rows), {})) == ["a", "postfix"]


def test_a_provided_version_counts_only_when_it_is_told() -> None:
    get, providers = archive("a 1 / v (>= 2) / ", "p 9 /  / v", "q 1 /  / v (= 3)")
    assert names(resolve.closure(["a"], get, providers, {})) == ["a", "q"]


def test_packages_that_need_each_other_are_both_taken_once() -> None:
    assert names(resolve.closure(["a"], *archive("a 1 / b / ", "b 1 / a / "), {})) == ["a", "b"]


def test_a_version_too_old_is_not_enough() -> None:
    with pytest.raises(resolve.Unresolved, match=r"b \(>= 2\) \(needed by a\)"):
        resolve.closure(["a"], *archive("a 1 / b (>= 2) / ", "b 1"), {})


def test_relations_are_read_with_architectures_and_profiles() -> None:
    assert control.relations("a:any (>= 1~) [amd64] <!x>, b | c (<< 2)") == (
        (control.Relation("a", ">=", "1~"),), (control.Relation("b"), control.Relation("c", "<<", "2")),
    )  # fmt: skip


# -- the host's settings -----------------------------------------------------------------------------------------------


def apt(tmp_path: Path, files: dict[str, str], environ: dict[str, str] | None = None) -> apt_settings.AptSettings:
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return apt_settings.read(environ or {}, str(tmp_path))


def test_mirrors_come_from_one_line_lists(tmp_path: Path) -> None:
    got = apt(
        tmp_path,
        {
            "sources.list": "# deb http://old/debian bookworm main\n"
            "deb [arch=amd64 signed-by=/k] http://near/debian bookworm main contrib\n"
            "deb-src http://src/debian bookworm main\n"
            "deb http://sec/debian-security bookworm-security main\ndeb https://other/x stable main\n"
            "deb https://vendor/apt vendor-bookworm main\n"
        },
    )
    assert got.mirrors == ("http://near/debian", "https://other/x")
    assert got.security == ("http://sec/debian-security",)


def test_mirrors_come_from_deb822_sources(tmp_path: Path) -> None:
    text = (
        "Types: deb deb-src\nURIs: http://near/debian/\nSuites: trixie trixie-updates\nComponents: main\n\n"
        "Enabled: no\nTypes: deb\nURIs: http://off/debian\nSuites: trixie\nComponents: main\n"
    )
    got = apt(tmp_path, {"sources.list.d/debian.sources": text})
    assert got.mirrors == ("http://near/debian",)
    assert got.security == ("http://near/debian-security",)


def test_an_ubuntu_host_has_no_debian_mirror_and_gets_the_public_one(tmp_path: Path) -> None:
    got = apt(tmp_path, {"sources.list": "deb http://archive/ubuntu jammy main\n"})
    assert got.mirrors == (apt_settings.PUBLIC,)


def test_a_mirror_of_the_environment_comes_before_all(tmp_path: Path) -> None:
    files = {"sources.list": "deb http://near/debian bookworm main\n"}
    got = apt(tmp_path, files, {"KAP_DEBIAN_MIRROR": "http://mine/debian/"})
    assert got.mirrors == ("http://mine/debian",)
    assert got.security == ("http://mine/debian-security",)


def test_proxies_and_certificates_are_read_in_both_spellings_of_apt_conf(tmp_path: Path) -> None:
    got = apt(
        tmp_path,
        {
            "apt.conf.d/10proxy": 'Acquire::http::Proxy "http://proxy:3128/";  // near\n',
            "apt.conf.d/20tls": 'Acquire {\n https { CaInfo "/etc/ca.pem"; Proxy "DIRECT"; };\n'
            ' Check-Valid-Until "no"; };\n',
            "apt.conf.d/30old.bak": 'Acquire::http::Proxy "http://wrong/";\n',
        },
    )
    assert got.proxies == {"http": "http://proxy:3128/", "https": "DIRECT"}
    assert got.ca_file == "/etc/ca.pem"
    assert got.check_valid_until is False


def test_pip_settings_are_read_from_files_and_the_environment(tmp_path: Path) -> None:
    (tmp_path / "pip").mkdir()
    (tmp_path / "pip/pip.conf").write_text(
        "[global]\nindex-url = http://near/simple/\nextra-index-url =\n  http://a/simple\n"
        "  http://b/simple\ncert = /ca\n"
    )
    environ = {"XDG_CONFIG_DIRS": str(tmp_path), "HOME": "/nowhere", "PIP_FIND_LINKS": "/wheels"}
    got = pypi.settings(environ, "/nowhere")
    assert got == pypi.Settings(("http://near/simple", "http://a/simple", "http://b/simple"), ("/wheels",), "/ca")
    assert pypi.settings({**environ, "PIP_INDEX_URL": "http://mine/s"}, "/nowhere").indexes[0] == "http://mine/s"
    assert pypi.settings({"XDG_CONFIG_DIRS": "/nowhere", "HOME": "/nowhere", "PIP_CONFIG_FILE": "/dev/null"}) == (
        pypi.Settings((pypi.PUBLIC,), ())
    )


def test_the_newest_fitting_wheel_of_this_machine_is_found(tmp_path: Path) -> None:
    index = tmp_path / "simple/some-thing"
    index.mkdir(parents=True)
    rows = "".join(
        f'<a href="../../files/{n}#sha256={hashlib.sha256(n.encode()).hexdigest()}"{more}>{n}</a>\n'
        for n, more in (
            ("some_thing-16.1-py3-none-manylinux_2_17_x86_64.whl", ""),
            ("some_thing-16.9-py3-none-manylinux_2_17_x86_64.whl", ' data-yanked="bad"'),
            ("some_thing-16.10-py3-none-manylinux_2_17_aarch64.whl", ""),
            ("some_thing-16.2-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl", ""),
            ("some_thing-16.3rc1-py3-none-manylinux_2_17_x86_64.whl", ""),
            ("some_thing-17.0-py3-none-manylinux_2_17_x86_64.whl", ""),
            ("some_thing-16.8-py3-none-macosx_11_0_x86_64.whl", ""), ("some_thing-16.9.tar.gz", ""),
        )
    )  # fmt: skip
    (index / "index.html").write_text(f"<html>{rows}</html>")
    environ = {"PIP_INDEX_URL": f"file://{tmp_path}/simple", "PIP_CONFIG_FILE": "/dev/null", "HOME": "/nowhere"}
    fetcher = fetch.Fetcher(f"{tmp_path}/blobs", environ, print, "x")
    got = pypi.find("Some.Thing", lambda v: v.startswith("16."), "amd64", fetcher, environ)
    assert got.version == "16.2"
    assert got.wanted.urls[0].endswith("/files/some_thing-16.2-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl")


def test_a_project_nobody_has_is_told_with_the_reason(tmp_path: Path) -> None:
    environ = {"PIP_INDEX_URL": f"file://{tmp_path}/simple", "PIP_CONFIG_FILE": "/dev/null", "HOME": "/nowhere"}
    fetcher = fetch.Fetcher(f"{tmp_path}/blobs", environ, print, "x")
    with pytest.raises(pypi.NotThere, match="nothing: No such file or directory"):
        pypi.find("nothing", lambda _: True, "amd64", fetcher, environ)
