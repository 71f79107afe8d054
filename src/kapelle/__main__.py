"""python -m kapelle."""

from kapelle.cli.main import script

script()
