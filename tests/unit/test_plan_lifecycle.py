"""Health and restarts as values: no clock, no container."""

from __future__ import annotations

from kapelle.plan.lifecycle import (
    HealthCheck,
    HealthState,
    RestartPolicy,
    RestartState,
    after_exit,
    health_init,
    health_result,
    restart_policy,
)

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


ALWAYS = restart_policy("always")


def ends(policy: RestartPolicy, *runs: tuple[int, float]) -> list[float | None]:
    """The pause after each of several runs (exit code, seconds)."""
    state, pauses = RestartState(), []
    for code, ran in runs:
        state, pause = after_exit(policy, state, code, ran, False)
        pauses.append(pause)
    return pauses


def test_always_restarts_with_doubling_delays_that_a_good_run_resets() -> None:
    assert ends(ALWAYS, (0, 1), (1, 1), (1, 20)) == [0.1, 0.2, 0.1]
    assert ends(ALWAYS, *[(1, 0)] * 12)[-2:] == [60.0, 60.0]


def test_a_stop_by_the_user_is_never_undone() -> None:
    assert after_exit(ALWAYS, RestartState(), 143, 1, True)[1] is None


def test_on_failure_restarts_failures_only_and_up_to_its_limit() -> None:
    assert ends(restart_policy("on-failure"), (0, 1)) == [None]
    assert ends(restart_policy("on-failure:2"), (1, 1), (1, 11), (1, 1)) == [0.1, 0.1, None]


def test_a_fixed_delay_takes_the_place_of_the_growing_one() -> None:
    assert ends(restart_policy("always:2", delay=5.0), (0, 1), (0, 1), (0, 1)) == [5.0, 5.0, None]


def test_a_run_as_long_as_the_window_forgives_the_restarts_before_it() -> None:
    policy = restart_policy("on-failure:1", window=3.0)
    assert ends(policy, (1, 1), (1, 3), (1, 1)) == [0.1, 0.2, None]


def test_no_never_restarts() -> None:
    assert ends(restart_policy("no"), (1, 1)) == [None]
