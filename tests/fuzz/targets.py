"""What is fuzzed: a function per parser that takes any bytes and raises nothing but what the parser declares."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Callable, Mapping

from kapelle.compose import document, dotenv, interpolate
from kapelle.engines.native import dnswire, transfer
from kapelle.errors import KapelleError
from kapelle.images import auth, manifests, reference
from kapelle.images.build import dockerfile, expand, ignore
from kapelle.images.tarread import Stream
from kapelle.images.unpack import Unpacker
from kapelle.linux import netlink, nft, route, seccomp_profile

Target = Callable[[bytes], object]


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def yaml(data: bytes) -> None:
    try:
        document.parse(_text(data), "compose.yaml")
    except KapelleError:
        pass


def interpolation(data: bytes) -> None:
    text = _text(data)
    try:
        interpolate.substitute(text, {"A": "1", "EMPTY": ""}.get)
    except (interpolate.Invalid, interpolate.Required):
        pass
    try:
        interpolate.uses(text)
    except interpolate.Invalid:
        pass


def env_file(data: bytes) -> None:
    text = _text(data)
    dotenv.parse_raw(text)
    try:
        dotenv.parse(text, ".env", {"A": "1"}.get)
    except KapelleError:
        pass


def docker_file(data: bytes) -> None:
    try:
        parsed = dockerfile.parse(_text(data), "Dockerfile")
    except KapelleError:
        return
    for instruction in parsed.instructions:
        try:
            instruction.json()
        except KapelleError:
            pass


def expansion(data: bytes) -> None:
    for call in (expand.word, expand.words, expand.variables):
        try:
            call(_text(data), {"A": "1", "EMPTY": ""}.get)
        except expand.ExpandError:
            pass


def docker_ignore(data: bytes) -> None:
    try:
        rules = ignore.Ignore(_text(data))
    except KapelleError:
        return
    rules.ignores("a/b.txt")


def tar(data: bytes) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
        os.mkdir(f"{folder}/layer")
        os.chmod(folder, 0o700)
        root = os.open(f"{folder}/layer", os.O_RDONLY | os.O_DIRECTORY)
        try:
            Unpacker(root).run(Stream(iter([data]), lambda: 1 << 24))
        except KapelleError:
            pass
        except OSError as e:
            if not e.errno:  # the file system's own words (ENOSPC) are declared
                raise
        finally:
            os.fchmod(root, 0o700)
            os.close(root)
        assert os.listdir(folder) == ["layer"]


def copied(data: bytes) -> None:
    """What `kap cp - SERVICE:PATH` is given."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
        os.mkdir(f"{folder}/into")
        try:
            transfer.unpack(io.BytesIO(data), f"{folder}/into", raw=True)
        except KapelleError:
            pass
        except OSError as e:
            if not e.errno:
                raise
        assert os.listdir(folder) == ["into"]
        os.chmod(f"{folder}/into", 0o700)


def dns_query(data: bytes) -> None:
    query = dnswire.read_query(data)
    if query is not None:
        dnswire.answer(data, query, dnswire.NOERROR, ((dnswire.A, b"\x7f\0\0\1"),), query.size)
        dnswire.opcode(query)
    dnswire.failure(data, dnswire.SERVFAIL)


def dns_reply(data: bytes) -> None:
    _, places = dnswire.times(data)
    dnswire.aged(data, places, 5)
    dnswire.matches(data, data[: len(data) // 2])
    dnswire.truncated(data)
    dnswire.rcode(data)


def netlink_answer(data: bytes) -> None:
    for _, flags, _, body in netlink._split(data):
        netlink.error_of(body, flags, "x")
        netlink.attributes(body, 4)
        if len(body) >= 16:
            route._link(body)
    nft._comment(data)


def registry_manifest(data: bytes) -> None:
    for kind in ("", manifests.OCI_INDEX, manifests.OCI_MANIFEST, manifests.DOCKER_LIST):
        try:
            manifests.parse(data, kind, "x")
        except KapelleError:
            pass
    for read in (manifests.diff_ids, manifests.platform_of):
        try:
            read(data, "x")
        except KapelleError:
            pass


def registry_words(data: bytes) -> None:
    text = _text(data)
    auth.challenge(text)
    try:
        reference.parse(text)
    except KapelleError:
        pass


def seccomp(data: bytes) -> None:
    try:
        seccomp_profile.compile_profile(_text(data), frozenset(("CAP_KILL",)))
    except ValueError:
        pass


TARGETS: Mapping[str, Target] = {
    f.__name__: f
    for f in (
        yaml, interpolation, env_file, docker_file, expansion, docker_ignore, tar, copied, dns_query, dns_reply,
        netlink_answer, registry_manifest, registry_words, seccomp,
    )
}  # fmt: skip
