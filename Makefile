# One environment for everything, in .venv; PYTHON makes it.
PYTHON ?= python3
BIN = .venv/bin
# Where run-feed has the simulator publish.
FEED = tcp://127.0.0.1:7817

.PHONY: run run-feed test test-units test-integration test-browser test-contract examples screenshots bench bench-quick \
    check pin clean

run: .venv/ready  ## Serve the demo on port 8080.
	$(BIN)/twistd --nodaemon --pidfile= govi-cache

run-feed: .venv/ready  ## Serve a live feed on port 8080: that of the simulator, over ZeroMQ.
	@trap 'kill $$simulator $$cache 2>/dev/null; wait' EXIT; trap 'exit 130' INT; trap 'exit 143' HUP TERM; \
	$(BIN)/twistd --nodaemon --pidfile= govi-simulator --feed $(FEED) & simulator=$$!; \
	$(BIN)/twistd --nodaemon --pidfile= govi-cache --feed $(FEED) & cache=$$!; wait $$cache

# The programs that tests start keep their bytecode: or each would compile the whole package.
test: export PYTHONDONTWRITEBYTECODE =
test: .venv/ready  ## Run the whole suite: what reckons beside what mostly waits.
	$(MAKE) --jobs=2 --output-sync=target --no-print-directory test-units test-integration

test-units: .venv/ready
	$(BIN)/pytest --ignore=tests/integration

test-integration: .venv/ready
	$(BIN)/pytest tests/integration

test-browser: .venv/browser  ## Look at the pages in Chromium, which must be there: apt install chromium.
	$(BIN)/pytest tests/browser

test-contract: .venv/contract  ## Have schemathesis look for what /openapi.json promises and the program does not do.
	$(BIN)/pytest tests/contract

examples: .venv/ready  ## Write anew what /docs shows as answered to the examples that modules declare.
	$(BIN)/python -m tests.examples

screenshots: .venv/browser  ## Make the pictures in docs/images anew.
	$(BIN)/python -m tests.browser.screenshots docs/images

bench: .venv/ready  ## Measure what an answer costs, beside other servers that are installed; takes ten minutes.
	$(BIN)/python bench/hits.py --write bench/results.md

bench-quick: .venv/ready  ## Less of it, in a minute.
	$(BIN)/python bench/hits.py --quick

check: .venv/ready  ## Look at style and types, and run the unit tests under the other runner.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m twisted.trial --temp-directory=.venv/trial tests

.venv/ready: requirements.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "govi-cache needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --requirement requirements.txt --editable .
	touch $@

# Playwright is large, and needed for nothing else.
.venv/browser: tests/browser/requirements.txt .venv/ready
	$(BIN)/pip install --quiet --disable-pip-version-check --requirement $<
	touch $@

# So is schemathesis.
.venv/contract: tests/contract/requirements.txt .venv/ready
	$(BIN)/pip install --quiet --disable-pip-version-check --requirement $<
	touch $@

PIN = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-emit-index-url --no-emit-find-links \
    --no-annotate --no-header pyproject.toml

pin: .venv/ready  ## Pin the developer's environment anew, after a change of the dependencies.
	$(PIN) --group dev --output-file requirements.txt
	$(PIN) --group browser --constraint requirements.txt --output-file tests/browser/requirements.txt
	$(PIN) --group contract --constraint requirements.txt --output-file tests/contract/requirements.txt

clean:
	rm -rf .venv dist _trial_temp*
