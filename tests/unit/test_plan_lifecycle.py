"""Health and restarts as values: no clock, no container."""

from __future__ import annotations

from kapelle.plan.lifecycle import HealthCheck, HealthState, RestartState, after_exit, health_init, health_result

CHECK = HealthCheck(interval=5, timeout=3, retries=2, start_period=0, start_interval=1)


def failing(state: HealthState, check: HealthCheck, at: float) -> HealthState:
    return health_result(state, check, False, at)


def test_the_first_probe_comes_at_once_not_after_an_interval() -> None:
    assert health_init(CHECK, 100).next_at < 100.1


def test_one_success_makes_it_healthy_and_returns_to_the_declared_schedule() -> None:
    state = health_result(health_init(CHECK, 0), CHECK, True, 1)
    assert (state.status, state.next_at) == ("healthy", 6)


def test_failures_of_extra_probes_do_not_count() -> None:
    state = health_init(CHECK, 0)
    for at in (0.1, 0.2, 0.5, 1, 2, 3, 4):
        state = failing(state, CHECK, at)
    assert (state.status, state.failing) == ("starting", 0)


def test_failures_of_declared_probes_make_it_unhealthy_after_the_retries() -> None:
    state = failing(failing(health_init(CHECK, 0), CHECK, 5), CHECK, 10)
    assert state.status == "unhealthy"


def test_failures_within_the_start_period_do_not_count() -> None:
    check = CHECK._replace(start_period=60)
    state = failing(failing(health_init(check, 0), check, 5), check, 10)
    assert state.status == "starting"


def test_a_healthy_container_needs_all_retries_to_fall() -> None:
    state = health_result(health_init(CHECK, 0), CHECK, True, 0)
    state = failing(state, CHECK, 5)
    assert state.status == "healthy"
    assert failing(state, CHECK, 10).status == "unhealthy"


def test_always_restarts_with_doubling_delays_that_a_good_run_resets() -> None:
    state, first = after_exit("always", RestartState(), 0, 1, False)
    state, second = after_exit("always", state, 1, 1, False)
    state, third = after_exit("always", state, 1, 20, False)
    assert (first, second, third) == (0.1, 0.2, 0.1)


def test_a_stop_by_the_user_is_never_undone() -> None:
    assert after_exit("always", RestartState(), 143, 1, True)[1] is None


def test_on_failure_restarts_failures_only_and_up_to_its_limit() -> None:
    assert after_exit("on-failure", RestartState(), 0, 1, False)[1] is None
    state, delay = after_exit("on-failure:1", RestartState(), 1, 1, False)
    assert delay == 0.1
    assert after_exit("on-failure:1", state, 1, 1, False)[1] is None


def test_no_never_restarts() -> None:
    assert after_exit("no", RestartState(), 1, 1, False)[1] is None
