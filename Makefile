# Two commands: `make demo` and `make test`. Both set up what they need; `make help` lists the rest.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV   ?= .venv
PORT   ?= 8000
HOST   ?= 127.0.0.1
VAR_DIR ?= var
export PORT HOST VAR_DIR

BIN := $(VENV)/bin
PY  := $(BIN)/python
READY := $(VENV)/.installed

.PHONY: help demo serve worker test test-slow e2e smoke check format lint types contracts starter clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  \1\t/' | expand -t 14

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 14) else f"Heed needs Python 3.11, 3.12 or 3.13; this is {sys.version.split()[0]}. Name another with PYTHON=python3.12")'
	@test -x "$(PY)" || $(PYTHON) -m venv "$(VENV)"
	"$(PY)" -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch "$(READY)"

models: $(READY) ## fetch the two default base models and derive the int8 file (kept under VAR_DIR)
	@"$(PY)" -m classifier.base_models
	@"$(PY)" -m classifier.derived || echo "torch serves the BERT arm instead, more slowly"

demo: models ## start everything with demo texts and demo people
	@"$(PY)" manage.py up --demo

serve: models ## start everything, without demo content
	@"$(PY)" manage.py up

worker: $(READY) ## one more worker, on your own DATABASE_URL and REDIS_URL
	@"$(BIN)/celery" -A config worker -Q default --loglevel info

test: models ## the whole test suite, on toy models and real servers
	@"$(PY)" -m pytest -n 2 --dist loadfile

test-slow: models ## the tests that need the real base models
	@"$(PY)" -m pytest -m slow

e2e: models ## the loop in a real browser, on the real stack
	@"$(PY)" -m pytest -m e2e tests/e2e

smoke: models ## the demo's whole path, headless, on free ports and a temporary folder
	@"$(PY)" -m tests.smoke

check: lint types contracts ## lint, types and import contracts

lint: $(READY)
	@"$(BIN)/ruff" check .
	@"$(BIN)/ruff" format --check .

types: $(READY)
	@"$(BIN)/mypy" classifier config feedback training

contracts: $(READY)
	@PYTHONPATH=. "$(BIN)/lint-imports"

format: $(READY) ## format and sort the code
	@"$(BIN)/ruff" check --fix --quiet .
	@"$(BIN)/ruff" format .

clean: ## remove the virtual environment and all data (asks first)
	@read -r -p "Remove $(VENV) and $(VAR_DIR), with every annotation in it? [y/N] " answer && [ "$$answer" = y ] && rm -rf "$(VENV)" "$(VAR_DIR)"
