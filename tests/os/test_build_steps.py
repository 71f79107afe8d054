"""Building for real: RUN in containers of the engine, layers in a store, over a static busybox."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from pathlib import Path

import pytest

from kapelle.engines.native.buildrun import BuildRunner
from kapelle.errors import ImageError
from kapelle.events import BuildOutput, Event
from kapelle.images.build.builder import BuildOptions, build
from kapelle.images.build.rootfs import Rootfs
from kapelle.images.store import Store
from kapelle.images.types import Image
from kapelle.model.service import Build
from kapelle.state.paths import find

BUSYBOX = shutil.which("busybox") or ""
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: RUN makes containers"),
    pytest.mark.skipif(not BUSYBOX, reason="needs a static busybox (Debian's busybox-static)"),
]


class Yard:
    def __init__(self, folder: Path, home: Path) -> None:
        self.folder = folder
        self.paths = find({"KAP_HOME": str(home)})
        self.store = Store(self.paths.images)
        self.events: list[Event] = []
        self.environment: dict[str, str] = {}
        with self.store.new_layer() as layer:
            root = Path(layer) / "diff"
            (root / "bin").mkdir(parents=True)
            (root / "etc").mkdir()
            (root / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/:/bin/sh\n")
            (root / "etc/group").write_text("root:x:0:\napp:x:1001:\n")
            shutil.copy(BUSYBOX, root / "bin/busybox")
            for name in ("sh", "cat", "echo", "ls", "stat", "touch", "rm", "mkdir", "env", "id", "test", "pwd", "cp"):
                (root / "bin" / name).symlink_to("busybox")
            diff_id = self.store.commit_layer(str(root))
        config = {"config": {"Env": ["PATH=/bin"], "Cmd": ["base"]}, "os": "linux"}
        self.store.put_image(config, (diff_id,), ("base:1",))

    def write(self, **files: str) -> None:
        for name, text in files.items():
            path = self.folder / name.replace("__", "/").replace("_dot_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def resolve(self, name: str) -> Image:
        found = self.store.find(name)
        assert found is not None, name
        return found

    def build(self, text: str, **changes: object) -> Image:
        self.events.clear()
        wanted = Build(str(self.folder), dockerfile_inline=text)._replace(**changes)
        options = BuildOptions("made:1", "web", wanted)
        with BuildRunner(self.paths, {}, self.events.append) as run:
            return build(options, self.store, run, self.resolve, self.events.append, self.environment)

    def files(self, image: Image) -> Rootfs:
        return Rootfs(self.store.layer_dirs(image))

    def cached(self) -> list[str]:
        steps = [e.step.partition("] ")[2] for e in self.events if isinstance(e, BuildOutput) and e.cached]
        return [s for s in steps if not s.startswith("FROM")]

    def lines(self) -> list[str]:
        return [e.line for e in self.events if isinstance(e, BuildOutput) and e.line]


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    (tmp_path / "context").mkdir()
    return Yard(tmp_path / "context", tmp_path / "home")


def test_what_a_run_writes_becomes_a_layer_and_its_output_is_told(yard: Yard) -> None:
    image = yard.build("FROM base:1\nRUN echo hello; echo made > /made\n")
    assert yard.files(image).read("made") == "made\n"
    assert "hello" in yard.lines()
    assert len(image.layers) == 2


def test_nothing_of_the_running_container_is_left_in_the_layer(yard: Yard) -> None:
    image = yard.build("FROM base:1\nRUN echo x > /made\n")
    assert set(os.listdir(yard.store.layer_dir(image.layers[-1]))) == {"made"}


def test_a_second_build_takes_every_layer_from_the_cache(yard: Yard) -> None:
    yard.write(a="1")
    text = "FROM base:1\nWORKDIR /w\nCOPY a .\nRUN cat a > b\n"
    first = yard.build(text)
    os.utime(yard.folder / "a", (1, 1))  # a touched file is no change
    second = yard.build(text)
    assert yard.cached() == ["WORKDIR /w", "COPY a .", "RUN cat a > b"]
    assert second.id == first.id
    yard.write(a="2")
    third = yard.build(text)
    assert yard.cached() == ["WORKDIR /w"]
    assert yard.files(third).read("w/b") == "2"


def test_stages_copy_from_each_other_and_only_needed_ones_run(yard: Yard) -> None:
    image = yard.build(
        "FROM base:1 AS unused\nRUN exit 1\n"
        "FROM base:1 AS made\nRUN mkdir /out && echo artefact > /out/file\n"
        "FROM base:1\nCOPY --from=made /out /in\n"
    )
    assert yard.files(image).read("in/file") == "artefact\n"


def test_owners_modes_and_wildcards_of_a_copy(yard: Yard) -> None:
    yard.write(a_dot_txt="a", b_dot_txt="b", c_dot_md="c")
    image = yard.build("FROM base:1\nCOPY --chown=app:app --chmod=640 *.txt /d/\n")
    tree = yard.files(image)
    assert tree.names("d") == ["a.txt", "b.txt"]
    entry = tree.entry("d/a.txt")
    assert entry is not None
    assert (entry.info.st_uid, entry.info.st_gid, entry.info.st_mode & 0o777) == (1000, 1001, 0o640)


def test_a_folder_is_copied_by_its_content_and_ignored_files_stay_out(yard: Yard) -> None:
    yard.write(_dot_dockerignore="**/*.log\nsecret\n", src__a="a", src__b_dot_log="b", secret="s")
    assert yard.files(yard.build("FROM base:1\nCOPY src /app\n")).names("app") == ["a"]
    with pytest.raises(ImageError, match='"secret" not found') as caught:
        yard.build("FROM base:1\nCOPY secret /\n")
    assert ".dockerignore" in caught.value.hint


def test_add_unpacks_a_local_archive_and_copy_does_not(yard: Yard) -> None:
    with tarfile.open(yard.folder / "x.tar.gz", "w:gz") as tar:
        info = tarfile.TarInfo("inside/file")
        info.size = 3
        tar.addfile(info, io.BytesIO(b"abc"))
    tree = yard.files(yard.build("FROM base:1\nADD x.tar.gz /added/\nCOPY x.tar.gz /copied/\n"))
    assert tree.read("added/inside/file") == "abc"
    assert tree.names("copied") == ["x.tar.gz"]


def test_a_copy_never_follows_a_link_of_the_image_to_the_host(yard: Yard, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    yard.write(a="a")
    image = yard.build(f"FROM base:1\nRUN ln -s {outside} /link || busybox ln -s {outside} /link\nCOPY a /link/a\n")
    assert list(outside.iterdir()) == []
    assert yard.files(image).read("link/a") == "a"


def test_heredocs_make_files_and_scripts(yard: Yard) -> None:
    image = yard.build(
        "FROM base:1\nARG WHO=you\nCOPY <<EOF /hello\nhello $WHO\nEOF\n"
        "RUN <<EOF\necho one > /one\necho two > /two\nEOF\n"
    )
    tree = yard.files(image)
    assert (tree.read("hello"), tree.read("one"), tree.read("two")) == ("hello you\n", "one\n", "two\n")


def test_arguments_and_variables_have_their_scopes(yard: Yard) -> None:
    text = (
        "ARG VERSION=1\nFROM base:${VERSION}\nARG VERSION\nARG A=default\nENV B=$A-$VERSION\n"
        'RUN echo "$A $B $VERSION" > /seen\n'
    )
    assert yard.files(yard.build(text)).read("seen") == "default default-1 1\n"
    image = yard.build(text, args=(("A", "given"),))
    assert yard.files(image).read("seen") == "given given-1 1\n"
    assert "B=given-1" in image.config["config"]["Env"]
    assert not any(row.startswith("A=") for row in image.config["config"]["Env"])


def test_settings_become_the_images_config(yard: Yard) -> None:
    config = yard.build(
        'FROM base:1\nLABEL a=1 "b c"="d e"\nEXPOSE 80 53/udp\nVOLUME /data\nUSER app\nWORKDIR /w\nWORKDIR sub\n'
        'STOPSIGNAL SIGINT\nENTRYPOINT ["/entry"]\nHEALTHCHECK --interval=5s --retries=2 CMD echo ok\n'
    ).config["config"]
    assert config["Labels"] == {"a": "1", "b c": "d e"}
    assert set(config["ExposedPorts"]) == {"80/tcp", "53/udp"}
    assert config["Volumes"] == {"/data": {}}
    assert (config["User"], config["WorkingDir"], config["StopSignal"]) == ("app", "/w/sub", "SIGINT")
    assert config["Entrypoint"] == ["/entry"]
    assert "Cmd" not in config  # the base image's command was for the base image's entry point
    assert config["Healthcheck"] == {"Test": ["CMD-SHELL", "echo ok"], "Interval": 5_000_000_000, "Retries": 2}


def test_a_run_is_the_images_user_in_the_images_directory(yard: Yard) -> None:
    yard.build("FROM base:1\nWORKDIR /w\nUSER app\nRUN id -u; pwd\n")
    assert yard.lines() == ["1000", "/w"]


def test_mounts_of_a_run_leave_nothing_in_the_image(yard: Yard) -> None:
    yard.write(secretless="from the context")
    image = yard.build(
        "FROM base:1\n"
        "RUN --mount=type=cache,target=/cache echo kept > /cache/x && echo 1 > /one\n"
        "RUN --mount=type=cache,target=/cache cat /cache/x > /two\n"
        "RUN --mount=type=bind,source=secretless,target=/bound cat /bound > /three\n"
        "RUN --mount=type=tmpfs,target=/gone touch /gone/x\n"
    )
    tree = yard.files(image)
    assert (tree.read("two"), tree.read("three")) == ("kept\n", "from the context")
    assert tree.entry("cache") is None
    assert tree.entry("bound") is None
    assert tree.entry("gone") is None


def test_a_step_that_fails_names_its_line_and_keeps_the_steps_before(yard: Yard) -> None:
    with pytest.raises(ImageError) as caught:
        yard.build("FROM base:1\nRUN echo fine > /fine\nRUN echo the reason; exit 3\n")
    assert str(caught.value.where) == "dockerfile_inline:3:1"
    assert "exit code: 3" in caught.value.what
    assert ("output", "the reason") in caught.value.details
    assert yard.store.find("made:1") is None
    yard.build("FROM base:1\nRUN echo fine > /fine\n")
    assert yard.cached() == ["RUN echo fine > /fine"]


def test_the_hosts_proxy_is_seen_by_a_run_and_enters_nothing(yard: Yard) -> None:
    yard.environment = {"HTTP_PROXY": "http://proxy.example:1"}
    first = yard.build("FROM base:1\nRUN echo $http_proxy\n")
    assert yard.lines() == ["http://proxy.example:1"]
    assert "proxy.example" not in str(first.config)
    yard.environment = {}
    yard.build("FROM base:1\nRUN echo $http_proxy\n")
    assert yard.cached() == ["RUN echo $http_proxy"]


def test_a_file_removed_in_a_step_is_gone(yard: Yard) -> None:
    yard.write(a="a")
    tree = yard.files(yard.build("FROM base:1\nCOPY a /a\nRUN rm /a\n"))
    assert tree.entry("a") is None


def test_what_a_base_image_left_for_its_children_is_done_first(yard: Yard) -> None:
    yard.build("FROM base:1\nONBUILD RUN echo triggered > /t\n")
    image = yard.build("FROM made:1\nRUN cat /t\n")
    assert "triggered" in yard.lines()
    assert "OnBuild" not in image.config["config"]
