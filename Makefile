# Everything runs inside .venv, which the first target that needs it makes.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Named outright, so that the resolver never goes for another build of torch.
TORCH := torch==2.13.0

define check_python
$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 || { \
	found=$$($(PYTHON) --version 2>/dev/null) || found='missing'; \
	echo "retract needs Python 3.11 or newer; $(PYTHON) is $$found: try 'make $(or $(MAKECMDGOALS),setup) PYTHON=/path/to/python3.11'" >&2; \
	exit 1; }
endef

.PHONY: help setup demo federation-demo test check lint format bench wheel wheel-check constraints

help: ## Show these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## Create .venv with everything the demo and the checks need

$(STAMP): pyproject.toml constraints.txt
	@$(check_python)
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { rm -f $@; $(PYTHON) -m venv --clear $(VENV); }
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt $(TORCH) -e '.[demo,dev,flower]'
	@touch $@

demo: setup ## Tell the whole story on MovieLens-small; writes demo/
	$(BIN)/retract demo --out demo

federation-demo: setup ## Three nodes and a server on MovieLens-small train, a user erases, the model forgets; writes federation-demo/
	$(BIN)/python -m benchmarks.federation_demo --out federation-demo

test: setup ## Run all tests, one process per core and one for those that wait for others
	OMP_NUM_THREADS=1 $(BIN)/pytest -n $$(( $$($(PYTHON) -c 'import os; print(os.cpu_count())') + 1 )) --dist worksteal

check: setup ## The quick round: style, types, import rules, fast tests
	$(MAKE) --no-print-directory lint
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n auto --dist worksteal -m 'not slow'

lint: setup ## Check style, formatting, types and the import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup ## Format the code and apply the safe fixes
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup ## Measure the engine on this machine
	$(BIN)/python -m benchmarks.engine

wheel: setup ## Build the wheel into dist/
	$(BIN)/python -m build --wheel --no-isolation --outdir dist

wheel-check: setup ## Install the wheel into empty environments, newest and lowest dependencies, and run every command
	$(BIN)/python .ci/wheel.py

constraints: ## Solve all extras together anew into constraints.txt
	@$(check_python)
	@room=$$(mktemp -d); trap 'rm -rf "$$room"' EXIT; \
	$(PYTHON) -m venv "$$room/venv"; \
	"$$room/venv/bin/python" -m pip install --disable-pip-version-check \
		$(TORCH) -e '.[demo,flower,privacy,service,docs,dev]'; \
	"$$room/venv/bin/python" -m pip freeze --exclude-editable | sed 's/+cpu$$//' > "$$room/constraints.txt"; \
	if grep -nvE '^[A-Za-z0-9._-]+==[A-Za-z0-9.!]+$$' "$$room/constraints.txt"; then \
		echo "the lines above are not plain name==version: constraints.txt is left as it was" >&2; exit 1; fi; \
	mv "$$room/constraints.txt" constraints.txt
