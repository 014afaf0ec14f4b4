# Every target makes the virtual environment that it needs, once: a stamp file says so.
PYTHON ?= python3
VENV := .venv
OLDEST := .venv-oldest
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help setup quickstart test test-all slow quick oldest architecture lint types format bench

help:
	@echo "make quickstart  raw text to a released model in minutes"
	@echo "make test        lint, types, architecture and quick tests"
	@echo "make test-all    the slow tests too"
	@echo "make oldest      the quick tests with the lowest versions that are admitted"
	@echo "make bench       everything in benchmarks/"
	@echo "make lint        what ruff says; make format lets it mend that"

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

setup: $(VENV)/.dev

quickstart: $(VENV)/.quickstart
	$(BIN)/feldspar quickstart

test: lint types quick

test-all: test slow

quick: $(VENV)/.dev
	$(BIN)/pytest -n 2 -m "not slow and not gpu"

slow: $(VENV)/.dev
	$(BIN)/pytest -n 2 -m "slow or gpu"

$(OLDEST)/.made: .ci/oldest.txt pyproject.toml
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check \
		--constraint .ci/oldest.txt --editable '.[quickstart,fast,search,vision]' \
		pytest pytest-xdist hypothesis psutil
	touch $@

oldest: $(OLDEST)/.made
	$(OLDEST)/bin/pytest -n 2 -m "not slow and not gpu"

architecture: $(VENV)/.dev
	$(BIN)/pytest tests/test_architecture.py

lint: $(VENV)/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(VENV)/.dev
	$(BIN)/pyrefly check

format: $(VENV)/.dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(VENV)/.bench
	set -e; for script in benchmarks/*.py; do $(BIN)/python "$$script"; done
