"""Where a built image goes besides the store: a folder, a tar of its files, an archive of the image."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from kapelle.errors import ImageError
from kapelle.images.build import copying
from kapelle.images.build.rootfs import Rootfs
from kapelle.images.store import Store
from kapelle.images.types import Image
from kapelle.light import BinaryIO, NamedTuple

KINDS = ("local", "tar", "oci", "docker", "image", "registry")


class Output(NamedTuple):
    type: str
    dest: str = ""  # "" or "-" = standard output, where that is allowed
    name: str = ""
    push: bool = False


def parse(text: str) -> Output:
    """`type=tar,dest=x.tar`; a path alone is `type=local,dest=PATH`, `-` a tar on standard output."""
    if "=" not in text:
        return Output("tar", "-") if text == "-" else Output("local", text)
    options = dict((k.strip().lower(), v) for k, _, v in (p.partition("=") for p in text.split(",")))
    kind = options.get("type", "")
    if kind not in KINDS:
        raise ImageError(f'unknown output type "{kind}"', hint=f"one of {', '.join(KINDS)}", code="KAP511")
    push = kind == "registry" or options.get("push", "").lower() in ("true", "1")
    dest = options.get("dest", "")
    if kind == "local" and not dest:
        raise ImageError("dest is required for the local output", hint="type=local,dest=FOLDER", code="KAP511")
    return Output(kind, dest, options.get("name", ""), push)


def write(output: Output, image: Image, names: tuple[str, ...], store: Store) -> None:
    if output.type == "local":
        os.makedirs(output.dest, exist_ok=True)
        _files(image, store, output.dest)
    elif output.type == "tar":
        from kapelle.images import tarwrite

        with store.temporary() as place:
            os.mkdir(f"{place}/tree", 0o755)
            _files(image, store, f"{place}/tree")

            def pack(out: BinaryIO) -> None:
                for piece in tarwrite.layer(f"{place}/tree"):
                    out.write(piece)

            _to(output.dest, pack)
    elif output.type == "oci" or (output.type == "docker" and output.dest):
        from kapelle.images import archivewrite

        _to(output.dest, lambda out: archivewrite.save(names or (image.id,), out, store))


def _files(image: Image, store: Store, folder: str) -> None:
    """The image's files, as overlayfs would show them."""
    writer = copying.LayerWriter(os.path.abspath(folder), Rootfs(()))
    for item in copying.whole(Rootfs(store.layer_dirs(image))):
        writer.put(item, item.to, None, None)


def _to(dest: str, write_all: Callable[[BinaryIO], None]) -> None:
    if dest in ("", "-"):
        if sys.stdout.isatty():
            raise ImageError("dest is needed: output is not written to a terminal", code="KAP511")
        write_all(sys.stdout.buffer)
        sys.stdout.buffer.flush()
        return
    temporary = f"{dest}.{os.getpid()}.tmp"
    try:
        with open(temporary, "wb") as f:
            write_all(f)
        os.rename(temporary, dest)
    except OSError as e:
        raise ImageError(f"can't write {dest}: {(e.strerror or '').lower()}", code="KAP511") from None
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)
