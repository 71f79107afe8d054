"""What a container may and may not, as the file says it: capabilities, read-only roots, limits, links in images."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

import pytest

from tests.scenarios.conftest import Kap, one_id
from tests.scenarios.test_kills import ours

DEFAULT = 0xA80425FB  # Docker's fourteen
NET_RAW, SYS_TIME = 1 << 13, 1 << 25


def status(kap: Kap, settings: str, field: str) -> str:
    """A field of /proc/self/status of a service with these settings."""
    kap.file(f"services:\n  a: {{image: busybox, {settings}}}\n")
    told = kap.ok("run", "--rm", "-T", "a", "cat", "/proc/self/status").out
    found = re.search(rf"^{field}:\s+(\S+)", told, re.M)
    assert found, told
    return found.group(1)


def says(kap: Kap, settings: str, script: str) -> tuple[int, str]:
    kap.file(f"services:\n  a: {{image: busybox, {settings}}}\n")
    done = kap("run", "--rm", "-T", "a", "sh", "-c", script)
    return done.code, done.out.strip()


def test_capabilities_are_dockers_but_for_what_the_file_adds_and_drops(kap: Kap) -> None:
    assert int(status(kap, "init: false", "CapEff"), 16) == DEFAULT
    assert int(status(kap, "cap_drop: [NET_RAW]", "CapEff"), 16) == DEFAULT & ~NET_RAW
    assert int(status(kap, "cap_add: [CAP_SYS_TIME]", "CapBnd"), 16) == DEFAULT | SYS_TIME
    assert int(status(kap, "cap_drop: [ALL]", "CapBnd"), 16) == 0
    assert int(status(kap, "cap_drop: [ALL], cap_add: [NET_RAW]", "CapEff"), 16) == NET_RAW
    assert int(status(kap, "user: '1000'", "CapEff"), 16) == 0


def test_the_filter_and_no_new_privileges_are_set_as_asked(kap: Kap) -> None:
    assert status(kap, "init: false", "Seccomp") == "2"
    assert status(kap, "init: false", "NoNewPrivs") == "0"
    assert status(kap, "security_opt: ['no-new-privileges:true']", "NoNewPrivs") == "1"
    assert status(kap, "security_opt: ['seccomp:unconfined']", "Seccomp") == "0"


def test_a_read_only_root_can_be_written_nowhere_but_in_its_mounts(kap: Kap) -> None:
    code, _ = says(kap, "read_only: true", "touch /x 2>/dev/null")
    assert code != 0
    script = "touch /t/x /v/x && echo written; touch /bin/x 2>/dev/null || echo refused"
    assert says(kap, "read_only: true, tmpfs: /t, volumes: ['/v']", script) == (0, "written\nrefused")


def test_limits_users_and_names_are_the_files(kap: Kap) -> None:
    assert says(kap, "ulimits: {nofile: {soft: 77, hard: 99}}", "ulimit -n; ulimit -Hn") == (0, "77\n99")
    groups = "6" if one_id(kap) else "6 7"  # further groups need further ids
    assert says(kap, "user: '5:6', group_add: ['7']", "id -u; id -g; id -G") == (0, f"5\n6\n{groups}")
    assert says(kap, "hostname: one, domainname: two", "hostname; cat /proc/sys/kernel/domainname") == (0, "one\ntwo")
    assert says(kap, "init: true", "cat /proc/1/comm")[1] != "sh"
    assert says(kap, "sysctls: {net.core.somaxconn: '77'}", "cat /proc/sys/net/core/somaxconn") == (0, "77")
    assert says(kap, "shm_size: 1m", "df -k /dev/shm | tail -1 | awk '{print $2}'") == (0, "1024")


def test_a_link_in_an_image_leads_no_mount_and_no_folder_out_of_the_container(kap: Kap, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    kap.file(f"FROM busybox\nRUN ln -s {outside} /data && ln -s ../../../../../..{outside} /up\n", "Dockerfile")
    kap.file("services:\n  a: {build: ., volumes: ['v:/data/deep', './bound:/up/bound'], working_dir: /data/deep}\n"
             "volumes: {v: }\n")  # fmt: skip
    (kap.folder / "bound").mkdir()
    kap.file("here", "bound/file")
    kap.ok("build", timeout=200)
    kap.ok("run", "--rm", "-T", "a", "sh", "-c", "pwd; touch /data/deep/x; cat /up/bound/file")
    assert list(outside.iterdir()) == [], "a mount or folder was made on the host"


@pytest.mark.parametrize("place", ["/proc/self/fd/3", "/proc/self/fd/7", "/proc/1/root", "/proc/self/cwd"])
def test_a_working_directory_in_proc_shows_nothing_of_the_host(kap: Kap, tmp_path: Path, place: str) -> None:
    canary = tmp_path / "canary"
    canary.write_text("")
    up = "/".join([".."] * 12)
    look = f"for p in . {up}; do [ -e $p{canary} ] && echo FOUND; done; [ -e {canary} ] && echo FOUND; echo looked"
    kap.file(f"services:\n  a: {{image: busybox, working_dir: {place}}}\n")
    done = kap("run", "--rm", "-T", "a", "sh", "-c", look)
    assert "FOUND" not in done.out
    assert done.code != 0 or "looked" in done.out, done


def test_the_interpreter_behind_the_containers_lies_behind_a_read_only_mount(kap: Kap) -> None:
    """CVE-2019-5736: what a container may reach by /proc/PID/exe must not be writable, not even for root."""
    kap.file("services:\n  a: {image: busybox, command: [sleep, '1000']}\n")
    kap.ok("up", "-d")
    for pid in (*ours(kap, "kap-keeper"), *ours(kap, "kap-supervisor")):
        program = f"/proc/{pid}/exe"
        with pytest.raises(OSError) as told:
            os.chmod(program, os.stat(program).st_mode & 0o7777)  # changes nothing where it is allowed
        assert told.value.errno == errno.EROFS
