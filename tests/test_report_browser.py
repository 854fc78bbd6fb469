"""In a real browser, the report's page fits, is legible, and runs and requests nothing."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import browser
from autopilothq.report import report_page
from reported import HOSTILE, made, nothing

WIDTHS = (360, 768, 1280)
THEMES = ("light", "dark")
# Visible elements that have their own text.
SHOWN = """[...document.querySelectorAll("body *")].filter(one => one.checkVisibility() &&
    [...one.childNodes].some(node => node.nodeType === 3 && node.textContent.trim()))"""
# Elements whose text has a contrast to its background below 4.5.
FAINT = f"""(() => {{
    const luminance = rgb => rgb.map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, n) => sum + v * [0.2126, 0.7152, 0.0722][n], 0);
    const parse = color => color.match(/[\\d.]+/g).map(Number);
    const behind = one => {{
        for (; one; one = one.parentElement) {{
            const color = parse(getComputedStyle(one).backgroundColor);
            if (color.length < 4 || color[3] > 0) return color.slice(0, 3);
        }}
        return [255, 255, 255];
    }};
    return {SHOWN}.map(one => {{
        const text = luminance(parse(getComputedStyle(one).color).slice(0, 3));
        const back = luminance(behind(one));
        const ratio = (Math.max(text, back) + 0.05) / (Math.min(text, back) + 0.05);
        return [ratio, one.className, one.textContent.slice(0, 40)];
    }}).filter(([ratio]) => ratio < 4.5);
}})()"""
# Elements whose text ends beyond the window or beyond a part with its own scroll bar.
BEYOND = f"""{SHOWN}.filter(one => !one.closest(".scroll") && (one.getBoundingClientRect().right > innerWidth + 0.5 ||
    one.getBoundingClientRect().left < -0.5)).map(one => one.className + ": " + one.textContent.slice(0, 40))"""
SMALL = f"""{SHOWN}.filter(one => parseFloat(getComputedStyle(one).fontSize) < 10).map(one => one.textContent)"""
# Cells of tables and grids whose text is cut off.
CUT = """[...document.querySelectorAll("td, .cell, .value, .column .share, .below, .step .n, .name")].filter(one =>
    one.checkVisibility() && one.scrollWidth > one.clientWidth + 1 && getComputedStyle(one).display !== "inline")
    .map(one => one.className + ": " + one.textContent.slice(0, 40))"""


@pytest.fixture(scope="module")
def tab() -> Iterator[browser.Tab]:
    if browser.CHROMIUM is None and not os.environ.get("CHROMIUM_IS_NEEDED"):
        pytest.skip("There is no Chromium here; .ci/run installs it.")
    with browser.tab() as found:
        yield found


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The pages of a usual report, of one with malicious names, and of one without numbers."""
    folder = tmp_path_factory.mktemp("pages")
    found = {}
    for name, report in (("usual", made()), ("hostile", made(HOSTILE)), ("empty", nothing())):
        found[name] = folder / f"{name}.html"
        found[name].write_text(report_page(report))
    return found


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["usual", "hostile", "empty"])
def test_the_page_fits_is_legible_and_runs_nothing(
    tab: browser.Tab, pages: dict[str, Path], name: str, width: int, theme: str
) -> None:
    tab.open(pages[name], width, theme)
    assert tab.ask("document.documentElement.scrollWidth") == tab.ask("innerWidth") == width
    assert tab.ask(BEYOND) == []
    assert tab.ask(FAINT) == []
    assert tab.ask(SMALL) == []
    assert tab.ask(CUT) == []
    assert tab.ask("document.querySelectorAll('script, img, iframe, link, object').length") == 0
    assert tab.said() == []
    assert tab.requests() == [pages[name].absolute().as_uri()]


def test_what_would_be_wrong_is_found(tab: browser.Tab, tmp_path: Path) -> None:
    page = tmp_path / "wrong.html"
    page.write_text(
        "<body style='margin:0'><p style='color:#999;font-size:9px'>a</p><table><td class=cell style='display:block;"
        "width:9px'>abcdefgh</td></table><div style='width:900px;text-align:right'><b>b</b></div>"
        "<script>console.log(1)</script><img src=x.png>"
    )
    tab.open(page, 360, "light")
    assert tab.ask("document.documentElement.scrollWidth") > 360
    assert [text for _, _, text in tab.ask(FAINT)] == ["a"]
    assert (tab.ask(SMALL), tab.ask(CUT), tab.ask(BEYOND)) == (["a"], ["cell: abcdefgh"], [": b"])
    assert len(tab.said()) == 2  # the script, and the missing picture
    assert [url.rpartition("/")[2] for url in tab.requests()] == ["wrong.html", "x.png"]


def test_a_phone_sees_the_same_numbers_as_a_screen(tab: browser.Tab, pages: dict[str, Path]) -> None:
    texts = {}
    for width in WIDTHS:
        tab.open(pages["usual"], width, "light")
        texts[width] = tab.ask("[...document.querySelectorAll('h2, .value, .heat .cell')].map(one => one.innerText)")
        assert tab.ask("[...document.querySelectorAll('.heat .cell')].every(one => one.checkVisibility())")
        assert tab.ask("document.querySelector('.cohorts tbody').innerText").startswith("1 Mar\t1k\t42")
    assert texts[360] == texts[768] == texts[1280]
    assert "46.0%" in texts[360]


def test_bars_are_as_long_as_their_numbers(tab: browser.Tab, pages: dict[str, Path]) -> None:
    tab.open(pages["usual"], 1280, "light")
    lengths, numbers = tab.ask(
        """(() => { const steps = [...document.querySelectorAll(".funnel .step")]; return [
            steps.map(one => one.querySelector(".fill").getBoundingClientRect().width),
            steps.map(one => Number(one.querySelector(".n").innerText.replaceAll(",", "")))]; })()"""
    )
    assert [length / lengths[0] for length in lengths] == pytest.approx([n / numbers[0] for n in numbers], abs=0.005)


def test_pointing_at_a_day_shows_its_numbers(tab: browser.Tab, pages: dict[str, Path]) -> None:
    tab.open(pages["usual"], 1280, "light")
    x, y = tab.ask(
        """(() => { const one = document.querySelectorAll(".hit")[2]; one.scrollIntoView({block: "center"});
            const box = one.getBoundingClientRect(); return [box.x + box.width / 2, box.y + 100]; })()"""
    )
    shown = "[...document.querySelectorAll('.tip')].filter(one => one.checkVisibility()).map(one => one.innerText)"
    assert tab.ask(shown) == []
    tab.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    (tip,) = tab.ask(shown)
    assert tip.split() == ["3", "Mar", "Delivered", "17,000", "Opens", "8,002", "Clicks", "3,002"]


def test_what_pointing_shows_fits_on_a_phone(tab: browser.Tab, pages: dict[str, Path]) -> None:
    tab.open(pages["usual"], 360, "light")
    found = tab.ask(
        """[...document.querySelectorAll(".tip")].map(one => { one.style.display = "block";
            const box = one.getBoundingClientRect(); return [box.left, box.right]; })"""
    )
    assert len(found) == 7
    assert all(left >= 0 and right <= 360 for left, right in found)


def test_the_table_of_days_opens_without_a_script(tab: browser.Tab, pages: dict[str, Path]) -> None:
    tab.open(pages["usual"], 360, "light")
    rows = "document.querySelectorAll('#days tbody tr').length"
    visible = "document.querySelector('#days tbody').checkVisibility()"
    assert (tab.ask(rows), tab.ask(visible)) == (7, False)
    tab.ask("document.querySelector('#days summary').click()")
    assert tab.ask(visible)
    assert tab.ask("document.documentElement.scrollWidth") == 360
