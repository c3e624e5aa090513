"""The departure board as JSON for programs, and as lines of text for LED signs and small devices.

The Structs define the JSON and its schema in /openapi.json, with their docstrings as descriptions.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, defstruct

from govi_server.departures.display import (
    DepartureDisplay,
    DisplayRow,
    Provenance,
    RowState,
    StopDisplay,
    StopState,
    displays_minutes,
)
from govi_server.departures.fragments import STEP_PARTS, Fragments, make_part, pieces
from govi_server.departures.modes import Mode
from govi_server.departures.times import local_timestamp
from govi_server.pages.texts import TEXTS, clock, direction_words, left_words, row_words, stop_words

_Timestamp = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
_Value = Callable[[StopDisplay, DisplayRow, float, str], Any]
"""Returns a member of a departure from its stop, its row, the current time and a language."""


class _Member(NamedTuple):
    type: Any
    value: _Value
    text: _Value | None = None
    """The text in a line, if it differs from the JSON."""
    is_time: bool = False
    """In a line, times are aligned right and never shortened."""
    counts_down: bool = False
    """Whether the value depends on the remaining minutes."""


def _time(stop: StopDisplay, row: DisplayRow, now: float, lang: str) -> str:
    """Return the time or the minutes left, or "cancelled" in the language."""
    return TEXTS[lang]["cancelled"] if row.state == "cancelled" else left_words(row, stop.minutes(row, now), lang)


def _time_in_line(stop: StopDisplay, row: DisplayRow, now: float, lang: str) -> str:
    """Return the time in a line, which has no state: a tilde marks unreliable times."""
    return ("~" if row.state in ("unknown", "last_known") else "") + _time(stop, row, now, lang)


def _destination_in_line(stop: StopDisplay, row: DisplayRow, now: float, lang: str) -> str:
    """Return the destination, with the direction where that matters."""
    return f"{row.destination} ({direction_words(row, lang)})" if row.shows_direction else row.destination


_MEMBERS: dict[str, _Member] = {
    "line": _Member(str, lambda stop, row, now, lang: row.line),
    "destination": _Member(str, lambda stop, row, now, lang: row.destination, _destination_in_line),
    "platform": _Member(str | None, lambda stop, row, now, lang: row.platform),
    "time": _Member(str, _time, _time_in_line, is_time=True, counts_down=True),
    "minutes": _Member(
        int | None,
        lambda stop, row, now, lang: stop.minutes(row, now),
        lambda stop, row, now, lang: left_words(row, stop.minutes(row, now), lang),
        is_time=True,
        counts_down=True,
    ),
    "planned": _Member(
        _Timestamp,
        lambda stop, row, now, lang: local_timestamp(row.planned),
        lambda stop, row, now, lang: clock(row.planned),
        is_time=True,
    ),
    "expected": _Member(
        _Timestamp | None,
        lambda stop, row, now, lang: local_timestamp(row.expected) if row.is_expected else None,
        lambda stop, row, now, lang: clock(row.expected) if row.is_expected else "",
        is_time=True,
    ),
    "state": _Member(RowState, lambda stop, row, now, lang: row.state),
    "words": _Member(str, lambda stop, row, now, lang: row_words(row, lang)),
    "color": _Member(str | None, lambda stop, row, now, lang: row.color),
    "text_color": _Member(str | None, lambda stop, row, now, lang: row.text_color),
    "note": _Member(str, lambda stop, row, now, lang: row.note),
    "mode": _Member(Mode | None, lambda stop, row, now, lang: row.mode),
    "direction": _Member(str | None, lambda stop, row, now, lang: row.direction),
    "operator": _Member(str, lambda stop, row, now, lang: row.operator),
    "stop": _Member(str, lambda stop, row, now, lang: row.code or stop.code),
    "provenance": _Member(Provenance | None, lambda stop, row, now, lang: row.provenance),
}

FIELDS = tuple(_MEMBERS)
"""The members of a departure, in order."""

LINE_FIELDS = ("line", "destination", "time")
"""The fields of a line of text, unless a fields parameter selects others."""

Departure = defstruct(
    "Departure",
    [(name, member.type | UnsetType, UNSET) for name, member in _MEMBERS.items()],
    namespace={"__doc__": "A departure, with all members or those of the fields parameter."},
)


class BoardStop(Struct):
    """A stop, or a place, and its departures. as_of: the time of the data, if it is stale."""

    code: str
    name: str
    town: str
    state: StopState
    words: str
    as_of: _Timestamp | None
    messages: Sequence[str]
    departures: list[Departure]  # type: ignore[valid-type]  # made from _MEMBERS; encoded from dicts in the requested order


class Board(Struct):
    """A departure board."""

    stops: list[BoardStop]


class BoardProblem(Board, kw_only=True):
    """An error, as problem details (RFC 9457) with the members of a board, whose stops have no departures."""

    title: str
    status: int
    detail: str
    type: str = "about:blank"


def problem(board: Iterable[str], title: str, status: int, detail: str) -> Iterator[str]:
    """Write a board, written as JSON, as problem details. detail: what happened, for human readers."""
    members = _json({"type": "about:blank", "title": title, "status": status, "detail": detail})
    pieces_of_board = iter(board)
    yield f"{members[:-1]}, {next(pieces_of_board)[1:]}"
    yield from pieces_of_board


def document(display: DepartureDisplay, lang: str, now: float, fields: Sequence[str] = FIELDS) -> Iterator[str]:
    """Write a board as JSON, in pieces. fields: the members of each departure."""
    begin, end = _split_array(Board([]))
    for n, stop in enumerate(display.stops):
        description = BoardStop(
            code=stop.code,
            name=stop.name or stop.code,
            town=stop.town,
            state=stop.state,
            words=stop_words(stop, display.horizon, lang),
            as_of=None if stop.as_of is None else local_timestamp(stop.as_of),
            messages=stop.messages,
            departures=[],
        )
        begin_stop, end_stop = _split_array(description)
        yield f"{', ' if n else begin}{begin_stop}"
        yield from pieces(_departures(stop, lang, now, fields), "")
        yield end_stop
    yield f"{end}\n"


def _departures(stop: StopDisplay, lang: str, now: float, fields: Sequence[str]) -> Iterator[tuple[str, bool]]:
    """Write the elements of the array of departures; yield each, and whether it was stored."""
    counts_down = _counts_down(fields)
    form = f"json {lang} {','.join(fields)}"
    separator = ""
    for row in stop.rows:
        state = row.state, stop.minutes(row, now) if counts_down else None
        element, was_stored = make_part(row.fragments, form, state, _departure, stop, row, now, lang, fields)
        yield separator + element, was_stored
        separator = ", "


def _departure(stop: StopDisplay, row: DisplayRow, now: float, lang: str, fields: Sequence[str]) -> str:
    return _json({name: _MEMBERS[name].value(stop, row, now, lang) for name in fields})


def _counts_down(fields: Iterable[str]) -> bool:
    """Return whether the values of fields depend on the remaining minutes."""
    return any(_MEMBERS[name].counts_down for name in fields)


def _json(value: object) -> str:
    """Encode a value as JSON, on one line, with spaces between members."""
    return msgspec.json.format(msgspec.json.encode(value), indent=0).decode()


def _split_array(value: object) -> tuple[str, str]:
    """Encode a value whose last member is an empty array; return what precedes and follows the array's elements."""
    begin, _, end = _json(value).rpartition("[]")
    return f"{begin}[", f"]{end}"


def lines(
    display: DepartureDisplay, lang: str, now: float, fields: Sequence[str] = LINE_FIELDS, width: int | None = None
) -> Iterator[str]:
    """Write a board as lines of text, in pieces: one for each departure and for each stop without departures.

    width: the exact length of a line in characters; times are not shortened for it. None: no limit or padding.
    """
    rows: list[tuple[Fragments | None, tuple[str, ...]]] = []
    widths = [0] * len(fields)
    counts_down = _counts_down(fields)
    form = f"cells {lang} {','.join(fields)}"
    for stop in display.stops:
        for row in stop.rows:
            minutes = stop.minutes(row, now) if counts_down else None
            state = row.state, row.shows_direction, minutes if displays_minutes(minutes) else None
            cells, _ = make_part(row.fragments, form, state, _cells, stop, row, now, lang, fields)
            widths = [max(column, len(cell)) for column, cell in zip(widths, cells, strict=True)]
            rows.append((row.fragments, cells))
            if len(rows) % STEP_PARTS == 0:
                yield ""
    if rows and width is not None:
        _fit(widths, fields, width)
    form = f"line {','.join(fields)}"
    parts = (
        make_part(fragments, form, (cells, widths, width), _row, cells, fields, widths, width)
        for fragments, cells in rows
    )
    yield from pieces(parts, "")
    for stop in display.stops:
        words = "" if stop.rows else stop_words(stop, display.horizon, lang)
        yield _line(words, width) if words else ""


def _cells(stop: StopDisplay, row: DisplayRow, now: float, lang: str, fields: Sequence[str]) -> tuple[str, ...]:
    """Return the texts of the fields of a line."""
    texts = [_MEMBERS[name].text or _MEMBERS[name].value for name in fields]
    return tuple([str(text(stop, row, now, lang) or "") for text in texts])


def _row(cells: Sequence[str], fields: Sequence[str], widths: Sequence[int], width: int | None) -> str:
    columns = [
        cell[:column].rjust(column) if _is_time(name) else shortened(cell, column).ljust(column)
        for name, cell, column in zip(fields, cells, widths, strict=True)
        if column
    ]
    return _line(" ".join(columns), width)


def _line(text: str, width: int | None) -> str:
    return (text.rstrip() if width is None else text[:width].ljust(width)) + "\n"


def _is_time(name: str) -> bool:
    return _MEMBERS[name].is_time


def _fit(widths: list[int], fields: Sequence[str], width: int) -> None:
    """Adjust the columns to the width of a line: the destination first, then others, times last."""

    def excess() -> int:
        return sum(widths) + sum(map(bool, widths)) - 1 - width

    flexible = sorted((i for i, name in enumerate(fields) if not _is_time(name)), key=lambda i: -widths[i])
    flexible.sort(key=lambda i: fields[i] != "destination")
    for i in flexible:
        while excess() > 0 and widths[i]:
            widths[i] -= 1
    for i in reversed(range(1, len(fields))):  # omit times that do not fit
        if excess() > 0:
            widths[i] = 0
    visible = [i for i in (*flexible, *range(len(fields))) if widths[i]]
    if visible:
        widths[visible[0]] -= excess()


def shortened(text: str, width: int) -> str:
    """Shorten a name to at most this many characters: drop its "via" part, then truncate it, ending in a period."""
    if len(text) <= width:
        return text
    text = text.partition(" via ")[0]
    return text if len(text) <= width else text[: max(width - 1, 0)].rstrip() + "."[:width]
