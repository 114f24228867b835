PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
EXTRAS := all,dev
STAMP := $(VENV)/.installed
# One process per core, whole files to each, so that what a file compiles is compiled once.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

.PHONY: tour test slow fuzz evidence check docs bench clean
tour: $(STAMP)  ## every study, small, on real data, ending in one HTML report
	$(BIN)/metier tour

test: $(STAMP)  ## the default test suite
	$(PYTEST)

slow: $(STAMP)  ## the statistical tests
	$(PYTEST) -m slow

fuzz: $(STAMP)  ## the property tests of the default suite, with 1,000 examples each
	$(PYTEST) -m "hypothesis and not slow and not evidence" --hypothesis-profile=fuzz --timeout=0

evidence: $(STAMP)  ## whole sweeps and full sizes whose sources changed, recorded in benchmarks/evidence
	$(PYTEST) -m evidence --evidence --timeout=0

check: $(STAMP)  ## formatting, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: $(STAMP)  ## the documentation site, into site/
	$(BIN)/mkdocs build --strict

bench: $(STAMP)  ## ours beside the rivals, in one run
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[bench]"
	$(BIN)/python benchmarks/bench.py

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[$(EXTRAS)]"
	touch $(STAMP)

clean:
	rm -rf $(VENV) site build dist
