"""Pure: what a container's health and restarts become, from what just happened. Times are monotonic seconds."""

from __future__ import annotations

from kapelle.light import NamedTuple

_FIRST_PROBE = 0.02  # while nothing is known yet, ask soon …
_SLOWEST_EXTRA = 1.0  # … and ever more slowly, up to this
_FIRST_BACKOFF = 0.1
_LONGEST_BACKOFF = 60.0
_GOOD_RUN = 10.0  # a run this long forgives earlier failures


class HealthCheck(NamedTuple):
    interval: float
    timeout: float
    retries: int
    start_period: float
    start_interval: float


class HealthState(NamedTuple):
    status: str = "starting"
    failing: int = 0  # consecutive failures that count
    next_at: float = 0.0  # when to probe
    counts_from: float = 0.0  # the declared schedule's next time: failures before it are of extra probes
    grace_until: float = 0.0  # end of the start period
    pace: float = _FIRST_PROBE


def health_init(check: HealthCheck, now: float) -> HealthState:
    """The state of a container that has just started."""
    return HealthState(
        next_at=now + min(_FIRST_PROBE, check.interval),
        counts_from=now + check.interval,
        grace_until=now + check.start_period,
    )


def health_due(state: HealthState) -> float:
    return state.next_at


def health_result(state: HealthState, check: HealthCheck, ok: bool, now: float) -> HealthState:
    """After a probe. Until the first success extra probes run between the declared ones; their failures don't count."""
    if ok:
        return state._replace(status="healthy", failing=0, next_at=now + check.interval, grace_until=now)
    in_grace = state.status == "starting" and now < state.grace_until
    declared = now >= state.counts_from
    failing = state.failing + 1 if (declared and not in_grace) or state.status != "starting" else state.failing
    status = "unhealthy" if failing >= check.retries else state.status
    counts_from = now + check.interval if declared else state.counts_from
    if status != "starting":
        return state._replace(status=status, failing=failing, next_at=now + check.interval, counts_from=counts_from)
    pace = min(state.pace * 2, _SLOWEST_EXTRA, check.interval)
    return state._replace(
        status=status, failing=failing, next_at=min(now + pace, counts_from), counts_from=counts_from, pace=pace
    )


class RestartPolicy(NamedTuple):
    """When to start again. `name`: no, always, unless-stopped, on-failure. `most`: restarts in a row, 0 for any."""

    name: str = "no"
    most: int = 0
    delay: float | None = None  # a fixed pause instead of the growing one
    window: float | None = None  # a run this long counts as a success: the restarts before it are forgotten


def restart_policy(text: str, delay: float | None = None, window: float | None = None) -> RestartPolicy:
    """ "on-failure:3" and the like as a policy."""
    name, _, most = text.partition(":")
    return RestartPolicy(name, int(most) if most.isdigit() else 0, delay, window)


class RestartState(NamedTuple):
    restarts: int = 0  # restarts in a row
    backoff: float = 0.0


def after_exit(
    policy: RestartPolicy, state: RestartState, exit_code: int, ran: float, stopped_by_user: bool
) -> tuple[RestartState, float | None]:
    """What follows an exit: the new state, and the delay before a restart or None. `ran` is seconds.

    As Docker: the pause doubles from 0.1 s to a minute and is forgiven by a good run; the count is not.
    """
    if ran >= _GOOD_RUN:
        state = state._replace(backoff=0.0)
    if policy.window is not None and ran >= policy.window:
        state = state._replace(restarts=0)
    wanted = policy.name in ("always", "unless-stopped") or (policy.name == "on-failure" and exit_code != 0)
    if stopped_by_user or not wanted or (policy.most and state.restarts >= policy.most):
        return RestartState(), None
    backoff = min(state.backoff * 2, _LONGEST_BACKOFF) if state.backoff else _FIRST_BACKOFF
    return RestartState(state.restarts + 1, backoff), backoff if policy.delay is None else policy.delay
