# `make demo` and `make test` need Python 3.11 or newer, its venv module, and a package index; everything goes into .venv.

VENV := .venv
LOWEST := .venv-lowest
BIN := $(VENV)/bin
SOURCES := tracetool parsers/tracetool_parsers fixtures benchmarks tests docs/conf.py .ci
SUITABLE := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c '$(SUITABLE)' 2>/dev/null && echo $$p && break; done)
# The oldest Python that is supported goes with the oldest dependencies.
LOWEST_PYTHON ?= python3.11
# A worker a core: one alone takes about ten minutes. The browser wants a core of its own, and a target.
PYTEST_ARGS ?= -n auto --ignore=tests/browser
# How long `fuzz` takes for each format, and for each again with atheris. What breaks a promise is kept in build/crashes.
SECONDS ?= 60

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-checked test-browser lint format docs docs-parts bench fuzz test-lowest clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

demo: $(VENV)/.installed ## replay the example of the README and write demo.html
	$(BIN)/tracetool replay fixtures/mail-6.1.dat --html demo.html --force
	@echo
	@echo "The report: demo.html (one file, no network needed). The recording: fixtures/mail-6.1.dat."

test: $(VENV)/.installed-tools ## run all tests
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

test-checked: $(VENV)/.installed-tools ## tests of the replay, compiled with every index tested, also in what is guarded
	@TRACETOOL_LOOPS=checked TRACETOOL_MODEL_EXAMPLES=50 $(BIN)/python -m pytest $(PYTEST_ARGS) tests/engine tests/parsers/test_gather.py

test-browser: $(VENV)/.installed-browser ## look at the HTML report in chromium; without one the tests skip
	@$(BIN)/python -m pytest tests/browser

lint: $(VENV)/.installed-tools ## check style, format, types and layering
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.installed-tools ## write the format that `lint` asks for
	$(BIN)/ruff check --fix-only $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

docs: $(VENV)/.installed-docs ## build the documentation into build/docs; warnings are errors
	@$(BIN)/sphinx-build -E -W --keep-going -n -q docs build/docs
	@$(BIN)/python .ci/offline.py build/docs
	@echo "The documentation: build/docs/index.html (no network needed)."

docs-parts: $(VENV)/.installed ## write the parts of docs/ that come from the code: help texts, tables, lists of events
	@cd tests && ../$(BIN)/python -m splices

# Peers that are missing are named and left out. Debian: trace-cmd linux-perf gcc pkg-config libtracecmd-dev libtracefs-dev libtraceevent-dev.
bench: $(VENV)/.installed ## measure speed and memory, against trace-cmd, libtracecmd and perf
	$(BIN)/python -m benchmarks

fuzz: $(VENV)/.installed-fuzz ## read damaged inputs of every format, for SECONDS=60 each, then again led by coverage
	cd tests && ../$(BIN)/python -m fuzz --seconds $(SECONDS) --keep ../build/crashes
	cd tests && ../$(BIN)/python -m fuzz --guided --seconds $(SECONDS) --keep ../build/crashes

test-lowest: $(LOWEST)/.installed-tools ## run all tests with the oldest dependencies that are allowed
	@$(LOWEST)/bin/python -m pytest $(PYTEST_ARGS)

clean: ## remove environments, caches and answers
	rm -rf $(VENV) $(LOWEST) build dist demo.html .pytest_cache .hypothesis .mypy_cache .ruff_cache .import_linter_cache
	find tracetool parsers fixtures tests .ci -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is younger than pyproject.toml when what is installed fits it: a second run installs nothing.
$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "tracetool needs Python 3.11 or newer; none was found. Name one: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c '$(SUITABLE)' || { echo "tracetool needs Python 3.11 or newer; $(PYTHON) is older." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "$(PYTHON) cannot make a virtual environment. Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.installed-tools: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test,lint]'
	@touch $(VENV)/.installed $@

$(VENV)/.installed-browser: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test,browser]'
	@touch $(VENV)/.installed $@

$(VENV)/.installed-docs: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	@touch $(VENV)/.installed $@

$(VENV)/.installed-fuzz: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test,fuzz]'
	@touch $(VENV)/.installed $@

$(LOWEST)/.installed-tools: pyproject.toml .ci/lowest.py
	$(LOWEST_PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python .ci/lowest.py pyproject.toml > $(LOWEST)/constraints.txt
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check --constraint $(LOWEST)/constraints.txt --editable '.[test]'
	@touch $@
