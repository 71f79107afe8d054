"""Device rules of a v2 control group: a small eBPF program of type BPF_PROG_TYPE_CGROUP_DEVICE (bpf(2))."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable

from kapelle.linux import libc

_PROG_LOAD, _PROG_ATTACH = 5, 8
_TYPE_CGROUP_DEVICE = 15
_ATTACH_CGROUP_DEVICE = 6
_ALLOW_MULTI = 2
_KINDS = {"b": 1, "c": 2}
_ACCESS = {"m": 1, "r": 2, "w": 4}
_LDX_W, _MOV_REG, _MOV_IMM, _AND_IMM, _RSH_IMM, _JNE_IMM, _EXIT = 0x61, 0xBF, 0xB7, 0x57, 0x77, 0x55, 0x95

# (kind, major, minor, access): kind a, b or c; -1 is any number; access of r, w, m.
DeviceRule = tuple[str, int, int, str]


def _instruction(code: int, dst: int = 0, src: int = 0, offset: int = 0, value: int = 0) -> bytes:
    return struct.pack("=BBhi", code, src << 4 | dst, offset, value)


def device_program(allowed: Iterable[DeviceRule]) -> bytes:
    """Allow what one of the rules allows whole; refuse the rest.

    The context has three words: access << 16 | kind, major, minor (struct bpf_cgroup_dev_ctx).
    """
    out = [
        _instruction(_LDX_W, 2, 1, 0), _instruction(_MOV_REG, 3, 2), _instruction(_AND_IMM, 2, value=0xFFFF),
        _instruction(_RSH_IMM, 3, value=16), _instruction(_LDX_W, 4, 1, 4), _instruction(_LDX_W, 5, 1, 8),
    ]  # fmt: skip
    for kind, major, minor, access in allowed:
        tests = []  # (register, value it must have)
        if kind in _KINDS:
            tests.append((2, _KINDS[kind]))
        if major >= 0:
            tests.append((4, major))
        if minor >= 0:
            tests.append((5, minor))
        refused = 7 & ~sum(_ACCESS[letter] for letter in set(access))
        length = len(tests) + (3 if refused else 0) + 2
        block: list[bytes] = []
        for register, value in tests:
            block.append(_instruction(_JNE_IMM, register, offset=length - len(block) - 1, value=value))
        if refused:
            block += [_instruction(_MOV_REG, 0, 3), _instruction(_AND_IMM, 0, value=refused)]
            block.append(_instruction(_JNE_IMM, 0, offset=length - len(block) - 1))
        out += [*block, _instruction(_MOV_IMM, 0, value=1), _instruction(_EXIT)]
    return b"".join([*out, _instruction(_MOV_IMM, 0), _instruction(_EXIT)])


def attach_device_program(group: str, allowed: Iterable[DeviceRule]) -> None:
    """Put the rules on a v2 group; they go with it. Raises OSError where the kernel or our rights don't allow it."""
    program = device_program(allowed)
    instructions, licence = ctypes.create_string_buffer(program, len(program)), ctypes.c_char_p(b"MIT")
    address = ctypes.cast(licence, ctypes.c_void_p).value or 0
    load = struct.pack(
        "=IIQQIIQII", _TYPE_CGROUP_DEVICE, len(program) // 8, ctypes.addressof(instructions), address, 0, 0, 0, 0, 0
    )
    fd = _bpf(_PROG_LOAD, load)
    try:
        folder = os.open(group, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _bpf(_PROG_ATTACH, struct.pack("=IIII", folder, fd, _ATTACH_CGROUP_DEVICE, _ALLOW_MULTI))
        finally:
            os.close(folder)
    finally:
        os.close(fd)


def _bpf(command: int, attributes: bytes) -> int:
    buffer = ctypes.create_string_buffer(attributes, 128)
    result: int = libc.lib.syscall(
        ctypes.c_long(libc.SYS_bpf), ctypes.c_int(command), buffer, ctypes.c_uint(len(attributes))
    )
    if result < 0:
        libc.raise_errno("bpf", f"command {command}")
    return result
