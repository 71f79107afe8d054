"""Performs a plan: each step as soon as its predecessors are done, several at a time. Decides nothing.

The first failure keeps its message: nothing new is begun, what runs is let finish, then the error is raised. A plan
(or a stretch of it) that is a line runs in the calling thread, so that most commands start no thread at all.
"""

from __future__ import annotations

from _thread import start_new_thread
from collections.abc import Callable

from kapelle.engine.protocol import Engine
from kapelle.events import Emit
from kapelle.light.condition import Condition
from kapelle.model.project import Project
from kapelle.plan.graph import Node, Plan
from kapelle.plan.steps import (
    BuildImage,
    CreateContainer,
    PullImage,
    RemoveContainer,
    StartContainer,
    StopContainer,
    WaitFor,
    key_of,
)

_LAST_MOMENT = 5.0  # seconds
MOST_THREADS = 32  # more gain nothing on one machine
_NOT_COUNTED = (WaitFor, StopContainer)  # they wait for somebody else
_OURS = (CreateContainer, RemoveContainer)  # work of this process: more at once only get in each other's way
_MOST_OURS = 4


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
        self.running: dict[str, Node] = {}  # in threads, by key
        self.failure: BaseException | None = None
        self.condition = Condition()

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
        if any(n.stage < stage for n in self.running.values()):
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
        with self.condition:
            for nodes in self._begin():
                start_new_thread(self._thread, (nodes,))
            while self.running:
                try:
                    self.condition.wait()
                except KeyboardInterrupt:
                    self._let_finish()
                    raise

    def _begin(self) -> list[list[Node]]:
        """Take the steps that may begin, those that the engine performs together in one list. Under the lock."""
        if self.failure is not None:
            self.waiting.clear()
        alone: list[list[Node]] = []
        together: list[Node] = []
        for node in self._ready():
            if self._has_room(node):
                self.waiting.remove(node)
                self.running[node.key] = node
                if isinstance(node.step, self.engine.together):
                    together.append(node)
                else:
                    alone.append([node])
        return [*alone, together] if together else alone

    def _has_room(self, node: Node) -> bool:
        if isinstance(node.step, _NOT_COUNTED):
            return True
        if isinstance(node.step, _OURS) and self._count(lambda n: isinstance(n.step, _OURS)) >= _MOST_OURS:
            return False
        return self._count(_counts) < self.limit

    def _count(self, of: Callable[[Node], bool]) -> int:
        return sum(map(of, self.running.values()))

    def _let_finish(self) -> None:
        """After Ctrl-C: give steps that change something a moment to end, so that who comes next sees all of it."""
        self.waiting.clear()
        self.condition.wait_for(lambda: self._count(_counts) == 0, timeout=_LAST_MOMENT)

    def _thread(self, nodes: list[Node]) -> None:
        """Perform steps, then some of those that waited for them; others get threads of their own."""
        while nodes:
            following = self._perform(nodes[0]) if len(nodes) == 1 else self._perform_together(nodes)
            nodes, others = (following[0], following[1:]) if following else ([], [])
            for other in others:
                start_new_thread(self._thread, (other,))

    def _perform(self, node: Node) -> list[list[Node]]:
        failure: BaseException | None = None
        try:
            self.engine.perform(node.step, self.project, self.emit)
        except BaseException as e:
            failure = e
        return self._ended(node, failure)

    def _perform_together(self, nodes: list[Node]) -> list[list[Node]]:
        left = {node.key: node for node in nodes}
        try:
            alone, ended = self.engine.perform_together([n.step for n in nodes], self.project, self.emit)
            for step in alone:
                start_new_thread(self._thread, ([left.pop(key_of(step))],))
            for step, failure in ended:
                for following in self._ended(left.pop(key_of(step)), failure):
                    start_new_thread(self._thread, (following,))
        except BaseException as e:
            for node in left.values():
                self._ended(node, e)
        return []

    def _ended(self, node: Node, failure: BaseException | None) -> list[list[Node]]:
        """Note how a step ended; what begins now."""
        with self.condition:
            del self.running[node.key]
            if failure is None:
                self.done.add(node.key)
                self.performed.append(node)
            elif self.failure is None:
                self.failure = failure
            following = self._begin()
            if not following:
                self.condition.notify_all()
            return following


def _counts(node: Node) -> bool:
    return not isinstance(node.step, _NOT_COUNTED)
