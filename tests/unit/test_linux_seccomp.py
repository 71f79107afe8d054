"""The filter's program, run by a small interpreter of classic BPF over every system call."""

from __future__ import annotations

import struct

import pytest

from kapelle.linux import caps, seccomp

ARCHES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
ALLOW, EPERM, ENOSYS = 0x7FFF0000, 0x00050001, 0x00050026


def verdict(program: bytes, arch: int, number: int, arg0: int = 0) -> int:
    rows = list(struct.iter_unpack("=HBBI", program))
    data = struct.pack("=IIQ6Q", number, arch, 0, arg0, 0, 0, 0, 0, 0)
    at = accumulator = 0
    while True:
        code, true, false, k = rows[at]
        at += 1
        if code == 0x20:
            accumulator = struct.unpack_from("=I", data, k)[0]
        elif code == 0x06:
            return int(k)
        elif code == 0x05:
            at += k
        else:
            hit = {0x15: accumulator == k, 0x35: accumulator >= k, 0x45: bool(accumulator & k)}[code]
            at += true if hit else false


@pytest.mark.parametrize("arch", ARCHES)
def test_every_call_has_the_verdict_that_the_table_says(arch: str) -> None:
    program = seccomp.filter_for(caps.DEFAULT, arch)
    allowed = seccomp.allowed_names(caps.DEFAULT, arch)
    for name, number in seccomp.numbers_of(arch).items():
        wanted = ALLOW if name in allowed else ENOSYS if name == "clone3" else EPERM
        assert verdict(program, ARCHES[arch], number) == wanted, name


@pytest.mark.parametrize("arch", ARCHES)
@pytest.mark.parametrize("name", ["mount", "umount2", "unshare", "setns", "bpf", "keyctl", "init_module", "reboot"])
def test_what_leads_out_of_a_container_is_refused(arch: str, name: str) -> None:
    program = seccomp.filter_for(caps.DEFAULT, arch)
    assert verdict(program, ARCHES[arch], seccomp.numbers_of(arch)[name]) == EPERM


def test_clone_may_make_threads_and_children_but_no_namespaces() -> None:
    program, clone = seccomp.filter_for(caps.DEFAULT, "x86_64"), seccomp.numbers_of("x86_64")["clone"]
    assert verdict(program, ARCHES["x86_64"], clone, 17) == ALLOW
    assert verdict(program, ARCHES["x86_64"], clone, 17 | 0x10000000) == EPERM


def test_sockets_of_the_virtual_machines_host_and_the_kernels_crypto_are_refused() -> None:
    program, number = seccomp.filter_for(caps.DEFAULT, "x86_64"), seccomp.numbers_of("x86_64")["socket"]
    assert [verdict(program, ARCHES["x86_64"], number, family) for family in (2, 38, 40)] == [ALLOW, EPERM, EPERM]


def test_a_capability_opens_its_calls() -> None:
    program = seccomp.filter_for(caps.DEFAULT | {"CAP_SYS_ADMIN"}, "x86_64")
    assert verdict(program, ARCHES["x86_64"], seccomp.numbers_of("x86_64")["mount"]) == ALLOW


def test_calls_of_a_foreign_architecture_do_not_exist() -> None:
    program = seccomp.filter_for(caps.DEFAULT, "x86_64")
    assert verdict(program, 0x40000003, 1) == ENOSYS
    assert verdict(program, ARCHES["x86_64"], 0x40000001) == ENOSYS
