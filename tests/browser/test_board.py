"""The departure board in a browser."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from govi_server.pages.texts import TEXTS
from tests.browser.chromium import DESKTOP, PHONE, WALL
from tests.browser.conftest import Visitor, stop_clock
from tests.browser.program import PATHS, STATION, Publisher, departure, document, passtimes, state, until

if TYPE_CHECKING:
    from playwright.sync_api import Page

Waterdorp = tuple[str, Publisher]

# Collects the content of live regions, which screen readers announce when it changes.
ANNOUNCED = """() => {
  const live = "[aria-live]:not([aria-live=off]), [role=status], [role=alert], [role=log], output";
  const region = node => (node.nodeType === 1 ? node : node.parentElement).closest(live);
  window.announced = [];
  new MutationObserver(records => {
    for (const part of new Set(records.map(record => region(record.target)))) {
      if (part) { announced.push(part.textContent); }
    }
  }).observe(document, {subtree: true, childList: true, characterData: true, attributes: true});
}"""
FOUR_LOOKS = ("live", "planned", "cancelled", "none")
# The board that the server would send now.
FRAGMENT = """() => fetch(location.href, {cache: "no-store"}).then(response => response.text()).then(
  text => new DOMParser().parseFromString(text, "text/html").getElementById("board").innerHTML)"""


def rows(page: Page) -> list[list[str]]:
    """Return the texts of the table's cells."""
    cells = "th .unseen:nth-last-child(2), td"  # without the mode of transport
    return [
        [" ".join(text.split()) for text in row.locator(cells).all_inner_texts()]
        for row in page.locator("tbody tr:visible").all()
    ]


def remaining_times(page: Page) -> list[str]:
    """Return the remaining times of the departures with a countdown."""
    return page.locator("[data-at]:visible").all_inner_texts()


def test_page_equals_json_document(page: Page, town: str) -> None:
    """The page has the name of the stop, column headers, and the departures of the JSON document."""
    page.goto(f"{town}{STATION}?lang=en")
    assert page.title() == "Station \N{EN DASH} departures"
    assert page.locator("h1").inner_text() == "Station"
    assert page.locator("p.town").inner_text() == "Lindewaard"
    assert page.locator("thead th").all_inner_texts() == ["Line", "Destination", "Departure"]

    def departures_are_equal() -> bool:
        page.reload()
        departures = document(town, f"{STATION}?limit=20")["departures"]
        expected = [[departure["line"], departure["destination"]] for departure in departures]
        return len(expected) > 3 and [[line, to] for line, to, *_ in rows(page)] == expected

    until(departures_are_equal)  # a bus may leave between the two requests


def test_rows_of_every_kind(page: Page, waterdorp: Waterdorp) -> None:
    """Every kind of departure has its text; messages are above the table."""
    url, _ = waterdorp
    page.goto(url + PATHS["live"])
    assert rows(page) == [
        ["1", "Zeedijk", "A", "Nu bij de halte"],
        ["2", "Universiteit via Centrum", "B", "5 min op tijd"],
        ["7", "Oude Haven", "A", "was 08:25 8 min 2 min eerder"],
        ["35", "Ziekenhuis", "C", "was 08:22 08:26 4 min later"],
        ["N88", "Burgemeester van Rijckevorselplein", "B", "08:27 vervalt"],
        ["300", "Bovendorp Kleinere bus", "D", "08:31 op tijd"],
        ["2", "Universiteit via Centrum", "B", "08:35 vertraging onbekend"],
        ["1", "Zeedijk", "A", "08:44 dienstregeling"],
    ]
    message, table = page.locator(".messages li").bounding_box(), page.locator("table").bounding_box()
    assert message is not None
    assert table is not None
    assert message["y"] + message["height"] <= table["y"]


def test_link_to_journey_keeps_the_theme(page: Page, town: str) -> None:
    """A link to a journey passes on the board's theme and language, and the one back to a board as well."""
    page.goto(f"{town}{STATION}?lang=en&theme=dark")
    for destination in ("**/trip/*", "**/board/*"):
        page.locator(".destination a, a.destination, a.name").first.click()
        page.wait_for_url(destination)
        assert {"theme=dark", "lang=en"} <= set(urlsplit(page.url).query.split("&"))


def test_page_counts_down(visitor: Visitor, waterdorp: Waterdorp) -> None:
    """Without events the clock and the countdowns continue, and past departures disappear."""
    url, _ = waterdorp
    page = visitor.open_still(f"{url}{PATHS['live']}?limit=3")
    times = remaining_times(page)
    minutes = int(times[1].removesuffix(" min"))
    assert times == ["Nu", f"{minutes} min", f"{minutes + 3} min"]
    clock = page.locator(".clock")
    next_bus = page.locator("[data-at]").nth(1).get_attribute("data-at")
    now = int(clock.get_attribute("data-now") or 0)
    seconds = (int(next_bus or 0) - now) % 60
    page.clock.run_for(1000 * seconds)
    assert remaining_times(page)[1] == f"{minutes} min"
    page.clock.run_for(1000)
    assert remaining_times(page)[1] == f"{minutes - 1} min"
    hour, minute = clock.inner_text().split(":")
    page.clock.run_for(60_000)
    assert remaining_times(page)[1] == f"{minutes - 2} min"
    assert clock.inner_text() == f"{hour}:{int(minute) + 1}"
    page.clock.run_for(180_000)
    assert remaining_times(page)[0] == "Nu"
    planned = datetime.fromisoformat(page.locator("[data-at]").nth(1).get_attribute("datetime") or "").timestamp()
    rest = planned + 150 - now - seconds - 241
    page.clock.run_for(1000 * int(rest))  # the second departure has gone, the third has not
    assert [line for line, *_ in rows(page)] == [
        "1",
        "7",
    ]  # the first remains at the stop until the server sends a change
    assert page.locator("#offline").is_hidden()


def test_page_polls_without_a_stream(visitor: Visitor, waterdorp: Waterdorp) -> None:
    """Without a stream the page polls the server."""
    url, publisher = waterdorp
    on_time = departure(21, "1", "zee", "08:40", TimingPointCode="40000051")
    publisher.send(passtimes(on_time))
    until(lambda: state(url, "/board/40000051") == "live")
    page = visitor.open_page()
    stop_clock(page)
    page.route("**/events/**", lambda route: route.fulfill(content_type="text/event-stream", body=":\n\n"))
    page.goto(f"{url}/board/40000051")
    assert rows(page) == [["1", "Zeedijk", "08:40 op tijd"]]
    publisher.send(passtimes({**on_time, "ExpectedDepartureTime": "08:47:00"}, at="08:14:10"))
    until(lambda: document(url, "/board/40000051")["departures"][0]["state"] == "late")
    page.clock.fast_forward(30_000)
    page.get_by_text("7 min later").wait_for()


def test_lost_connection_is_shown(visitor: Visitor, waterdorp: Waterdorp) -> None:
    """A page without a connection continues, and shows the time of its last update until it reconnects."""
    url, _ = waterdorp
    page = visitor.open_still(url + PATHS["live"])
    clock = page.locator(".clock").inner_text()
    page.context.set_offline(True)
    page.evaluate("stream.readyState = 0")
    page.clock.run_for(17_000)
    assert page.locator("#offline").is_hidden()
    page.clock.run_for(3_000)
    assert page.locator("#offline").inner_text() == f"Geen verbinding. Laatst bijgewerkt om {clock}."
    assert len(remaining_times(page)) > 3
    soft = page.locator("tbody .platform").first.evaluate("node => getComputedStyle(node).color")
    assert page.locator(".on_time .state").first.evaluate("node => getComputedStyle(node).color") == soft
    page.context.set_offline(False)
    page.clock.run_for(30_000)
    page.locator("#offline").wait_for(state="hidden")
    assert all("ERR_INTERNET_DISCONNECTED" in error for error in visitor.log.errors)
    visitor.log.errors.clear()


def test_lost_connection_without_a_board(visitor: Visitor, waterdorp: Waterdorp) -> None:
    """A page that has never shown a board does not say when it was updated."""
    url, _ = waterdorp
    page = visitor.open_still(url + "/board/99999999")
    page.context.set_offline(True)
    page.evaluate("stream.readyState = 0")
    page.clock.run_for(20_000)
    assert page.locator("#offline").inner_text() == "Geen verbinding."
    visitor.log.errors.clear()


def test_same_notice_of_two_stops_is_announced_once(visitor: Visitor, waterdorp: Waterdorp) -> None:
    """Notices that are equal are announced as one sentence; others follow it."""
    url, _ = waterdorp
    page = visitor.open_still(url + PATHS["live"])
    page.evaluate(ANNOUNCED)
    notices = "".join(f"<p data-news>{text}</p>" for text in ("Geen informatie.", "Geen informatie.", "Omleiding"))
    page.evaluate("html => stream.emit('board', html)", notices)
    page.clock.run_for(1_000)
    assert page.evaluate("announced") == ["Geen informatie. Omleiding"]


def test_short_absence_is_not_shown(visitor: Visitor, waterdorp: Waterdorp) -> None:
    """If the server is absent for a few seconds, the page shows no warning, even after hours."""
    url, _ = waterdorp
    page = visitor.open_still(url + PATHS["live"])
    page.clock.run_for(600_000)
    page.route("**/board/**", lambda route: route.abort())
    page.evaluate("stream.emit('bye', ''); stream.readyState = 0")
    page.clock.run_for(8_000)
    assert page.locator("#offline").is_hidden()
    page.clock.run_for(15_000)
    assert page.locator("#offline").is_visible()
    page.evaluate("stream.readyState = 1; stream.emit('open', '')")
    page.clock.run_for(1_000)
    assert page.locator("#offline").is_hidden()
    assert all("ERR_FAILED" in error for error in visitor.log.errors)
    visitor.log.errors.clear()


def test_silent_stream_is_reopened(visitor: Visitor, waterdorp: Waterdorp) -> None:
    """A stream that is open but sends no beats is reopened, and meanwhile the page is marked offline."""
    url, _ = waterdorp
    page = visitor.open_still(url + PATHS["live"])
    page.route("**/board/**", lambda route: route.abort())
    page.clock.run_for(600_000)
    assert page.locator("#offline").is_hidden()
    page.evaluate("window.lost = stream; window.emit = lost.emit; EventSource.prototype.emit = () => {}; 0")
    page.clock.run_for(20_000)
    assert page.locator("#offline").is_visible()
    assert page.evaluate("[lost.readyState, stream === lost]") == [2, False]
    page.evaluate("EventSource.prototype.emit = emit; 0")
    page.clock.run_for(15_000)
    assert page.locator("#offline").is_hidden()
    assert all("ERR_FAILED" in error for error in visitor.log.errors)
    visitor.log.errors.clear()


def test_cancellation_is_announced_once(visitor: Visitor, waterdorp: Waterdorp) -> None:
    """A cancellation is announced once to screen readers; countdowns are not announced."""
    url, publisher = waterdorp
    on_time = departure(22, "1", "zee", "08:40", TimingPointCode="40000052")
    publisher.send(passtimes(on_time, departure(23, "1", "zee", "08:18", TimingPointCode="40000052")))
    until(lambda: state(url, "/board/40000052") == "live")
    page = visitor.open_still(f"{url}/board/40000052")
    page.evaluate(ANNOUNCED)
    page.clock.run_for(600_000)
    assert page.evaluate("announced") == []
    publisher.send(passtimes({**on_time, "TripStopStatus": "CANCEL"}, at="08:14:10"))
    until(lambda: document(url, "/board/40000052")["departures"][1]["state"] == "cancelled")
    for suffix in ("", "<!-- repeated -->"):
        page.evaluate("html => stream.emit('board', html)", page.evaluate(FRAGMENT) + suffix)
        page.clock.run_for(600_000)
    assert page.evaluate("announced") == ["bus, 1, Zeedijk, 08:40 vervalt"]
    page.evaluate("stream.readyState = 0")
    page.route("**/board/**", lambda route: route.abort())
    page.clock.run_for(600_000)
    assert page.evaluate("announced")[1:] == [page.locator("#offline").inner_text()]
    assert all("ERR_FAILED" in error for error in visitor.log.errors)
    visitor.log.errors.clear()


def test_page_reloads_without_scripts(visitor: Visitor, waterdorp: Waterdorp) -> None:
    """Without scripts the page shows the board, and reloads itself."""
    url, _ = waterdorp
    page = visitor.open_page(java_script_enabled=False)
    page.goto(url + PATHS["live"])
    assert rows(page)[3] == ["35", "Ziekenhuis", "C", "was 08:22 08:26 4 min later"]
    n_requests = visitor.log.requests.count(url + PATHS["live"])
    session = page.context.new_cdp_session(page)
    with page.expect_request(url + PATHS["live"]):
        session.send("Emulation.setVirtualTimePolicy", {"policy": "advance", "budget": 21_000})
    assert n_requests == 1


def test_keyboard_reaches_all_controls(page: Page, waterdorp: Waterdorp) -> None:
    """The Tab key reaches all controls in order, and the focus is visible."""
    url, _ = waterdorp
    page.goto(url + PATHS["live"])
    links = page.locator("a, summary, button:visible, input:visible, select:visible, [tabindex]")
    destinations = page.locator("td .name").all_inner_texts()
    assert links.all_inner_texts() == [
        *destinations,
        *(TEXTS["nl"][name] for name in ("options", "search_again", "about_link", "make_link")),
        "Nederlands",
        "English",
        "Deutsch",
        "Français",
    ]
    for link in links.all():
        page.keyboard.press("Tab")
        assert link.evaluate("node => node === document.activeElement")
        assert link.evaluate("node => getComputedStyle(node).outlineStyle") == "solid"
        assert link.evaluate("node => parseFloat(getComputedStyle(node).outlineWidth)") >= 2
        assert link.bounding_box() is not None
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    page.wait_for_url("**lang=de")
    assert page.locator("html").get_attribute("lang") == "de"


def test_page_does_not_scroll_sideways(page: Page, look: str) -> None:
    """No board scrolls sideways on a phone, a desktop or a wall."""
    page.goto(look)
    for size in (PHONE, DESKTOP, WALL):
        page.set_viewport_size(size)
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"], size


def test_wall_does_not_scroll(visitor: Visitor, waterdorp: Waterdorp) -> None:
    """On a wall the board is visible without scrolling."""
    url, _ = waterdorp
    page = visitor.open_page()
    landscape: Any = {"width": 1920, "height": 1080}
    portrait: Any = {"width": 1080, "height": 1920}
    four = ",".join(path.removeprefix("/board/") for look, path in PATHS.items() if look in FOUR_LOOKS)
    looks = {PATHS["wall"]: 7, PATHS["wall of two"]: 7, f"/board/{four}?view=wall": 6}
    for size in (WALL, landscape, portrait):
        page.set_viewport_size(size)
        for look, min_rows in looks.items():
            page.goto(url + look)
            assert len(rows(page)) >= min_rows
            assert page.evaluate("document.documentElement.scrollHeight") <= size["height"], (look, size)


def test_names_wrap_on_portrait_wall(visitor: Visitor, waterdorp: Waterdorp) -> None:
    """On a portrait wall names wrap instead of being cut off."""
    url, _ = waterdorp
    page = visitor.open_page(viewport={"width": 1080, "height": 1920})
    page.goto(url + PATHS["wall"])
    for name in page.locator(".name").all():
        assert name.evaluate("node => node.scrollWidth <= node.parentElement.clientWidth")
        assert name.evaluate("node => getComputedStyle(node).textOverflow") == "clip"


def test_board_is_accessible(page: Page, look: str) -> None:
    """axe finds no violation in any state of the board, in both colour schemes, on a phone and a desktop."""
    from axe_playwright_python.sync_playwright import Axe

    page.goto(look)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        for size in (PHONE, DESKTOP):
            page.set_viewport_size(size)
            report = Axe().run(page)
            assert report.violations_count == 0, f"{scheme}, {size}: {report.generate_report()}"
