PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
EXTRAS := all,dev
STAMP := $(VENV)/.installed

.PHONY: tour test slow check docs bench clean
tour: $(STAMP)  ## every study, small, on real data, ending in one HTML report
	$(BIN)/metier tour

test: $(STAMP)  ## the default test suite
	$(BIN)/python -m pytest

slow: $(STAMP)  ## the statistical tests
	$(BIN)/python -m pytest -m slow

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
