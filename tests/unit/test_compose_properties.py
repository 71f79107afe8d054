"""Whatever the bytes: our own error, or a project."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kapelle.compose import dotenv, emit, units
from kapelle.compose.interpolate import Invalid, Required, substitute
from kapelle.compose.load import Options, load
from kapelle.compose.tree import Map
from kapelle.errors import KapelleError

WORDS = st.sampled_from(
    "services: a: image: x ports: - [ ] { } , 80:80 '\"' & * << !reset !override | > # \n \t $ ${A} ${A:-b} volumes: "
    "environment: depends_on: extends: include: null true 1 1.5 0o7 - name: build: deploy: --- ... x-a: healthcheck: "
    "test: command: networks: secrets: configs: profiles: \u00e9 \U0001f600".split(" ")
)


def loads(data: bytes) -> None:
    with TemporaryDirectory() as folder:
        Path(folder, "compose.yaml").write_bytes(data)
        try:
            load(Options(), folder, {"A": "1"})
        except KapelleError:
            pass  # any other exception fails the test


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_any_bytes_as_a_file_give_our_error_or_a_project(data: bytes) -> None:
    loads(data)


@given(st.lists(st.tuples(WORDS, st.sampled_from(["", " ", "\n", "\n  ", "\n    "])), max_size=40))
@settings(max_examples=500, deadline=None)
def test_any_pieces_of_compose_files_give_our_error_or_a_project(pieces: list[tuple[str, str]]) -> None:
    loads("".join(a + b for a, b in pieces).encode())


KEYS = st.sampled_from(
    "image build command environment ports volumes networks depends_on healthcheck deploy labels env_file extends "
    "secrets configs ulimits logging restart scale profiles tmpfs devices extra_hosts gpus develop".split()
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 70000) | st.text(max_size=8) | st.floats(allow_nan=False),
    lambda v: st.lists(v, max_size=3) | st.dictionaries(KEYS | st.text(max_size=5), v, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(KEYS, VALUES, max_size=5))
@settings(max_examples=500, deadline=None)
def test_any_value_under_any_key_gives_our_error_or_a_project(service: dict[str, object]) -> None:
    import yaml

    loads(yaml.safe_dump({"services": {"a": {"image": "x", **service}}}, allow_unicode=True).encode())


@given(st.text(alphabet="$ {}:-?+aB_1\"'\\", max_size=30))
@settings(max_examples=500, deadline=None)
def test_interpolation_raises_nothing_but_its_own_errors(text: str) -> None:
    try:
        substitute(text, {"a": "1", "B": ""}.get)
    except (Invalid, Required):
        pass


@given(st.text(alphabet="AB=:# \n'\"\\${}xport", max_size=40))
@settings(max_examples=500, deadline=None)
def test_env_files_raise_nothing_but_our_error(text: str) -> None:
    try:
        dotenv.parse(text, ".env", {"A": "1"}.get)
    except KapelleError:
        pass


@given(st.integers(0, 10**15))
def test_a_duration_reads_back_as_itself(nanoseconds: int) -> None:
    assert units.duration(units.duration_text(nanoseconds)) == nanoseconds


@pytest.mark.parametrize(("text", "size"), [("1k", 1024), ("1.5g", 3 << 29), ("10MB", 10 << 20), ("7", 7), ("2b", 2)])
def test_sizes_are_base_1024(text: str, size: int) -> None:
    assert units.size(text) == size


PIECES = (
    "environment: {A: '1', B: '2'}", "environment: [B=3, C=4]", "labels: [x=1]", "labels: {x: '2', y: '3'}",
    "ports: ['80:80']", "ports: ['80:80', '81:81/udp']", "volumes: ['/a:/x', '/b:/y']", "volumes: ['/c:/x']",
    "command: [a]", "command: b c", "user: u", "cap_add: [A, B]", "cap_add: [B, C]", "dns: [1.1.1.1]",
    "extra_hosts: [a=1.1.1.1]", "extra_hosts: [a=1.1.1.1, b=2.2.2.2]", "security_opt: [a:b]", "expose: ['80']",
    "networks: {n: {aliases: [p]}}", "networks: {n: {aliases: [p, q], priority: 1}, m: {}}", "tmpfs: [/t]",
    "healthcheck: {test: [CMD, a], interval: 1s}", "healthcheck: {test: [CMD, b], retries: 2}", "build: {context: /c}",
    "build: {context: /d, args: {A: '1'}}", "deploy: {replicas: 2, labels: {a: b}}", "deploy: {labels: {a: c}}",
    "depends_on: {o: {condition: service_healthy}}", "secrets: [s]", "configs: [{source: c, target: /c}]",
    "ulimits: {nofile: 1}", "ulimits: {nofile: 2, nproc: 3}", "sysctls: {a: '1'}", "profiles: [p]", "restart: always",
)  # fmt: skip
SERVICES = st.lists(st.sampled_from(PIECES), max_size=6)


def a_service(pieces: list[str]) -> Map:
    from kapelle.compose.canonical import canonical
    from kapelle.compose.document import parse

    rows = {piece.partition(":")[0]: piece for piece in pieces}
    text = "services:\n  a:\n    image: x\n" + "".join(f"    {row}\n" for row in rows.values())
    tree, mistakes = canonical(parse(text, "x")[0].tree, "x")
    assert not mistakes, mistakes
    return tree


@given(SERVICES, SERVICES, SERVICES)
@settings(max_examples=300, deadline=None)
def test_it_does_not_matter_which_two_of_three_files_are_merged_first(a: list[str], b: list[str], c: list[str]) -> None:
    """`logging` and networks' `ipam` apart, whose rules look at both sides (compose specification, merge)."""
    from kapelle.compose.merge import merge

    one, two, three = a_service(a), a_service(b), a_service(c)
    assert merge(merge(one, two), three) == merge(one, merge(two, three))


def test_every_key_has_its_place_where_docker_compose_has_an_order_of_its_own() -> None:
    for path, order in emit._ORDERS.items():
        missing = emit._node(path).children.keys() - set(order.split())
        assert missing <= {"include", "version", "pull_refresh_after"}, path  # these are never printed
