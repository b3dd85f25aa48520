# memmeta: every target installs what it needs first.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TORCH ?= torch==2.13.0
CONSTRAINTS ?= constraints.txt
# Waiting OpenMP threads sleep instead of spinning: spinning made a step 3 times slower on a busy 2-core machine.
export OMP_WAIT_POLICY := passive

.DEFAULT_GOAL := help
.PHONY: help install browser run test test-slow lint format typecheck check docs bench-sampling bench-head bench-floor bench-peers bench-gpu bench-scaling record reproduce wheel clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-15s %s\n", $$1, $$2}'

install: $(STAMP)  ## make .venv with the pinned dependencies (another torch: see README, Installing)

# torch comes first, so that the others accept the chosen build. torchmeta comes without its dependencies, pinned in 2021.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo 'memmeta needs Python 3.11 or later: make install PYTHON=python3.11'; exit 2; }
	test -x $(BIN)/pip || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check -c $(CONSTRAINTS) $(TORCH)
	$(BIN)/pip install -q --disable-pip-version-check -c $(CONSTRAINTS) -e '.[dev]'
	$(BIN)/pip install -q --disable-pip-version-check --no-deps torchmeta==1.8.0
	touch $(STAMP)

# Never fails: without a browser, the one test that needs it is skipped.
browser:  ## install Chromium, if there is no browser: one test opens the report in it (needs root and apt-get)
	@for name in chromium chromium-browser google-chrome; do command -v $$name > /dev/null && exit 0; done; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then \
		export DEBIAN_FRONTEND=noninteractive; \
		{ apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; } > /dev/null \
			|| echo 'chromium could not be installed: the test that opens a report in it will be skipped'; \
	else echo 'no browser, and installing one needs root and apt-get: the test that opens a report will be skipped'; fi

run: install  ## meta-train the default configuration on embedded data (about two minutes on two cores); ARGS="key=value ..."
	$(BIN)/memmeta train $(ARGS)

test: install  ## run the test suite (2 cores, no GPU, no network; under 5 minutes)
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist worksteal

test-slow: install  ## run only the slow tests
	$(BIN)/python -m pytest -m slow

lint: install  ## check rules and format with ruff
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

format: install  ## fix rules and format with ruff
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

typecheck: install  ## check types with pyright
	$(BIN)/pyright

check: lint typecheck test  ## lint, typecheck and test

$(VENV)/.docs: $(STAMP)
	$(BIN)/pip install -q --disable-pip-version-check -c $(CONSTRAINTS) -e '.[docs]'
	touch $@

docs: $(VENV)/.docs  ## build the searchable site of docs/ in site/; fails on a broken link or a missing picture
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build  # not --quiet, with which warnings do not count
	@echo 'built site/index.html; to search it: $(BIN)/python -m http.server --directory site'

bench-sampling: install  ## the time to draw tasks, as a share of a train step
	$(BIN)/python -m benchmarks.sampling

bench-head: install  ## time and memory per task of the head of `proposed`, against a solver with an nC x nC system (minutes)
	$(BIN)/python -m benchmarks.head $(ARGS)

bench-floor: install  ## a train step of every algorithm against a supervised step on the same images (minutes); ARGS="--threads 1"
	$(BIN)/python -m benchmarks.floor $(ARGS)

bench-peers: install  ## the same work in learn2learn, TorchOpt and higher, each in its own environment; ARGS="--threads 1"
	$(BIN)/python -m benchmarks.peers $(ARGS)

bench-gpu: install  ## all GPU benchmarks: predicted and measured memory, bench-floor, the released code; without a GPU: ARGS="--device cpu --small"
	$(BIN)/python -m benchmarks.gpu $(ARGS)

record: install  ## make docs/results/record.json and the tables of docs/results.md and docs/results/*.md from stored runs
	$(BIN)/python -m benchmarks.record

reproduce: install  ## train a shortened best/cifar_fs; fails below the paper's 64.24 % (15 minutes on 2 cores; needs MEMMETA_DATA)
	$(BIN)/python -m benchmarks.reproduce $(ARGS)

bench-scaling: install  ## iteration time against the number of ranks: measured on this machine, modelled for GPUs
	$(BIN)/python -m benchmarks.scaling $(ARGS)

wheel: install  ## build dist/*.whl
	$(BIN)/python -m build --wheel

clean:  ## remove .venv, dist/, build/ and site/, but not outputs/
	rm -rf $(VENV) dist build site *.egg-info
