"""Words of the command line, as Docker reads them."""

from __future__ import annotations

import pytest

from kapelle.cli.flags import Flag, parse
from kapelle.cli.main import main
from kapelle.errors import UsageError

FLAGS = (
    Flag("--detach", "-d"),
    Flag("--tty", "-t"),
    Flag("--env", "-e", value="K=V", repeat=True),
    Flag("--index", value="N", kind="int"),
)


@pytest.mark.parametrize("words", [["-dt"], ["-d", "-t"], ["--detach", "--tty=true"], ["-d=true", "-t"]])
def test_switches_come_in_every_spelling(words: list[str]) -> None:
    args = parse(FLAGS, words)
    assert (args.detach, args.tty) == (True, True)


@pytest.mark.parametrize("words", [["-eA=1"], ["-e", "A=1"], ["--env=A=1"], ["--env", "A=1"]])
def test_values_come_in_every_spelling(words: list[str]) -> None:
    assert parse(FLAGS, words).env == ["A=1"]


def test_a_command_keeps_its_own_flags_after_its_first_word() -> None:
    args = parse(FLAGS, ["-d", "web", "ls", "-t"], stop_at_first=True)
    assert (args.rest, args.tty) == (["web", "ls", "-t"], False)


def test_flags_may_stand_between_words_and_two_dashes_end_them() -> None:
    assert parse(FLAGS, ["a", "-d", "b", "--", "-t"]).rest == ["a", "b", "-t"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--detatch"], "unknown flag: --detatch"),
        (["-x"], "unknown shorthand flag: 'x' in -x"),
        (["--index"], "flag needs an argument: --index"),
        (["--index", "a"], 'invalid argument "a" for "--index" flag'),
    ],
)
def test_a_wrong_word_is_named(words: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse(FLAGS, words)


def test_version_answers_with_the_compose_release_that_is_followed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version", "--short"]) == 0
    assert capsys.readouterr().out == "2.40.3\n"


def test_an_unknown_command_is_told_on_stderr_with_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["upp"]) == 1
    assert "unknown command: upp" in capsys.readouterr().err
