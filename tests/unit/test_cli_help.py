"""Help, completion, explanations: made from the same tables as the commands themselves."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from kapelle.cli import dispatch
from kapelle.cli.commands import explain
from kapelle.cli.main import main
from kapelle.errors import UsageError

GOLDEN = Path(__file__).parent.parent / "golden"
SOURCE = Path(__file__).parent.parent.parent / "src" / "kapelle"


def there() -> list[str]:
    found = []
    for verb in dispatch.COMMANDS:
        try:
            dispatch.command(verb)
        except UsageError:
            continue
        found.append(verb)
    return found


@pytest.mark.parametrize("verb", there())
def test_every_command_says_what_it_takes(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: kap {verb} ")
    assert main(["help", verb]) == 0
    assert capsys.readouterr().out == text


def test_every_flag_name_of_a_command_is_its_own() -> None:
    for verb in there():
        names = [n for f in dispatch.command(verb).FLAGS for n in (f.long, f.short, *f.aliases) if n]
        assert len(names) == len(set(names)), verb


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    text = capsys.readouterr().out
    for verb in there():
        assert re.search(rf"^  {verb} ", text, re.M), f"{verb} is in no group of cli/help.py"


def test_every_code_in_the_source_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    used = {c for p in SOURCE.rglob("*.py") for c in re.findall(r'"(KAP\d{3})"', p.read_text())}
    assert used <= set(explain.CODES)
    assert main(["explain", "kap201"]) == 0
    assert capsys.readouterr().out.startswith("KAP201: a published port is taken\n\nAnother program listens")
    assert main(["explain", "KAP000"]) == 1


@pytest.mark.parametrize("verb", dispatch.NOT_HERE)
def test_a_verb_of_docker_compose_that_is_not_here_says_so(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb]) == 1
    assert capsys.readouterr().err.startswith(f"error: {verb} is not part of this version [KAP012]\n hint: ")


@pytest.mark.parametrize("row", (GOLDEN / "cli" / "flags.txt").read_text().splitlines(), ids=lambda r: r.split()[0])
def test_every_flag_of_docker_compose_is_taken_in_its_own_shape(row: str) -> None:
    """Each row: a command and its flags as docker compose has them; "=" takes a value, "*" may be repeated."""
    verb, *words = row.split()
    flags = dispatch.GLOBAL_FLAGS if verb == "(global)" else dispatch.command(verb).FLAGS
    known = {name: flag for flag in flags for name in (flag.long, *flag.aliases)}
    for word in words:
        names, repeat = word.removesuffix("*"), word.endswith("*")
        long, _, short = names.removesuffix("=").partition(",")
        flag = known[long]
        assert (bool(flag.value), flag.repeat) == (names.endswith("="), repeat), long
        assert short in ("", flag.short), long


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_completion_script_knows_verbs_and_flags(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    text = capsys.readouterr().out
    assert "restart" in text
    assert "abort-on-container-exit" in text
    if shell == "bash":
        script = text + 'COMP_WORDS=(kap up --det); COMP_CWORD=2; _kap; echo "${COMPREPLY[@]}"\n'
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
        assert done.stdout == "--detach\n"
