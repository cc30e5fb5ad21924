# The whole developer interface. Needs Python 3.11 to 3.14 with venv, git and make; everything else goes into .venv.
#   make demo       the bundled example, from nothing to a summary of before and after
#   make test       all tests that need no GPU
#   make lint       format, lint and strict types; `make format` mends what can be mended
#   make coverage   all tests, and how much of each module they reached
#   make mutants    plants SAMPLE known bugs, or all with SAMPLE=all, and checks that the tests find them
#   make chaos      faults at random to runs of real processes, about an hour; goes on where it was stopped
#   make events     a hundred joins, leaves, kills and suspensions of replicas in one run
#   make soak       a run of MINUTES (120) whose memory and streams are not to grow
#   make reference  writes the pages that are generated from the code
#   make dashboards writes Grafana's dashboards from deploy/grafana/boards
#   make ecosystem  the packages verifiers and openenv, each in a Python of its own, for their tests
#   make docs       the documentation as a site, in build/site
SHELL := /bin/bash
PYTHON ?=
PYTEST_ARGS ?=
# Four at a time: much of what tests do is waiting. TEST_PROCESSES= runs them one after the other.
TEST_PROCESSES ?= -n 4 --dist loadscope --no-loadscope-reorder
OPTIONS ?=
SAMPLE ?= 4
MINUTES ?= 120
export PYTHON
# Python keeps what it compiled, whatever the shell says: a service that compiles torch and vllm anew starts 20 s later.
unexport PYTHONDONTWRITEBYTECODE
PY := .venv/bin/python
EXAMPLE := examples/addition

.PHONY: demo test lint format coverage mutants chaos events soak reference dashboards docs ecosystem example bench-end-to-end bench-step-cost bench-two-commits bench-verifier lock-cpu lock-gpu clean

demo: .venv/.ready
	@$(PY) $(EXAMPLE)/make_example.py
	@.venv/bin/ratchet up $(EXAMPLE)/addition.toml $(OPTIONS)

test: .venv/.ready
	@$(PY) -m pytest $(TEST_PROCESSES) $(PYTEST_ARGS)

coverage: .venv/.ready
	@$(PY) -m pytest $(TEST_PROCESSES) --cov --cov-report=term $(PYTEST_ARGS)

mutants: .venv/.ready
	@$(PY) -m tests.learner.break_on_purpose --sample $(SAMPLE)

chaos: .venv/.ready
	@$(PY) -m tests.chaos $(OPTIONS)

events: .venv/.ready
	@$(PY) -m benchmarks.events $(OPTIONS)

soak: .venv/.ready
	@$(PY) -m benchmarks.soak --minutes $(MINUTES) $(OPTIONS)

reference: .venv/.ready
	@$(PY) -m scripts.reference

dashboards: .venv/.ready
	@$(PY) -m deploy.grafana

docs: .venv/docs/.ready
	@NO_MKDOCS_2_WARNING=1 .venv/docs/bin/mkdocs build --strict --quiet
	@echo "docs: open build/site/index.html"

.venv/docs/.ready: .venv/.ready requirements/docs.txt
	@$(PY) -m venv --clear .venv/docs
	@.venv/docs/bin/python -m pip --disable-pip-version-check install --quiet -r requirements/docs.txt
	@touch $@

lint: .venv/.ready
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy

format: .venv/.ready
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

# What needs other versions of our libraries has a Python of its own; the tests that use it are skipped without.
ecosystem: .venv/verifiers/.ready .venv/openenv/.ready

.venv/verifiers/.ready .venv/openenv/.ready: .venv/%/.ready: .venv/.ready requirements/%.txt
	@$(PY) -m venv --clear .venv/$*
	@.venv/$*/bin/python -m pip --disable-pip-version-check install --quiet -r requirements/$*.txt
	@touch $@

example: .venv/.ready
	@$(PY) $(EXAMPLE)/make_example.py

.venv/.ready: requirements/cpu.lock pyproject.toml scripts/setup.sh
	@scripts/setup.sh

bench-end-to-end: example
	@$(PY) -m benchmarks.end_to_end.compare

bench-step-cost: .venv/.ready
	@$(PY) -m benchmarks.step_cost

# Two commits side by side: make bench-two-commits BASE=main COMMAND="python -m benchmarks.step_cost --rounds 4"
BASE ?= HEAD~1
HEAD ?= HEAD
ROUNDS ?= 6
COMMAND ?= python -m benchmarks.step_cost --rounds 4
bench-two-commits: .venv/.ready
	@$(PY) -m benchmarks.two_commits $(BASE) $(HEAD) --rounds $(ROUNDS) $(OPTIONS) -- $(COMMAND)

bench-verifier: .venv/.ready
	@$(PY) -m benchmarks.verifier.throughput
	@$(PY) -m benchmarks.verifier.mixed_load
	@$(PY) -m benchmarks.verifier.poison

# Both locks come from what was seen to work; run the tests before you commit a new one.
lock-cpu:
	@scripts/lock.sh cpu

lock-gpu:
	@scripts/lock.sh gpu

clean:
	rm -rf build dist *.egg-info .pytest_cache .hypothesis .mypy_cache .ruff_cache .bench $(EXAMPLE)/data
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
