"""A fault of ours: one line for the user, a file with the traceback for whoever repairs it."""

from __future__ import annotations

import os
import sys

from kapelle.light import TYPE_CHECKING

if TYPE_CHECKING:
    from kapelle.cli.context import Context


def internal_error(error: Exception, words: list[str], context: Context | None) -> None:
    """Print "internal error …" on stderr, with the place of the report when one could be written."""
    place = ""
    if context is not None:
        try:
            place = _write(error, words, context)
        except OSError:
            place = ""
    print(f"error: internal error: {type(error).__name__}: {str(error)[:500]} [KAP999]", file=sys.stderr)
    if place:
        print(f"  report  {place}", file=sys.stderr)
    print(" hint: this is a defect of kap, not of your files; KAP_DEBUG=1 shows where", file=sys.stderr)


def _write(error: Exception, words: list[str], context: Context) -> str:
    """One file per process in the state folder. The command's words are kept, values of the environment are not."""
    import platform
    import traceback

    from kapelle import __version__

    folder = f"{context.paths.state}/reports"
    os.makedirs(folder, 0o700, exist_ok=True)
    path = f"{folder}/{os.getpid()}.txt"
    text = "".join(traceback.format_exception(error))
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "w") as f:
        f.write(f"kap {__version__}, Python {platform.python_version()}, {platform.platform()}\n")
        shown = [f"{word.partition('=')[0]}=…" if "=" in word else word for word in words]  # -e PASSWORD=…
        f.write(f"words: {shown!r}\n\n{text}")
    return path
