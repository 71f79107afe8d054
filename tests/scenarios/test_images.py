"""Images by command: names, lists, inspect, history, removal and what it spares, archives, registries, logins."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import shutil
import signal
import subprocess
import tarfile
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import badregistry, registry, registry_access
from tests.checks import wait_until
from tests.registry_access import PASSWORD, USER
from tests.scenarios.conftest import Kap

ONE = "services:\n  a: {image: busybox, command: sleep 1000, labels: {team: blue}}\n"


@pytest.fixture
def own(kap: Kap, tmp_path: Path) -> Iterator[Kap]:
    """`kap` with a home of its own, which has busybox: what is removed here is nobody else's."""
    kap.file(ONE)
    kap.ok("pull", "-q")
    kap.ok("save", "-o", "busybox.tar", "busybox")
    alone = Kap(kap.folder, tmp_path / "home")
    alone.environment |= {"KAP_STAND_INS": "0", "HOME": str(tmp_path), "DOCKER_CONFIG": str(tmp_path / ".docker")}
    alone.ok("load", "-q", "-i", "busybox.tar")
    yield alone
    done = alone("down", "-v", "-t", "0", "--remove-orphans")
    assert done.code == 0, done


def names(kap: Kap) -> list[str]:
    return sorted(kap.ok("image", "ls", "--format", "{{.Repository}}:{{.Tag}}").out.split())


# -- names and lists ----------------------------------------------------------------------------------------------


def test_a_tag_is_a_further_name_and_the_image_goes_with_its_last_one(own: Kap) -> None:
    own.ok("tag", "busybox", "team/tool:2")
    assert names(own) == ["busybox:latest", "team/tool:2"]
    one, two = (own.ok("image", "inspect", "-f", "{{.Id}}", n).out for n in ("busybox", "team/tool:2"))
    assert one == two
    assert own.ok("rmi", "busybox").out == "Untagged: busybox:latest\n"
    gone = own.ok("rmi", "team/tool:2").out.splitlines()
    assert gone[0] == "Untagged: team/tool:2"
    assert gone[1] == f"Deleted: {one.strip()}"
    assert gone[2].startswith("Deleted: sha256:")
    assert names(own) == []
    assert not any((own.home / "data/images/layers").iterdir())


def test_the_list_has_dockers_columns_filters_and_formats(own: Kap) -> None:
    own.ok("tag", "busybox", "registry.example:5000/team/tool:2")
    heading, *rows = own.ok("image", "ls").out.splitlines()
    assert heading.split("   ")[0] == "REPOSITORY"
    assert [c for c in heading.split("  ") if c.strip()][-1].strip() == "SIZE"
    assert len(rows) == 2
    whole = own.ok("image", "inspect", "-f", "{{.Id}}", "busybox").out.strip()
    assert own.ok("image", "ls", "-q").out.split() == [whole[7:19]] * 2
    assert own.ok("image", "ls", "-q", "--no-trunc", "busybox").out.split() == [whole]
    assert own.ok("image", "ls", "-q", "busybox:nope").out == ""
    assert own.ok("image", "ls", "-q", "--filter", "reference=*/team/tool").out.split() == [whole[7:19]]
    assert own.ok("image", "ls", "-q", "--filter", "dangling=true").out == ""
    row = json.loads(own.ok("image", "ls", "--format", "json", "busybox").out)
    assert row["Repository"] == "busybox"
    assert all(isinstance(v, str) for v in row.values())
    assert {"Containers", "CreatedAt", "CreatedSince", "Digest", "ID", "SharedSize", "Size", "Tag"} < set(row)
    assert own("image", "ls", "--filter", "nonsense=1").code == 1


def test_inspect_finds_containers_images_networks_and_volumes(own: Kap) -> None:
    own.file(
        "services:\n  a:\n    image: busybox\n    command: sleep 1000\n    labels: {team: blue}\n    ports: ['80']\n"
        "    healthcheck: {test: 'true', interval: 1s}\n    volumes: ['data:/data', './:/src:ro']\n"
        "    restart: on-failure:3\n    mem_limit: 64m\n  b: {image: busybox, command: sleep 1000}\nvolumes: {data: }\n"
    )
    own.ok("up", "-d", "--wait")
    project = own.folder.name
    a, b = f"{project}-a-1", f"{project}-b-1"

    def one(template: str, *what: str) -> str:
        return own.ok("inspect", "-f", template, *(what or (a,))).out.strip()

    assert one("{{.State.Status}} {{.State.Running}} {{.State.ExitCode}}") == "running true 0"
    assert one("{{.State.Health.Status}}") == "healthy"
    assert one("{{if .State.Health}}{{.State.Health.Status}}{{else}}none{{end}}", b) == "none"
    assert one("{{json .State.Health}}", b) == "null"
    assert own("inspect", "-f", "{{.State.Health.Status}}", b).code == 1
    assert one("{{.Config.Labels.team}} {{.Config.Labels.nothing}}") == "blue <no value>"
    assert one('{{index .Config.Labels "com.docker.compose.service"}}') == "a"
    assert one("{{.HostConfig.RestartPolicy.Name}} {{.HostConfig.RestartPolicy.MaximumRetryCount}}") == "on-failure 3"
    assert one("{{.HostConfig.Memory}}") == str(64 << 20)
    assert one('{{range .Mounts}}{{if eq .Type "volume"}}{{.Name}} {{.Destination}}{{end}}{{end}}') == (
        f"{project}_data /data"
    )
    assert one('{{range .Mounts}}{{if eq .Type "bind"}}{{.Source}} {{.RW}}{{end}}{{end}}') == f"{own.folder} false"
    port = own.ok("port", "a", "80").out.strip().rpartition(":")[2]
    assert one('{{(index (index .NetworkSettings.Ports "80/tcp") 0).HostPort}}') == port
    address = one("{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}")
    assert address == one(f'{{{{(index .NetworkSettings.Networks "{project}_default").IPAddress}}}}')
    assert address in own.ok("inspect", f"{project}_default").out
    assert one("{{.Name}}") == f"/{a}"
    identifier = one("{{.Id}}")
    assert one("{{.Name}}", identifier[:12]) == f"/{a}"
    assert one("{{.Mountpoint}}", f"{project}_data").endswith("/_data")
    assert one("{{.Os}} {{json .RepoTags}}", "busybox") == 'linux ["busybox:latest"]'
    whole = json.loads(own.ok("inspect", a, "busybox").out)
    assert [v["Id"] for v in whole] == [identifier, whole[0]["Image"]]
    missing = own("inspect", a, "nothing")
    assert missing.code == 1
    assert len(json.loads(missing.out)) == 1
    assert "no such object: nothing" in missing.err
    assert own("inspect", "--type", "volume", a).code == 1
    assert own("inspect", "nothing").out == "[]\n"


def test_history_tells_the_steps_newest_first(own: Kap) -> None:
    own.file("services:\n  a: {build: ., image: mine}\n")
    (own.folder / "Dockerfile").write_text("FROM busybox\nENV A=b\nCOPY compose.yaml /one\nCMD sleep 1\n")
    own.ok("build", "-q")
    rows = [json.loads(line) for line in own.ok("history", "--format", "json", "mine").out.splitlines()]
    assert rows[0]["CreatedBy"].startswith("CMD")
    assert [r["Size"] == "0B" for r in rows][:3] == [True, False, True]
    assert rows[0]["ID"] == own.ok("image", "inspect", "-f", "{{.Id}}", "mine").out[7:19]
    assert own.ok("history", "mine").out.split()[:4] == ["IMAGE", "CREATED", "CREATED", "BY"]
    assert own("history", "nothing").code == 1


# -- removal and what it spares -----------------------------------------------------------------------------------


def test_an_image_with_a_container_stays_and_the_container_is_named(own: Kap) -> None:
    own.ok("up", "-d")
    done = own("rmi", "busybox")
    assert done.code == 1
    assert 'unable to remove repository reference "busybox" (must force)' in done.err
    identifier = own.ok("inspect", "-f", "{{.Id}}", f"{own.folder.name}-a-1").out[:12]
    assert identifier in done.err
    image = own.ok("image", "ls", "-q").out.strip()
    assert "cannot be forced" in own("rmi", "-f", image).err
    for words in (["rmi", "-f", "busybox"], ["image", "prune", "-af"], ["gc", "--cache"], ["system", "prune", "-af"]):
        own.ok(*words)
    assert own.ok("exec", "-T", "a", "ls", "/bin/sh").out == "/bin/sh\n"
    own.ok("restart", "-t", "0")
    assert own.ok("exec", "-T", "a", "echo", "still here").out == "still here\n"


def test_a_stopped_container_keeps_its_layers_though_the_image_is_forced_away(own: Kap) -> None:
    own.ok("up", "-d")
    own.ok("stop", "-t", "0")
    own.ok("rmi", "-f", "busybox")
    own.ok("gc", "--cache")
    assert names(own) == []
    own.ok("start")
    assert own.ok("exec", "-T", "a", "echo", "works").out == "works\n"


def test_an_image_that_is_mounted_as_a_volume_keeps_its_layers(own: Kap) -> None:
    (own.folder / "Dockerfile").write_text("FROM busybox\nRUN echo mounted > /text\n")
    own.file(
        "services:\n  files: {build: ., image: files, profiles: [never]}\n"
        "  a:\n    image: busybox\n    command: sleep 1000\n"
        "    volumes: [{type: image, source: files, target: /files}]\n"
    )
    own.ok("--profile", "never", "build", "-q")
    own.ok("up", "-d")
    own.ok("rmi", "-f", "files")
    own.ok("gc", "--cache")
    own.ok("restart", "-t", "0")
    assert own.ok("exec", "-T", "a", "cat", "/files/text").out == "mounted\n"


def test_missing_images_are_an_error_but_not_with_force(own: Kap) -> None:
    done = own("rmi", "nothing:1", "busybox")
    assert done.code == 1
    assert "no such image: nothing:1" in done.err
    assert "Untagged: busybox:latest" in done.out
    assert own("rmi", "-f", "nothing:1").code == 0


def test_several_names_of_one_image_are_not_taken_by_its_id_without_force(own: Kap) -> None:
    own.ok("tag", "busybox", "other:1")
    image = own.ok("image", "ls", "-q", "busybox").out.strip()
    assert "referenced in multiple repositories" in own("rmi", image).err
    assert names(own) == ["busybox:latest", "other:1"]
    own.ok("rmi", "-f", image)
    assert names(own) == []


def test_prune_takes_dangling_images_and_with_all_the_unused_ones(own: Kap) -> None:
    own.file("services:\n  a: {build: ., image: mine}\n")
    for text in ("one", "two"):
        (own.folder / "Dockerfile").write_text(f"FROM busybox\nRUN echo {text} > /text\n")
        own.ok("build", "-q")
    assert names(own) == ["<none>:<none>", "busybox:latest", "mine:latest"]
    asked = own("image", "prune", stdin="n\n")
    assert "WARNING!" in asked.out
    assert "<none>:<none>" in names(own)
    done = own.ok("image", "prune", "-f")
    assert "deleted: sha256:" in done.out
    assert "Total reclaimed space: " in done.out
    assert names(own) == ["busybox:latest", "mine:latest"]
    own.ok("image", "prune", "-af")
    assert names(own) == []
    assert own.ok("gc", "--cache").code == 0
    assert not any((own.home / "data/images/layers").iterdir())


def test_system_df_counts_and_system_prune_gives_it_back(own: Kap) -> None:
    own.ok("up", "-d")
    own.ok("exec", "-T", "a", "sh", "-c", "head -c 3000000 /dev/zero > /big")
    rows = {r["Type"]: r for r in map(json.loads, own.ok("system", "df", "--format", "json").out.splitlines())}
    assert (rows["Images"]["TotalCount"], rows["Images"]["Active"]) == ("1", "1")
    assert rows["Images"]["Reclaimable"] == "0B (0%)"
    assert rows["Containers"]["Size"] == "3MB"
    assert own.ok("system", "df").out.split()[:5] == ["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"]
    assert f"{own.folder.name}-a-1" in own.ok("system", "df", "-v").out
    own.ok("stop", "-t", "0")
    done = own.ok("system", "prune", "-af")
    assert "Deleted Containers:" in done.out
    assert f"{own.folder.name}_default" in done.out
    assert "untagged: busybox:latest" in done.out
    assert "Total reclaimed space: " in done.out
    assert own.ps() == {}
    assert names(own) == []


# -- archives -----------------------------------------------------------------------------------------------------


def test_a_file_system_is_imported_with_changes_and_runs(own: Kap) -> None:
    own.ok("up", "-d")
    own.ok("export", "-o", "root.tar", "a")
    done = own.ok("import", "-c", 'CMD ["cat", "/mark"]', "-c", "ENV A=b", "-m", "mine", "root.tar", "flat:1")
    assert done.out.startswith("sha256:")
    assert own.ok("image", "inspect", "-f", "{{json .Config.Cmd}} {{len .RootFS.Layers}}", "flat:1").out == (
        '["cat","/mark"] 1\n'
    )
    own.file("services:\n  a: {image: 'flat:1', command: [echo, it runs], pull_policy: never}\n")
    assert own.ok("run", "--rm", "-T", "a").out == "it runs\n"


def test_import_reads_standard_input(own: Kap) -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as tar:
        tar.addfile(tarfile.TarInfo("empty"))
    done = subprocess.run(
        [*own.command, "import", "-", "piped"], input=data.getvalue(), env=own.environment, cwd=own.folder,
        capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done
    assert "piped:latest" in names(own)
    assert own("import", "missing.tar").code == 1


@pytest.mark.skipif(not shutil.which("skopeo"), reason="needs skopeo")
@pytest.mark.parametrize("form", ["docker-archive:x.tar:tool:1", "oci-archive:x.tar:tool:1", "oci:x:tool:1"])
def test_what_skopeo_writes_loads_and_what_is_saved_skopeo_reads(own: Kap, form: str) -> None:
    copy = ["skopeo", "copy", "-q", "--insecure-policy", "docker-archive:busybox.tar", form]
    copied = subprocess.run(copy, cwd=own.folder, capture_output=True, check=False)
    assert copied.returncode == 0, copied
    before = own.ok("image", "inspect", "-f", "{{json .RootFS.Layers}}", "busybox").out
    own.ok("rmi", "busybox")
    loaded = own.ok("load", "-i", form.split(":")[1]).out
    assert "Loaded image" in loaded
    name = loaded.split()[-1]
    assert own.ok("image", "inspect", "-f", "{{json .RootFS.Layers}}", name).out == before
    own.ok("save", "-o", "again.tar", name)
    kinds = ["docker-archive"] + ["oci-archive"] * (os.geteuid() == 0)  # skopeo gives what it reads to root
    for kind in kinds:
        subprocess.run(["skopeo", "inspect", f"{kind}:again.tar"], cwd=own.folder, check=True, capture_output=True)


@pytest.mark.skipif(not shutil.which("skopeo") or os.geteuid() != 0, reason="needs skopeo and root's folders")
def test_what_is_built_is_in_the_stores_layout_and_df_counts_it(own: Kap, tmp_path: Path) -> None:
    (own.folder / "Dockerfile").write_text("FROM busybox\nRUN head -c 3000000 /dev/urandom > /made\n")
    own.ok("build", "-q", "-t", "built:1", ".")
    layout = str(next((tmp_path / "home").rglob("oci-layout")).parent)
    copy = ["skopeo", "copy", "-q", "--insecure-policy", f"oci:{layout}:built:1", f"dir:{tmp_path}/copied"]
    subprocess.run(copy, check=True, capture_output=True)
    sizes = [json.loads(row) for row in own.ok("system", "df", "--format", "json").out.splitlines()]
    images = next(row["Size"] for row in sizes if row["Type"] == "Images")
    lean = Kap(own.folder, tmp_path / "lean")
    lean.environment |= own.environment | {"KAP_HOME": lean.environment["KAP_HOME"], "KAP_KEEP_LAYER_ARCHIVES": "0"}
    lean.ok("load", "-q", "-i", "busybox.tar")
    lean.ok("build", "-q", "-t", "built:1", ".")
    sizes = [json.loads(row) for row in lean.ok("system", "df", "--format", "json").out.splitlines()]
    less = next(row["Size"] for row in sizes if row["Type"] == "Images")
    assert float(images.removesuffix("MB")) > float(less.removesuffix("MB")) + 3
    own.ok("rmi", "built:1")
    own.ok("gc", "--cache")
    assert subprocess.run(copy, check=False, capture_output=True).returncode != 0


# -- registries ---------------------------------------------------------------------------------------------------


def test_a_built_image_is_pushed_and_pulled_by_another_home(own: Kap, tmp_path: Path) -> None:
    with registry.running(tmp_path / "registry") as address:
        own.file(
            f"services:\n  a: {{build: ., image: '{address}/team/app:1'}}\n  b: {{image: busybox}}\n"
            f"  c: {{build: ., image: '{address}/team/other:1', depends_on: [a]}}\n"
        )
        (own.folder / "Dockerfile").write_text("FROM busybox\nRUN echo made > /made\nCMD cat /made\n")
        own.ok("build", "-q")
        done = own.ok("push", "c")
        assert f"Image {address}/team/other:1  Pushed" in done.err
        assert "team/app" not in done.err
        assert own.ok("push", "-q", "--include-deps", "c").err == ""
        assert own.ok("image", "push", f"{address}/team/app:1").out.startswith("1: digest: sha256:")
        other = Kap(own.folder, tmp_path / "second")
        other.file(f"services:\n  a: {{image: '{address}/team/app:1'}}\n")
        try:
            assert other.ok("run", "--rm", "-T", "--quiet-pull", "a").out == "made\n"
            pulled = other.ok("image", "pull", f"{address}/team/app:1").out
            assert "Status: Image is up to date for" in pulled
            digest = other.ok("image", "inspect", "-f", "{{index .RepoDigests 0}}", f"{address}/team/app:1").out.strip()
            assert digest.startswith(f"{address}/team/app@sha256:")
            assert other.ok("image", "pull", "-q", digest).out == f"{digest}\n"
        finally:
            other("down", "-t", "0")


def test_push_carries_on_after_a_failure_when_told_to(own: Kap, tmp_path: Path) -> None:
    with registry.running(tmp_path / "registry") as address:
        dead = registry.free_port()
        own.file(
            f"services:\n  a: {{build: ., image: '127.0.0.1:{dead}/x:1'}}\n  b: {{build: ., image: '{address}/x:1'}}\n"
        )
        (own.folder / "Dockerfile").write_text("FROM busybox\n")
        own.ok("build", "-q")
        done = own("push")
        assert done.code == 1
        assert "connection refused" in done.err
        assert "KAP508" in done.err
        done = own.ok("push", "--ignore-push-failures")
        assert f"Image {address}/x:1  Pushed" in done.err


def test_login_keeps_what_the_registry_takes_and_logout_forgets_it(own: Kap, tmp_path: Path) -> None:
    config = registry_access.password_file(tmp_path / "passwords")
    with registry.running(tmp_path / "registry", config) as address:
        own.ok("tag", "busybox", f"{address}/app:1")
        denied = own("push", f"{address}/app:1")
        assert denied.code == 1
        assert f"kap login {address}" in denied.err
        wrong = own("login", "-u", USER, "--password-stdin", address, stdin="wrong\n")
        assert wrong.code == 1
        assert "does not take this login" in wrong.err
        assert not Path(own.environment["DOCKER_CONFIG"], "config.json").exists()
        done = own("login", "-u", USER, "--password-stdin", address, stdin=f"{PASSWORD}\n")
        assert (done.code, done.out) == (0, "Login Succeeded\n"), done
        assert own.ok("login", address).out.endswith("Login Succeeded\n")
        own.ok("push", f"{address}/app:1")
        assert PASSWORD not in done.err
        assert own.ok("logout", address).out == f"Removing login credentials for {address}\n"
        assert own.ok("logout", address).out == f"Not logged in to {address}\n"
        assert own("image", "pull", f"{address}/app:1").code == 1


def test_a_login_on_a_terminal_asks_and_shows_no_password(own: Kap, tmp_path: Path) -> None:
    config = registry_access.password_file(tmp_path / "passwords")
    with registry.running(tmp_path / "registry", config) as address:
        near, far = pty.openpty()
        process = subprocess.Popen(
            [*own.command, "login", address], env=own.environment, cwd=own.folder,
            stdin=far, stdout=far, stderr=far, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        os.close(far)
        seen = b""
        for question, answer in ((b"Username:", USER), (b"Password:", PASSWORD), (b"Succeeded", "")):
            while question not in seen:
                seen += os.read(near, 1000)
            if answer:
                os.write(near, answer.encode() + b"\n")
        assert process.wait(20) == 0
        os.close(near)
        assert PASSWORD.encode() not in seen


def test_a_login_without_a_terminal_or_a_password_is_told_how(own: Kap) -> None:
    done = own("login", "registry.example")
    assert done.code == 1
    assert "--password-stdin" in done.err
    assert own("login", "--password-stdin", "registry.example", stdin="x").code == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="one user is enough")
def test_two_processes_load_and_remove_at_once_and_the_store_works(own: Kap) -> None:
    """Loads, removals and collections side by side, many times: what is named at the end is whole."""
    script = "for i in 1 2 3 4 5 6; do {}; done"
    kap = " ".join(own.command)
    loads = [
        subprocess.Popen(
            ["sh", "-c", script.format(f"{kap} {words} >/dev/null 2>&1 || true")], cwd=own.folder, env=own.environment
        )
        for words in ("load -q -i busybox.tar", "rmi -f busybox", "gc --cache")
    ]
    for process in loads:
        assert process.wait(120) == 0
    own.ok("load", "-q", "-i", "busybox.tar")
    assert own.ok("run", "--rm", "-T", "a", "echo", "whole").out == "whole\n"


def test_a_prune_beside_an_up_takes_nothing_that_it_is_fetching(own: Kap) -> None:
    """From the pull to the container: whatever prunes and collections run meanwhile."""
    with badregistry.running() as server:
        for name in ("one", "two"):
            own.ok("tag", "busybox", f"{server.address}/{name}:1")
            own.ok("push", f"{server.address}/{name}:1")
        own.ok("image", "prune", "-af")
        assert names(own) == []

        def slowly(_: badregistry.Request) -> bool:
            time.sleep(0.7)
            return False

        server.when("GET", "/v2/two/manifests/", slowly, 2)  # `one` is here and has no container yet
        own.file(
            f"services:\n  a: {{image: '{server.address}/one:1', command: sleep 1000}}\n"
            f"  b: {{image: '{server.address}/two:1', command: sleep 1000}}\n"
        )
        up = own.start("up", "-d")
        while up.poll() is None:
            own.ok("image", "prune", "-af")
            own.ok("gc", "--cache")
        assert up.wait() == 0, up.stdout.read() if up.stdout else ""
        assert len(names(own)) == 2
        for service in ("a", "b"):
            assert own.ok("exec", "-T", service, "echo", "works").out == "works\n"


def test_two_pulls_of_one_image_at_once_fetch_each_layer_once(own: Kap) -> None:
    with badregistry.running() as server:
        server.image("app", "1", {"a": b"one" * 9000}, {"b": b"two" * 9000})
        large = [d for d, data in server.blobs.items() if data[:2] == b"\x1f\x8b"]

        def slowly(_: badregistry.Request) -> bool:
            time.sleep(0.5)
            return False

        server.when("GET", "/blobs/", slowly)
        pulls = [own.start("image", "pull", "-q", f"{server.address}/app:1") for _ in range(3)]
        assert [p.wait(60) for p in pulls] == [0, 0, 0]
        for digest in large:
            assert server.paths().count(f"/v2/app/blobs/{digest}") == 1
        assert len(names(own)) == 2


def test_a_pull_that_is_interrupted_leaves_nothing_and_the_next_one_works(own: Kap) -> None:
    with badregistry.running() as server:
        server.image("app", "1", {"a": b"one" * 9000}, {"b": b"two" * 9000})

        def slowly(_: badregistry.Request) -> bool:
            time.sleep(5)
            return False

        server.when("GET", "/blobs/", slowly, 3)
        for signal_number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            pull = own.start("image", "pull", f"{server.address}/app:1")
            wait_until(lambda: any("/blobs/" in a.path for a in server.asked))
            pull.send_signal(signal_number)
            assert pull.wait(20) != 0
            server.asked.clear()
        own.ok("image", "pull", "-q", f"{server.address}/app:1")
        assert len(names(own)) == 2
        assert not any((own.home / "data/images/tmp").iterdir())


def test_quiet_flags_leave_out_what_pulls_and_builds_say_and_nothing_else(own: Kap) -> None:
    own.file(
        'services:\n  built:\n    build: {context: ., dockerfile_inline: "FROM busybox\\nRUN echo loud-step"}\n'
        "    command: 'true'\n"
    )
    loud = own.ok("up", "-d", "--build")
    assert "loud-step" in loud.out + loud.err
    own.ok("down")
    quiet = own.ok("up", "-d", "--build", "--force-recreate", "--quiet-build")
    assert "loud-step" not in quiet.out + quiet.err
    assert "Container" in quiet.err
    own.ok("down")
    with badregistry.running() as server:
        server.image("app", "1", {"a": b"one"})
        own.file(f"services:\n  a: {{image: '{server.address}/app:1'}}\n")
        assert "Pulled" in own.ok("pull").err
        assert own.ok("pull", "-q").err == ""
        own.ok("rmi", f"{server.address}/app:1")
        created = own.ok("create", "--quiet-pull")
        assert "Container" in created.err
        assert "Pull" not in created.err
        own.ok("rm", "-f")
        own.file(f"services:\n  a: {{image: '{server.address}/missing:1'}}\n")
        failed = own("create", "--quiet-pull")
        assert failed.code != 0
        assert "missing:1" in failed.err


def test_a_limit_tells_when_it_ends_how_many_images_are_missing_and_what_is_left_to_do(own: Kap) -> None:
    with badregistry.running() as server:
        server.image("app", "1", {"x": b"1"})
        name = f"{server.address}/app:1"
        own.file(
            f"services:\n  a: {{image: busybox}}\n  b: {{image: '{name}'}}\n  c: {{image: '{server.address}/no:1'}}\n"
        )
        server.when("GET", "/v2/no/manifests/", lambda r: r.error(429, "TOOMANYREQUESTS", Retry_After="2460"))
        own.ok("pull", "-q", "b")
        done = own("up", "-d")
        assert done.code == 1
        assert f"image {server.address}/no:1 could not be pulled (1 of 3 images is missing) [KAP501]" in done.err
        assert "429 too many requests, free again in 41 min (anonymous, per address)" in done.err
        assert f"kap login {server.address}" in done.err
        # an image that is here and was asked for again is enough to go on
        server.when("HEAD", "/v2/app/manifests/", lambda r: r.answer(429, Retry_After="2460"))
        own.file(f"services:\n  b: {{image: '{name}', pull_policy: always}}\n")
        done = own("up", "-d")
        assert "missing" not in done.err
        assert " hint: carry on with what is here: kap up --offline" in done.err
