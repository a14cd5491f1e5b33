# Every target works on a fresh machine: `setup` makes .venv, and the others call it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: help setup packages demo run test test-quick soak lint format bench docs screenshots constraints clean

help:
	@echo "make demo   run a real job on this machine and write a picture"
	@echo "make run    start the program (the tray app, once it is there)"
	@echo "make test   all tests        make lint   all checks"
	@echo "make bench  measure          make soak   long runs"

setup: $(STAMP)

$(STAMP): pyproject.toml constraints/dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Sparegrid needs Python 3.11 or newer, this is %d.%d; name another with make PYTHON=…" % sys.version_info[:2])'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV) (a minute or two the first time)"
	@$(PIP) install --require-hashes -r constraints/dev.txt 2>&1 | grep -v '^WARNING: Location' || true
	@$(PIP) install --no-deps --no-build-isolation --editable . 2>&1 | grep -v '^WARNING: Location' || true
	@$(BIN)/python -c 'import sparegrid, aiohttp, msgspec, PySide6, pytest'
	@touch $@

packages:
	@sh .ci/packages

demo: setup
	@$(BIN)/sparegrid demo

run: setup
	@$(BIN)/sparegrid

test: setup packages
	@$(BIN)/python -m pytest -q tests/unit tests/vectors
	@$(BIN)/python -m pytest -q tests/sim tests/powerloss tests/e2e

test-quick: setup
	@$(BIN)/python -m pytest -q -x tests/unit tests/vectors

soak: setup packages
	@$(BIN)/python -m pytest -q -m soak tests

lint: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/codespell $$(git ls-files '*.py' '*.md' '*.toml' '*.yml')
	@$(BIN)/python .ci/hygiene.py
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet --site-dir build/site

format: setup
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

docs: setup
	@$(BIN)/mkdocs build --strict --site-dir build/site

bench: setup
	@$(BIN)/python -m bench

# Needs `uv` on the PATH; writes the pinned set with hashes and without addresses.
constraints:
	uv pip compile pyproject.toml --all-extras --group dev --universal --generate-hashes --python-version 3.11 \
	  --no-emit-index-url --no-header --output-file constraints/dev.txt

clean:
	rm -rf $(VENV) build dist site demo-result .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
