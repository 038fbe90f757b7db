PYTHON ?= python3
VENV := .venv
RUN := runs/demo
SOURCES := server_app client_app common cli deploy tests benchmarks

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast lint clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 12

setup: $(VENV)/installed  ## make a virtual environment and install everything

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install -c constraints.txt -e '.[dev]'
	touch $@

demo: setup  ## a federation in a simulation, on generated data
	$(VENV)/bin/snowdrop simulate demo --run-dir $(RUN)

test: setup  ## all tests, two files at a time
	$(VENV)/bin/python -m pytest -n 2 --dist loadfile

test-fast: setup  ## the tests that take no minutes
	$(VENV)/bin/python -m pytest -m 'not slow'

lint: setup  ## style and types
	$(VENV)/bin/ruff check $(SOURCES)
	$(VENV)/bin/ruff format --check $(SOURCES)
	$(VENV)/bin/mypy server_app client_app common cli deploy

clean:  ## remove the environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache *.egg-info
