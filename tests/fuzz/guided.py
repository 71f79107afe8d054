"""Coverage-guided fuzzing of one parser, where atheris is installed (pip install atheris).

    PYTHONPATH=src python -m tests.fuzz.guided TARGET [options of libFuzzer]

Starts from tests/fuzz/corpus/TARGET; what libFuzzer finds is written below the current folder.
"""

from __future__ import annotations

import sys

from tests.fuzz import seeds


def main() -> int:
    try:
        import atheris  # type: ignore[import-not-found]
    except ImportError:
        print("atheris is not installed: pip install atheris (pytest tests/fuzz needs hypothesis only)")
        return 2
    with atheris.instrument_imports(include=["kapelle"]):
        from tests.fuzz.targets import TARGETS
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        print(f"TARGET: one of {', '.join(TARGETS)}")
        return 2
    name = sys.argv.pop(1)
    atheris.Setup([*sys.argv, str(seeds.HERE / "corpus" / name)], TARGETS[name])
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
