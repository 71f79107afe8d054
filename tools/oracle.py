"""Compare our reading of compose files with docker compose's own, case folder by case folder.

    python tools/oracle.py [--docker PATH] [--write] FOLDER...

A case is a folder with a compose.yaml and whatever it needs; `args` holds flags (one per line), `env` variables.
Differences are printed as JSON. `--write` keeps the oracle's answer in the case: expected.json, or expected-error.txt.
Of the text that `config` prints, as YAML and as JSON, a digest is kept in texts.sha256 beside the folders.
"""

from __future__ import annotations

import argparse
import difflib
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

if TYPE_CHECKING:
    from kapelle.compose.load import Options

PLACE = "/CASE"
FORMATS = ("yaml", "json")


def words_of(case: Path) -> list[str]:
    file = case / "args"
    return file.read_text().split() if file.exists() else []


def environment_of(case: Path) -> dict[str, str]:
    found = {"PATH": "/usr/bin:/bin", "HOME": "/home/someone"}
    file = case / "env"
    if file.exists():
        found.update(dict(line.split("=", 1) for line in file.read_text().splitlines() if "=" in line))
    return found


def options_of(case: Path) -> Options:
    """What the case's flags say about loading."""
    from kapelle.cli.context import Context
    from kapelle.cli.dispatch import GLOBAL_FLAGS
    from kapelle.cli.flags import parse

    return Context(parse(GLOBAL_FLAGS, words_of(case)), environment_of(case)).options


def reference(case: Path, docker: str) -> tuple[Any, str]:
    """(model, "") or (None, error) as docker compose says."""
    done = subprocess.run(
        [docker, *words_of(case), "config", "--format", "json"],
        cwd=case, env=environment_of(case), capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        return None, done.stderr.strip().splitlines()[-1].replace(str(case), PLACE)
    return json.loads(done.stdout.replace(str(case), PLACE)), ""


def ours(case: Path) -> tuple[Any, str]:
    """The same by our own loader."""
    from kapelle.compose import dump
    from kapelle.compose.load import load
    from kapelle.errors import KapelleError

    try:
        loaded = load(options_of(case), str(case), environment_of(case))
    except KapelleError as e:
        first = getattr(e, "mistakes", (e,))
        return None, " | ".join(m.what for m in first).replace(str(case), PLACE)
    return json.loads(dump.to_json(loaded.tree).replace(str(case), PLACE)), ""


def reference_text(case: Path, docker: str, format: str) -> str:
    """What `config` prints, to the byte."""
    done = subprocess.run(
        [docker, *words_of(case), "config", "--format", format],
        cwd=case, env=environment_of(case), capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.replace(str(case), PLACE)


def our_text(case: Path, format: str) -> str:
    from kapelle.compose import dump
    from kapelle.compose.load import load

    tree = load(options_of(case), str(case), environment_of(case)).tree
    return (dump.to_json(tree) if format == "json" else dump.to_yaml(tree)).replace(str(case), PLACE)


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_digests(folder: Path) -> dict[str, list[str]]:
    """Case → the digests of its texts, in the order of FORMATS."""
    file = folder / "texts.sha256"
    rows = [line.split() for line in file.read_text().splitlines()] if file.exists() else []
    return {name: found for name, *found in rows}


def write_digests(folder: Path, found: dict[str, list[str]]) -> None:
    rows = [" ".join([name, *found[name]]) for name in sorted(found)]
    (folder / "texts.sha256").write_text("\n".join(rows) + "\n")


def differences(mine: Any, theirs: Any, path: str = "") -> list[dict[str, Any]]:
    """Where two models differ, as JSON paths."""
    if isinstance(mine, dict) and isinstance(theirs, dict):
        rows = []
        for key in sorted(mine.keys() | theirs.keys()):
            below = f"{path}.{key}" if path else key
            if key not in mine:
                rows.append({"path": below, "ours": "(missing)", "reference": theirs[key]})
            elif key not in theirs:
                rows.append({"path": below, "ours": mine[key], "reference": "(missing)"})
            else:
                rows += differences(mine[key], theirs[key], below)
        return rows
    if isinstance(mine, list) and isinstance(theirs, list) and len(mine) == len(theirs):
        return [
            row for n, pair in enumerate(zip(mine, theirs, strict=True)) for row in differences(*pair, f"{path}[{n}]")
        ]
    return [] if mine == theirs and type(mine) is type(theirs) else [{"path": path, "ours": mine, "reference": theirs}]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--docker", default=os.environ.get("KAP_ORACLE", "docker-compose"))
    parser.add_argument("--write", action="store_true")
    parser.add_argument("folders", nargs="+", type=Path)
    options = parser.parse_args()
    report: dict[str, Any] = {}
    for case in options.folders:
        case = case.resolve()
        theirs, their_error = reference(case, options.docker)
        mine, my_error = ours(case)
        if options.write:
            for name in ("expected.json", "expected-error.txt"):
                (case / name).unlink(missing_ok=True)
            if their_error:
                (case / "expected-error.txt").write_text(their_error + "\n")
            else:
                (case / "expected.json").write_text(json.dumps(theirs, indent=1, sort_keys=True) + "\n")
        if bool(their_error) != bool(my_error):
            report[case.name] = {"ours": my_error or "accepted", "reference": their_error or "accepted"}
        elif not their_error and (rows := differences(mine, theirs)):
            report[case.name] = rows
        if not their_error:
            texts = {format: reference_text(case, options.docker, format) for format in FORMATS}
            if options.write:
                write_digests(
                    case.parent, {**read_digests(case.parent), case.name: [digest(t) for t in texts.values()]}
                )
            if not my_error and case.name not in report:
                pairs = [(texts[f].splitlines(), our_text(case, f).splitlines()) for f in FORMATS]
                lines = [line for pair in pairs for line in difflib.unified_diff(*pair, "reference", "ours", n=1)]
                if lines:
                    report[case.name] = lines
    print(json.dumps(report, indent=1))
    return 1 if report else 0


if __name__ == "__main__":
    sys.exit(main())
