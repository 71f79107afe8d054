"""Image references: `redis:7`, `localhost:5000/team/app@sha256:…`, read by Docker's rules.

The grammar is that of the distribution project's reference package (docs: spec/api.md, "Overview"). Lean: the
fast commands import this module.
"""

from __future__ import annotations

from kapelle.errors import ImageError
from kapelle.light import NamedTuple

DEFAULT_REGISTRY = "docker.io"
DEFAULT_TAG = "latest"
_OLD_DEFAULTS = ("index.docker.io", "registry-1.docker.io")

_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_HOST = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:]+\])(?::[0-9]+)?"
_PATH_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_DIGEST = r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}"
_SMALL = frozenset("abcdefghijklmnopqrstuvwxyz0123456789")
_WORD = _SMALL | frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ_")
_TAG = _WORD | frozenset(".-")
_HEX = frozenset("0123456789abcdef")
_LENGTHS = {"sha256": 64, "sha384": 96, "sha512": 128}


class Reference(NamedTuple):
    """One image's full name. `tag` may be "", `digest` too, but not both."""

    registry: str  # docker.io, localhost:5000
    repository: str  # library/redis
    tag: str = ""
    digest: str = ""  # sha256:…

    def __str__(self) -> str:
        return (
            f"{self.registry}/{self.repository}"
            + (f":{self.tag}" if self.tag else "")
            + (f"@{self.digest}" if self.digest else "")
        )

    @property
    def name(self) -> str:
        """Registry and repository, without tag and digest."""
        return f"{self.registry}/{self.repository}"

    @property
    def wanted(self) -> str:
        """What a registry is asked for: the digest where there is one, else the tag."""
        return self.digest or self.tag


def parse(text: str) -> Reference:
    """Read a reference as Docker does: `redis` is docker.io/library/redis:latest. ImageError when malformed."""
    rest, digest = text, ""
    if "@" in rest:
        rest, _, digest = rest.partition("@")
        algorithm, _, value = digest.partition(":")
        if not _matches(_DIGEST, digest) or len(value) != _LENGTHS.get(algorithm, len(value)):
            raise _malformed(text, f'"{digest}" is not a digest', "a digest reads sha256: and 64 hexadecimal digits")
    tag = ""
    head, colon, last = rest.rpartition(":")
    if colon and "/" not in last:
        rest, tag = head, last
        if not _is_tag(tag):
            why = f'"{tag}" is not a tag' if tag else "the tag after the colon is empty"
            raise _malformed(text, why, "a tag has letters, digits, _ . - and at most 128 characters")
    first, slash, path = rest.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost" or first.lower() != first):
        registry = first
        if not _matches(_HOST, registry):
            raise _malformed(text, f'"{registry}" is not a registry\'s host name', "")
    else:
        registry, path = DEFAULT_REGISTRY, rest
    if registry in _OLD_DEFAULTS:
        registry = DEFAULT_REGISTRY
    if not path:
        raise _malformed(text, "the name is empty", "name an image such as redis:7")
    if registry == DEFAULT_REGISTRY and "/" not in path:
        if len(path) == 64 and _HEX.issuperset(path):
            raise _malformed(text, "64 hexadecimal digits are an image ID, not a name", f"write sha256:{path}")
        path = f"library/{path}"
    for part in path.split("/"):
        if not _is_part(part):
            lower = part.lower()
            hint = (
                f"names are in lower case: {text.replace(part, lower)}"
                if part != lower and _is_part(lower)
                else "a name has lower-case letters and digits, parted by single . - _ or /"
            )
            raise _malformed(text, f'"{part}" is not a part of a name' if part else "a part of it is empty", hint)
    if len(path) > 255:
        raise _malformed(text, "the name has more than 255 characters", "")
    if not tag and not digest:
        tag = DEFAULT_TAG
    return Reference(registry, path, tag, digest)


def _is_tag(text: str) -> bool:
    return 0 < len(text) <= 128 and text[0] in _WORD and _TAG.issuperset(text)


def _is_part(text: str) -> bool:
    return (text != "" and _SMALL.issuperset(text)) or _matches(_PATH_PART, text)


def _matches(pattern: str, text: str) -> bool:
    import re  # most names do without: loading it takes longer than all else here

    return re.fullmatch(pattern, text) is not None


def familiar(ref: Reference) -> str:
    """The short form people write: `redis:7` for docker.io/library/redis:7."""
    name = ref.repository
    if ref.registry != DEFAULT_REGISTRY:
        name = f"{ref.registry}/{name}"
    elif name.startswith("library/") and "/" not in name[8:]:
        name = name[8:]
    return name + (f":{ref.tag}" if ref.tag else "") + (f"@{ref.digest}" if ref.digest else "")


def _malformed(text: str, why: str, hint: str) -> ImageError:
    return ImageError(f'"{text}" is not an image reference: {why}', hint=hint)
