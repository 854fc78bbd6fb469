"""A third party's origin works as in the recipe of `docs/origin.md`, from files to rows."""

import ast
import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import dlt
import duckdb
import pytest
from dlt.pipeline.exceptions import PipelineStepFailed

import autopilothq
import stock
from autopilothq import Batch, LoadContext, LoadReport, Origin, make_batch, source
from autopilothq.errors import InvalidSetting, NotSupported
from autopilothq.projection import Projection
from autopilothq.sources import project
from autopilothq.sources.resources import SourceLoads
from autopilothq.warehouses.dataset import audit_row
from contract.duck import held
from contract.pulling import books, pull, watermarks
from fake_autopilot import FakeAutopilot, FakeProfiles
from generate_docs import definition
from prepared import as_prepared, preparing
from recipes.webhook_dump import WebhookDump

ROOT = Path(__file__).parents[1]
Rows = list[tuple[Any, ...]]


def request(number: int, event: str = "Email Opened", **more: Any) -> str:
    """Returns a logged request whose body is a message."""
    message = {
        "type": "track",
        "event": event,
        "messageId": f"m{number}",
        "userId": f"u{number}",
        "receivedAt": f"2019-03-0{number}T00:00:00.000Z",
        "properties": {"email_id": "e1", "price": "$"},
        **more,
    }
    return json.dumps({"path": "/segment", "body": json.dumps(message).replace('"$"', f"{number}.10")})


def write(name: str, *lines: str) -> None:
    Path("dump").mkdir(exist_ok=True)
    Path("dump", name).write_text("".join(f"{line}\n" for line in lines))


def run(data: Any) -> None:
    """Makes a load into `w.duckdb`."""
    pipeline = dlt.pipeline("webhooks", destination=stock.duckdb("w.duckdb"), dataset_name="autopilothq")
    with held("w.duckdb"):
        pipeline.run(data)


def load(origin: Origin[Any] | None = None, **settings: Any) -> LoadReport:
    """Makes a load; returns its report."""
    reports = [LoadReport()]
    run(source(origin or WebhookDump(Path("dump")), progress=reports.append, **settings))
    return reports[-1]


def rows(query: str) -> Rows:
    with duckdb.connect("w.duckdb", read_only=True) as connection:
        return connection.execute(query.replace("FROM ", "FROM autopilothq.")).fetchall()


DAY = "(received_at AT TIME ZONE 'UTC')::DATE::VARCHAR"
OPENED = f"SELECT id, user_id, email_id, price::VARCHAR, {DAY} FROM email_opened ORDER BY id"
AUDIT = "SELECT file, lines, stored, duplicates, rejected FROM _audit ORDER BY loaded_at, file"
FIRST = [("m1", "u1", "e1", "1.1", "2019-03-01"), ("m2", "u2", "e1", "2.1", "2019-03-02")]


LINES = (request(1), "no request", request(3, type="hello"), request(2))


class Loaded(NamedTuple):
    """The folder of a load of `LINES`, and its report."""

    home: Path
    report: LoadReport


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    with preparing(tmp_path_factory.mktemp("origin")) as home:
        write("1.ndjson", *LINES)
        write("lists.ndjson", '{"list_id": "l1", "title": "News"}', '{"list_id": "l2"}')
        return Loaded(home, load())


@pytest.fixture
def loaded(prepared: Loaded) -> Iterator[LoadReport]:
    """Works in a copy of that folder; returns the report."""
    with as_prepared(prepared.home):
        yield prepared.report


def test_new_messages_are_stored_and_bad_lines_rejected(loaded: LoadReport) -> None:
    report = loaded
    assert rows(OPENED) == FIRST
    assert rows("SELECT line, reason, raw FROM _rejects ORDER BY line") == [
        (2, "not_json", "no request"),
        (3, "unknown_type", json.loads(request(3, type="hello"))["body"]),
    ]
    assert rows("SELECT list_id, title FROM lists ORDER BY list_id") == [("l1", "News"), ("l2", None)]
    assert rows(AUDIT) == [("dump/1.ndjson", 4, 2, 0, 2)]
    assert (report.files, report.files_known, report.lines, report.stored, report.rejected) == (1, 0, 4, 2, 2)


class Failing(WebhookDump):
    """A dump that fails after a while."""

    def read(self, _: Sequence[Any]) -> Iterator[Batch]:
        time.sleep(0.2)  # in the meantime other resources ask
        raise OSError("disk error")


@pytest.mark.usefixtures("loaded")
def test_resources_that_ask_side_by_side_get_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    raised: list[str] = []
    begin = SourceLoads.begin

    def noting(loads: SourceLoads, name: str) -> Any:
        try:
            return begin(loads, name)
        except Exception as error:
            raised.append(str(error))
            raise

    monkeypatch.setattr(SourceLoads, "begin", noting)
    write("2.ndjson", request(4))
    failing = source(Failing(Path("dump"))).parallelize()
    for _ in range(2):
        with pytest.raises(PipelineStepFailed, match="disk error"):
            run(failing)
    assert len(raised) > 2
    assert set(raised) == {"disk error"}
    run(source(WebhookDump(Path("dump"))))
    assert rows("SELECT count(*) FROM email_opened") == [(3,)]


@pytest.mark.usefixtures("loaded")
def test_loading_twice_adds_nothing_and_a_changed_file_only_what_is_new() -> None:
    again = load()
    assert (again.files, again.files_known, again.lines) == (0, 1, 0)
    assert rows(OPENED) == FIRST

    write("1.ndjson", *LINES, request(3))
    write("2.ndjson", request(3), request(4, "Order Completed"))
    write("lists.ndjson", '{"list_id": "l2", "title": "Offers"}')
    load()

    assert rows(OPENED) == [*FIRST, ("m3", "u3", "e1", "3.1", "2019-03-03")]
    assert rows("SELECT id, price FROM order_completed") == [("m4", 4.1)]
    assert rows("SELECT list_id, title FROM lists") == [("l2", "Offers")]
    assert rows(AUDIT) == [
        ("dump/1.ndjson", 4, 2, 0, 2),
        ("dump/1.ndjson", 5, 1, 2, 2),
        ("dump/2.ndjson", 2, 1, 1, 0),
    ]


def test_events_that_are_requested_later_are_read_again() -> None:
    write("1.ndjson", request(1), request(2, "Email Clicked"))

    assert load(events="Email Opened").lines_skipped == 1
    assert load().stored == 1
    assert rows("SELECT id, event FROM tracks ORDER BY id") == [("m1", "email_opened"), ("m2", "email_clicked")]


def test_a_name_to_leave_out_that_nothing_has_is_told_once() -> None:
    write("1.ndjson", request(1), request(2, "Order Completed"))
    [told] = load(exclude="Order Completed, Order Competed, Email Bounced").warnings
    assert told == (
        "The name order_competed leaves out nothing: no event that was read has it, and neither Autopilot's events nor"
        " the dataset's tables do."
    )
    write("2.ndjson", request(3))
    assert load(exclude="Order Completed, Order Competed, Email Bounced").warnings == []


def test_without_a_pipeline_the_rows_are_arrow_tables() -> None:
    write("1.ndjson", request(1))

    [cells] = source(WebhookDump(Path("dump"))).resources["email_opened"]

    assert [(row["id"], row["price"]) for row in cells.to_pylist()] == [("m1", 1.1)]


class Feed(NamedTuple):
    """A feed that is read from the place where the last load stopped."""

    url: str
    version: str
    size: int = 0


class NumberedFeed(Origin[Feed]):
    """An origin that keeps its own cursor in dlt's state."""

    lines = tuple(json.loads(request(number))["body"].encode() for number in range(1, 5))

    def plan(self, context: LoadContext) -> Sequence[Feed]:
        pipeline = context.required_pipeline()
        cursor = dlt.current.source_state().get("feed", {"load_id": None, "end": 0})
        self.start = cursor["end"] if cursor["load_id"] in pipeline.complete_loads else 0
        self.end = min(self.start + 3, len(self.lines))
        dlt.current.source_state()["feed"] = {"load_id": pipeline.load_id, "end": self.end}
        return [Feed("feed", f"from {self.start}")] if self.start < self.end else []

    def read(self, work: Sequence[Feed]) -> Iterator[Batch]:
        for index, _ in enumerate(work):
            yield make_batch(index, list(enumerate(self.lines[self.start : self.end], self.start + 1)), ended=True)


def test_an_origin_may_keep_a_cursor_of_its_own() -> None:
    feed = NumberedFeed()

    assert [load(feed).stored for _ in range(3)] == [3, 1, 0]
    assert rows("SELECT file, version, stored, tables FROM _audit ORDER BY version") == [
        ("feed", "from 0", 3, None),
        ("feed", "from 3", 1, None),
    ]
    assert [row[0] for row in rows("SELECT id FROM email_opened ORDER BY id")] == ["m1", "m2", "m3", "m4"]


class ContinuedFeed(NamedTuple):
    """A feed whose loads add up in one row of `_audit`."""

    url: str
    version: str
    audited: Mapping[str, object] | None
    size: int = 0


class OneFeed(NumberedFeed):
    """The same feed, as one piece of work."""

    def plan(self, context: LoadContext) -> Sequence[Any]:
        audited = audit_row(context.required_pipeline().dataset, "feed", "all")
        return [ContinuedFeed("feed", "all", audited) for _ in super().plan(context)]


def test_lines_of_work_that_continues_are_added_up() -> None:
    counts = "SELECT lines, stored, duplicates, rejected, skipped, mended FROM _audit"
    load(OneFeed(), events="Email Clicked")
    assert rows(counts) == [(3, 0, 0, 0, 3, 0)]
    load(OneFeed(), events="Email Clicked")
    assert rows(counts) == [(4, 0, 0, 0, 4, 0)]


@pytest.fixture
def read_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the first attempt to make rows fail, so that the load reads all its work a second time."""
    make_rows, fails = project.InProcess._rows, iter([True])

    def rows(*words: Any) -> Any:
        if next(fails, False):
            raise ValueError("a message cannot become a row")
        return make_rows(*words)

    monkeypatch.setattr(project.InProcess, "_rows", rows)
    monkeypatch.setattr(Projection, "unreadable", lambda _: {"the message": "why"})


@pytest.mark.usefixtures("read_twice")
def test_a_dump_that_is_read_twice_counts_once() -> None:
    write("1.ndjson", request(1), "no request", request(2))
    write("lists.ndjson", '{"list_id": "l1", "title": "News"}')

    report = load()

    assert rows(OPENED) == FIRST
    assert rows(AUDIT) == [("dump/1.ndjson", 3, 2, 0, 1)]
    assert rows("SELECT list_id, title FROM lists") == [("l1", "News")]
    assert (report.files, report.files_done, report.lines, report.stored, report.rejected) == (1, 1, 3, 2, 1)


@pytest.mark.usefixtures("read_twice")
def test_without_a_pipeline_a_message_that_cannot_become_a_row_is_rejected_with_its_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Projection, "unreadable", lambda _: {"m2": "why"})
    write("1.ndjson", request(1), request(2))

    opened, rejects = source(WebhookDump(Path("dump"))).with_resources("email_opened", "_rejects")

    assert [row["id"] for row in opened.to_pylist()] == ["m1"]
    assert [(row["line"], row["reason"], row["raw"]) for row in rejects.to_pylist()] == [
        (2, "unreadable", json.loads(request(2))["body"])
    ]


@pytest.mark.usefixtures("read_twice")
def test_a_scan_that_is_read_twice_counts_once() -> None:
    with FakeAutopilot(contacts=120) as server:
        reports = [LoadReport()]
        settings: dict[str, Any] = {"api_key": server.key, "base_url": server.base_url, "requests_per_second": 10_000}
        scan = autopilothq.api(**settings, progress=reports.append)
        run(scan.with_resources("contacts", "lists", "tracks", "_audit", "_rejects", "_discards"))

    assert (reports[-1].contacts, reports[-1].files_done) == (120, len(rows("SELECT file FROM _audit")))
    assert rows("SELECT count(*), count(DISTINCT contact_id) FROM contacts") == [(120, 120)]
    [(lines, stored)] = rows("SELECT lines, stored FROM _audit WHERE file LIKE '%/contacts'")
    assert [(lines, lines)] == [(stored, reports[-1].stored)] == rows("SELECT count(*), count(DISTINCT id) FROM tracks")


@pytest.mark.usefixtures("read_twice")
def test_people_who_are_asked_for_twice_have_one_row() -> None:
    with FakeProfiles() as server:
        server.happen("email:a@example.com", "Email Opened")
        report = pull(server, "a@example.com", "b@example.com")

    assert (report.people, report.people_total, report.stored) == (2, 2, 1)
    assert sorted(watermarks()) == ["email:a@example.com", "email:b@example.com"]
    assert books() == [(1, 1, 0, 0)]


def test_what_needs_a_pipeline_says_so() -> None:
    with pytest.raises(Exception, match="Expected a pipeline, because this source continues from") as raised:
        list(source(NumberedFeed()).resources["email_opened"])
    assert isinstance(raised.value.__cause__, NotSupported)


def test_a_limit_is_refused_where_nothing_is_read_again() -> None:
    limited = source(NumberedFeed())
    limited.resources["tracks"].add_limit(1)
    with pytest.raises(PipelineStepFailed, match="Expected all rows of tracks to be taken, but it has a limit"):
        dlt.pipeline("webhooks", destination=dlt.destinations.duckdb("w.duckdb")).run(limited)


def test_tables_must_be_in_the_catalogue() -> None:
    class Wrong(NumberedFeed):
        tables = ("tracks", "trackz")

    with pytest.raises(InvalidSetting, match=r"Expected an origin's tables to be in catalog\.py, but trackz is not"):
        source(Wrong())


def test_public_signatures_have_types() -> None:
    """None of them contains `Any`, as a type checker and a reader see them."""
    functions = [found.node for found in map(definition, ("source", "archive", "api", "profiles", "make_batch"))]
    classes = [definition(name).node for name in ("Origin", "LoadContext", "PipelineContext", "Work", "LoadReport")]
    texts = [ast.unparse(node.args) for node in functions if isinstance(node, ast.FunctionDef)]
    texts += [ast.unparse(node) for node in classes]
    assert [text for text in texts if re.search(r"\bAny\b", text)] == []


def test_the_page_shows_the_recipe_that_runs_here() -> None:
    page = (ROOT / "pipelines/docs/origin.md").read_text()
    recipe = (ROOT / "pipelines/recipes/webhook_dump.py").read_text()

    *_, example = re.findall(r"```python\n(.*?)```", page, re.DOTALL)

    assert "class WebhookDump(Origin[DumpFile])" in example
    assert example.strip() in recipe
    documented = set(re.findall(r"`context\.(\w+)", page))
    assert documented <= {*dir(LoadContext), *LoadContext.__dataclass_fields__}
    assert {"Origin", "LoadContext", "source", "make_batch", "read_record"} <= set(autopilothq.__all__)
