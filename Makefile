# Needs only make and Python 3.11 to 3.14; each target sets up what it needs.
PYTHON ?= python3
BIN := .venv/bin
# For scripts and pytest: make train ARGS="--epoch 5 --seed 1"
ARGS ?=
# A process of pytest for each core, and the tests of a file in one of them:
# they share what is slow to make. ARGS="-n 0" runs them in this process.
PYTEST := -m pytest -n auto --maxprocesses 8 --dist loadfile

# Chainer's setup.py needs an old setuptools. Old pips read the first variable
# when they build a dependency, new ones the second.
.venv/installed: export PIP_CONSTRAINT := build-constraints.txt
.venv/installed: export PIP_BUILD_CONSTRAINT := build-constraints.txt

# The processes share the cores, so that each computes in one thread.
test test-all: export OPENBLAS_NUM_THREADS ?= 1

.PHONY: help venv train test test-all check matrix mpi bench docs clean

help:
	@echo 'make venv     a .venv with all that training and tests need'
	@echo 'make train    train the MNIST network   (ARGS="--epoch 5 --seed 1")'
	@echo 'make test     run the tests             (ARGS="-k fold")'
	@echo 'make test-all the slow ones as well: whole examples, builds'
	@echo 'make check    lint, type-check, and hold the direction of imports'
	@echo 'make matrix   the tests on every Python found, oldest and newest NumPy'
	@echo 'make mpi      the tests of several processes, on each MPI'
	@echo 'make bench    run every benchmark, in under ten minutes on two cores'
	@echo 'make docs     the pages of docs/, into build/docs'
	@echo 'make clean    remove what the targets above made, but not result/'

venv: .venv/installed

.venv/installed: setup.py pyproject.toml build-constraints.txt tests/nvrtc.py
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --editable '.[train,test]'
	$(BIN)/python tests/nvrtc.py
	touch $@

train: venv
	$(BIN)/python train_mnist.py $(ARGS)

test: venv
	$(BIN)/python $(PYTEST) -m 'not (slow or more or chainerx)' $(ARGS)

test-all: venv
	$(BIN)/python $(PYTEST) $(ARGS)

check: venv
	$(BIN)/python -m ruff check .
	$(BIN)/python -m mypy
	$(BIN)/lint-imports --no-logo --no-cache

matrix: venv
	$(BIN)/python -m nox $(ARGS)

mpi: venv
	$(BIN)/python -m nox -s mpi $(ARGS)

bench: venv
	$(BIN)/python -m benchmarks $(ARGS)

docs: venv
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going -E \
	    -d build/doctrees docs build/docs
	@echo 'open build/docs/index.html'

clean:
	rm -rf .venv .nox .pytest_cache .mypy_cache .ruff_cache .hypothesis \
	    .coverage *.egg-info build dist
