"""One direction: each package imports only what lies before it (docs/architecture.md)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "kapelle"

# package -> what it may import besides itself
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "light": set(),
    "codecache": set(),
    "events": {"errors"},
    "model": {"errors"},
    "compose": {"errors", "events", "model"},
    "plan": {"errors", "model"},
    "linux": {"errors"},
    "state": {"errors", "model", "events"},
    "images": {"errors", "model", "events", "linux", "state"},
    "engine": {"errors", "model", "plan", "events"},
    "engines.native": {"errors", "events", "model", "plan", "linux", "state", "images", "engine"},
    "engines": set(),
    "render": {"errors", "events", "model", "plan"},
}
FOR_ALL = {"light"}  # a faster spelling of some of the standard library
EDGE = {"cli", "__main__"}
# module -> the only packages that may import it, and what of it
ONLY_IN: dict[str, set[str]] = {
    "urllib3": {"images.registry", "images.wire", "images.identity", "images.upload", "images.fetch"},
    "rich": {"render"},
    "threading": {"images", "cli", "render", "engines.native"},
    "ctypes": {"linux"},
    "yaml": {"compose", "engines.native.cdi"},
}


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            if node.module == "kapelle":
                for alias in node.names:
                    yield f"kapelle.{alias.name}", node.lineno
            else:
                yield node.module, node.lineno


def package_of(name: str) -> str:
    return max((p for p in MAY_IMPORT if name == p or name.startswith(p + ".")), key=len, default="")


MODULES = sorted(p for p in SOURCE.rglob("*.py") if p != SOURCE / "__init__.py")


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_a_package_imports_only_what_lies_before_it(path: Path) -> None:
    own = module_name(path)
    if own.split(".")[0] in EDGE:
        return
    package = package_of(own)
    assert package, f"{own}: which package is this? add it to MAY_IMPORT"
    for name, line in imports(path):
        if not name.startswith("kapelle"):
            continue
        target = name.removeprefix("kapelle").removeprefix(".")
        if target in ("", "__version__", "COMPOSE_VERSION"):
            continue
        seen = package_of(target)
        assert seen in {package} | MAY_IMPORT[package] | FOR_ALL, f"{path}:{line}: {package} imports {target}"


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_a_library_is_imported_only_where_it_belongs(path: Path) -> None:
    own = module_name(path)
    for name, line in imports(path):
        allowed = ONLY_IN.get(name.split(".")[0])
        if allowed is not None:
            assert any(own == a or own.startswith(a + ".") for a in allowed), f"{path}:{line}: {own} imports {name}"
