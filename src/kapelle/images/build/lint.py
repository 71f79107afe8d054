"""Build checks (`build --check`): what is legal and probably not meant, by the names of BuildKit's rules. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from kapelle.errors import Position
from kapelle.images.build import arguments, expand, hostsettings
from kapelle.images.build.dockerfile import Dockerfile, Instruction
from kapelle.images.build.stages import Stage, Stages
from kapelle.light import NamedTuple

_SECRET = re.compile(r"(?i)(^|_)(apikey|auth|credential|credentials|key|password|pword|passwd|secret|token)(_|$)")
_PREDEFINED = {name for p in hostsettings.PROXIES for name in (p, p.lower())} | {"SOURCE_DATE_EPOCH"}


class Finding(NamedTuple):
    rule: str
    text: str
    where: Position


def check(parsed: Dockerfile, split: Stages) -> list[Finding]:
    """Every warning, in the order of the file. A `# check=skip=RULE,…` (or skip=all) directive leaves some out."""
    found = [
        *_casing(parsed), *_empty(parsed), *_stage_names(split),
        *(w for s in split.all for w in (*_from(s, split, parsed.escape), *_body(s, split, parsed.escape))),
    ]  # fmt: skip
    directive = dict(parsed.directives).get("check", "")
    skipped = re.search(r"skip=([\w,]+)", directive)
    names = {n.lower() for n in skipped[1].split(",")} if skipped else set()
    kept = [w for w in found if "all" not in names and w.rule.lower() not in names]
    return sorted(kept, key=lambda w: (w.where.line, w.rule))


def _casing(parsed: Dockerfile) -> Iterator[Finding]:
    uppers = sum(i.word.isupper() for i in parsed.instructions)
    wanted = "uppercase" if uppers * 2 >= len(parsed.instructions) else "lowercase"
    for i in parsed.instructions:
        if not (i.word.isupper() if wanted == "uppercase" else i.word.islower()):
            text = f"Command '{i.word}' should match the case of the command majority ({wanted})"
            yield Finding("ConsistentInstructionCasing", text, i.where)
    for i in parsed.instructions:
        words = i.text.split()
        if i.name == "FROM" and len(words) == 3 and words[1].isupper() != i.word.isupper():
            text = f"'{words[1]}' and '{i.word}' keywords' casing do not match"
            yield Finding("FromAsCasing", text, i.where)


def _empty(parsed: Dockerfile) -> Iterator[Finding]:
    for line in parsed.empty_continuations[:1]:
        where = Position(parsed.instructions[0].where.file, line, 1)
        yield Finding("NoEmptyContinuation", "Empty continuation line", where)


def _stage_names(split: Stages) -> Iterator[Finding]:
    seen: set[str] = set()
    for stage in split.all:
        if not stage.name:
            continue
        written = stage.start.text.split()[2]
        if written != written.lower():
            yield Finding("StageNameCasing", f"Stage name '{written}' should be lowercase", stage.start.where)
        if stage.name in ("context", "scratch"):
            text = f'Stage name should not use the same name as reserved stage "{stage.name}"'
            yield Finding("ReservedStageName", text, stage.start.where)
        if stage.name in seen:
            text = f'Duplicate stage name "{stage.name}", stage names should be unique'
            yield Finding("DuplicateStageName", text, stage.start.where)
        seen.add(stage.name)


def _from(stage: Stage, split: Stages, escape: str) -> Iterator[Finding]:
    known: dict[str, str | None] = dict(arguments.of_file(split, {}, escape))
    for declared in split.arguments:
        for word in declared.text.split():
            known.setdefault(word.partition("=")[0], "given")
    missing: list[str] = []

    def lookup(name: str) -> str | None:
        if name not in known:
            missing.append(name)
        return known.get(name)

    try:
        expand.word(stage.base, lookup, escape)
    except expand.ExpandError:
        return
    for name in missing:
        text = f"FROM argument '{name}' is not declared"
        yield Finding("UndefinedArgInFrom", text, stage.start.where)
    if stage.platform == "$TARGETPLATFORM" or stage.platform == "${TARGETPLATFORM}":
        text = f"Setting platform to predefined {stage.platform} in FROM is redundant as this is the default behavior"
        yield Finding("RedundantTargetPlatform", text, stage.start.where)
    elif stage.platform and "$" not in stage.platform:
        text = f'FROM --platform flag should not use constant value "{stage.platform}"'
        yield Finding("FromPlatformFlagConstDisallowed", text, stage.start.where)


def _body(stage: Stage, split: Stages, escape: str) -> Iterator[Finding]:
    known = set(arguments.automatic()) | _PREDEFINED
    inherits = split.find(stage.base) is None and stage.base != "scratch"  # its base image's variables are not known
    based = False
    counts: dict[str, Instruction] = {}
    for i in stage.instructions:
        if i.name == "MAINTAINER":
            text = "Maintainer instruction is deprecated in favor of using label"
            yield Finding("MaintainerDeprecated", text, i.where)
        if i.name in ("CMD", "ENTRYPOINT", "HEALTHCHECK"):
            if i.name in counts:
                text = f"Multiple {i.name} instructions should not be used in the same stage: only the last one counts"
                yield Finding("MultipleInstructionsDisallowed", text, counts[i.name].where)
            counts[i.name] = i
        if i.name in ("CMD", "ENTRYPOINT") and i.json() is None:
            text = f"JSON arguments recommended for {i.name} to prevent unintended behavior related to OS signals"
            yield Finding("JSONArgsRecommended", text, i.where)
        if i.name in ("ENV", "LABEL") and "=" not in i.text.split(None, 1)[0]:
            text = f'"{i.name} key=value" should be used instead of legacy "{i.name} key value" format'
            yield Finding("LegacyKeyValueFormat", text, i.where)
        if i.name == "WORKDIR":
            if not i.text.startswith(("/", "$", '"/', "'/")) and not based:
                text = f'Relative workdir "{i.text}" can have unexpected results if the base image changes'
                yield Finding("WorkdirRelativePath", text, i.where)
            based = True
        if i.name in ("ENV", "ARG"):
            for word in i.text.split():
                key = word.partition("=")[0]
                if _SECRET.search(key) and key.isidentifier() and ("=" in word or i.name == "ARG"):
                    text = f'Do not use ARG or ENV instructions for sensitive data ({i.name} "{key}")'
                    yield Finding("SecretsUsedInArgOrEnv", text, i.where)
        if not inherits and i.name in ("ENV", "WORKDIR", "COPY", "ADD", "LABEL", "USER", "EXPOSE", "VOLUME"):
            for name in re.findall(r"(?<!\\)\$\{?([A-Za-z_]\w*)(?=[}\W]|$)(?![:?+-])", i.text):
                if name not in known and name != "PATH":
                    yield Finding("UndefinedVar", f"Usage of undefined variable '${name}'", i.where)
        if i.name in ("ENV", "ARG"):
            known |= {w.partition("=")[0] for w in i.text.split()}


def text(warning: Finding, parsed: Dockerfile) -> str:
    """As BuildKit prints one: rule, words, place, line."""
    line = parsed.lines[warning.where.line - 1] if warning.where.line <= len(parsed.lines) else ""
    return (
        f"WARNING: {warning.rule}\n{warning.text}\n{warning.where.file}:{warning.where.line}\n"
        f"--------------------\n{warning.where.line:4} | >>> {line}\n--------------------\n"
    )
