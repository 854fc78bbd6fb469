"""Tests the tests: changes the code of some modules in small ways, and shows which changes no test notices.

    python tests/mutate.py segment [--within SECONDS] [MUTANT...]

TARGETS names the groups of modules, each with the tests that should notice. mutmut, in an environment of its own,
changes a copy in `build/mutate`. `mutated.py` tries each change there, and prints the survivors:
`docs/contributing.md` says what to do about them.
"""

import argparse
import math
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from environments import environment

ROOT = Path(__file__).parents[1]
HOME = ROOT / "build" / "mutate"
# Modules that the sources share and that can be tested without a load; tests in contract/ cover the others.
SHARED = ("data_errors", "event_filter", "isolate", "records", "refused", "scans", "spool", "times")
ADOPT = ("buffer", "column_names", "columns", "first_rows", "kept", "row_width", "rows", "verify")
TASKS = ("coordinator", "parse_task", "partition_tasks", "row_tasks", "rows", "stored", "tasks")
LIMITS = "tests/contract/test_limits.py"
MEMORY = "tests/faults/test_memory.py"
FILES = "tests/faults/test_memory_files.py"
SENDING = ("delivery_log", "dispatch", "send_again", "send_identify", "send_ortto", "send_track", "sending_rules")
HABITS = "tests/dlt_habits/test_habits.py"


class Target(NamedTuple):
    """Modules to change, and the tests that run for each change, except those with a word of `slow` in their names.

    All tests of its line run for a survivor, so a test that takes a second costs an hour for a large target.
    """

    modules: list[str]
    tests: list[str]
    slow: Sequence[str] = ()


def contract(*names: str) -> list[str]:
    """Returns the files of tests in `tests/contract/`."""
    return [f"tests/contract/test_{name}.py" for name in names]


TARGETS = {
    "segment": Target(
        ["segment/*.py"],
        [
            *(f"tests/test_{name}.py" for name in ("messages", "naming", "persons")),
            *(f"tests/test_{name}.py" for name in ("ortto_messages", "ortto_random", "mapping", "proposal")),
        ],
        ["a_mapped_event_is_in_its_table", "mapped_events_can_be_asked_for"],
    ),
    "books": Target(
        ["projection/audit.py", "projection/deduplicate.py"],
        [
            *contract("books", "collisions", "once", "partitions", "suppressed"),
            "tests/contract/test_mends.py::test_a_cut_text_of_an_adopted_row_becomes_whole",
            f"{LIMITS}::test_the_new_events_with_most_messages_get_the_tables_that_are_left",
            f"{LIMITS}::test_events_beyond_the_number_of_tables_are_in_tracks_alone",
        ],
    ),
    "columns": Target(
        [f"projection/{name}.py" for name in ("columns", "tables", "types", "users")],
        [
            "tests/test_column_plans.py",
            "tests/test_table_rows.py",
            "tests/test_latest_rows.py",
            "tests/test_warehouse.py::test_the_bits_of_its_values_make_a_columns_type",
            *contract("limits", "names", "collisions", "identity", "partitions"),
        ],
    ),
    "parse": Target(
        [
            f"projection/{name}.py"
            for name in ("cells", "irregular", "keys", "line_reader", "parse", "shapes", "unreadable")
        ],
        [
            *(f"tests/test_{name}.py" for name in ("line_reader", "parsing", "shapes")),
            *contract("values", "unreadable", "collisions", "limits", "fast_path"),
            "tests/contract/test_books.py::test_a_rejected_line_is_kept_whole_with_its_file_line_and_reason",
            "tests/contract/test_books.py::test_blank_lines_are_no_lines_but_have_their_numbers",
            f"{MEMORY}::test_more_threads_parse_again_when_the_memory_long_sufficed",
            f"{MEMORY}::test_a_thread_that_is_alone_rejects_the_large_line_that_needs_still_more_memory",
        ],
    ),
    "projection": Target(
        [f"projection/{name}.py" for name in ("context", "engine", "projection")],
        [
            *(f"tests/test_{name}.py" for name in ("projection", "projection_context", "projection_sql")),
            *contract("books", "limits", "mends", "routing"),
            "tests/contract/test_partitions.py::test_what_one_worker_knows_of_a_partition_another_goes_on_with",
        ],
    ),
    "partition": Target(["projection/partition.py"], contract("partitions")),
    "mend": Target(["projection/mend.py"], contract("mends")),
    "snapshot": Target(
        ["projection/snapshot.py", "projection/people.py"], ["tests/test_people.py", "tests/test_snapshot.py"]
    ),
    "suppression": Target(
        ["projection/suppression.py", "projection/mentions.py"],
        [
            *(f"tests/test_{name}.py" for name in ("mentions", "suppressions", "forget_ids")),
            *contract("suppressed"),
        ],
        ["postgres", "agreed_to", "pairs_a_hundred", "key_later", "second_id", "odd_ids_go", "key_is_documented"],
    ),
    "sources": Target(
        [f"sources/{name}.py" for name in SHARED],
        [
            "tests/test_sources.py",
            "tests/test_refused_messages.py",
            "tests/test_refused_rows.py",
            "tests/test_api.py",
            *(
                f"tests/faults/test_refused.py::test_{name}"
                for name in (
                    "finds_the_bad_rows_and_stores_all_others",
                    "rows_that_load_tell_what_an_error_does_not",
                    "a_bad_row_among_many_costs_few_loads",
                    "tells_whether_an_error_is_about_the_rows",
                    "what_the_driver_says_counts_more_than_how_dlt_classes_it",
                )
            ),
        ],
        ["batch_has_fifty", "rate_allows"],
    ),
    "rows": Target(
        [f"sources/{name}.py" for name in ("plan", "report", "row_files", "table_hints")],
        [f"tests/test_{name}.py" for name in ("given_to_dlt", "load_plan", "native", "rows_to_dlt", "sources")],
    ),
    "archive": Target(
        ["sources/archive/*.py"],
        [f"tests/test_archive{name}.py" for name in ("", "_blocks", "_finding", "_listing", "_source")],
        ["bomb", "bounded_by", "cut_anywhere", "few_bytes", "many_small", "over_http", "64_megabytes"],
    ),
    "api": Target(
        ["sources/api/contacts.py", "sources/contact_records.py", "sources/api/scan.py", "sources/api/scan_plan.py"],
        ["tests/test_api.py", "tests/test_scans.py", "tests/test_scan_plan.py"],
        ["batch_has_fifty", "rate_allows"],
    ),
    "ortto": Target(
        [f"sources/ortto/{name}.py" for name in ("activities", "records", "search")],
        [*(f"tests/test_{name}.py" for name in ("ortto_pull", "ortto_records", "cli_ortto")), *contract("ortto_pull")],
    ),
    "receive": Target(
        [f"receive/{name}.py" for name in ("auth", "autopilot_hooks", "endpoints", "messages")],
        [f"tests/test_receive{name}.py" for name in ("_auth", "_messages", "_hooks")],
        ["who_may_send", "no_body_is_refused", "is_published"],
    ),
    "clients": Target(
        ["clients/autopilot.py", "clients/ortto*.py"],
        ["tests/test_client.py", "tests/test_ortto_client.py"],
        ["activities_have_a_pace"],
    ),
    "refusals": Target(
        ["sources/data_errors.py", "sources/isolate.py", "sources/load_folder.py"],
        [
            *(f"tests/test_{name}.py" for name in ("load_folder", "refused_messages", "refused_rows")),
            "tests/faults/test_refused.py",
        ],
    ),
    "compaction": Target(["compaction.py"], ["tests/test_compaction.py", "tests/faults/test_compact_killed.py"]),
    "batch": Target(
        [f"destination/{name}.py" for name in ("batch", "counts", "held")],
        [f"tests/test_{name}.py" for name in ("batch", "counts", "sending_rules")],
    ),
    "sending": Target(
        [f"destination/{name}.py" for name in ("delivery_log", "dispatch", "emails", "log_table", "sender")],
        [f"tests/test_{name}.py" for name in SENDING],
    ),
    "events": Target(["destination/event_batches.py"], ["tests/test_event_batches.py", "tests/test_send_ortto.py"]),
    "forward": Target(["destination/forward*.py"], ["tests/test_forwarder.py", "tests/test_forward.py"]),
    "contacts": Target(
        [f"destination/{name}.py" for name in ("audiences", "contact_requests", "contacts", "lists")],
        ["tests/test_audiences.py", "tests/test_contacts.py", "tests/test_lists.py"],
    ),
    "lock": Target(["warehouses/lock.py"], ["tests/test_lock.py"]),
    "private": Target(["private.py"], ["tests/faults/test_private.py"]),
    "upgrade": Target(
        ["upgrade.py"], ["tests/test_upgrade.py", "tests/test_books_dataset.py"], ["missing_tables_have_their_reasons"]
    ),
    "merging": Target(["warehouses/merging.py"], ["tests/test_native.py"]),
    "disk": Target(["disk.py"], ["tests/test_disk.py"]),
    "duckdb": Target(
        ["warehouses/duckdb_parts.py", "warehouses/duckdb_pool.py"],
        [
            "tests/test_duckdb_pool.py",
            f"{FILES}::test_large_traits_are_stored_replaced_and_read_again_with_less_memory_than_they_have",
            f"{FILES}::test_what_a_file_s_log_has_is_written_without_memory_for_long_texts_that_are_stored",
            f"{FILES}::test_small_groups_of_rows_are_merged_as_a_file_is_closed",
            f"{FILES}::test_a_file_that_is_deleted_while_it_is_open_is_created_again",
            f"{FILES}::test_what_was_read_of_a_file_in_parts_is_not_kept",
            f"{FILES}::test_all_rows_with_long_texts_are_read_once",
            f"{FILES}::test_parts_that_are_there_are_stored_once_when_their_file_comes_again",
            f"{FILES}::test_rows_that_wait_in_staging_replace_others_in_parts_if_memory_runs_out",
            f"{FILES}::test_of_staged_rows_with_the_same_key_the_first_replaces_others",
            f"{FILES}::test_rows_of_a_file_are_long_if_there_are_many_bytes_of_them_and_of_each",
            f"{FILES}::test_a_part_of_a_table_has_as_many_rows_as_it_has_room_for",
            f"{FILES}::test_rows_come_one_by_one_if_there_is_no_memory_to_look_at_them",
            "tests/test_cli_errors.py::test_a_file_that_is_no_duckdb_database",
            "tests/test_cli_errors.py::test_a_file_of_another_version_of_duckdb",
            "tests/faults/test_destinations.py::test_a_duckdb_file_that_another_process_holds",
        ],
    ),
    "opened": Target(["warehouses/duckdb_open.py"], ["tests/test_duckdb_pool.py"]),
    "copies": Target(
        ["warehouses/postgres_copies.py"], ["tests/test_postgres_copies.py", "tests/test_indexes_last.py"]
    ),
    "names": Target(
        ["warehouses/dataset/table_names.py"],
        [
            f"{HABITS}::test_an_event_with_the_name_of_a_view_or_of_anothers_table_has_another_table",
            "tests/test_dialects.py::test_columns_have_the_types_of_the_contract",
        ],
    ),
    "loads": Target(
        ["warehouses/dataset/loads.py"],
        [
            "tests/test_sql_dataset.py",
            "tests/test_inspection_status.py",
            f"{HABITS}::test_a_foreign_table_with_the_name_of_one_of_these_is_refused",
        ],
        ["postgres"],
    ),
    "datasets": Target(
        [
            f"warehouses/dataset/{name}.py"
            for name in ("creation", "sql", "sql_schema", "sql_statements", "text_columns")
        ],
        [
            "tests/test_sql_dataset.py",
            "tests/test_delivery_log.py",
            "tests/test_attached.py",
            "tests/faults/test_refused_characters.py",
        ],
        ["a_load_goes_on_without_messages", "in_a_lake", "what_complete_loads", "the_row_of_a_file", "first_event"],
    ),
    "halving": Target(
        ["destination/halving.py", "destination/requests.py"], ["tests/test_contact_writer.py", "tests/test_halving.py"]
    ),
    "mended": Target(
        ["sources/adopted_rows.py"],
        [
            "tests/test_mending.py",
            "tests/test_adopt.py::test_a_later_load_of_messages_leaves_what_only_adopted_users_and_accounts_have",
        ],
    ),
    "plan": Target(
        [f"destination/{name}.py" for name in ("addresses", "changes", "deferred", "history", "order", "plan")],
        ["tests/test_plan.py", "tests/test_deferred.py"],
    ),
    "privacy": Target(["privacy/identity_graph.py"], ["tests/test_closure.py"]),
    "export": Target(
        ["export/*.py", "warehouses/dataset/unfit.py"],
        [f"tests/test_export{name}.py" for name in ("", "_rows", "_tables", "_targets")],
        ["exported_and_loaded", "names_of_mixed_case", "same_tables_again"],
    ),
    "cursors": Target(["sources/cursors.py", "sources/dropped.py"], ["tests/test_cursors.py", "tests/test_dropped.py"]),
    "completion": Target(
        ["sources/completion.py", "sources/own_rows.py"], ["tests/test_completion.py", "tests/test_own_rows.py"]
    ),
    "hints": Target(
        ["sources/user_hints.py"],
        ["tests/dlt_habits/test_refused_hints.py", "tests/dlt_habits/test_steps.py", "tests/test_given_to_dlt.py"],
    ),
    "adopt": Target(
        [f"sources/adopt/{name}.py" for name in ADOPT],
        [
            *(f"tests/test_{name}.py" for name in ("column_names", "csv_quotes", "json_digits", "adopt_values")),
            "tests/test_adopt_avro.py",
            *contract("adopted_rows"),
        ],
    ),
    "latest": Target(
        ["sources/adopt/latest.py"],
        [
            f"tests/contract/test_adopted_rows.py::test_{name}"
            for name in (
                "rows_of_users_are_older_than_what_messages_and_stored_rows_say",
                "a_row_of_users_has_no_more_values_than_fit_a_page_and_is_kept",
                "a_file_all_of_whose_rows_are_rejected_is_counted",
                "a_trait_of_two_types_has_one_that_holds_both",
            )
        ],
    ),
    "adopting": Target(
        [f"sources/adopt/{name}.py" for name in ("databases", "files", "origin", "project", "schema", "source")],
        [
            *(f"tests/test_adopt{name}.py" for name in ("", "_rudderstack", "_schema")),
            f"{HABITS}::test_books_of_some_adopted_tables",
        ],
    ),
    "engine": Target(
        [f"sources/engine/{name}.py" for name in ("executors", "shares", "work_folder", "workspace")],
        ["tests/test_shares.py", *(f"tests/faults/test_engine_{name}.py" for name in ("faults", "folder", "workers"))],
        ["worker_is_killed", "cannot_become", "coordinator", "deleted_persons", "in_buckets", "cannot_ask_for_it"],
    ),
    "tasks": Target(
        [f"sources/engine/{name}.py" for name in TASKS],
        [
            "tests/test_engine.py",
            "tests/test_shares.py",
            "tests/faults/test_engine_refused.py",
            "tests/faults/test_engine_faults.py",
        ],
        ["worker_is_killed", "coordinator_is_killed", "in_buckets"],
    ),
    "csv": Target(
        [f"sources/adopt/csv_{name}.py" for name in ("dialect", "rows")],
        ["tests/test_csv_dialects.py", "tests/test_csv_quotes.py"],
    ),
    "counted": Target(
        ["inspect/changed_types.py", "inspect/completeness.py"],
        [
            "tests/test_ortto_completeness.py",
            "tests/test_inspection_status.py::test_types_that_are_read_as_those_of_the_contract",
            "tests/test_inspection_status.py::test_models_need_the_types_of_the_columns_that_they_read",
        ],
        ["the_status_shows"],
    ),
    "profiles": Target(
        ["sources/due_people.py", *(f"sources/profiles/{name}.py" for name in ("events", "people", "pull"))],
        ["tests/test_pull.py", "tests/test_segment.py"],
        ["pace_is_reached"],
    ),
}
CONFIG = """
[tool.pytest.ini_options]
testpaths = ["tests"]
pythonpath = [".", "tests"]
addopts = ["--import-mode=importlib", "-p", "no:cacheprovider", "-k", "{choice}"]

[tool.mutmut]
source_paths = ["autopilothq"]
only_mutate = {modules}
pytest_add_cli_args_test_selection = {tests}
use_git_change_detection = false
"""


def copy(target: Target) -> None:
    """Copies the package next to its tests, where mutmut looks for it, and writes the configuration.

    Deletes what mutmut kept of earlier runs, because it would not try a survivor again with a new test.
    """
    shutil.rmtree(HOME / "mutants", ignore_errors=True)
    for name, source in (("autopilothq", ROOT / "pipelines" / "autopilothq"), ("tests", ROOT / "tests")):
        shutil.rmtree(HOME / name, ignore_errors=True)
        shutil.copytree(source, HOME / name, ignore=shutil.ignore_patterns("__pycache__"))
    modules = [f"autopilothq/{pattern}" for pattern in target.modules]
    choice = " and ".join(f"not {word}" for word in target.slow)
    (HOME / "pyproject.toml").write_text(CONFIG.format(modules=modules, tests=target.tests, choice=choice))


def python() -> Path:
    """Returns Python's path in an environment that has mutmut and also sees this environment's packages."""
    programs = environment(HOME / "venv", "mutmut>=3.8,<4")
    [packages] = (HOME / "venv" / "lib").glob("python*/site-packages")
    own = "\n".join(path for path in sys.path if path.endswith("site-packages"))
    (packages / "zz_tested.pth").write_text(f"{own}\n")
    return programs / "python"


def main() -> int:
    """Runs the trials; returns 1 if a mutant survived."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("target", choices=TARGETS)
    words.add_argument("--within", type=float, default=math.inf, help="seconds of tests that a mutant meets at most")
    words.add_argument("mutants", nargs="*", help="names, or patterns of names, in this order; else all")
    given = words.parse_intermixed_args()
    HOME.mkdir(parents=True, exist_ok=True)
    interpreter = python()
    copy(TARGETS[given.target])
    program = [interpreter, "tests/mutated.py", str(given.within), *given.mutants]
    return subprocess.run(program, cwd=HOME, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
