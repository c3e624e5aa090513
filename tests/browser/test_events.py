"""Updates of the board by its event stream."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

from tests.browser import program
from tests.browser.chromium import WALL
from tests.browser.conftest import Visitor, stop_clock

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

STOP = "/board/40000061"
ON_TIME = program.departure(61, "1", "zee", "08:40", TimingPointCode="40000061")


def open_stream(page: Page, url: str) -> None:
    """Open a page, and wait until its stream is open."""
    with page.expect_response("**/events/**") as response:
        page.goto(url)
    assert response.value.status == 200


def test_delay_is_shown(page: Page, waterdorp: tuple[str, program.Publisher]) -> None:
    """The stream brings a delay in the feed to the page, without a request for the page."""
    url, publisher = waterdorp
    publisher.send(program.passtimes(ON_TIME))
    program.until(lambda: program.state(url, STOP) == "live")
    stop_clock(page)  # so that the page does not poll
    open_stream(page, url + STOP)
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.get_by_text("op tijd").wait_for()
    publisher.send(program.passtimes({**ON_TIME, "ExpectedDepartureTime": "08:47:00"}, at="08:14:10"))
    page.get_by_text("7 min later").wait_for()
    assert url + STOP not in requests


def test_hanging_server_is_shown(visitor: Visitor, waterdorp: tuple[str, program.Publisher]) -> None:
    """The page shows that a server hangs with open connections 20 s after its last event, until it has recovered."""
    url, _ = waterdorp
    page = visitor.open_page()
    stop_clock(page)
    open_stream(page, url + program.PATHS["live"])
    page.locator(".clock").wait_for()

    def is_offline() -> bool:
        page.clock.run_for(20_000)  # again if an event was in transit
        return page.locator("#offline").is_visible()

    with program.frozen(url):
        program.until(is_offline)

    def has_recovered() -> bool:
        page.clock.run_for(1_000)
        return page.locator("#offline").is_hidden()

    program.until(has_recovered)


def test_old_departures_remain_until_they_have_left(visitor: Visitor, folder: Path) -> None:
    """Departures with old data remain on a wall until they have left, as in the server's response."""
    with program.served(folder, fresh=60.0) as (url, _):
        program.advance_clock(url)
        path = program.PATHS["live"]
        program.until(lambda: program.state(url, path) == "last_known")
        departures = program.document(url, path)["departures"]
        assert len(departures) == 7
        assert [departure["minutes"] for departure in departures].count(0) > 1
        page = visitor.open_page(viewport=WALL)
        stop_clock(page)
        open_stream(page, f"{url}{path}?view=wall")
        page.clock.run_for(3_000)
        lines = page.locator("tbody tr:visible th .unseen:nth-last-child(2)")
        assert lines.all_inner_texts() == [departure["line"] for departure in departures]
        with program.frozen(url):  # without updates from the server
            page.clock.run_for(480_000)
            departed = ("08:20", "08:23")
            remaining = [
                departure for departure in departures if (departure["expected"] or "")[11:16] not in departed
            ]
            assert lines.all_inner_texts() == [departure["line"] for departure in remaining]
        page.close()


def test_stream_resumes_after_restart(visitor: Visitor, folder: Path) -> None:
    """When the server restarts, the page resumes its stream without a warning."""
    page = visitor.open_page()
    stop_clock(page)  # however long the restart takes
    publisher = program.Publisher(f"ipc://{folder}/restart")
    try:
        with program.cache(folder, publisher.address) as url:
            publisher.wait()
            publisher.send(program.passtimes(ON_TIME))
            program.until(lambda: program.state(url, STOP) == "live")
            open_stream(page, url + STOP)
        page.evaluate("new MutationObserver(() => { window.warned = true }).observe(offline, {attributes: true})")
        with program.cache(folder, publisher.address, listen=url.partition("//")[2]):
            publisher.wait()
            publisher.send(program.passtimes({**ON_TIME, "ExpectedDepartureTime": "08:47:00"}))
            page.get_by_text("7 min later").wait_for(timeout=60_000)
        assert page.evaluate("window.warned") is None
    finally:
        publisher.close()
    # The browser logs every failed attempt to reconnect.
    assert all("/events/" in error for error in visitor.log.errors)
    visitor.log.errors.clear()


class Site(BaseHTTPRequestHandler):
    """Another site, with one page."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<p>Another site")

    def log_message(self, *arguments: object) -> None:
        pass


def test_stream_of_another_site(browser: Browser, waterdorp: tuple[str, program.Publisher]) -> None:
    """A page of another site receives events, none of them empty, and may send Last-Event-ID itself."""
    url, publisher = waterdorp
    publisher.send(program.passtimes(ON_TIME))
    program.until(lambda: program.state(url, STOP) == "live")
    site = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    thread = Thread(target=site.serve_forever)
    thread.start()
    context = browser.new_context()
    try:
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{site.server_port}/")
        events, last_id, first = page.evaluate(
            """async (url) => {
              const events = [], source = new EventSource(url);
              for (const name of ["message", "board", "beat", "error"])
                source.addEventListener(name, () => events.push(name));
              const event = await new Promise((resolve) => {
                source.addEventListener("board", resolve);
                source.addEventListener("error", resolve);
              });
              source.close();
              const response = await fetch(url, {headers: {"Last-Event-ID": event.lastEventId}});
              const chunk = await response.body.getReader().read();
              return [events, event.lastEventId, new TextDecoder().decode(chunk.value)];
            }""",
            url + STOP.replace("/board/", "/events/") + "?as=json",
        )
    finally:
        context.close()
        site.shutdown()
        site.server_close()
        thread.join()
    assert events == ["board"]
    assert last_id
    assert "event: beat\n" in first
