# make test: lint, types and all test tiers, in a virtual environment of its own.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
VENV ?= .venv
RUN = $(VENV)/bin

.PHONY: test lint types install clean

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(RUN)/python -m pip install --quiet --editable '.[test,fast,zstd]'
	touch $@

lint: install
	$(RUN)/ruff check src tests bench

types: install
	$(RUN)/mypy

test: lint types
	$(RUN)/python -m pytest -q

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
