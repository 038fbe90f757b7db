PYTHON ?= python3
VENV := .venv
RUN := runs/demo
TESTS := OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder
SOURCES := server_app client_app common cli deploy tests benchmarks docs

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-compose test-fast coverage mutation docs lint clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 12

setup: $(VENV)/installed  ## make a virtual environment and install everything

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install -c constraints.txt -e '.[dev,docs,image,synthetic]'
	touch $@

demo: setup  ## a federation in a simulation, on generated data
	$(VENV)/bin/snowdrop simulate demo --run-dir $(RUN) --set fresh=true

test: setup  ## all tests, two files at a time
	$(TESTS)

test-fast: setup  ## the tests that take no minutes
	$(VENV)/bin/python -m pytest -m 'not slow'

test-compose: setup  ## the compose file on a Docker engine of its own, in at most 25 minutes
	timeout --signal INT --kill-after 90 1500 $(VENV)/bin/python -m pytest -m compose -x -n 0 --durations 0 tests/compose

coverage: setup  ## all tests, and which lines they reach
	$(TESTS) --cov --cov-report=term:skip-covered

mutation: setup  ## change the numeric core line by line, and count what no test notices
	$(VENV)/bin/python -m pip install -q -c constraints.txt -e '.[mutation]'
	OMP_NUM_THREADS=1 $(VENV)/bin/mutmut run
	$(VENV)/bin/mutmut results

docs: setup  ## the site, in build/site; a broken link is an error
	NO_MKDOCS_2_WARNING=1 DISABLE_MKDOCS_2_WARNING=true $(VENV)/bin/mkdocs build --strict

lint: setup  ## style and types
	$(VENV)/bin/ruff check $(SOURCES)
	$(VENV)/bin/ruff format --check $(SOURCES)
	$(VENV)/bin/mypy server_app client_app common cli deploy

clean:  ## remove the environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache *.egg-info build mutants
