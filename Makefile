# Two commands on a machine with Python 3.11 and make: `make demo` and `make test`.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
JOB    ?= digits

.PHONY: help setup demo test check pytest bench soak clean
.DEFAULT_GOAL := help

help:   ## This list
	@grep -hE '^[a-z]+: .*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

setup: $(READY)   ## A venv with greend and all that tests, demo and benchmarks need

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "make: $(PYTHON) is older than 3.11; name another with PYTHON=python3.11"; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) || { \
	  echo "make: Debian keeps venv in a package of its own (python3-venv); installing it"; \
	  rm -rf $(VENV); \
	  apt-get update -qq && apt-get install -qq -y python3-venv && $(PYTHON) -m venv $(VENV); }
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	@# The stand-in for NVIDIA's library is a C file: a compiler from PyPI where the machine has none.
	@command -v cc >/dev/null || $(BIN)/pip install --quiet ziglang
	@touch $@

demo: setup   ## One job, free and then within 60 % of its energy (JOB=digits or charlm)
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python examples/demo.py $(JOB)

test: check pytest   ## Everything that a change must pass

check: setup   ## Style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

pytest: setup   ## The tests, with coverage
	$(BIN)/python -m pytest -m "not slow" --cov=greend --cov=greend_agent --cov=greend_migrations --cov-report=term:skip-covered

soak: setup   ## The tests that take minutes
	$(BIN)/python -m pytest -m slow --timeout=1800

bench: setup   ## Every benchmark; the last line of each is one JSON object
	@for file in benchmarks/*.py; do echo "== $$file"; $(BIN)/python $$file || exit 1; done

clean:   ## Remove the venv and all caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage* .import_linter_cache
