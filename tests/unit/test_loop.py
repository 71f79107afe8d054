"""The supervisor's event loop."""

from __future__ import annotations

import os

from kapelle.engines.native.loop import Loop


def test_what_one_callback_reads_is_not_announced_to_another() -> None:
    """Two descriptors become ready together; whoever comes first reads both: the other must not be called."""
    loop = Loop()
    (a, a_in), (b, b_in) = os.pipe(), os.pipe()
    called = []

    def read_both(which: str) -> None:
        called.append(which)
        os.read(a, 1)
        os.read(b, 1)

    loop.add(a, lambda _: read_both("a"))
    loop.add(b, lambda _: read_both("b"))
    os.write(a_in, b"+")
    os.write(b_in, b"+")
    loop.later(0.01, loop.stop)
    loop.run()
    assert len(called) == 1
    for fd in (a, a_in, b, b_in):
        os.close(fd)


def test_times_come_in_their_order_and_cancelled_ones_do_not() -> None:
    loop = Loop()
    called: list[str] = []
    loop.later(0.002, lambda: called.append("second"))
    loop.later(0.001, lambda: called.append("first"))
    loop.later(0.001, lambda: called.append("never")).cancel()
    loop.later(0.003, loop.stop)
    loop.run()
    assert called == ["first", "second"]
