"""`up` in the foreground: output of the containers while they start and run, Ctrl-C, exit codes.

A thread per container (one for all when there are many) follows its output; the main thread starts what has to be
started and then waits for ends and for Ctrl-C, so that a signal is never held up by a blocked write.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable

from kapelle.cli.bringup import before_start, plan_with_images, starting
from kapelle.cli.flags import Args
from kapelle.engine import executor
from kapelle.events import Event, LogLine, Progress
from kapelle.light import TYPE_CHECKING, NamedTuple, signal
from kapelle.plan import acts, order
from kapelle.plan.graph import Plan
from kapelle.plan.observed import Container
from kapelle.render.logs import LogPrinter, short_name

if TYPE_CHECKING:
    from kapelle.cli.context import Context
    from kapelle.model.project import Project
    from kapelle.plan.up import UpOptions

_PACE = 0.05  # seconds between looks for a second Ctrl-C
_BATCH = 1 << 14  # bytes that are worth a write of their own
_MOST_FOLLOWERS = 40  # each holds an inotify instance, of which a user has 128


class Choices(NamedTuple):
    abort: str = ""  # "", exit, failure
    exit_code_from: str = ""
    attach: tuple[str, ...] = ()
    no_attach: tuple[str, ...] = ()
    attach_dependencies: bool = False
    colour: bool = True
    prefix: bool = True
    timestamps: bool = False
    menu: bool = False


def choices(args: Args, abort: str) -> Choices:
    return Choices(
        abort,
        args.exit_code_from,
        tuple(args.attach),
        tuple(args.no_attach),
        bool(args.attach_dependencies),
        not args.no_color,
        not args.no_log_prefix,
        bool(args.timestamps),
        bool(args.menu),
    )


def run(context: Context, project: Project, options: UpOptions, chosen: Choices) -> int:
    """Bring the project up, show its output until all has ended; the command's exit code."""
    if chosen.menu:
        from kapelle.cli.commands.up import menu_notice

        context.emit(menu_notice())
    return _Foreground(context, project, options, chosen).run()


class _Foreground:
    def __init__(self, context: Context, project: Project, options: UpOptions, chosen: Choices) -> None:
        self.context = context
        self.project = project
        self.options = options
        self.chosen = chosen
        self.engine = context.engine()
        self.since = 0
        self.ended: queue.Queue[tuple[Container, int]] = queue.Queue()
        self.watched: dict[str, Container] = {}  # by name: their end is awaited
        self.following: set[str] = set()
        self.printer: Output | None = None
        self.interrupts = 0

    def _interrupt(self, _number: int, _frame: object) -> None:
        """The first one interrupts; later ones are looked for (`_stop`): they may come at any moment, twice at once."""
        self.interrupts += 1
        if self.interrupts == 1:
            raise KeyboardInterrupt

    def run(self) -> int:
        # also where a shell started us with SIGINT ignored (`kap up &` in a script)
        before = [signal.signal(number, self._interrupt) for number in (signal.SIGTERM, signal.SIGINT)]
        try:
            with self.context.locked(self.project.name):
                self.since = time.time_ns()
                plan = plan_with_images(self.context, self.project, self.options)
                from kapelle.cli.commands.up import show_unchanged

                show_unchanged(self.context, plan.unchanged)
                self.context.run_plan(before_start(plan), self.project)
                self._attach()
                self._start(plan)
            return self._watch()
        except KeyboardInterrupt:
            if self.printer is None:
                raise  # nothing has been started
            return self._interrupted()
        finally:
            if self.printer is not None:
                self.printer.close()
            for number, handler in zip((signal.SIGTERM, signal.SIGINT), before, strict=True):
                signal.signal(number, handler)

    def _attach(self) -> None:
        """Choose whose output is shown and whose end is awaited; say so."""
        targets = self.options.targets
        mine = [s.name for s in order.needed(self.project, targets, deps=not self.options.no_deps)]
        shown = set(self.chosen.attach) or set(mine if self.chosen.attach_dependencies or not targets else targets)
        shown -= set(self.chosen.no_attach)
        shown -= {s.name for s in self.project.services if not s.attach and s.name not in self.chosen.attach}
        containers = [c for c in self.engine.observe(self.project.name).containers if not c.oneoff]
        self.watched = {c.name: c for c in containers if c.service in (targets or mine)}
        visible = [c for c in containers if c.service in shown]
        self.visible = {c.name: c for c in visible}
        self.context.share_screen()
        context, chosen = self.context, self.chosen
        self.printer = Output(
            LogPrinter(
                context.stdout.buffer,
                visible,
                prefix=chosen.prefix,
                timestamps=chosen.timestamps,
                colours=chosen.colour and context.colours(context.stdout),
                err=context.stderr.buffer,
            )
        )
        if visible:
            context.stdout.write(f"Attaching to {', '.join(sorted(short_name(c) for c in visible))}\n")
            context.stdout.flush()

    def _start(self, plan: Plan) -> None:
        """Start what has to be started; each container is followed from the moment it has started."""
        todo = starting(plan)
        by_itself = len(self.watched) + len(self.visible) <= 2 * _MOST_FOLLOWERS
        names = {getattr(step, "name", "") for step in todo.steps}
        if by_itself:
            for name in sorted({*self.visible, *self.watched} - names):
                self._follow([name])
        emit = self.context.emit

        def emit_and_follow(event: Event) -> None:
            if by_itself and isinstance(event, Progress) and event.text == "Started":
                self._follow([event.name])
            emit(event)

        executor.execute(todo, self.engine, self.project, emit_and_follow, limit=self.context.parallel())
        self._follow([n for n in sorted({*self.visible, *self.watched}) if n not in self.following])

    def _follow(self, names: list[str]) -> None:
        """Follow containers in one thread until they have ended."""
        names = [n for n in names if n not in self.following and (n in self.visible or n in self.watched)]
        if not names:
            return
        self.following.update(names)
        now = {c.name: c for c in self.engine.observe(self.project.name).containers}
        group = [now[n] for n in names if n in now]
        threading.Thread(target=self._follower, args=(group,), daemon=True).start()

    def _follower(self, group: list[Container]) -> None:
        assert self.printer is not None
        shown = tuple(c for c in group if c.name in self.visible)
        try:
            if shown:
                for line in self.engine.logs(shown, follow=True, since=self.since):
                    self.printer.line(line)
            for container, code in self.engine.wait(tuple(group)):
                self.ended.put((container, code))
        except Exception as e:  # its engine went away under it: the main thread is told by the missing end
            self.printer.remark(f"{', '.join(c.name for c in group)}: {e}\n")
            for container in group:
                self.ended.put((container, 1))

    def _watch(self) -> int:
        """Until all that is awaited has ended, or an end or Ctrl-C stops all."""
        assert self.printer is not None
        waiting = set(self.watched)
        while waiting:
            container, code = self.ended.get()
            if container.name in self.visible:
                self.printer.note(container, f"exited with code {code}")
            waiting.discard(container.name)
            if container.name not in self.watched:
                continue
            if code:
                self._tell_killed(container)
            if self.chosen.abort == "exit" or (self.chosen.abort == "failure" and code):
                return self._abort(container, code)
        return 0

    def _tell_killed(self, container: Container) -> None:
        """Exit code 137 alone does not say who killed it."""
        now = next((c for c in self.engine.observe(self.project.name).containers if c.id == container.id), None)
        if now is not None and now.oom_killed:
            from kapelle.engine import killed
            from kapelle.render import errors

            self.context.stderr.write(errors.text(killed.out_of_memory(self.project, now)))
            self.context.stderr.flush()

    def _abort(self, first: Container, code: int) -> int:
        self.context.stderr.write("Aborting on container exit...\n")
        self.context.stderr.flush()
        self._stop(())
        wanted = self.chosen.exit_code_from
        if wanted and first.service != wanted:
            for container in self.engine.observe(self.project.name).containers:
                if container.service == wanted and not container.oneoff:
                    return container.exit_code
        return code

    def _interrupted(self) -> int:
        """The first Ctrl-C stops gracefully, a second one kills."""
        self.context.stdout.write("Gracefully Stopping... press Ctrl+C again to force\n")
        self.context.stdout.flush()
        self._stop(self.options.targets)
        return 130

    def _stop(self, targets: tuple[str, ...]) -> None:
        """Stop, dependents first, in a thread, so that a second Ctrl-C gets through and kills."""
        failure: list[BaseException] = []
        thread = threading.Thread(target=_keeping(failure, lambda: self._stop_all(targets)), daemon=True)
        self.interrupts = before = max(1, self.interrupts)  # from here on nothing is raised
        thread.start()
        while thread.is_alive():
            thread.join(_PACE)
            if self.interrupts > before:
                self._kill_all(targets)
                thread.join(2)
                break
        self._drain()
        if failure:
            raise failure[0]

    def _stop_all(self, targets: tuple[str, ...]) -> None:
        plan = acts.stop(self.engine.observe(self.project.name), targets, self.options.timeout)
        self._perform(plan)

    def _kill_all(self, targets: tuple[str, ...]) -> None:
        self._perform(acts.kill(self.engine.observe(self.project.name), targets))

    def _perform(self, plan: Plan) -> None:
        executor.execute(plan, self.engine, self.project, self.context.emit)

    def _drain(self) -> None:
        """The last lines and ends, as far as they come within a moment."""
        assert self.printer is not None
        waiting = set(self.watched)
        deadline = time.monotonic() + 1.0
        while waiting and time.monotonic() < deadline:
            try:
                container, code = self.ended.get(timeout=0.2)
            except queue.Empty:
                break
            waiting.discard(container.name)
            if container.name in self.visible:
                self.printer.note(container, f"exited with code {code}")


class Output:
    """A LogPrinter for several threads, flushed by a thread of its own: in batches when lines come fast."""

    def __init__(self, printer: LogPrinter) -> None:
        self.printer = printer
        self.lock = threading.Lock()
        self.dirty = threading.Event()
        self.closed = False
        self.thread = threading.Thread(target=self._flusher, daemon=True)
        self.thread.start()

    def line(self, line: LogLine) -> None:
        alone = len(line.text) >= _BATCH
        with self.lock:
            self.printer.line(line)
            if alone:
                self.printer.flush()
        if not alone:
            self.dirty.set()

    def note(self, container: Container, text: str) -> None:
        with self.lock:
            self.printer.note(container, text)
        self.dirty.set()

    def remark(self, text: str) -> None:
        with self.lock:
            self.printer.out.write(text.encode())
        self.dirty.set()

    def _flusher(self) -> None:
        while not self.closed:
            self.dirty.wait()
            self.dirty.clear()
            with self.lock:
                try:
                    self.printer.flush()
                except BrokenPipeError:
                    return

    def close(self) -> None:
        self.closed = True
        self.dirty.set()
        self.thread.join(1)
        with self.lock:
            try:
                self.printer.finish()
            except BrokenPipeError:
                pass


def _keeping(failure: list[BaseException], act: Callable[[], None]) -> Callable[[], None]:
    def call() -> None:
        try:
            act()
        except BaseException as e:
            failure.append(e)

    return call
