"""The departure board without a page: lines of text for LED signs and small devices, and rows for programs."""

import json
from collections.abc import Callable, Generator, Sequence
from typing import Any

from govi_server.departures.display import DepartureDisplay, DisplayRow, StopDisplay
from govi_server.departures.times import local_timestamp
from govi_server.pages.texts import TEXTS, clock, left_words, row_words, stop_words

LINE = ("line", "destination", "time")
"""The fields of a line, unless others are asked for."""

_Field = Callable[[StopDisplay, DisplayRow, float, str], Any]

# The fields of a departure: what a program gets. Moments are local times with their offset.
_FIELDS: dict[str, _Field] = {
    "line": lambda stop, row, now, lang: row.line,
    "destination": lambda stop, row, now, lang: row.destination,
    "platform": lambda stop, row, now, lang: row.platform,
    "time": lambda stop, row, now, lang: _time(stop, row, now, lang),
    "minutes": lambda stop, row, now, lang: stop.minutes(row, now),
    "planned": lambda stop, row, now, lang: local_timestamp(row.planned),
    "expected": lambda stop, row, now, lang: local_timestamp(row.expected) if row.is_expected else None,
    "state": lambda stop, row, now, lang: row.state,
    "words": lambda stop, row, now, lang: row_words(row, lang),
    "color": lambda stop, row, now, lang: row.color,
    "text_color": lambda stop, row, now, lang: row.text_color,
    "note": lambda stop, row, now, lang: row.note,
    "stop": lambda stop, row, now, lang: stop.code,
}
FIELDS = tuple(_FIELDS)
"""Every field there is."""

# The same as texts, where a person reads them otherwise.
_TEXTS: dict[str, _Field] = {
    **_FIELDS,
    "time": lambda stop, row, now, lang: _about(stop, row, now, lang),
    "minutes": lambda stop, row, now, lang: left_words(stop, row, now, lang),
    "planned": lambda stop, row, now, lang: clock(row.planned),
    "expected": lambda stop, row, now, lang: clock(row.expected) if row.is_expected else "",
}
_RIGHT = ("time", "minutes", "planned", "expected")


def _time(stop: StopDisplay, row: DisplayRow, now: float, lang: str) -> str:
    """Write when a departure is, in one word; that it is not goes before when it was to be."""
    return TEXTS[lang]["cancelled"] if row.state == "cancelled" else left_words(stop, row, now, lang)


def _about(stop: StopDisplay, row: DisplayRow, now: float, lang: str) -> str:
    """Write the same where nothing beside it says that nobody vouches for it."""
    return ("~" if row.state in ("unknown", "last_known") else "") + _time(stop, row, now, lang)


def document(
    sign: DepartureDisplay, lang: str, now: float, fields: Sequence[str] = FIELDS
) -> Generator[None, None, str]:
    """Write a sign as JSON, bit by bit: its stops, each with its departures, of which these fields are told."""
    stops = []
    for stop in sign.stops:
        stops.append(
            {
                "code": stop.code,
                "name": stop.name,
                "town": stop.town,
                "state": stop.state,
                "words": stop_words(stop, sign.horizon, lang),
                "as_of": None if stop.as_of is None else local_timestamp(stop.as_of),
                "messages": list(stop.messages),
                "departures": [{name: _FIELDS[name](stop, row, now, lang) for name in fields} for row in stop.rows],
            }
        )
        yield
    return json.dumps({"stops": stops}, ensure_ascii=False) + "\n"


def lines(
    sign: DepartureDisplay, lang: str, now: float, fields: Sequence[str] = LINE, chars: int | None = None
) -> Generator[None, None, str]:
    """Write a sign as lines of text, bit by bit: one for each departure, or for a stop that has none.

    chars: how long a line is, exactly; only what is no time is made shorter. None is as long as need be.
    """
    rows: list[list[str]] = []
    for stop in sign.stops:
        rows.extend([str(_TEXTS[name](stop, row, now, lang) or "") for name in fields] for row in stop.rows)
        yield
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    if rows and chars is not None:
        _fit(widths, fields, chars)
    texts = []
    for row in rows:
        cells = [
            cell[:width].rjust(width) if name in _RIGHT else shortened(cell, width).ljust(width)
            for name, cell, width in zip(fields, row, widths, strict=True)
            if width
        ]
        texts.append(" ".join(cells))
    texts += [words for stop in sign.stops if not stop.rows and (words := stop_words(stop, sign.horizon, lang))]
    return "".join((text.rstrip() if chars is None else text[:chars].ljust(chars)) + "\n" for text in texts)


def _fit(widths: list[int], fields: Sequence[str], chars: int) -> None:
    """Make columns fit a line: the destination takes up what is left, then others give way, times never."""

    def over() -> int:
        return sum(widths) + sum(map(bool, widths)) - 1 - chars

    giving = sorted((at for at, name in enumerate(fields) if name not in _RIGHT), key=lambda at: -widths[at])
    giving.sort(key=lambda at: fields[at] != "destination")
    for at in giving:
        while over() > 0 and widths[at]:
            widths[at] -= 1
    for at in reversed(range(1, len(fields))):  # nothing but times: those that do not fit are left out
        if over() > 0:
            widths[at] = 0
    shown = [at for at in (*giving, *range(len(fields))) if widths[at]]
    if shown:
        widths[shown[0]] -= over()


def shortened(text: str, most: int) -> str:
    """Give a name in so many characters: first without its "via", then cut, and a point for what is left out."""
    if len(text) <= most:
        return text
    text = text.partition(" via ")[0]
    return text if len(text) <= most else text[: max(most - 1, 0)].rstrip() + "."[:most]
