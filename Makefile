# Two targets are for everyone: `make demo` and `make test`. Each makes its own environment.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO ?= demo
WORK ?= evaluation
PYTEST_WORKERS ?= 2

.PHONY: demo test lint types contracts check bench evaluate models docs docs-links dist release-check sbom audit audit-containers clean

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
	touch $@ $(VENV)/.app $(VENV)/.docs

$(VENV)/.docs: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	touch $@ $(VENV)/.app

# The tools of a release see nothing of the app: they stand in an environment of their own
RELEASE_TOOLS := build cyclonedx-bom pip-audit twine
$(VENV)-release/.made: Makefile
	$(PYTHON) -m venv $(VENV)-release
	$(VENV)-release/bin/python -m pip install --quiet --upgrade pip
	$(VENV)-release/bin/python -m pip install --quiet $(RELEASE_TOOLS)
	touch $@

demo: $(VENV)/.app  ## run the app on a small simulated dataset and show the counts
	$(BIN)/shivacmb bids_examples/demo $(DEMO) participant
	$(BIN)/shivacmb bids_examples/demo $(DEMO) group
	@echo; cat $(DEMO)/group_desc-CMB_counts.tsv | cut -f1,3,5,9-11
	@echo; echo "Simulated were 6 in sub-01, 3 in sub-02 and none in sub-03: the shipped model, trained on simulated"
	@echo "scans for trying the app, misses about one of seven such lesions and adds about one in two scans."
	@echo "Report: $(abspath $(DEMO))/docs/index.html"

test: $(VENV)/.dev  ## all tests, in their own environment
	$(BIN)/python -m pytest -n $(PYTEST_WORKERS) --dist loadfile --no-loadscope-reorder

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

# Longer, or another seed: make models DETECTOR="--sharp-steps 9000 --fold-steps 2600 ..."
models: $(VENV)/.dev  ## rebuild the shipped bundles from nothing (hours)
	$(BIN)/python -m shivacmb.train.brain_zones -o shivacmb/models/bundles/brain-zones --work build/models/brain-zones
	$(BIN)/python -m shivacmb.train.synth_cmb -o shivacmb/models/bundles/synth-cmb --work build/models/synth-cmb \
	  $(DETECTOR)

docs: $(VENV)/.docs  ## the documentation, to docs/_build/html; a warning is an error
	$(BIN)/python -m sphinx -q -W --keep-going -j auto -b html -d docs/_build/doctrees docs docs/_build/html
	@echo "Documentation: $(abspath docs/_build/html)/index.html"

docs-links: docs  ## follow the links that lead outside; needs the network
	$(BIN)/python -m sphinx -q -W --keep-going -b linkcheck -d docs/_build/doctrees docs docs/_build/links

dist: $(VENV)-release/.made  ## wheel and sdist; the version is the tag
	rm -rf dist
	$(VENV)-release/bin/python -m build --outdir dist .

release-check: $(VENV)-release/.made  ## build both, look into them, install each in an empty environment, run the app
	rm -rf dist
	$(VENV)-release/bin/python .ci/release_check.py --dist dist
	$(VENV)-release/bin/twine check --strict dist/*.whl dist/*.tar.gz

build/installed/.made: $(wildcard dist/*.whl)
	$(PYTHON) -m venv --clear build/installed
	build/installed/bin/python -m pip install --quiet --upgrade pip
	build/installed/bin/python -m pip install --quiet dist/*.whl
	touch $@

sbom: $(VENV)-release/.made build/installed/.made  ## software bill of materials of the wheel in dist/ and all it installs
	sed "s/^dynamic = .*/version = \"$$(build/installed/bin/shivacmb --version | cut -d' ' -f2)\"/" pyproject.toml \
	  > build/pyproject.toml
	$(VENV)-release/bin/cyclonedx-py environment --pyproject build/pyproject.toml --mc-type application \
	  --output-reproducible --validate --output-format JSON --output-file build/sbom.cdx.json build/installed/bin/python

# Advisories that do not concern us, each with its reason: AUDIT_IGNORE := ID ...
AUDIT_IGNORE :=
AUDIT := $(VENV)-release/bin/pip-audit --strict --progress-spinner off --disable-pip \
  $(foreach id,$(AUDIT_IGNORE),--ignore-vuln $(id))

# The app itself is left out: the index knows it only after the release, and --strict fails on what it does not know
audit: $(VENV)-release/.made build/installed/.made  ## the same packages against known vulnerabilities; needs the network
	build/installed/bin/python -m pip freeze --exclude shivacmb > build/installed.txt
	$(AUDIT) --no-deps -r build/installed.txt

audit-containers: $(VENV)-release/.made  ## the locks of the containers
	$(foreach lock,$(wildcard containers/locks/[cg]pu.txt),$(AUDIT) --require-hashes -r $(lock) &&) true

clean:
	rm -rf $(VENV) $(VENV)-release $(DEMO) build dist docs/_build docs/generated .mypy_cache .ruff_cache .pytest_cache
