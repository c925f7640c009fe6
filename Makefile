# make demo   install what is needed into .venv, make a sample file, and diarize it
# make test   install what the tests need too, and run every check but the slow ones
# make test-slow   the slow ones
#
# another interpreter: make test PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# usage metrics off, and no more threads than a small machine has
export PYANNOTE_METRICS_ENABLED ?= 0
export OMP_NUM_THREADS ?= 2

.PHONY: demo test test-slow
.DELETE_ON_ERROR:

demo: $(VENV)/.installed-sample
	$(BIN)/pyannote-av demo sample

test: $(VENV)/.installed-test
	$(BIN)/ruff check .
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist loadfile

test-slow: $(VENV)/.installed-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist loadfile -m slow

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# stamps: a new look at pyproject.toml, and at nothing else, installs again
$(VENV)/.installed-sample: pyproject.toml | $(BIN)/python
	$(BIN)/pip install -e '.[sample]'
	touch $@

$(VENV)/.installed-test: pyproject.toml | $(BIN)/python
	$(BIN)/pip install -e '.[dev]'
	touch $@ $(VENV)/.installed-sample
