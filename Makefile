# make demo   a trained diffusion policy drives PushT over ROS 2; video, plot and table in outputs/demo
# make test   all tests, ROS ones included
# make nightly   10,000 calls of commands and functions with arguments of all kinds (hours)
# make lint   ruff, mypy, import rules
# make docs   every class and function from the docstrings, to outputs/docs/index.html
# make results   regenerate docs/results.md (about an hour on two cores)
# Each sets up .venv/ first. PYTHON=python3.12 chooses the interpreter.

PYTHON ?= python3
BIN := .venv/bin
# Two busy processes with two threads each are slower than two with one. Each worker begins with
# tests that follow one another, so that what a file sets up is set up once, and helps in the end.
WORKERS ?= 2
# Further options of pytest for make test.
PYTEST ?=

.PHONY: demo test nightly lint docs results setup
.DEFAULT_GOAL := demo

setup:
	@PYTHON=$(PYTHON) scripts/setup_env.sh

demo: setup
	@$(BIN)/python -m sim.demo

test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(PYTEST)

nightly: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m nightly tests/fuzz $(PYTEST)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: setup
	@$(BIN)/python -m pip install --quiet --no-build-isolation -c constraints.txt -e '.[docs]'
	@$(BIN)/python -m scripts.reference outputs/docs

results: setup
	scripts/results.sh
