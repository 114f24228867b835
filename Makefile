PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# The Python of the environment, or of the one to be made; each has a lock of its own.
VERSION := $(shell $$(test -x $(BIN)/python && echo $(BIN)/python || echo $(PYTHON)) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
LOCK := locks/py$(VERSION).txt
PIP := $(BIN)/python -m pip install -q -c $(LOCK)
# One process per core, whole files to each, so that what a file compiles is compiled once.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

.PHONY: tour test slow evidence fuzz check docs bench lock lowest newest matrix clean

tour: $(VENV)/.user  ## every study, small, on real data, ending in one HTML report
	$(BIN)/metier tour

test: $(VENV)/.developer  ## the default test suite
	$(PYTEST)

slow: $(VENV)/.developer  ## statistical tests, and samples of the evidence
	$(PYTEST) -m slow

evidence: $(VENV)/.developer  ## whole sweeps and full sizes whose sources changed; writes benchmarks/evidence
	$(PYTEST) -m evidence --evidence --timeout=0

fuzz: $(VENV)/.developer  ## the property tests of the default suite, with 1,000 examples each
	$(PYTEST) -m "hypothesis and not slow and not evidence" --hypothesis-profile=fuzz --timeout=0

check: $(VENV)/.developer  ## formatting, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: $(VENV)/.developer  ## the documentation site, into site/
	$(BIN)/mkdocs build --strict

bench: $(VENV)/.developer  ## ours beside the rivals, in one run
	$(PIP) --no-build-isolation -e ".[bench]"
	$(PIP) --no-deps simbench
	$(BIN)/python benchmarks/bench.py

lock: $(VENV)/.developer  ## locks/ again, with the newest releases that fit
	$(BIN)/python tools/lock.py --upgrade

lowest: $(VENV)/.developer  ## the lowest versions that pyproject.toml allows: every verb and every family once
	$(BIN)/python tools/matrix.py --resolutions lowest --extras all --pythons $(VERSION) $(MATRIX)

newest: $(VENV)/.developer  ## the newest versions that it allows: the same, then what `metier doctor` finds
	$(BIN)/python tools/matrix.py --resolutions newest --extras all --pythons $(VERSION) --doctor $(MATRIX)

matrix: $(VENV)/.developer  ## every extra alone and all, lowest and newest, each Python that is here; writes the table
	$(BIN)/python tools/matrix.py --write $(MATRIX)

ifeq ($(VERSION),)
$(error no Python answers to "$(PYTHON)"; write PYTHON=... with one that is there)
endif

# The build tools come from the lock as well, so that an install depends on no release of today.
$(VENV)/.user: pyproject.toml studies/pyproject.toml $(LOCK)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) hatchling editables
	$(PIP) --no-build-isolation -e ".[all]" -e ./studies
	touch $@

$(VENV)/.developer: $(VENV)/.user
	$(PIP) --no-build-isolation -e ".[all,dev]"
	touch $@

locks/py%.txt:
	@echo "there is no lock for Python $*; use PYTHON=python3.11, 3.12 or 3.13" >&2; exit 2

clean:
	rm -rf $(VENV) site build dist
