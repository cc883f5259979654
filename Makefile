# One list of commands: the README and .ci/run call these and nothing else.
.DEFAULT_GOAL := help
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.stamp
EXTRAS := runtime,embedded,test
TESTS  ?= tests
PARTS  ?=
# The container image: what it is made on, its name, and the name and content of the one for tests.
BASE_IMAGE ?= python:3.11-slim
IMAGE      ?= sakari-users-pipeline
TEST_IMAGE ?= sakari-users-pipeline:test
BUILD       = docker build --quiet -f deploy/Dockerfile --build-arg BASE_IMAGE=$(BASE_IMAGE)
# uv installs in seconds what takes pip a minute; where it cannot work, pip does.
PIP    := $(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt

.PHONY: help setup demo test bench test-containers image prefetch engine check format constraints clean

help:  ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP)  ## make .venv with the pinned versions; does nothing when it is current

$(STAMP): constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "make: Python 3.11 or newer is needed, with venv; name one with PYTHON=..." >&2; exit 1; }
	@echo "setting up $(VENV)" >&2
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@{ $(PIP) uv && \
		$(BIN)/uv pip install -q --python $(BIN)/python -c constraints.txt -e '.[$(EXTRAS)]'; } 2>/dev/null || \
		$(PIP) -e '.[$(EXTRAS)]'
	@touch $@

demo: setup  ## the main job on a real Kafka, with sandboxes of both APIs
	@$(BIN)/pipeline dev

test: setup  ## all tests, or those that TESTS=... names
	@$(BIN)/python -m pytest $(TESTS)

test-containers: setup engine  ## tests of the image, and those of Kafka against one in a container
	@$(BUILD) --build-arg EXTRAS=runtime,embedded -t $(TEST_IMAGE) .
	@TESTCONTAINERS_RYUK_DISABLED=$${TESTCONTAINERS_RYUK_DISABLED:-true} \
		PIPELINE_TEST_IMAGE=$(TEST_IMAGE) \
		PIPELINE_TEST_KAFKA=container \
		PIPELINE_TEST_KAFKA_IMAGE=$${PIPELINE_TEST_KAFKA_IMAGE:-$(TEST_IMAGE)} \
		$(BIN)/python -m pytest -m "containers or kafka" tests/broker tests/containers

image: engine  ## the container image IMAGE=... on BASE_IMAGE=...
	@$(BUILD) -t $(IMAGE) .

prefetch: setup engine  ## bring what the image is made of, for builds that reach no network
	@deploy/prefetch $(BASE_IMAGE)

engine:
	@docker version >/dev/null 2>&1 || { echo "make: no container engine answers; start one, or name it in DOCKER_HOST," \
		"or let .ci/engine start Debian's: .ci/engine make prefetch test-containers" >&2; exit 1; }

bench: setup  ## all benchmarks (20 min), or PARTS=peers,restore; writes the README's figures
	@$(BIN)/python -m tests.bench --parts "$(PARTS)" $(if $(QUICK),--quick)

check: setup  ## ruff, mypy --strict over package and tests, the import rule, every released contract
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/python -m pytest -q tests/unit/test_imports.py
	@$(BIN)/pipeline topics check

format: setup  ## rewrite the code in the project's format
	@$(BIN)/ruff check --fix -q . ; $(BIN)/ruff format -q .

constraints: setup  ## pin the newest versions that pyproject.toml allows
	@$(BIN)/uv pip compile -q --upgrade --all-extras --no-annotate --no-header --python-version 3.11 pyproject.toml -o constraints.txt

clean:  ## remove what make and the program made here
	rm -rf $(VENV) .pipeline .pytest_cache .mypy_cache .ruff_cache .hypothesis
