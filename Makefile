# `make demo` and `make test` need only Python and make.

# The first Python that is new enough; PYTHON=... chooses another.
NEW_ENOUGH = import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	"$$python" -c '$(NEW_ENOUGH)' 2>/dev/null && { echo "$$python"; exit; }; done; echo python3)

VENV ?= .venv
BIN = $(VENV)/bin
PIP_INSTALL = $(BIN)/python -m pip install $(COMPILE) --quiet --disable-pip-version-check
# Only files whose hashes are in the lock are installed; the package itself is linked, with the builder of the lock.
LINK = --no-deps --no-build-isolation --editable .
UV ?= uv
LOCK = UV_CUSTOM_COMPILE_COMMAND="make lock" $(UV) pip compile --quiet pyproject.toml --group build \
	--constraint constraints.txt --python-version 3.11 --universal --generate-hashes --no-annotate

DEMO = build/demo
DEMO_EVENTS ?= 50000
# The demo's pipeline keeps its state next to its data, so that `make clean` removes both.
DEMO_ENV = DLT_DATA_DIR="$(CURDIR)/$(DEMO)/dlt"
RUN_SQL = import duckdb, sys; \
	database = duckdb.connect(sys.argv[1], read_only=True); \
	[(print("\n" + query), database.sql(query).show()) for query in sys.argv[2:]]

# Compiled modules are kept, because otherwise each test process would compile all of them.
export PYTHONDONTWRITEBYTECODE =

.DELETE_ON_ERROR:
.PHONY: help setup lock demo test test-fast test-portable test-pythons lint format docs bench check mutate clean

help:
	@echo 'make demo          load a made-up archive into a local DuckDB file and query it'
	@echo 'make test          lint, formats, types and all tests'
	@echo 'make test-fast     tests without servers and killed processes, in a minute'
	@echo 'make test-portable the tests of what another Python can do differently'
	@echo 'make test-pythons  these on each other Python of $(PYTHONS) on this machine'
	@echo 'make lint          ruff and mypy only'
	@echo 'make format        rewrite the code in its own style'
	@echo 'make docs          write the generated parts of the documents'
	@echo 'make bench         measure'
	@echo 'make check         test what needs an environment of its own: dbt, Airflow, ...'
	@echo 'make mutate        what no test notices of small changes in some modules: TARGET=segment'
	@echo 'make setup         create only the environment, in $(VENV)'
	@echo 'make lock          rewrite the lock files of constraints.txt, with hashes'
	@echo 'make clean         remove what these created'

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

# For use after constraints.txt or pyproject.toml changed. The locks have the hashes of all files that the index has of
# these versions, for every platform. Needs uv: pip install uv
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
	$(BIN)/mypy

# A file's tests stay together, because it makes its servers and archives once. The slow files, contract and faults,
# come first. There are two more processes than cores, because some tests wait for a lock, a deadline or a server.
WORKERS ?= $(shell expr $$(getconf _NPROCESSORS_ONLN) + 2)
# Tests write to memory if there is room for it all, because a load of a few lines waits for the disk a third of its
# time. Servers are started from there, too, by another account, which some systems forbid.
MEMORY := $(shell df -Pk /dev/shm 2>/dev/null | awk '$$6 == "/dev/shm" && $$4 > 6000000' | while read -r _; do \
	try=$$(mktemp -d /dev/shm/tests-XXXXXX) && cp /bin/true "$$try" && "$$try/true" 2>/dev/null && echo /dev/shm; rm -rf "$$try"; done)
IN_MEMORY = $(if $(MEMORY),TMPDIR=$$(mktemp -d $(MEMORY)/tests-XXXXXX); export TMPDIR; chmod 711 "$$TMPDIR"; \
	trap 'rm -rf "$$TMPDIR"' EXIT INT TERM;)
PYTEST = $(IN_MEMORY) $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder \
	-o tmp_path_retention_policy=failed

# Lint and types run alongside the tests. Their output comes last, and their failure fails the run, too.
test: $(VENV)/.dev
	@mkdir -p build
	@$(MAKE) --no-print-directory lint >build/lint.txt 2>&1 & lint=$$!; \
	$(PYTEST); tests=$$?; \
	wait $$lint; linted=$$?; \
	cat build/lint.txt; \
	exit $$((tests ? tests : linted))

# What another Python can do differently: reading and writing JSON, texts and times, the libraries' own wheels, threads
# and HTTP. These test the layers below the sources, the contract's loads in memory, and the clients; then the demo runs
# the command from end to end. The modules of all other tests are only imported.
PORTABLE = contract/test_clocks contract/test_collisions contract/test_identity contract/test_names \
	contract/test_routing contract/test_values test_api test_audiences test_client test_decode test_fake_autopilot \
	test_hints test_http test_http_retries test_identify test_inflate test_messages test_naming test_native \
	test_nesting test_ortto_messages test_pace test_plan test_progress test_projection_sql test_segment \
	test_sql_files test_warehouse
# Of these, what a Python between the oldest and the newest can do differently from both.
ESSENTIAL = contract/test_clocks contract/test_values test_decode test_http test_http_retries test_messages \
	test_native test_nesting test_pace test_segment test_warehouse
# Tests with neither a server nor a killed process, nor so many lines that they take long.
FAST = $(PORTABLE) contract/test_fast_path contract/test_once test_archive_blocks test_archive_listing \
	test_archive_source test_cost test_house test_load_plan test_machine test_ortto_random test_persons \
	test_projection test_pull test_receive_messages test_refused_messages test_refused_rows test_rows_to_dlt \
	test_scan_plan test_scans test_sources

test-fast: $(VENV)/.dev
	$(PYTEST) $(FAST:%=tests/%.py)

OTHERS = $(filter-out $(PORTABLE:%=tests/%.py),$(wildcard tests/test_*.py tests/*/test_*.py)) $(PACES)
# These measure a pace, so another Python's tests must not run on the machine at the same time.
PACES = tests/test_pace.py::test_one_budget_for_all_threads_and_clients_of_a_key \
	tests/test_segment.py::test_the_pace_is_reached_while_answers_take_their_time

test-portable: $(VENV)/.dev
	$(BIN)/python -m pytest --quiet $(OTHERS:%=--deselect=%)
	$(MAKE) --no-print-directory demo DEMO="$(VENV)-demo" DEMO_EVENTS=2000

# All Pythons of pyproject.toml except that of `make test`, in parallel with --jobs=2. Each gets an environment from the
# same lock below build/, and compiles only what it imports. One that is not on this machine is left out. The newest
# runs all of PORTABLE.
PYTHONS = 3.11 3.12 3.13
IS = import sys; sys.exit(sys.argv[1] != '%d.%d' % sys.version_info[:2])

test-pythons: $(PYTHONS:%=test-python-%)

test-python-%:
	@if "$(BIN)/python" -c "$(IS)" "$*" 2>/dev/null; then echo "Python $*: make test"; exit; fi; \
	for python in "python$*" "$$HOME/.pyenv/versions/$*".*/bin/python; do \
		"$$python" -c "$(IS)" "$*" 2>/dev/null && break; \
		python=; \
	done; \
	if [ -z "$$python" ]; then echo "Python $* is not here: left out"; exit; fi; \
	echo "Python $*: $$python"; \
	$(MAKE) --no-print-directory test-portable VENV="build/python-$*" PYTHON="$$python" COMPILE=--no-compile \
		$(if $(filter $*,$(lastword $(PYTHONS))),,PORTABLE="$(ESSENTIAL)")

format: $(VENV)/.dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# The generated parts come from the catalogue, the commands and the signatures; a test fails if a page differs.
docs: $(VENV)/.dev
	$(BIN)/python tests/generate_docs.py

# Benchmarks are named bench_*.py, so that `make test` does not run them.
bench: $(VENV)/.dev
	$(BIN)/python tests/benchmarks/compare.py
	$(BIN)/python -m pytest -s -o python_files='bench_*.py' tests/benchmarks

# Programs that cannot share the environment of the tests; each check makes one for them below build/.
CHECKS = $(basename $(notdir $(wildcard tests/checks/check_*.py)))

check: $(VENV)/.dev
	$(BIN)/python -m pytest -o python_files='check_*.py' --durations=0 --durations-min=1 $(CHECKS:%=tests/checks/%.py)

# An hour or so for a large target; see docs/contributing.md.
TARGET ?= segment
mutate: $(VENV)/.dev
	$(BIN)/python tests/mutate.py $(TARGET)

clean:
	rm -rf build dist "$(VENV)" .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find pipelines tests -name __pycache__ -type d -prune -exec rm -rf {} +
