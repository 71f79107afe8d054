"""Whether layers are kept as they came, beside their unpacked form: KAP_KEEP_LAYER_ARCHIVES, then config.toml:

    [images]
    keep_layer_archives = false

Without them the store takes less room; `kap push` then packs layers anew, and other tools do not see the images in it.
"""

from __future__ import annotations

from collections.abc import Mapping

from kapelle.errors import ImageError
from kapelle.images.store import Store
from kapelle.state.paths import Paths

_VARIABLE = "KAP_KEEP_LAYER_ARCHIVES"
_SAID = {
    **dict.fromkeys(("1", "true", "yes", "on"), True),
    **dict.fromkeys(("0", "false", "no", "off"), False),
}


def store(paths: Paths, environ: Mapping[str, str]) -> Store:
    """The image store of these places."""
    return Store(paths.images, lambda: wanted(paths, environ))


def wanted(paths: Paths, environ: Mapping[str, str]) -> bool:
    """ImageError with the place if what is said is neither yes nor no."""
    said = environ.get(_VARIABLE, "")
    if said:
        if said.lower() not in _SAID:
            raise ImageError(f'{_VARIABLE} is "{said[:80]}", neither true nor false', hint=f"{_VARIABLE}=false")
        return _SAID[said.lower()]
    from kapelle.images import mirrors

    path = f"{paths.config}/config.toml"
    table = mirrors.read_config(path).get("images", {})
    value = table.get("keep_layer_archives", True) if isinstance(table, dict) else None
    if not isinstance(value, bool):
        raise ImageError(
            f"keep_layer_archives in {path} is neither true nor false",
            hint="write  keep_layer_archives = false  below  [images]",
        )
    return value
