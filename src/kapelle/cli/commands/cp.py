"""`cp`: copy files between the host and containers, by the rules of `docker cp`."""

from __future__ import annotations

import os
import sys

from kapelle.cli import common
from kapelle.cli.flags import Args, Flag
from kapelle.errors import KapelleError, UsageError
from kapelle.events import Progress
from kapelle.light import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from kapelle.cli.context import Context
    from kapelle.plan.observed import Container

NAME = "cp"
HELP = "copy files between the host and containers"
ARGUMENTS = "SERVICE:PATH PATH|-  or  PATH|- SERVICE:PATH"
FLAGS = (
    Flag("--all", help="containers made by run as well"),
    Flag("--archive", "-a", help="keep uid and gid"),
    Flag("--follow-link", "-L", help="follow a symbolic link given as source"),
    Flag("--index", value="N", kind="int", default=0, help="which replica (1..n)"),
)


def run(context: Context, args: Args) -> int:
    common.exactly(args.rest, 2, "cp SERVICE:PATH PATH")
    (service, source), (other, target) = (_split(word) for word in args.rest)
    if service and other:
        raise UsageError("copying between services is not supported", hint="copy to the host first")
    if not service and not other:
        raise UsageError("unknown copy direction", hint="one of the two must be SERVICE:PATH")
    found = _containers(context, service or other, args)
    if context.dry_run:
        for container in found[:1] if service else found:
            context.stdout.write(f"copy {args.rest[0]} -> {args.rest[1]} ({container.name})\n")
        return 0
    if service:
        _out(context, found[0], source, target, args)
        return 0
    for container in found:
        _in(context, container, source, target, args)
    return 0


def _split(word: str) -> tuple[str, str]:
    """("service", "path"), or ("", path) of the host. A path of the host that holds a colon begins with / or ."""
    if word.startswith(("/", ".")) or word == "-":
        return "", word
    service, colon, path = word.partition(":")
    return (service, path) if colon else ("", word)


def _containers(context: Context, service: str, args: Args) -> list[Container]:
    found = context.reader().project_containers(context.project_name())
    mine = [c for c in found if c.service == service and (args.all or not c.oneoff)]
    if args.index:
        mine = [c for c in mine if c.number == args.index]
    if not mine:
        common.check_services(context, [service], found)
        raise KapelleError(
            f'no container found for service "{service}"', hint=f"kap create {service}", code="KAP304"
        )  # fmt: skip
    return mine


def _out(context: Context, container: Container, source: str, target: str, args: Args) -> None:
    from kapelle.engines.native import inside, transfer

    source = source if source.startswith("/") else f"/{source}"
    context.emit(Progress("container", container.name, "Copying"))

    def read(stream: BinaryIO) -> None:
        transfer.pack(stream, source, follow=bool(args.follow_link))

    if target == "-" and sys.stdout.isatty():
        raise UsageError("cowardly refusing to write an archive to a terminal", hint="| tar x, or > FILE")
    child = inside.start(context.paths, container, read, writes=True)
    failure: BaseException | None = None
    try:
        if target == "-":
            sys.stdout.flush()
            while data := child.stream.read(1 << 16):
                sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        else:
            transfer.unpack(child.stream, target, keep_owner=bool(args.archive))
    except Exception as e:  # what the child says of its end tells more than a stream that is cut off
        failure = e
    child.end()
    if failure is not None:
        raise _told(failure)
    context.emit(Progress("container", container.name, "Copied", "done"))


def _in(context: Context, container: Container, source: str, target: str, args: Args) -> None:
    from kapelle.engines.native import inside, transfer

    target = target if target.startswith("/") else f"/{target}"
    context.emit(Progress("container", container.name, "Copying"))

    def write(stream: BinaryIO) -> None:
        transfer.unpack(stream, target, keep_owner=bool(args.archive), raw=source == "-")

    if source != "-" and not os.path.lexists(source):
        raise KapelleError(f"no such file or directory: {source}", code="KAP330")
    child = inside.start(context.paths, container, write, writes=False)
    failure: BaseException | None = None
    try:
        if source == "-":
            while data := sys.stdin.buffer.read(1 << 16):
                child.stream.write(data)
        else:
            transfer.pack(child.stream, source, follow=bool(args.follow_link))
    except BrokenPipeError:
        pass  # the child says why
    except Exception as e:
        failure = e
    try:
        child.end()
    except BrokenPipeError:
        pass
    if failure is not None:
        raise _told(failure)
    context.emit(Progress("container", container.name, "Copied", "done"))


def _told(failure: BaseException) -> BaseException:
    import tarfile

    if isinstance(failure, OSError):
        what = f"{failure.filename}: {failure.strerror}" if failure.filename else str(failure.strerror or failure)
        return KapelleError(what, code="KAP330")
    if isinstance(failure, tarfile.TarError):
        return KapelleError(f"not a tar archive: {failure}", code="KAP330")
    return failure
