# Kapelle's two commands: `make demo` and `make test`. Both make what they need in .venv.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3 /usr/bin/python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { command -v $$p; break; }; done)
VENV ?= .venv
RUN = $(VENV)/bin

.PHONY: demo demo-down test lint types tests install test-install bench clean

demo: install  ## bring the chat agent up and talk to it
	@PATH="$(CURDIR)/$(RUN):$$PATH" $(RUN)/python tools/demo.py

demo-down:  ## remove what demo made
	@$(RUN)/python tools/demo.py down

test: test-install lint types tests  ## lint, types and all tiers

install: $(VENV)/installed

test-install: $(VENV)/test-installed

$(VENV)/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed: apt-get install python3"; exit 1; }
	@sh tools/make-venv.sh "$(PYTHON)" "$(VENV)"
	@touch $@

$(VENV)/installed: $(VENV)/python pyproject.toml
	@$(RUN)/python -m pip install --quiet --editable '.[fast,zstd]'
	@$(RUN)/python -m compileall -q src
	@touch $@

$(VENV)/test-installed: $(VENV)/python pyproject.toml
	@$(RUN)/python -m pip install --quiet --editable '.[test,fast,zstd]'
	@$(RUN)/python -m pip install --quiet --only-binary atheris 'atheris>=3' 2>/dev/null || echo "without coverage-guided fuzzing: this Python has no wheel of atheris" >&2
	@$(RUN)/python -m compileall -q src
	@sh tools/test-packages.sh
	@touch $@ $(VENV)/installed

lint: test-install
	$(RUN)/ruff check src tests bench tools examples

types: test-install
	$(RUN)/mypy

tests: test-install
	sh tools/run-tests.sh "$(RUN)/python"

bench: install  ## compare with docker compose, where dockerd runs
	$(RUN)/python bench/bench.py

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
