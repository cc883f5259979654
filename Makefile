# One list of commands: the README and .ci/run call these and nothing else.
PYTHON ?= python3.11
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.stamp

.PHONY: setup demo test check format constraints clean

setup: $(STAMP)  ## make .venv with the pinned versions; does nothing when it is current

$(STAMP): constraints.txt pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) is needed; name another with PYTHON=..." >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[runtime,embedded,test]'
	@touch $@

demo: setup  ## the main job on a real Kafka with sandboxes of both APIs
	@$(BIN)/pipeline dev

test: setup  ## all tests
	@$(BIN)/python -m pytest

check: setup  ## ruff, mypy --strict over package and tests, the import rule
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/python -m pytest -q tests/unit/test_imports.py

format: setup  ## rewrite the code in the project's format
	@$(BIN)/ruff check --fix -q . ; $(BIN)/ruff format -q .

constraints:  ## pin the newest versions that pyproject.toml allows
	@$(BIN)/python -m pip install -q uv
	@$(BIN)/uv pip compile -q --upgrade --all-extras --no-annotate --no-header --python-version 3.11 pyproject.toml -o constraints.txt

clean:  ## remove what make and the program made here
	rm -rf $(VENV) .pipeline .pytest_cache .mypy_cache .ruff_cache .hypothesis
