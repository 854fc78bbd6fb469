# `make demo` and `make test` need nothing but Python and make.

# The first Python that is new enough; PYTHON=... chooses another.
NEW_ENOUGH = import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	"$$python" -c '$(NEW_ENOUGH)' 2>/dev/null && { echo "$$python"; exit; }; done; echo python3)

VENV ?= .venv
BIN = $(VENV)/bin
PIP_INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check
# Nothing is installed but files whose hashes are in the lock; the package itself is linked, by the lock's own builder.
LINK = --no-deps --no-build-isolation --editable .
UV ?= uv
LOCK = UV_CUSTOM_COMPILE_COMMAND="make lock" $(UV) pip compile --quiet pyproject.toml --group build \
	--constraint constraints.txt --python-version 3.11 --universal --generate-hashes --no-annotate

DEMO = build/demo
DEMO_EVENTS ?= 50000
# The demo's pipeline keeps its state beside its data, so that `make clean` forgets both.
DEMO_ENV = DLT_DATA_DIR="$(CURDIR)/$(DEMO)/dlt"
RUN_SQL = import duckdb, sys; \
	database = duckdb.connect(sys.argv[1], read_only=True); \
	[(print("\n" + query), database.sql(query).show()) for query in sys.argv[2:]]

.DELETE_ON_ERROR:
.PHONY: help setup lock demo test test-fast test-pythons lint format docs bench check mutate clean

help:
	@echo 'make demo     load a made-up archive into a local DuckDB file and query it'
	@echo 'make test     lint, types and tests'
	@echo 'make test-fast     in a minute: the tests that need no server and no process that is killed'
	@echo 'make test-pythons  those on every Python of $(PYTHONS) that this machine has'
	@echo 'make lint     ruff and mypy alone'
	@echo 'make format   rewrite the code in its own style'
	@echo 'make docs     write the generated parts of the documents again'
	@echo 'make bench    measure'
	@echo 'make check    try what needs an environment of its own: dbt, public packages for Segment, Airflow, Dagster, dlt deploy, Dask, Ray, the oldest dlt'
	@echo 'make mutate   change the code of a room in small ways, and show what no test notices: ROOM=segment'
	@echo 'make setup    the environment alone, in $(VENV)'
	@echo 'make lock     write the locks again: the versions of constraints.txt, with hashes'
	@echo 'make clean    remove what these made'

setup: $(VENV)/.dev

$(BIN)/python:
	@$(PYTHON) -c '$(NEW_ENOUGH)' 2>/dev/null || { echo 'Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11' >&2; exit 1; }
	@$(PYTHON) -m venv "$(VENV)"

# Installed again only when what is installed changed; the package itself is linked, not copied.
$(VENV)/.runtime: pyproject.toml requirements.lock | $(BIN)/python
	$(PIP_INSTALL) --require-hashes --requirement requirements.lock
	$(PIP_INSTALL) $(LINK)
	@touch "$@"

$(VENV)/.dev: pyproject.toml requirements-dev.lock | $(BIN)/python
	$(PIP_INSTALL) --require-hashes --requirement requirements-dev.lock
	$(PIP_INSTALL) $(LINK)
	@touch "$@" "$(VENV)/.runtime"

# After constraints.txt or pyproject.toml changed: the hashes of all files that the index has of those versions, for every
# platform. Needs uv: pip install uv
lock:
	$(LOCK) --extra postgres --extra s3 --output-file requirements.lock
	$(LOCK) --extra dev --output-file requirements-dev.lock

$(DEMO)/.sample: pipelines/autopilothq/sample.py | $(VENV)/.runtime
	@rm -rf "$(DEMO)/archive" && mkdir -p "$(DEMO)"
	$(BIN)/autopilothq sample "$(DEMO)/archive" --events $(DEMO_EVENTS) --seed 1
	@touch "$@"

# Loading the same archive again adds nothing: every event is stored once.
demo: $(VENV)/.runtime $(DEMO)/.sample
	$(DEMO_ENV) $(BIN)/autopilothq load archive "file://$(CURDIR)/$(DEMO)/archive" \
		--destination duckdb --credentials "$(DEMO)/autopilot.duckdb" --dataset autopilothq
	@$(BIN)/python -c '$(RUN_SQL)' "$(DEMO)/autopilot.duckdb" \
		"SELECT event, count(*) AS events, min(timestamp) AS first, max(timestamp) AS last FROM autopilothq.tracks GROUP BY event ORDER BY events DESC" \
		"SELECT table_name, estimated_size AS rows, column_count AS columns FROM duckdb_tables() WHERE schema_name = 'autopilothq' ORDER BY rows DESC"
	@echo 'The database: $(DEMO)/autopilot.duckdb'

lint: $(VENV)/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy --num-workers 2

# By files, whose servers and archives are made once, in their order: the slow ones, contract and faults, come first.
# One process more than there are cores: some tests wait for a lock, a deadline or a server.
WORKERS ?= $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)
PYTEST = $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder

test: lint
	$(PYTEST)

# What has a server, kills processes, or takes long for its number of lines.
SLOW = faults dlt_habits contract/test_columns.py contract/test_cuts.py contract/test_differential.py \
	contract/test_profiles.py contract/test_profiles_people.py contract/test_api_tables.py \
	contract/test_unreadable.py test_books_dataset.py test_cli_api.py test_destination.py test_dialects.py \
	test_display.py test_forget.py test_forget_ids.py test_forget_rewrite.py test_inspection.py test_lock.py \
	test_log.py test_place.py test_security.py test_segment_postgres.py test_segment_queries.py test_sqlite.py \
	test_suppressions.py test_telemetry.py test_upgrade.py

test-fast: $(VENV)/.dev
	$(PYTEST) $(addprefix --ignore=tests/,$(SLOW))

# The Pythons of pyproject.toml but that of `make test`. Each gets an environment of the same lock below build/; one that
# is not on this machine is left out.
PYTHONS = 3.11 3.12 3.13
IS = import sys; sys.exit(sys.argv[1] != '%d.%d' % sys.version_info[:2])

test-pythons:
	@for version in $(PYTHONS); do \
		if "$(BIN)/python" -c "$(IS)" "$$version" 2>/dev/null; then echo "Python $$version: make test"; continue; fi; \
		for python in "python$$version" "$$HOME/.pyenv/versions/$$version".*/bin/python; do \
			"$$python" -c "$(IS)" "$$version" 2>/dev/null && break; \
			python=; \
		done; \
		if [ -z "$$python" ]; then echo "Python $$version is not here: left out"; continue; fi; \
		echo "Python $$version: $$python"; \
		$(MAKE) --no-print-directory test-fast VENV="build/python-$$version" PYTHON="$$python" || exit 1; \
	done

format: $(VENV)/.dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# What follows from the catalogue, the commands and the signatures; a test fails where a page differs.
docs: $(VENV)/.dev
	$(BIN)/python tests/generate_docs.py

# Benchmarks are named bench_*.py, so that `make test` does not run them.
bench: $(VENV)/.dev
	$(BIN)/python -m pytest -s -o python_files='bench_*.py' tests/benchmarks

# Programs that cannot share the environment of the tests; each check makes one for them below build/.
CHECKS = $(basename $(notdir $(wildcard tests/checks/check_*.py)))

check: $(VENV)/.dev
	$(BIN)/python -m pytest -o python_files='check_*.py' --durations=0 --durations-min=1 $(CHECKS:%=tests/checks/%.py)

# An hour or so for a large room; see docs/contributing.md.
ROOM ?= segment
mutate: $(VENV)/.dev
	$(BIN)/python tests/mutate.py $(ROOM)

clean:
	rm -rf build dist "$(VENV)" .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find pipelines tests -name __pycache__ -type d -prune -exec rm -rf {} +
