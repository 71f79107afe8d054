"""What of the host a file asks for, in words with places."""

from __future__ import annotations

from pathlib import Path

import pytest

from kapelle.compose.load import Options, load
from kapelle.engine import hostaccess


def asked(tmp_path: Path, service: str, home: str = "/home/ann") -> list[str]:
    (tmp_path / "compose.yaml").write_text(f"services:\n  web:\n    image: x\n{service}\n")
    project = load(Options(), str(tmp_path), {"HOME": home}).project
    found = hostaccess.notices(project.services, home=home, root=True)
    own = 'service "web": '
    return [f"{n.where.line if n.where else 0}: {n.text.removeprefix(own)}" for n in found]


@pytest.mark.parametrize(
    ("service", "words"),
    [
        ("    privileged: true", "4: privileged: true gives it all devices and rights"),
        ("    pid: host", "4: pid: host"),
        ("    network_mode: host", "4: network_mode: host"),
        ("    cap_add: [NET_ADMIN, SYS_ADMIN]", "4: cap_add SYS_ADMIN gives it mounts"),
        ("    cap_add: [all]", "4: cap_add all gives it every capability"),
        ("    security_opt: ['seccomp:unconfined']", "4: security_opt seccomp:unconfined: all system calls"),
        ("    devices: ['/dev/sda:/dev/xvda:r']", "4: devices gives it the host's /dev/sda"),
        ("    volumes: ['/var/run/docker.sock:/s']", "4: the bind of /var/run/docker.sock lets it command"),
        ("    volumes:\n      - a:/a\n      - /:/host:ro", "6: the bind of / lets it read all files of the host"),
        ("    volumes: ['/etc/../etc:/e']", "4: the bind of /etc lets it read and change the host's settings"),
        ("    volumes: ['~:/h']", "4: the bind of /home/ann lets it read and change your whole home folder"),
        ("    volumes: ['~/.ssh:/h:ro']", "4: the bind of /home/ann/.ssh lets it read your SSH keys"),
        ("    post_start: [{command: [x], privileged: true}]", "4: post_start runs a privileged command"),
    ],
)
def test_what_gives_the_host_away_is_told_with_its_line_and_meaning(tmp_path: Path, service: str, words: str) -> None:
    volumes = "\nvolumes: {a: }" if "a:/a" in service else ""
    told = asked(tmp_path, service + volumes)
    assert len(told) == 1
    assert told[0].startswith(words)


def test_what_every_file_does_is_not_told(tmp_path: Path) -> None:
    service = (
        "    cap_add: [NET_ADMIN]\n    security_opt: ['no-new-privileges:true']\n    pid: 'service:web2'\n"
        "    volumes: ['./src:/src', '/etc/localtime:/etc/localtime:ro', '~/project:/p', 'v:/v']\n"
        "  web2: {image: x}\nvolumes: {v: }"
    )
    assert asked(tmp_path, service) == []
