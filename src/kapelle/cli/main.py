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


def script() -> None:
    """For the start scripts: the process ends here, without the 3 ms in which the interpreter takes itself apart."""
    import os

    quick = sys.argv[1:] in _VERSION
    if not quick:
        from kapelle import codecache

        codecache.use()
    code = 1
    try:
        code = main()
        if not quick:
            codecache.renew()
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
    except BrokenPipeError:
        pass  # whoever read it has gone
    except OSError as e:
        code = code or 1
        os.write(2, f"error: can't write the output: {e.strerror} [KAP905]\n".encode())
    os._exit(code)
