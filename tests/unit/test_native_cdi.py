"""Devices by CDI, and NVIDIA's without: what specifications and ld.so's cache say."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from kapelle.engines.native import cdi, given_devices, nvidia
from kapelle.model.service import DeviceRequest, Service


def spec(folder: Path, name: str, kind: str, *devices: str, **more: Any) -> None:
    folder.mkdir(exist_ok=True)
    rows = [{"name": d, "containerEdits": {"env": [f"GOT={d}"]}} for d in devices]
    (folder / name).write_text(json.dumps({"cdiVersion": "0.6.0", "kind": kind, "devices": rows, **more}))


def found(folder: Path, *requests: DeviceRequest, devices: tuple[str, ...] = ()) -> tuple[cdi.Edits, list[str]]:
    service = Service("a", device_requests=requests, devices=tuple((d, d, "rwm") for d in devices))
    edits, mistakes = given_devices.given(service, {"KAP_CDI_DIRS": str(folder)})
    return edits, [m.what for m in mistakes]


def test_a_specification_is_read_as_json_and_as_yaml_with_all_that_it_gives(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text(
        "cdiVersion: 0.5.0\nkind: vendor.com/net\ncontainerEdits: {env: [ALL=1]}\ndevices:\n"
        "- name: a\n  containerEdits:\n    env: [ONE=1]\n    deviceNodes:\n"
        "    - {path: /dev/a, hostPath: /dev/null, permissions: rw, uid: 7, fileMode: 432}\n"
        "    - {path: /dev/b, type: c, major: 1, minor: 5}\n"
        "    mounts: [{hostPath: /lib/x, containerPath: /lib/y, options: [ro, nosuid]}]\n"
        "    hooks: [{hookName: createContainer, path: /usr/bin/hook}]\n    additionalGIDs: [44]\n"
    )
    spec(tmp_path, "two.json", "vendor.com/disk", "b")
    registry = cdi.read([str(tmp_path)])
    assert sorted(registry.devices) == ["vendor.com/disk=b", "vendor.com/net=a"]
    assert registry.devices["vendor.com/net=a"] == cdi.Edits(
        ("ALL=1", "ONE=1"),
        (
            cdi.Node("/dev/null", "/dev/a", "rw", None, 7, None, 0o660),
            cdi.Node("/dev/b", "/dev/b", "rwm", ("c", 1, 5)),
        ),
        (("bind", "/lib/x", "/lib/y", ("ro", "nosuid")),),
        (44,),
        ("createContainer /usr/bin/hook",),
    )


def test_a_later_folder_wins_and_twice_in_one_folder_is_no_device(tmp_path: Path) -> None:
    etc, run = tmp_path / "etc", tmp_path / "run"
    spec(etc, "a.json", "v.com/c", "x", "y", containerEdits={"env": ["FROM=etc"]})
    spec(run, "a.json", "v.com/c", "x", containerEdits={"env": ["FROM=run"]})
    registry = cdi.read([str(etc), str(run)])
    assert registry.devices["v.com/c=x"].env[0] == "FROM=run"
    spec(run, "b.json", "v.com/c", "x")
    registry = cdi.read([str(run)])
    assert registry.devices == {}
    assert registry.problems == (("v.com/c=x", f"it is described twice in {run}"),)


def test_a_file_that_is_none_is_left_out_and_said(tmp_path: Path) -> None:
    for number, text in enumerate(
        ("{", "[]", '{"kind": 5}', '{"kind":"a/b","devices":[{"name":"-"}]}', '{"kind":"a"}')
    ):
        (tmp_path / f"{number}.json").write_text(text)
    (tmp_path / "x.yaml").write_text("a: [")
    registry = cdi.read([str(tmp_path), str(tmp_path / "missing")])
    assert registry.devices == {}
    assert len(registry.problems) == 6


def test_names_count_and_all_choose_devices(tmp_path: Path) -> None:
    spec(tmp_path, "a.json", "nvidia.com/gpu", "0", "1", "10", "all")
    assert found(tmp_path, devices=("nvidia.com/gpu=1",))[0].env == ("GOT=1",)
    assert found(tmp_path, DeviceRequest("gpus[0]", "cdi", ids=("nvidia.com/gpu=10",)))[0].env == ("GOT=10",)
    assert found(tmp_path, DeviceRequest("gpus[0]", "nvidia", 2))[0].env == ("GOT=0", "GOT=1")
    assert found(tmp_path, DeviceRequest("gpus[0]", "", -1, capabilities=("gpu",)))[0].env == ("GOT=all",)
    assert found(tmp_path, DeviceRequest("gpus[0]", ids=("1",)))[0].env == ("GOT=1",)


def test_what_is_not_here_is_refused(tmp_path: Path) -> None:
    spec(tmp_path, "a.json", "amd.com/gpu", "0")
    assert found(tmp_path, devices=("v.com/c=x",))[1] == ['service "a": unresolvable CDI device v.com/c=x']
    told = found(tmp_path, DeviceRequest("gpus[0]", "amd", 3))[1]
    assert told == ['service "a": 3 devices were asked for, 1 are here']
    told = found(tmp_path, DeviceRequest("deploy.resources.reservations.devices[0]", "tpu", 1, (), ("tpu",)))[1]
    assert told == ['service "a": could not select device driver "tpu" with capabilities: [[tpu]]']
    nodes = {"deviceNodes": [{"path": "/dev/x", "hostPath": str(tmp_path / "none")}]}
    spec(tmp_path, "b.json", "v.com/gone", "x", containerEdits=nodes)
    assert "which does not exist" in found(tmp_path, devices=("v.com/gone=x",))[1][0]


def cache(*rows: tuple[str, str, int]) -> bytes:
    """A cache of ld.so with these (name, path, flags)."""
    texts, table = b"", b""
    start = 48 + 24 * len(rows)
    for name, path, flags in rows:
        places = []
        for text in (name, path):
            places.append(start + len(texts))
            texts += text.encode() + b"\0"
        table += struct.pack("=iIIIQ", flags, *places, 0, 0)
    return b"glibc-ld.so.cache1.1" + struct.pack("=II20x", len(rows), len(texts)) + table + texts


def test_the_drivers_libraries_are_found_in_ld_sos_cache_those_of_32_bits_are_not() -> None:
    data = cache(
        ("libcuda.so.1", "/usr/lib/x86_64-linux-gnu/libcuda.so.1", 0x303),
        ("libcuda.so.1", "/usr/lib/i386-linux-gnu/libcuda.so.1", 0x003),
        ("libc.so.6", "/usr/lib/x86_64-linux-gnu/libc.so.6", 0x303),
        ("libnvidia-ml.so.1", "/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1", 0x303),
    )
    names = ["libcuda.so.1", "libc.so.6", "libnvidia-ml.so.1"]
    for text in (data, b"ld.so-1.7.0 an older table" + data):
        assert [name for name, _ in nvidia.entries(text)] == names
    assert list(nvidia.entries(data[:60])) == []
    assert list(nvidia.entries(b"")) == []


def test_nvidias_gpus_have_numbers_and_identities_and_bring_nodes_libraries_and_variables(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm", "nvidia-caps"):
        (tmp_path / "dev" / name).touch()
    info = tmp_path / "proc/driver/nvidia/gpus/0000:01:00.0"
    info.mkdir(parents=True)
    (info / "information").write_text("Model: \t T4\nGPU UUID: \t GPU-abc\nDevice Minor: \t 1\n")
    (tmp_path / "etc").mkdir()
    library = tmp_path / "libcuda.so.1"
    library.touch()
    (tmp_path / "etc/ld.so.cache").write_bytes(cache(("libcuda.so.1", str(library), 0x303)))
    gpus = nvidia.gpus(str(tmp_path))
    assert gpus == [nvidia.Gpu(0, ""), nvidia.Gpu(1, "GPU-abc")]
    edits = nvidia.edits(gpus[1:], ("gpu", "video"), all_of_them=False, root=str(tmp_path))
    assert [n.target for n in edits.nodes] == ["/dev/nvidia1", "/dev/nvidiactl", "/dev/nvidia-uvm"]
    assert edits.env == ("NVIDIA_VISIBLE_DEVICES=GPU-abc", "NVIDIA_DRIVER_CAPABILITIES=video")
    assert ("bind", str(library), str(library), ("ro", "nosuid", "nodev")) in edits.mounts
