"""Fixtures of the browser tests: servers in every state, and pages, which must not log errors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.browser import program
from tests.browser.chromium import DESKTOP, MEASURE, STREAM, chromium

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Run the browser; yield it."""
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder for the servers' files."""
    return tmp_path_factory.mktemp("servers")


@pytest.fixture(scope="session")
def waterdorp(folder: Path) -> Iterator[tuple[str, program.Publisher]]:
    """Run a server with the feed of Waterdorp; yield its URL and the publisher of the feed."""
    with program.served(folder) as served:
        yield served


@pytest.fixture(scope="session")
def servers(folder: Path, waterdorp: tuple[str, program.Publisher]) -> Iterator[dict[str, str]]:
    """Run servers in every state; yield their URLs."""
    with program.failing_servers(folder) as servers:
        yield {"served": waterdorp[0], **servers}


@pytest.fixture(params=program.LOOKS)
def look(request: pytest.FixtureRequest, servers: dict[str, str]) -> str:
    """Return the URL of a board in each of its states."""
    server, path = program.LOOKS[request.param]
    return servers[server] + path


@pytest.fixture(scope="session")
def town(folder: Path) -> Iterator[str]:
    """Run a server with the simulator's feed; yield its URL."""
    with program.town(folder) as url:
        yield url


@dataclass
class BrowserLog:
    """The errors and requests of a browser."""

    errors: list[str] = field(default_factory=list)
    """Errors and warnings of the console, including violations of the Content-Security-Policy."""
    requests: list[str] = field(default_factory=list)
    """URLs."""

    def listen(self, context: BrowserContext) -> None:
        """Record the errors and requests of a context."""
        context.on("console", self._console)
        context.on("weberror", lambda error: self.errors.append(str(error.error)))
        context.on("request", self._request)

    def _console(self, message: ConsoleMessage) -> None:
        # The status of the page itself, a 404 or a 503, is also an error in the console.
        page = message.page
        is_about_page = page is not None and message.location["url"] == page.url
        if message.type in ("error", "warning") and not (is_about_page and "status of" in message.text):
            self.errors.append(f"{message.text} ({message.location['url']})")

    def _request(self, request: Request) -> None:
        self.requests.append(request.url)


@dataclass
class Visitor:
    """A visitor with a browser."""

    browser: Browser
    contexts: list[BrowserContext] = field(default_factory=list)
    log: BrowserLog = field(default_factory=BrowserLog)

    def open_page(self, **options: Any) -> Page:
        """Return an empty page. options: those of Browser.new_context."""
        context = self.browser.new_context(**{"viewport": DESKTOP, "locale": "nl-NL", **options})
        context.set_default_timeout(10_000)
        self.contexts.append(context)
        self.log.listen(context)
        return context.new_page()

    def open_still(self, url: str, **options: Any) -> Page:
        """Return an open page whose clock stands still, and whose event stream the test controls; see STREAM."""
        page = self.open_page(**options)
        stop_clock(page)
        page.add_init_script(STREAM)
        page.goto(url)
        return page

    def open_measured(self, url: str, **options: Any) -> Page:
        """Return a loaded page on which nothing changes, for SHIFTED and TRANSFERRED."""
        page = self.open_page(**options)
        page.add_init_script(STREAM)  # a newer board and a countdown would change the widths of texts
        page.add_init_script(MEASURE)  # page.clock has no performance.getEntries()
        page.goto(url)
        page.wait_for_load_state("load")
        return page


def stop_clock(page: Page) -> None:
    """Stop the clock of a page; the test advances it."""
    page.clock.install(time=0)
    page.clock.pause_at(1000)


@pytest.fixture
def visitor(browser: Browser) -> Iterator[Visitor]:
    """Yield a visitor; fail if a page logged an error or sent a request to another host."""
    visitor = Visitor(browser)
    yield visitor
    hosts = {url.split("/")[2] for url in visitor.log.requests}
    for context in visitor.contexts:
        context.close()
    assert visitor.log.errors == []
    assert len(hosts) == 1, hosts


@pytest.fixture
def page(visitor: Visitor) -> Page:
    """Return an empty page of desktop size."""
    return visitor.open_page()
