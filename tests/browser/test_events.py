"""The board as its stream of events keeps it up to date."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser import program
from tests.browser.chromium import EVENTS_ARE_SERVED, WALL
from tests.browser.conftest import Visitor

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.skipif(not EVENTS_ARE_SERVED, reason="/events/<codes> is not there yet")

STOP = "/board/40000061"
ON_TIME = program.departure(61, "1", "zee", "08:40", TimingPointCode="40000061")


def streams(page: Page, url: str) -> None:
    """Look at the page, until its stream has begun."""
    with page.expect_response("**/events/**") as begun:
        page.goto(url)
    assert begun.value.status == 200


def test_delay(page: Page, waterdorp: tuple[str, program.Publisher]) -> None:
    """A delay that the feed tells of is on the page two seconds later, and the page was not asked for again."""
    url, publisher = waterdorp
    publisher.send(program.passes(ON_TIME))
    program.until(lambda: program.state(url, STOP) == "live")
    streams(page, url + STOP)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.get_by_text("op tijd").wait_for()
    publisher.send(program.passes({**ON_TIME, "ExpectedDepartureTime": "08:47:00"}, at="08:14:10"))
    page.get_by_text("7 min later").wait_for(timeout=2_000)
    assert url + STOP not in asked


def test_frozen(visitor: Visitor, waterdorp: tuple[str, program.Publisher]) -> None:
    """That the server hangs, with all connections open, is told within a minute or so; and that it is well again."""
    url, _ = waterdorp
    page = visitor.come()
    page.clock.install(time=0)
    page.clock.pause_at(1000)
    streams(page, url + program.PATHS["live"])
    page.locator(".on_time").first.wait_for()
    with program.frozen(url):
        page.clock.run_for(50_000)
        assert page.locator("#offline").is_hidden()
        page.clock.run_for(45_000)
        assert page.locator("#offline").is_visible()

    def is_well() -> bool:
        page.clock.run_for(1_000)
        return page.locator("#offline").is_hidden()

    program.until(is_well)


def test_silent_feed(visitor: Visitor, folder: Path) -> None:
    """Old news makes nobody leave: a wall shows as many departures as the server tells of, until they have left."""
    with program.served(folder, fresh=60.0) as (url, _):
        program.later(url)
        path = program.PATHS["live"]
        program.until(lambda: program.state(url, path) == "last_known")
        told = program.document(url, f"{path}?limit=7")["departures"]
        assert len(told) == 7
        assert [one["minutes"] for one in told].count(0) > 1
        page = visitor.come(viewport=WALL)
        page.clock.install(time=0)
        page.clock.pause_at(1000)
        streams(page, f"{url}{path}?view=wall")
        page.clock.run_for(3_000)
        lines = page.locator("tbody tr:visible th .unseen")
        assert lines.all_inner_texts() == [one["line"] for one in told]
        with program.frozen(url):  # or it would say what time it is
            page.clock.run_for(480_000)
        gone = ("08:20", "08:23")
        assert lines.all_inner_texts() == [one["line"] for one in told if (one["expected"] or "")[11:16] not in gone]
        page.close()


def test_farewell(visitor: Visitor, folder: Path) -> None:
    """A page whose server ends and comes back takes up its stream again, and was calm meanwhile."""
    page = visitor.come()
    publisher = program.Publisher(f"ipc://{folder}/farewell")
    try:
        with program.cache(folder, publisher.address) as url:
            publisher.wait()
            publisher.send(program.passes(ON_TIME))
            program.until(lambda: program.state(url, STOP) == "live")
            streams(page, url + STOP)
        page.evaluate("new MutationObserver(() => { window.worried = true }).observe(offline, {attributes: true})")
        with program.cache(folder, publisher.address, listen=url.partition("//")[2]):
            publisher.wait()
            publisher.send(program.passes({**ON_TIME, "ExpectedDepartureTime": "08:47:00"}))
            page.get_by_text("7 min later").wait_for(timeout=20_000)
        assert page.evaluate("window.worried") is None
    finally:
        publisher.close()
    # While nobody listens the browser says so of every attempt.
    assert all("/events/" in error for error in visitor.heard.errors)
    visitor.heard.errors.clear()
