# `make demo` and `make test` are all the set-up that a fresh machine needs: both make a virtual
# environment in .venv, install what they want and go on. What is installed already stays.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.PHONY: demo test test-all check format mutants test-hardware clean

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
WORKERS ?= 2
MUTANTS ?= 12
PYTEST = $(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup --durations 25 $(MARKS) $(PYTEST_ARGS)
TORCH_TESTS := tests/trainer/test_*.py
INPUTS := pyproject.toml $(wildcard constraints/*.txt)

# pip works under the pins of this Python, and says one line a package on its way.
define install
@echo "fer-agent: installing $(1) into $(VENV)"
@pins=$$($(BIN)/python -c 'import sys; print("py310" if sys.version_info < (3, 11) else "default")'); \
	$(BIN)/python -m pip install --no-input --disable-pip-version-check --progress-bar off \
		--constraint "constraints/$$pins.txt" --editable '.[$(1)]' \
	| sed -u -n -E 's/^(Collecting [^ ]+|Processing [^ ]+\.whl|Installing collected).*/  \1/p'
@touch $@
endef

demo: $(VENV)/.installed-demo
	@$(BIN)/fer-agent demo $(DEMO_ARGS)

# torch takes 600 MB of each process that collects a test of it, so those tests run by themselves.
test: packages check
	$(PYTEST) --ignore-glob '$(TORCH_TESTS)'
	$(PYTEST) $(TORCH_TESTS)

# The tests marked `exhaustive` as well: kills by the hundred, arm64 emulation, every training.
test-all: MARKS := -m "not hardware"
test-all: test

check: $(VENV)/.installed-test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/python scripts/architecture.py --check
	$(BIN)/mypy scripts/architecture.py
	$(BIN)/mypy
	$(BIN)/mypy scripts/constraints.py
	$(BIN)/mypy scripts/mutants.py
	$(BIN)/lint-imports --no-logo

format: $(VENV)/.installed-test
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# Changes the code in small ways, and lists the changes that no test notices.
mutants: $(VENV)/.installed-test
	$(BIN)/python scripts/mutants.py --mutants $(MUTANTS) --workers $(WORKERS)

# Tests that need a camera or an accelerator; a failure here may only mean that there is none.
test-hardware: $(VENV)/.installed-test
	$(BIN)/python -m pytest -m hardware $(PYTEST_ARGS)

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

.PHONY: packages
packages:
	@scripts/install-debian-packages

$(VENV)/.installed-demo: $(VENV)/.made $(INPUTS)
	$(call install,broker)

$(VENV)/.installed-test: $(VENV)/.made $(INPUTS)
	$(call install,broker$(comma)provision$(comma)trainer$(comma)dev)

comma := ,

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || { \
		echo "fer-agent needs Python 3.10 or newer, and \`$(PYTHON)\` is $$($(PYTHON) --version 2>/dev/null || echo not there);" \
			"name another one, as in \`make PYTHON=/usr/bin/python3.11\`" >&2; exit 1; }
	@echo "fer-agent: making $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@
