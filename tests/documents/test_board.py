"""Tests of documents.board: the departure board as lines of text and as JSON."""

import json
from typing import Any, cast

from msgspec import structs
from twisted.trial.unittest import SynchronousTestCase

from govi_server.departures.display import DepartureDisplay, DisplayRow, RowState, StopDisplay, StopState
from govi_server.documents.board import LINE_FIELDS, document, lines
from govi_server.modules.board import CHARS
from govi_server.pages.texts import LANGUAGES, TEXTS
from tests.client import NOW

CODE = "57330430"
MINUTE = 60


def row(planned: float, expected: float, state: RowState = "on_time", line: str = "4", **values: str) -> DisplayRow:
    """Return a row that is planned and expected this many minutes after NOW."""
    base = DisplayRow(line, "Strand", NOW + planned * MINUTE, NOW + expected * MINUTE, state)
    return structs.replace(base, **values)


def display(*rows: DisplayRow, state: StopState = "live", **values: object) -> DepartureDisplay:
    """Return the display of one stop."""
    return DepartureDisplay((structs.replace(StopDisplay(CODE, state, rows, "Brug", "Lindedorp"), **values),), 7200.0)


def lines_of(*arguments: Any) -> str:
    """Return a display as lines of text."""
    return "".join(lines(*arguments))


def stops_of(*arguments: Any) -> Any:
    """Return the stops in the JSON of a display."""
    return json.loads("".join(document(*arguments)))["stops"]


class LineTests(SynchronousTestCase):
    """Lines of text."""

    board = display(
        row(3, 5, "late", line="2", destination="Veerstoep via Haven"),
        row(12, 12, line="160", destination="Lindewaard Station"),
        row(14, 14, "cancelled", line="N1"),
    )

    def lines(self, chars: int | None = None, *fields: str, lang: str = "nl") -> list[str]:
        text = lines_of(self.board, lang, NOW, fields or LINE_FIELDS, chars)
        self.assertTrue(text.endswith("\n"))
        return text.split("\n")[:-1]

    def test_unreliable_times_are_marked(self) -> None:
        """Unreliable times have a tilde in text; in JSON, "expected" is null for planned and unknown ones."""
        for state, time in [("late", "5 min"), ("planned", "5 min"), ("last_known", "~5 min"), ("unknown", "~01:03")]:
            board = display(row(3, 5, cast(RowState, state)))
            self.assertEqual(lines_of(board, "nl", NOW, ("time",)), f"{time}\n", state)
            (departure,) = stops_of(board, "nl", NOW)[0]["departures"]
            self.assertEqual(departure["time"], time.removeprefix("~"))
            self.assertEqual(departure["expected"] is None, state in ("planned", "unknown"))
        board = display(row(0, 0, "last_known", line=""))
        self.assertEqual(lines_of(board, "fr", NOW, LINE_FIELDS, CHARS.type.schema["minimum"]), "~Maintenant\n")

    def test_lines_of_any_length(self) -> None:
        """Each departure has a line; the columns are aligned."""
        self.assertEqual(
            self.lines(),
            [
                "2   Veerstoep via Haven   5 min",
                "160 Lindewaard Station    01:12",
                "N1  Strand              vervalt",
            ],
        )

    def test_lines_of_fixed_length(self) -> None:
        """A line has the requested length: "via" is omitted first, then letters; times are never shortened."""
        self.assertEqual(
            self.lines(24), ["2   Veerstoep      5 min", "160 Lindewaard.    01:12", "N1  Strand       vervalt"]
        )
        self.assertEqual(self.lines(40)[0], "2   Veerstoep via Haven            5 min")
        self.assertEqual(self.lines(16), ["2   Vee.   5 min", "160 Lin.   01:12", "N1  Str. vervalt"])
        for chars in range(10, 60):
            for line, time in zip(self.lines(chars), ("5 min", "01:12", "vervalt"), strict=True):
                self.assertEqual(len(line), chars)
                self.assertTrue(line.endswith(time), (chars, line))

    def test_fields(self) -> None:
        """Lines have the requested fields in their order."""
        self.assertEqual(self.lines(None, "time", "line")[1], "  01:12 160")
        self.assertEqual(self.lines(None, "planned", "expected", "state")[0], "01:03 01:05 late")
        self.assertEqual(self.lines(None, "planned", "expected", "state")[2], "01:14       cancelled")
        self.assertEqual(self.lines(12, "destination"), ["Veerstoep   ", "Lindewaard. ", "Strand      "])

        self.assertEqual(self.lines(12, "time", "planned", "expected")[0], "       5 min")

    def test_words_fit(self) -> None:
        """Every word that replaces a time fits the shortest line that can be requested."""
        for lang in LANGUAGES:
            longest = max(len(TEXTS[lang][key]) for key in ("now", "cancelled"))
            self.assertLessEqual(longest, CHARS.type.schema["minimum"])

    def test_stop_without_departures(self) -> None:
        """A stop without departures has a line with the reason."""
        board = display(state="none")
        self.assertEqual(lines_of(board, "en", NOW), "No departures in the next 120 minutes.\n")
        self.assertEqual(lines_of(board, "en", NOW, LINE_FIELDS, 10), "No departu\n")


class DocumentTests(SynchronousTestCase):
    """JSON."""

    def test_document(self) -> None:
        """Stops with their departures, with all members in order."""
        late = row(3, 5, "late", color="#f6c900", text_color="#000000", note='vol "één"')
        board = display(late, messages=("Omleiding",))
        self.assertEqual(
            "".join(document(board, "en", NOW)),
            f'{{"stops": [{{"code": "{CODE}", "name": "Brug", "town": "Lindedorp", "state": "live", "words": "", '
            '"as_of": null, "messages": ["Omleiding"], "departures": [{"line": "4", "destination": "Strand", '
            '"platform": null, "time": "5 min", "minutes": 5, "planned": "2026-01-01T01:03:00+01:00", '
            '"expected": "2026-01-01T01:05:00+01:00", "state": "late", "words": "2 min late", "color": "#f6c900", '
            f'"text_color": "#000000", "note": "vol \\"één\\"", "mode": null, "direction": null, "operator": "", '
            f'"stop": "{CODE}", "provenance": null}}]}}]}}\n',
        )

    def test_fields(self) -> None:
        """Departures have the requested fields in their order; a cancelled one has no expected time."""
        fields = ("minutes", "expected", "time")
        (departure,) = stops_of(display(row(3, 5, "cancelled")), "en", NOW, fields)[0]["departures"]
        self.assertEqual(list(departure.items()), list(zip(fields, (None, None, "cancelled"), strict=True)))

    def test_expected(self) -> None:
        """A departure of the timetable alone, or with an unknown delay, has no expected time."""
        states: tuple[RowState, ...] = ("planned", "unknown", "last_known")
        board = display(*(row(3, 3, state) for state in states))
        departures = stops_of(board, "en", NOW, ("planned", "expected"))[0]["departures"]
        planned = "2026-01-01T01:03:00+01:00"
        self.assertEqual([departure["planned"] for departure in departures], [planned] * 3)
        self.assertEqual([departure["expected"] for departure in departures], [None, None, planned])
        self.assertEqual(lines_of(board, "en", NOW, ("expected",)), "\n\n01:03\n")

    def test_as_of(self) -> None:
        """Old data has the time of its receipt."""
        (stop,) = stops_of(display(state="last_known", as_of=NOW - 60), "en", NOW)
        self.assertEqual(stop["as_of"], "2026-01-01T00:59:00+01:00")
