# GNU make. `make help` lists the targets; everything runs in a virtual environment of its own (.venv).

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.dev
DEMO   := $(VENV)/.demo
OLDEST := build/oldest
TESTS  ?= tests
# Most tests wait for processes and sockets: several at once.
AT_ONCE ?= -n auto --maxprocesses 4 --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow test-oldest test-langchain test-all lint fix types layers check bench bench-profile \
	screenshots ui ci clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## Make .venv with the package and all developer tools

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "pltrack needs Python 3.11 or newer, and '$(PYTHON)' is not. Name one: make PYTHON=python3.12 ..." >&2; \
		exit 1; }
	$(PYTHON) -m venv $(VENV) || { \
		echo "'$(PYTHON) -m venv' failed; on Debian and Ubuntu: apt-get install python3-venv" >&2; \
		rm -rf $(VENV); exit 1; }

# The stamp is older than pyproject.toml after an edit of the latter: then it is installed anew.
$(STAMP): pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[openai,postgres,ui]' --group dev
	@touch $(STAMP) $(DEMO)

# Only what the package itself and its page need; a full .venv serves as well.
$(DEMO): pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[ui]'
	@touch $(DEMO)

demo: $(DEMO) ## See it work: a tracked app on a fake model, no account, no network
	@$(BIN)/pltrack demo

ui: $(DEMO) ## Look at what was recorded in a browser: your own journal, or PLTRACK_JOURNAL
	@$(BIN)/pltrack ui --open

test: $(STAMP) ## Run the tests (not the slow ones)
	$(BIN)/python -m pytest $(AT_ONCE) -m "not slow"

test-slow: $(STAMP) ## Run the slow tests
	$(BIN)/python -m pytest $(AT_ONCE) -m slow

test-oldest: $(STAMP) ## Run the tests with the oldest versions that pyproject.toml allows
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(OLDEST)
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(OLDEST) --resolution lowest-direct -e '.[openai,postgres,ui]' --group dev
	$(OLDEST)/bin/python -m pytest $(AT_ONCE) -m "not slow" $(TESTS)

test-langchain: $(STAMP) ## Run LangChain's own tests without and with a session around each
	$(BIN)/python tests/langchain_suite/run.py

test-all: test test-slow test-oldest test-langchain ## Run all of these

screenshots: $(STAMP) ## Make docs/screenshots anew (needs Chromium)
	$(BIN)/python tests/screenshots.py

lint: $(STAMP) ## Check style
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .

fix: $(STAMP) ## Repair style where that can be done
	$(BIN)/python -m ruff check --fix .
	$(BIN)/python -m ruff format .

types: $(STAMP) ## Check types
	$(BIN)/python -m mypy pltrack $(wildcard tests/typing)

layers: $(STAMP) ## Check that imports point down
	$(BIN)/lint-imports

check: lint types layers test ## What to run before a commit

bench: $(STAMP) ## Measure what tracking costs, beside others (BENCH="calls --quick": a part)
	-$(BIN)/python -m pip install --quiet --disable-pip-version-check --group bench
	$(BIN)/python benchmarks $(BENCH)

bench-profile: $(STAMP) ## Show where the time of a tracked call goes, thread by thread
	-$(BIN)/python -m pip install --quiet --disable-pip-version-check --group bench
	$(BIN)/python benchmarks/hot.py

ci: lint types layers test-all ## Everything that has to hold

clean: ## Remove .venv and what tools have left
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
