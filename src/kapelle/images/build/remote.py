"""ADD of a URL or a git repository: fetched into the cache, checked, keyed by what came."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Mapping

from kapelle.errors import ImageError, Position
from kapelle.images.build.context import Context
from kapelle.images.build.dockerfile import Instruction
from kapelle.images.build.rootfs import Rootfs
from kapelle.light import NamedTuple
from kapelle.state import store as files

_GIT = re.compile(r"git@|git://|ssh://|github\.com/|https?://\S+\.git/?(?:[?#].*)?$")
_PATIENCE = 600  # seconds for a clone


class Fetched(NamedTuple):
    key: str  # digest of the content, or the commit
    name: str = ""
    file: str = ""
    folder: str = ""  # of a git repository
    modified: float | None = None


class Repository(NamedTuple):
    url: str
    ref: str  # "" for the default branch
    folder: str  # inside of it


def is_remote(text: str) -> bool:
    return is_git(text) or text.startswith(("http://", "https://"))


def is_git(text: str) -> bool:
    return _GIT.match(text) is not None


def repository(text: str) -> Repository:
    """`URL#ref:folder`."""
    url, _, fragment = text.partition("#")
    ref, _, folder = fragment.partition(":")
    if url.startswith("github.com/"):
        url = f"https://{url}"
    return Repository(url, ref, folder.strip("/"))


def fetch(context: Context, text: str, instruction: Instruction) -> Fetched:
    wanted = instruction.flag("--checksum")
    if is_git(text):
        place = context.cache.fresh("git")
        keep = instruction.switch("--keep-git-dir")
        commit = clone(repository(text), place, _without_keys(context), instruction.where, keep_git=keep)
        if wanted and not commit.startswith(wanted):
            raise ImageError(
                f"ADD {text}: expected checksum to match {wanted}, got {commit}", where=instruction.where, code="KAP510"
            )
        folder = inside(f"{place}/tree", repository(text).folder)
        if not os.path.isdir(folder):
            raise ImageError(
                f"ADD {text}: there is no folder {repository(text).folder} in the repository",
                where=instruction.where, code="KAP510",
            )  # fmt: skip
        return Fetched(f"git {commit} {keep} {repository(text).folder}", folder=folder)
    data, modified = download(text, context.environ, instruction.where, "ADD ")
    import hashlib
    from urllib.parse import urlsplit

    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    if wanted and wanted != digest:
        raise ImageError(
            f"ADD {text}: digest mismatch: wanted {wanted}, got {digest}",
            where=instruction.where,
            hint="the file has changed, or the checksum is another one's",
            code="KAP510",
        )
    file = f"{context.cache.fresh('download')}/file"
    with open(file, "wb") as f:
        f.write(data)
    name = posixpath.basename(urlsplit(text).path) or "index"
    return Fetched(digest, name=name, file=file, modified=modified)


def inside(tree: str, folder: str) -> str:
    """A folder of a repository: neither `..` nor a link in it leads out."""
    return f"{tree}/{Rootfs((tree,)).resolve(folder)}".rstrip("/")


def _without_keys(context: Context) -> dict[str, str]:
    """A Dockerfile's repositories are fetched without the caller's keys and passwords: by an agent that is given."""
    environ = {k: v for k, v in context.environ.items() if k not in ("SSH_AUTH_SOCK", "GIT_ASKPASS", "SSH_ASKPASS")}
    agent = dict(context.options.ssh).get("default")
    if agent:
        environ["SSH_AUTH_SOCK"] = agent
    command = "ssh -F none -o BatchMode=yes -o IdentityFile=/dev/null"
    return {**environ, "GIT_SSH_COMMAND": command, "GIT_CONFIG_GLOBAL": "/dev/null"}


def download(url: str, environ: Mapping[str, str], where: Position | None, what: str) -> tuple[bytes, float | None]:
    """The body of a URL and when it was last changed. ImageError KAP510."""
    from email.utils import mktime_tz, parsedate_tz

    from kapelle.images import offline, proxies, wire

    offline.refuse(environ, f"{what}{url}", where=where)
    pool = wire.open_pool(proxies.for_url(url, environ) or "", environ)
    try:
        answer = pool.request("GET", url, timeout=60, retries=2)
    except Exception as e:
        raise ImageError(f"{what}{url}: {type(e).__name__}: {e}", where=where, code="KAP510") from None
    if answer.status != 200:
        raise ImageError(f"{what}{url}: the server answers {answer.status}", where=where, code="KAP510")
    data: bytes = answer.data
    parsed = parsedate_tz(answer.headers.get("Last-Modified") or "")
    return data, float(mktime_tz(parsed)) if parsed else None


def clone(
    wanted: Repository, place: str, environ: Mapping[str, str], where: Position | None, *, keep_git: bool = False
) -> str:
    """Check a repository out into `place`/tree; the commit. ImageError KAP510 without git, or when it fails."""
    import subprocess

    from kapelle.images import offline

    offline.refuse(environ, f"the repository {wanted.url}", where=where)
    tree = f"{place}/tree"
    env = {**environ, "GIT_TERMINAL_PROMPT": "0", "GIT_ALLOW_PROTOCOL": "git:http:https:ssh"}

    def git(*words: str) -> str:
        try:
            done = subprocess.run(
                ["git", "-c", "advice.detachedHead=false", *words],
                env=env, capture_output=True, text=True, errors="replace", timeout=_PATIENCE, check=False,
                stdin=subprocess.DEVNULL,
            )  # fmt: skip
        except FileNotFoundError:
            raise ImageError(
                f"{wanted.url} is a git repository, and git is not installed here", where=where, code="KAP511",
                hint="install git, or clone it elsewhere and use the folder",
            ) from None  # fmt: skip
        except subprocess.TimeoutExpired:
            raise ImageError(f"git took more than {_PATIENCE} s for {wanted.url}", where=where, code="KAP510") from None
        if done.returncode:
            said = done.stderr.strip().split("\n")[-1]
            raise ImageError(f"git failed for {wanted.url}: {said}", where=where, code="KAP510")
        return done.stdout.strip()

    os.makedirs(tree, exist_ok=True)
    git("init", "-q", tree)
    git("-C", tree, "fetch", "-q", "--depth=1", "--", wanted.url, wanted.ref or "HEAD")
    git("-C", tree, "checkout", "-q", "FETCH_HEAD")
    commit = git("-C", tree, "rev-parse", "HEAD")
    if os.path.exists(f"{tree}/.gitmodules"):
        git("-C", tree, "submodule", "update", "-q", "--init", "--recursive", "--depth=1")
    if not keep_git:
        files.remove_tree(f"{tree}/.git")
    return commit
