"""The benchmark's tables: figures in, text out. Nothing is timed here."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

_BENCH = Path(__file__).resolve().parents[2] / "bench"


def _module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"bench_{name}", _BENCH / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


report: Any = _module("report")
beats: Any = _module("beats")
VALUES = {
    "up -d 10": {"kap": [0.2, 0.3, 0.2], "docker compose": [2.0, 2.0, 1.0], "podman-compose": [4.0, 4.0, 4.0]},
    "published port, connections": {"kap": [3000.0], "docker compose": [2000.0], "kap as ann": [900.0]},
    "exec": {"kap": [0.1], "docker compose": [0.1], "kap as ann": [0.12]},
    "late checks of 50 at 5 s": {"kap": [0.0], "docker compose": [31.0]},
}


def test_a_ratio_is_of_medians_and_its_spread_of_rounds() -> None:
    assert report.ratio(VALUES, "up -d 10", "kap", "docker compose") == pytest.approx(0.1)
    assert report.spread(VALUES, "up -d 10", "kap", "docker compose") == pytest.approx((0.1, 0.2))
    assert report.ratio(VALUES, "exec", "kap", "podman-compose") is None


def test_a_rate_must_be_high_and_a_time_low() -> None:
    assert report.verdict(VALUES, "up -d 10") == "yes"
    assert report.verdict(VALUES, "published port, connections") == "no"  # 1.5 times, and 1.7 is asked
    assert report.verdict(VALUES, "exec") == "no"
    assert report.verdict(VALUES, "late checks of 50 at 5 s") == "yes"  # of kap alone
    assert report.verdict({"exec": {"kap": [1.0]}}, "exec") == ""


def test_the_table_has_a_column_for_each_tool_that_ran() -> None:
    head, ten, *_ = report.compared(VALUES)
    assert head == ["case", "kap", "docker compose", "podman-compose", "kap / docker", "kap / podman", *head[6:]]
    assert ten[1:6] == ["0.20 s", "2.00 s", "4.00 s", "0.10 (0.10 to 0.20)", "0.050 (0.050 to 0.075)"]
    alone = {"exec": {"kap": [0.1]}}
    assert report.compared(alone)[0][:3] == ["case", "kap", "rounds"]


def test_users_are_held_against_root_and_their_ports_against_docker() -> None:
    head, ports, execs = report.by_users(VALUES)
    assert head[:4] == ["case", "kap as root", "kap as ann", "ann / root"]
    assert ports[3:] == ["0.45", "of docker: ≥ 0.5", "no"]
    assert execs[3:] == ["1.2", "≤ 1.5", "yes"]
    assert report.by_users({"exec": {"kap": [0.1]}}) == []


def test_costs_are_shown_by_the_number_of_services() -> None:
    values = {
        report.per_service(verb, size): {"kap": [cost]}
        for size, cost in ((1, 100.0), (10, 20.0), (300, 22.0))
        for verb in ("up", "up again")
    }
    assert report.grown(values) == [
        ["ms per service", "1", "10", "300", "last / first from 10 on"],
        ["up", "100", "20.0", "22.0", "1.1"],
        ["up again", "100", "20.0", "22.0", "1.1"],
    ]
    assert report.grown(VALUES) == []
    assert len(report.compared(values)) == 1  # they are in that table only


def test_a_table_is_markdown_with_its_columns_in_line() -> None:
    assert report.markdown([["case", "kap"], ["exec", "0.10 s"]]) == (
        "| case | kap    |\n|------|--------|\n| exec | 0.10 s |\n"
    )
    assert report.markdown([]) == ""


def test_figures_have_the_digits_that_mean_something() -> None:
    shown = [report.figure(v, "s") for v in (0.0123, 0.123, 12.3)] + [
        report.figure(v, "/s") for v in (0.5, 12.34, 1234)
    ]
    assert shown == ["0.012 s", "0.12 s", "12.30 s", "0.50 /s", "12.3 /s", "1234 /s"]
    assert report.figure(None, "s") == "–"


def test_every_case_that_has_a_target_shows_it_in_its_own_unit() -> None:
    shown = {case: str(target) for case, target in report.TARGETS.items()}
    assert shown["up -d 50"] == "≤ 0.15"
    assert shown["own memory at 50"] == "≤ 30 MiB"
    assert shown["name lookups"] == "≥ 1.5"


def test_runs_are_told_as_one_with_their_load_and_what_failed() -> None:
    run = {"machine": "2 cores", "load": [1.0, 3.0], "values": VALUES, "notes": ["podman: no", "podman: no"]}
    told = report.text(run)
    assert told.startswith("2 cores; load average 1.0 to 3.0, median 2.0; medians")
    assert told.endswith("- podman: no\n")
    assert report.merged([run, run])["values"]["exec"]["kap"] == [0.1, 0.1]


def test_checks_in_time_are_none_late() -> None:
    on_time = [[95.0, 100.1, 105.2, 110.1, 115.0]]
    assert beats.told(on_time, 100.0, 120.0, 6.0) == (0, 4, 4)


def test_a_check_is_late_once_and_one_that_never_came_as_often_as_it_was_due() -> None:
    late = [[95.0, 102.0, 107.0, 112.0, 117.0]]  # seven seconds after the one before
    assert beats.told(late, 100.0, 120.0, 6.0) == (1, 4, 4)
    slept = [[95.0, 100.0, 115.0, 119.0]]  # one never came, the next was late
    assert beats.told(slept, 100.0, 120.0, 6.0) == (2, 3, 4)
    assert beats.told([[]], 100.0, 118.5, 6.0) == (3, 0, 3)
