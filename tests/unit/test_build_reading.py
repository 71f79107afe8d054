"""Reading Dockerfiles: text in, values out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kapelle.errors import ImageError
from kapelle.images.build import chmod, dockerfile, expand, lint, remote, schedule, stages
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


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${A-y}${E-y}${N-y}", "1y"),
        ("${E+y}${N+y}${A+y}", "yy"),
        ("${N:-${A}}${N:-$P}", "1a/b/c"),
        ("${P//\\//-}", "a-b-c"),
        ("${P/?/x}", "x/b/c"),
        ("${P##*/}${P#nothing}", "ca/b/c"),
        ("${P%/*}${P%%/*}", "a/ba"),
        ("${P/[ab]/x}", "a/b/c"),  # brackets are no pattern here
        ("$1abc $A$", "abc 1$"),
        ("\\$A \\\\ 'x\\y' \"\\a\\$\"", "$A \\ x\\y \\a$"),
    ],
)
def test_every_modifier_of_a_variable(text: str, value: str) -> None:
    assert expand.word(text, {"A": "1", "E": "", "P": "a/b/c"}.get) == value


@pytest.mark.parametrize("text", ["${N?}", "${N:?words}", "${E:?words}", "${A", "${}", "${A!x}", "'open", '"open'])
def test_a_substitution_that_is_wrong_says_so(text: str) -> None:
    with pytest.raises(expand.ExpandError):
        expand.word(text, {"A": "1", "E": ""}.get)


@pytest.mark.parametrize(
    ("spec", "mode", "directory", "result"),
    [
        ("755", 0o600, False, 0o755),
        ("4755", 0o600, False, 0o4755),
        ("+x", 0o644, False, 0o755),
        ("u+x,g-r", 0o644, False, 0o704),
        ("u=rwX,go=rX", 0o600, False, 0o644),
        ("u=rwX,go=rX", 0o600, True, 0o755),
        ("a=r", 0o777, False, 0o444),
        ("g=u", 0o640, False, 0o660),
        ("u+s,+t", 0o755, False, 0o5755),
        ("go-rwx", 0o777, True, 0o700),
    ],
)
def test_modes_are_octal_or_symbols(spec: str, mode: int, directory: bool, result: int) -> None:
    assert chmod.parse(spec)(mode, directory) == result


@pytest.mark.parametrize("spec", ["", "rwx", "999", "u~x", "17777777", "x+u"])
def test_what_is_no_mode_is_refused(spec: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        chmod.parse(spec)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("FROM x\nRUN --mnt=x y\n", "did you mean --mount?"),
        ("FROM x\nCOPY --chown a b\n", "missing a value"),
        ("FROM x\nCOPY --from=a --from=b a b\n", "duplicate flag"),
        ("# escape=x\nFROM x\n", "invalid escape token"),
        ("# escape=`\n# escape=`\nFROM x\n", "only one escape"),
        ("FROM x AS 1st\n", "invalid name for build stage"),
    ],
)
def test_mistakes_in_flags_and_directives_are_named(text: str, words: str) -> None:
    with pytest.raises(ImageError) as caught:
        stages.split(dockerfile.parse(text, "D"))
    assert words in f"{caught.value.what} {caught.value.hint}"
    assert str(caught.value.where).startswith("D:")


def test_flags_may_hold_quotes_and_be_switches() -> None:
    run, copy, off = dockerfile.parse(
        'FROM x\nRUN --mount="type=cache,target=/a b" --mount=type=tmpfs,target=/t y\nCOPY --link a b\n'
        "COPY --link=false --parents=true a b\n",
        "D",
    ).instructions[1:]
    assert run.all("--mount") == ("type=cache,target=/a b", "type=tmpfs,target=/t")
    assert (copy.switch("--link"), copy.switch("--parents")) == (True, False)
    assert (off.switch("--link"), off.switch("--parents")) == (False, True)


def test_a_doubled_escape_at_the_end_goes_on_nowhere() -> None:
    assert parsed("FROM x\nRUN a \\\\\nRUN b\n") == ["FROM x", "RUN a \\\\", "RUN b"]


def test_directives_stand_at_the_top_only() -> None:
    read = dockerfile.parse("# syntax=docker/dockerfile:1\n# check=skip=all\n\n# escape=`\nFROM x\n", "D")
    assert dict(read.directives) == {"syntax": "docker/dockerfile:1", "check": "skip=all"}
    assert read.escape == "\\"


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("FROM x as y\n", "FromAsCasing"),
        ("FROM x AS Y\n", "StageNameCasing"),
        ("FROM x AS y\nFROM z AS y\n", "DuplicateStageName"),
        ("FROM x AS scratch\n", "ReservedStageName"),
        ("FROM x\nrun y\nRUN z\n", "ConsistentInstructionCasing"),
        ("FROM x\nRUN a \\\n\n b\n", "NoEmptyContinuation"),
        ("FROM x:$V\n", "UndefinedArgInFrom"),
        ("FROM --platform=$TARGETPLATFORM x\n", "RedundantTargetPlatform"),
        ("FROM --platform=linux/amd64 x\n", "FromPlatformFlagConstDisallowed"),
        ('FROM x\nCMD ["a"]\nCMD ["b"]\n', "MultipleInstructionsDisallowed"),
        ("FROM scratch\nWORKDIR $NOPE\n", "UndefinedVar"),
        ("FROM x\nWORKDIR a\n", "WorkdirRelativePath"),
        ("FROM x\nARG DB_PASSWORD\n", "SecretsUsedInArgOrEnv"),
        ("FROM x\nLABEL a b\n", "LegacyKeyValueFormat"),
        ("FROM x\nENTRYPOINT a\n", "JSONArgsRecommended"),
        ("FROM x\nMAINTAINER a\n", "MaintainerDeprecated"),
    ],
)
def test_build_checks(text: str, rule: str) -> None:
    read = dockerfile.parse(text, "D")
    assert rule in [w.rule for w in lint.check(read, stages.split(read))]
    skipped = dockerfile.parse(f"# check=skip={rule}\n{text}", "D")
    assert rule not in [w.rule for w in lint.check(skipped, stages.split(skipped))]


def test_a_clean_dockerfile_has_no_warning() -> None:
    text = (
        'ARG V=1\nFROM x:${V} AS a\nARG P\nENV A=$P B=${TARGETARCH}\nWORKDIR /w\nCMD ["a"]\nFROM a\nCOPY --from=a / /\n'
    )
    read = dockerfile.parse(text, "D")
    assert lint.check(read, stages.split(read)) == []


def test_only_what_a_target_needs_is_built() -> None:
    text = (
        "FROM x AS a\nFROM a AS b\nFROM x AS c\nARG S=a\nRUN --mount=type=bind,from=b,target=/b x\n"
        "FROM x AS d\nFROM x\nCOPY --from=c / /\n"
    )
    split = stages.split(dockerfile.parse(text, "D"))
    depends = {s.number: stages.dependencies(s, split, {}.get, "\\", lambda _: False) for s in split.all}
    assert stages.needed(depends, 4) == [0, 1, 2, 4]
    assert stages.needed(depends, 3) == [3]


def test_stages_run_side_by_side_and_the_first_failure_is_told() -> None:
    import threading

    both = threading.Barrier(2, timeout=10)
    done: list[int] = []

    def perform(number: int) -> None:
        if number < 2:
            both.wait()
        done.append(number)
        if number == 1:
            raise ImageError("the second")

    with pytest.raises(ImageError, match="the second"):
        schedule.run([0, 1, 2], {0: set(), 1: set(), 2: {0, 1}}, perform, [])
    assert 2 not in done


@pytest.mark.parametrize(
    ("text", "url", "ref", "folder"),
    [
        ("https://example.org/a.git", "https://example.org/a.git", "", ""),
        ("https://example.org/a.git#main", "https://example.org/a.git", "main", ""),
        ("git@example.org:o/a.git#v1:sub/dir", "git@example.org:o/a.git", "v1", "sub/dir"),
        ("github.com/o/a#:sub", "https://github.com/o/a", "", "sub"),
    ],
)
def test_repositories_have_a_branch_and_a_folder(text: str, url: str, ref: str, folder: str) -> None:
    assert remote.is_git(text)
    assert remote.repository(text) == (url, ref, folder)


@pytest.mark.parametrize("text", ["https://example.org/a.tar.gz", "./a", "/x/a.git", "a.git", "file:///x/a.git"])
def test_other_things_are_no_repositories(text: str) -> None:
    assert not remote.is_git(text)


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
        ("**", "a/b", True),
        ("**/tmp/**", "a/tmp/b", True),
        ("a/**/z", "a/b/c/z", True),
        ("[a-c]x", "bx", True),
        ("[^a-c]x", "bx", False),
        ("\\!x", "!x", True),
        (".git/", ".git/config", True),
        ("  spaced  ", "spaced", True),
        ("./rel", "rel", True),
        ("a\n!a/b\na/b/c", "a/b/c", True),
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
