# `make demo` shows VoiceForge at work, `make test` runs every test; `make help` lists the rest.
# Everything goes into .venv. Stamps under .make/ let a second run start at once.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
STAMPS := .make
# The first Python of at least 3.11; `make PYTHON=/path/to/python …` chooses another.
PYTHON ?= $(shell for python in python3.13 python3.12 python3.11 python3 python; do \
	$$python -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
COMPILE := CUSTOM_COMPILE_COMMAND="make requirements" $(BIN)/pip-compile -q --generate-hashes --strip-extras \
	--allow-unsafe --no-emit-index-url --no-emit-trusted-host --no-emit-find-links

.PHONY: help demo test lint format bench requirements docs examples clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/\1\t\2/' | expand -t 16

demo: $(STAMPS)/package ## Install the base into .venv and transcribe a real recording
	@$(BIN)/voiceforge demo

test: $(STAMPS)/package $(STAMPS)/test ## Install what the tests need and run them all
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(STAMPS)/package $(STAMPS)/test ## Style, types and import directions
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(STAMPS)/test ## Rewrite the sources in our style
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: $(STAMPS)/package $(STAMPS)/test ## Speed and accuracy over MANIFEST=file.jsonl
	@test -n "$(MANIFEST)" || { echo "usage: make bench MANIFEST=recordings.jsonl [BENCH_ARGS=…]" >&2; exit 2; }
	@$(BIN)/voiceforge bench "$(MANIFEST)" $(BENCH_ARGS)

requirements: $(STAMPS)/dev ## Compile requirements/*.txt anew, within what pyproject.toml allows
	@$(COMPILE) -o requirements/build.txt requirements/build.in
	@$(COMPILE) -o $(STAMPS)/python312.txt requirements/python312.in
	@awk '/^[a-z]/ {keep = /^pocketsphinx==/; sub(/==[^ ]+/, "& ; python_version == \"3.12\"")} keep' \
		$(STAMPS)/python312.txt > $(STAMPS)/python312.marked
	@$(COMPILE) -o requirements/base.txt pyproject.toml
	@cat $(STAMPS)/python312.marked >> requirements/base.txt
	@$(COMPILE) --extra whisper --extra bench -o requirements/test.txt pyproject.toml requirements/test.in
	@cat $(STAMPS)/python312.marked >> requirements/test.txt
	@$(COMPILE) -o requirements/dev.txt requirements/dev.in

examples: $(STAMPS)/package ## Write config.example.toml and the tables of docs/configuration.md anew
	@$(BIN)/python docs/generate.py

docs: $(STAMPS)/dev examples ## Build the docs site into site/
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict -q

clean: ## Remove .venv, stamps and caches
	@rm -rf $(VENV) $(STAMPS) site .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "VoiceForge needs Python 3.11 or newer; none was found" >&2; exit 1; }
	@echo "Creating $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)

$(STAMPS)/base: requirements/build.txt requirements/base.txt | $(BIN)/python
	@echo "Installing VoiceForge (about 0.5 GB, once)"
	@$(PIP) install --require-hashes -r requirements/build.txt
	@$(PIP) install --require-hashes -r requirements/base.txt
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/package: $(STAMPS)/base pyproject.toml
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

$(STAMPS)/test: requirements/test.txt $(STAMPS)/base
	@echo "Installing what the tests need"
	@$(PIP) install --require-hashes -r requirements/test.txt
	@touch $@

$(STAMPS)/dev: requirements/dev.txt $(STAMPS)/test
	@$(PIP) install --require-hashes -r requirements/dev.txt
	@touch $@
