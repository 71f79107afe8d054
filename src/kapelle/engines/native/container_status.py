"""The status of a container that has never run; what status.json holds."""

from __future__ import annotations

from kapelle.light import Any


def new_status() -> dict[str, Any]:
    """Times are seconds since the epoch; `run` counts starts; `networks` and `ports` are rows of plan.observed."""
    return {
        "status": "created", "run": 0, "pid": 0, "start_time": 0, "boot": "", "started": 0.0, "finished": 0.0,
        "exit_code": 0, "oom": False, "memory_peak": 0, "error": "", "health": "", "health_log": [], "failing": 0,
        "restarts": 0, "in_row": 0, "backoff": 0.0,
        "stopped_by_user": False, "halted": False, "killed": "", "networks": [], "ports": [],
    }  # fmt: skip
