# Every target sets up what it needs; all of them may be run again at any time.
.DEFAULT_GOAL := help
SHELL := /bin/bash
VENV  := .venv
BIN   := $(VENV)/bin
READY := $(VENV)/.setup-done
export PYTHONUNBUFFERED = 1
export PYTHONDONTWRITEBYTECODE =  # where it is set, every process of the tests compiles numba's sources anew: 1.1 s of each start

help:  ## these lines
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | column -t -s $$'\t'

$(READY): pyproject.toml constraints.txt
	@py=""; for p in $(PYTHON) python3.11 python3.12 python3.13 python3; do \
	  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { py=$$p; break; }; done; \
	[ -n "$$py" ] || { echo "Python 3.11 or later is needed: install it, or say where it is with PYTHON=..."; exit 4; }; \
	[ -x $(BIN)/python ] || { echo "-- virtual environment with $$($$py --version)"; $$py -m venv $(VENV); }
	@echo "-- dependencies, the versions of constraints.txt"
	@$(BIN)/python -m pip install -q --disable-pip-version-check uv || true
	@if [ -x $(BIN)/uv ]; then VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip install -q --compile-bytecode -c constraints.txt -e '.[dev]' \
	  || $(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'; \
	else $(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'; fi
	@touch $@

setup: $(READY)  ## virtual environment, dependencies, kernels compiled
	@if [ -f algo_kit/jobs/warm.py ]; then echo "-- kernels"; $(BIN)/python -m algo_kit.jobs.warm; fi

demo: $(READY)  ## the paper trader on recorded trades: executed notebook, report, run folder
	@$(BIN)/python -m algo_kit.jobs.warm order_flow
	@$(BIN)/algo demo

lint: $(READY)  ## style
	$(BIN)/ruff check algo_kit tests benchmarks .ci setup.py
	$(BIN)/python .ci/secrets.py

house: $(READY)  ## notebooks and modules in step, imports, wheel
	$(BIN)/python -m pytest tests/test_house.py

nbs: $(READY)  ## run every notebook
	$(BIN)/python .ci/nbs.py

test: lint house nbs  ## all of these and the fast tests
	$(BIN)/python -m pytest --ignore tests/test_house.py -m "not slow" -n 2 --dist loadfile --no-loadscope-reorder

test-all: lint nbs  ## slow and adversarial tests as well
	$(BIN)/python -m pytest

chaos: $(READY)  ## two thousand days of faults around the live trader, in virtual time
	$(BIN)/python -m tests.chaos --days 2000 --jobs 2

weeks: $(READY)  ## two weeks of recorder and schedule with faults, on an accelerated clock
	$(BIN)/python -m tests.weeks --days 14 --seed 1

bench: setup  ## throughput, memory, start times
	$(BIN)/python -m benchmarks

lab: setup  ## JupyterLab in nbs/tutorials
	$(BIN)/jupyter lab nbs/tutorials

docs: $(READY)  ## the book as a site in _docs
	@$(BIN)/python -c "import mkdocs_jupyter, material" 2>/dev/null || $(BIN)/python -m pip install -q -c constraints.txt -e '.[docs]'
	@$(BIN)/python .ci/docs.py
	@$(BIN)/mkdocs build -q && echo "_docs/index.html"

readme: $(READY)  ## README.md from nbs/index.ipynb
	$(BIN)/python .ci/readme.py > README.md

clean:  ## caches and builds; environment, runs and data stay
	rm -rf build dist _docs _proc .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
	@[ ! -x $(BIN)/nbdev-clean ] || $(BIN)/nbdev-clean

.PHONY: help setup demo lint house nbs test test-all chaos weeks bench lab docs readme clean
