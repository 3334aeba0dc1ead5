# Each target does its own set-up, into .venv; PYTHON=python3.12 make demo takes another interpreter.
PYTHON ?= python3
BIN = .venv/bin
STAMP = .venv/.installed
DOCS = .venv/.docs
# with the byte code of tests written, or each process would make it anew
PYTEST = PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -q

.DEFAULT_GOAL := help
.PHONY: help setup demo docs test test-quick test-gpu lint format clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

setup: $(STAMP) ## make .venv and install straylight with what its development needs

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Straylight needs Python 3.11 or later; say which with PYTHON=python3.11 make ..." >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -c constraints.txt -e '.[dev]'
	@$(BIN)/python -m compileall -q src  # where Python may not write, every process would compile it anew
	@touch $(STAMP)

DEMO = -m detector=autoencoder,bayesian_gmm,hbos,knn,pca data=digits_contaminated,moons seed=0,1,2 \
  trainer.max_epochs=20 callbacks.latency.batches=[1,1024] hydra.launcher.jobs_per_process=40 report.html=true

demo: $(STAMP) ## compare 5 detectors on 2 data sets over 3 seeds, in about a minute
	$(BIN)/straylight train $(DEMO)
	@echo "Open $$(ls -td outputs/sweeps/*/ | head -n 1)report.html in a browser: xdg-open or open does, or drop it there."

docs: $(DOCS) ## build the pages of docs/ into build/site, warnings as errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict -f .mkdocs/mkdocs.yml
	@echo "Open build/site/index.html, or see it by: $(BIN)/python -m http.server -d build/site"

$(DOCS): $(STAMP)
	$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[docs]'
	@touch $(DOCS)

test: $(STAMP) ## run all tests, and say which took longest
	@status=0; $(PYTEST) -n 2 --dist worksteal --durations=30 -m "not cluster" || status=1; \
	  $(PYTEST) --durations=10 -m cluster tests/test_ray.py || status=1; exit $$status

test-quick: $(STAMP) ## run one case of each test that is not slow, as tests/slow.txt has it
	$(PYTEST) -n 2 --dist worksteal --quick

test-gpu: $(STAMP) ## run what must hold on a GPU; STRAYLIGHT_GPU_AS=cpu tries it without one
	$(PYTEST) -m gpu tests/test_gpu.py

lint: $(STAMP) ## check style and types
	$(BIN)/ruff check src tests
	$(BIN)/ruff format --check src tests
	$(BIN)/mypy

format: $(STAMP) ## put the code into its style
	$(BIN)/ruff check --fix src tests
	$(BIN)/ruff format src tests

clean: ## remove .venv and caches
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis
