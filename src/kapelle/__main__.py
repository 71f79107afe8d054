"""python -m kapelle."""

import sys

from kapelle.cli.main import main

sys.exit(main())
