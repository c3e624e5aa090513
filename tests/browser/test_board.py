"""The departure board, as a browser shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.browser.chromium import DESK, PHONE, STREAM, WALL
from tests.browser.conftest import Visitor
from tests.browser.program import PATHS, STATION, Publisher, departure, document, passes, state, until

if TYPE_CHECKING:
    from playwright.sync_api import Page

Waterdorp = tuple[str, Publisher]

# What comes into a part of the page that is read out when it changes.
ANNOUNCED = """() => {
  const live = "[aria-live]:not([aria-live=off]), [role=status], [role=alert], [role=log], output";
  const of = node => (node.nodeType === 1 ? node : node.parentElement).closest(live);
  window.announced = [];
  new MutationObserver(records => {
    for (const part of new Set(records.map(record => of(record.target)))) {
      if (part) { announced.push(part.textContent); }
    }
  }).observe(document, {subtree: true, childList: true, characterData: true, attributes: true});
}"""
# What the server would send now.
FOUR = ("live", "planned", "cancelled", "none")
FRAGMENT = """() => fetch(location.href, {cache: "no-store"}).then(answer => answer.text()).then(
  text => new DOMParser().parseFromString(text, "text/html").getElementById("board").innerHTML)"""


def rows(page: Page) -> list[list[str]]:
    """Read the table: the texts of its cells."""
    cells = "th .unseen, td"
    return [
        [" ".join(text.split()) for text in row.locator(cells).all_inner_texts()]
        for row in page.locator("tbody tr:visible").all()
    ]


def left(page: Page) -> list[str]:
    """Read when the departures are that are counted down to."""
    return page.locator("[data-at]:visible").all_inner_texts()


def hold(page: Page) -> Page:
    """Have time go by on a page as the test says, and not by itself."""
    page.clock.install(time=0)
    page.clock.pause_at(1000)
    return page


def test_town(page: Page, town: str) -> None:
    """The board of a town's station has its name, the headers, and all that programs are told."""
    page.goto(f"{town}{STATION}?lang=en")
    assert page.title() == "Departures Station"
    assert page.locator("h1").inner_text() == "Station"
    assert page.locator("p.town").inner_text() == "Lindewaard"
    assert page.locator("thead th").all_inner_texts() == ["Line", "Destination", "Departure"]

    def agree() -> bool:
        page.reload()
        told = [[one["line"], one["destination"]] for one in document(town, f"{STATION}?limit=20")["departures"]]
        return len(told) > 3 and [[line, to] for line, to, *_ in rows(page)] == told

    until(agree)  # or a bus leaves meanwhile


def test_rows(page: Page, waterdorp: Waterdorp) -> None:
    """Every kind of departure has its words; messages stand above them."""
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


def test_counts_down(visitor: Visitor, waterdorp: Waterdorp) -> None:
    """Minutes go by, and the clock with them, while nobody says anything; who is gone is not shown."""
    url, _ = waterdorp
    page = hold(visitor.come())
    page.add_init_script(STREAM)
    page.goto(f"{url}{PATHS['live']}?horizon=10")
    told = left(page)
    minutes = int(told[1].removesuffix(" min"))
    assert told == ["Nu", f"{minutes} min", f"{minutes + 3} min"]
    clock = page.locator(".clock")
    next_bus = page.locator("[data-at]").nth(1).get_attribute("data-at")
    over = (int(next_bus or 0) - int(clock.get_attribute("data-now") or 0)) % 60
    page.clock.run_for(1000 * over)
    assert left(page)[1] == f"{minutes} min"
    page.clock.run_for(1000)
    assert left(page)[1] == f"{minutes - 1} min"
    hour, minute = clock.inner_text().split(":")
    page.clock.run_for(60_000)
    assert left(page)[1] == f"{minutes - 2} min"
    assert clock.inner_text() == f"{hour}:{int(minute) + 1}"
    page.clock.run_for(180_000)
    assert left(page)[0] == "Nu"
    page.clock.run_for(200_000)
    assert [line for line, *_ in rows(page)] == ["1", "7"]  # the first is at the stop until the server says more
    assert page.locator("#offline").is_hidden()


def test_looks_again(visitor: Visitor, waterdorp: Waterdorp) -> None:
    """Where there is no stream the page looks for what is new by itself."""
    url, publisher = waterdorp
    on_time = departure(21, "1", "zee", "08:40", TimingPointCode="40000051")
    publisher.send(passes(on_time))
    until(lambda: state(url, "/board/40000051") == "live")
    page = hold(visitor.come())
    page.route("**/events/**", lambda route: route.fulfill(content_type="text/event-stream", body=":\n\n"))
    page.goto(f"{url}/board/40000051")
    assert rows(page) == [["1", "Zeedijk", "08:40 op tijd"]]
    publisher.send(passes({**on_time, "ExpectedDepartureTime": "08:47:00"}, at="08:14:10"))
    until(lambda: document(url, "/board/40000051")["departures"][0]["state"] == "late")
    page.clock.fast_forward(30_000)
    page.get_by_text("7 min later").wait_for()


def test_no_connection(visitor: Visitor, waterdorp: Waterdorp) -> None:
    """A page that nobody answers goes on, and says how old its data is; once all is well it says no more of it."""
    url, _ = waterdorp
    page = hold(visitor.come())
    page.add_init_script(STREAM)
    page.goto(url + PATHS["live"])
    clock = page.locator(".clock").inner_text()
    page.context.set_offline(True)
    page.evaluate("stream.readyState = 0")
    page.clock.run_for(58_000)
    assert page.locator("#offline").is_hidden()
    page.clock.run_for(5_000)
    assert page.locator("#offline").inner_text() == f"Geen verbinding: dit zijn de gegevens van {clock}."
    assert len(left(page)) > 3
    soft = page.locator("tbody .platform").first.evaluate("node => getComputedStyle(node).color")
    assert page.locator(".on_time .state").first.evaluate("node => getComputedStyle(node).color") == soft
    page.context.set_offline(False)
    page.clock.run_for(30_000)
    page.locator("#offline").wait_for(state="hidden")
    assert all("ERR_INTERNET_DISCONNECTED" in error for error in visitor.heard.errors)
    visitor.heard.errors.clear()


def test_farewell(visitor: Visitor, waterdorp: Waterdorp) -> None:
    """When the server says goodbye after hours the page stays calm while it is away for less than a minute."""
    url, _ = waterdorp
    page = hold(visitor.come())
    page.add_init_script(STREAM)
    page.goto(url + PATHS["live"])
    page.clock.run_for(3 * 3_600_000)
    page.route("**/board/**", lambda route: route.abort())
    page.evaluate("stream.say('bye', ''); stream.readyState = 0")
    page.clock.run_for(50_000)
    assert page.locator("#offline").is_hidden()
    page.clock.run_for(15_000)
    assert page.locator("#offline").is_visible()
    page.evaluate("stream.readyState = 1; stream.say('open', '')")
    page.clock.run_for(1_000)
    assert page.locator("#offline").is_hidden()
    assert all("ERR_FAILED" in error for error in visitor.heard.errors)
    visitor.heard.errors.clear()


def test_lost_without_a_word(visitor: Visitor, waterdorp: Waterdorp) -> None:
    """A stream that seems open and does not beat is opened anew, and its silence is no good news."""
    url, _ = waterdorp
    page = hold(visitor.come())
    page.add_init_script(STREAM)
    page.goto(url + PATHS["live"])
    page.route("**/board/**", lambda route: route.abort())
    page.clock.run_for(600_000)
    assert page.locator("#offline").is_hidden()
    page.evaluate("window.lost = stream; window.say = lost.say; EventSource.prototype.say = () => {}; 0")
    page.clock.run_for(65_000)
    assert page.locator("#offline").is_visible()
    assert page.evaluate("[lost.readyState, stream === lost]") == [2, False]
    page.evaluate("EventSource.prototype.say = say; 0")
    page.clock.run_for(15_000)
    assert page.locator("#offline").is_hidden()
    assert all("ERR_FAILED" in error for error in visitor.heard.errors)
    visitor.heard.errors.clear()


def test_announcements(visitor: Visitor, waterdorp: Waterdorp) -> None:
    """Who listens to the page is told what is new and matters, once, and nothing while time goes by."""
    url, publisher = waterdorp
    on_time = departure(22, "1", "zee", "08:40", TimingPointCode="40000052")
    publisher.send(passes(on_time, departure(23, "1", "zee", "08:18", TimingPointCode="40000052")))
    until(lambda: state(url, "/board/40000052") == "live")
    page = hold(visitor.come())
    page.add_init_script(STREAM)
    page.goto(f"{url}/board/40000052")
    page.evaluate(ANNOUNCED)
    page.clock.run_for(600_000)
    assert page.evaluate("announced") == []
    publisher.send(passes({**on_time, "TripStopStatus": "CANCEL"}, at="08:14:10"))
    until(lambda: document(url, "/board/40000052")["departures"][1]["state"] == "cancelled")
    for again in ("", "<!-- again -->"):
        page.evaluate("html => stream.say('board', html)", page.evaluate(FRAGMENT) + again)
        page.clock.run_for(600_000)
    assert page.evaluate("announced") == ["1, Zeedijk, 08:40 vervalt"]
    page.evaluate("stream.readyState = 0")
    page.route("**/board/**", lambda route: route.abort())
    page.clock.run_for(600_000)
    assert page.evaluate("announced")[1:] == [page.locator("#offline").inner_text()]
    assert all("ERR_FAILED" in error for error in visitor.heard.errors)
    visitor.heard.errors.clear()


def test_no_script(visitor: Visitor, waterdorp: Waterdorp) -> None:
    """Without scripts the board is there, and loads itself again."""
    url, _ = waterdorp
    page = visitor.come(java_script_enabled=False)
    page.goto(url + PATHS["live"])
    assert rows(page)[3] == ["35", "Ziekenhuis", "C", "was 08:22 08:26 4 min later"]
    asked = visitor.heard.requests.count(url + PATHS["live"])
    time = page.context.new_cdp_session(page)
    with page.expect_request(url + PATHS["live"]):
        time.send("Emulation.setVirtualTimePolicy", {"policy": "advance", "budget": 21_000})
    assert asked == 1


def test_keyboard(page: Page, waterdorp: Waterdorp) -> None:
    """Everything there is to use is reached in the order in which it stands there, and is seen to be."""
    url, _ = waterdorp
    page.goto(url + PATHS["live"])
    links = page.locator("a, button, input, select, [tabindex]")
    assert links.all_inner_texts() == ["Nederlands", "English", "Deutsch", "Français"]
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


def test_fits(page: Page, look: str) -> None:
    """Nothing of a board has to be scrolled to sideways, on a phone or a wall."""
    page.goto(look)
    for size in (PHONE, DESK, WALL):
        page.set_viewport_size(size)
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"], size


def test_wall(visitor: Visitor, waterdorp: Waterdorp) -> None:
    """On a wall, where nobody scrolls, all of it is to be seen."""
    url, _ = waterdorp
    page = visitor.come()
    full: Any = {"width": 1920, "height": 1080}
    upright: Any = {"width": 1080, "height": 1920}
    four = ",".join(path.removeprefix("/board/") for look, path in PATHS.items() if look in FOUR)
    looks = {PATHS["wall"]: 7, PATHS["wall of two"]: 7, f"/board/{four}?view=wall": 6}
    for size in (WALL, full, upright):
        page.set_viewport_size(size)
        for look, most in looks.items():
            page.goto(url + look)
            assert len(rows(page)) >= most
            assert page.evaluate("document.documentElement.scrollHeight") <= size["height"], (look, size)


def test_portrait_wall(visitor: Visitor, waterdorp: Waterdorp) -> None:
    """On a wall that stands upright names are whole, as there is room below."""
    url, _ = waterdorp
    page = visitor.come(viewport={"width": 1080, "height": 1920})
    page.goto(url + PATHS["wall"])
    for name in page.locator(".name").all():
        assert name.evaluate("node => node.scrollWidth <= node.parentElement.clientWidth")
        assert name.evaluate("node => getComputedStyle(node).textOverflow") == "clip"


def test_accessible(page: Page, look: str) -> None:
    """axe finds nothing wrong with any state of the board, in light and dark, on a phone and a desk."""
    from axe_playwright_python.sync_playwright import Axe

    page.goto(look)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        for size in (PHONE, DESK):
            page.set_viewport_size(size)
            found = Axe().run(page)
            assert found.violations_count == 0, f"{scheme}, {size}: {found.generate_report()}"
