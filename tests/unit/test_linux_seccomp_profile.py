"""Profiles of Docker's form, compiled, and run by a small interpreter of classic BPF."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest

from kapelle.linux import seccomp
from kapelle.linux.seccomp_profile import compile_profile

ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
ALLOW, EPERM, ENOSYS, LOG = 0x7FFF0000, 0x00050001, 0x00050026, 0x7FFC0000
X86 = seccomp.numbers_of("x86_64")
Row = dict[str, Any]


def verdict(program: bytes, name: str | int, *arguments: int, arch: str = "x86_64") -> int:
    rows = list(struct.iter_unpack("=HBBI", program))
    number = name if isinstance(name, int) else seccomp.numbers_of(arch)[name]
    data = struct.pack("=IIQ6Q", number, ARCH[arch], 0, *arguments, *[0] * (6 - len(arguments)))
    at = accumulator = 0
    while True:
        code, true, false, k = rows[at]
        at += 1
        if code == 0x20:
            accumulator = struct.unpack_from("=I", data, k)[0]
        elif code == 0x54:
            accumulator &= k
        elif code == 0x06:
            return int(k)
        elif code == 0x05:
            at += k
        else:
            tests = {0x15: accumulator == k, 0x25: accumulator > k, 0x35: accumulator >= k, 0x45: bool(accumulator & k)}
            at += true if tests[code] else false


def profile(*rules: Row, default: str = "SCMP_ACT_ERRNO", caps: frozenset[str] = frozenset(), **more: Any) -> bytes:
    text = json.dumps({"defaultAction": default, "syscalls": list(rules), **more})
    return compile_profile(text, caps, "x86_64", (6, 1))


def allow(*names: str, **more: Any) -> Row:
    return {"names": list(names), "action": "SCMP_ACT_ALLOW", **more}


def deny(*names: str, **more: Any) -> Row:
    return {"names": list(names), "action": "SCMP_ACT_ERRNO", **more}


def test_what_is_named_is_allowed_the_rest_has_the_defaults_errno() -> None:
    program = profile(allow("read", "write"))
    assert [verdict(program, n) for n in ("read", "write", "open")] == [ALLOW, ALLOW, EPERM]
    assert verdict(profile(allow("read"), defaultErrnoRet=13), "open") == 0x0005000D


def test_calls_that_are_newer_than_we_know_do_not_exist_rather_than_being_refused() -> None:
    assert verdict(profile(allow("read")), max(X86.values()) + 50) == ENOSYS
    assert verdict(profile(deny("mkdir"), default="SCMP_ACT_ALLOW"), max(X86.values()) + 50) == ALLOW


def test_what_is_named_is_refused_where_all_else_is_allowed() -> None:
    program = profile(deny("mkdir", errnoRet=38), deny("chmod"), default="SCMP_ACT_ALLOW")
    assert [verdict(program, n) for n in ("mkdir", "chmod", "read")] == [ENOSYS, EPERM, ALLOW]


@pytest.mark.parametrize(
    ("operator", "value", "passes", "fails"),
    [
        ("EQ", 5, [5], [4, 6, 5 | 1 << 32]),
        ("NE", 5, [4, 6, 5 | 1 << 32], [5]),
        ("GT", 5, [6, 1 << 32], [5, 4]),
        ("GE", 5, [5, 6, 1 << 32], [4, 0]),
        ("LT", 5, [4, 0], [5, 6, 1 << 32]),
        ("LE", 5, [5, 4], [6, 1 << 32]),
        ("GT", 5 << 32, [5 << 32 | 1, 6 << 32], [5 << 32, 4 << 32 | 9]),
        ("LE", 5 << 32, [5 << 32, 4 << 32 | 9], [5 << 32 | 1, 6 << 32]),
    ],
)
def test_arguments_are_compared_as_64_bits(operator: str, value: int, passes: list[int], fails: list[int]) -> None:
    program = profile(allow("personality", args=[{"index": 0, "value": value, "op": f"SCMP_CMP_{operator}"}]))
    assert {verdict(program, "personality", n) for n in passes} == {ALLOW}
    assert {verdict(program, "personality", n) for n in fails} == {EPERM}


def test_a_masked_argument_is_compared_after_the_mask() -> None:
    row = {"index": 0, "value": 0x7E020000, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}
    program = profile(allow("clone", args=[row]))
    assert verdict(program, "clone", 17 | 1 << 40) == ALLOW
    assert verdict(program, "clone", 17 | 0x10000000) == EPERM


def test_all_arguments_of_a_rule_must_match_but_one_named_twice_may_match_either_way() -> None:
    both = [{"index": 0, "value": 2, "op": "SCMP_CMP_EQ"}, {"index": 1, "value": 1, "op": "SCMP_CMP_EQ"}]
    program = profile(allow("socket", args=both))
    assert [verdict(program, "socket", *a) for a in ((2, 1), (2, 2), (1, 1))] == [ALLOW, EPERM, EPERM]
    either = [{"index": 0, "value": n, "op": "SCMP_CMP_EQ"} for n in (2, 10)]
    program = profile(allow("socket", args=either))
    assert [verdict(program, "socket", n) for n in (2, 10, 1)] == [ALLOW, ALLOW, EPERM]


def test_several_rules_of_a_call_are_tried_in_order_and_one_without_arguments_wins() -> None:
    def on(value: int) -> list[Row]:
        return [{"index": 0, "value": value, "op": "SCMP_CMP_EQ"}]

    program = profile(allow("socket", args=on(1)), allow("socket", args=on(2)), default="SCMP_ACT_KILL_PROCESS")
    assert [verdict(program, "socket", n) for n in (1, 2, 3)] == [ALLOW, ALLOW, 0x80000000]
    program = profile(deny("socket", args=on(40)), allow("socket"))
    assert verdict(program, "socket", 40) == ALLOW


def test_capabilities_architecture_and_kernel_let_rules_in_and_keep_them_out() -> None:
    rules = (
        allow("mount", includes={"caps": ["CAP_SYS_ADMIN"]}),
        allow("chroot", excludes={"caps": ["CAP_SYS_ADMIN"]}),
        allow("arch_prctl", includes={"arches": ["amd64", "x32"]}),
        allow("ptrace", includes={"minKernel": "4.8"}),
        allow("bpf", includes={"minKernel": "9.0"}),
        allow("reboot", includes={"arches": ["s390x"]}),
    )
    names = ("mount", "chroot", "arch_prctl", "ptrace", "bpf", "reboot")
    without = profile(*rules)
    assert [verdict(without, n) == ALLOW for n in names] == [False, True, True, True, False, False]
    held = profile(*rules, caps=frozenset({"CAP_SYS_ADMIN"}))
    assert [verdict(held, n) == ALLOW for n in names[:2]] == [True, False]


def test_every_action_has_the_kernels_number() -> None:
    rules = [
        {"names": [name], "action": f"SCMP_ACT_{action}"}
        for name, action in (("read", "LOG"), ("write", "KILL"), ("open", "KILL_PROCESS"), ("close", "TRAP"))
    ]
    found = [verdict(profile(*rules), n) for n in ("read", "write", "open", "close")]
    assert found == [LOG, 0, 0x80000000, 0x00030000]
    assert verdict(profile({"names": ["read"], "action": "SCMP_ACT_TRACE", "errnoRet": 7}), "read") == 0x7FF00007


def test_calls_of_a_foreign_architecture_do_not_exist_whatever_the_profile_says() -> None:
    program = profile(default="SCMP_ACT_ALLOW", architectures=["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"])
    assert verdict(program, 0x40000001) == ENOSYS


def test_a_large_profile_with_many_rules_stays_within_reach_of_its_jumps() -> None:
    rules = [
        allow(name, args=[{"index": i, "value": n, "op": "SCMP_CMP_EQ"} for i in range(6)])
        for name in X86 for n in (1, 2)
    ]  # fmt: skip
    program = profile(*rules[:120])
    for rule in rules[:120:10]:
        assert verdict(program, rule["names"][0], *[1] * 6) == ALLOW
        assert verdict(program, rule["names"][0], *[1] * 5) == EPERM


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "it is not JSON"),
        ("[]", "not a JSON object"),
        ('{"defaultAction":"SCMP_ACT_NOTIFY"}', "unknown action SCMP_ACT_NOTIFY"),
        ("{}", "unknown action None"),
        ('{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"action":"SCMP_ACT_ERRNO"}]}', "names no system call"),
        ('{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":"read","action":"SCMP_ACT_LOG"}]}', "no system call"),
        ('{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["a"],"includes":[1]}]}', "are objects"),
        ('{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[1]}', "syscalls is not a list of objects"),
        ('{"defaultAction":"SCMP_ACT_ALLOW","architectures":["MIPS"]}', "unknown architecture MIPS"),
        (
            '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_ERRNO",'
            '"args":[{"index":7,"value":1,"op":"SCMP_CMP_EQ"}]}]}',
            "out of range",
        ),
        (
            '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_ERRNO",'
            '"args":[{"index":0,"value":1,"op":"LIKE"}]}]}',
            "unknown operator LIKE",
        ),
    ],
)
def test_what_a_profile_has_wrong_is_said(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        compile_profile(text, frozenset(), "x86_64")
