# `make demo` shows VoiceForge at work, `make test` runs every test; `make help` lists the rest.
# Everything goes into .venv. Stamps under .make/ let a second run start at once.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
STAMPS := .make
BENCH_OUT := build/bench
# The first Python of at least 3.11; `make PYTHON=/path/to/python …` chooses another.
PYTHON ?= $(shell for python in python3.13 python3.12 python3.11 python3 python; do \
	$$python -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
COMPILE := CUSTOM_COMPILE_COMMAND="make requirements" $(BIN)/pip-compile -q --generate-hashes --strip-extras \
	--allow-unsafe --no-emit-index-url --no-emit-trusted-host --no-emit-find-links

# Clients before the present ones: two of a kind cannot be in one environment.
OLD_CLIENTS := $(STAMPS)/deepgram5 $(STAMPS)/deepgram6 $(STAMPS)/openai1

.PHONY: help demo test lint format audit bench requirements docs examples clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/\1\t\2/' | expand -t 16

demo: $(STAMPS)/package ## Install the base into .venv and transcribe a real recording
	@$(BIN)/voiceforge demo

# As many at a time as there are cores, up to four: each has a PostgreSQL and models of its own. A file stays
# together; in the order of the folders, so that the long ones do not come last.
PYTEST_ARGS ?= -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder
test: $(STAMPS)/package $(STAMPS)/test $(OLD_CLIENTS) ## Install what the tests need and run them all
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(STAMPS)/package $(STAMPS)/test ## Style, types and import directions
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(STAMPS)/test ## Rewrite the sources in our style
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

# In an environment of its own: it has to run where nothing else is installed. Every file is looked at, whatever
# the ones before had.
audit: $(STAMPS)/auditor/bin/pip-audit ## Known vulnerabilities in what requirements/*.txt pin (asks the network)
	@failed=0; for file in requirements/*.txt; do echo "== $$file"; \
		$< --require-hashes --disable-pip --progress-spinner off $(AUDIT_ARGS) -r $$file || failed=1; \
	done; exit $$failed

$(STAMPS)/auditor/bin/pip-audit: requirements/dev.txt
	@rm -rf $(STAMPS)/auditor && $(PYTHON) -m venv $(STAMPS)/auditor
	@$(STAMPS)/auditor/bin/python -m pip --disable-pip-version-check -q install --require-hashes -r $<
	@touch $@

# Every extra of pyproject.toml; `all` would name this folder in the compiled file.
EXTRAS := whisper bench redis postgres stores celery accounts mdns

BENCHMARKS := engine accuracy path decode http_overhead footprint long_file throughput load cache_hits isolation listening resume whisper_batches auth_overhead rate_limits jobs_scale long_job streaming
bench: $(addprefix bench-,$(BENCHMARKS)) ## Measure docs/benchmarks.md anew (SPEECH=FOLDER with a manifest.jsonl)
	@$(BIN)/python benchmarks/report.py $(BENCH_OUT)

# One at a time, whatever -j says: beside each other they would measure each other.
.NOTPARALLEL: bench
bench-%: $(STAMPS)/package $(STAMPS)/test
	@mkdir -p $(BENCH_OUT) && rm -f $(BENCH_OUT)/$*.json
	@echo "== $*" && $(BIN)/python benchmarks/$*.py --json $(BENCH_OUT)/$*.json $(BENCH_ARGS)
bench-%: export SPEECH_DIR := $(or $(SPEECH),$(SPEECH_DIR))
bench-accuracy: BENCH_ARGS = --library
bench-throughput: BENCH_ARGS = --peer-env $(BENCH_OUT)/peer
bench-footprint: BENCH_ARGS = --venv $(BENCH_OUT)/base
bench-footprint: $(BENCH_OUT)/base/bin/voiceforge

# A fresh environment with only the base, to be weighed.
$(BENCH_OUT)/base/bin/voiceforge: requirements/base.txt pyproject.toml
	@echo "Installing the base into $(BENCH_OUT)/base"
	@rm -rf $(BENCH_OUT)/base && $(PYTHON) -m venv $(BENCH_OUT)/base
	@$(BENCH_OUT)/base/bin/python -m pip --disable-pip-version-check -q install --require-hashes -r requirements/base.txt
	@$(BENCH_OUT)/base/bin/python -m pip --disable-pip-version-check -q install --no-deps .

requirements: $(STAMPS)/dev ## Compile requirements/*.txt anew, within what pyproject.toml allows
	@$(COMPILE) -o requirements/build.txt requirements/build.in
	@$(COMPILE) -o $(STAMPS)/python312.txt requirements/python312.in
	@awk '/^[a-z]/ {keep = /^pocketsphinx==/; sub(/==[^ ]+/, "& ; python_version == \"3.12\"")} keep' \
		$(STAMPS)/python312.txt > $(STAMPS)/python312.marked
	@$(COMPILE) -o $(STAMPS)/python311.txt requirements/python311.in
	@awk '/^[a-z]/ {keep = 1; sub(/==[^ ]+/, "& ; python_full_version < \"3.11.3\"")} keep' \
		$(STAMPS)/python311.txt > $(STAMPS)/python311.marked
	@$(COMPILE) -o requirements/base.txt pyproject.toml
	@cat $(STAMPS)/python312.marked >> requirements/base.txt
	@$(COMPILE) $(addprefix --extra ,$(EXTRAS)) -o requirements/test.txt pyproject.toml requirements/test.in
	@cat $(STAMPS)/python311.marked $(STAMPS)/python312.marked >> requirements/test.txt
	@$(COMPILE) -o requirements/dev.txt requirements/dev.in
	@for client in $(notdir $(OLD_CLIENTS)); do \
		$(COMPILE) -o $(STAMPS)/$$client.txt requirements/$$client.in; \
		awk '/^#/ || /^[a-z]/ {keep = /^#/ || /^(deepgram-sdk|distro|openai)==/} keep' \
			$(STAMPS)/$$client.txt > requirements/$$client.txt; \
	done

examples: $(STAMPS)/package ## Write config.example.toml and the tables of docs/configuration.md anew
	@$(BIN)/python docs/generate.py

docs: $(STAMPS)/dev examples ## Build the docs site into site/
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict -q

clean: ## Remove .venv, stamps and caches
	@rm -rf $(VENV) $(STAMPS) $(BENCH_OUT) site .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

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

# What else they need is there already.
$(OLD_CLIENTS): $(STAMPS)/%: requirements/%.txt $(STAMPS)/test
	@rm -rf $@
	@$(PIP) install --require-hashes --no-deps --target $@ -r $<
	@touch $@

$(STAMPS)/dev: requirements/dev.txt $(STAMPS)/test
	@$(PIP) install --require-hashes -r requirements/dev.txt
	@touch $@
