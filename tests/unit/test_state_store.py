"""Small JSON files: whole or not at all, whoever writes them at once."""

from __future__ import annotations

import threading
from pathlib import Path

from kapelle.state import store


def test_threads_may_write_the_same_file_at_once(tmp_path: Path) -> None:
    path = str(tmp_path / "one.json")
    failed: list[BaseException] = []

    def write() -> None:
        try:
            for number in range(200):
                store.write_json(path, {"number": number})
        except BaseException as e:
            failed.append(e)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert store.read_json(path) == {"number": 199}
    assert [p.name for p in tmp_path.iterdir()] == ["one.json"]
