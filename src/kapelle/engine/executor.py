"""Performs a plan: each step as soon as its predecessors are done, several at a time. Decides nothing.

The first failure keeps its message: nothing new is begun, what runs is let finish, then the error is raised. A plan
(or a stretch of it) that is a line runs in the calling thread, so that most commands start no thread at all.
"""

from __future__ import annotations

from _thread import start_new_thread  # of threading only the condition is needed

from kapelle.engine.protocol import Engine
from kapelle.events import Emit
from kapelle.light import TYPE_CHECKING
from kapelle.model.project import Project
from kapelle.plan.graph import Node, Plan
from kapelle.plan.steps import BuildImage, CreateContainer, PullImage, StartContainer, StopContainer, WaitFor

if TYPE_CHECKING:
    from threading import Condition

_LAST_MOMENT = 5.0  # seconds
MOST_THREADS = 32  # more gain nothing on one machine
_NOT_COUNTED = (WaitFor, StopContainer)  # they wait for somebody else


def execute(plan: Plan, engine: Engine, project: Project, emit: Emit, *, limit: int = 0) -> None:
    """Perform every step of the plan. `limit` bounds the steps at a time (waits aside); 0 means no bound of its own.

    Raises what the first failing step raised, after every running step has ended. KeyboardInterrupt ends at once;
    steps that are running then go on in their threads until the process ends.
    """
    check(plan, engine, project)
    try:
        _Run(plan, engine, project, emit, limit or MOST_THREADS).run()
    finally:
        if any(not isinstance(s, PullImage | BuildImage) for s in plan.steps) or not plan.steps:
            engine.rest()  # after images alone comes another plan, that makes containers of them


def check(plan: Plan, engine: Engine, project: Project) -> None:
    """Let the engine refuse what can be known not to work. For callers that perform a plan in parts: once, whole."""
    if any(isinstance(s, CreateContainer | StartContainer) for s in plan.steps):
        engine.check(plan.steps, project)


class _Run:
    def __init__(self, plan: Plan, engine: Engine, project: Project, emit: Emit, limit: int) -> None:
        self.waiting = list(plan.nodes)
        self.engine = engine
        self.project = project
        self.emit = emit
        self.limit = limit
        self.done: set[str] = set()
        self.performed: list[Node] = []
        self.running = 0  # steps in threads
        self.counted = 0  # of them, those that count against the limit
        self.failure: BaseException | None = None
        self._begun: tuple[Node, ...] = ()
        self.condition: Condition | None = None

    def run(self) -> None:
        while self.waiting or self.running:
            if not self.running:
                ready = self._ready()
                if len(ready) == 1:
                    self._alone(ready[0])
                    continue
            self._in_threads()
        if self.failure is not None:
            for node in reversed(self.performed):
                self.engine.unperform(node.step, self.project, self.emit)
            raise self.failure

    def _ready(self) -> list[Node]:
        """Steps that may begin: of the first stage that is not done, with all predecessors done."""
        if not self.waiting or self.failure is not None:
            return []
        stage = min(n.stage for n in self.waiting)
        if self.running and any(n.stage < stage for n in self._begun):
            return []
        return [n for n in self.waiting if n.stage == stage and all(a in self.done for a in n.after)]

    def _alone(self, node: Node) -> None:
        self.waiting.remove(node)
        try:
            self.engine.perform(node.step, self.project, self.emit)
        except Exception as e:
            self.failure = e
            self.waiting.clear()
            return
        self.done.add(node.key)
        self.performed.append(node)

    def _in_threads(self) -> None:
        """Begin what may begin, and wait until nothing runs any more. Threads go on with what waited for their step."""
        import threading

        if self.condition is None:
            self.condition = threading.Condition()
        with self.condition:
            for node in self._begin():
                start_new_thread(self._thread, (node,))
            while self.running:
                try:
                    self.condition.wait()
                except KeyboardInterrupt:
                    self._let_finish(self.condition)
                    raise

    def _begin(self) -> list[Node]:
        """Take the steps that may begin. Under the lock."""
        if self.failure is not None:
            self.waiting.clear()
        begun = []
        for node in self._ready():
            counts = not isinstance(node.step, _NOT_COUNTED)
            if counts and self.counted >= self.limit:
                continue
            self.waiting.remove(node)
            self.running += 1
            self.counted += counts
            self._begun = (*self._begun, node)
            begun.append(node)
        return begun

    def _let_finish(self, condition: Condition) -> None:
        """After Ctrl-C: give steps that change something a moment to end, so that who comes next sees all of it."""
        self.waiting.clear()
        condition.wait_for(lambda: self.counted == 0, timeout=_LAST_MOMENT)

    def _thread(self, node: Node) -> None:
        """Perform a step, then one of those that waited for it; others get threads of their own."""
        assert self.condition is not None
        while True:
            failure: BaseException | None = None
            try:
                self.engine.perform(node.step, self.project, self.emit)
            except BaseException as e:
                failure = e
            with self.condition:
                self.running -= 1
                self.counted -= not isinstance(node.step, _NOT_COUNTED)
                self._begun = tuple(n for n in self._begun if n is not node)
                if failure is None:
                    self.done.add(node.key)
                    self.performed.append(node)
                elif self.failure is None:
                    self.failure = failure
                following = self._begin()
                if not following:
                    self.condition.notify_all()
                    return
                node, *others = following
                for other in others:
                    start_new_thread(self._thread, (other,))
