"""What the tests in a browser share: servers in every state, and a page that must be quiet."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.browser import program
from tests.browser.chromium import DESK, chromium, silence

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Give the browser."""
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder for what the servers write."""
    return tmp_path_factory.mktemp("servers")


@pytest.fixture(scope="session")
def waterdorp(folder: Path) -> Iterator[tuple[str, program.Publisher]]:
    """Give the URL of a server that is told of Waterdorp, and who tells it."""
    with program.served(folder) as served:
        yield served


@pytest.fixture(scope="session")
def servers(folder: Path) -> Iterator[dict[str, str]]:
    """Give the URLs of servers in every state."""
    with program.servers(folder) as servers:
        yield servers


@pytest.fixture(params=program.LOOKS)
def look(request: pytest.FixtureRequest, servers: dict[str, str]) -> str:
    """Give the URL of a board in each of its states."""
    server, path = program.LOOKS[request.param]
    return servers[server] + path


@pytest.fixture(scope="session")
def town(folder: Path) -> Iterator[str]:
    """Give the URL of a server with the simulator's feed."""
    with program.town(folder) as url:
        yield url


@dataclass
class Heard:
    """What a browser had to say of its pages."""

    errors: list[str] = field(default_factory=list)
    """Errors and warnings of the console: a breach of the Content-Security-Policy is one."""
    requests: list[str] = field(default_factory=list)
    """The URLs that were asked for."""

    def listen(self, context: BrowserContext) -> None:
        context.on("console", self._console)
        context.on("weberror", lambda error: self.errors.append(str(error.error)))
        context.on("request", self._request)

    def _console(self, message: ConsoleMessage) -> None:
        # That the page itself is a 404 or a 503 is told on the page, and in the console too.
        page = message.page
        of_page = page is not None and message.location["url"] == page.url
        if message.type in ("error", "warning") and not (of_page and "status of" in message.text):
            self.errors.append(f"{message.text} ({message.location['url']})")

    def _request(self, request: Request) -> None:
        self.requests.append(request.url)


@dataclass
class Visitor:
    """Somebody with a browser."""

    browser: Browser
    contexts: list[BrowserContext] = field(default_factory=list)
    heard: Heard = field(default_factory=Heard)

    def come(self, **how: Any) -> Page:
        """Open an empty page; how: what Browser.new_context takes."""
        context = self.browser.new_context(**{"viewport": DESK, "locale": "nl-NL", **how})
        context.set_default_timeout(10_000)
        self.contexts.append(context)
        silence(context)
        self.heard.listen(context)
        return context.new_page()


@pytest.fixture
def visitor(browser: Browser) -> Iterator[Visitor]:
    """Give somebody with a browser, for whom nothing goes wrong on any page, and all of it comes from one host."""
    visitor = Visitor(browser)
    yield visitor
    hosts = {url.split("/")[2] for url in visitor.heard.requests}
    for context in visitor.contexts:
        context.close()
    assert visitor.heard.errors == []
    assert len(hosts) == 1, hosts


@pytest.fixture
def page(visitor: Visitor) -> Page:
    """Give an empty page on a desk."""
    return visitor.come()
