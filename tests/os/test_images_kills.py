"""kill -9 before each act on the disk, one after the other: the store works after each, and the next command repairs.

Every call that changes the disk is a moment. The child dies of SIGKILL at the first, the next time at the second, and
so on until it comes through.
"""

from __future__ import annotations

import errno
import gc
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kapelle.errors import ImageError
from kapelle.images import mirrors
from kapelle.images.archive import load
from kapelle.images.archivewrite import save
from kapelle.images.pull import pull
from kapelle.images.store import Store
from kapelle.state.paths import find

ACTS = (
    "open",
    "rename",
    "unlink",
    "mkdir",
    "rmdir",
    "link",
    "symlink",
    "fsync",
    "write",
    "fchmod",
    "utime",
    "setxattr",
)


def dying(act: Callable[[], object], moment: int, *, error: int = 0) -> bool:
    """Do it in a child that is killed at that moment (or whose disk is full from then on). Did it come through?"""
    gc.collect()
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) in (0, 3), f"exit {status} at {moment}"
        if not os.WIFSIGNALED(status):
            return os.WEXITSTATUS(status) == 0
        assert os.WTERMSIG(status) == signal.SIGKILL
        return False
    code = 4
    try:
        left = [moment]

        def watched(name: str) -> Callable[..., Any]:
            real = getattr(os, name)

            def call(*words: Any, **more: Any) -> Any:
                if name == "open" and not (len(words) > 1 and words[1] & (os.O_CREAT | os.O_TRUNC)):
                    return real(*words, **more)
                left[0] -= 1
                if left[0] < 0 and error and name in ("write", "mkdir", "open", "fsync"):
                    raise OSError(error, os.strerror(error))
                if left[0] == 0 and not error:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*words, **more)

            return call

        for name in ACTS:
            setattr(os, name, watched(name))
        act()
        code = 0
    except ImageError:
        code = 3
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)


def whole(store: Store, deep: bool = True) -> None:
    """Every image has its layers, each layer and blob is what its name says, and other tools find all that is shown."""
    for image in store.all():
        for diff_id in image.layers:
            assert store.has_layer(diff_id), image
    for diff_id in store.layers() if deep else ():
        archive = hashlib.sha256()
        for piece in store.layer_archive(diff_id):
            archive.update(piece)
        assert f"sha256:{archive.hexdigest()}" == diff_id
    folder = Path(store.root)
    for name in store.listed("blobs/sha256"):
        assert hashlib.sha256((folder / "blobs/sha256" / name).read_bytes()).hexdigest() == name
    index = folder / "index.json"
    for row in json.loads(index.read_bytes())["manifests"] if index.exists() else ():
        manifest = json.loads((folder / "blobs/sha256" / row["digest"][7:]).read_bytes())
        for blob in (manifest["config"], *manifest["layers"]):
            assert (folder / "blobs/sha256" / blob["digest"][7:]).stat().st_size == blob["size"]


def moments(act: Callable[[], object], *, stride: int = 1, error: int = 0) -> Iterator[int]:
    """Each moment at which it died; ends when it came through."""
    for moment in range(1, 4000, stride):
        if dying(act, moment, error=error):
            return
        yield moment
    raise AssertionError("it never came through")


class Place:
    def __init__(self, folder: Path, address: str) -> None:
        self.folder = folder
        self.store = Store(str(folder / "images"))
        self.archive = folder / "image.tar"
        self.name = f"{address}/app:1"
        environ = {"HOME": str(folder), "PATH": "/usr/bin:/bin"}
        self.settings = mirrors.settings(environ, find({"KAP_HOME": str(folder)}))
        self.pull()
        with open(self.archive, "wb") as f:
            save([self.name], f, self.store)

    def pull(self) -> None:
        pull(self.name, self.store, self.settings, lambda _: None, policy="always")

    def load(self) -> None:
        load(str(self.archive), self.store, lambda _: None)

    def clear(self) -> None:
        for image in self.store.all():
            self.store.remove(image.id)
        self.store.gc(set)
        assert self.store.layers() == ()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    command = [sys.executable, "-m", "tests.badregistry"]  # not a thread of ours: we fork
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield Place(tmp_path, server.stdout.readline().strip())
        finally:
            server.kill()


@pytest.mark.parametrize("what", ["load", "pull"])
def test_a_kill_at_any_moment_of_a_load_or_pull_leaves_a_store_that_works(place: Place, what: str) -> None:
    act = getattr(place, what)
    place.clear()
    died = 0
    for _ in moments(act, stride=3):
        died += 1
        whole(place.store)
    assert died > 10
    whole(place.store)
    place.store.prepare()
    assert os.listdir(place.store.root + "/tmp") == []
    assert place.store.find(place.name) is not None


def test_a_kill_at_any_moment_of_a_removal_leaves_a_store_that_works(place: Place) -> None:
    image = place.store.all()[0]
    for _ in moments(lambda: place.store.remove(image.id)):
        whole(place.store)
        place.load()
        whole(place.store, deep=False)
        assert place.store.find(place.name) is not None
    place.store.gc(set)
    assert place.store.layers() == ()
    assert os.listdir(place.store.root + "/blobs/sha256") == []


def test_a_kill_at_any_moment_of_a_collection_takes_nothing_of_an_image(place: Place) -> None:
    def litter() -> None:
        for number in range(3):
            with place.store.new_layer() as path:
                Path(path, "diff/x").write_text(f"litter {number}")
                place.store.commit_layer(f"{path}/diff")

    litter()
    for _ in moments(lambda: place.store.gc(set)):
        whole(place.store)
        litter()
    assert place.store.find(place.name) is not None
    assert len(place.store.layers()) == 2
    place.store.prepare()
    assert os.listdir(place.store.root + "/tmp") == []


@pytest.mark.parametrize("what", ["load", "pull"])
def test_a_disk_that_is_full_at_any_moment_is_told_and_leaves_nothing_half_made(place: Place, what: str) -> None:
    act = getattr(place, what)
    place.clear()
    for _ in moments(act, stride=7, error=errno.ENOSPC):
        whole(place.store)
        place.store.sweep()
        assert os.listdir(place.store.root + "/tmp") == []
    assert place.store.find(place.name) is not None


def test_what_another_process_uses_is_not_taken(place: Place) -> None:
    image = place.store.all()[0]
    with place.store.using():
        removed = place.store.remove(image.id)
        assert removed.postponed
        assert place.store.gc(set).postponed
        assert len(place.store.layers()) == 2
    assert len(place.store.gc(lambda: {image.layers[0]}).layers) == 1
    assert place.store.layers() == (image.layers[0],)
    place.pull()
    whole(place.store)
