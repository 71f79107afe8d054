"""The console script `kap`. Imports next to nothing: `kap version` is answered before anything else is loaded."""

import sys

_VERSION = (["version"], ["--version"], ["-v"], ["version", "--short"])


def main(argv: list[str] | None = None) -> int:
    """Run one command; its exit code."""
    words = sys.argv[1:] if argv is None else argv
    if words in _VERSION:
        from kapelle import COMPOSE_VERSION, __version__

        pretty = f"Docker Compose version {COMPOSE_VERSION} (Kapelle {__version__})"
        print(COMPOSE_VERSION if "--short" in words else pretty)
        return 0
    from kapelle.cli import dispatch

    return dispatch.run(words)
