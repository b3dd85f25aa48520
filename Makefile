# memmeta: `make run` and `make test` do all the set-up they need.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TORCH ?= torch==2.13.0
CONSTRAINTS ?= constraints.txt
# OpenMP threads that spin while they wait made a step 3 times slower on a busy 2-core machine.
export OMP_WAIT_POLICY := passive

.DEFAULT_GOAL := help
.PHONY: help install browser run test test-slow lint format typecheck check docs bench-sampling bench-head bench-floor bench-peers bench-gpu bench-scaling record reproduce wheel clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-15s %s\n", $$1, $$2}'

install: $(STAMP)  ## make .venv with the pinned dependencies (another torch: see README, Installing)

# torch alone first: whatever build it is then satisfies the others. torchmeta without its (2021) pins.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo 'memmeta needs Python 3.11 or later: make install PYTHON=python3.11'; exit 2; }
	test -x $(BIN)/pip || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check -c $(CONSTRAINTS) $(TORCH)
	$(BIN)/pip install -q --disable-pip-version-check -c $(CONSTRAINTS) -e '.[dev]'
	$(BIN)/pip install -q --disable-pip-version-check --no-deps torchmeta==1.8.0
	touch $(STAMP)

# Never a failure: without a browser that one test skips and says so.
browser:  ## install Debian's Chromium, which one test opens the report in, where there is no browser yet (needs root)
	@for name in chromium chromium-browser google-chrome; do command -v $$name > /dev/null && exit 0; done; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then \
		export DEBIAN_FRONTEND=noninteractive; \
		{ apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; } > /dev/null \
			|| echo 'chromium could not be installed: the test that opens a report in it will skip'; \
	else echo 'no browser, and none can be installed without root and apt-get: the test that opens a report will skip'; fi

run: install  ## meta-train the default configuration on embedded data (about two minutes on two cores); ARGS="key=value ..."
	$(BIN)/memmeta train $(ARGS)

test: install  ## the test suite (2 cores, no GPU, no network; under 5 minutes)
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist worksteal

test-slow: install  ## the slow checks alone
	$(BIN)/python -m pytest -m slow

lint: install  ## ruff: rules and format
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

format: install  ## ruff: rewrite
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

typecheck: install  ## pyright
	$(BIN)/pyright

check: lint typecheck test  ## lint, types and tests

$(VENV)/.docs: $(STAMP)
	$(BIN)/pip install -q --disable-pip-version-check -c $(CONSTRAINTS) -e '.[docs]'
	touch $@

docs: $(VENV)/.docs  ## the searchable site of docs/ in site/; fails on a broken link or a missing picture
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build  # not --quiet, with which warnings do not count
	@echo 'built site/index.html; to search it: $(BIN)/python -m http.server --directory site'

bench-sampling: install  ## the cost of drawing tasks as a share of a step
	$(BIN)/python -m benchmarks.sampling

bench-head: install  ## the head of `proposed`, time and memory a task, against the one by a system of nC x nC (minutes)
	$(BIN)/python -m benchmarks.head $(ARGS)

bench-floor: install  ## a meta-step of every algorithm against a supervised step on the same images (minutes); ARGS="--threads 1"
	$(BIN)/python -m benchmarks.floor $(ARGS)

bench-peers: install  ## the same work in learn2learn, TorchOpt and higher, in environments of their own; ARGS="--threads 1"
	$(BIN)/python -m benchmarks.peers $(ARGS)

bench-gpu: install  ## all that wants a GPU: predicted against measured memory, the floor, the released structure; ARGS="--device cpu --small" without one
	$(BIN)/python -m benchmarks.gpu $(ARGS)

record: install  ## make docs/results/record.json and the tables of docs/results.md and docs/results/*.md from the kept runs
	$(BIN)/python -m benchmarks.record

reproduce: install  ## the best recipe on CIFAR-FS, shortened: the 64.24 % of the paper or failure, within 15 minutes on 2 cores (MEMMETA_DATA)
	$(BIN)/python -m benchmarks.reproduce $(ARGS)

bench-scaling: install  ## an iteration's time against the number of ranks, measured here and modelled for GPUs
	$(BIN)/python -m benchmarks.scaling $(ARGS)

wheel: install  ## build dist/*.whl
	$(BIN)/python -m build --wheel

clean:  ## remove what the targets made, outputs/ excepted
	rm -rf $(VENV) dist build site *.egg-info
