# Everything works from a fresh clone with Python 3.11 and make. `make` alone lists the targets.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PACKAGES := interp vectors sae experiments figures
PIP := $(BIN)/python -m pip install -q --disable-pip-version-check --no-compile -c constraints.txt
BENCH := .venv-bench
BENCH_PIP := $(BENCH)/bin/python -m pip install -q --disable-pip-version-check --no-compile -c benchmarks/constraints.txt
# Tests run one thread each (tests/conftest.py); a file stays on one worker, so its fixtures are made once.
WORKERS ?= 2
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

# Without bytecode every process compiles 4,000 modules anew, half a minute of a slow core.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help install paper check lint types imports docs audit test test-slow test-faults bench clean
.DEFAULT_GOAL := help

help:
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(STAMP)  ## the virtual environment .venv, with the pinned versions

# torch goes first, so that a CPU build offered by the user's own pip settings is kept by the second line.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) torch
	$(PIP) -e '.[dev]'
	touch $@

paper: $(STAMP)  ## every figure and table on the embedded model, into paper/index.html
	$(BIN)/interp paper

check: lint types imports docs audit  ## style, types, import direction, documentation, known vulnerabilities

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/pyright

imports: $(STAMP)
	$(BIN)/lint-imports

docs: $(STAMP)  ## the documentation, into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# Reported, never a failure: what is found may have no remedy yet, and without a network nothing is.
audit: $(STAMP)  ## vulnerabilities of the installed packages that the OSV database knows
	@log=$$(mktemp); $(BIN)/pip-audit --local --skip-editable -s osv --timeout 10 --progress-spinner off 2>$$log \
		|| echo "pip-audit: $$(tail -n 1 $$log | cut -c 1-160)"; rm -f $$log

test: $(STAMP)  ## the tests but the slow ones
	$(PYTEST) -m "not slow and not faults"

test-slow: $(STAMP)  ## every experiment at smoke scale, notebooks, the wheel, the report in Chromium
	$(PYTEST) -m "slow and not faults"

test-faults: $(STAMP)  ## kills, full disks, hostile files and pages; at most ten minutes on two cores
	$(PYTEST) --dist worksteal -m faults tests/faults

bench: $(BENCH)/.installed  ## speed beside other libraries (22 to 40 minutes of a quiet machine), into docs/performance.md
	$(BENCH)/bin/python -m benchmarks --write

# A virtual environment of its own: repeng wants a NumPy that is older than everyone else's.
$(BENCH)/.installed: pyproject.toml benchmarks/constraints.txt
	test -x $(BENCH)/bin/python || $(PYTHON) -m venv $(BENCH)
	$(BENCH_PIP) torch
	$(BENCH_PIP) -e '.[bench]'
	touch $@

clean:  ## remove what the other targets made, but .venv, runs and the paper
	rm -rf build dist site .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find $(PACKAGES) tests -name __pycache__ -type d -prune -exec rm -rf {} +
