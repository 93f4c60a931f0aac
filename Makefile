# Two targets are for everyone: `make demo` and `make test`. Each makes its own environment.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO ?= demo
WORK ?= evaluation
PYTEST_WORKERS ?= 2

.PHONY: demo test lint types contracts check bench evaluate models clean

# Environments are stamped by extra, so that `make demo` stays small
$(VENV)/.app: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.dev: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@ $(VENV)/.app

demo: $(VENV)/.app  ## run the app on a small simulated dataset and show the counts
	$(BIN)/shivacmb bids_examples/demo $(DEMO) participant
	$(BIN)/shivacmb bids_examples/demo $(DEMO) group
	@echo; cat $(DEMO)/group_desc-CMB_counts.tsv | cut -f1,3,5,9-11
	@echo; echo "Simulated were 6 in sub-01, 3 in sub-02 and none in sub-03."
	@echo "Report: $(abspath $(DEMO))/docs/index.html"

test: $(VENV)/.dev  ## all tests, in their own environment
	$(BIN)/python -m pytest -n $(PYTEST_WORKERS) --dist loadfile

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

contracts: $(VENV)/.dev
	$(BIN)/lint-imports

check: lint types contracts test

bench: $(VENV)/.dev  ## measure speed and memory; tables go to bench/
	$(BIN)/python bench/run.py

# Another dataset: make evaluate BIDS=DIR NAME=name [TRUTH=DIR] [EVALUATE="--option ..."]
ifdef BIDS
NAME ?= $(notdir $(abspath $(BIDS)))
else
NAME ?= simulated
endif
TRUTH ?= $(or $(BIDS),$(WORK)/simulated)/derivatives/truth

evaluate: $(VENV)/.app  ## score the default model; tables and pictures go to docs/evaluation/
ifndef BIDS
	$(BIN)/shivacmb-tools simulate $(WORK)/simulated --subjects 12 --seed 20261121 --contrasts T2starw --quiet
endif
	$(BIN)/shivacmb $(or $(BIDS),$(WORK)/simulated) $(WORK)/$(NAME)-out participant
	$(BIN)/shivacmb-tools evaluate $(WORK)/$(NAME)-out $(TRUTH) -o docs/evaluation/$(NAME) \
	  --sweep --pdf none --title 'Default model, $(NAME) scans' $(EVALUATE)

models: $(VENV)/.dev  ## rebuild the shipped bundles from nothing (hours)
	$(BIN)/python -m shivacmb.train.brain_zones -o shivacmb/models/bundles/brain-zones
	$(BIN)/python -m shivacmb.train.synth_cmb -o shivacmb/models/bundles/synth-cmb

clean:
	rm -rf $(VENV) $(DEMO) build dist .mypy_cache .ruff_cache .pytest_cache
