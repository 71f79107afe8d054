"""What a container's program reads and writes: its pipes or terminal, its log, and those who are attached to it."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Callable

from kapelle.engines.native import logs
from kapelle.engines.native.intake import waiting_in
from kapelle.engines.native.logs import Writer
from kapelle.engines.native.tap import Tap
from kapelle.errors import KapelleError
from kapelle.light import TYPE_CHECKING, Any
from kapelle.state import store

if TYPE_CHECKING:
    from kapelle.engines.native.container import Container
    from kapelle.engines.native.probes import LogWatch

_PIPE = 1 << 18  # bytes a container may write ahead of the supervisor
_READ = 1 << 18
_F_SETPIPE_SZ = 1031
_EARLY = 100_000_000  # ns: lines that a program wrote before its start was told
_FIFOS = (("out", "stdout"), ("err", "stderr"))


class Streams:
    """The standard streams of one container, over all its runs."""

    def __init__(self, container: Container) -> None:
        self._container = container
        self._supervisor = container.supervisor
        self._pipes: dict[str, int] = {}  # reading ends, by stream
        self.terminal = -1  # its master
        self.terminal_given = False  # to who started it, who reads and writes there instead of us
        self._log: Writer | None = None
        self.log_watch: LogWatch | None = None  # for an x-kap-probe of this run's output
        self._taps: list[tuple[Tap, Tap]] = []  # of those attached: stdout, stderr

    @property
    def _stdin_name(self) -> str:
        return f"stdin:{self._container.id}"

    @property
    def _terminal_name(self) -> str:
        return f"tty:{self._container.id}"

    @property
    def _log_directory(self) -> str:
        return f"{self._container.directory}/log"

    # ---- for a run -----------------------------------------------------------------------------------------

    def open(self) -> list[int]:
        """Ends for the container: /dev/null or a held-open pipe as 0, a FIFO each as 1 and 2; nothing for a tty."""
        intent = self._container.intent
        if intent["tty"]:
            return []
        self._adopt_pipes()
        streams = [self._stdin() if intent["stdin_open"] else os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)]
        for name, _ in _FIFOS:
            # A second open file description: O_NONBLOCK is ours alone. O_RDWR: never SIGPIPE, whoever dies.
            streams.append(os.open(self._fifo(name), os.O_RDWR | os.O_CLOEXEC))
        return streams

    def held_names(self) -> tuple[str, ...]:
        """Under which the keeper holds 1 and 2 of `open`: what is in a FIFO that nobody has open is lost."""
        return tuple(f"{stream}:{self._container.id}" for stream in self._pipes)

    def held(self) -> dict[str, int]:
        """The same, for ourselves as the keeper to be."""
        return dict(zip(self.held_names(), self._pipes.values(), strict=True))

    def _stdin(self) -> int:
        """`stdin_open`: the reading end of a pipe; the keeper holds the other one for those who attach."""
        reading, writing = os.pipe2(os.O_CLOEXEC)
        self._supervisor.fds[self._stdin_name] = writing
        self._supervisor.keeper.keep(self._stdin_name, writing)
        return reading

    def _fifo(self, name: str) -> str:
        return f"{self._supervisor.run_dir}/{self._container.id[:12]}.{name}"

    def _adopt_pipes(self) -> None:
        for name, stream in _FIFOS:
            if stream in self._pipes:
                continue
            path = self._fifo(name)
            try:
                os.mkfifo(path, 0o600)
            except FileExistsError:
                pass
            fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                fcntl.fcntl(fd, _F_SETPIPE_SZ, _PIPE)
            except OSError:
                pass
            self._pipes[stream] = fd
            self._supervisor.loop.add(fd, self._reader(stream, fd))

    def hold_terminal(self, master: int) -> None:
        """Its program runs on a terminal, whose master this is (ours from now on)."""
        self._drop_terminal()
        self.terminal = master
        os.set_blocking(master, False)
        self._supervisor.keeper.keep(self._terminal_name, master)
        if not self.terminal_given:
            self._supervisor.loop.add(master, self._reader("stdout", master))

    def _drop_terminal(self) -> None:
        if self.terminal >= 0:
            self._supervisor.loop.remove(self.terminal)
            os.close(self.terminal)
            self.terminal = -1
            self._supervisor.keeper.drop(self._terminal_name)

    def watch_log(self) -> None:
        """Have the lines of this run looked at, where its probe is of that kind."""
        probe = (self._container.intent["healthcheck"] or {}).get("probe") or {}
        if probe.get("kind") != "log":
            return
        from kapelle.engines.native.probes import LogWatch

        def matched() -> None:
            # Not from within the reading of a line: what follows may end this very reader.
            self._supervisor.loop.later(0, self._container.hurry_health)

        self.log_watch = LogWatch(probe["pattern"], matched)

    # ---- of a predecessor ----------------------------------------------------------------------------------

    def adopt(self) -> None:
        """Go on with what an earlier supervisor began to read."""
        if not self._container.intent["tty"]:
            self._adopt_pipes()
            return
        master = self._supervisor.fds.get(self._terminal_name, -1)
        if master >= 0:
            self.hold_terminal(os.dup(master))

    def watch_log_again(self, started: float) -> None:
        """`watch_log`, with what the run has written since it started (seconds of the epoch)."""
        self.watch_log()
        if self.log_watch is not None:
            for record in logs.read(self._log_directory, since=int(started * 1e9) - _EARLY):
                self.log_watch.feed(record.stream, record.plain() + b"\n")

    def read_rest(self) -> None:
        """Read what was written while nobody watched."""
        if not self._container.intent["tty"]:
            self._adopt_pipes()
            self.drain()

    # ---- for those who attach ------------------------------------------------------------------------------

    def attach(self) -> tuple[bool, list[int]]:
        """Is it on a terminal; the reading ends of its output from now on, and where to write for it if anywhere."""
        out, err = Tap(self._supervisor.loop), Tap(self._supervisor.loop)
        self._taps.append((out, err))
        given = [out.reading, err.reading]
        tty = bool(self._container.intent["tty"])
        if tty:
            given.append(self.terminal)
        elif self._stdin_name in self._supervisor.fds:
            given.append(self._supervisor.fds[self._stdin_name])
        return tty, given

    def close_stdin(self) -> None:
        """No more comes: its program reads the end of its standard input."""
        if self._stdin_name in self._supervisor.fds:
            self._let_go(self._stdin_name)

    def _let_go(self, name: str) -> None:
        """Neither we nor the keeper hold this any more."""
        fd = self._supervisor.fds.pop(name, -1)
        if fd >= 0:
            os.close(fd)
        self._supervisor.keeper.drop(name)

    # ---- reading -------------------------------------------------------------------------------------------

    def _writer(self) -> Writer:
        if self._log is None:
            self._log = open_writer(self._log_directory, self._container.intent["logging"])
            self._log.writing = self._supervisor.intake.writing
        return self._log

    def _reader(self, stream: str, fd: int) -> Callable[[int], None]:
        def ready(_: int) -> None:
            self._read(stream, fd)

        return ready

    def _read(self, stream: str, fd: int) -> bool:
        """One read; True when there was something."""
        intake = self._supervisor.intake
        try:
            writer = self._writer()
        except (OSError, KapelleError):
            return self._lose(fd)
        try:
            data = intake.take(fd, self._container.id, stream, writer.pending[stream])
        except BlockingIOError:
            return False
        except OSError:  # EIO: the last process on a terminal is gone
            self._supervisor.loop.remove(fd)
            return False
        try:
            if data:
                writer.feed(stream, data, time.time_ns())
        except OSError as e:
            self._supervisor.lost_output(self._container, e)
        finally:
            intake.done()
        if not data:
            return False
        if self._taps:
            self._taps = [t for t in self._taps if not t[0].closed]
            for out, err in self._taps:
                (err if stream == "stderr" else out).feed(data)
        if self.log_watch is not None:
            self.log_watch.feed(stream, data)
        return True

    def _lose(self, fd: int) -> bool:
        """There is no room for a log at all: the program goes on all the same."""
        try:
            data = os.read(fd, _READ)
        except BlockingIOError:
            return False
        except OSError:
            self._supervisor.loop.remove(fd)
            return False
        if data:
            self._supervisor.lost_output(self._container, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
        return bool(data)

    # ---- end -----------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Read what is there still: its program has ended."""
        for stream, fd in self._pipes.items():
            while waiting_in(fd) and self._read(stream, fd):
                pass
        if self.terminal >= 0 and not self.terminal_given:
            while self._read("stdout", self.terminal):
                pass
        self._flush()

    def _flush(self) -> None:
        """What waits for its line end is written without: no more comes."""
        try:
            writer = self._writer() if self._log is not None or os.path.isdir(self._log_directory) else None
            for stream in ("stdout", "stderr") if writer is not None else ():
                if writer is not None and writer.pending[stream]:
                    self._supervisor.intake.ending(self._container.id, stream, writer.pending[stream])
                    writer.flush(stream)
        except (OSError, KapelleError) as e:
            self._supervisor.lost_output(self._container, e)
        finally:
            self._supervisor.intake.done()

    def release(self) -> None:
        """Give back what a run holds."""
        for held in self.held_names():
            self._let_go(held)
        for name, stream in _FIFOS:
            fd = self._pipes.pop(stream, -1)
            if fd < 0:
                continue
            self._supervisor.loop.remove(fd)
            os.close(fd)
            try:
                os.unlink(self._fifo(name))
            except OSError:
                pass
        self._drop_terminal()
        self.close_stdin()
        for tap in (t for pair in self._taps for t in pair):
            tap.end()
        self._taps.clear()
        self.terminal_given = False


def open_writer(directory: str, logging: dict[str, Any]) -> Writer:
    """The log writer with the file's max-size and max-file (Docker's json-file options)."""
    options = logging.get("options") or {}
    size = _bytes_of(str(options.get("max-size", "")))
    files = str(options.get("max-file", ""))
    store.make_directory(directory)
    kinds: dict[str, int] = {}
    if size:
        kinds["max_size"] = size
    if files.isdigit() and int(files) > 0:
        kinds["max_files"] = int(files)
    return Writer(directory, **kinds)


def _bytes_of(text: str) -> int:
    """Bytes of "10m", "512k", "1g"; 0 for anything else."""
    unit = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}.get(text[-1:].lower(), 1)
    digits = text.rstrip("kKmMgGbB")
    return int(float(digits) * unit) if digits.replace(".", "", 1).isdigit() else 0
