# make demo: the main job, from a fresh clone, offline once the packages are there. make test: every check of the project.
SHELL := /bin/bash
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
TORCH := torch==2.13.0
PEERS := .peers
export TOKENIZERS_PARALLELISM := false
export HF_HUB_DISABLE_TELEMETRY := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help demo test test-slow bench docs lab notebooks export setup clean
help:
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:[^#]*## /\t/' | expand -t 12

demo: setup  ## English to Spanish and Swahili, three methods: prints a table, writes runs/demo/
	@HF_HUB_OFFLINE=1 $(BIN)/mtmt demo
	@echo; echo "Notebooks: runs/demo/notebooks/*.ipynb   Summary: runs/demo/summary.json   Open them with: make lab"

test: setup  ## notebooks in sync, lessons run, tests pass
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 TQDM_DISABLE=1 $(BIN)/nbdev_test --n_workers 2 --timing
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 TQDM_DISABLE=1 $(BIN)/python -m pytest -q -n 2 --durations=20

# Counting lines made tests half as slow again (three files), so it is here and not above.
test-slow: setup  ## the tests marked slow as well; nine lines of ten are tested
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 TQDM_DISABLE=1 $(BIN)/python -m pytest -q -n 2 --slow --durations=20 --cov=mtmt --cov-report= --cov-fail-under=90

bench: setup $(PEERS)/.ready  ## how fast the kit is beside the shapes that others use; writes runs/bench/ (an hour and a half, with readers of others in .peers)
	@mkdir -p runs/bench
	HF_HUB_OFFLINE=1 $(BIN)/papermill --no-progress-bar nbs/benchmarks/speed.ipynb runs/bench/speed.ipynb -p peers $(PEERS)/bin/python

docs: setup  ## the site, in _docs/
	$(BIN)/python .ci/build_docs.py

lab: setup  ## JupyterLab, open at the first notebook; as root: make lab LAB=--allow-root
	$(BIN)/jupyter lab --notebook-dir=. --LabApp.default_url=/lab/tree/nbs/start_here.ipynb $(LAB)

notebooks: setup  ## run all chapters and write their outputs into the notebooks
	$(BIN)/python .ci/run_notebooks.py

export: setup  ## notebooks -> mtmt/, and clean notebooks
	$(BIN)/nbdev_export && $(BIN)/nbdev_clean

setup: $(VENV)/.ready

# torch comes first, so that no other package pulls a CUDA build. It is a local file if pip knows one; otherwise, without a GPU,
# it comes from the CPU index; otherwise from the registry, with the other packages.
define install_torch
@$(1)/pip install -q --no-index --no-deps $(TORCH) 2>/dev/null \
 || { ! command -v nvidia-smi >/dev/null && $(1)/pip install -q --timeout 20 --retries 1 --index-url https://download.pytorch.org/whl/cpu $(TORCH) 2>/dev/null; } || true
endef

$(VENV)/.ready: requirements-lock.txt pyproject.toml
	@[ -n "$(PYTHON)" ] || { echo "mtmt needs Python 3.11 or newer: no python3 on the PATH"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "mtmt needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V). Name another one: make PYTHON=/path/to/python3.11 ..."; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "$(PYTHON) has no venv module (Debian: apt install python3-venv)"; exit 1; }
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	@echo "installing packages into $(VENV) (once, some minutes)"
	$(call install_torch,$(BIN))
	@$(BIN)/pip install -q -r requirements-lock.txt 2> >(grep -v WARNING >&2) && $(BIN)/pip install -q --no-deps --no-build-isolation -e . 2> >(grep -v WARNING >&2)
	@touch $@

# readers of others for the benchmark: their pins clash with the kit's
$(PEERS)/.ready: | $(VENV)/.ready
	@$(PYTHON) -m venv $(PEERS)
	$(call install_torch,$(PEERS)/bin)
	@$(PEERS)/bin/pip install -q $(TORCH) flair==0.15.1 spacy==3.8.18 2> >(grep -v WARNING >&2)
	@touch $@

clean:  ## results and built pages
	rm -rf runs _docs _proc build .coverage*
