"""Every page in a browser: accessible, light, still, and readable in every language, size and colour."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from govi_server.pages.texts import LANGUAGES
from tests.browser import program
from tests.browser.chromium import DESKTOP, OVERFLOWING, PHONE, SHIFTED, SIZES, TRANSFERRED
from tests.browser.conftest import Visitor

if TYPE_CHECKING:
    from playwright.sync_api import Page

STOPS = "57330430", "57330080"
"""Two stops of the simulator's town."""

PAGES = {
    "front": "/",
    "search": "/?q=station&after=5",
    "board": program.STATION,
    "wall": f"{program.STATION}?view=wall",
    "make": "/make",
    "made": f"/make?q=station&stop={STOPS[0]}&stop={STOPS[1]}&after=4",
    "docs": "/docs",
    "missing": "/nothing",
    "no stop": "/board/",
    "invalid": f"{program.STATION}?limit=many",
    "unknown journey": "/trip/LIN_1_2_3_4",
}
"""Pages of the town's server; that of operators is "status"."""

LOOKS = (("light", PHONE), ("dark", DESKTOP), ("light", DESKTOP), ("dark", PHONE))
"""The colours and the size for each language."""

MAX_BYTES = 60_000


@pytest.fixture(params=(*PAGES, "status"))
def address(request: pytest.FixtureRequest, town: str) -> str:
    """Return the URL of each page."""
    return program.status_url(town) if request.param == "status" else town + PAGES[request.param]


def with_language(url: str, lang: str) -> str:
    """Return the URL of a page in a language."""
    return f"{url}{'&' if '?' in url else '?'}lang={lang}"


def test_page_is_accessible(page: Page, address: str) -> None:
    """axe finds no violation in any language, in light and dark, on a phone and a desktop, with forced colours."""
    from axe_playwright_python.sync_playwright import Axe

    is_english = False  # only
    for lang, (scheme, size) in zip(LANGUAGES, LOOKS, strict=True):
        page.set_viewport_size(size)
        colors: Any = {"color_scheme": scheme, "forced_colors": "active" if lang == LANGUAGES[-1] else "none"}
        page.emulate_media(**colors)
        if is_english and lang != LANGUAGES[-1]:
            continue
        page.goto(with_language(address, lang))
        is_english = page.locator("html").get_attribute("lang") != lang
        page.evaluate("document.querySelectorAll('details').forEach(node => { node.open = true })")
        report = Axe().run(page)
        assert report.violations_count == 0, f"{lang}, {scheme}, {size}: {report.generate_report()}"


def test_page_fits_every_screen(page: Page, address: str) -> None:
    """In no language and size does a page scroll sideways, or a text leave its box, also at 200 %."""
    for lang in LANGUAGES:
        page.goto(with_language(address, lang))
        for size in (*SIZES, {"width": 640, "height": 400}):  # a window of 1280 by 800 at 200 %
            page.set_viewport_size(size)
            assert page.evaluate("document.documentElement.scrollWidth") <= size["width"], (lang, size)
            assert page.evaluate(OVERFLOWING) == [], (lang, size)


def test_page_is_light_and_still(visitor: Visitor, address: str) -> None:
    """A page with all that it loads is smaller than 60 kB, and nothing on it moves while it loads."""
    page = visitor.open_measured(address, viewport=PHONE)
    assert 500 < page.evaluate(TRANSFERRED) < MAX_BYTES
    assert page.evaluate(SHIFTED) == 0


def test_every_page_leads_to_search_and_source(page: Page, town: str) -> None:
    """From every public page, links lead to the search, and to source, age and licence of the data."""
    for name, path in PAGES.items():
        page.goto(town + path)
        if name not in ("front", "search"):
            assert page.locator("a[href^='/?'][href$='#data'], a[href='/#data']").count(), name
            assert page.locator("a[href^='/?lang'], a[href='/']").count(), name


def test_names_for_screen_readers(page: Page, town: str) -> None:
    """In the accessibility tree tables, lists and images have names, and what changes is announced by one region."""
    page.goto(f"{town}/board/{','.join(STOPS)}?lang=en")
    names = page.locator("h1").all_inner_texts()
    assert [page.get_by_role("table", name=name, exact=True).count() for name in names] == [1, 1]
    assert page.get_by_role("status").count() == 1
    page.goto(f"{town}/make?stop={STOPS[0]}&lang=en")
    assert page.get_by_role("list", name="Only these lines").count() == 1
    assert page.get_by_role("img", name=f"{town}/board/{STOPS[0]}").count() == 1
    page.goto(f"{town}/?lang=en")
    assert page.get_by_role("table", name="About the data").count() == 1


def test_headings_of_the_status(page: Page, town: str) -> None:
    """In the accessibility tree the columns of the status page have headings."""
    page.goto(program.status_url(town))
    assert page.get_by_role("columnheader", name="operator").count() == 1


def test_displays_are_made_by_clicking(page: Page, town: str) -> None:
    """From the front page to a board of two stops on a tablet, with a walking time for each, in dark colours."""
    page.goto(f"{town}/?lang=en")
    page.get_by_role("link", name="Make a display").first.click()
    for words in ("station", "haven"):
        page.get_by_label("Stop, town or code").fill(words)
        page.locator("#stops input:not(:checked)").first.check()
        page.locator("#result h2").wait_for()
    page.locator("#walking input").nth(1).wait_for()
    page.get_by_label("Walking time (minutes)").first.fill("4")
    page.get_by_label("Walking time (minutes)").last.fill("6")
    page.get_by_label("Colours").select_option("dark")
    page.get_by_label("Screen").select_option("kiosk")
    page.locator("#result p a[href$='?after=4,6&theme=dark&view=wall']").wait_for()
    address = page.locator("#result p a").inner_text()
    assert page.locator("#news").inner_text() == f"Your display: {address}"
    page.locator("#result p a").click()
    page.wait_for_url(address)
    assert page.locator("h1").count() == 2


def test_displays_are_made_without_scripts(visitor: Visitor, town: str) -> None:
    """Without scripts the form shows the board after each press of its button."""
    page = visitor.open_page(java_script_enabled=False, locale="en")
    page.goto(f"{town}/make")
    page.get_by_label("Stop, town or code").fill("station")
    page.get_by_role("button", name="Show").click()
    page.locator("#stops input").first.check()
    page.get_by_label("Colours").select_option("paper")
    page.get_by_role("button", name="Show").click()
    assert page.locator("#result p a").inner_text().endswith("?theme=paper")
    assert page.locator("#result svg").count() == 1


def test_documented_requests_are_tried(visitor: Visitor, town: str) -> None:
    """The documentation sends requests, made from the fields of a form, and shows the responses."""
    page = visitor.open_page()
    page.goto(f"{town}/docs")
    operation = page.locator("#board-TimingPointCodes")
    operation.get_by_text("Try it").click()
    operation.locator("[name=limit]").fill("2")
    operation.locator("[name='header Accept']").select_option("application/json")
    operation.get_by_role("button", name="Send").click()
    operation.get_by_role("status").get_by_text("200 Ok").wait_for()
    command, fields, body = operation.locator("details.try pre").all_inner_texts()
    assert command.startswith("curl -H 'Accept: application/json' ")
    assert "?limit=2" in command
    assert "content-type: application/json" in fields
    assert '"name": "Station"' in body
    operation.locator("[name=limit]").fill("many")
    operation.get_by_role("button", name="Send").click()
    operation.get_by_role("status").get_by_text("400 Bad Request").wait_for()
    stream = page.locator("#events-TimingPointCodes")
    stream.get_by_text("Try it").click()
    stream.get_by_role("button", name="Send").click()
    stream.locator("details.try pre", has_text="event: board").wait_for()
    (error,) = visitor.log.errors
    assert "status of 400" in error
    visitor.log.errors.clear()
