# The verbs of the house. Nothing is needed beforehand but Python 3.11 or newer, and make.
#
#   make demo    set up, fetch the default models once, transcribe real recordings
#   make test    set up with the tools of developers, run the tests
#   make slow    the tests on the shipped models and real speech, the tutorial among them
#   make lint · make docs · make bench · make mutants · make setup · make clean
#
# Another Python, another torch (say, one for your GPU):  make demo PYTHON=python3.12 TORCH=torch==2.12

PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV ?= .venv

BIN := $(VENV)/bin
# A stamp is as old as what it installed: a second run installs nothing.
PYTHON_READY := $(VENV)/.python-ready
DEMO_READY := $(VENV)/.demo-ready
DEV_READY := $(VENV)/.dev-ready

.DEFAULT_GOAL := help
.PHONY: help setup demo test slow lint bench docs mutants clean

help:
	@sed -n 's/^#   make /make /p' Makefile

setup: $(DEMO_READY)

demo: $(DEMO_READY)
	@$(BIN)/python -m relisten.apps.demo

test: $(DEV_READY)
	@$(BIN)/python -m pytest -n auto --dist loadfile

slow: $(DEV_READY)
	@$(BIN)/python -m pytest -m slow

lint: $(DEV_READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy src/relisten/core

bench: $(DEV_READY)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	@$(BIN)/python benchmarks/scoring.py --quick

docs: $(DEV_READY)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "site/index.html is ready"

# Small faults in the files that every figure rests on: their tests must notice each. Some 10 s a fault.
mutants: $(DEV_READY)
	@OMP_NUM_THREADS=1 nice $(BIN)/python tests/mutants.py --sample 100

clean:
	rm -rf $(VENV) build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests benchmarks -name __pycache__ -prune -exec rm -rf {} +
	rm -rf src/*.egg-info

$(PYTHON_READY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "relisten needs Python 3.11 or newer: make PYTHON=python3.11 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

# torch comes first and by name, so that its build is the one that was asked for. Editable, so
# that an update of the checkout needs no second installation.
$(DEMO_READY): $(PYTHON_READY) pyproject.toml
	$(BIN)/python -m pip install --disable-pip-version-check $(TORCH)
	$(BIN)/python -m pip install --disable-pip-version-check -e .
	@touch $@

$(DEV_READY): $(DEMO_READY)
	$(BIN)/python -m pip install --disable-pip-version-check -e '.[train,dev]'
	@touch $@
