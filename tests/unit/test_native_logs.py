"""Output on disk, read back in batches."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapelle.engines.native import logs


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["stdout", "stderr"]),
            st.lists(st.binary(max_size=40).map(lambda b: b.replace(b"\n", b"")), max_size=5),
            st.integers(1, 3),
        ),
        max_size=12,
    ),
    st.integers(1, 5000),
)
def test_lines_read_in_batches_are_those_read_one_by_one(fed: list[tuple[str, list[bytes], int]], block: int) -> None:
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        patch.setattr(logs, "_BLOCK", block)
        writer = logs.Writer(directory)
        for stream, lines, now in fed:
            writer.feed(stream, b"".join(line + b"\n" for line in lines), now)
        writer.close()
        data = Path(directory, "1").read_bytes()
        single = [r for r in map(logs.parse, data.split(b"\n")[:-1]) if r is not None]
        together = [
            logs.Record(r.time, r.stream, text, r.partial)
            for r in logs.read(directory)
            for text in r.plain().split(b"\n")
        ]
        assert together == single


def test_a_line_that_looks_like_a_header_stays_a_line(tmp_path: Path) -> None:
    writer = logs.Writer(str(tmp_path))
    head = b"%019d o " % 7
    writer.feed("stdout", b"a\n" + head + b"b\n" + head + head + b"c\n", 7)
    writer.close()
    (record,) = logs.read(str(tmp_path))
    assert record.plain() == b"a\n" + head + b"b\n" + head + head + b"c"
