# Every target does its own set-up: `make demo` and `make test` work on a fresh clone.
SHELL  := /bin/bash
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# One thread each: two OpenMP pools on few cores slow each other down many times over.
export OMP_NUM_THREADS := 1
export MKL_NUM_THREADS := 1

.PHONY: demo test test-fast test-slow check format lint types contract docs bench bench-smoke setup clean

demo: setup
	@mkdir -p runs
	$(BIN)/ude data hudson_bay > runs/hudson_bay.csv
	$(BIN)/ude discover runs/hudson_bay.csv --time year --equation "hare' = a*hare + ?(hare, lynx)" \
		--equation "lynx' = -d*lynx + ?(hare, lynx)" --out runs/hudson --overwrite

setup: $(VENV)/.installed

# torch is pinned here and only here: a newer one brings gigabytes of CUDA libraries.
$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[test,check,docs]'
	touch $@

test: test-fast

test-fast: setup
	$(BIN)/pytest -n 2

test-slow: setup
	$(BIN)/pytest -n 2 -m slow

check: format-check lint types contract test-fast

.PHONY: format-check
format-check: setup
	$(BIN)/ruff format --check .

format: setup
	$(BIN)/ruff format . && $(BIN)/ruff check --fix .

lint: setup
	$(BIN)/ruff check .

types: setup
	$(BIN)/pyright

contract: setup
	$(BIN)/lint-imports

docs: setup
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build/html

bench: setup
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[bench]'
	$(BIN)/python -m benchmarks.speed

bench-smoke: setup
	$(BIN)/python -m benchmarks.speed --smoke

clean:
	rm -rf $(VENV) docs/_build docs/gallery .pytest_cache .ruff_cache .hypothesis
