# Needs Python 3.11 or newer as $(PYTHON) and nothing else; everything is installed into .venv, once.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3.11
BIN := .venv/bin
CODE := foveate raster model worker jobs service tests bench deploy examples

# Stamps: what a user runs needs less than what a developer runs, and a developer's .venv serves both.
UP := .venv/installed-up
TRAIN := .venv/installed-train
DEV := .venv/installed-dev

# The Python is looked at before .venv is made, and half a .venv is removed: later calls would trip over either.
OLD = import sys; sys.exit(sys.version_info < (3, 11) and "error: $(1) is Python %d.%d, and Foveate needs 3.11 or newer" % sys.version_info[:2])
NEWER = { echo "hint: make PYTHON=/path/of/a/newer/python" >&2; exit 2; }
define install
	@test -x $(BIN)/python || $(PYTHON) -c '$(call OLD,$(PYTHON))' || $(NEWER)
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv || { rm -rf .venv; exit 1; }
	@$(BIN)/python -c '$(call OLD,.venv)' || { echo "hint: make clean, then make PYTHON=/path/of/a/newer/python" >&2; exit 2; }
	@echo "installing for: $(1); into .venv, once; the first time takes some minutes and 6 GB"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -r <($(BIN)/python deploy/group.py $(1))
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
endef

.PHONY: help install install-train demo up check test test-all bench bench-name clean

help:
	@echo 'make demo      segment a large scene through a real service; IMAGE=path (and MODEL=name) for your own'
	@echo 'make up        run the service on this machine until Ctrl-C, and print its URL'
	@echo 'make install   only install, into .venv; then .venv/bin/foveate'
	@echo 'make install-train  the same, and what foveate train and evaluate need'
	@echo 'make check     formatting, lint, types, import arrows, Dockerfile and compose file'
	@echo 'make test      the fast tests, side by side: 5 minutes on two cores'
	@echo 'make test-all  every test'
	@echo 'make bench     measure this machine; NAME=read, floor, coverage, resume, ...; JSON=file for the figures'
	@echo 'make clean     remove .venv and what the demo wrote'

$(UP): pyproject.toml constraints.txt
	$(call install,up)
	@touch $(UP)

$(TRAIN): pyproject.toml constraints.txt
	$(call install,up train)
	@touch $(TRAIN) $(UP)

$(DEV): pyproject.toml constraints.txt
	$(call install,dev)
	@touch $(DEV) $(TRAIN) $(UP)

install: $(UP)

install-train: $(TRAIN)

# The shell takes names from its environment, where make puts them: they may hold quotes and blanks.
demo: $(UP)
	@$(BIN)/python examples/demo.py $(if $(IMAGE),"$$IMAGE") $(if $(MODEL),--model "$$MODEL")

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
	$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist worksteal -m 'not slow'

# The slow ones one after the other: some of them measure memory, or want the cores for themselves.
test-all: test
	$(BIN)/python -m pytest -m slow

BENCHES = $(sort $(basename $(notdir $(shell grep -l __main__ bench/*.py))))
bench-name:
	@$(if $(filter $(or $(NAME),read),$(BENCHES)),true,echo 'error: there is no bench $(NAME)' >&2; echo 'hint: NAME is one of: $(BENCHES)' >&2; exit 2)

bench: bench-name $(DEV)
	$(BIN)/python -m bench.$(or $(NAME),read) $(if $(SIZE),--size $(SIZE)) $(if $(REPEATS),--repeats $(REPEATS)) \
		$(if $(JSON),--json '$(JSON)') $(if $(RESULTS),--results)

clean:
	rm -rf .venv demo-output demo-data
