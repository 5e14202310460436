# Needs Python 3.11 or newer as $(PYTHON) and nothing else; everything is installed into .venv, once.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3.11
BIN := .venv/bin
CODE := foveate raster model worker jobs service tests bench deploy examples

# Stamps: what a user runs needs less than what a developer runs, and a developer's .venv serves both.
UP := .venv/installed-up
DEV := .venv/installed-dev

define install
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Foveate needs Python 3.11 or newer: make PYTHON=...")'
	@echo "installing the $(1) group into .venv (once; the first time takes minutes)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -r <($(BIN)/python deploy/group.py $(1))
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
endef

.PHONY: help install demo up check test test-all bench clean

help:
	@echo 'make demo      segment a large scene through a real service; IMAGE=path (and MODEL=name) for your own'
	@echo 'make up        run the service on this machine until Ctrl-C, and print its URL'
	@echo 'make install   only install, into .venv; then .venv/bin/foveate'
	@echo 'make check     formatting, lint, types, import arrows, Dockerfile and compose file'
	@echo 'make test      the fast tests'
	@echo 'make test-all  every test'
	@echo 'make bench     measure this machine; NAME=read, floor, coverage, resume, ...; JSON=file for the figures'
	@echo 'make clean     remove .venv and what the demo wrote'

$(UP): pyproject.toml constraints.txt
	$(call install,up)
	@touch $(UP)

$(DEV): pyproject.toml constraints.txt
	$(call install,dev)
	@touch $(DEV) $(UP)

install: $(UP)

demo: $(UP)
	@$(BIN)/python examples/demo.py $(if $(IMAGE),'$(IMAGE)') $(if $(MODEL),--model '$(MODEL)')

up: $(UP)
	@$(BIN)/foveate up

check: $(DEV)
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint Dockerfile
	@# podman-compose asks podman for its version even to read a file; any program that prints something will do.
	for profile in cpu gpu; do FOVEATE_API_KEY=check COMPOSE_PROFILES=$$profile $(BIN)/podman-compose --podman-path /bin/echo config >/dev/null; done

test: $(DEV)
	$(BIN)/python -m pytest -m 'not slow'

test-all: $(DEV)
	$(BIN)/python -m pytest

bench: $(DEV)
	$(BIN)/python -m bench.$(or $(NAME),read) $(if $(SIZE),--size $(SIZE)) $(if $(REPEATS),--repeats $(REPEATS)) \
		$(if $(JSON),--json '$(JSON)') $(if $(RESULTS),--results)

clean:
	rm -rf .venv demo-output demo-data
