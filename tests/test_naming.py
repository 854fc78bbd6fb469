"""Names of tables and columns follow Segment's rule, byte by byte on ASCII."""

import csv
import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autopilothq.segment.naming import RESERVED_TABLES, column_name, long_path, snake_case, table_name

with Path(__file__).with_name("contract").joinpath("snakecase.csv").open(encoding="utf-8", newline="") as file:
    VECTORS = [(row["input"], row["expected"]) for row in csv.DictReader(file)]


@pytest.mark.parametrize(("name", "slug"), VECTORS)
def test_slugs_are_those_of_segments_vectors(name: str, slug: str) -> None:
    assert snake_case(name) == slug


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("IPAddress", "ipaddress"),
        ("linkURL", "link_url"),
        ("userID", "user_id"),
        ("_id", "id"),
        ("HTTPRequest", "httprequest"),
        ("a__b", "a_b"),
        ("trailing_", "trailing"),
        ("ÉtéPrix", "t_prix"),
        ("naïve", "na_ve"),
        ("名前", ""),
        ("🎉", ""),
        ("", ""),
        ("_", ""),
        ("٣", ""),  # a digit, but not an ASCII one
        ("\u212a", ""),  # the Kelvin sign, whose lower case is an ASCII letter
    ],
)
def test_every_other_byte_separates_words(name: str, slug: str) -> None:
    assert snake_case(name) == slug


@pytest.mark.parametrize(
    ("path", "column"),
    [
        (("product_id", "sku"), "product_id_sku"),
        (("a",), "a"),
        (("2fa",), "_2fa"),
        (("2fa", "on"), "_2fa_on"),
        (("a", "2b"), "a_2b"),
        (("plan", "名前"), ""),
        (("名前", "plan"), ""),
        (("context", "userAgent"), "context_user_agent"),
    ],
)
def test_a_column_is_named_after_its_path(path: tuple[str, ...], column: str) -> None:
    assert column_name(path) == column


def test_a_name_that_sql_could_not_repeat_is_cut_and_stays_another() -> None:
    assert column_name(("a" * 900, "b" * 99)) == "a" * 900 + "_" + "b" * 99
    found = [column_name((*more, "n" * 100_000)) for more in ((), ("b",), ("b", "c"))]
    assert found == [
        f"{whole[:967]}_{hashlib.sha256(whole.encode()).hexdigest()[:32]}"
        for whole in (start + "n" * 100_000 for start in ("", "b_", "b_c_"))
    ]
    assert [len(name) for name in found] == [1_000] * 3


PARTS = st.sampled_from(["a", "Ab9", "9z", "a.b", "é", "", "\ud800k", "x" * 400, "y" * 999, "z" * 1_000, "n" * 5_000])


@given(st.lists(PARTS, min_size=1, max_size=5).map(tuple))
def test_a_long_path_has_the_same_column_as_a_path(path: tuple[str, ...]) -> None:
    found = long_path(path)
    assert found.column() == column_name(path)
    whole = ".".join(path).replace("\ud800", "\\uD800")
    assert len(found.key) <= 1_000
    assert found.key == whole or len(whole) > 1_000


@pytest.mark.parametrize("table", sorted(RESERVED_TABLES))
def test_no_event_takes_a_table_of_the_contract(table: str) -> None:
    assert table_name(table.title()) == f"_{table}"


@pytest.mark.parametrize(
    ("event", "table"),
    [
        ("2FA Enabled", "_2fa_enabled"),
        ("Email Marked as Spam", "email_marked_as_spam"),
        ("_rejects", "rejects"),
        ("名前", ""),
    ],
)
def test_a_table_is_named_after_its_event(event: str, table: str) -> None:
    assert table_name(event) == table


@given(st.text())
def test_a_slug_is_its_own_slug_and_plain(name: str) -> None:
    slug = snake_case(name)
    assert snake_case(slug) == slug
    assert set(slug) <= set("abcdefghijklmnopqrstuvwxyz0123456789_")
    assert not slug.startswith("_")
    assert not slug.endswith("_")
    assert "__" not in slug
