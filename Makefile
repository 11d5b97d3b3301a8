# Two commands do everything, the set-up included: `make run` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup run smoke test lint types docs bench clean

help:  ## this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 16

setup: $(READY)  ## a virtual environment in .venv with everything; runs by itself when needed

$(READY): pyproject.toml constraints-cpu.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "robode needs Python 3.11 or newer; make PYTHON=python3.12 ...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints-cpu.txt -e '.[dev]'
	@touch $@

run: $(READY)  ## train CH-NODE on embedded digits, noise suite, report; ARGS="model=hdnn depth=4"
	$(BIN)/robode train $(ARGS)

smoke: $(READY)  ## the same, tiny: under a minute
	$(BIN)/robode train experiment=smoke $(ARGS)

test: lint types  ## lint, types and the fast tests; ARGS="-k theorem"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal $(ARGS)

lint: $(READY)  ## ruff
	$(BIN)/ruff check

types: $(READY)  ## mypy
	$(BIN)/mypy

docs: $(VENV)/.docs  ## this documentation as a site, in docs/_build/html; opens offline
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -q -W --keep-going -j auto -b html docs docs/_build/html
	$(BIN)/python scripts/check_site.py docs/_build/html

$(VENV)/.docs: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints-cpu.txt -e '.[docs]'
	@touch $@

bench: $(READY)  ## speed against a plain re-statement of the published code
	$(BIN)/python bench/bench.py $(ARGS)

clean:  ## remove the environment and caches, keep outputs
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache build dist docs/_build docs/_generated
