"""SHA-256 of small things without the OpenSSL library, whose loading costs more than the digest (2 ms a command)."""

from __future__ import annotations

from kapelle.light import Any

try:
    from _sha2 import sha256 as _sha256  # type: ignore[import-not-found,unused-ignore]
except ImportError:
    try:
        from _sha256 import sha256 as _sha256  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        from hashlib import sha256 as _sha256


def sha256_hex(data: bytes) -> str:
    """The digest as 64 hex digits (FIPS 180-4). For layers and other large data use hashlib."""
    made: Any = _sha256(data)
    return str(made.hexdigest())
