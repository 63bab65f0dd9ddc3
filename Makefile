# One place for what one does with this project. `make` alone lists it.
#
# PYTHON=/path/to/python chooses the interpreter; otherwise the newest of 3.13, 3.12 and 3.11 that
# works is taken.

SHELL := /bin/sh
VENV  := .venv
BIN   := $(VENV)/bin
STAMP := $(VENV)/.installed

# A name that is found may still be a launcher without an interpreter behind it, or an interpreter
# that cannot make virtual environments. So each is asked.
USABLE := import sys, ensurepip; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	"$$p" -c '$(USABLE)' >/dev/null 2>&1 && echo "$$p" && break; done)

.DEFAULT_GOAL := help
.PHONY: help install demo serve test sim kill murder attack soak bench bench-peers lock clean

# How much of it: make sim SEEDS=10000, make kill ROUNDS=200, make attack, make soak HOURS=1.
# RECORD=--record keeps what was seen for the table in tests/README.md.
SEEDS  := 1000
START  := 0
JOBS   := 2
ROUNDS := 50
HOURS  := 0.25
RECORD :=

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(STAMP)  ## make .venv with everything in it

# Exactly the locked versions, then this project itself. The stamp comes last: what was cut off in
# the middle is repeated.
$(STAMP): requirements.lock pyproject.toml
	@if [ -z "$(PYTHON)" ] || ! "$(PYTHON)" -c '$(USABLE)' 2>/dev/null; then \
		echo "Ringback needs Python 3.11 or newer with venv; $(if $(PYTHON),$(PYTHON) is not that,none was found)." >&2; \
		echo "Install one (Debian, Ubuntu: apt install python3 python3-venv), or name one:" >&2; \
		echo "  make $(or $(MAKECMDGOALS),install) PYTHON=/path/to/python3.11" >&2; \
		exit 1; \
	fi
	@$(BIN)/python -c '$(USABLE)' 2>/dev/null || { rm -rf $(VENV) && "$(PYTHON)" -m venv $(VENV); }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: $(STAMP)  ## see it work: a server, a receiver and some hundred tasks
	@$(BIN)/ringback demo

serve: $(STAMP)  ## run the server on http://127.0.0.1:8080, tasks in ringback.db
	@$(BIN)/ringback serve

test: $(STAMP)  ## run every check
	@PATH="$(CURDIR)/$(BIN):$$PATH" bash .ci/checks

sim: $(STAMP)  ## simulate it under faults, SEEDS times from START on
	@$(BIN)/python -m tests.simulation --seeds $(SEEDS) --start $(START) --jobs $(JOBS) $(RECORD)

kill: $(STAMP)  ## kill it under load, ROUNDS times
	@$(BIN)/python -m tests.murder kill --rounds $(ROUNDS) $(RECORD)

murder: $(STAMP)  ## whatever else may happen to a process: stopped, drained, no disk, damaged files
	@failed=; for each in drain stop poison disk corruption trace startup; do \
		$(BIN)/python -m tests.murder $$each $(RECORD) || failed="$$failed $$each"; \
	done; [ -z "$$failed" ] || { echo "missed:$$failed" >&2; exit 1; }

attack: $(STAMP)  ## attack it: hostile bytes, floods, poison, herds, a fuzzer
	@$(BIN)/python -m tests.attack all $(RECORD)

soak: $(STAMP)  ## run it at 70 % load for HOURS, and draw what it used
	@$(BIN)/python -m tests.soak --hours $(HOURS) $(RECORD)

bench: $(STAMP)  ## measure it
	@$(BIN)/python -m benchmarks

bench-peers: $(STAMP)  ## measure it beside its peers, on the same work
	@$(BIN)/python -m benchmarks.compare

lock:  ## choose the newest allowed versions anew (needs uv)
	@command -v uv >/dev/null || { echo "make lock needs uv: https://docs.astral.sh/uv/" >&2; exit 1; }
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-header --extra dev pyproject.toml -o requirements.lock

clean:  ## remove what was made here, the virtual environment too; tasks stay
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis \
		.import_linter_cache .coverage .coverage.* benchmarks/peers/.installed \
		soak-report
	find engine web tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
