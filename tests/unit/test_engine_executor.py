"""The executor walks a plan's edges and decides nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from planning import project, running, service, there

from kapelle.engine.executor import execute
from kapelle.engine.fake import Behaviour, FakeEngine
from kapelle.errors import KapelleError
from kapelle.events import Event
from kapelle.plan.graph import CREATING, STARTING, Builder, Plan
from kapelle.plan.steps import RemoveContainer, StartContainer, StopContainer, key_of
from kapelle.plan.up import up


class Recorder(FakeEngine):
    """Performs nothing; remembers what it was asked, and fails or waits where told to."""

    def __init__(self, fail: str = "", before: Callable[[str], None] = lambda _: None) -> None:
        super().__init__()
        self.done: list[str] = []
        self.threads: set[int] = set()
        self.fail = fail
        self.before = before

    def perform(self, step: Any, *_: Any) -> None:
        self.threads.add(threading.get_ident())
        self.before(key_of(step))
        if key_of(step) == self.fail:
            raise KapelleError(f"{self.fail} failed")
        self.done.append(key_of(step))


class Together(Recorder):
    """Performs stops together, in a given order; those named by themselves."""

    together = (StopContainer,)

    def __init__(self, order: str, alone: str = "", fail: str = "") -> None:
        super().__init__(fail)
        self.order = order
        self.by_itself = alone
        self.asked: list[list[str]] = []

    def perform_together(self, wanted: Any, *_: Any) -> Any:
        self.asked.append(sorted(s.name for s in wanted))
        ended = sorted((s for s in wanted if s.name not in self.by_itself), key=lambda s: self.order.index(s.name))
        return [s for s in wanted if s.name in self.by_itself], self._ends(ended)

    def _ends(self, ended: Any) -> Iterator[Any]:
        for step in ended:
            failed = key_of(step) == self.fail
            if not failed:
                self.done.append(key_of(step))
            yield step, KapelleError(f"{self.fail} failed") if failed else None


def stops(names: str) -> Plan:
    """Stop each, then remove it; a is stopped after all others."""
    builder = Builder()
    others = [builder.add(StopContainer(n, n), STARTING) for n in names if n != "a"]
    last = builder.add(StopContainer("a", "a"), STARTING, others)
    for name, key in zip(names, [last, *others], strict=True):
        builder.add(RemoveContainer(name, name), STARTING, [key])
    return builder.plan()


def ignore(_: Event) -> None:
    return None


def diamond() -> Plan:
    builder = Builder()
    a = builder.add(StartContainer("a", "a"), STARTING)
    b, c = (builder.add(StartContainer(n, n), STARTING, [a]) for n in "bc")
    builder.add(StartContainer("d", "d"), STARTING, [b, c])
    return builder.plan()


def line(*names: str) -> Plan:
    builder = Builder()
    before: list[str] = []
    for name in names:
        before = [builder.add(StartContainer(name, name), STARTING, before)]
    return builder.plan()


def test_every_edge_is_honoured() -> None:
    engine = Recorder()
    execute(diamond(), engine, project(), ignore)
    assert (engine.done[0], sorted(engine.done[1:3]), engine.done[3]) == ("start a", ["start b", "start c"], "start d")


def test_steps_that_do_not_wait_for_each_other_run_at_the_same_time() -> None:
    together = threading.Barrier(2, timeout=10)
    engine = Recorder(before=lambda key: key in ("start b", "start c") and together.wait() and None)
    execute(diamond(), engine, project(), ignore)
    assert len(engine.done) == 4


def test_a_line_runs_in_the_calling_thread() -> None:
    engine = Recorder()
    execute(line("a", "b", "c"), engine, project(), ignore)
    assert engine.threads == {threading.get_ident()}


def test_a_later_stage_waits_for_the_earlier_one() -> None:
    builder = Builder()
    builder.add(StartContainer("z", "z"), STARTING)
    for name in "abc":
        builder.add(RemoveContainer(name, name), CREATING)
    engine = Recorder()
    execute(builder.plan(), engine, project(), ignore)
    assert engine.done[-1] == "start z"


def most_at_once(limit: int) -> int:
    """How many of twelve removals run at the same time."""
    now, most, lock = [0], [0], threading.Lock()

    def count(_: str) -> None:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        threading.Event().wait(0.01)
        with lock:
            now[0] -= 1

    builder = Builder()
    for number in range(12):
        builder.add(RemoveContainer(f"c{number}", "c"), STARTING)
    engine = Recorder(before=count)
    execute(builder.plan(), engine, project(), ignore, limit=limit)
    assert len(engine.done) == 12
    return most[0]


def test_the_bound_on_parallel_steps_is_kept() -> None:
    assert most_at_once(3) <= 3


def test_no_more_of_our_own_work_at_once_than_gains_something() -> None:
    assert most_at_once(12) <= 4


@pytest.mark.parametrize("plan", [diamond(), line("a", "b", "c")], ids=["diamond", "line"])
def test_the_first_failure_stops_what_follows_and_keeps_its_words(plan: Plan) -> None:
    engine = Recorder(fail="start b")
    with pytest.raises(KapelleError, match="start b failed"):
        execute(plan, engine, project(), ignore)
    assert "start d" not in engine.done
    assert engine.done[0] == "start a"


def test_a_failed_create_starts_nothing() -> None:
    engine = FakeEngine()
    engine.world.behaviours["web"] = Behaviour(fails="create")
    wanted = project(service("db"), service("web"))
    with pytest.raises(KapelleError, match="create demo-web-1 failed"):
        execute(up(wanted, engine.observe("demo")), engine, wanted, ignore)
    assert not any(key.startswith("start") for key in engine.world.performed)


def test_an_up_and_a_down_leave_nothing() -> None:
    from kapelle.plan.down import down

    engine = FakeEngine()
    wanted = project(service("db"), service("web", "db", condition="service_healthy"))
    engine.world.behaviours["db"] = Behaviour(health="healthy")
    execute(up(wanted, engine.observe("demo")), engine, wanted, ignore)
    assert [c.status for c in engine.containers()] == ["running", "running"]
    execute(down(wanted, engine.observe("demo")), engine, wanted, ignore)
    assert (engine.containers(), engine.networks()) == ((), ())


def test_steps_that_an_engine_performs_together_go_on_each_for_itself() -> None:
    engine = Together("dcba")
    execute(stops("abcd"), engine, project(), ignore)
    assert engine.asked == [["b", "c", "d"]]  # and a, the only one that is left, by itself
    assert sorted(engine.done) == sorted(f"{verb} {name}" for verb in ("stop", "remove") for name in "abcd")
    assert engine.done.index("stop d") < engine.done.index("remove d")
    assert engine.done.index("stop a") > engine.done.index("stop b")


def test_what_an_engine_does_not_want_to_perform_together_is_performed_by_itself() -> None:
    engine = Together("dcb", alone="c")
    execute(stops("abcd"), engine, project(), ignore)
    assert sorted(engine.done) == sorted(f"{verb} {name}" for verb in ("stop", "remove") for name in "abcd")


def test_a_failure_among_steps_performed_together_stops_what_follows() -> None:
    engine = Together("bcd", fail="stop c")
    with pytest.raises(KapelleError, match="stop c failed"):
        execute(stops("abcd"), engine, project(), ignore)
    assert "stop d" in engine.done
    assert not {"stop a", "remove c", "remove d"} & set(engine.done)


def test_an_engine_that_fails_as_a_whole_fails_all_of_them() -> None:
    class Broken(Together):
        def _ends(self, ended: Any) -> Iterator[Any]:
            yield ended[0], None
            raise KapelleError("it went away")

    engine = Broken("bcd")
    with pytest.raises(KapelleError, match="it went away"):
        execute(stops("abcd"), engine, project(), ignore)


def test_what_is_observed_is_a_value_of_its_own() -> None:
    assert there(running("a")).containers[0].alive
