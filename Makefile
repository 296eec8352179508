# Run `make help`. PYTHON and VENV can be set, for example: make test PYTHON=python3.12
PYTHON ?= python3
VENV ?= .venv
RUNS ?= runs
TEST_PROCESSES ?= 2

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
VIT_JAX := $(BIN)/python -m vit_jax

.PHONY: help quickstart test fuzz lint format wheel clean

help:
	@echo "make quickstart  pretrain, evaluate and fine-tune a small ViT (data included)"
	@echo "make test        run all tests"
	@echo "make fuzz        read 10,000 damaged files of every kind (1,000 in make test)"
	@echo "make lint        check format, style and types"
	@echo "make format      format the source"
	@echo "make wheel       build the package into dist/"
	@echo "make clean       remove $(VENV), builds and caches, but not $(RUNS)"

quickstart: $(VENV)/.installed
	$(VIT_JAX) train --config configs/quickstart.py --workdir $(RUNS)/quickstart
	$(VIT_JAX) evaluate --workdir $(RUNS)/quickstart
	$(VIT_JAX) train --config configs/finetune.py --workdir $(RUNS)/finetune \
	  --config.init_from=$(RUNS)/quickstart
	$(VIT_JAX) evaluate --workdir $(RUNS)/finetune
	$(VIT_JAX) figures --workdir $(RUNS)/quickstart
	$(VIT_JAX) figures --workdir $(RUNS)/finetune
	@echo
	@echo "Each of $(RUNS)/quickstart and $(RUNS)/finetune holds"
	@echo "  report.html  checkpoints/  metrics.jsonl  tensorboard/  pictures/  config.json  model.json"

test: $(VENV)/.installed-dev
	JAX_PLATFORMS=$${JAX_PLATFORMS:-cpu} $(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile \
	  --no-loadscope-reorder

fuzz: $(VENV)/.installed-dev
	VIT_JAX_FUZZ=$${VIT_JAX_FUZZ:-10000} JAX_PLATFORMS=cpu $(BIN)/python -m pytest tests/fuzz

lint: $(VENV)/.installed-dev
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy

format: $(VENV)/.installed-dev
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

wheel: $(VENV)/.installed-dev
	$(BIN)/python -m build --wheel

clean:
	rm -rf $(VENV) build dist *.egg-info .cache .mypy_cache .pytest_cache .ruff_cache

# If pyproject.toml is newer than a stamp, the dependencies may have changed: install again.
$(VENV)/.installed: pyproject.toml setup.py | $(VENV)
	$(PIP) install --editable '.[report]'
	@touch $@

$(VENV)/.installed-dev: pyproject.toml setup.py | $(VENV)
	$(PIP) install --editable '.[dev]'
	@touch $@ $(VENV)/.installed

$(VENV):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is not Python 3.11 or later: set PYTHON, for example PYTHON=python3.12"; exit 2; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }
