"""Where each schema of a pipeline has its own dataset, a load looks only at that dataset."""

import pytest

from autopilothq import archive, profiles
from dlt_habits.habits import Target, archive_of, identify, track
from fake_autopilot.profiles import FakeProfiles


def test_each_schema_has_a_dataset(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if the pipeline's name is no valid schema name. A table dropped in one dataset is created again there."""
    monkeypatch.setenv("USE_SINGLE_DATASET", "false")
    opened = track("m1", "Email Opened", 1)
    first = archive_of("a.ndjson", identify("i1", "u1", 1, plan="pro"), opened)
    second = archive_of("b.ndjson", identify("i2", "u1", 2, city="Bern"), opened)
    target, own = Target("my-events"), "data_autopilothq"
    target.run(archive.clone(name="mine")(first))  # a pipeline's first schema gets the dataset without a suffix
    target.run(archive(first))
    assert target.tables(own) == target.tables()
    target.con.execute(f"DROP TABLE {own}.email_opened")
    target.run(archive(second))
    [user] = target.rows("users", own)
    assert (user["plan"], user["city"]) == ("pro", "Bern")
    assert [target.count(name, own) for name in ("identifies", "tracks", "email_opened", "_audit")] == [2, 1, 1, 2]
    assert [target.count(name) for name in ("identifies", "tracks", "email_opened", "_audit")] == [1, 1, 1, 1]
    target.con.execute(f"UPDATE {own}.users SET id = 'u2'")
    with FakeProfiles() as server:
        target.run(profiles(server.token, server.space, people="select id from users", base_url=server.base_url))
        assert server.asked() == ["user_id:u2"]
