# Every target sets up what it needs in .venv and activates nothing; the stamp makes the second time quick.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
FUZZ := .venv-fuzz
CLIENTS := .venv-clients

.PHONY: demo test lint fuzz clients compat clean

demo: $(INSTALLED)
	$(BIN)/vllm-gptoss demo

test: $(INSTALLED)
	$(BIN)/python -m pytest

lint: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check

# Requests made up from the server's OpenAPI document; `make fuzz EXAMPLES=1000 SEED=1` for more, or the same again.
EXAMPLES ?= 100
fuzz: $(INSTALLED) $(FUZZ)/.installed
	$(BIN)/python tests/fuzz/run.py $(abspath $(FUZZ))/bin/schemathesis $(EXAMPLES) $(SEED)

$(FUZZ)/.installed:
	test -x $(FUZZ)/bin/python || $(PYTHON) -m venv $(FUZZ)
	$(FUZZ)/bin/python -m pip install --quiet --disable-pip-version-check 'schemathesis==4.32.5'
	touch $@

# Each client does a task with tools against the served tiny checkpoint. `make test` has the one that vLLM brings. The
# others stand apart: the Agents SDK wants an older websockets than vLLM, LiteLLM an older openai and huggingface-hub
# (and the package mcp as soon as there are tools), and Codex comes from npm.
clients: $(INSTALLED) $(CLIENTS)/.installed
	AGENTS=$(abspath $(CLIENTS))/agents/bin/python LITELLM=$(abspath $(CLIENTS))/litellm/bin/python \
	CODEX=$(abspath $(CLIENTS))/node_modules/.bin/codex $(BIN)/python -m pytest tests/clients

$(CLIENTS)/.installed: Makefile
	$(PYTHON) -m venv $(CLIENTS)/agents
	$(CLIENTS)/agents/bin/python -m pip install --quiet --disable-pip-version-check 'openai-agents==0.24.0'
	$(PYTHON) -m venv $(CLIENTS)/litellm
	$(CLIENTS)/litellm/bin/python -m pip install --quiet --disable-pip-version-check 'litellm[mcp]==1.106.2'
	npm install --silent --no-audit --no-fund --prefix $(CLIENTS) '@openai/codex@0.169.0'
	touch $@

# The public compatibility test, from a clone of the repository openai/gpt-oss.
COMPAT ?= ../gpt-oss/compatibility-test
compat: $(INSTALLED)
	test -d $(COMPAT)/node_modules/tsx || (cd $(COMPAT) && npm install --silent && npm install --silent --no-save tsx)
	$(BIN)/python tests/compatibility/run.py $(COMPAT)

# Back to the state of a fresh clone, .venv included.
clean:
	rm -rf .venv .venv-fuzz .venv-clients build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv
	$(BIN)/uv pip install --python $(BIN)/python --constraint constraints.txt --editable '.[dev]'
	touch $@
