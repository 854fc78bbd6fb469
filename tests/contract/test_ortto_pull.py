"""Pulls from a made-up account of Ortto into DuckDB (docs/contract/ortto-pull.md)."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import autopilothq
from autopilothq import runner
from autopilothq.errors import NotAuthorized
from contract.duck import held, pipeline, query, tables
from contract.pulling_ortto import BOOKS, EVENTS, FEED, asked, new_person, pull, run_folder, settings, tracks
from fake_ortto import FakeOrtto


@pytest.fixture
def server() -> Iterator[FakeOrtto]:
    """An account without made-up people."""
    with FakeOrtto(people=0) as running:
        yield running


def test_an_activity_and_its_person_become_whole_rows(server: FakeOrtto) -> None:
    ada = server.account.write(
        None,
        {
            "str::email": "ada@example.com", "str::ei": "12345", "str::first": "Ada",
            "phn::phone": {"c": "44", "n": "5550100"}, "dtz::b": {"year": 1990, "month": 5, "day": 1, "timezone": "UTC"},
            "geo::city": {"name": "Sydney", "id": 7, "lat": -33868820, "lng": 151209290},
            "int:cm:score": 1234567, "int:cm:seats": 9007199254740993, "dtz:cm:trial-ends":
            {"year": 2026, "month": 12, "day": 31, "timezone": "Australia/Sydney"},
            "tme:cm:last-order": "2026-11-01T05:06:07Z", "phn:cm:work-phone": {"c": "61", "n": "0255501000"},
        },
    )  # fmt: skip
    made = server.account.happen(ada, "act::c", idt__c="d1") | {}
    server.account._happened[ada][0]["attr"] = {
        "idt::c": "d1", "str::cn": "Onboarding", "idt::ei": "e1", "str::asn": "First email", "str::s": "Welcome",
        "str::c": "https://example.com/a", "int::li": 2, "bol::t": False, "bol::m": True,
    }  # fmt: skip
    report = pull(server, *EVENTS, "ortto_people")
    [row] = tables()["email_clicked"]
    at = datetime.fromisoformat(made["created_at"])
    begun = tables()["_profiles"][0]["asked_at"]
    assert {name: value for name, value in row.items() if value is not None and name not in ("uuid_ts", "received_at")} == {
        "id": f"ortto-{made['id']}", "anonymous_id": "ada@example.com", "user_id": "12345", "timestamp": at,
        "original_timestamp": at, "context_traits_email": "ada@example.com", "context_traits_contact_id": ada,
        "context_library_name": "ortto-api", "context_integration_name": "ortto", "event": "email_clicked",
        "event_text": "Email Clicked", "campaign_id": "d1", "campaign_name": "Onboarding", "email_id": "e1",
        "email_name": "First email", "email_subject": "Welcome", "transactional": False, "machine": True,
        "link_id": "2", "link_url": "https://example.com/a",
    }  # fmt: skip
    assert row["received_at"] <= begun
    [person] = tables()["ortto_people"]
    assert {name: value for name, value in person.items() if value is not None and name not in ("uuid_ts", "received_at")} == {
        "contact_id": ada, "email": "ada@example.com", "external_id": "12345", "first_name": "Ada",
        "phone": "+445550100", "birthday": "1990-05-01", "birthday_timezone": "UTC", "city": "Sydney", "city_id": 7,
        "city_lat": -33.86882, "city_lng": 151.20929, "custom_score": 1234.567, "custom_seats": 9007199254740993,
        "custom_trial_ends": "2026-12-31", "custom_trial_ends_timezone": "Australia/Sydney",
        "custom_last_order": datetime(2026, 11, 1, 5, 6, 7, tzinfo=UTC), "custom_work_phone": "+610255501000",
        "first_clicked_email_at": at, "last_clicked_email_at": at,
    }  # fmt: skip
    assert (report.people, report.people_total, report.people_found_by) == (1, 1, "a filter of the account")
