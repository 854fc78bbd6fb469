"""`forget` ends before it deletes anything if its PostgreSQL role may not read a table that could mention the person.

Partitioned tables also work, whose rows are those of their partitions.
"""

import re

from calling import Call, errors
from contract.loading import message, write
from servers import ask


def test_a_table_that_may_not_be_read_ends_it_before_anything_is_deleted(call: Call, postgres: str) -> None:
    write("1.ndjson", message(userId="ada"), message(userId="eve", messageId="m2"))
    target = ("--destination", "postgres", "--credentials", postgres)
    assert call("load", "archive", "archive", *target).status == 0
    ask(
        postgres,
        "CREATE ROLE deleter LOGIN PASSWORD 'p'; GRANT ALL ON SCHEMA autopilothq, autopilothq_staging TO deleter;"
        " GRANT ALL ON ALL TABLES IN SCHEMA autopilothq, autopilothq_staging TO deleter;"
        " REVOKE ALL ON autopilothq.tracks FROM deleter",
    )
    deleter = re.sub("//.*@", "//deleter:p@", postgres)
    asked = ("forget", "--user-id", "ada", "--destination", "postgres", "--credentials", deleter)

    said = call(*asked)
    words = (
        "Error: Expected the right to read all tables of the dataset, but autopilothq.tracks may not be read:"
        " rows of the person there would stay. Nothing was changed.\n"
        "Grant SELECT and DELETE on them, or use the role that owns them."
    )
    assert (said.status, "\n".join(errors(said))) == (1, words)
    stored = "SELECT user_id FROM autopilothq.email_opened ORDER BY 1"
    assert ask(postgres, stored) == [("ada",), ("eve",)]

    secured = "ALTER TABLE autopilothq.tracks {} ROW LEVEL SECURITY"
    ask(postgres, f"GRANT ALL ON autopilothq.tracks TO deleter; {secured.format('ENABLE')}")
    # A load by such a role names the table, too, and does not say that it lacks columns.
    ask(postgres, "REVOKE ALL ON autopilothq._dlt_version FROM deleter")
    said = call("load", "archive", "archive", *asked[-4:])
    right = "Give the user of the credentials that right (GRANT, ALTER ... OWNER TO)."
    assert (said.status, errors(said)) == (1, ["Error: permission denied for table _dlt_version", right])
    ask(postgres, "GRANT ALL ON autopilothq._dlt_version TO deleter")
    # A table without ids does not matter, although its rows are hidden.
    ask(postgres, "CREATE TABLE autopilothq.notes (note text); ALTER TABLE autopilothq.notes ENABLE ROW LEVEL SECURITY")
    ask(postgres, "GRANT SELECT ON autopilothq.notes TO deleter")
    said = call(*asked)
    words = (
        "Error: Expected the right to see all rows of the dataset, but policies may hide some of autopilothq.tracks"
        " from this role (row-level security): rows of the person there would stay. Nothing was changed.\n"
        "Use the role that owns the tables, or one with BYPASSRLS."
    )
    assert (said.status, "\n".join(errors(said))) == (1, words)
    assert ask(postgres, stored) == [("ada",), ("eve",)]
    said = call("export", "out", *asked[-4:])
    words = (
        "Error: Expected the right to see all rows of the dataset, but policies may hide some of autopilothq.notes,"
        " autopilothq.tracks from this role (row-level security): an export would lack them.\n"
        "Use the role that owns the tables, or one with BYPASSRLS."
    )
    assert (said.status, "\n".join(errors(said))) == (1, words)

    keeps = "CREATE RULE keep AS ON DELETE TO autopilothq.tracks WHERE old.user_id = 'ada' DO INSTEAD NOTHING"
    ask(postgres, f"{secured.format('DISABLE')}; {keeps}")
    said = call(*asked)
    words = (
        "Error: Expected 1 row of the person to be deleted from tracks, but 1 stayed: a trigger or a rule of that table"
        " keeps them.\nDrop or disable it, then run this again."
    )
    assert (said.status, "\n".join(errors(said))) == (1, words)
    assert ask(postgres, f"{stored.partition(' ORDER')[0]} UNION ALL SELECT id FROM autopilothq._suppressions") == [
        ("ada",),
        ("eve",),
    ]

    ask(
        postgres,
        "DROP RULE keep ON autopilothq.tracks; SET search_path = autopilothq; ALTER TABLE tracks RENAME TO part;"
        "CREATE TABLE tracks (LIKE part) PARTITION BY RANGE (received_at); GRANT ALL ON tracks TO deleter;"
        "ALTER TABLE tracks ATTACH PARTITION part DEFAULT;"
        "UPDATE email_opened SET user_id = NULL WHERE user_id = 'ada'",
    )
    said = call(*asked)
    assert (said.status, said.out.partition("rows removed")[2].split()[:4]) == (0, ["email_opened", "1", "tracks", "1"])
    assert ask(postgres, f"{stored.partition(' ORDER')[0]} UNION ALL SELECT user_id FROM autopilothq.tracks") == [
        ("eve",),
        ("eve",),
    ]
    ask(postgres, "DROP OWNED BY deleter; DROP ROLE deleter")  # roles belong to the server
