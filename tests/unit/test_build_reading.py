"""Reading Dockerfiles: text in, values out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kapelle.errors import ImageError
from kapelle.images.build import dockerfile, expand, stages
from kapelle.images.build.ignore import Ignore
from kapelle.images.build.rootfs import Rootfs


def parsed(text: str) -> list[str]:
    return [str(i) for i in dockerfile.parse(text, "Dockerfile").instructions]


def test_continuation_lines_comments_and_blank_lines_make_one_instruction() -> None:
    text = "FROM x\nRUN a \\\n  # a comment\n\n  && b\nCMD c\n"
    assert parsed(text) == ["FROM x", "RUN a   && b", "CMD c"]


def test_an_escape_directive_changes_the_continuation_character() -> None:
    assert parsed("# escape=`\nFROM x\nRUN a `\n b\n") == ["FROM x", "RUN a  b"]


def test_flags_are_apart_from_the_text() -> None:
    copy = dockerfile.parse("FROM x\nCOPY --from=build --chown=1:2 a b\n", "D").instructions[1]
    assert (copy.flag("--from"), copy.flag("--chown"), copy.text) == ("build", "1:2", "a b")


def test_a_json_form_is_words_and_anything_else_is_shell() -> None:
    run, shell = dockerfile.parse('FROM x\nRUN ["a", "b c"]\nRUN [ -f x ]\n', "D").instructions[1:]
    assert run.json() == ["a", "b c"]
    assert shell.json() is None


def test_a_heredoc_is_read_to_its_end() -> None:
    run, cmd = dockerfile.parse("FROM x\nRUN <<EOF\none\n  two\nEOF\nCMD z\n", "D").instructions[1:]
    assert run.heredocs == (dockerfile.Heredoc("EOF", "one\n  two\n", True),)
    assert str(cmd) == "CMD z"


def test_a_quoted_heredoc_is_not_expanded_and_tabs_may_be_stripped() -> None:
    copy = dockerfile.parse("FROM x\nCOPY <<-'E' /f\n\t$A\n\tE\n", "D").instructions[1]
    assert copy.heredocs == (dockerfile.Heredoc("E", "$A\n", False),)


def test_an_unknown_instruction_names_its_place_and_the_nearest_one() -> None:
    with pytest.raises(ImageError) as caught:
        dockerfile.parse("FROM x\n\nRUNN a\n", "Dockerfile")
    assert str(caught.value.where) == "Dockerfile:3:1"
    assert caught.value.hint == "did you mean RUN?"


@pytest.mark.parametrize("text", ["", "# only\n", "RUN a\n", "FROM\n", "FROM a b\n", "FROM a AS\n"])
def test_what_is_no_dockerfile_is_refused(text: str) -> None:
    with pytest.raises(ImageError):
        stages.split(dockerfile.parse(text, "D"))


@given(st.text(alphabet="FROM RUN COPYADENV\\\n\"'[]<<-E#=$ x`\t", max_size=80))
@settings(max_examples=500, deadline=None)
def test_any_text_is_instructions_or_our_error(text: str) -> None:
    try:
        stages.split(dockerfile.parse(text, "D"))
    except ImageError:
        pass


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("$A/${A}x", "1/1x"),
        ("${N:-d}${E:-d}${E-d}", "dd"),
        ("${A:+r}${N:+r}", "r"),
        ("'$A' \"$A\" \\$A", "$A 1 $A"),
        ("${P#*/}|${P##*/}|${P%/*}|${P%%/*}", "b/c|c|a/b|a"),
        ("${P/b/x}", "a/x/c"),
    ],
)
def test_variables_are_replaced_with_their_modifiers(text: str, value: str) -> None:
    assert expand.word(text, {"A": "1", "E": "", "P": "a/b/c"}.get) == value


def test_words_keep_what_quotes_hold_together() -> None:
    assert expand.words("a 'b c' \"d e\"f g\\ h", {}.get) == ["a", "b c", "d ef", "g h"]


@given(st.text(alphabet="${}:-+#%/?A'\"\\ x", max_size=30))
@settings(max_examples=500, deadline=None)
def test_any_word_expands_or_says_why_not(text: str) -> None:
    try:
        expand.words(text, {"A": "1"}.get)
    except expand.ExpandError:
        pass


def test_stages_are_found_by_name_and_number() -> None:
    split = stages.split(dockerfile.parse("ARG V=1\nFROM a AS One\nRUN x\nFROM b\nCOPY --from=one / /\n", "D"))
    assert [s.name for s in split.all] == ["one", ""]
    assert split.find("ONE") is split.all[0]
    assert split.find("1") is split.all[1]
    assert stages.target(split, "").number == 1
    with pytest.raises(ImageError, match="could not be found"):
        stages.target(split, "none")


@pytest.mark.parametrize(
    ("rules", "path", "ignored"),
    [
        ("*.pyc", "a.pyc", True),
        ("*.pyc", "d/a.pyc", False),
        ("**/*.pyc", "d/e/a.pyc", True),
        ("node_modules", "node_modules/x/y", True),
        ("/dist/", "dist/a", True),
        ("*\n!keep", "keep", False),
        ("*\n!keep", "other", True),
        ("docs\n!docs/README.md", "docs/README.md", False),
        ("# comment\n\nx", "x", True),
        ("a?c", "abc", True),
    ],
)
def test_dockerignore_follows_dockers_rules(rules: str, path: str, ignored: bool) -> None:
    assert Ignore(rules).ignores(path) is ignored


def test_a_link_in_an_image_never_leads_to_the_host(tmp_path: Path) -> None:
    layer = tmp_path / "layer"
    (layer / "etc").mkdir(parents=True)
    (layer / "etc/passwd").write_text("inside")
    os.symlink("/etc/passwd", layer / "absolute")
    os.symlink("../../../../../../etc/passwd", layer / "etc/climbing")
    tree = Rootfs((str(layer),))
    assert tree.resolve("absolute") == "etc/passwd"
    assert tree.read("absolute") == "inside"
    assert tree.read("etc/climbing") == "inside"


def test_an_upper_layer_hides_what_lies_below(tmp_path: Path) -> None:
    low, high = tmp_path / "low", tmp_path / "high"
    (low / "d").mkdir(parents=True)
    (low / "d/a").write_text("low")
    (high / "d").mkdir(parents=True)
    (high / "d/a").write_text("high")
    (high / "d/b").write_text("b")
    tree = Rootfs((str(low), str(high)))
    assert tree.names("d") == ["a", "b"]
    assert tree.read("d/a") == "high"


def test_a_circle_of_links_is_an_error_not_a_hang(tmp_path: Path) -> None:
    os.symlink("b", tmp_path / "a")
    os.symlink("a", tmp_path / "b")
    with pytest.raises(OSError, match="Too many"):
        Rootfs((str(tmp_path),)).resolve("a")
