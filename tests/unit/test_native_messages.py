"""Messages between our processes."""

from __future__ import annotations

import socket

from kapelle.engines.native import messages


def test_the_last_words_of_who_left_without_reading_ours_are_heard() -> None:
    """The kernel tells of the reset before it hands out what was sent before it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        messages.send(ours, {"go": True})
        messages.send(theirs, {"error": "no such user"})
        theirs.close()
        assert messages.receive(ours) == ({"error": "no such user"}, [])
        assert messages.receive(ours) == (None, [])
