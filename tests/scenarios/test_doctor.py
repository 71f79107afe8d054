"""`kap doctor` on machines made worse step by step: it names what is missing, and what it advises moves the rung.

The machine is this one, seen from mount, network and user namespaces of the test's own: nothing of it is changed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.scenarios.conftest import ROOT

_TOOLS = ("unshare", "setpriv", "sysctl", "usermod", "newuidmap")
_SYSTEM = "/usr/bin/python3"  # what an ordinary user may run

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes machines"),
    pytest.mark.skipif(not all(map(shutil.which, _TOOLS)), reason="needs util-linux, uidmap and passwd"),
    pytest.mark.skipif(
        subprocess.run([_SYSTEM, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"], check=False).returncode != 0
        if Path(_SYSTEM).exists()
        else True,
        reason="needs a Python that an ordinary user may run",
    ),
]

# /etc is a copy-on-write one; `doctor` runs as a user of it that is made here.
MACHINE = """
mount --make-rprivate /
mkdir etc work && mount -t tmpfs tmpfs work && mkdir work/upper work/work
mount -t overlay overlay -o lowerdir=/etc,upperdir=work/upper,workdir=work/work /etc
rm -f /etc/subuid /etc/subgid
sed -i '/^doctors-guest:/d' /etc/passwd /etc/group
echo 'doctors-guest:x:54321:54321::/:/bin/sh' >> /etc/passwd
echo 'doctors-guest:x:54321:' >> /etc/group
touch /etc/subuid /etc/subgid
range() { echo doctors-guest:3000000:65536 > /etc/subuid; cp /etc/subuid /etc/subgid; }
PATH=$PATH:/usr/sbin
kap() { setpriv --reuid 54321 --regid 54321 --clear-groups env PYTHONPATH="$HERE/src" \
  KAP_HOME="${KAP_PLACE:-$HERE/home}" /usr/bin/python3 -m kapelle "$@"; }
doctor() { kap doctor --format json || true; }
mend() { sh -ec "$(doctor | /usr/bin/python3 -c 'import json, sys
print(next(f["admin"] for f in json.load(sys.stdin)["findings"] if f["name"] == sys.argv[1]))' "$1")"; }
"""


@pytest.fixture
def place() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="kap-doctor-", dir="/tmp"))
    folder.chmod(0o755)
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "home").mkdir()
    os.chown(folder / "home", 54321, 54321)
    yield folder
    shutil.rmtree(folder)


def seen(place: Path, script: str) -> list[dict[str, Any]]:
    """What each `doctor` of the script told: its rung, and the findings by name."""
    done = subprocess.run(
        ["unshare", "-mn", "sh", "-ec", f"{MACHINE}\n{script}"], cwd=place, env={**os.environ, "HERE": str(place)},
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done
    told = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return [{"rung": t["rung"], **{f["name"]: f for f in t["findings"]}} for t in told]


def test_a_range_of_ids_is_missed_and_the_command_that_it_names_gives_rung_2(place: Path) -> None:
    before, after = seen(place, "doctor; mend 'subordinate ids'; doctor")
    assert before["rung"] == "R3"
    assert "no range for doctors-guest" in before["subordinate ids"]["seen"]
    assert "usermod --add-subuids" in before["subordinate ids"]["admin"]
    assert after["rung"] == "R2"
    assert after["subordinate ids"]["ok"]


def test_the_helpers_are_missed_and_rung_2_is_there_when_they_are(place: Path) -> None:
    hide = "helper=$(command -v newuidmap); range; mount --bind /dev/null $helper; doctor; umount $helper; doctor"
    before, after = seen(place, hide)
    assert before["rung"] == "R3"
    assert before["subordinate ids"]["seen"] == "no newuidmap"
    assert "apt-get install -y uidmap" in before["subordinate ids"]["admin"]
    assert after["rung"] == "R2"


def test_low_ports_are_missed_and_the_setting_that_it_names_gives_them(place: Path) -> None:
    script = "sysctl -qw net.ipv4.ip_unprivileged_port_start=1024; doctor; mend 'published ports' >&2; doctor"
    before, after = seen(place, script)
    assert not before["published ports"]["ok"]
    assert "--ports=auto" in before["published ports"]["user"]
    assert after["published ports"]["ok"]


def test_a_place_that_overlay_does_not_take_is_told_and_another_one_serves(place: Path) -> None:
    """A home on an overlay, as in another container; then on a tmpfs, as the advice says."""
    script = (
        "range; mkdir work/u work/w work/l stacked home2\n"
        "mount -t overlay overlay -o lowerdir=work/l,upperdir=work/u,workdir=work/w stacked; chmod 777 stacked\n"
        "mount -t tmpfs tmpfs home2; chmod 777 home2\n"
        "KAP_PLACE=$HERE/stacked doctor; KAP_PLACE=$HERE/home2 doctor"
    )
    before, after = seen(place, script)
    assert not before["storage"]["ok"], before["storage"]
    assert "KAP_HOME=FOLDER" in before["storage"]["user"]
    assert after["storage"]["ok"], after["storage"]


# A namespace in which user namespaces are forbidden, and allowed again by one who may.
FORBIDDEN = """
import os, sys
from kapelle.linux import idmap, process
os.setresgid(54321, 54321, 54321); os.setresuid(54321, 54321, 54321)
process.prctl(process.PR_SET_DUMPABLE, 1)
idmap.enter_single(54321, 54321)
def doctor():
    if os.fork() == 0:
        os.execv(sys.executable, [sys.executable, "-m", "kapelle", "doctor", "--format", "json"])
    os.wait()
idmap.write("/proc/sys/user/max_user_namespaces", "0")
doctor()
idmap.write("/proc/sys/user/max_user_namespaces", "15000")
doctor()
"""


def test_forbidden_namespaces_are_told_and_the_setting_that_it_names_gives_a_rung(place: Path) -> None:
    (place / "forbid.py").write_text(FORBIDDEN)
    before, after = seen(place, "PYTHONPATH=$HERE/src KAP_HOME=$HERE/home /usr/bin/python3 forbid.py")
    assert before["rung"] == ""
    assert before["namespaces"]["seen"] == "user.max_user_namespaces = 0"
    assert before["namespaces"]["admin"] == "sysctl -w user.max_user_namespaces=15000"
    assert after["rung"] == "R3"
    assert after["namespaces"]["ok"]


def test_a_machine_made_worse_in_five_steps_loses_one_thing_after_the_other(place: Path) -> None:
    """Low ports, the overlay, the helpers of subordinate ids, the ids, user namespaces: each is missed from then on."""
    (place / "forbid.py").write_text(FORBIDDEN)
    script = (
        "range; sysctl -qw net.ipv4.ip_unprivileged_port_start=80; doctor\n"
        "sysctl -qw net.ipv4.ip_unprivileged_port_start=1024; doctor\n"
        "mkdir work/u work/w work/l stacked\n"
        "mount -t overlay overlay -o lowerdir=work/l,upperdir=work/u,workdir=work/w stacked; chmod 777 stacked\n"
        "export KAP_PLACE=$HERE/stacked; doctor\n"
        "mount --bind /dev/zero $(command -v newuidmap); doctor\n"
        ": > /etc/subuid; : > /etc/subgid; doctor\n"
        "PYTHONPATH=$HERE/src KAP_HOME=$KAP_PLACE /usr/bin/python3 forbid.py | head -1\n"
    )
    told = seen(place, script)
    assert [t["rung"] for t in told] == ["R2", "R2", "R2", "R3", "R3", ""]
    watched = ("published ports", "storage", "subordinate ids", "namespaces")
    missed = [[name for name in watched if not t[name]["ok"]] for t in told]
    assert missed == [[], ["published ports"], [*watched[:2]], [*watched[:3]], [*watched[:3]], [*watched]]
    for step, name in enumerate(watched[:3], 1):
        assert told[step][name]["lost"], "what does not work is said"
        assert told[step][name]["admin"], "and who may mend it how"
    # the two ways below the kernel's overlay: the second where the first one's device is not this user's to open
    way = "copies on" if "/dev/fuse" in told[2]["storage"]["seen"] or not shutil.which("fuse-overlayfs") else "fuse-"
    assert told[2]["storage"]["seen"].startswith(way)
    assert told[3]["subordinate ids"]["seen"] == "no newuidmap"
    assert "usermod" not in told[3]["subordinate ids"]["admin"]
    assert "usermod --add-subuids" in told[4]["subordinate ids"]["admin"]
    assert told[5]["namespaces"]["admin"] == "sysctl -w user.max_user_namespaces=15000"


def test_control_groups_that_are_handed_over_give_limits(place: Path) -> None:
    own = dict(row.rstrip("\n").split(":", 2)[1:] for row in open("/proc/self/cgroup"))
    group = next(
        (f"/sys/fs/cgroup/{n}{own[n].rstrip('/')}" for n in ("pids", "memory", "freezer") if n in own), ""
    )  # fmt: skip
    if not group or not os.access(group, os.W_OK):
        pytest.skip("no control group can be made here")
    made = f"{group}/kap-doctor-test"
    script = f"doctor; echo $$ > {made}/cgroup.procs; doctor"
    os.mkdir(made)
    os.chown(made, 54321, 54321)
    try:
        before, after = seen(place, script)
    finally:
        os.rmdir(made)
    assert not before["limits"]["ok"]
    assert after["limits"]["ok"]


def test_everything_that_is_missed_is_in_one_script_for_the_administrator(place: Path) -> None:
    script = (
        "sysctl -qw net.ipv4.ip_unprivileged_port_start=1024\n"
        "kap doctor --admin-script > mend.sh; doctor; sh mend.sh >&2; doctor"
    )
    before, after = seen(place, script)
    assert (before["rung"], after["rung"]) == ("R3", "R2")
    assert after["published ports"]["ok"]
