# Everything a newcomer types. Needs make and Python 3.11, 3.12 or 3.13; the rest comes with it.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help run test check campaign bench

# The first that fits; looked for only when something has to be installed.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
    $$python -c 'import sys; fits = (3, 11) <= sys.version_info < (3, 14); \
    sys.exit(print(sys.executable) if fits else 1)' 2>/dev/null && break; done)
BIN := .venv/bin
UV := .tools/bin/uv
SYNC = $(UV) sync --frozen --no-managed-python --quiet

export UV_SYSTEM_CERTS ?= 1
export UV_PYTHON_DOWNLOADS := never
unexport VIRTUAL_ENV

help: ## Show this
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST)

run: DEMO_DATA ?= $(or $(shell sed -n 's/^DEMO_DATA=//p' .env 2>/dev/null),true)
run: .venv/.ready-to-run ## Start everything in one process, with a demo shop; Ctrl-C stops it
	@DEMO_DATA='$(DEMO_DATA)' exec $(BIN)/python -m services serve

# Two files at a time, each with servers of its own: a test mostly waits for one. Those of a file
# share its house; -n 0 runs one after the other.
test: .venv/.ready-to-test ## Run the tests; ARGS="-k cron" runs some of them
	@scripts/needs.sh test
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

campaign: .venv/.ready-to-test ## Break everything, check that nothing is lost; ARGS="--minutes 20 --seed 7"
	@scripts/needs.sh test
	$(BIN)/python -m campaign $(ARGS)

bench: .venv/.ready-to-test bench/peers/node_modules/.ready ## Speed beside peers; ROW=page measures one
	@scripts/needs.sh test
	$(BIN)/python -m bench $(ROW) $(ARGS)

check: .venv/.ready-to-test inbox/node_modules/.ready ## Lint, types, exported files, compose.yaml, Dockerfile, house rules
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/python -m services schema --check
	$(BIN)/python -m services asyncapi --check
	$(BIN)/python -m services settings --check
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec compose.yaml
	$(BIN)/hadolint Dockerfile
	cd inbox && npm run --silent check
	$(BIN)/python -m pytest -q tests/test_house.py

# Neither takes away what the other has installed: --inexact leaves the tests' packages alone.
.venv/.ready-to-run: uv.lock pyproject.toml $(UV)
	@echo "Installing the packages of uv.lock ..." >&2
	@UV_PYTHON='$(PYTHON)' $(SYNC) --inexact --no-dev
	@scripts/needs.sh run .venv/lib/python*/site-packages/fiftyone/db/bin/mongod
	@touch $@

.venv/.ready-to-test: uv.lock pyproject.toml $(UV)
	@echo "Installing the packages of uv.lock, those of the tests included ..." >&2
	@UV_PYTHON='$(PYTHON)' $(SYNC)
	@scripts/needs.sh run .venv/lib/python*/site-packages/fiftyone/db/bin/mongod
	@touch $@ .venv/.ready-to-run

bench/peers/node_modules/.ready: bench/peers/package-lock.json
	@echo "Installing the packages of bench/peers ..." >&2
	@scripts/needs.sh test
	@cd bench/peers && npm ci --silent --no-fund --no-audit
	@touch $@

inbox/node_modules/.ready: inbox/package-lock.json
	@echo "Installing the packages of inbox ..." >&2
	@scripts/needs.sh test
	@cd inbox && npm ci --ignore-scripts --silent --no-fund --no-audit
	@touch $@

$(UV):
	@test -n '$(PYTHON)' || { echo "No Python 3.11, 3.12 or 3.13 is on PATH: install one, \
	or name it with make PYTHON=/path/to/python." >&2; exit 1; }
	@scripts/needs.sh pip '$(PYTHON)'
	@'$(PYTHON)' -m pip install -qq --target .tools --upgrade 'uv>=0.13,<0.14'
