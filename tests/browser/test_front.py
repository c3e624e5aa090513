"""The front page in a browser."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import pytest

from govi_server.pages.texts import LANGUAGES, TEXTS
from tests.browser.conftest import Visitor

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route

PLACE = {"latitude": 52.22, "longitude": 5.48}
"""A place in the simulator's town."""


def results(page: Page) -> tuple[str, list[list[str]]]:
    """Return the status of the search, and address, language and HTML of each stop that it found."""
    read = "links => links.map(link => [link.getAttribute('href'), link.lang, link.innerHTML])"
    return page.locator("#search-status").inner_text(), page.locator("#found a").evaluate_all(read)


def wait_for_status(page: Page, status: str) -> None:
    """Wait until the status of the search has this text."""
    from playwright.sync_api import expect

    expect(page.locator("#search-status")).to_have_text(status)


@pytest.mark.parametrize("requested", ["", *LANGUAGES])
def test_results_during_typing_equal_the_form(visitor: Visitor, town: str, requested: str) -> None:
    """Results during typing equal those of the form, in the requested language or the browser's."""
    lang, parameter = (requested, f"&lang={requested}") if requested else ("de", "")
    typed, loaded = (visitor.open_page(locale="pl" if requested else lang) for _ in range(2))
    typed.goto(f"{town}/?{parameter}")
    for query in ("nergens", "station", "ho", "5733"):
        loaded.goto(f"{town}/?q={query}{parameter}")
        typed.locator("#q").fill(query)
        typed.wait_for_url(f"{town}/?q={query}{parameter}")
        wait_for_status(typed, results(loaded)[0])
        assert results(typed) == results(loaded)
        for page in (typed, loaded):
            links = page.locator("footer a[hreflang]").evaluate_all("links => links.map(link => link.href)")
            assert links == [f"{town}/?q={query}&lang={other}" for other in LANGUAGES]
    assert results(typed)[0] == TEXTS[lang]["found_most"].format(n=20).replace(" ;", "\N{NO-BREAK SPACE};")
    typed.locator("#q").fill("")
    wait_for_status(typed, "")
    assert results(typed) == ("", [])
    assert typed.url == (f"{town}/?lang={lang}" if requested else f"{town}/")


def test_options_are_passed_on(visitor: Visitor, town: str) -> None:
    """Links to boards pass on the options of the form, with and without scripts; a change of them applies at once."""
    typed, loaded = visitor.open_page(locale="en"), visitor.open_page(locale="en", java_script_enabled=False)
    address = "?q=station&after=5&to=Linde+Markt&mode=bus&view=wall"
    loaded.goto(f"{town}/{address}")
    typed.goto(town)
    typed.get_by_text(TEXTS["en"]["options"]).click()
    typed.locator("#q").fill("station")
    typed.get_by_label(TEXTS["en"]["option_after"]).fill("5")
    typed.get_by_label(TEXTS["en"]["option_to"]).fill("Linde Markt")
    typed.get_by_label(TEXTS["en"]["option_mode"]).select_option("bus")
    typed.get_by_label(TEXTS["en"]["option_wall"]).check()
    typed.wait_for_url(f"{town}/{address}")
    wait_for_status(typed, results(loaded)[0])
    assert results(typed) == results(loaded)
    typed.locator("#found a").click()
    typed.wait_for_url("**/board/p*?after=5&to=Linde+Markt&mode=bus&view=wall")


@pytest.mark.parametrize("lang", LANGUAGES)
def test_failures_are_reported(visitor: Visitor, town: str, lang: str) -> None:
    """A failed request and an unknown location are reported in the page's language."""
    page = visitor.open_page(locale=lang)
    page.goto(town)
    texts = TEXTS[lang]
    page.context.grant_permissions([])  # not that for the location
    page.get_by_role("button", name=texts["near"]).click()
    wait_for_status(page, texts["not_located"])
    page.context.set_offline(True)
    page.locator("#q").fill("station")
    wait_for_status(page, texts["failed"])
    assert all("ERR_INTERNET_DISCONNECTED" in error for error in visitor.log.errors)
    visitor.log.errors.clear()


def test_nearest_stops_are_found(visitor: Visitor, town: str) -> None:
    """A location yields the nearest stops with their distances, the nearest first."""
    page = visitor.open_page(geolocation=PLACE, permissions=["geolocation"])
    page.goto(f"{town}/?lang=nl")
    page.get_by_role("button", name="In de buurt").click()
    page.locator("#found li").first.wait_for()
    meters = [int(text.removesuffix(" m")) for text in page.locator("#found span:nth-of-type(2)").all_inner_texts()]
    assert len(meters) > 1
    assert meters == sorted(meters)
    assert page.locator("#search-status").inner_text() == f"{len(meters)} haltes"


def test_form_works_without_scripts(visitor: Visitor, town: str) -> None:
    """Without scripts the form finds stops, and the results are in the requested language."""
    page = visitor.open_page(java_script_enabled=False)
    page.goto(f"{town}/?lang=de")
    assert page.get_by_role("button").all_inner_texts() == ["Suchen"]
    page.locator("#q").fill("station")
    page.keyboard.press("Enter")
    page.wait_for_url(f"{town}/?q=station&after=&to=&mode=&lang=de")
    assert page.locator("#search-status").inner_text() == "1 Haltestelle"
    page.locator("#found a").click()
    page.wait_for_url(f"{town}/board/p57330090?lang=de")


def test_keyboard_reaches_all_controls(page: Page, town: str) -> None:
    """Arrow keys move through the results, Tab reaches all controls, and the focus is visible."""
    page.goto(town)
    page.keyboard.press("Tab")
    page.keyboard.insert_text("5733")  # one change of the field, one search
    page.locator("#found li").first.wait_for()
    links = page.locator("#found a").all()
    for key, link in (("ArrowDown", links[0]), ("ArrowDown", links[1]), ("ArrowUp", links[0])):
        page.keyboard.press(key)
        assert link.evaluate("node => node === document.activeElement")
        assert link.evaluate("node => getComputedStyle(node).outlineStyle") == "solid"
    page.keyboard.press("Escape")
    for name in ("Zoeken", "In de buurt", TEXTS["nl"]["options"]):
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == name
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_url("**/board/*")


@pytest.mark.parametrize(("refined", "is_kept"), [("linde markt", True), ("station", False)])
def test_focus_survives_new_results(page: Page, town: str, refined: str, is_kept: bool) -> None:
    """When new results arrive, the focus stays on the stop that had it, or returns to the field."""
    late: list[Route] = []
    page.route(lambda url: parse_qs(urlsplit(url).query).get("q") == [refined], lambda route, _: late.append(route))
    page.goto(town)
    page.locator("#q").fill("linde mark")
    page.locator("#found li").first.wait_for()
    with page.expect_request("**/places?*"):
        page.locator("#q").fill(refined)
    page.keyboard.press("ArrowDown")
    focused = page.evaluate("document.activeElement.textContent")
    assert "Markt" in focused
    before = page.locator("#found li").first.element_handle()
    late[0].continue_()
    page.wait_for_function("node => !node.isConnected", arg=before)
    assert page.evaluate("document.activeElement.textContent") == (focused if is_kept else "")
