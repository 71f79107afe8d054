"""Building as a user sees it: output, errors, docker's words, compose's keys, caches."""

from __future__ import annotations

import functools
import hashlib
import http.server
import json
import os
import shutil
import socket
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import registry
from tests.checks import wait_until
from tests.scenarios.conftest import Done, Kap, free_port, is_free

BASE = "FROM busybox\n"


HERE = "linux/arm64" if os.uname().machine == "aarch64" else "linux/amd64"


def dockerfile(kap: Kap, text: str, compose: str = "services: {app: {build: .}}\n", **files: str) -> None:
    (kap.folder / "Dockerfile").write_text(text)
    if compose:
        kap.file(compose)
    for name, content in files.items():
        (kap.folder / name).write_text(content)


def prints(kap: Kap) -> str:
    """What the container of `app` prints."""
    return kap.ok("run", "--rm", "-T", "--quiet-build", "app").out


def cached(done: Done) -> list[str]:
    """Steps that came from the cache, FROM aside."""
    lines = done.out.splitlines() + done.err.splitlines()
    names = {}
    for line in lines:
        number, _, rest = line.partition(" ")
        if number.startswith("#") and rest.startswith("["):
            names[number] = rest.partition("] ")[2]
    found = [names[line.split()[0]] for line in lines if line.endswith(" CACHED") and line.split()[0] in names]
    return [n for n in found if not n.startswith("FROM")]


def address(kap: Kap, handler: type[http.server.SimpleHTTPRequestHandler], folder: Path) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def web(kap: Kap) -> Iterator[str]:
    """A web server for the folder `web`."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            return

    (kap.folder / "web").mkdir()
    yield from address(kap, Handler, kap.folder / "web")


# ---- output and errors ------------------------------------------------------------------------------------


def test_the_plain_log_reads_as_buildkits(kap: Kap) -> None:
    dockerfile(kap, f"{BASE}ENV A=1\nRUN echo spoken-{os.getpid()}\n")
    lines = kap.ok("build").out.splitlines()
    assert "#1 [app 1/2] FROM busybox" in lines
    assert f"#2 [app 2/2] RUN echo spoken-{os.getpid()}" in lines
    assert any(line.startswith("#2 0.") and line.endswith(f" spoken-{os.getpid()}") for line in lines)
    assert any(line.startswith("#2 DONE ") and line.endswith("s") for line in lines)
    assert "#2 CACHED" in kap.ok("build").out.splitlines()


def test_a_failing_step_shows_its_output_and_the_lines_of_the_dockerfile(kap: Kap) -> None:
    dockerfile(kap, f"{BASE}RUN echo fine\nRUN echo the reason; \\\n    exit 7\nRUN never\n")
    done = kap("build")
    assert done.code == 1
    assert "error: Dockerfile:3:1: " in done.err
    assert "exit code: 7 [KAP510]" in done.err
    assert "output  the reason" in done.err
    assert "   3 >>> RUN echo the reason; \\\n" in done.err
    assert "   4 >>>     exit 7\n" in done.err
    assert "   2     RUN echo fine\n" in done.err


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("FROM busybox\nRUNN x\n", "Dockerfile:2:1", "did you mean RUN?"),
        ("FROM busybox\nCOPY --form=x a b\n", "Dockerfile:2:1", "did you mean --from?"),
        ("FROM busybox\nCOPY missing /x\n", "Dockerfile:2:1", '"missing" not found in the build context'),
        ("FROM busybox\nCOPY --chown=nobody-here . /x\n", "Dockerfile:2:1", "unable to find user nobody-here"),
        ("FROM busybox\nRUN --mount=type=bond,target=/x true\n", "Dockerfile:2:1", "one of bind, cache"),
        ("FROM busybox\nRUN --mount=type=secret,id=s,required=true true\n", "Dockerfile:2:1", "--secret id=s,src=FILE"),
        ("FROM busybox\nRUN --mount=type=ssh,required=true true\n", "Dockerfile:2:1", "unset ssh forward key default"),
        ("FROM busybox\nRUN --network=host true\n", "Dockerfile:2:1", "build.network: host"),
        ("FROM busybox\nRUN --security=insecure true\n", "Dockerfile:2:1", "no more rights than any container"),
        ("FROM --platform=linux/s390x busybox\n", "Dockerfile:1:1", "only images of this machine's platform"),
        ("FROM busybox\nENV A=${X?is not given}\n", "Dockerfile:2:1", "X: is not given"),
        ("FROM busybox\nRUN <<EOF\nx\n", "Dockerfile:2:1", "unterminated heredoc"),
        ("FROM busybox\nCOPY --from=7 /a /b\n", "Dockerfile:2:1", "invalid stage index 7"),
        ("FROM busybox\nARG X\nFROM $X\n", "Dockerfile:3:1", "should not be blank"),
        ("# syntax=example.org/other:1\nFROM busybox\n", "Dockerfile:1:1", "only docker/dockerfile is read here"),
        ("FROM busybox\nCOPY <<a <<b /x\na\nb\n", "Dockerfile:2:1", "write /x/"),
        ("FROM busybox\nSHELL /bin/sh\n", "Dockerfile:2:1", "JSON form"),
        ("FROM busybox\nEXPOSE nothing\n", "Dockerfile:2:1", "invalid containerPort"),
        ("FROM busybox\nHEALTHCHECK --interval=often CMD x\n", "Dockerfile:2:1", "write 30s"),
        ("FROM busybox\nENV A\n", "Dockerfile:2:1", "can't find = in"),
        ("FROM busybox\nONBUILD FROM x\n", "Dockerfile:2:1", "isn't allowed as an ONBUILD trigger"),
        ("FROM busybox\nRUN --mount=type=cache true\n", "Dockerfile:2:1", "add target=/a/folder"),
        ("FROM busybox\nRUN --mount=type=bind,target=/x,sorce=y true\n", "Dockerfile:2:1", "unexpected key 'sorce'"),
        ("FROM busybox\nRUN --mount=source=none,target=/x true\n", "Dockerfile:2:1", 'mount source "none" not found'),
        ("FROM busybox\nCOPY --chmod=rwx Dockerfile /\n", "Dockerfile:2:1", "u=rwX,go=rX"),
        ("FROM busybox\nCOPY *.none /x/\n", "Dockerfile:2:1", "no source files were found"),
        ("FROM busybox\nRUN --network=bridge true\n", "Dockerfile:2:1", "default, none or host"),
        ("FROM busybox\nCOPY --from=nosuchstage:1 /a /b\n", "Dockerfile:2:1", "nosuchstage"),
    ],
)
def test_a_mistake_names_its_line_and_what_to_write(kap: Kap, text: str, place: str, words: str) -> None:
    dockerfile(kap, text)
    done = kap("build")
    assert done.code == 1
    assert f"error: {place}: " in done.err, done
    assert "internal error" not in done.err, done
    assert words in done.err, done
    assert "Traceback" not in done.err


def test_a_failure_stops_the_stages_beside_it(kap: Kap) -> None:
    dockerfile(
        kap,
        "FROM busybox AS slow\nRUN sleep 60\nFROM busybox AS bad\nRUN sleep 0.2; exit 4\n"
        "FROM busybox\nCOPY --from=slow /etc/passwd /a\nCOPY --from=bad /etc/passwd /b\n",
    )
    done = kap("build", timeout=40)
    assert done.code == 1
    assert "error: Dockerfile:4:1: " in done.err


def sleeping(mark: str) -> bool:
    for entry in os.listdir("/proc"):
        try:
            if entry.isdigit() and mark.encode() in Path(f"/proc/{entry}/cmdline").read_bytes().split(b"\0"):
                return True
        except OSError:
            continue
    return False


def temporaries(kap: Kap) -> list[str]:
    """What a build has only while it runs."""
    found = [*kap.home.glob("state/projects/_build-*"), *kap.home.glob("data/images/build-cache/tmp/*")]
    return [str(p) for p in found]


def test_an_interrupt_ends_builds_of_several_services(kap: Kap) -> None:
    mark = f"300.{os.getpid()}7"
    dockerfile(
        kap,
        f"{BASE}ARG N\nRUN sleep {mark}$N\n",
        "services:\n  a: {build: {context: ., args: {N: 1}}}\n  b: {build: {context: ., args: {N: 2}}}\n",
    )
    process = kap.start("build")
    wait_until(lambda: sleeping(f"{mark}1") and sleeping(f"{mark}2"), 30, "the steps do not run")
    process.send_signal(2)
    assert process.wait(20) == 130
    wait_until(lambda: not sleeping(f"{mark}1") and not sleeping(f"{mark}2"), 10, "a step goes on")
    assert temporaries(kap) == []
    if process.stdout is not None:
        process.stdout.close()


@pytest.mark.parametrize("signal", [2, 15, 9])
def test_a_build_that_is_interrupted_or_killed_leaves_nothing_running(kap: Kap, signal: int) -> None:
    mark = f"300.{os.getpid()}{signal}"
    dockerfile(kap, f"{BASE}RUN --mount=target=/ctx,rw --mount=type=secret,id=s sleep {mark}\n", f="x")
    process = kap.start("build", "--secret", "id=s,src=f", ".")
    wait_until(lambda: sleeping(mark), 30, "the step does not run")
    process.send_signal(signal)
    assert process.wait(20) != 0
    out = process.stdout.read() if process.stdout is not None and signal != 9 else ""
    assert "Traceback" not in out, out
    if signal == 9:  # the next build clears away what it left
        dockerfile(kap, f"{BASE}RUN echo next\n")
        kap.ok("build", "--no-cache", ".")
    wait_until(lambda: not sleeping(mark), 10, "the step goes on")
    assert temporaries(kap) == []
    if process.stdout is not None:
        process.stdout.close()


# ---- what the cache goes by -------------------------------------------------------------------------------


def test_a_touched_file_is_no_change_and_a_mode_is(kap: Kap) -> None:
    dockerfile(kap, f"{BASE}COPY f /f\nRUN cat /f\n", f=os.urandom(4).hex())
    kap.ok("build")
    os.utime(kap.folder / "f", (1, 1))
    assert cached(kap.ok("build")) == ["COPY f /f", "RUN cat /f"]
    (kap.folder / "f").chmod(0o755)
    assert cached(kap.ok("build")) == []


def test_settings_are_no_reason_to_run_again(kap: Kap) -> None:
    run = f"RUN echo steady {os.urandom(4).hex()}"
    dockerfile(kap, f"{BASE}LABEL a=1\nEXPOSE 1\nCMD one\n{run}\n")
    kap.ok("build")
    dockerfile(kap, f"{BASE}LABEL a=2\nEXPOSE 2\nCMD two\n{run}\n")
    assert cached(kap.ok("build")) == [run]
    dockerfile(kap, f"{BASE}ENV A=2\n{run}\n")
    assert cached(kap.ok("build")) == []  # a variable is an input


def test_a_copy_from_a_stage_goes_by_what_is_copied(kap: Kap) -> None:
    text = (
        "FROM busybox AS made\nCOPY f /f\nRUN echo same > /out\n"
        "FROM busybox\nCOPY --from=made /out /out\nRUN cat /out\n"
    )
    dockerfile(kap, text, f="1")
    kap.ok("build")
    (kap.folder / "f").write_text(os.urandom(4).hex())
    assert cached(kap.ok("build")) == ["COPY --from=made /out /out", "RUN cat /out"]


def test_what_a_bind_mount_shows_is_an_input(kap: Kap) -> None:
    dockerfile(kap, f"{BASE}RUN --mount=target=/ctx cat /ctx/f > /g\nCMD cat /g\n", f="1\n")
    kap.ok("build")
    assert prints(kap) == "1\n"
    (kap.folder / "f").write_text("2\n")
    kap.ok("build")
    assert prints(kap) == "2\n"


def test_only_stages_that_are_needed_are_built(kap: Kap) -> None:
    dockerfile(kap, "FROM busybox AS unused\nRUN exit 1\nFROM busybox\nRUN true\n")
    kap.ok("build")


def test_a_stage_may_be_left_out_of_the_cache(kap: Kap) -> None:
    text = "FROM busybox AS a\nRUN echo a\nFROM a AS b\nRUN echo b\n"
    dockerfile(kap, text)
    kap.ok("build")
    done = kap.ok("buildx", "build", "--no-cache-filter", "b", ".")
    assert cached(done) == ["RUN echo a"]
    kap.file("services: {app: {build: {context: ., no_cache_filter: [a]}}}\n")
    assert "RUN echo a" not in cached(kap.ok("build"))


def test_the_same_inputs_give_the_same_digest(kap: Kap, tmp_path: Path) -> None:
    dockerfile(kap, f"{BASE}COPY f /d/f\nRUN mkdir /e && echo x > /e/x && rm -f /d/f\nWORKDIR /w\n", f="1")
    ids = set()
    for _ in range(2):
        done = kap.ok("build", "-q", "--no-cache", ".", SOURCE_DATE_EPOCH="1700000000")
        ids.add(done.out.strip())
    assert len(ids) == 1, ids
    kap.ok("build", "-q", "--no-cache", "-o", f"type=oci,dest={tmp_path}/x.tar", ".", SOURCE_DATE_EPOCH="1700000000")
    with tarfile.open(tmp_path / "x.tar") as tar:
        index = json.loads(tar.extractfile("manifest.json").read())  # type: ignore[union-attr]
        config = json.loads(tar.extractfile(index[0]["Config"]).read())  # type: ignore[union-attr]
    assert config["created"] == "2023-11-14T22:13:20Z"


@pytest.mark.parametrize("kind", ["folder", "inline"])
def test_a_cache_is_taken_to_another_home(kap: Kap, kind: str, tmp_path: Path) -> None:
    mark = os.urandom(4).hex()
    dockerfile(kap, f"{BASE}RUN echo {mark}\nRUN echo second\n")
    other = {"KAP_HOME": str(tmp_path / "other"), "KAP_STAND_INS": "1"}
    for home in ("base", "image"):
        (tmp_path / home).mkdir()
    kap.ok("save", "-o", str(tmp_path / "base/x.tar"), "busybox")
    if kind == "folder":
        kap.ok("build", "--cache-to", f"type=local,dest={tmp_path}/cache", ".")
        source = f"type=local,src={tmp_path}/cache"
    else:
        kap.ok("build", "-t", "cachetest/image:1", "--cache-to", "type=inline", ".")
        kap.ok("save", "-o", str(tmp_path / "image/x.tar"), "cachetest/image:1")
        kap.ok("load", "-i", str(tmp_path / "image/x.tar"), **other)
        source = "cachetest/image:1"
    kap.ok("load", "-i", str(tmp_path / "base/x.tar"), **other)
    assert cached(kap.ok("build", "--cache-from", source, ".", **other)) == [f"RUN echo {mark}", "RUN echo second"]


def test_a_cache_that_is_not_there_is_told_and_does_no_harm(kap: Kap) -> None:
    dockerfile(
        kap, f"{BASE}RUN true\n", "services: {app: {build: {context: ., cache_from: ['type=local,src=./none']}}}\n"
    )
    done = kap.ok("build")
    assert "cache_from type=local,src=./none of app is not used" in done.err


# ---- docker's words ---------------------------------------------------------------------------------------


def test_a_folder_is_built_by_dockers_words(kap: Kap) -> None:
    (kap.folder / "ctx").mkdir()
    (kap.folder / "ctx/f").write_text("context\n")
    (kap.folder / "other").mkdir()
    (kap.folder / "other/o").write_text("other\n")
    (kap.folder / "token").write_text("secret")
    (kap.folder / "My.Dockerfile").write_text(
        f"{BASE}ARG A=0\nCOPY f /f\nCOPY --from=more o /o\n"
        "RUN --mount=type=secret,id=t test $(cat /run/secrets/t) = secret\n"
        'RUN echo "$A $B" > /a\nFROM 0 AS last\nCMD cat /f /o /a\nFROM busybox\nRUN exit 1\n'
    )
    done = kap.ok(
        "buildx", "build", "-q", "-t", "words/one:1", "-t", "words/two", "-f", "My.Dockerfile", "--build-arg", "A=1",
        "--target", "last", "--secret", "id=t,src=token", "--label", "l=1", "--build-context", "more=other",
        "--iidfile", "id", "--metadata-file", "meta.json", "--progress", "plain", "--platform", HERE, "ctx",
        "--load", "--provenance=false",
    )  # fmt: skip
    assert done.out.strip() == (kap.folder / "id").read_text()
    meta = json.loads((kap.folder / "meta.json").read_text())
    assert meta["containerimage.config.digest"] == done.out.strip()
    kap.file("services: {app: {image: words/two}}\n")
    assert kap.ok("run", "--rm", "-T", "app").out == "context\nother\n1 \n"


def test_a_dockerfile_and_an_archive_come_from_standard_input(kap: Kap) -> None:
    done = kap("build", "-t", "stdin/one", "-", stdin=f"{BASE}CMD echo from stdin\n")
    assert done.code == 0, done
    kap.file("services: {app: {image: stdin/one}}\n")
    assert kap.ok("run", "--rm", "-T", "app").out == "from stdin\n"
    (kap.folder / "ctx").mkdir()
    (kap.folder / "ctx/f").write_text("archived\n")
    done = kap("build", "-q", "-t", "stdin/two", "-f", "-", "ctx", stdin=f"{BASE}COPY f /\nCMD cat /f\n")
    assert done.code == 0, done
    (kap.folder / "ctx/Dockerfile").write_text(f"{BASE}COPY f /\nCMD cat /f\n")
    with tarfile.open(kap.folder / "ctx.tgz", "w:gz") as tar:
        tar.add(kap.folder / "ctx", ".")
    with open(kap.folder / "ctx.tgz", "rb") as f:
        subprocess.run(
            [*kap.command, "build", "-t", "stdin/three", "-"], cwd=kap.folder, env=kap.environment, stdin=f,
            check=True, capture_output=True,
        )  # fmt: skip
    kap.file("services: {app: {image: stdin/three}, two: {image: stdin/two}}\n")
    assert kap.ok("run", "--rm", "-T", "app").out == "archived\n"
    assert kap.ok("run", "--rm", "-T", "two").out == "archived\n"


def test_results_go_where_output_says(kap: Kap) -> None:
    dockerfile(kap, "FROM busybox AS b\nRUN echo x > /x\nFROM scratch\nCOPY --from=b /x /d/x\n", compose="")
    kap.ok("build", "-o", "out", ".")
    assert (kap.folder / "out/d/x").read_text() == "x\n"
    kap.ok("build", "-o", "type=tar,dest=out.tar", ".")
    with tarfile.open(kap.folder / "out.tar") as tar:
        assert "d/x" in [n.strip("/") for n in tar.getnames()]
    kap.ok("build", "-t", "out/image:1", "--output", "type=docker,dest=image.tar", ".")
    assert "out/image:1" in kap.ok("load", "-i", "image.tar").err + kap.ok("load", "-i", "image.tar").out


def test_check_finds_what_is_probably_not_meant(kap: Kap) -> None:
    dockerfile(kap, "FROM busybox as Base\nMAINTAINER x\nENV old style\nENV API_TOKEN=x\nCMD sh\n", compose="")
    done = kap("build", "--check", ".")
    assert done.code == 1
    for rule in ("FromAsCasing", "StageNameCasing", "MaintainerDeprecated", "LegacyKeyValueFormat",
                 "SecretsUsedInArgOrEnv", "JSONArgsRecommended"):  # fmt: skip
        assert f"WARNING: {rule}\n" in done.out
    dockerfile(kap, 'FROM busybox\nCMD ["sh"]\n', compose="")
    assert kap("build", "--check", ".").out == "Check complete, no warnings found.\n"


# ---- compose's keys ---------------------------------------------------------------------------------------


def test_a_build_prints_as_a_bake_file(kap: Kap) -> None:
    dockerfile(
        kap, BASE,
        "name: bakes\nservices:\n  b: {build: ./b}\n  a:\n    build:\n      context: .\n      target: t\n"
        "      args: {X: 1}\n      additional_contexts: {x: 'service:b'}\n      secrets: [s]\n      ssh: [default]\n"
        "secrets: {s: {file: ./f}}\n",
    )  # fmt: skip
    (kap.folder / "b").mkdir()
    made = json.loads(kap.ok("build", "--print", "a").out)
    assert made["group"]["default"]["targets"] == ["a", "b"]
    assert made["target"]["a"]["contexts"] == {"x": "target:b"}
    assert made["target"]["a"]["args"] == {"X": "1"}
    assert made["target"]["a"]["secret"] == [f"id=s,type=file,src={kap.folder}/f"]
    assert made["target"]["a"]["tags"] == ["bakes-a"]
    assert made["target"]["a"]["ssh"] == ["default="]
    kap.file("services: {}\n")


def test_other_platforms_are_told_with_their_place(kap: Kap) -> None:
    dockerfile(kap, BASE, f"services:\n  app:\n    build:\n      context: .\n      platforms: [{HERE}, linux/s390x]\n")
    assert "warning: compose.yaml:5:" in kap.ok("build").err
    dockerfile(kap, BASE, "services:\n  app:\n    build:\n      context: .\n      platforms: [linux/s390x]\n")
    done = kap("build")
    assert done.code == 1
    assert "compose.yaml:5:" in done.err
    assert "linux/s390x: only images of this machine's platform" in done.err


def test_what_a_build_has_not_is_told(kap: Kap) -> None:
    dockerfile(
        kap, BASE,
        "services:\n  app:\n    build:\n      context: .\n      provenance: true\n      sbom: true\n"
        "      privileged: true\n      entitlements: [security.insecure]\n",
    )  # fmt: skip
    said = kap.ok("build").err
    for line, key in enumerate(("provenance", "sbom", "privileged", "entitlements"), 5):
        assert f"compose.yaml:{line}:" in said
        assert f"build.{key} is not honoured" in said
    said = kap.ok("build", "--memory", "1g", "--builder", "other", "--sbom", "true", ".").err
    for flag in ("--memory", "--builder", "--sbom"):
        assert f"{flag} is not honoured: " in said
    done = kap("build", "-t", "127.0.0.1:1/never/there", "--push", ".")
    assert done.code == 1
    assert "127.0.0.1:1/never/there" in done.err
    assert "Traceback" not in done.err


def test_an_image_has_the_files_names_and_labels(kap: Kap) -> None:
    dockerfile(
        kap, BASE,
        "services:\n  app:\n    image: named/app:1\n    build:\n      context: .\n      tags: ['named/app:2']\n"
        "      labels: {org.example.l: v}\n  again: {image: 'named/app:2', command: 'true'}\n",
    )  # fmt: skip
    kap.ok("build")
    kap.ok("run", "--rm", "--pull", "never", "again")


def test_an_agent_is_reached_by_the_step_that_asks_for_it(kap: Kap) -> None:
    agent = kap.folder / "agent"
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(os.path.relpath(agent))
    listening.listen(4)

    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection:
                connection.sendall(b"agent says hello\n")

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    dockerfile(
        kap,
        "FROM python:3\nRUN --mount=type=ssh <<EOF\n#!/usr/bin/env python3\nimport os, socket\n"
        "s = socket.socket(socket.AF_UNIX)\ns.connect(os.environ['SSH_AUTH_SOCK'])\n"
        "open('/said', 'wb').write(s.recv(100))\nEOF\n"
        "RUN --mount=type=ssh,id=named,target=/s,mode=0666 stat -c %a /s >> /said\n"
        'RUN echo "[$SSH_AUTH_SOCK]" >> /said\n'
        "CMD cat /said\n",
        "services: {app: {build: {context: ., ssh: [default, 'named=./agent']}}}\n",
    )
    done = kap("run", "--rm", "-T", "--build", "app", SSH_AUTH_SOCK=str(agent))
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    thread.join()
    assert done.out == "agent says hello\n666\n[]\n", done


# ---- from elsewhere ---------------------------------------------------------------------------------------


def test_add_fetches_and_checks_a_url(kap: Kap, web: str) -> None:
    import hashlib

    (kap.folder / "web/file.txt").write_text("fetched\n")
    with tarfile.open(kap.folder / "web/a.tar.gz", "w:gz") as tar:
        tar.add(kap.folder / "web/file.txt", "in/file.txt")
    digest = hashlib.sha256(b"fetched\n").hexdigest()
    text = (
        f"{BASE}ADD --checksum=sha256:{digest} {web}/file.txt /d/\nADD --chmod=755 {web}/file.txt /named\n"
        f"ADD {web}/a.tar.gz /packed/\nADD --unpack=true {web}/a.tar.gz /plain/\n"
        "CMD cat /d/file.txt; stat -c %a /d/file.txt /named; ls /packed; cat /plain/in/file.txt\n"
    )
    dockerfile(kap, text)
    kap.ok("build")
    assert prints(kap) == "fetched\n600\n755\na.tar.gz\nfetched\n"
    dockerfile(kap, f"{BASE}ADD --checksum=sha256:{'0' * 64} {web}/file.txt /\nADD {web}/none /\n")
    assert "digest mismatch" in kap("build").err
    dockerfile(kap, f"{BASE}ADD {web}/none /\n")
    assert "the server answers 404" in kap("build").err


@pytest.fixture
def repository(kap: Kap) -> Iterator[str]:
    """A git repository with a branch `side`, served on loopback."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    tree = kap.folder / "served" / "app.git"
    (tree / "sub").mkdir(parents=True)
    (tree / "Dockerfile").write_text(f"{BASE}COPY file /\nCMD cat /file\n")
    (tree / "file").write_text("of the repository\n")
    (tree / "sub/file").write_text("of a folder\n")
    (tree / "sub/Dockerfile").write_text(f"{BASE}COPY file /\nCMD cat /file\n")

    def git(*words: str) -> None:
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        subprocess.run(["git", *identity, *words], cwd=tree, check=True, capture_output=True)

    git("init", "-q", "-b", "main")
    git("add", ".")
    git("commit", "-qm", "first")
    git("checkout", "-qb", "side")
    (tree / "file").write_text("of a branch\n")
    git("commit", "-qam", "second")
    git("checkout", "-q", "main")
    port = free_port()
    server = subprocess.Popen(
        ["git", "daemon", "--export-all", "--reuseaddr", f"--base-path={tree.parent}", "--listen=127.0.0.1",
         f"--port={port}", str(tree.parent)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    wait_until(lambda: not is_free(port), 10, "git daemon does not listen")
    yield f"git://127.0.0.1:{port}/app.git"
    os.killpg(server.pid, 15)
    server.wait()


def test_a_repository_is_a_context_and_a_source(kap: Kap, repository: str) -> None:
    kap.file(
        f"services:\n  app: {{build: '{repository}'}}\n  branch: {{build: '{repository}#side'}}\n"
        f"  folder: {{build: '{repository}#main:sub'}}\n  add: {{build: ./add}}\n"
    )
    (kap.folder / "add").mkdir()
    (kap.folder / "add/Dockerfile").write_text(
        f"{BASE}ADD {repository}#side /src\nADD --keep-git-dir {repository} /whole\n"
        "CMD cat /src/file; test ! -e /src/.git && test -d /whole/.git && echo kept\n"
    )
    kap.ok("build")
    for service, text in {
        "app": "of the repository\n", "branch": "of a branch\n", "folder": "of a folder\n",
        "add": "of a branch\nkept\n",
    }.items():  # fmt: skip
        assert kap.ok("run", "--rm", "-T", service).out == text


def test_a_repository_shows_nothing_of_the_host(kap: Kap, repository: str) -> None:
    tree = kap.folder / "served" / "app.git"
    (tree / "out").symlink_to("/etc")
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run(["git", "add", "."], cwd=tree, check=True, capture_output=True)
    subprocess.run(["git", *identity, "commit", "-qm", "link"], cwd=tree, check=True, capture_output=True)
    for folder in ("../../../../../../../etc", "out"):
        dockerfile(kap, f"{BASE}ADD {repository}#main:{folder} /up\n")
        done = kap("build")
        assert done.code == 1
        assert f"there is no folder {folder} in the repository" in done.err
        kap.file(f"services: {{app: {{build: '{repository}#main:{folder}'}}}}\n")
        assert "KAP511" in kap("build").err
    dockerfile(kap, f"{BASE}ADD {repository}#main:sub/../.. /up\nCMD ls /up\n")
    kap.ok("build")
    assert "Dockerfile" in prints(kap)


def test_a_repository_that_is_not_there_says_what_git_said(kap: Kap) -> None:
    kap.file("services: {app: {build: 'git://127.0.0.1:1/none.git'}}\n")
    done = kap("build")
    assert done.code == 1
    assert "git failed for git://127.0.0.1:1/none.git" in done.err


def test_further_contexts_are_layouts_images_repositories_and_archives(kap: Kap, repository: str, web: str) -> None:
    dockerfile(kap, f"{BASE}RUN echo of the layout > /file\n", compose="")
    kap.ok("build", "-q", "-t", "further/base:7", ".")
    kap.ok("save", "-o", "layout.tar", "further/base:7")
    with tarfile.open(kap.folder / "layout.tar") as tar:
        tar.extractall(kap.folder / "layout")
    kap.ok("rmi", "further/base:7")
    kap.ok("tag", "busybox", "further/image:1")
    (kap.folder / "packed").write_text("of the archive\n")
    with tarfile.open(kap.folder / "web/a.tar.gz", "w:gz") as tar:
        tar.add(kap.folder / "packed", "packed")
    digest = json.loads((kap.folder / "layout/index.json").read_bytes())["manifests"][0]["digest"]
    text = (
        "FROM layout\nCOPY --from=layout2 /file /two\nCOPY --from=git /file /git\nCOPY --from=tar /packed /tar\n"
        "RUN --mount=from=image,target=/i test -e /i/bin/busybox\nCMD cat /file /two /git /tar\n"
    )
    contexts = (
        ("layout", "oci-layout://./layout:7"), ("layout2", f"oci-layout://layout@{digest}"),
        ("image", "docker-image://further/image:1"), ("git", f"{repository}#side"), ("tar", f"{web}/a.tar.gz"),
    )  # fmt: skip
    rows = "".join(f"        {name}: '{value}'\n" for name, value in contexts)
    dockerfile(kap, text, f"services:\n  app:\n    build:\n      context: .\n      additional_contexts:\n{rows}")
    kap.ok("build")
    assert prints(kap) == "of the layout\nof the layout\nof a branch\nof the archive\n"
    words = [word for name, value in contexts for word in ("--build-context", f"{name}={value}")]
    kap.ok("build", "-q", *words, ".")
    assert kap("image", "inspect", "further/base:7").code == 1  # a context gives its image no name
    for value, why in {
        "oci-layout://./none": "no such file",
        "oci-layout://./layout:8": 'no image in it is named "8"',
        f"oci-layout://./layout@sha256:{'0' * 64}": "no such file",
    }.items():
        dockerfile(
            kap, text,
            f"services:\n  app:\n    build:\n      context: .\n      additional_contexts:\n        layout: '{value}'\n",
        )  # fmt: skip
        done = kap("build")
        assert done.code == 1
        assert "error: compose.yaml:5:" in done.err
        assert why in done.err


def test_a_dockerfile_may_lie_on_a_server(kap: Kap, web: str) -> None:
    (kap.folder / "web/Dockerfile.remote").write_text(f"{BASE}COPY here /here\nCMD cat /here\n")
    dockerfile(
        kap, "nonsense\n", f"services: {{app: {{build: {{context: ., dockerfile: '{web}/Dockerfile.remote'}}}}}}\n",
        here="beside the compose file\n",
    )  # fmt: skip
    kap.ok("build")
    assert prints(kap) == "beside the compose file\n"
    kap.ok("build", "-q", "-f", f"{web}/Dockerfile.remote", ".")
    assert "the server answers 404" in kap("build", "-f", f"{web}/none", ".").err


@pytest.mark.skipif(not shutil.which("ssh-keygen") or not shutil.which("ssh-agent"), reason="needs OpenSSH's tools")
def test_a_key_file_is_served_by_an_agent_for_the_step_and_is_not_seen(kap: Kap) -> None:
    key = kap.folder / "id"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "of the test", "-f", str(key)], check=True)
    dockerfile(
        kap,
        "FROM python:3\nRUN --mount=type=ssh,id=key <<EOF\n#!/usr/bin/env python3\nimport os, socket\n"
        "s = socket.socket(socket.AF_UNIX)\ns.connect(os.environ['SSH_AUTH_SOCK'])\n"
        "s.sendall(b'\\x00\\x00\\x00\\x01\\x0b')\nopen('/said', 'wb').write(s.recv(1000))\nEOF\n"
        "CMD grep -c 'of the test' /said\n",
        "services: {app: {build: {context: ., ssh: ['key=./id']}}}\n",
    )
    kap.ok("build")
    assert prints(kap) == "1\n"
    key.write_text("no key\n")
    done = kap("build", "--no-cache")
    assert done.code == 1
    assert f"ssh-add {key}" in done.err
    key.unlink()
    assert "Dockerfile:2" in kap("build", "--no-cache").err


@pytest.mark.parametrize("form", ["index", "manifest", "rubbish"])
def test_a_cache_folder_of_buildkit_is_told_with_its_place(kap: Kap, form: str) -> None:
    blobs = kap.folder / "cache/blobs/sha256"
    blobs.mkdir(parents=True)

    def put(value: object, kind: str) -> dict[str, object]:
        data = json.dumps(value).encode()
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(data)}

    config = put({"layers": [], "records": []}, "application/vnd.buildkit.cacheconfig.v0")
    index, manifest = (f"application/vnd.oci.image.{kind}.v1+json" for kind in ("index", "manifest"))
    top = {
        "index": put({"schemaVersion": 2, "mediaType": index, "manifests": [config]}, index),
        "manifest": put({"schemaVersion": 2, "mediaType": manifest, "config": config, "layers": []}, manifest),
        "rubbish": {"size": []},
    }[form]
    (kap.folder / "cache/index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [top]}))
    dockerfile(
        kap, BASE,
        "services:\n  app:\n    build:\n      context: .\n      cache_from:\n        - type=local,src=./cache\n",
    )  # fmt: skip
    said = kap.ok("build").err
    assert "warning: compose.yaml:5:7: cache_from type=local,src=./cache of app is not used: " in said
    assert "holds a cache of another builder" in said


def test_a_cache_goes_through_a_registry(kap: Kap, tmp_path: Path) -> None:
    mark = os.urandom(4).hex()
    dockerfile(kap, f"{BASE}RUN echo {mark}\nRUN echo second\n")
    other = {"KAP_HOME": str(tmp_path / "other"), "KAP_STAND_INS": "1"}
    kap.ok("save", "-o", "x.tar", "busybox")
    kap.ok("load", "-i", "x.tar", **other)
    with registry.running(tmp_path / "registry") as address:
        kap.ok("build", "--cache-to", f"type=registry,ref={address}/cache:1", ".")
        kap.ok("build", "-t", f"{address}/app:1", "--cache-to", "type=inline", "--push", ".")
        for source in (f"type=registry,ref={address}/cache:1", f"{address}/app:1"):
            done = kap.ok("build", "--no-cache-filter", "none", "--cache-from", source, ".", **other)
            assert cached(done) == [f"RUN echo {mark}", "RUN echo second"], source
            kap.ok("system", "prune", "-af", **other)
            kap.ok("load", "-i", "x.tar", **other)
        # a cache of BuildKit's, or an image without one, is told with its place and does no harm
        kap.ok("tag", "busybox", f"{address}/plain:1")
        kap.ok("push", f"{address}/plain:1")
        kap.file(
            "services:\n  app:\n    build:\n      context: .\n      cache_from:\n"
            f"        - {address}/plain:1\n        - type=gha\n"
        )
        said = kap.ok("build").err
        assert f"compose.yaml:5:7: cache_from {address}/plain:1 of app is not used: the image carries no cache" in said
        assert "compose.yaml:5:7: cache_from type=gha of app" in said
        kap.file("services:\n  app:\n    build:\n      context: .\n      cache_to:\n        - type=gha\n")
        done = kap("build")
        assert done.code == 1
        assert "error: compose.yaml:5:7: cache_to type=gha: caches of type gha are not written here" in done.err


# ---- walls ------------------------------------------------------------------------------------------------


def test_a_step_has_no_more_than_a_container_has(kap: Kap) -> None:
    dockerfile(
        kap,
        f"{BASE}RUN cat /proc/self/status > /in-build; ls /dev | sort > /dev-in-build; test ! -s /proc/kcore\n"
        "CMD grep -hE 'CapEff|CapBnd|Seccomp:|NoNewPrivs' /in-build; echo --; "
        "grep -hE 'CapEff|CapBnd|Seccomp:|NoNewPrivs' /proc/self/status; "
        "ls /dev | sort | diff - /dev-in-build | wc -l\n",
    )
    kap.ok("build")
    build, _, container = prints(kap).partition("--\n")
    assert build.count("\n") >= 4
    assert container == f"{build}0\n"


def test_the_hosts_network_is_for_who_consents(kap: Kap) -> None:
    text = f"{BASE}RUN --network=host readlink /proc/self/ns/net > /net\nCMD cat /net\n"
    dockerfile(kap, text)
    assert "build.network: host" in kap("build").err
    outside = os.readlink("/proc/self/ns/net")
    for consent in ("network: host", "entitlements: [network.host]"):
        dockerfile(kap, text, f"services: {{app: {{build: {{context: ., no_cache: true, {consent}}}}}}}\n")
        kap.ok("build")
        assert prints(kap).strip() == outside
    kap.ok("build", "--allow", "network.host", ".")


def test_a_file_mounted_read_only_can_not_be_changed_by_a_step(kap: Kap) -> None:
    dockerfile(kap, f"{BASE}RUN --mount=target=/ctx sh -c 'echo x > /ctx/f' || true\n"
               "RUN --mount=target=/ctx,rw sh -c 'echo y > /ctx/f; rm /ctx/g'\n", f="mine", g="mine")  # fmt: skip
    kap.ok("build")
    assert (kap.folder / "f").read_text() == "mine"
    assert (kap.folder / "g").read_text() == "mine"


def test_a_secret_is_nowhere_in_the_image(kap: Kap, tmp_path: Path) -> None:
    dockerfile(kap, f'{BASE}RUN --mount=type=secret,id=s,env=S --mount=type=secret,id=s test -n "$S"\n', compose="")
    kap.ok("build", "--secret", "id=s,env=WORD", "-t", "nosecret/x", ".", WORD="very-hidden-word")
    kap.ok("save", "-o", str(tmp_path / "x.tar"), "nosecret/x")
    assert b"very-hidden-word" not in (tmp_path / "x.tar").read_bytes()
