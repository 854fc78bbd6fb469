"""The report's page as HTML: its texts, its escaping and its colours."""

import json
import re
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from html.parser import HTMLParser

import pytest

from autopilothq.report import RateLimit, charts, report_dict, report_page, theme, wording
from autopilothq.report.assemble import (
    OPENING_TIME,
    Pairs,
    cohorts_of,
    day_of,
    days_of,
    drawn,
    journeys_of,
    opening_of,
    rated_until,
)
from autopilothq.report.charts import spread, ticks, verdict
from autopilothq.report.elements import Markup, element
from autopilothq.report.numbers import Absent, ArrivalDelays, Books, Day, Funnel, MailboxDomain, Opening, RecentRun
from autopilothq.report.parts.days import grouped
from reported import EMPTY, HOSTILE, NOW, PARTS, made, nothing


class Page(HTMLParser):
    """The elements of a page with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.texts))


def test_nothing_on_the_page_can_run_or_be_fetched() -> None:
    page = Page(report_page(made(HOSTILE)))
    tags = {tag for tag, _ in page.found}
    attributes = {name for _, given in page.found for name in given}

    allowed = (
        "html head meta title style body main header nav section div span p b a h1 h2 h3 ul li table thead tbody tr "
        "th td details summary svg path code footer br"
    )
    assert tags <= set(allowed.split(" "))
    assert not {name for name in attributes if name.startswith("on") or name in ("src", "srcset", "action", "data")}
    assert all(given["href"].startswith("#") for tag, given in page.found if tag == "a")  # type: ignore[union-attr]
    assert "url(" not in theme.style_sheet()
    assert "@import" not in theme.style_sheet()
    policy = next(given for tag, given in page.found if given.get("http-equiv") == "Content-Security-Policy")
    assert policy["content"] == "default-src 'none'; style-src 'unsafe-inline'"


def test_links_of_the_page_lead_to_its_parts() -> None:
    page = Page(report_page(made()))
    ids = [given["id"] for _, given in page.found if "id" in given]
    assert len(ids) == len(set(ids))
    assert {given["href"] for tag, given in page.found if tag == "a"} <= {f"#{one}" for one in ids}


def test_names_of_strangers_stay_text() -> None:
    html = report_page(made(HOSTILE))
    assert "<script" not in html
    assert "<img" not in html
    assert not re.search("[\x00-\x09\x0b-\x1f\u202a-\u202e\u2066-\u2069]", html)
    shown = "<script>alert(1)</script>\"'>&<img src=x onerror=alert(2)>\\u202egnp.exe\\u2066\\x1b[31mWWW"
    assert shown in Page(html).text
    assert "W" * 130 not in html  # names are cut
    assert element("p", HOSTILE[:26], title='"x') == (
        '<p title="&quot;x">&lt;script&gt;alert(1)&lt;/script&gt;&quot;</p>'
    )
    assert element("p", Markup("<b>a</b>"), None, class_="note") == '<p class="note"><b>a</b></p>'


@pytest.mark.parametrize(
    "said",
    [
        "1 Mar 2019 – 7 Mar 2019 · 197,684 email events · last event 2 h ago · made 7 Mar 2019 20:35 UTC",
        "Delivered 115k 115,400 deliveries to 18,211 people",
        "Opened 46.0% 39,729 of 86,368 people × emails",
        "Clicked 18.4% 15,891 of 86,368 people × emails; 40.0% of opened",
        "Bounced 1.99% 2,335 of 117,493 people × emails sent; keep below 2%",
        "Complaints 0.22% 191 of 86,368 people × emails; keep below 0.1%, never 0.3% ● near the limit",
        "Mail delivered after 5 Mar 2019 18:47 UTC is left out of them, because it may still be opened",
        "28,790 of 115,158.",
        "Bounces are 1.99%, below 2%, but over the limit of 2% at corp.example.com.",
        "The last day goes until the last event, 7 Mar 2019 18:47 UTC.",
        "Onboarding Delivered 24,739",
        "and 8,247 too young for rates",
        "17 other domains 299",
        "2.08% ▲ over",
        "Half of them came within 8 h (dark). 3 opens before the delivery, by the timestamps, left out.",
        "Opened by people 29,000 36.2%",
        "Lines 198,000 Stored 197,370 (99.7%) Duplicates, left out 600 (0.30%) Rejected 30 (0.02%)",
        "✓ lines = stored + duplicates + rejected",
        "30 lines of 198,000 could not be read; see Rejected.",
        "within a minute 100%",
        "not_json 30",
        "The last known run: 7 Mar 2019 20:00 UTC, loaded.",
    ],
)
def test_the_page_says(said: str) -> None:
    assert said in re.sub(r" ([.,])", r"\1", Page(report_page(made())).text)


def test_a_part_without_numbers_says_why() -> None:
    text = Page(report_page(nothing())).text
    assert text.count(EMPTY.reason) == len(PARTS) + 3  # the books are in four places
    assert report_dict(nothing())["links"] == {"absent": "There is nothing."}


def test_lines_that_were_not_asked_for_are_accounted_for() -> None:
    run = RecentRun(NOW, 1, 500, 415, 0, 0, 85)
    text = Page(report_page(replace(made(), books=Books(run, 1, [run], [], [])))).text
    assert "All 500 lines of 1 file are accounted for." in text
    assert "Stored 415 (83.0%) Duplicates, left out 0 Rejected 0 Skipped, not asked for 85 (17.0%)" in text
    assert "✓ lines = stored + duplicates + rejected + skipped" in text
    assert "Loaded Files Lines Stored Duplicates Rejected Skipped 7 Mar 2019 20:35 1 500 415 0 0 85" in text


def test_domains_over_a_limit_have_enough_of_what_the_rate_is_of() -> None:
    domains = [
        MailboxDomain("bounces.example", 5_000, 4_900, 100, 0, 0),
        MailboxDomain("few.example", 199, 199, 199, 199, 199),
        MailboxDomain("enough.example", 200, 0, 200, 200, 200),
        MailboxDomain("young.example", 5_000, 0, 199, 199, 199),
    ]
    text = Page(report_page(replace(made(), domains=domains))).text
    for said in (
        "Bounces are 1.99%, below 2%, but over the limit of 2% at bounces.example.",
        "the 0.1% that providers want and over the limit of 0.3% at enough.example.",
        "Unsubscribes are 0.50%, over the limit of 0.5% (enough.example).",
    ):
        assert said in text


def test_one_is_counted_as_one() -> None:
    run = RecentRun(NOW, 1, 1, 1, 0, 0)
    single = replace(made(), books=Books(run, 1, [run], [], []), arrival=ArrivalDelays([0, 1, 0, 0, 0, 0], 1))
    text = Page(report_page(single)).text
    assert "The 1 line of 1 file is accounted for." in text
    assert "Of 1 event of this period. 1 has no timestamp." in text
    lost = run._replace(stored=0)
    text = Page(report_page(replace(made(), books=Books(lost, 1, [lost], [], [])))).text
    assert "1 line of the files is not accounted for." in text


def test_the_numbers_are_json() -> None:
    found = json.loads(json.dumps(report_dict(made())))
    assert set(PARTS) <= found.keys()
    assert found["limits"]["complaints"] == {"goal": 0.1, "most": 0.3}
    assert found["journeys"][0]["emails"][0] == {
        "id": "Onboarding1", "name": "Onboarding 1", "subject": "Hello",
        "funnel": {
            "delivered": 10_995, "rated": 8_246, "opened": 3_793, "clicked": 1_517, "replied": 82, "complained": 18,
            "unsubscribed": 41,
        },
    }  # fmt: skip
    assert found["days"][0]["day"] == "2019-03-01"
    assert found["period"]["last"] == "2019-03-07T18:47:00+00:00"


# ---- colours -------------------------------------------------------------------------------------------------------


TEXTS = ("text", "muted", "delivered-text", "opened-text", "clicked-text", "over", "near", "good", "link")
DRAWN = ("delivered", "opened", "clicked", "over", "near")


@pytest.mark.parametrize("colors", [theme.LIGHT, theme.DARK])
def test_texts_can_be_read_in_both_themes(colors: dict[str, str]) -> None:
    low = {
        (name, behind): theme.contrast(colors[name], colors[behind]) for behind in ("page", "card") for name in TEXTS
    }
    assert {pair: ratio for pair, ratio in low.items() if ratio < 4.5} == {}
    drawn = {name: theme.contrast(colors[name], colors["card"]) for name in DRAWN}
    assert {name: ratio for name, ratio in drawn.items() if ratio < 3} == {}


@pytest.mark.parametrize("ramp", [theme.LIGHT_RAMP, theme.DARK_RAMP])
def test_numbers_on_each_step_of_the_ramp_can_be_read(ramp: tuple[str, ...]) -> None:
    assert [color for color in ramp if theme.contrast(theme.on(color), color) < 4.5] == []
    dark_first = sorted(ramp, key=lambda color: theme.contrast(color, "#000000"))
    assert list(ramp) in (dark_first, dark_first[::-1])


def test_contrast_is_that_of_wcag() -> None:
    assert theme.contrast("#000000", "#ffffff") == pytest.approx(21)
    assert theme.contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)


# ---- words and numbers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0"), (999, "999"), (1_000, "1k"), (1_500, "1.5k"), (115_158, "115k"), (999_499, "999k"), (999_999, "1m"),
     (5_868_621, "5.87m"), (2_000_000_000, "2bn")],
)  # fmt: skip
def test_large_numbers_have_three_digits(value: int, shown: str) -> None:
    assert wording.rounded(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "–"), (0, "0%"), (0.001, "<0.01%"), (0.005, "0.01%"), (1.994, "1.99%"), (9.994, "9.99%"), (9.996, "10.0%"),
     (46.44, "46.4%"), (100, "100%"), (99.99, "100.0%")],
)  # fmt: skip
def test_shares_are_in_percent(value: float | None, shown: str) -> None:
    assert wording.percents(value) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0 s"), (59, "59 s"), (60, "1 min"), (3_599, "1 h"), (28_700, "8 h"), (86_400, "1 day"), (172_800, "2 days")],
)
def test_spans_of_time_have_one_unit(seconds: int, shown: str) -> None:
    assert wording.length(seconds) == shown


@pytest.mark.parametrize(
    ("most", "found"),
    [
        (0, [0, 1]),
        (1, [0, 1]),
        (3, [0, 1, 2, 3]),
        (5, [0, 1, 2, 3, 4, 5]),
        (17, [0, 5, 10, 15, 20]),
        (17_000, [0, 5000, 10_000, 15_000, 20_000]),
    ],
)
def test_axes_have_round_numbers(most: int, found: list[int]) -> None:
    assert ticks(most) == found


def test_no_half_came_within_the_longest_span_if_more_came_later() -> None:
    """Beyond a week no times are read, so nothing is known of the median but that it lies there."""
    rows = {"delay": [{"number": 3, "opened": 2}, {"number": 10_080, "opened": 3}]}
    found = opening_of(Pairs(rows, 5, 1))
    assert found == Opening([0, 2, *[0] * 10, 3], None)
    text = Page(report_page(replace(made(), opening=found))).text
    assert "5 first opens. More than half of them came after 7 days (dark)." in text


def test_what_charts_show() -> None:
    [path] = re.findall(' d="(.*?)"', charts.sparkline([1, None, 2, 3, None, 4], "label"))
    assert path == "M0.0 192.0h0M400.0 130.7L600.0 69.3M1000.0 8.0h0"  # a value between two gaps is a dot
    bars = charts.columns([("1", "hour"), ("2", "hours")], [1, 3], median=1)
    assert re.findall('class="(column.*?)"', bars) == ["columns", "column", "column median"]
    assert list(map(charts.percent_short, (0, 0.2, 0.5, 99.6))) == ["0%", "<1%", "0%", "100%"]
    lines = [charts.Line(name, name, [1, 2, 2]) for name in "abcd"]
    plot = charts.plot(["x", "y", "z"], lines, "label")
    ends = ["100.0", "107.5", "115.0", "118.0"]  # labels at the ends of lines do not overlap
    assert re.findall('class="end .*?bottom:(.*?)%', plot) == ends
    assert re.findall('class="(tip.*?)"', plot) == ["tip", "tip", "tip left"]


def test_days_on_the_axis_are_spread_evenly() -> None:
    assert (spread(0, 7), spread(1, 7), spread(7, 7), spread(9, 5)) == ([], [0], list(range(7)), [0, 2, 4, 6, 8])
    assert len(spread(366, 7)) <= 7


def test_a_rate_is_near_its_limit_or_over_it() -> None:
    limit = RateLimit(0.1, 0.3)
    assert [verdict(value, limit) for value in (None, 0.09, 0.1, 0.294, 0.2951)] == ["", "", "near", "near", "over"]
    assert [verdict(value, RateLimit(2, 2)) for value in (1.994, 2.0)] == ["", "over"]


# ---- days ----------------------------------------------------------------------------------------------------------


def day(at: date, delivered: int = 1) -> Day:
    return Day(at, delivered, rated=Funnel(delivered, delivered, 1))


def test_days_without_events_are_drawn_too() -> None:
    unit, found = grouped([day(date(2019, 3, 1)), day(date(2019, 3, 4))])
    assert (unit, [one.delivered for one in found]) == ("day", [1, 0, 0, 1])


@pytest.mark.parametrize(("length", "unit", "begin"), [(300, "week", "2018-12-31"), (2_000, "month", "2019-01-01")])
def test_many_days_are_drawn_by_week_or_month(length: int, unit: str, begin: str) -> None:
    found = grouped([day(date(2019, 1, 1) + timedelta(n)) for n in range(length)])
    assert found[0] == unit
    assert found[1][0].day.isoformat() == begin
    assert sum(one.delivered for one in found[1]) == sum(one.rated.rated for one in found[1]) == length
    assert len(found[1]) < 100


def test_events_of_wrong_years_are_not_drawn() -> None:
    usual = [day(date(2019, 3, 1), 5_000), day(date(2019, 3, 2), 5_000), day(date(2019, 3, 31))]
    early, late = [day(date(1970, 1, 1)), day(date(2017, 1, 1))], [day(date(2019, 5, 1)), day(date(2099, 1, 1), 99)]
    assert drawn([*early, *usual, *late]) == usual
    assert drawn(usual) == usual
    few = [day(date(1970, 1, 1), 50), day(date(2019, 3, 1), 100)]
    assert drawn(few) == few


def test_one_event_of_a_wrong_year_is_drawn_only_among_very_few() -> None:
    for count, kept in ((19, True), (20, False)):
        found = [day(date(2019, 3, 1), count - 1), day(date(2099, 1, 1))]
        assert drawn(found) == (found if kept else found[:1])


def test_cohorts_far_from_the_others_are_left_out_and_counted() -> None:
    rows = [{"cohort": n, "after": None, "people": 10 + n} for n in (0, 17_956, 17_957, 47_000)]
    first, last = (datetime(2019, 3, n, tzinfo=UTC) for n in (1, 2))
    found = cohorts_of(rows, "day", 1, last, first)
    assert found
    assert ([row.begin for row in found.rows], found.others) == ([first.date(), last.date()], 47_020)
    text = Page(report_page(replace(made(), cohorts=found))).text
    assert "47,020 people whose first email came at other times are not shown" in text


def test_what_is_dated_after_its_receipt_is_told() -> None:
    text = Page(report_page(replace(made(), arrival=ArrivalDelays([3, 1, 0, 0, 0, 0], 0, 2)))).text
    assert "2 events are dated a day or more after the receipt, and left out of all numbers but those of" in text


def test_journeys_that_are_opened_alike_are_not_compared() -> None:
    found = made().journeys
    assert not isinstance(found, Absent)
    alike = [replace(journey, funnel=found[0].funnel) for journey in found]
    assert "is opened most" in Page(report_page(made())).text
    assert "is opened most" not in Page(report_page(replace(made(), journeys=alike))).text


def test_rare_mail_of_a_long_time_is_drawn() -> None:
    """Days far from the others are left out only if the others are close together."""
    yearly = [day(date(year, 3, 1), 1 + 999 * (year > 2015)) for year in range(2010, 2020)]
    assert drawn(yearly) == yearly


def test_the_page_says_of_which_year_days_are_and_what_is_not_drawn() -> None:
    days = [day(date(1970, 1, 1)), day(date(2018, 12, 31), 5_000), day(date(2019, 1, 1), 5_001)]
    text = Page(report_page(replace(made(), days=days))).text
    assert "1 event before 31 Dec 2018 is not drawn, but counted in all other numbers." in re.sub(
        r" ([.,])", r"\1", text
    )
    assert "31 Dec 2018 5,000 0 0 0 0 0 0 1 Jan 2019 5,001 0 0 0 0 0 0" in text
    quarters = [day(date(2018, 1, 1) + timedelta(90 * n), 10) for n in range(20)]
    assert "Jan 2018 10 0 0 0 0 0 0 Apr 2018 10" in Page(report_page(replace(made(), days=quarters))).text


def test_journeys_beyond_the_largest_are_folded_away() -> None:
    found = made().journeys
    assert not isinstance(found, Absent)
    journeys = [replace(found[0], name=f"Journey {n}", emails=[]) for n in range(13)]
    text = Page(report_page(replace(made(), journeys=journeys))).text
    assert text.index("Journey 11 Delivered") < text.index("1 more journey") < text.index("Journey 12 Delivered")


def test_a_journey_has_the_first_name_among_its_emails_or_its_id() -> None:
    counts = dict.fromkeys(("people", "opened", "clicked", "replied", "complained", "unsubscribed"), 1)
    campaigns = [("c1", None), ("c1", " \xa0"), ("c1", "Onboarding"), ("c1", "Later"), ("c2", "\t"), (None, None)]
    rows = [{"name": f"e{number}", "rated": True, **counts} for number in range(len(campaigns))]
    names = {
        f"e{number}": {"campaign_id": id_, "campaign_name": name, "email_name": name}
        for number, (id_, name) in enumerate(campaigns)
    }
    found = journeys_of(Pairs({"email": rows}, 1, 1), names)
    assert [(journey.id, journey.name, len(journey.emails)) for journey in found] == [
        ("c1", "Onboarding", 4), (None, None, 1), ("c2", "c2", 1),
    ]  # fmt: skip
    assert [email.name for email in found[0].emails] == [None, None, "Later", "Onboarding"]


def test_one_day_and_one_event_make_a_page() -> None:
    single = replace(made(), days=[day(date(2019, 3, 1))])
    page = report_page(single)
    assert "1 Mar 2019 – 1 Mar 2019" in Page(page).text
    assert page.count(' dots"') == 3  # a line of one point would hardly be seen
    assert ' dots"' not in report_page(made())


@pytest.mark.parametrize(
    ("seconds", "day"),
    [
        (-1.0, date(1969, 12, 31)),
        (86_400, date(1970, 1, 2)),
        (253_402_300_799.999999, date.max),  # rounds to the first second of the year 10000 as a float
        (-719_183 * 86_400, date.min),  # the four weeks around the first possible day begin here
    ],
)
def test_a_time_at_the_end_of_the_calendar_has_a_day(seconds: float, day: date) -> None:
    assert day_of(seconds) == day


def test_a_report_may_begin_and_end_at_the_ends_of_the_calendar() -> None:
    first = datetime(1, 1, 1, tzinfo=UTC)
    assert (rated_until(first), rated_until(first + OPENING_TIME * 2)) == (first, first + OPENING_TIME)
    names = ("deliveries", "opens", "clicks", "replies", "bounces", "complaints", "unsubscribes")
    day_2 = {"day": -719_161, **dict.fromkeys(names, 1)}
    assert days_of([day_2], [], first) == days_of([day_2], [], first + timedelta(days=1)) == []
    assert [found.day for found in days_of([day_2], [], first + timedelta(days=1, seconds=1))] == [date(1, 1, 2)]
