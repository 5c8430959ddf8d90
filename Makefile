# The two commands of this project are `make serve` and `make test`; both set up what they need.
SHELL  := /bin/bash
VENV   := .venv
VLLM   := .venv-vllm
DIST   := dist
WHEEL  := .wheel
PACKAGED = $(shell find gateway chains skills backend chatbot -type f -not -path "*/__pycache__/*")
BIN    := $(VENV)/bin
UV_VERSION := 0.13.8
export UV_NATIVE_TLS := 1

.PHONY: serve test test-wheel lint types lock chromium iproute2 vllm wheel bench-gateway clean

serve: $(VENV)/.installed
	@exec $(BIN)/llmgw up $(ARGS)

# pytest comes last: its summary line closes the run.
test: $(VENV)/.installed vllm chromium iproute2 lint types $(if $(ARGS),,test-wheel)
	$(BIN)/pytest $(ARGS)

# The doors of the wheel, under faults and hostile clients; all else behaves as the source, which `test` tests.
test-wheel: wheel
	$(FROM_WHEEL) $(BIN)/python -c 'import gateway.server.connection as c; assert c.__file__.endswith(".so"), c.__file__'
	$(FROM_WHEEL) $(BIN)/pytest --import-mode=append tests/faults tests/gateway/server tests/gateway/upstream \
	  tests/gateway/cache tests/gateway/flight tests/gateway/limits

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed
	$(BIN)/mypy

$(VENV)/.installed: requirements.lock pyproject.toml deploy/install.sh
	UV_VERSION=$(UV_VERSION) bash deploy/install.sh $(VENV)
	@touch $@

# The engine for machines without a GPU; on a GPU, point LLMGW_VLLM_PYTHON at an environment with vLLM's own build.
vllm: $(VLLM)/.installed

$(VLLM)/.installed: $(VENV)/.installed requirements-vllm.lock deploy/vllm.sh
	bash deploy/vllm.sh $(VLLM)
	@touch $@

# The tests of the chat page drive a real browser: Debian's.
chromium:
	@command -v chromium >/dev/null || bash deploy/apt.sh chromium

# The tests of a cluster make their machines of network namespaces. Only root can; for anybody else they are skipped.
iproute2:
	@[ "$$(id -u)" != 0 ] || command -v ip >/dev/null || bash deploy/apt.sh iproute2

# What every request runs through is compiled in the wheel: a request takes a third less CPU than from a clone.
# In $(WHEEL) are the wheel's files for the tests and the benchmarks; the dependencies are the clone's.
wheel: $(WHEEL)/.installed

$(WHEEL)/.installed: $(VENV)/.installed $(PACKAGED) pyproject.toml deploy/wheel.sh
	rm -rf $(DIST) $(WHEEL)
	bash deploy/wheel.sh $(VENV) $(DIST)
	$(BIN)/uv pip install -q --no-deps --target $(WHEEL) $(DIST)/*.whl
	@touch $@

# Instead of the clone's, which Python would find in the working directory.
FROM_WHEEL := PYTHONPATH=$(CURDIR)/$(WHEEL) PYTHONSAFEPATH=1

# Ours beside other gateways, on two cores, in 40 minutes; benchmarks/gateway/README.md says how.
bench-gateway: wheel
	bash benchmarks/gateway/install.sh && $(BIN)/python -m benchmarks.gateway $(ARGS)

# Versions and hashes only: the index is the reader's own.
lock: $(VENV)/.installed
	$(BIN)/uv pip compile pyproject.toml --all-extras --python-version 3.11 --generate-hashes \
	  --no-header --no-annotate --no-emit-index-url -q -o requirements.lock $(ARGS)

clean:
	rm -rf $(VENV) $(VLLM) $(DIST) $(WHEEL) .llmgw .mypy_cache .ruff_cache .pytest_cache
