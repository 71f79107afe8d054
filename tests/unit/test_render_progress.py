"""Events to text: plain lines, JSON, quiet, the live block of a terminal, errors, logs."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import threading
from pathlib import Path

import pytest

from kapelle.errors import KapelleError, Mistakes, Position
from kapelle.events import BuildOutput, ContainerEvent, Event, LogLine, Notice, Progress
from kapelle.plan.observed import Container
from kapelle.render import errors
from kapelle.render.jsonl import JsonRenderer
from kapelle.render.logs import LogPrinter, short_name
from kapelle.render.pace import Pace, clock
from kapelle.render.plain import PlainRenderer, QuietRenderer, Renderer
from kapelle.render.tables import ellipsis, table
from kapelle.render.tty import TtyRenderer
from kapelle.render.words import binary_size, command_line, duration, quoted, rfc3339, size

EVENTS: list[Event] = [
    Progress("image", "redis:7", "Pulling"),
    Progress("layer", "4f5a", "Downloading", current=5, total=10, parent="redis:7"),
    Progress("image", "redis:7", "Pulling", current=5, total=10),
    Progress("image", "redis:7", "Pulled", "done"),
    Notice("careful", where=Position("compose.yaml", 3, 5), once="c"),
    Notice("careful", where=Position("compose.yaml", 3, 5), once="c"),
    Notice("by the way", level="info"),
    Progress("container", "demo-web-1", "Recreate", because="image changed"),
    Progress("container", "demo-web-1", "Recreated", "done"),
    Progress("container", "demo-db-1", "Error", "error", details="is unhealthy"),
    LogLine("demo-web-1 ->", "web", "stdout", 0, b"hook"),
    ContainerEvent("demo-web-1", "web", "start", 0),
]


def play(renderer: Renderer, events: list[Event] = EVENTS) -> None:
    for event in events:
        renderer.emit(event)
    renderer.close()


def test_plain_prints_one_line_per_change() -> None:
    out = io.StringIO()
    play(PlainRenderer(out))
    assert out.getvalue().splitlines() == [
        " Image redis:7  Pulling",
        " Image redis:7  Pulled",
        "warning: compose.yaml:3:5: careful",
        "note: by the way",
        " Container demo-web-1  Recreate (image changed)",
        " Container demo-web-1  Recreated",
        " Container demo-db-1  Error is unhealthy",
        "demo-web-1 -> | hook",
    ]


def test_a_build_log_is_numbered_by_step_and_goes_to_its_own_stream() -> None:
    out, log = io.StringIO(), io.StringIO()
    lines: list[Event] = [
        BuildOutput("app", "[1/2] FROM python", cached=True),
        BuildOutput("app", "[2/2] RUN pip install x"),
        BuildOutput("app", "[2/2] RUN pip install x", "Collecting x", seconds=0.25),
        BuildOutput("app", "[2/2] RUN pip install x", ended="done", seconds=1.26),
    ]
    play(PlainRenderer(out, build_log=log), lines)
    assert log.getvalue() == (
        "#1 [app 1/2] FROM python\n#1 CACHED\n\n#2 [app 2/2] RUN pip install x\n#2 0.250 Collecting x\n#2 DONE 1.3s\n\n"
    )
    assert out.getvalue() == ""


def test_quiet_prints_warnings_only() -> None:
    out = io.StringIO()
    play(QuietRenderer(out))
    assert out.getvalue() == "warning: compose.yaml:3:5: careful\n"


def test_json_is_one_object_per_event_without_what_is_empty() -> None:
    out = io.StringIO()
    play(JsonRenderer(out))
    rows = [json.loads(line) for line in out.getvalue().splitlines()]
    assert len(rows) == len(EVENTS)
    assert rows[0] == {"id": "Image redis:7", "status": "Pulling"}
    assert rows[1] == {
        "id": "4f5a", "parent_id": "Image redis:7", "status": "Downloading", "current": 5, "total": 10, "percent": 50,
    }  # fmt: skip
    assert rows[4] == {"kind": "notice", "level": "warning", "text": "careful", "where": "compose.yaml:3:5"}
    assert rows[9] == {
        "id": "Container demo-db-1", "status": "Error", "text": "is unhealthy", "error": True,
    }  # fmt: skip


class Terminal:
    """A pseudo-terminal whose output is kept."""

    def __init__(self, encoding: str = "utf-8", columns: int = 70) -> None:
        import fcntl
        import struct
        import termios

        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 20, columns, 0, 0))
        self.stream = open(slave, "w", encoding=encoding, errors="strict")
        self.data = b""
        self.thread = threading.Thread(target=self._read)
        self.thread.start()

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self.master, 65536)
            except OSError:
                return
            if not data:
                return
            self.data += data

    def text(self) -> str:
        self.stream.close()
        self.thread.join(10)
        os.close(self.master)
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.data.decode()).replace("\r\n", "\n")


def test_a_terminal_gets_a_block_with_marks_and_seconds() -> None:
    terminal = Terminal()
    play(TtyRenderer(terminal.stream, title="up"))
    lines = terminal.text().splitlines()
    assert "warning: compose.yaml:3:5: careful" in lines
    block = lines[lines.index("[+] up 3/3") :]
    assert re.fullmatch(r" ✔ Image redis:7 +Pulled +\d\.\ds", block[1])
    assert re.fullmatch(r" ✔ Container demo-web-1  Recreated \(image changed\) +\d\.\ds", block[2])
    assert re.fullmatch(r" ✘ Container demo-db-1 +Error is unhealthy +\d\.\ds", block[3])
    assert all(len(line) <= 70 for line in block)


def test_a_block_is_live_when_it_takes_longer() -> None:
    terminal = Terminal()
    renderer = TtyRenderer(terminal.stream, title="pull")
    renderer.emit(Progress("image", "redis:7", "Pulling"))
    renderer.emit(Progress("layer", "4f5a", "Downloading", current=5_000_000, total=10_000_000, parent="redis:7"))
    assert renderer._loader is not None
    renderer._loader.join(20)  # rich is here, the block is on the screen
    renderer.emit(Progress("image", "redis:7", "Pulled", "done"))
    renderer.close()
    text = terminal.text()
    assert "━━━━━━━━━━────────── 5MB/10MB" in text
    assert "✔ Image redis:7  Pulled" in text.splitlines()[-1]


def test_a_pull_shows_its_pace_and_the_time_left() -> None:
    pace = Pace()
    assert pace.told(0, 100_000_000, 0.0) == ""
    assert pace.told(1_000_000, 100_000_000, 0.1) == ""  # too early to say
    assert pace.told(20_000_000, 100_000_000, 2.0) == " 10MB/s, 8s left"
    assert pace.told(100_000_000, 100_000_000, 10.0) == " 10MB/s"
    assert [clock(s) for s in (0.2, 59, 125, 3725)] == ["1s", "59s", "2m05s", "1h02m"]


def layer(name: str, current: int, image: str = "redis:7", text: str = "Downloading", state: str = "working") -> Event:
    return Progress("layer", name, text, state, current=current, total=100_000_000, parent=image)


def test_a_terminal_shows_each_layer_on_its_way_and_all_images_together(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    renderer = TtyRenderer(io.StringIO(), title="pull")
    renderer._show = lambda: None  # type: ignore[method-assign]  # only what a block has is of interest

    def block(height: int = 20) -> list[str]:
        return ["".join(text for text, _ in row) for row in renderer._block(100, height)]

    for event in (
        Progress("image", "redis:7", "Pulling"),
        layer("aaaa", 1_000_000),
        layer("bbbb", 1_000_000),
        layer("cccc", 100_000_000, text="Pull complete", state="done"),
    ):
        renderer.emit(event)
    block()
    clock[0] += 2
    renderer.emit(layer("aaaa", 21_000_000))
    rows = block()
    assert rows[0] == "[+] pull 0/1"
    assert re.search(r"Image redis:7  Pulling ━+─+ 122MB/300MB 10MB/s, 18s left +2\.0s$", rows[1])
    assert rows[2] == "     aaaa  Downloading ━━━━──────────────── 21MB/100MB 10MB/s, 8s left"
    assert rows[3] == "     bbbb  Downloading ──────────────────── 1MB/100MB"
    assert len(rows) == 4  # what is done is no row
    assert len(block(height=2)) == 3  # nor is a small terminal overrun
    renderer.emit(layer("dddd", 100_000_000, image="nginx:1"))
    assert block()[0].startswith("[+] pull 0/2  222MB/400MB")
    renderer.emit(Progress("image", "redis:7", "Pulled", "done"))
    renderer.emit(Progress("image", "nginx:1", "Pulled", "done"))
    assert block()[0] == "[+] pull 2/2"


def test_plain_tells_now_and_then_how_far_a_long_pull_or_push_is() -> None:
    out, clock = io.StringIO(), [0.0]
    renderer = PlainRenderer(out, now=lambda: clock[0])
    renderer.emit(Progress("image", "redis:7", "Pushing"))
    for tick in range(70):
        clock[0] = tick / 10
        renderer.emit(layer("aaaa", 1_000_000 * tick, text="Pushing"))
        renderer.emit(layer("bbbb", 500_000 * tick, text="Pushing"))
    renderer.emit(Progress("image", "redis:7", "Pushed", "done"))
    assert out.getvalue().splitlines() == [
        " Image redis:7  Pushing",
        " Image redis:7  Pushing 74.5MB/200MB 14.9MB/s, 8s left",
        " aaaa  Pushing 50MB/100MB 10MB/s, 5s left",
        " bbbb  Pushing 24.5MB/100MB 4.9MB/s, 15s left",
        " Image redis:7  Pushed",
    ]


def test_a_terminal_without_utf_8_gets_ascii_and_a_narrow_one_is_not_overrun() -> None:
    terminal = Terminal("ascii", columns=34)
    play(TtyRenderer(terminal.stream, title="up", colours=False), [e for e in EVENTS if isinstance(e, Progress)])
    lines = terminal.text().splitlines()
    assert " + Image redis:7" in lines[1]
    assert all(len(line) <= 34 for line in lines)


def test_an_error_has_its_place_rows_and_a_hint(tmp_path: Path) -> None:
    error = KapelleError(
        "port 8080 is taken",
        where=Position(f"{tmp_path}/compose.yaml", 4, 9),
        why="another program listens there",
        details=(("held by", "postgres (pid 8123)"), ("on", "0.0.0.0:8080\n[::]:8080")),
        hint="stop it, or\npublish another port",
        code="KAP201",
    )
    assert errors.text(error, lambda: str(tmp_path)) == (
        "error: compose.yaml:4:9: port 8080 is taken [KAP201]\n"
        "  because  another program listens there\n"
        "  held by  postgres (pid 8123)\n"
        "  on       0.0.0.0:8080\n"
        "           [::]:8080\n"
        " hint: stop it, or\n"
        "       publish another port\n"
    )


def test_several_mistakes_are_told_together() -> None:
    both = Mistakes((KapelleError("one"), KapelleError("two", code="KAP002")))
    assert errors.text(both) == "error: one [KAP001]\nerror: two [KAP002]\n"
    assert [json.loads(line)["message"] for line in errors.as_json(both).splitlines()] == ["one", "two"]


def test_a_place_elsewhere_keeps_its_path_and_one_without_a_line_shows_the_file_alone() -> None:
    assert errors.shown(Position("/elsewhere/compose.yaml", 1, 2), lambda: "/home") == "/elsewhere/compose.yaml:1:2"
    assert errors.shown(Position(".env", 0, 0), lambda: "/home") == ".env"


def container(name: str, service: str = "web") -> Container:
    return Container("1", name, "demo", service, 1)


def test_the_prefix_grows_with_longer_names_and_a_fixed_name_is_shown_whole() -> None:
    out = io.BytesIO()
    printer = LogPrinter(out, [container("demo-web-1")])
    printer.line(LogLine("demo-web-1", "web", "stdout", 0, b"one"))
    printer.know(container("database", "db"))
    printer.line(LogLine("demo-web-1", "web", "stdout", 0, b"two"))
    printer.line(LogLine("database", "db", "stderr", 1_700_000_000_123_456_789, "ü\xff".encode("latin-1")))
    assert out.getvalue() == b"web-1  | one\nweb-1     | two\ndatabase  | \xfc\xff\n"
    assert short_name(container("demo-web-run-0123456789ab")) == "web-run-0123456789ab"


def test_a_line_in_parts_becomes_one_line() -> None:
    out = io.BytesIO()
    printer = LogPrinter(out, [container("demo-web-1")])
    printer.line(LogLine("demo-web-1", "web", "stdout", 0, b"one ", partial=True))
    printer.line(LogLine("demo-web-1", "web", "stderr", 0, b"other"))
    printer.line(LogLine("demo-web-1", "web", "stdout", 0, b"whole"))
    printer.flush()
    assert out.getvalue() == b"web-1  | other\nweb-1  | one whole\n"


def test_what_is_left_of_a_cut_line_is_printed_at_the_end() -> None:
    out = io.BytesIO()
    printer = LogPrinter(out, [container("demo-web-1")])
    printer.line(LogLine("demo-web-1", "web", "stdout", 0, b"never ended", partial=True))
    printer.finish()
    assert out.getvalue() == b"web-1  | never ended\n"


def test_lines_of_stderr_may_go_to_their_own_stream() -> None:
    out, err = io.BytesIO(), io.BytesIO()
    printer = LogPrinter(out, [container("demo-web-1")], err=err, timestamps=True, prefix=False)
    printer.line(LogLine("demo-web-1", "web", "stderr", 1_700_000_000_123_456_789, b"x"))
    assert (out.getvalue(), err.getvalue()) == (b"", b"2023-11-14T22:13:20.123456789Z x\n")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.4, "Less than a second"),
        (1.9, "1 second"),
        (59, "59 seconds"),
        (60, "About a minute"),
        (119, "About a minute"),
        (150, "2 minutes"),
        (3600, "About an hour"),
        (3600 * 5, "5 hours"),
        (3600 * 49, "2 days"),
        (86400 * 20, "2 weeks"),
        (86400 * 90, "3 months"),
        (86400 * 800, "2 years"),
        (-5, "Less than a second"),
    ],
)
def test_durations_are_dockers(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_sizes_quotes_and_times_are_dockers() -> None:
    assert [size(n) for n in (0, 999, 77_800_000, 1_230_000_000)] == ["0B", "999B", "77.8MB", "1.23GB"]
    assert binary_size(884 * 1024) == "884KiB"
    assert quoted('a "b"\n\x01é') == '"a \\"b\\"\\n\\x01é"'
    assert command_line(("sh", "-c", "echo x")) == "sh -c 'echo x'"
    assert rfc3339(1_700_000_000_000_000_001) == "2023-11-14T22:13:20.000000001Z"


def test_tables_pad_by_three_and_measure_wide_characters() -> None:
    assert table(("NAME", "X"), [("a", "1"), ("a-much-longer", "2")]) == (
        "NAME            X\na               1\na-much-longer   2\n"
    )
    assert table(("A", "B"), [("日本語日本語", "x")]) == "A              B\n日本語日本語   x\n"
    assert ellipsis("abcdef", 4) == "abc…"
    assert ellipsis("日本語", 4) == "日…"
