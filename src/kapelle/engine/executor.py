"""Walks a plan: every step whose predecessors are done runs, in parallel. Decides nothing.

The first failure keeps its message: no further step begins, those that run are waited for.
"""

from __future__ import annotations

import threading
from queue import SimpleQueue

from kapelle.engine.protocol import Engine
from kapelle.events import Emit
from kapelle.model.project import Project
from kapelle.plan.graph import Plan
from kapelle.plan.steps import Step, key_of


def execute(plan: Plan, project: Project, engine: Engine, emit: Emit, *, parallel: int = 0) -> None:
    """Perform all steps. `parallel`: how many at once, 0 for no bound. Raises the first failure as it was."""
    waits = {key_of(s): set(plan.after.get(key_of(s), ())) for s in plan.steps}
    steps = {key_of(s): s for s in plan.steps}
    if all(len(ready) <= 1 for ready in _waves(waits)):  # a line: no thread is needed
        for step in plan.steps:
            engine.perform(step, project, emit)
        return
    _Walk(steps, waits, project, engine, emit, parallel or len(steps)).run()


def _waves(waits: dict[str, set[str]]) -> list[list[str]]:
    done: set[str] = set()
    waves = []
    while len(done) < len(waits):
        wave = [k for k, w in waits.items() if k not in done and w <= done]
        waves.append(wave)
        done.update(wave)
    return waves


class _Walk:
    def __init__(
        self,
        steps: dict[str, Step],
        waits: dict[str, set[str]],
        project: Project,
        engine: Engine,
        emit: Emit,
        bound: int,
    ) -> None:
        self.steps, self.waits, self.project, self.engine = steps, waits, project, engine
        self.emit = emit
        self.bound = bound
        self.finished: SimpleQueue[tuple[str, BaseException | None]] = SimpleQueue()
        self.running: dict[str, threading.Thread] = {}

    def run(self) -> None:
        failure: BaseException | None = None
        while self.waits or self.running:
            if failure is None:
                self._begin()
            if not self.running:
                break
            key, error = self.finished.get()
            self.running.pop(key).join()
            if error is not None:
                failure = failure or error
            for waiting in self.waits.values():
                waiting.discard(key)
        if failure is not None:
            raise failure

    def _begin(self) -> None:
        for key in [k for k, w in self.waits.items() if not w]:
            if len(self.running) >= self.bound:
                return
            del self.waits[key]
            thread = threading.Thread(target=self._perform, args=(key,), daemon=True)
            self.running[key] = thread
            thread.start()

    def _perform(self, key: str) -> None:
        try:
            self.engine.perform(self.steps[key], self.project, self.emit)
        except BaseException as e:
            self.finished.put((key, e))
        else:
            self.finished.put((key, None))
