"""`up`: values in, steps with causes out."""

from __future__ import annotations

import pytest
from planning import HERE, depending, edges, exited, lines, project, running, service, there

from kapelle.compose.hashing import service_hash
from kapelle.errors import KapelleError, Mistakes, Position
from kapelle.model.project import Network, Volume
from kapelle.model.service import Build, Dependency, HealthCheck, Mount, NetworkAttachment
from kapelle.plan.diff import KEYS_LABEL, digests
from kapelle.plan.observed import Observed, ObservedImage, ObservedNetwork, ObservedVolume
from kapelle.plan.steps import CreateContainer
from kapelle.plan.up import UpOptions, up


def test_a_first_up_pulls_makes_the_network_creates_all_and_starts_in_order() -> None:
    plan = up(project(service("db"), service("web", "db")), Observed())
    assert plan.text() == (
        "images:\n"
        "  pull app:1: no such image\n"
        "networks and volumes:\n"
        "  create network demo_default: no such network\n"
        "create:\n"
        "  create demo-db-1: no such container\n"
        "  create demo-web-1: no such container\n"
        "start:\n"
        "  start demo-db-1: was created\n"
        "  start demo-web-1: was created\n"
        "    after start demo-db-1\n"
    )


def test_a_second_up_with_nothing_new_does_nothing() -> None:
    plan = up(project(service("db")), there(running("db")))
    assert lines(plan) == []
    assert plan.unchanged == (("demo-db-1", "Running"),)
    assert plan.text() == "unchanged:\n  demo-db-1: running\n"


def test_a_stopped_container_is_started_and_a_paused_one_goes_on() -> None:
    plan = up(project(service("a"), service("b")), there(exited("a"), running("b", status="paused")))
    assert lines(plan) == ["start demo-a-1: was exited", "unpause demo-b-1: was paused"]


def test_a_changed_configuration_recreates_and_names_the_key() -> None:
    before = service("db", raw={"image": "app:1", "environment": {"LEVEL": "info", "X": "1"}})
    after = before._replace(config_hash="new", raw={"image": "app:1", "environment": {"LEVEL": "debug", "X": "1"}})
    have = running("db", labels={KEYS_LABEL: digests(before)})
    assert lines(up(project(after), there(have)))[0] == "recreate demo-db-1: environment.LEVEL changed"
    assert lines(up(project(after), there(have), UpOptions(no_recreate=True))) == []


def test_a_container_of_an_earlier_kapelle_tells_what_changed_by_its_old_label() -> None:
    before = service("db", raw={"image": "app:1", "environment": {"LEVEL": "info"}})
    after = before._replace(config_hash="new", raw={"image": "app:1", "environment": {"LEVEL": "debug"}})
    have = running("db", labels={"dev.kapelle.config-keys": digests(before)})
    assert lines(up(project(after), there(have)))[0] == "recreate demo-db-1: environment.LEVEL changed"


def test_what_has_no_effect_on_a_container_is_neither_in_its_hash_nor_in_its_label() -> None:
    raw = {"image": "a", "scale": 2, "x-note": 1, "deploy": {"replicas": 2, "resources": {"limits": {"pids": 5}}}}
    one, other = service("db", raw=raw), service("db", raw={**raw, "scale": 3, "x-note": 2, "deploy": {
        "replicas": 3, "resources": {"limits": {"pids": 5}}}})  # fmt: skip
    assert digests(one) == digests(other)
    assert [part.partition("=")[0] for part in digests(one).split(",")] == ["deploy.resources", "image"]
    assert service_hash(one.raw, {}) == service_hash(other.raw, {})


def test_a_changed_configuration_of_unknown_origin_recreates_too() -> None:
    plan = up(project(service("db")), there(running("db", config_hash="old")))
    assert lines(plan) == ["recreate demo-db-1: configuration changed", "start demo-db-1: was recreated"]


def test_many_changed_keys_are_counted() -> None:
    before = service("db", raw={k: "1" for k in ("command", "hostname", "image", "user", "tty")})
    after = before._replace(config_hash="new", raw={"image": "1", "init": "1"})
    have = running("db", labels={KEYS_LABEL: digests(before)})
    assert lines(up(project(after), there(have)))[0] == (
        "recreate demo-db-1: command removed, hostname removed, init added and 2 more"
    )


def test_a_new_image_recreates_and_says_which() -> None:
    plan = up(project(service("db")), there(running("db", image_id="sha256:0")))
    assert lines(plan)[0] == "recreate demo-db-1: image changed: 0 -> 1"


def test_force_recreate_means_the_named_services_only() -> None:
    both = there(running("db"), running("web"))
    asked = UpOptions(targets=("web",), force_recreate=True)
    assert lines(up(project(service("db"), service("web", "db")), both, asked)) == [
        "recreate demo-web-1: --force-recreate",
        "start demo-web-1: was recreated",
    ]


def test_dependencies_are_recreated_only_when_asked() -> None:
    both = there(running("db"), running("web"))
    asked = UpOptions(targets=("web",), always_recreate_deps=True)
    plan = up(project(service("db"), service("web", "db")), both, asked)
    assert lines(plan)[0] == "recreate demo-db-1: --always-recreate-deps"


def test_a_named_service_brings_what_it_depends_on_and_nothing_else() -> None:
    services = (service("cache"), service("db"), service("web", "db"))
    assert "cache" not in up(project(*services), Observed(images=HERE), UpOptions(targets=("web",))).text()
    alone = up(project(*services), there(), UpOptions(targets=("web",), no_deps=True))
    assert lines(alone) == ["create demo-web-1: no such container", "start demo-web-1: was created"]


def test_a_health_condition_is_waited_for_between_the_starts() -> None:
    plan = up(project(service("db"), service("web", "db", condition="service_healthy")), there())
    wait = "wait db service_healthy for web"
    assert edges(plan) == {wait: ("start demo-db-1",), "start demo-web-1": (wait,)}


def test_a_condition_on_a_service_that_runs_already_is_still_waited_for() -> None:
    plan = up(project(service("db"), service("web", "db", condition="service_healthy")), there(running("db")))
    assert "wait db service_healthy for web: web depends on it" in lines(plan)


def test_a_dependency_that_is_switched_off_is_not_waited_for() -> None:
    web = service("web", depends_on=(Dependency("debug", "service_healthy", required=False),))
    assert lines(up(project(web), there())) == ["create demo-web-1: no such container", "start demo-web-1: was created"]


def test_scaling_down_removes_the_highest_numbers_and_scaling_up_fills_gaps() -> None:
    have = there(running("web", 1), running("web", 3), running("web", 4))
    fewer = up(project(service("web")), have, UpOptions(scale={"web": 1}))
    assert lines(fewer) == [
        "stop demo-web-4: scale is 1",
        "stop demo-web-3: scale is 1",
        "remove demo-web-4: scale is 1",
        "remove demo-web-3: scale is 1",
    ]
    more = up(project(service("web")), have, UpOptions(scale={"web": 5}))
    created = [line for line in lines(more) if line.startswith("create")]
    assert created == ["create demo-web-2: no such container", "create demo-web-5: no such container"]


def test_a_fixed_name_and_several_replicas_exclude_each_other() -> None:
    named = service("web", container_name="w", where={"container_name": Position("compose.yaml", 4, 5)})
    with pytest.raises(KapelleError, match="can't have 2 replicas") as e:
        up(project(named), there(), UpOptions(scale={"web": 2}))
    assert str(e.value.where) == "compose.yaml:4:5"


def test_an_orphan_is_told_or_removed_or_passed_over() -> None:
    have = there(running("old"))
    assert up(project(), have).warnings[0].startswith("Found orphan containers ([demo-old-1]) for this project.")
    assert lines(up(project(), have, UpOptions(remove_orphans=True))) == [
        "stop demo-old-1: orphan",
        "remove demo-old-1: orphan",
    ]
    assert up(project(), have, UpOptions(ignore_orphans=True)).warnings == ()


def test_a_one_off_that_has_ended_is_an_orphan_and_one_that_runs_is_not() -> None:
    job = service("job", scale=0)
    ended = there(exited("job", oneoff=True))
    assert "demo-job-1" in up(project(job), ended).warnings[0]
    assert up(project(job), there(running("job", oneoff=True))).warnings == ()


def test_a_container_of_a_service_that_a_profile_switches_off_is_no_orphan() -> None:
    assert up(project(disabled=(service("debug"),)), there(running("debug"))).warnings == ()


def test_an_unknown_service_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(KapelleError, match="no such service: wbe") as e:
        up(project(service("web")), Observed(), UpOptions(targets=("wbe",)))
    assert e.value.hint == "did you mean web?"


def test_a_service_behind_a_profile_names_the_profile() -> None:
    with pytest.raises(KapelleError, match="profile 'dev'"):
        up(project(disabled=(service("debug", profiles=("dev",)),)), Observed(), UpOptions(targets=("debug",)))


def test_missing_external_things_are_told_together_before_anything_is_created() -> None:
    web = service(
        "web",
        networks=(NetworkAttachment("front"),),
        mounts=(Mount("volume", "data", "/data"),),
    )
    wanted = project(web)._replace(
        networks=(Network("front", "shared", external=True, where=Position("compose.yaml", 9, 3)),),
        volumes=(Volume("data", "keep", external=True),),
    )
    with pytest.raises(Mistakes) as e:
        up(wanted, there())
    assert [m.what for m in e.value.mistakes] == [
        'network "shared" is declared as external, but could not be found',
        'volume "keep" is declared as external, but could not be found',
    ]
    assert e.value.mistakes[0].hint.startswith("kap network create shared")


def test_a_volume_of_another_project_is_used_with_a_warning() -> None:
    db = service("db", mounts=(Mount("volume", "data", "/data"),))
    wanted = project(db, volumes=(Volume("data", "demo_data"),))
    plan = up(wanted, there(volumes=(ObservedVolume("demo_data", project="other", key="data"),)))
    assert 'volume "demo_data" already exists but was created for project "other"' in plan.warnings[0]
    assert not any("volume" in line for line in lines(plan))


def test_a_changed_network_is_made_anew_with_the_containers_on_it() -> None:
    wanted = project(service("db"))._replace(networks=(Network("default", "demo_default", config_hash="new"),))
    network = ObservedNetwork("demo_default", "n", "demo", "default", config_hash="old")
    plan = up(wanted, there(running("db"), networks=(network,)))
    assert lines(plan) == [
        "stop demo-db-1: network default changed",
        "remove demo-db-1: network default changed",
        "remove network demo_default: configuration changed",
        "create network demo_default: configuration changed",
        "recreate demo-db-1: network default changed",
        "start demo-db-1: was recreated",
    ]


def test_who_shares_a_network_namespace_is_replaced_with_its_owner() -> None:
    side = service("side", "app", network_mode="service:app", networks=())
    have = there(running("app", config_hash="old"), running("side"))
    plan = up(project(service("app"), side), have)
    assert "recreate demo-side-1: shares with app, which is replaced" in lines(plan)
    assert edges(plan)["recreate demo-side-1"] == ("recreate demo-app-1",)


def test_a_dependent_with_restart_true_is_restarted_around_a_recreate() -> None:
    web = service("web", depends_on=(Dependency("db", restart=True),))
    have = there(running("db", config_hash="old"), running("web", labels=depending("db", restart=True)))
    assert lines(up(project(service("db"), web), have)) == [
        "stop demo-web-1: db is replaced (restart: true)",
        "recreate demo-db-1: configuration changed",
        "start demo-db-1: was recreated",
        "start demo-web-1: db is replaced (restart: true)",
    ]


@pytest.mark.parametrize(
    ("build", "image", "policy", "asked", "here", "expected"),
    [
        (False, "app:1", "", UpOptions(), True, []),
        (False, "app:1", "always", UpOptions(), True, ["pull app:1: pull policy is always"]),
        (False, "app:1", "", UpOptions(pull="always"), True, ["pull app:1: pull policy is always"]),
        (False, "app:1", "always", UpOptions(pull="missing"), True, []),
        (True, "", "", UpOptions(), False, ["build demo-a: no such image"]),
        (True, "", "", UpOptions(), True, []),
        (True, "", "", UpOptions(build=True), True, ["build demo-a: --build"]),
        (True, "app:1", "build", UpOptions(), True, ["build app:1: pull_policy is build"]),
        (True, "app:1", "missing", UpOptions(), False, ["pull app:1: no such image"]),
        (True, "app:1", "", UpOptions(), False, ["build app:1: no such image"]),
        (True, "app:1", "", UpOptions(no_build=True), False, ["pull app:1: no such image"]),
    ],
)
def test_an_image_is_built_pulled_or_taken_as_it_is(
    build: bool, image: str, policy: str, asked: UpOptions, here: bool, expected: list[str]
) -> None:
    one = service("a", image=image, pull_policy=policy, build=Build("/p") if build else None)
    have = {image or "demo-a": ObservedImage("sha256:1", ())} if here else {}
    plan = up(project(one), there(images=have), asked)
    assert lines(plan.only(0)) == expected


def test_an_image_that_may_be_neither_pulled_nor_built_is_an_error() -> None:
    with pytest.raises(KapelleError, match="forbids pulling"):
        up(project(service("a", pull_policy="never")), Observed())


def test_one_image_of_several_services_is_pulled_once() -> None:
    plan = up(project(service("a"), service("b")), Observed())
    assert lines(plan.only(0)) == ["pull app:1: no such image"]


def test_no_start_creates_only() -> None:
    plan = up(project(service("a")), there(exited("b")), UpOptions(no_start=True, ignore_orphans=True))
    assert lines(plan) == ["create demo-a-1: no such container"]


def test_wait_waits_for_each_goal_and_a_job_is_done_when_it_is_completed() -> None:
    web = service("web", "job", condition="service_completed_successfully", healthcheck=HealthCheck())
    plan = up(project(service("job"), web), there(), UpOptions(wait=True, wait_timeout=5))
    assert "wait web running_or_healthy: --wait" in lines(plan)
    assert "wait job service_completed_successfully: --wait" in lines(plan)


def test_created_containers_carry_the_digests_of_their_keys() -> None:
    one = service("a", raw={"image": "app:1"})
    created = [s for s in up(project(one), there()).steps if isinstance(s, CreateContainer)]
    assert dict(created[0].labels) == {KEYS_LABEL: digests(one)}


def test_compatibility_names_use_underscores() -> None:
    assert "create demo_a_1: no such container" in lines(up(project(service("a")), there(), UpOptions(separator="_")))
