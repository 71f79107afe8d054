"""Coverage-guided fuzzing of the parsers, where atheris is installed (pip install atheris).

    PYTHONPATH=src python -m tests.fuzz.guided TARGET [options of libFuzzer]

TARGET may be "all": one after the other. Starts from the seeds. What libFuzzer finds is written to fuzz-TARGET/ in the
current folder, or below KAP_FUZZ_PLACE: inputs that reach further in found/, what makes the parser fail as crash-*,
timeout-* and the like. One of those becomes a file in tests/fuzz/corpus/TARGET, which test_fuzz.py reads.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path

from tests.fuzz import seeds


def main() -> int:
    try:
        atheris = import_module("atheris")
    except ImportError:
        print("atheris is not installed: pip install atheris (pytest tests/fuzz needs hypothesis only)")
        return 2
    with atheris.instrument_imports(include=["kapelle"]):
        from tests.fuzz.targets import TARGETS

        for name in TARGETS:  # what they import at first use
            TARGETS[name](seeds.of(name)[0])
    given, *options = [*sys.argv[1:], ""][: len(sys.argv)]
    if given != "all" and given not in TARGETS:
        print(f"TARGET: all, or one of {', '.join(TARGETS)}")
        return 2

    def begin(name: str) -> None:
        place = Path(os.environ.get("KAP_FUZZ_PLACE", "."), f"fuzz-{name}").absolute()
        for folder in ("found", "seeds"):
            (place / folder).mkdir(parents=True, exist_ok=True)
        for number, data in enumerate(seeds.of(name)):
            (place / "seeds" / str(number)).write_bytes(data)
        folders = [f"-artifact_prefix={place}/", str(place / "found"), str(place / "seeds")]
        atheris.Setup([sys.argv[0], *filter(None, options), *folders], TARGETS[name])
        atheris.Fuzz()

    failed = []
    for name in TARGETS if given == "all" else ():
        child = os.fork()
        if child == 0:
            begin(name)
            os._exit(0)
        if os.waitpid(child, 0)[1]:
            failed.append(name)
    if given == "all":
        print("failed: " + " ".join(failed) if failed else f"{len(TARGETS)} parsers hold")
        return 1 if failed else 0
    begin(given)
    return 0


if __name__ == "__main__":
    sys.exit(main())
