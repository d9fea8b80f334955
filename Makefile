# Two commands do all the set-up on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

# Which tests `make test` runs. CI adds the slow ones on the emulated Arm device: 'not bench and (arm or not slow)'.
SELECT ?= not slow and not bench
# How many tests run at once: the more cores the more, up to four. A module's tests stay together and share its fixtures.
JOBS   ?= auto
PYTEST := $(BIN)/python -m pytest -n $(JOBS) --maxprocesses 4 --dist loadscope --no-loadscope-reorder

.PHONY: help demo test test-all test-arm bench lint format docs wheel system-deps clean

help:            ## this list
	@awk -F'##' '/^[a-z-]+:.*##/ { split($$1, t, ":"); printf "  make %-12s %s\n", t[1], $$2 }' $(MAKEFILE_LIST)

$(BIN)/edgelathe: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "edgelathe needs Python 3.11 or newer; name one: make demo PYTHON=python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/.dev: $(BIN)/edgelathe
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

demo: $(BIN)/edgelathe ## the whole loop on a bundled model, on this machine
	$(BIN)/edgelathe demo -o demo

test: lint       ## lint, type-check and test (no slow tests)
	$(PYTEST) -m '$(SELECT)' --durations 40

test-all: lint   ## the same with the slow tests
	$(PYTEST) -m 'not bench'

test-arm: $(VENV)/.dev ## those on an emulated Arm device, all
	$(BIN)/python -m pytest -m arm tests

bench: $(VENV)/.dev ## the benchmarks, side by side
	$(BIN)/python -m pytest -m bench -s -o faulthandler_timeout=0 tests/bench

lint: $(VENV)/.dev ## ruff, mypy, import-linter
	$(BIN)/ruff check host agent tests
	$(BIN)/ruff format --check host agent tests
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev ## put the sources into shape
	$(BIN)/ruff format host agent tests
	$(BIN)/ruff check --fix host agent tests

docs: $(VENV)/.dev ## the reference of steps, from the sources
	$(BIN)/python -m edgelathe.recipes.reference docs/recipes.md

wheel: $(VENV)/.dev ## dist/*.whl: host, agent payload and profiles
	$(BIN)/python -m build --wheel

system-deps:     ## Debian packages that the tests need (run as root)
	apt-get update -q
	apt-get install -q -y --no-install-recommends openssh-server openssh-client procps qemu-user-static

clean:           ## what was built
	rm -rf $(VENV) dist build demo
