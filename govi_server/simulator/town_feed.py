"""The messages of the KV78turbo feed of the town (docs/protocols.md, section 2). Pure, given its clock."""

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date, timedelta
from itertools import count
from typing import NamedTuple

from govi_server.departures.times import local_date, local_timestamp
from govi_server.kv78turbo import ctx
from govi_server.simulator.kv78_rows import (
    COLUMNS,
    OPERATOR,
    UPDATED_COLUMN,
    Row,
    calendar_rows,
    general_message_rows,
    journeys_in_kv8,
    passtime_rows,
    planning_rows,
)
from govi_server.simulator.town import Town

CYCLE_SECONDS = 25
"""The period in which all rows of KV8 are repeated, as in the real feed (docs/protocols.md, section 2.2)."""
TIMETABLE_CYCLE_SECONDS = 60
"""The period in which KV7 is repeated. The real feed sends it at night, which is too late for a demo."""
MAX_ROWS = 50
"""Rows per KV8 message."""
JOURNEYS_PER_STEP = 5
"""Journeys whose rows are made in one turn of the reactor: about 2 ms of work."""


class Message(NamedTuple):
    """A message of the feed."""

    envelope: str
    ctx: bytes
    payload: bytes | None = None
    """The recorded payload to send, if it is not compressed CTX."""


def _message(kind: str, now: float, rows: Mapping[str, Iterable[Row]]) -> Message:
    """Return a message of KV7planning, KV7calendar, KV8passtimes or KV8generalmessages; rows are by table."""
    tables = ((table, COLUMNS[table], table_rows) for table, table_rows in rows.items())
    label = f"{kind[:3]}turbo_{kind[3:]}"
    return Message(
        f"/GOVI/{kind}/{OPERATOR}", ctx.write(label, OPERATOR, local_timestamp(now), tables, ctx.FICTIONAL)
    )


def timetable_messages(town: Town, now: float) -> Iterator[Message]:
    """Yield KV7: the calendar of eight days from yesterday, and the planning of each line."""
    yesterday = local_date(now) - timedelta(days=1)
    days = [yesterday + timedelta(days=days) for days in range(8)]
    yield _message("KV7calendar", now, calendar_rows(town, days))
    for line in town.lines:
        yield _message("KV7planning", now, planning_rows(town, line, days))


def general_message(now: float) -> Message:
    """Return the general message at the station, or its deletion."""
    return _message("KV8generalmessages", now, general_message_rows(now))


class TownFeed:
    """The messages about the town, second by second.

    now: returns the town's time, in epoch seconds. waits_for_subscription: whether to send nothing until the first
    subscription.
    """

    def __init__(self, town: Town, now: Callable[[], float], waits_for_subscription: bool = False) -> None:
        self._town = town
        self._now = now
        self.waits_for_subscription = waits_for_subscription
        self._timetable: list[Message] = []
        self._timetable_date: date | None = None
        self._rows: dict[tuple[date, str, int, int], list[tuple[Row, str]]] = {}  # with their LastUpdateTimeStamp
        self._general_message = b""  # the last one or its deletion, without its time

    def __str__(self) -> str:
        return "the town"

    def __iter__(self) -> Iterator[tuple[list[Message], float]]:
        """Yield the messages of each second in steps, with the seconds until the next step."""
        for second in count():
            for messages in self.steps(second):
                yield messages, 0.0
            yield [], 1.0

    def steps(self, second: int) -> Iterator[list[Message]]:
        """Yield the messages of a second since the start, one at most in each step."""
        now = self._now()
        today = local_date(now)
        if today != self._timetable_date:
            self._timetable_date, self._timetable = today, []
            for message in timetable_messages(self._town, now):
                self._timetable.append(message)
                yield [message]
        elif second % TIMETABLE_CYCLE_SECONDS == 0:
            yield from ([message] for message in self._timetable)
        rows: list[Row] = []
        for number, due in enumerate(self._rows_to_send(second, now)):
            rows.extend(due)
            while len(rows) >= MAX_ROWS:
                yield [_message("KV8passtimes", now, {"DATEDPASSTIME": rows[:MAX_ROWS]})]
                del rows[:MAX_ROWS]
            if number % JOURNEYS_PER_STEP == 0:
                yield []
        if rows:
            yield [_message("KV8passtimes", now, {"DATEDPASSTIME": rows})]
        message = general_message(now)
        _, _, content = message.ctx.partition(b"\n")  # without the group line, which has the time
        if content != self._general_message or second % CYCLE_SECONDS == 0:
            self._general_message = content
            yield [message]

    def _rows_to_send(self, second: int, now: float) -> Iterator[list[Row]]:
        """Yield the rows of each journey that have changed or are due in the cycle."""
        previous_rows, self._rows = self._rows, {}
        timestamp = local_timestamp(now)
        for journey in journeys_in_kv8(self._town, now):
            line = journey.line.line_planning_number
            key = (journey.operating_date, line, journey.number, journey.fortify_order)
            rows = passtime_rows(self._town, journey, now)
            previous = previous_rows.get(key, [((), "")] * len(rows))
            current = [
                (row, updated if row == old else timestamp)
                for row, (old, updated) in zip(rows, previous, strict=True)
            ]
            self._rows[key] = current
            is_due = zlib.crc32(repr(key).encode()) % CYCLE_SECONDS == second % CYCLE_SECONDS
            yield [
                (*row[:UPDATED_COLUMN], updated, *row[UPDATED_COLUMN + 1 :])
                for (row, updated), (old, _) in zip(current, previous, strict=True)
                if is_due or row != old
            ]
