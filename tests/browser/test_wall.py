"""Wall displays in a browser: rows, pages, messages, upgrades, and a day on a kiosk."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from tests.browser import program
from tests.browser.chromium import KIOSK, OVERFLOWING, SHIFTED, SIZES, TRANSFERRED
from tests.browser.conftest import Visitor
from tests.browser.program import PATHS, STATION, Publisher

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Page

# The rows of each table that are on its current page, and those of them that are not wholly visible.
VISIBLE = """() => [...document.querySelectorAll("tbody")].map(body => {
  const box = body.getBoundingClientRect();
  const rows = [...body.rows].map(row => row.getBoundingClientRect())
    .filter(row => row.height && row.left >= box.left - 1 && row.right <= box.right + 1);
  const cut = rows.filter(row => row.bottom > box.bottom + 1 || row.top < box.top - 1);
  return [rows.length, cut.length, rows.length ? (box.bottom - rows[rows.length - 1].bottom) / rows[0].height : 0];
})"""


# Lets all departures leave now, also those with an old time beside it.
ALL_NOW = """() => document.querySelectorAll(".left").forEach(node => {
  node.textContent = document.getElementById("board").dataset.nowText;
})"""


@pytest.fixture(scope="module")
def waterdorp(folder: Path) -> Iterator[tuple[str, Publisher]]:
    """Run a server with the feed of Waterdorp, whose clock is still; yield its URL and the publisher of the feed."""
    with program.served(folder) as served, program.still(served[0]):
        yield served


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size['width']}x{size['height']}")
def test_as_many_rows_as_fit(page: Page, town: str, size: Any) -> None:
    """A wall shows whole rows only, and one more would not fit; nothing overflows the screen."""
    page.set_viewport_size(size)
    for look in ("", "&theme=paper&size=large", "&size=small&lang=fr"):
        page.goto(f"{town}{STATION}?view=wall&limit=60&horizon=600{look}")
        ((rows, cut, room),) = page.evaluate(VISIBLE)
        assert rows >= 4, look
        assert cut == 0, look
        assert room < 1.5, look  # a destination may need two lines
        width, height = page.evaluate("[document.body.scrollWidth, document.documentElement.scrollHeight]")
        assert (width, height) <= (size["width"], size["height"])


def test_pages_of_a_wall(visitor: Visitor, waterdorp: tuple[str, Publisher]) -> None:
    """With rotate, further departures are shown as pages, each for this long; messages do not move the rows."""
    url, _ = waterdorp
    page = visitor.open_still(f"{url}{PATHS['wall']}&rotate=10", viewport=KIOSK)

    def lines() -> list[str]:
        return [
            row.locator("th .unseen").last.inner_text()
            for row in page.locator("tbody tr").all()
            if (box := row.bounding_box()) and 0 <= box["x"] < KIOSK["width"] / 2
        ]

    page.clock.run_for(100)
    first = lines()
    page.clock.run_for(10_000)
    second = lines()
    assert [*first, *second] == ["1", "2", "7", "35", "N88", "300", "2", "1"]
    assert page.locator("header").get_attribute("data-page") == "2/2"
    page.clock.run_for(10_000)
    assert lines() == first
    top = page.locator("tbody").bounding_box()
    page.evaluate("document.querySelector('.messages').remove()")
    assert page.locator("tbody").bounding_box() == top


def test_every_part_of_a_long_message_is_shown(visitor: Visitor, waterdorp: tuple[str, Publisher]) -> None:
    """A message that does not fit into its strip continues on further pages."""
    url, _ = waterdorp
    page = visitor.open_still(url + PATHS["wall"], viewport=KIOSK)
    page.evaluate("document.querySelector('.messages li').textContent = 'omleiding '.repeat(30)")
    positions = set()
    for _ in range(8):
        page.clock.run_for(8_000)
        positions.add(page.locator(".messages").evaluate("node => node.scrollLeft / node.clientWidth"))
    assert positions == set(range(round(max(positions)) + 1))
    assert len(positions) >= 3


def test_only_messages_have_the_whole_width(visitor: Visitor, waterdorp: tuple[str, Publisher]) -> None:
    """If only one of two stops has messages, their strip is as wide as the wall; else half of it."""
    url, _ = waterdorp
    page = visitor.open_still(url + PATHS["wall of two"], viewport=KIOSK)
    section = page.locator(".stop", has=page.locator(".messages"))
    width = section.evaluate("node => node.parentNode.clientWidth")
    assert section.evaluate("node => node.classList.contains('informing')")
    assert section.locator(".messages").evaluate("node => node.clientWidth") == width
    section.evaluate("node => node.classList.remove('informing')")
    assert section.locator(".messages").evaluate("node => node.clientWidth") < width / 2


def test_no_text_is_wider_than_its_box(page: Page, waterdorp: tuple[str, Publisher]) -> None:
    """In every language and size no text leaves its column, on boards, walls and journeys."""
    url, _ = waterdorp
    page.goto(url + PATHS["live"])
    journey = page.locator(".name a").first.get_attribute("href")
    for lang in ("nl", "en", "de", "fr"):
        for path in (PATHS["live"], PATHS["wall"], PATHS["wall of two"], str(journey).partition("?")[0]):
            page.goto(f"{url}{path}{'&' if '?' in path else '?'}lang={lang}")
            page.evaluate(ALL_NOW)
            for size in SIZES:
                page.set_viewport_size(size)
                assert page.evaluate(OVERFLOWING) == [], (lang, path, size)


def test_page_reloads_after_an_upgrade(visitor: Visitor, waterdorp: tuple[str, Publisher]) -> None:
    """When the server has other pages than those that are open, they reload within a minute."""
    url, _ = waterdorp
    page = visitor.open_still(url + PATHS["wall"], viewport=KIOSK)
    page.evaluate("window.isOld = true; 0")
    html = page.locator("#board").inner_html()
    page.evaluate("html => stream.emit('board', html)", html + " ")
    page.clock.run_for(70_000)
    assert page.evaluate("window.isOld")
    version = page.locator(".clock").get_attribute("data-version")
    page.evaluate("html => stream.emit('board', html)", html.replace(str(version), "0123456789ab"))
    page.clock.run_for(60_000)
    page.wait_for_function("() => !window.isOld")


def test_memory_is_flat(visitor: Visitor, waterdorp: tuple[str, Publisher]) -> None:
    """After two hours of events, a wall has no more nodes, listeners or memory than after a quarter of an hour.

    With HOURS=24 it is a day, in a minute and a half.
    """
    url, _ = waterdorp
    page = visitor.open_still(f"{url}{PATHS['wall']}&rotate=120", viewport=KIOSK)
    session = page.context.new_cdp_session(page)
    html = page.locator("#board").inner_html()
    # Each event differs from the last, as those of a server do, and has a message of its own.
    emit = """([html, from, to]) => { for (let n = from; n < to; n++) {
      stream.emit("board", html.replace("<li data-news", `<li data-news="">${n}</li><li data-news`)); } }"""

    def run(begin: int, end: int) -> dict[str, float]:
        for n in range(begin, end, 45):  # an event every ten seconds
            page.evaluate(emit, [html, n, n + 45])
            page.clock.fast_forward(450_000)
            page.evaluate("stream.emit('beat', '')")
        session.send("HeapProfiler.collectGarbage")
        counters = session.send("Memory.getDOMCounters")
        memory = session.send("Runtime.getHeapUsage")["usedSize"]
        return {"nodes": counters["nodes"], "listeners": counters["jsEventListeners"], "memory": memory}

    early, late = run(0, 90), run(90, 360 * int(os.environ.get("HOURS", "2")))
    assert late["nodes"] <= early["nodes"] * 1.1
    assert late["listeners"] <= early["listeners"]
    assert late["memory"] <= early["memory"] * 1.2


def test_page_is_light_and_still(visitor: Visitor, town: str) -> None:
    """A wall loads less than 60 kB, and nothing on it moves while it loads or changes."""
    page = visitor.open_measured(f"{town}{STATION}?view=wall", viewport=SIZES[2])
    page.evaluate("document.getElementById('board').innerHTML += ''")
    assert 5_000 < page.evaluate(TRANSFERRED) < 60_000
    assert page.evaluate(SHIFTED) == 0


def test_states_differ_without_colours(page: Page, waterdorp: tuple[str, Publisher]) -> None:
    """With forced colours and on paper, each state has its own words, and all text is of one colour."""
    url, _ = waterdorp
    media: Any  # a Literal of Playwright, which type checks run without
    for media, theme in (("active", ""), ("none", "?theme=paper")):
        page.emulate_media(forced_colors=media)
        page.goto(f"{url}{PATHS['live']}{theme}")
        states = {
            row.get_attribute("class"): row.locator(".state").inner_text() for row in page.locator("tbody tr").all()
        }
        assert len(set(states.values())) == len(states) == 7
        colors = page.locator(".state, .when, .name").evaluate_all(
            "nodes => [...new Set(nodes.map(node => getComputedStyle(node).color))]"
        )
        assert len(colors) == 1, (media, theme)


@pytest.mark.parametrize("theme", ["contrast", "paper"])
def test_journey_and_themes_are_accessible(page: Page, waterdorp: tuple[str, Publisher], theme: str) -> None:
    """axe finds no violation on a journey, an unknown one and a wall, in light, dark, high contrast and on paper."""
    from axe_playwright_python.sync_playwright import Axe

    url, _ = waterdorp
    page.goto(url + PATHS["live"])
    journey = str(page.locator(".name a").first.get_attribute("href"))
    for path in (journey, f"{journey}&theme=dark", f"{PATHS['wall']}&theme={theme}", "/trip/LIN_1_2_3_4?lang=fr"):
        page.goto(url + path)
        report = Axe().run(page)
        assert report.violations_count == 0, f"{path}: {report.generate_report()}"
    page.set_viewport_size({"width": 640, "height": 480})  # as a window of 1280 pixels at 200 %
    assert page.evaluate("document.documentElement.scrollWidth") <= 640
