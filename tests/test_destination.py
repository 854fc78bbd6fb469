"""Autopilot as a dlt destination: rows and messages of a pipeline, errors and settings."""

import logging
import threading
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dlt
import pyarrow as pa
import pytest
from dlt.common.destination.exceptions import DestinationTerminalException, DestinationTransientException
from dlt.common.runtime.run_context import active
from dlt.pipeline.exceptions import PipelineStepFailed

from autopilothq import AutopilothqError, DeliveryFailed, DeliveryImpossible, autopilot, destination
from autopilothq.destination import DeliveryLog
from autopilothq.destination.messages import from_row
from autopilothq.errors import InvalidSetting
from fake_autopilot import FakeAutopilot
from sending import MISSING, configure, identify, posts, rows, send, settings_for, track


@pytest.fixture
def configured(server: FakeAutopilot, monkeypatch: pytest.MonkeyPatch) -> FakeAutopilot:
    configure(monkeypatch, server)
    monkeypatch.setenv("LOAD__RAISE_ON_MAX_RETRIES", "1")  # otherwise dlt tries five times, a second apart
    return server


def run(data: Any, **more: Any) -> dlt.Pipeline:
    pipeline = dlt.pipeline("to_autopilot", destination=autopilot())
    while pipeline.has_pending_data:
        pipeline.run()
    pipeline.run(data, table_name="rows", **more)
    return pipeline


def test_a_pipeline_writes_rows(configured: FakeAutopilot) -> None:
    data = [
        {"email": "a@example.com", "user_id": 7, "first_name": "Ann", "company": {"name": "Acme"}, "review_rating": 4},
        {"email": "b@example.com", "Trial Ends": datetime(2019, 3, 1, tzinfo=UTC)},
    ]
    run(data)
    contacts = [
        {"Email": "a@example.com", "FirstName": "Ann", "Company": "Acme", "custom": {"integer--Review--Rating": 4}},
        {"Email": "b@example.com", "custom": {"date--Trial--Ends": "2019-03-01T00:00:00.000Z"}},
    ]
    assert posts(configured) == [("/contacts", {"contacts": contacts})]
    assert rows("email", "user_id", "status") == [
        ("a@example.com", "7", "delivered"),
        ("b@example.com", None, "delivered"),
    ]
    run(data)
    assert posts(configured) == []
    run([data[0] | {"review_rating": 5}])
    run(data)
    custom = [body["contacts"][0]["custom"] for _, body in posts(configured)]
    assert custom == [{"integer--Review--Rating": 5}, {"integer--Review--Rating": 4}]
    run([data[0] | {"review_rating": 5}, data[0]])  # the last row counts, also if it was sent before
    assert [body["contacts"][0]["custom"] for _, body in posts(configured)] == [
        {"integer--Review--Rating": 4},
    ]


def test_a_pipeline_writes_messages(configured: FakeAutopilot) -> None:
    run([identify(1), track(1, properties={"review_rating": 2})])
    custom = {"integer--Review--Rating": 2}
    assert posts(configured) == [
        ("/contacts", {"contacts": [{"Email": "p1@example.com", "Title": "T1", "custom": custom}]}),
        ("/trigger/0007/contact/p1%40example.com", None),
    ]


def test_arrow_tables_keep_their_nulls(configured: FakeAutopilot) -> None:
    run(pa.table({"email": ["a@example.com"], "title": pa.array([None], pa.string()), "review_rating": [3]}))
    custom = {"integer--Review--Rating": 3}
    assert posts(configured) == [
        ("/contacts", {"contacts": [{"Email": "a@example.com", "Title": None, "custom": custom}]})
    ]


@pytest.mark.usefixtures("configured")
def test_a_refused_row_fails_no_package(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "autopilothq"):
        group = {"email": "b@example.com", "type": "group", "message_id": 5}
        pipeline = run([{"email": "nobody"}, {"email": "a@example.com", "title": "CEO"}, {"title": "no one"}, group])
    assert not pipeline.has_pending_data
    assert Counter(rows("status")) == {("delivered",): 1, ("refused",): 2}
    assert f"1 row refused: {MISSING}" in caplog.messages
    why = (
        "a row with a message's id or parts counts as one of Segment's messages, and Autopilot does not take this type"
    )
    assert f"1 row of type group not sent: {why}" in caplog.messages


def test_rows_that_failed_stay_pending_and_come_before_new_ones(configured: FakeAutopilot) -> None:
    configured.order("POST", "/contacts", status=503, times=2)
    with pytest.raises(PipelineStepFailed, match="1 of 1 row could not be delivered: "):
        run([{"email": "a@example.com", "title": "old"}])
    posts(configured)
    run([{"email": "a@example.com", "title": "new"}])
    assert [body["contacts"][0]["Title"] for _, body in posts(configured)] == ["old", "new"]


def test_a_row_that_fails_twice_while_the_account_answers_keeps_no_package(configured: FakeAutopilot) -> None:
    configured.poison = {"b@example.com"}
    run([{"email": "a@example.com"}])
    with pytest.raises(PipelineStepFailed, match="1 of 1 row could not be delivered: "):
        run([{"email": "b@example.com"}])
    run([{"email": "c@example.com"}])
    assert rows("email", "status") == [
        ("a@example.com", "delivered"),
        *[("b@example.com", "failed")] * 2,
        ("c@example.com", "delivered"),
    ]


def test_what_is_told_of_a_package_that_stays_pending_is_what_its_rows_wait_for(configured: FakeAutopilot) -> None:
    configured.order("POST", "/contact", status=503, message="down", times=9)
    with pytest.raises(PipelineStepFailed, match="2 of 2 rows could not be delivered: down"):
        run([{"email": "a@example.com", "_NewEmail": "b@example.com"}, {"email": "a@example.com", "title": "CEO"}])


@pytest.mark.parametrize(("naming", "form"), [("direct", "typed-jsonl"), ("snake_case", "parquet")])
def test_values_of_other_types_than_the_first_stay_in_their_column(
    configured: FakeAutopilot, monkeypatch: pytest.MonkeyPatch, naming: str, form: Any
) -> None:
    monkeypatch.setenv("SCHEMA__NAMING", naming)
    data: list[dict[str, Any]] = [
        {"email": "a@example.com", "user_id": 7, "trial_ends": 1551398400, "title": 1},
        {"email": "b@example.com", "user_id": "u", "trial_ends": "2019-03-02T10:00:00+02:00", "title": "CEO"},
    ]
    run(data, loader_file_format=form)
    dates = ({"custom": {"date--Trial--Ends": f"2019-03-0{time}.000Z"}} for time in ("1T00:00:00", "2T08:00:00"))
    contacts = [{"Email": "a@example.com", "Title": "1"}, {"Email": "b@example.com", "Title": "CEO"}]
    assert posts(configured) == [("/contacts", {"contacts": [a | b for a, b in zip(contacts, dates, strict=True)]})]
    assert rows("user_id") == [("7",), ("u",)]


@pytest.mark.parametrize(
    ("drops", "raises"), [("false", "true"), ("true", "true"), ("false", "false")], ids=["keeps", "drops", "completes"]
)
def test_a_wrong_key_keeps_the_rows(
    configured: FakeAutopilot, monkeypatch: pytest.MonkeyPatch, drops: str, raises: str
) -> None:
    """Also if dlt is set to drop a package with a failed job, or to complete the load without its rows."""
    monkeypatch.setenv("LOAD__AUTO_ABORT_ON_TERMINAL_ERROR", drops)
    monkeypatch.setenv("LOAD__RAISE_ON_FAILED_JOBS", raises)
    monkeypatch.setenv("DESTINATION__AUTOPILOTHQ__API_KEY", "f" * 32)
    with pytest.raises(PipelineStepFailed, match="Provided autopilotapikey not valid") as raised:
        run([{"email": "a@example.com", "title": "CEO"}])
    assert "f" * 32 not in str(raised.value)
    assert len(configured.requests) == 1
    monkeypatch.setenv("DESTINATION__AUTOPILOTHQ__API_KEY", configured.key)
    configured.requests.clear()
    run([{"email": "b@example.com", "title": "CEO"}])
    assert [body["contacts"][0]["Email"] for _, body in posts(configured)] == ["a@example.com", "b@example.com"]


def test_errors_of_a_package_are_the_packages_own_and_dlts() -> None:
    kinds = {DeliveryFailed: DestinationTransientException, DeliveryImpossible: DestinationTerminalException}
    for kind, of_dlt in kinds.items():
        assert {AutopilothqError, of_dlt} <= set(kind.__mro__)


@pytest.mark.usefixtures("configured")
def test_the_log_may_be_in_another_dataset() -> None:
    log = dlt.dataset(dlt.destinations.duckdb("other.duckdb"), "crm", dlt.Schema("crm"))
    dlt.pipeline("to_autopilot", destination=autopilot(log=log)).run([{"email": "a@example.com"}], table_name="rows")
    with DeliveryLog(log, reads=True) as deliveries:
        assert [row["email"] for row in deliveries.latest()] == ["a@example.com"]


@pytest.mark.usefixtures("configured")
def test_a_variable_named_log_is_not_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOG", "debug")  # as many programs have one
    run([{"email": "a@example.com"}])
    assert rows("email", "status") == [("a@example.com", "delivered")]
    with pytest.raises(InvalidSetting) as raised:
        autopilot(log="crm")
    assert str(raised.value) == "autopilot() takes a dataset as its log, got 'crm'"
    monkeypatch.setenv("DESTINATION__AUTOPILOTHQ__LOG", "crm")
    with pytest.raises(InvalidSetting) as raised:
        destination.resolve_settings()
    assert str(raised.value) == (
        "destination.autopilothq.log cannot be configured: the log is a dataset, which only Python code can name"
    )


def test_wrong_settings(server: FakeAutopilot) -> None:
    with pytest.raises(InvalidSetting, match="unknown_traits must be send or refuse, got 'perhaps'"):
        send(server, [], unknown_traits="perhaps")
    assert "secret" not in repr(settings_for(server, api_key="secret"))
    for name in ("timeout", "tries"):
        with pytest.raises(InvalidSetting, match=rf"destination\.autopilothq\.{name} must be a number above 0, got 0"):
            send(server, [], **{name: 0})


def test_unknown_settings_are_errors() -> None:
    more: dict[str, Any] = {"environment": "prod"}  # a setting that dlt has for every destination
    assert autopilot(timeout=5, tries=2, **more).config_params["tries"] == 2
    for name, hint in {"timeuot": "did you mean timeout?", "unknown_trait": "did you mean unknown_traits?"}.items():
        with pytest.raises(InvalidSetting) as raised:
            autopilot(**{name: 1})  # type: ignore[arg-type]
        assert str(raised.value) == f"autopilot() takes no setting {name}: {hint}"
    with pytest.raises(InvalidSetting, match="takes no setting xyz: there are api_key, base_url, requests_per_second,"):
        autopilot(xyz=1)  # type: ignore[call-arg]


@pytest.mark.usefixtures("configured")
@pytest.mark.parametrize("where", ["config.toml", "secrets.toml", "environment"])
def test_unknown_settings_of_the_configuration_are_errors(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if where == "environment":
        monkeypatch.setenv("DESTINATION__AUTOPILOTHQ__TIMEUOT", "5")
    else:
        Path(".dlt").mkdir()
        Path(".dlt", where).write_text("[destination.autopilothq]\ntries = 2\ntimeuot = 5\n")
        active().reload()
    message = r"dlt's configuration has no setting destination\.autopilothq\.timeuot: did you mean timeout\?"
    with pytest.raises(InvalidSetting, match=message):
        destination.resolve_settings()
    with pytest.raises(PipelineStepFailed, match=message):
        run([{"email": "a@example.com"}])


@pytest.mark.parametrize("where", ["secrets.toml", "environment"])
def test_settings_of_ortto_do_not_change_those_of_autopilot(
    where: str, configured: FakeAutopilot, monkeypatch: pytest.MonkeyPatch
) -> None:
    if where == "environment":
        monkeypatch.setenv("DESTINATION__AUTOPILOTHQ__ORTTO__API_KEY", "of-ortto")
    else:
        Path(".dlt").mkdir()
        Path(".dlt", where).write_text("[destination.autopilothq.ortto]\napi_key = 'of-ortto'\n")
        active().reload()
    assert destination.resolve_settings().api.base_url == configured.base_url
    run([{"email": "a@example.com"}])
    assert posts(configured) == [("/contacts", {"contacts": [{"Email": "a@example.com"}]})]


def test_time_out_and_tries_are_settings(configured: FakeAutopilot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DESTINATION__AUTOPILOTHQ__TRIES", "3")
    monkeypatch.setenv("DESTINATION__AUTOPILOTHQ__TIMEOUT", "0.2")
    settings = destination.resolve_settings().api
    assert (settings.tries, settings.timeout) == (3, 0.2)
    configured.order("POST", "/contacts", late=1, times=2)
    run([{"email": "a@example.com", "title": "CEO"}])
    assert len(posts(configured)) == 3


def test_rows_look_like_messages_or_do_not() -> None:
    item = from_row({"email": "a@b.c", "userId": 5, "type": "lead"})
    assert (item.user_id, item.traits, item.once) == ("5", {"email": "a@b.c", "type": "lead"}, False)  # type: ignore[union-attr]
    for row in ({"email": "a@b.c", "messageId": "m"}, {"email": "a@b.c", "type": "lead", "event": "A"}):
        assert from_row(row).traits == row  # type: ignore[union-attr]
    assert [from_row({"email": "a@b.c", "userId": of}).user_id for of in (True, ["u"], 0)] == [None, None, "0"]  # type: ignore[union-attr]
    message = {"type": "track", "messageId": "m", "userId": "u", "event": "A", "originalTimestamp": "t"}
    respelt = {"type": "track", "message_id": "m", "user_id": "u", "event": "A", "original_timestamp": "t"}
    assert from_row(respelt) == from_row({key.lower(): value for key, value in message.items()}) == from_row(message)
    assert from_row(respelt | {"id": 5, "event": None}).once is False  # type: ignore[union-attr]
    again: Callable[..., Any] = lambda **row: from_row(row).message_id  # type: ignore[union-attr] # noqa: E731
    assert again(email="A@b.c", x=1) == again(email="a@b.c", x=2) != again(email="a@b.c", y=1)


def test_a_thread_is_left_by_no_run(server: FakeAutopilot) -> None:
    before = threading.active_count()
    send(server, [identify(1)])
    assert threading.active_count() <= before + 1  # the server's own thread for the connection
