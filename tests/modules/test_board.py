"""Tests of the departure board as a page, and of its texts and colours."""

import re
from html.parser import HTMLParser
from itertools import product
from random import Random
from typing import Any

from msgspec import structs
from twisted.trial.unittest import SynchronousTestCase

from govi_server.departures.colors import MIN_CONTRAST, contrast
from govi_server.departures.display import DepartureDisplay, DisplayRow, RowState, StopDisplay, StopState
from govi_server.documents.board import lines
from govi_server.http.caching.response_cache import MAX_AGE
from govi_server.pages import board_page
from govi_server.pages.assets import TYPES, address, content
from govi_server.pages.texts import LANGUAGES, TEXTS, clock, row_words, stop_words
from tests.client import NOW

CODE = "57330430"
MINUTE = 60


def page_of(*arguments: Any) -> str:
    """Return a page."""
    return "".join(board_page.page(*arguments))


def fragment_of(*arguments: Any) -> str:
    """Return the part of a page that is updated."""
    return "".join(board_page.fragment(*arguments))


def lines_of(*what: Any) -> str:
    """Write lines."""
    return "".join(lines(*what))


# Texts of a departure five minutes from now, two minutes later than planned, in each language.
ROW_WORDS: dict[RowState, tuple[str, str, str, str]] = {
    "on_time": ("op tijd", "on time", "pünktlich", "à l\u2019heure"),
    "late": ("2 min later", "2 min late", "+2 Min.", "2 min de retard"),
    "planned": ("dienstregeling", "scheduled", "laut Fahrplan", "horaire théorique"),
    "unknown": ("vertraging onbekend", "delay unknown", "Verspätung unbekannt", "retard inconnu"),
    "cancelled": ("vervalt", "cancelled", "fällt aus", "supprimé"),
    "stopped": ("bij de halte", "at the stop", "an der Haltestelle", "à l\u2019arrêt"),
    "last_known": ("laatst bekende tijd", "last known time", "letzter Stand", "dernier horaire connu"),
}
STOP_WORDS: dict[StopState, tuple[str, str, str, str]] = {
    "live": ("", "", "", ""),
    "planned": ("dienstregeling", "scheduled times", "Fahrplan", "horaires théoriques"),
    "last_known": ("bijgewerkt om 00:58", "updated at 00:58", "Stand: 00:58 Uhr", "mise à jour à 00:58"),
    "none": ("komende 120 minuten", "next 120 minutes", "nächsten 120 Minuten", "120 prochaines minutes"),
    "unknown": (f"code {CODE}", f"code {CODE}", f"Code {CODE}", f"code {CODE}"),
    "down": ("tijdelijk niet", "temporarily unavailable", "vorübergehend nicht", "momentanément indisponibles"),
}


def row(planned: float, expected: float, state: RowState = "on_time", line: str = "4", **values: str) -> DisplayRow:
    """Return a row. planned and expected: times in minutes after NOW."""
    row = DisplayRow(line, "Strand", NOW + planned * MINUTE, NOW + expected * MINUTE, state)
    return structs.replace(row, **values)


def make_display(*rows: DisplayRow, state: StopState = "live", **values: object) -> DepartureDisplay:
    """Return the display of one stop."""
    return DepartureDisplay((structs.replace(StopDisplay(CODE, state, rows, "Brug", "Lindedorp"), **values),), 7200.0)


class Reader(HTMLParser):
    """Parses a page: its tags with their attributes, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def read(display: DepartureDisplay, lang: str = "nl") -> Reader:
    return Reader(fragment_of(display, lang, NOW))


class TextTests(SynchronousTestCase):
    """The texts of all languages."""

    def test_every_language_is_complete(self) -> None:
        """Every language has all texts, with the same placeholders; Dutch is the first."""
        self.assertEqual(LANGUAGES, ("nl", "en", "de", "fr"))
        for key, text in TEXTS["nl"].items():
            for lang in LANGUAGES:
                self.assertEqual(re.findall("{.*?}", TEXTS[lang][key]), re.findall("{.*?}", text), (lang, key))
                self.assertTrue(TEXTS[lang][key])
        self.assertEqual({frozenset(texts) for texts in TEXTS.values()}, {frozenset(TEXTS["nl"])})

    def test_every_row_state_has_a_text(self) -> None:
        """Each state of a departure has a text of its own, in each language, on the page and in plain text."""
        for state, words in ROW_WORDS.items():
            for lang, word in zip(LANGUAGES, words, strict=True):
                departure = row(3, 5, state)
                self.assertEqual(row_words(departure, lang), word)
                self.assertIn(word, read(make_display(departure), lang).text)
                self.assertEqual(lines_of(make_display(departure), lang, NOW, ("words",)), f"{word}\n")
        for lang in LANGUAGES:
            self.assertEqual(len({row_words(row(3, 5, state), lang) for state in ROW_WORDS}), len(ROW_WORDS))

    def test_early_departure(self) -> None:
        """An early departure has a text in each language."""
        words = [row_words(row(5, 3, "early"), lang) for lang in LANGUAGES]
        self.assertEqual(words, ["2 min eerder", "2 min early", "2 Min. früher", "2 min d\u2019avance"])

    def test_every_stop_state_has_a_text(self) -> None:
        """Each state of a stop has a text of its own, in each language."""
        for state, words in STOP_WORDS.items():
            for lang, word in zip(LANGUAGES, words, strict=True):
                as_of = NOW - 2 * MINUTE if state == "last_known" else None
                text = read(make_display(state=state, as_of=as_of), lang).text
                self.assertIn(word, text)
        self.assertEqual(stop_words(make_display().stops[0], 7200.0, "nl"), "")

    def test_no_data_yet(self) -> None:
        """A stop of a source that has not sent any data yet is not called temporarily unavailable."""
        words = [read(make_display(state="down", awaits_data=True), lang).text for lang in LANGUAGES]
        for text, word in zip(words, ("Nog geen", "yet", "Noch keine", "Aucune"), strict=True):
            self.assertIn(word, text)

    def test_only_messages_are_marked(self) -> None:
        """The only stop with messages is marked: on a wall, they have the whole width."""
        quiet, informing = StopDisplay("1", "none"), StopDisplay("2", "none", messages=("Omleiding",))
        for stops, expected in (
            ((quiet, informing), ["stop", "stop informing"]),
            ((informing, informing), ["stop", "stop"]),
            ((quiet, quiet), ["stop", "stop"]),
        ):
            sections = read(DepartureDisplay(stops, 7200.0)).all("section")
            self.assertEqual([section["class"] for section in sections], expected)

    def test_old_data_without_departures(self) -> None:
        """The notice that there are no departures includes the age of old data."""
        (stop,) = make_display(state="none", as_of=NOW - 90).stops
        self.assertIn("00:58", stop_words(stop, 3600.0, "en"))

    def test_destinations_are_not_translated(self) -> None:
        """Destinations are the same in every language."""
        self.assertTrue(all("Strand" in read(make_display(row(5, 5)), lang).text for lang in LANGUAGES))


class FragmentTests(SynchronousTestCase):
    """The part of the page that is updated."""

    def left(self, departure: DisplayRow, age: float = 0.0) -> str:
        """Return the time of a single row."""
        html = fragment_of(make_display(departure, age=age), "nl", NOW)
        return (
            Reader(html[html.index('<td class="time">') :])
            .text.split(ROW_WORDS.get(departure.state, ("",))[0])[0]
            .strip()
        )

    def test_time_left(self) -> None:
        """Below one minute the time is "now", below ten the minutes, otherwise the time of day."""
        for minutes, text in [(0, "Nu"), (0.9, "Nu"), (1, "1 min"), (9.9, "9 min"), (10, "01:10"), (61.5, "02:01")]:
            self.assertEqual(self.left(row(minutes, minutes)), text)

    def test_age_shortens_the_time_left(self) -> None:
        """The age of the data is subtracted from the time left."""
        self.assertEqual(self.left(row(5, 5), age=1.0), "4 min")
        self.assertEqual(self.left(row(5, 5), age=241.0), "Nu")
        self.assertEqual(self.left(row(5, 5, "last_known"), age=61.0), "3 min")

    def test_planned_time_is_struck_through(self) -> None:
        """The planned time is struck through next to the expected one; a cancelled departure has only the former."""
        html = fragment_of(make_display(row(3, 15, "late")), "nl", NOW)
        self.assertRegex(
            html, r'<s><span class="unseen">was </span><time [^>]*>01:03</time></s> <time [^>]*>01:15</time>'
        )
        self.assertNotIn("<s>", fragment_of(make_display(row(3, 3)), "nl", NOW))
        html = fragment_of(make_display(row(3, 15, "cancelled")), "nl", NOW)
        self.assertRegex(html, r"<s><time [^>]*>01:03</time></s>")
        self.assertNotIn("data-at", html)

    def test_unknown_delay_is_not_counted_down(self) -> None:
        """A departure of unknown delay shows its planned time."""
        self.assertEqual(self.left(row(3, 3, "unknown")), "01:03")

    def test_platform_column(self) -> None:
        """The table has headers, and a column of platforms if there are any."""
        headers = [(tag.get("scope"), tag.get("class")) for tag in read(make_display(row(3, 3))).all("th")]
        self.assertEqual(headers, [("col", "line"), ("col", "destination"), ("col", "time"), ("row", "line")])
        with_platform = read(make_display(row(3, 3), row(4, 4, platform="B")))
        self.assertEqual(
            [tag["class"] for tag in with_platform.all("th")][:4], ["line", "destination", "platform", "time"]
        )
        self.assertEqual(len(with_platform.all("td")), 6)

    def test_times_for_programs(self) -> None:
        """Times are ISO timestamps for programs, and epoch seconds for the script."""
        clock, left = read(make_display(row(3, 3)), "nl").all("time")
        self.assertEqual(clock["datetime"], "2026-01-01T01:00:00+01:00")
        self.assertEqual((clock["data-now"], clock["data-offset"]), (f"{NOW:.0f}", "3600"))
        self.assertEqual(left["datetime"], "2026-01-01T01:03:00+01:00")
        self.assertEqual(left["data-at"], f"{NOW + 180:.0f}")
        self.assertEqual(read(make_display(row(3, 3), age=30.0)).all("time")[1]["data-at"], f"{NOW + 150:.0f}")

    def test_script_finds_the_texts_as_it_writes_them(self) -> None:
        """At any fraction of a second the texts are those of the whole seconds from which the script counts."""
        random = Random(0)
        for _ in range(200):
            now, age = NOW + random.uniform(0, 120), random.uniform(0, 90)
            html = fragment_of(make_display(*(row(3, 3 + n / 60) for n in range(60)), age=age), "en", now)
            (shown,) = re.findall(r'data-now="(\d+)"', html)
            self.assertIn(f">{clock(int(shown))}</time>", html)
            (seconds, updated) = re.findall(r'data-age="(\d+)">[^<]*?(\d\d:\d\d)', html)[0]
            self.assertEqual(updated, clock(int(shown) - int(seconds)))
            for moment, text in re.findall(r'data-at="(\d+)">([^<]*)</time>', html):
                left = int(moment) - int(shown)
                self.assertEqual(text, "Now" if left < 60 else f"{left // 60} min")

    def test_heading(self) -> None:
        """The heading is the stop's name, or its code if the name is unknown."""
        self.assertIn('<h1>Brug</h1><p class="town">Lindedorp</p>', fragment_of(make_display(), "nl", NOW))
        self.assertIn(f"<h1>Halte {CODE}</h1></header>", fragment_of(make_display(name="", town=""), "nl", NOW))

    def test_names_are_marked_as_dutch(self) -> None:
        """Texts of sources are marked as Dutch on pages in any language; a code that replaces a name is not."""
        html = fragment_of(make_display(row(3, 3), messages=("Omleiding",)), "en", NOW)
        for tag in ("header", 'td class="destination"', "li data-news"):
            self.assertIn(f'<{tag} lang="nl">', html)
        self.assertIn("<header><h1>Stop ", fragment_of(make_display(name=""), "en", NOW))

    def test_messages_are_announced(self) -> None:
        """Messages above the rows and cancellations are announced; minutes are not."""
        html = fragment_of(make_display(row(3, 3), row(4, 4, "cancelled"), messages=("Omleiding",)), "nl", NOW)
        self.assertLess(html.index('<li data-news lang="nl">Omleiding</li>'), html.index("<table "))
        self.assertEqual(html.count("data-news"), 2)
        self.assertNotIn("aria-live", html)

    def test_badge_colors(self) -> None:
        """A badge has its line's colours in attributes, without styles."""
        html = fragment_of(make_display(row(3, 3, color="#f6c900", text_color="#000000"), row(4, 4)), "nl", NOW)
        self.assertIn(
            'rx="6" fill="#f6c900"/><text x="50%" y="24" text-anchor="middle" fill="#000000">4</text>', html
        )
        self.assertEqual(html.count('class="badge plain"'), 1)
        self.assertNotIn("style", html)

    def test_long_line_numbers_fit_their_badge(self) -> None:
        """Long line numbers are squeezed into their badge."""
        for line, is_fitted in [("300", False), ("WWWW", True), ("Sprinter12", True)]:
            html = fragment_of(make_display(row(3, 3, line=line)), "nl", NOW)
            width = int(re.findall(r'<rect width="(\d+)"', html)[0])
            self.assertEqual(re.findall(r'textLength="(\d+)"', html), [f"{width - 16}"] * is_fitted)

    def test_source_texts_are_escaped(self) -> None:
        """Markup in the texts of a source is escaped."""
        evil = "\"><script>alert(1)</script><img src=x onerror=alert(1)>&'"
        departure = row(3, 5, "late", line=evil, destination=evil, platform=evil, note=evil)
        display = make_display(departure, name=evil, town=evil, messages=(evil,))
        page = Reader(page_of(display, "nl", NOW, {}))
        scripts = [address("board.js"), address("recent.js")]
        self.assertEqual([tag.get("src") for tag in page.all("script")], scripts)
        self.assertEqual(page.all("img"), [])
        self.assertEqual(
            page.text.count(evil), 9
        )  # the title and seven places, of which the line is in an image as well
        code = Reader(page_of(DepartureDisplay((StopDisplay(evil, "unknown"),), 7200.0), "nl", NOW, {}))
        self.assertEqual(len(code.all("script")), 2)


class PageTests(SynchronousTestCase):
    """The complete page."""

    def test_page_meets_its_policy(self) -> None:
        """The page loads nothing from other hosts, and has no inline styles or scripts."""
        html = page_of(make_display(row(3, 5, "late", color="#f6c900", text_color="#000000")), "nl", NOW, {})
        page = Reader(html)
        for tag, attributes in page.tags:
            self.assertNotIn("style", {tag, *attributes})
            self.assertFalse([name for name in attributes if name.startswith("on")])
            for name in ("src", "href", "data-events"):
                self.assertRegex(attributes.get(name) or "/", r"\A[/?](?!/)")
        self.assertNotIn("//", html.replace("<!DOCTYPE html>", ""))
        for name in TYPES:
            text = content(name).decode(errors="replace").replace("http://www.w3.org/2000/svg", "")
            self.assertNotRegex(text, r"https?:|url\(|@import|src=")

    def test_page_reloads_without_scripts(self) -> None:
        """The page reloads itself only in browsers without scripts."""
        html = page_of(make_display(), "nl", NOW, {})
        self.assertLessEqual(board_page.REFRESH_SECONDS, MAX_AGE)  # otherwise it would overstate the remaining time
        self.assertEqual(html.count("http-equiv"), 1)
        self.assertIn(
            f'<noscript><meta http-equiv="refresh" content="{board_page.REFRESH_SECONDS}"></noscript>', html
        )

    def test_links_preserve_the_query(self) -> None:
        """Links and the stream preserve the query, each in its language."""
        page = Reader(page_of(make_display(), "de", NOW, {"limit": "5", "view": "wall"}))
        self.assertEqual(page.all("main")[0]["data-events"], f"/events/{CODE}?limit=5&view=wall&lang=de")
        self.assertEqual(
            [
                (link["href"], link["hreflang"], link.get("aria-current"))
                for link in page.all("a")
                if "hreflang" in link
            ],
            [(f"?limit=5&view=wall&lang={x}", x, "true" if x == "de" else None) for x in LANGUAGES],
        )
        self.assertEqual((page.all("html")[0]["lang"], page.all("body")[0]["class"]), ("de", "wall single"))

    def test_main_element_holds_the_fragment(self) -> None:
        """The main element contains exactly the fragment."""
        display = make_display(row(3, 3))
        html = page_of(display, "fr", NOW, {})
        self.assertEqual(html.partition(">\n<div")[2].partition("</main>")[0], fragment_of(display, "fr", NOW)[4:])


class StyleTests(SynchronousTestCase):
    """The colours of the style sheet."""

    def test_contrast(self) -> None:
        """All text contrasts with its background (WCAG AA), in light and in dark."""
        light, dark, paper, contrasting = (
            dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6}|var\(--[a-z]+\))", content(f"{name}.css").decode()))
            for name in ("tokens", "dark", "paper", "contrast")
        )
        self.assertEqual((light["ground"], light["good"], light["bad"]), ("#ffffff", "#0a7a2f", "#b3261e"))
        self.assertEqual(dark.keys(), light.keys() | {"outline"})

        def high(colors: dict[str, str]) -> dict[str, str]:
            """Return colours with those of contrast.css, which refers to others."""
            return {**colors, **{name: colors[value[6:-1]] for name, value in contrasting.items()}}

        texts = ("text", "soft", "good", "warn", "bad", "link")
        for colors in (light, dark, high(light), high(dark), high({**light, **paper})):
            pairs = [
                *product(("ground",), texts),
                ("panel", "text"),
                ("notice", "notice-text"),
                ("plain", "plain-text"),
            ]
            for ground, text in pairs:
                self.assertGreaterEqual(contrast(colors[ground], colors[text]), MIN_CONTRAST, (ground, text))
        # There are no other colours.
        for name in ("board.css", "front.css", "contrast.css"):
            self.assertNotRegex(content(name).decode(), "#[0-9a-fA-F]{3,8}\\b(?! *{)|rgb|hsl")
