"""Throw mutated compose files at the loader: any outcome but a project or an error of ours is a defect.

    python tools/fuzz.py [--count N] [--seed N]

Seeds are the golden cases. Prints each new kind of failure once, with the input; the exit code is 1 if there was one.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
import tempfile
import time
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "src"))

WORDS = (
    b"null", b"true", b"-1", b"0", b"1.5", b"''", b"[]", b"{}", b"[[]]", b"{a: {b: c}}", b"!reset", b"!override",
    b"&a", b"*a", b"<<: *a", b"${A", b"${A:-${B}}", b"$$", b"---", b"...", b"\t", b"\x00", b"\xff\xfe", b"\xc3\x28",
    b"|", b">-", b"? a", b"2001-01-01", b"0x1F", b"1e999", b".inf", b"!!binary x", b"!!python/object:os.system x",
    b"x-", b"%YAML 1.2", b"#", b"extends: a", b"include: [compose.yaml]", b"services:", b"  ", b"\r\n",
    b"\xe2\x80\xa8", b"\xef\xbb\xbf",
)  # fmt: skip


def mutated(data: bytes, seeds: list[bytes], rng: random.Random) -> bytes:
    """One to four changes of a seed."""
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        at = rng.randint(0, len(data))
        what = rng.choice((0, 1, 2, 3, 4, 4, 4, 4, 4, 4, 4, 5, 6))
        if what == 0:
            data = data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]
        elif what == 1:
            data = data[:at] + data[at + rng.randint(1, 9) :]
        elif what == 2:
            data = data[:at] + rng.choice(WORDS) + data[at:]
        elif what == 3:
            other = rng.choice(seeds)
            start = rng.randint(0, len(other))
            data = data[:at] + other[start : start + rng.randint(1, 60)] + data[at:]
        elif what == 4:  # a value becomes another
            found = list(re.finditer(rb"(?<=: )[^\s,}\]]+", data))
            if found:
                place = rng.choice(found)
                data = data[: place.start()] + rng.choice(WORDS) + data[place.end() :]
        elif what == 5:  # a line moves in or out
            lines = data.split(b"\n")
            number = rng.randrange(len(lines))
            lines[number] = b"  " + lines[number] if rng.random() < 0.5 else lines[number].removeprefix(b"  ")
            data = b"\n".join(lines)
        else:
            lines = data.split(b"\n")
            lines.insert(rng.randrange(len(lines) + 1), rng.choice(lines))
            data = b"\n".join(lines)
    return data


def main() -> int:
    from kapelle.compose import dump
    from kapelle.compose.check import check
    from kapelle.compose.load import Options, load
    from kapelle.errors import KapelleError

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    rng = random.Random(given.seed)
    seeds = [p.read_bytes() for p in sorted((ROOT / "tests" / "golden" / "compose").glob("*/compose.yaml"))]
    cases = ROOT / "tests" / "golden" / "compose"
    bases = [p.read_bytes() for p in sorted(cases.glob("*/sub/base.yaml"))]
    env_files = [p.read_bytes() for p in sorted(cases.glob("*/*.env"))]
    failures: set[str] = set()
    accepted = 0
    begun = time.monotonic()
    slowest = 0.0
    shared = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=shared) as folder:
        file = Path(folder) / "compose.yaml"
        (Path(folder) / "sub").mkdir()
        for number in range(given.count):
            data = mutated(rng.choice(seeds), seeds, rng)
            file.write_bytes(data)
            if number % 50 == 0:  # what the files above may refer to
                (Path(folder) / "sub" / "base.yaml").write_bytes(mutated(rng.choice(bases), seeds, rng))
                for name in ("e.env", ".env"):
                    text = rng.choice(env_files)
                    (Path(folder) / name).write_bytes(mutated(text, env_files, rng) if rng.random() < 0.2 else text)
            start = time.monotonic()
            try:
                if number % 10 == 9:
                    check(Options(), folder, {"A": "1"})
                else:
                    loaded = load(Options(), folder, {"A": "1"})
                    assert loaded.project.name
                    dump.to_yaml(loaded.tree)
                    accepted += 1
            except KapelleError:
                pass
            except Exception as e:
                kind = traceback.format_exc().strip().splitlines()[-3:]
                if kind[0] not in failures:
                    failures.add(kind[0])
                    print(f"{type(e).__name__}: {e}\n{chr(10).join(kind)}\n{data!r}\n", flush=True)
            slowest = max(slowest, time.monotonic() - start)
    seconds = time.monotonic() - begun
    print(
        f"{given.count} inputs, {accepted} accepted, {len(failures)} failures, {seconds:.0f} s, slowest {slowest:.2f} s"
    )
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
