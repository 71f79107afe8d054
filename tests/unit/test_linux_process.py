"""Processes by their handles."""

from __future__ import annotations

import os

from kapelle.linux import process


def test_a_process_that_has_just_ended_has_no_handle() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    fd = process.handle_of(child)
    assert fd >= 0
    os.close(fd)
    os.waitpid(child, 0)
    assert process.handle_of(child) == -1
