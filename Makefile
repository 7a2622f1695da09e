# Each target does its own set-up: a virtual environment in .venv, made anew when pyproject.toml changes.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help demo test run lint bench fuzz soak clean

help: ## Show this list
	@echo "usage: make TARGET [ARGS='...']"
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 10

demo: $(READY) ## Place two real calls on this machine, print them as they happen (PROVIDER=deepgram: with that service)
	@$(BIN)/python -m rustpbx demo $(if $(PROVIDER),--provider $(PROVIDER)) $(ARGS)

test: $(READY) ## Run all tests; installs the programs they test against where it can (root on Debian)
	@tests/install-peers.sh
ifeq ($(ARGS),)
	$(BIN)/python -m pytest -m 'not real_time' --numprocesses logical --dist worksteal
	$(BIN)/python -m pytest -m real_time
else
	$(BIN)/python -m pytest $(ARGS)
endif

run: $(READY) ## Run the server with config.toml
	@$(BIN)/python -m rustpbx --conf config.toml $(ARGS)

lint: $(READY) ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY) ## Measure what calls cost on this machine, and judge it (about six minutes; nothing else should run)
	@command -v cc >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && \
	  apt-get update -qq && apt-get install -y -qq gcc libc6-dev; } || \
	  { echo "A C compiler is needed for the load generators. On Debian: apt-get install gcc libc6-dev"; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	$(BIN)/python -m bench $(ARGS)

fuzz: $(READY) ## Search for inputs that break what reads them (a minute for each kind; ARGS='sdp --seconds 600' for one)
	@$(BIN)/python -m fuzz $(ARGS)

soak: $(READY) ## Play 10,000 random calls, and cancel the server at every step of some (ARGS='--seed 7' replays one)
	@$(BIN)/python -m tests.kit.soak $(ARGS)

clean: ## Remove everything that make has made
	rm -rf $(VENV) build dist *.egg-info demo-out fuzz/found fuzz/crashes .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq && apt-get install -y -qq python3-venv; } || \
	  { echo "This Python cannot make virtual environments. On Debian: apt-get install python3-venv"; exit 1; }
	@echo "setting up $(VENV) ..."
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev,local]' || \
	  { echo "Without the embedded speech (extra 'local'): it is not to be had for this machine. Its tests will skip."; \
	    $(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'; }
	@touch $(READY)
