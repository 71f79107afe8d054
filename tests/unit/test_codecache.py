"""The package's compiled modules in one file: the same modules, and never those of another source."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "kapelle"
PARTS = ("__init__.py", "codecache.py", "errors.py", "light", "state", "linux")
MAKE = "from kapelle import codecache; codecache.use(); import kapelle.errors; codecache.renew()"
LOOK = "import kapelle.errors as e; print(type(e.__spec__.loader).__name__, e.__file__, e.KapelleError('x').what)"


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of a part of the package, without anything compiled."""
    folder = tmp_path / "kapelle"
    folder.mkdir()
    for name in PARTS:
        if (SOURCE / name).is_dir():
            shutil.copytree(SOURCE / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(SOURCE / name, folder / name)
    return folder


def python(package: Path, code: str, *flags: str) -> str:
    words = [sys.executable, "-I", *flags, "-c", f"import sys; sys.path.insert(0, {str(package.parent)!r}); {code}"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def loader(package: Path) -> str:
    return python(package, f"from kapelle import codecache; codecache.use(); {LOOK}").split()[0]


def cache(package: Path) -> Path:
    return package / "__pycache__" / f"modules.{sys.implementation.cache_tag}.bin"


def test_the_first_command_makes_it_and_the_next_one_loads_from_it(package: Path) -> None:
    assert loader(package) == "SourceFileLoader"
    python(package, MAKE)
    assert loader(package) == "Finder"
    told = python(package, f"from kapelle import codecache; codecache.use(); {LOOK}").split()
    assert told[1:] == [str(package / "errors.py"), "x"]


def test_a_changed_source_is_never_taken_from_it_and_is_in_the_next_one(package: Path) -> None:
    python(package, MAKE)
    with open(package / "errors.py", "a") as f:
        f.write("\nKapelleError.__doc__ = 'changed'\n")
    show = "from kapelle import codecache; codecache.use(); import kapelle.errors as e; print(e.KapelleError.__doc__)"
    assert python(package, show) == "changed\n"
    python(package, MAKE)
    assert loader(package) == "Finder"
    assert python(package, show) == "changed\n"


def test_it_is_written_by_its_owner_alone_whatever_the_umask(package: Path) -> None:
    for umask, mode in ((0o000, 0o644), (0o077, 0o644)):
        cache(package).unlink(missing_ok=True)
        (package / "codecache.py").chmod(0o666)
        python(package, f"import os; os.umask({umask}); {MAKE}")
        assert cache(package).stat().st_mode & 0o777 == mode


def test_it_is_made_once(package: Path) -> None:
    python(package, MAKE)
    first = os.stat(cache(package)).st_ino
    python(package, MAKE)
    assert os.stat(cache(package)).st_ino == first


@pytest.mark.parametrize("damage", [b"", b"\0" * 5000, b"not at all", None], ids=["empty", "zeros", "words", "torn"])
def test_a_damaged_one_does_no_harm(package: Path, damage: bytes | None) -> None:
    python(package, MAKE)
    whole = cache(package).read_bytes()
    cache(package).write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    assert loader(package) in ("SourceFileLoader", "Finder")


def test_nothing_is_written_where_python_shall_write_no_compiled_files(package: Path) -> None:
    python(package, MAKE, "-B")
    assert not (package / "__pycache__").exists()


def test_another_optimisation_level_has_none(package: Path) -> None:
    python(package, MAKE, "-O")
    assert not cache(package).exists()


def test_resources_of_packages_are_found(package: Path) -> None:
    (package / "light" / "text").write_text("there")
    python(package, "import kapelle.light, kapelle.errors")
    python(package, MAKE)
    code = (
        "from kapelle import codecache; codecache.use(); import kapelle.light; from importlib import resources; "
        "print(type(kapelle.light.__spec__.loader).__name__, (resources.files('kapelle.light') / 'text').read_text())"
    )
    assert python(package, code).split() == ["Finder", "there"]


def test_collections_is_not_loaded_for_its_abstract_classes_alone_and_whole_when_it_is() -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(SOURCE.parent)!r}); from kapelle import codecache; codecache.use(); "
        "from collections.abc import Mapping; early = 'collections' in sys.modules; "
        "import collections, collections.abc; print(early, collections.abc.Mapping is Mapping, collections.OrderedDict)"
    )
    told = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True).stdout
    assert told == "False True <class 'collections.OrderedDict'>\n"
