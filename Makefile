# Every target works in a fresh clone, with nothing but make and Python 3.11 or newer.
# The environment lives in .venv and is made again only when pyproject.toml changes.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PYTHONUNBUFFERED := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: setup demo test test-quick system-packages check bench bench-peers bench-article docs protos tfs-client clean

setup: $(VENV)/.dev  ## everything that development needs

demo: $(VENV)/.demo build/digits.onnx  ## train a digits classifier and serve it
	exec $(BIN)/paceline serve build/digits.onnx --examples build/digits_example.json

test: $(VENV)/.dev system-packages  ## the whole suite; as root on Debian or Ubuntu, installs R and Redis for it
	$(BIN)/pytest -m alone
	$(BIN)/pytest -n auto --dist loadfile --max-worker-restart 0 -m "not alone"

# Files whose tests are all slow, and which import frameworks: collecting them takes seconds.
SLOW_FILES := torch tensorflow savedmodel sklearn_conversion

test-quick: $(VENV)/.dev  ## what fits in a minute
	$(BIN)/pytest -n auto --dist loadfile --max-worker-restart 0 -m "not slow and not chaos and not browser and not alone" \
		$(SLOW_FILES:%='--ignore-glob=*/component/*%*') $(SLOW_FILES:%='--ignore-glob=*/system/*%*')

system-packages:  ## what the tests want beyond Python: R and Redis for user code, wrk to load a server
	@.ci/packages Rscript=r-base-core redis-server=redis-server wrk=wrk

check: $(VENV)/.dev  ## format, lint, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.bench  ## measure against other servers; needs wrk; ARGS="--quick peers" and the like
	$(BIN)/python -m benchmarks $(ARGS)

bench-peers: $(VENV)/.bench  ## beside other servers: PEERS=fastapi,mosec MODELS=mlp CONNECTIONS=1,32 ROUNDS=5 SECONDS=3 QUICK=1
	@.ci/packages wrk=wrk h2load=nghttp2-client Rscript=r-cran-plumber
	$(BIN)/python -m benchmarks.peers $(if $(PEERS),--peers $(PEERS)) $(if $(MODELS),--models $(MODELS)) \
		$(if $(CONNECTIONS),--connections $(CONNECTIONS)) $(if $(ROUNDS),--rounds $(ROUNDS)) \
		$(if $(SECONDS),--seconds $(SECONDS)) $(if $(QUICK),--quick) $(ARGS)

bench-article: $(VENV)/.bench  ## replay an article's experiment with Locust; QUICK=1: in minutes; ARGS="--models device" and the like
	$(BIN)/python -m benchmarks.article $(if $(QUICK),--quick) $(ARGS)

docs: $(VENV)/.dev  ## write the reference pages from the code
	$(BIN)/python docs/reference/generate.py

protos: $(VENV)/.dev  ## compile the descriptors of the gRPC services
	$(BIN)/python src/paceline/server/protos/compile.py

tfs-client: .venv-tfs/.done  ## TensorFlow Serving's own client, for its tests: TensorFlow, 1.6 GB

clean:  ## remove everything that make has made
	rm -rf $(VENV) .venv-tfs build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find src tests examples benchmarks docs -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

build/digits.onnx: examples/digits/train.py | $(VENV)/.demo
	$(BIN)/python examples/digits/train.py

$(VENV)/.python: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Paceline needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV) \
		|| { echo "venv failed; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@touch $@

$(VENV)/.demo: $(VENV)/.python
	$(BIN)/pip install -q -e '.[demo]'
	@touch $@

$(VENV)/.dev: $(VENV)/.python
	$(BIN)/pip install -q -e '.[test,dev]'
	@touch $@ $(VENV)/.demo

$(VENV)/.bench: $(VENV)/.python
	$(BIN)/pip install -q -e '.[demo,bench]'
	@touch $@ $(VENV)/.demo

.venv-tfs/.done: tests/clients/requirements-tfs.txt
	rm -rf .venv-tfs
	$(PYTHON) -m venv .venv-tfs
	.venv-tfs/bin/pip install -q -r $<
	.venv-tfs/bin/pip install -q --no-deps tensorflow-serving-api==2.21.0
	@touch $@
