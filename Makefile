# One virtual environment for all targets, in .venv, created with PYTHON.
PYTHON ?= python3
BIN = .venv/bin
# The first of four ports of run and run-feed: 8080, or 8090 and so on if they are in use.
PORT = $(shell $(PYTHON) -c 'import socket; \
    print(next(port for port in range(8080, 9000, 10) \
        if all(socket.socket().connect_ex(("127.0.0.1", port + i)) for i in range(4))))')
# The simulator's ZeroMQ address in run-feed.
FEED = ipc://$(CURDIR)/.venv/feed
CACHE = $(BIN)/twistd --nodaemon --pidfile= govi-cache --listen tcp:$$port \
    --admin tcp:$$((port + 1)):interface=127.0.0.1
# make 3.81, as of macOS, cannot collect the output of parallel targets.
SYNC = $(if $(filter output-sync,$(.FEATURES)),--output-sync=target)

# Programs started by tests write bytecode; otherwise each would compile the whole package.
export PYTHONDONTWRITEBYTECODE =

.PHONY: help run run-feed test test-units test-integration test-trial test-browser test-contract test-deployment \
    test-documentation test-release test-container docs simulate simulate-check configuration examples screenshots \
    bench bench-hits bench-live bench-scale bench-share bench-quick lint check pin release clean

help:  ## Print the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-20s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

run: .venv/ready  ## Serve the demo on port 8080, or the next free one.
	@port=$(PORT); exec $(CACHE) --callback tcp:$$((port + 2)):interface=127.0.0.1 --source demo

run-feed: .venv/ready  ## Serve the simulator's live feed on port 8080, over ZeroMQ, or the next free one.
	@trap 'kill $$simulator $$cache 2>/dev/null; wait' EXIT; trap 'exit 130' INT; trap 'exit 143' HUP TERM; \
	port=$(PORT); \
	$(BIN)/twistd --nodaemon --pidfile= govi-simulator --listen tcp:$$((port + 3)):interface=127.0.0.1 \
	    --feed $(FEED) & simulator=$$!; \
	$(CACHE) --feed $(FEED) --gtfs http://127.0.0.1:$$((port + 3))/govi/ & cache=$$!; wait $$cache

test: .venv/ready  ## Run the unit tests on two cores and, in parallel, the integration tests, which mostly wait.
	$(MAKE) --jobs=2 $(SYNC) --no-print-directory test-units test-integration

test-units: .venv/ready
	$(BIN)/pytest --ignore=tests/integration --numprocesses=2 --dist=worksteal

test-integration: .venv/ready
	@command -v redis-server valkey-server >/dev/null || \
	    echo "redis-server is not installed (apt install redis-server): the tests of shared boards are skipped"
	$(BIN)/pytest tests/integration --numprocesses=3 --dist=worksteal

test-trial: .venv/ready
	$(BIN)/python -m twisted.trial --temp-directory=.venv/trial tests

simulate: .venv/ready  ## Run the program in simulated worlds: ten minutes of seeds, or SEED=7, for HOURS=1 each.
	@$(BIN)/python -m tests.simulation --hours $(or $(HOURS),1) $(if $(SEED),--seed $(SEED)) $(if $(FAULTS),--faults $(FAULTS)) \
	    $(if $(SECONDS),--seconds $(SECONDS))

simulate-check: .venv/ready  ## Plant the faults of tests/simulation/planted, each in a copy, and see them found.
	$(BIN)/python -m tests.simulation.planted

test-browser: .venv/browser  ## Test the pages in Chromium (apt install chromium).
	$(BIN)/pytest tests/browser --numprocesses=2 --dist=loadfile

test-contract: .venv/contract  ## Check the program against its /openapi.json with schemathesis.
	$(BIN)/pytest tests/contract

test-documentation: .venv/ready  ## Run every command of the documents in a fresh clone (as root: all of them).
	$(BIN)/pytest tests/documentation

test-deployment: .venv/ready  ## Try the files in etc/ with the proxies that are installed (apt install haproxy nginx caddy apache2 systemd-container).
	$(BIN)/pytest tests/deployment

configuration: .venv/ready  ## Write etc/govi-cache.toml and docs/configuration.md from govi_server/settings.py.
	$(BIN)/python -m tests.configuration

test-container: .venv/ready  ## Build the image, and run it with its restrictions (as root; apt install debootstrap podman).
	$(BIN)/pytest tests/container

docs: .venv/docs  ## Make the documentation site in dist/site; a dead link or a page out of the navigation fails.
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going --conf-dir docs --builder html . dist/site

examples: .venv/ready  ## Write the example responses of /docs, govi_server/openapi/examples.json.
	$(BIN)/python -m tests.examples

screenshots: .venv/browser  ## Take the screenshots in docs/images.
	$(BIN)/python -m tests.browser.screenshots docs/images
	$(BIN)/python -m tests.browser.contact_sheet docs/images/contact-sheet.png

bench: .venv/ready bench-hits bench-live  ## Measure the cost of a response, also of other installed servers.

bench-hits: .venv/ready  ## The part of the benchmark with repeated requests; takes ten minutes.
	$(BIN)/python bench/hits.py --write bench/results.md

bench-live: .venv/ready  ## The part of the benchmark with random stops under a live feed; takes an hour.
	$(BIN)/python bench/live.py --write bench/results.md

bench-share: .venv/ready  ## The cost of sharing boards through redis-server, and the time of a takeover; two minutes.
	$(BIN)/python bench/share.py

bench-scale: .venv/ready  ## Measure worker processes; takes five minutes.
	$(BIN)/python bench/scale.py --write bench/results.md

bench-quick: .venv/ready  ## A shorter benchmark, in three minutes.
	$(BIN)/python bench/hits.py --quick
	$(BIN)/python bench/live.py --quick

check: lint test-trial  ## Check style and types, and run the unit tests with trial.

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy bench

.venv/ready: requirements.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "govi-cache needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --requirement requirements.txt --editable .
	touch $@

# Playwright is large, and only the browser tests need it.
.venv/browser: tests/browser/requirements.txt .venv/ready
	$(BIN)/pip install --quiet --disable-pip-version-check --requirement $<
	touch $@

.venv/release: .ci/requirements.txt .venv/ready
	$(BIN)/pip install --quiet --disable-pip-version-check --requirement $<
	touch $@

# Sphinx, its theme, and its parser of Markdown.
.venv/docs: docs/requirements.txt .venv/ready
	$(BIN)/pip install --quiet --disable-pip-version-check --requirement $<
	touch $@

# Schemathesis is large, too, and only the contract tests need it.
.venv/contract: tests/contract/requirements.txt .venv/ready
	$(BIN)/pip install --quiet --disable-pip-version-check --requirement $<
	touch $@

PIN = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-emit-index-url --no-emit-find-links \
    --no-annotate --no-header pyproject.toml

pin: .venv/ready  ## Pin the development environment again, after a change of the dependencies.
	$(PIN) --group dev --output-file requirements.txt
	$(PIN) --group browser --constraint requirements.txt --output-file tests/browser/requirements.txt
	$(PIN) --group contract --constraint requirements.txt --output-file tests/contract/requirements.txt
	$(PIN) --group docs --constraint requirements.txt --output-file docs/requirements.txt
	$(PIN) --group release --constraint requirements.txt --output-file .ci/requirements.txt
	$(PIN) --extra manhole --extra share --constraint requirements.txt --generate-hashes --output-file requirements-release.txt

release: .venv/release  ## Build wheel, sdist, SBOM, licences and checksums into dist/, the same bytes everywhere.
	.ci/release

test-release: .venv/release  ## Build the release twice, in two directories with two umasks, and compare.
	$(BIN)/pytest tests/release

clean:
	rm -rf .venv dist _trial_temp*
