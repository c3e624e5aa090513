"""The board as its stream of events keeps it up to date."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser import program
from tests.browser.chromium import EVENTS_ARE_SERVED
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
