"""The events file is bounded, and whoever follows it sees each event once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kapelle.cli.commands import events
from kapelle.engines.native import supervisor_events
from kapelle.state.paths import find


def test_a_full_file_gives_its_place_to_a_new_one_and_a_follower_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor_events, "_MOST", 2000)
    paths = find({"KAP_HOME": str(tmp_path)})
    folder = Path(paths.project("demo"))
    folder.mkdir(parents=True)
    reading = events._Reading(str(folder / "events.jsonl"))
    seen = []
    for number in range(100):
        intent = {"id": str(number), "service": "web", "name": "demo-web-1", "image": "busybox"}
        supervisor_events.append_event(paths, "demo", intent, "start")
        if number % 5 == 0:
            seen += [row["id"] for row in map(json.loads, reading.lines())]
    seen += [row["id"] for row in map(json.loads, reading.lines())]
    assert seen == [str(n) for n in range(100)]
    assert sum(f.stat().st_size for f in folder.iterdir()) < 6000
    late = list(events._Reading(str(folder / "events.jsonl")).lines())
    assert len(late) > 10
