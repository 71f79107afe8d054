"""Profiles of Docker's and OCI's form (security_opt seccomp=FILE) → a program of linux.seccomp.

As libseccomp and runc read them: a rule without arguments wins over rules with some, of which the first that matches
holds; arguments of one rule must all match, unless one is named twice, then any. Calls of a foreign architecture
do not exist, whatever the profile says of it, and neither do calls newer than our table where the default is to refuse.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from kapelle.light import Any, NamedTuple
from kapelle.linux import libc, seccomp
from kapelle.linux.seccomp import Program

_RETURNS = {
    "SCMP_ACT_ALLOW": 0x7FFF0000, "SCMP_ACT_LOG": 0x7FFC0000, "SCMP_ACT_KILL": 0, "SCMP_ACT_KILL_THREAD": 0,
    "SCMP_ACT_KILL_PROCESS": 0x80000000, "SCMP_ACT_TRAP": 0x00030000,
}  # fmt: skip
_WITH_NUMBER = {"SCMP_ACT_ERRNO": 0x00050000, "SCMP_ACT_TRACE": 0x7FF00000}
_ERRNO, _DATA = 0x00050000, 0xFFFF
_ARCHES = {"x86_64": ("SCMP_ARCH_X86_64", "amd64"), "aarch64": ("SCMP_ARCH_AARCH64", "arm64")}
_LD, _AND, _JEQ, _JGT, _JGE, _RET = 0x20, 0x54, 0x15, 0x25, 0x35, 0x06
_MOST = 4096  # BPF_MAXINSNS
_OPERATORS = ("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ")


class Argument(NamedTuple):
    number: int  # from 0
    operator: str
    value: int
    second: int


class Rule(NamedTuple):
    arguments: tuple[Argument, ...]
    result: int


def compile_profile(
    text: str, caps: frozenset[str], arch: str = libc.MACHINE, kernel: tuple[int, int] = (99, 0)
) -> bytes:
    """The program of a profile. ValueError, in words, for what can't be read or honoured."""
    profile = _read(text)
    numbers = seccomp.numbers_of(arch)
    default = _result(profile.get("defaultAction"), profile.get("defaultErrnoRet"))
    always: dict[int, int] = {}
    some: dict[int, list[Rule]] = {}
    for row in _rows(profile, "syscalls"):
        if not _applies(row, caps, arch, kernel):
            continue
        result = _result(row.get("action"), row.get("errnoRet"))
        names = row.get("names") or ([row["name"]] if row.get("name") else [])
        if not names or not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError("a rule of the profile names no system call")
        for number in (numbers[n] for n in names if n in numbers):
            for arguments in _alternatives(row):
                if arguments:
                    some.setdefault(number, []).append(Rule(arguments, result))
                else:
                    always.setdefault(number, result)
    verdicts = {n: f"return{always.get(n, default)}" for n in numbers.values()}
    looks: dict[str, seccomp.Look] = {}
    for number, rules in some.items():
        if number not in always:
            verdicts[number] = f"rules{number}"
            looks[verdicts[number]] = _look(tuple(rules), default)
    newer = _ERRNO | seccomp.ENOSYS if default & ~_DATA == _ERRNO else default
    program = seccomp.build(arch, verdicts, f"return{newer}", looks)
    if len(program) // 8 > _MOST:
        raise ValueError(f"it needs {len(program) // 8} instructions; the kernel takes {_MOST}")
    return program


def _read(text: str) -> Mapping[str, Any]:
    try:
        profile = json.loads(text)
    except ValueError as e:
        raise ValueError(f"it is not JSON: {e}") from None
    if not isinstance(profile, dict):
        raise ValueError("it is not a JSON object")
    if profile.get("listenerPath"):
        raise ValueError("listenerPath needs a listener, which is not here")
    if profile.get("architectures") and profile.get("archMap"):
        raise ValueError("both architectures and archMap were specified in the profile; use one of them")
    for name in _words(profile, "architectures"):
        if not name.startswith("SCMP_ARCH_"):
            raise ValueError(f"unknown architecture {name}")
    return profile


def _rows(tree: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    rows = tree.get(key) or []
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"{key} is not a list of objects")
    return rows


def _words(tree: Mapping[str, Any], key: str) -> list[str]:
    words = tree.get(key) or []
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise ValueError(f"{key} is not a list of words")
    return words


def _applies(row: Mapping[str, Any], caps: frozenset[str], arch: str, kernel: tuple[int, int]) -> bool:
    """Do the rule's includes and excludes (capabilities, architectures, the least kernel) let it in?"""
    wanted, unwanted = row.get("includes") or {}, row.get("excludes") or {}
    if not isinstance(wanted, dict) or not isinstance(unwanted, dict):
        raise ValueError("includes and excludes of a rule are objects")
    names = _ARCHES[arch]
    if not set(_words(wanted, "caps")) <= caps or set(_words(unwanted, "caps")) & caps:
        return False
    if _words(wanted, "arches") and not set(names) & set(_words(wanted, "arches")):
        return False
    if set(names) & set(_words(unwanted, "arches")):
        return False
    if wanted.get("minKernel") and kernel < _version(wanted["minKernel"]):
        return False
    return not (unwanted.get("minKernel") and kernel >= _version(unwanted["minKernel"]))


def _version(text: Any) -> tuple[int, int]:
    major, _, minor = str(text).partition(".")
    try:
        return int(major), int(minor.partition(".")[0] or 0)
    except ValueError:
        raise ValueError(f"minKernel {text} is no version") from None


def _result(action: Any, number: Any) -> int:
    """What the filter returns for an action (seccomp(2))."""
    if not isinstance(action, str):
        raise ValueError(f"unknown action {action}")
    if action in _RETURNS:
        return _RETURNS[action]
    if action in _WITH_NUMBER:
        if number is not None and not isinstance(number, int):
            raise ValueError(f"errno {number} is no number")
        return _WITH_NUMBER[action] | ((seccomp.EPERM if number is None else number) & _DATA)
    raise ValueError(f"unknown action {action}")


def _alternatives(row: Mapping[str, Any]) -> list[tuple[Argument, ...]]:
    """The argument lists of a rule, any of which has to match."""
    arguments = [_argument(a) for a in _rows(row, "args")]
    indexes = [a.number for a in arguments]
    if len(set(indexes)) < len(indexes):
        return [(a,) for a in arguments]
    return [tuple(arguments)]


def _argument(row: Mapping[str, Any]) -> Argument:
    operator = str(row.get("op", "")).removeprefix("SCMP_CMP_")
    if operator not in _OPERATORS:
        raise ValueError(f"unknown operator {row.get('op')}")
    index, value, second = (row.get(key, 0) for key in ("index", "value", "valueTwo"))
    if not all(isinstance(n, int) and n >= 0 for n in (index, value, second)) or index > 5:
        raise ValueError(f"an argument of a rule is out of range: {json.dumps(row)}")
    return Argument(index, operator, value, second)


def _look(rules: tuple[Rule, ...], default: int) -> seccomp.Look:
    def look(program: Program, here: str) -> None:
        for number, rule in enumerate(rules):
            fail = f"{here}fail{number}"
            for at, argument in enumerate(rule.arguments):
                _test(program, argument, f"{here}.{number}.{at}", fail)
            program.add(_RET, rule.result)
            program.label(fail)
        program.add(_RET, default)

    return look


def _halves(value: int) -> tuple[int, int]:
    return value >> 32 & 0xFFFFFFFF, value & 0xFFFFFFFF


def _test(program: Program, argument: Argument, here: str, fail: str) -> None:
    """Go on when the 64-bit argument passes, else to `fail`. Words are little-endian: the high half lies second."""
    low_at = seccomp.ARGS + 8 * argument.number
    passed, low = f"{here}passed", f"{here}low"
    if argument.operator == "MASKED_EQ":
        for offset, mask, value in _masked(low_at, argument):
            program.add(_LD, offset)
            program.add(_AND, mask)
            program.add(_JEQ, value, f"{here}{offset}", fail)
            program.label(f"{here}{offset}")
        return
    operator = argument.operator
    yes, no = (fail, passed) if operator in ("NE", "LT", "LE") else (passed, fail)
    operator = {"NE": "EQ", "LT": "GE", "LE": "GT"}.get(operator, operator)  # their opposites
    high, below = _halves(argument.value)
    program.add(_LD, low_at + 4)
    if operator != "EQ":
        program.add(_JGT, high, yes, f"{here}equal")
        program.label(f"{here}equal")
    program.add(_JEQ, high, low, no)
    program.label(low)
    program.add(_LD, low_at)
    program.add({"EQ": _JEQ, "GT": _JGT, "GE": _JGE}[operator], below, yes, no)
    program.label(passed)


def _masked(low_at: int, argument: Argument) -> Iterable[tuple[int, int, int]]:
    """(offset, mask, value) of both halves: value is the mask, valueTwo what is left."""
    masks, values = _halves(argument.value), _halves(argument.second)
    return (low_at + 4, masks[0], values[0]), (low_at, masks[1], values[1])
