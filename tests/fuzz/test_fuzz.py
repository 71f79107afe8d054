"""A few seconds of each harness; more by KAP_FUZZ=SECONDS, or coverage-guided by python -m tests.fuzz.guided TARGET."""

from __future__ import annotations

import os
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz import seeds
from tests.fuzz.targets import TARGETS

EXAMPLES = int(os.environ.get("KAP_FUZZ", "0")) * 500 or 120
_ODD = (0, 1, 0x7F, 0x80, 0xC0, 0xFF, 0x20, 0x24, 0x7B, 0x5C, 0x22, 0x0A, 0x2E, 0x2F)


@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus_gives_values_or_errors_of_ours(name: str) -> None:
    for data in seeds.of(name):
        TARGETS[name](data)


def changed(data: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """One to six changes of a seed: bytes, pieces gone, doubled, of another seed."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 6)):
        at = rng.randint(0, len(out))
        match rng.randrange(6):
            case 0:
                out[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                out[at : at + 1] = bytes([rng.choice(_ODD)])
            case 2:
                del out[at : at + rng.randint(1, 40)]
            case 3:
                out[at:at] = out[at : at + rng.randint(1, 40)]
            case 4:
                other = rng.choice(others)
                start = rng.randint(0, len(other))
                out[at:at] = other[start : start + rng.randint(1, 80)]
            case _:
                out[at:at] = bytes([rng.choice(_ODD)]) * rng.randint(1, 300)
    return bytes(out)


@pytest.mark.parametrize("name", TARGETS)
def test_changed_seeds_give_values_or_errors_of_ours(name: str) -> None:
    corpus = seeds.of(name)

    @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(corpus), st.integers(0, 2**32))
    def fed(data: bytes, number: int) -> None:
        TARGETS[name](changed(data, corpus, random.Random(number)))

    fed()


@pytest.mark.parametrize("name", TARGETS)
def test_any_bytes_give_values_or_errors_of_ours(name: str) -> None:
    @settings(max_examples=EXAMPLES // 2, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.one_of(st.binary(max_size=600), st.text(max_size=300).map(lambda t: t.encode("utf-8", "replace"))))
    def fed(data: bytes) -> None:
        TARGETS[name](data)

    fed()
