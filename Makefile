# Every target makes the virtual environment that it needs, once: a stamp file says so.
PYTHON ?= python3
VENV ?= .venv
OLDEST := .venv-oldest
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# Tests go to two processes one by one, slow tests first (tests/conftest.py).
TWO := -n 2 --dist load --maxschedchunk 1
QUICK := --durations 12 -m "not slow and not gpu"
# Tests of `make test`: the quick ones, unless it is called with SELECTED= for all.
SELECTED = $(QUICK) --ignore $(ARCHITECTURE)
# Files of tests that compare results of our own arithmetic, and of transformers' beside it.
NUMBERS := grep -rlE --include 'test_*.py' 'assert_close|approx|allclose|isclose|rounding|torch.equal'
OWN_NUMERIC = $(shell $(NUMBERS) tests/model tests/sparsity tests/noise_scale tests/reversible)
OTHER_NUMERIC = $(shell $(NUMBERS) tests/huggingface)
ARCHITECTURE := tests/test_architecture.py

.DEFAULT_GOAL := help
.PHONY: help quickstart test slow faults vectors oldest lint check docs docs-links format dist bench

help:
	@echo "make quickstart  raw text to a released model in minutes"
	@echo "make test        the quick tests; SELECTED= runs all of them, as CI does"
	@echo "make slow        the slow tests"
	@echo "make faults      kills, damage, full disks, signals, links, bad input: all must be harmless"
	@echo "make vectors     the numeric tests without the processor's widest vector instructions"
	@echo "make oldest      the quick tests with the lowest versions that are admitted"
	@echo "make check       lint, types and architecture; make format mends what it can"
	@echo "make dist        wheel and sdist in dist/, checked where no checkout is seen"
	@echo "make docs        the documentation site, build/site/index.html; make docs-links its links"
	@echo "make bench       everything in benchmarks/"

$(VENV)/.made:
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --upgrade pip
	touch $@

$(VENV)/.quickstart: $(VENV)/.made pyproject.toml
	$(INSTALL) --editable '.[quickstart]'
	touch $@

$(VENV)/.dev: $(VENV)/.made pyproject.toml
	$(INSTALL) --editable '.[dev]'
	touch $@

$(VENV)/.bench: $(VENV)/.made pyproject.toml
	$(INSTALL) --editable '.[dev,bench]'
	touch $@

quickstart: $(VENV)/.quickstart
	$(BIN)/feldspar quickstart

test: $(VENV)/.dev
	$(BIN)/pytest $(TWO) $(SELECTED)

slow: $(VENV)/.dev
	$(BIN)/pytest $(TWO) --durations 12 -m "slow or gpu"

faults: $(VENV)/.dev
	PYTHONPATH=src:. $(BIN)/python -m tests.faults

vectors: $(VENV)/.dev
	$(BIN)/pytest $(QUICK) $(OWN_NUMERIC) --dist each \
		--tx popen//env:ATEN_CPU_CAPABILITY=default --tx popen//env:ATEN_CPU_CAPABILITY=avx2
	ATEN_CPU_CAPABILITY=default $(BIN)/pytest $(TWO) $(QUICK) $(OTHER_NUMERIC)

lint: $(VENV)/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyrefly check --python-interpreter-path $(BIN)/python

check: lint
	$(BIN)/pytest -n 2 $(ARCHITECTURE)

docs: $(VENV)/.dev
	PYTHONPATH=docs $(BIN)/python -m feldspar_site

docs-links: $(VENV)/.dev
	PYTHONPATH=docs $(BIN)/python -m feldspar_site linkcheck

format: $(VENV)/.dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

dist: $(VENV)/.dev
	rm -rf build/lib build/bdist.* dist
	$(BIN)/python -m build --quiet
	$(BIN)/twine check --strict dist/*
	$(BIN)/python scripts/check_distributions.py $(if $(KEEP),--work $(KEEP))

$(OLDEST)/.made: .ci/oldest.txt pyproject.toml
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check \
		--constraint .ci/oldest.txt --editable '.[quickstart,fast,search,vision,detection,gguf]' \
		pytest pytest-xdist hypothesis psutil
	touch $@

oldest: $(OLDEST)/.made
	$(OLDEST)/bin/pytest -n 2 $(QUICK) --ignore $(ARCHITECTURE)

bench: $(VENV)/.bench
	set -e; for script in benchmarks/*.py; do $(BIN)/python "$$script"; done
