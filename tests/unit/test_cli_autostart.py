"""The unit that `autostart` writes: its place, its words, and what is asked of systemctl."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from kapelle.cli import autostart
from kapelle.errors import EngineError
from kapelle.state.paths import Paths

PATHS = Paths("/d", "/s", "/r", "/c")


def test_root_has_a_unit_of_the_system_and_others_one_of_their_own() -> None:
    system = autostart.unit("shop", PATHS, {}, root=True)
    own = autostart.unit("shop", PATHS, {"HOME": "/home/anna"}, root=False)
    assert system.path == "/etc/systemd/system/kapelle-shop.service"
    assert own.path == "/home/anna/.config/systemd/user/kapelle-shop.service"
    assert "WantedBy=multi-user.target" in system.text
    assert "WantedBy=default.target" in own.text
    assert own.systemctl == ("systemctl", "--user")


def test_words_are_quoted_as_systemd_reads_them() -> None:
    text = autostart.unit("shop", PATHS, {"KAP_HOME": '/my place/100% "x"'}, root=True).text
    assert r'Environment="KAP_HOME=/my place/100%% \"x\""' in text


def test_install_and_remove_tell_systemctl_and_leave_nothing(tmp_path: Path) -> None:
    found = autostart.unit("shop", PATHS, {"XDG_CONFIG_HOME": str(tmp_path)}, root=False)
    asked: list[str] = []

    def run(words: Sequence[str]) -> int:
        asked.append(" ".join(words))
        return 0

    autostart.install(found, run)
    assert Path(found.path).read_text() == found.text
    assert autostart.remove(found, run)
    assert not autostart.remove(found, run)
    assert asked == [
        "systemctl --user daemon-reload",
        "systemctl --user enable kapelle-shop.service",
        "systemctl --user disable kapelle-shop.service",
        "systemctl --user daemon-reload",
    ]
    assert not Path(found.path).exists()


def test_a_refusal_of_systemctl_is_an_error(tmp_path: Path) -> None:
    found = autostart.unit("shop", PATHS, {"XDG_CONFIG_HOME": str(tmp_path)}, root=False)
    with pytest.raises(EngineError, match="daemon-reload failed"):
        autostart.install(found, lambda _: 1)
