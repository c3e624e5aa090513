"""Replays the recorded messages of a feed, with their dates shifted to today."""

import gzip
import re
import zlib
from base64 import b64decode
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta
from functools import lru_cache
from itertools import chain
from pathlib import Path

from twisted.logger import Logger

from govi_server.departures.times import local_date, read_date, read_timestamp
from govi_server.errors import StartupError
from govi_server.kv78turbo import ctx
from govi_server.kv78turbo.recording import read_record
from govi_server.runtime.clock import LOCAL_ZONE
from govi_server.runtime.text import pluralize
from govi_server.simulator.town_feed import Message

_DATE = re.compile(rb"(?<=\|)\d{4}-\d\d-\d\d(?:T\d\d:\d\d:\d\d[0-9.]*(?:Z|[+-]\d\d:?\d\d)?)?(?=[|\r\n]|\Z)")


def shift_dates(data: bytes, days: int) -> bytes:
    """Shift all dates and timestamps of a message by a number of days; timestamps get the new date's UTC offset.

    Other fields, and dates that would be beyond the year 9999, are unchanged.
    """
    return _DATE.sub(lambda field: _shift_field(field[0], days), data) if days else data


@lru_cache(maxsize=4096)
def _shift_field(field: bytes, days: int) -> bytes:
    text, difference = field.decode(), timedelta(days=days)
    try:
        if "T" not in text:
            return (date.fromisoformat(text) + difference).isoformat().encode()
        timestamp = datetime.fromisoformat(text)
        local = (timestamp.astimezone(LOCAL_ZONE) if timestamp.tzinfo else timestamp).replace(
            tzinfo=None
        ) + difference
        return (local.replace(tzinfo=LOCAL_ZONE) if timestamp.tzinfo else local).isoformat().encode()
    except (ValueError, OverflowError):
        return field


class Replay:
    """Replays the messages of a file, or of the files of a directory by their names, once, with shifted dates.

    Files are .jsonl and .jsonl.gz of ``govi-cache record``, replayed at the recorded pace, and .ctx and .ctx.gz, one
    message each, replayed at one per second. speed: a factor of this pace.

    All dates are shifted by the same number of days. The day of the earliest KV8 message becomes today. Without KV8
    it is the day with the most planned passtimes, since a calendar covers weeks; without a calendar, the day of the
    first message.

    today: a date in the Netherlands. Raises StartupError if there is nothing to replay.
    """

    log = Logger()
    waits_for_subscription = True  # messages are sent only once

    def __init__(self, path: Path, today: date, speed: float) -> None:
        self._path = path
        self._speed = speed
        try:
            files = [path] if path.is_file() else sorted(path.iterdir())
        except OSError as error:
            raise StartupError(f"--replay: cannot read {path}: {error.strerror}") from None
        survey = _Survey()
        recordings = [file for file in files if file.name.endswith(_SUFFIXES)]
        self._files = [file for file in recordings if self._survey_file(file, survey)]
        if not self._files:
            raise StartupError(f"--replay: no recordings in {path} (expected readable {', '.join(_SUFFIXES)})")
        self._message_count = survey.message_count
        self.day = survey.day()
        self.days = 0 if self.day is None else (today - self.day).days

    def __str__(self) -> str:
        messages, files = pluralize(self._message_count, "message"), pluralize(len(self._files), "file")
        text = f"{messages} in {files} of {self._path}"
        return text if self.day is None else f"{text}, with {self.day} as today (dates {self.days:+} days)"

    def __iter__(self) -> Iterator[tuple[list[Message], float]]:
        """Yield the messages, each with the seconds until the next one."""
        current: list[Message] = []
        for pause, message in chain.from_iterable(map(self._with_pauses, self._files)):
            if current:
                yield current, pause / self._speed
            current = [message._replace(ctx=shift_dates(message.ctx, self.days))]
        yield current, 0.0

    def _survey_file(self, path: Path, survey: "_Survey") -> bool:
        """Add the messages of a file to a survey; return whether it has any."""
        before = survey.message_count
        for _, message in _read_file(
            path, lambda problem: self.log.warn("{path}: {reason}", path=path, reason=problem)
        ):
            survey.add(message)
        return survey.message_count > before

    def _with_pauses(self, path: Path) -> Iterator[tuple[float, Message]]:
        """Yield the messages of a file, each with the seconds since the previous one."""
        previous: float | None = None
        for time, message in _read_file(path, lambda problem: None):
            yield 1.0 if time is None or previous is None else max(0.0, time - previous), message
            previous = time


class _Survey:
    """The dates of recorded messages."""

    def __init__(self) -> None:
        self.message_count = 0
        self._first_date: date | None = None
        self._kv8_dates: set[date] = set()
        self._valid_dates: dict[tuple[bytes, ...], set[date]] = {}  # by DataOwnerCode and LocalServiceLevelCode
        self._planned: Counter[tuple[bytes, ...]] = Counter()  # passtimes by the same key

    def add(self, message: Message) -> None:
        """Add a message."""
        self.message_count += 1
        label, _, timestamp = ctx.read_group(message.ctx)
        sent = read_timestamp(timestamp)
        if sent is not None:
            self._first_date = self._first_date or local_date(sent)
            if label.startswith("KV8"):
                self._kv8_dates.add(local_date(sent))
        if label.startswith("KV7") and not self._kv8_dates:  # KV8 takes precedence
            for records in ctx.read(ctx.chunked(message.ctx), lambda problem: None):
                self._add_timetable(records)

    def _add_timetable(self, records: ctx.Records) -> None:
        if not _LEVEL_COLUMNS.issubset(records.labels):
            return
        operator, level = map(records.labels.index, ("DataOwnerCode", "LocalServiceLevelCode"))
        rows = (line.split(b"|") for line in records.lines)
        if records.table == "LOCALSERVICEGROUPPASSTIME":
            self._planned.update((row[operator], row[level]) for row in rows)
        elif records.table == "LOCALSERVICEGROUPVALIDITY" and "OperationDate" in records.labels:
            date_column = records.labels.index("OperationDate")
            for row in rows:
                day = read_date(row[date_column].decode())
                if day is not None:
                    self._valid_dates.setdefault((row[operator], row[level]), set()).add(day)

    def day(self) -> date | None:
        """Return the date to shift to today; None if no message has a date."""
        if self._kv8_dates:
            return min(self._kv8_dates)
        planned: Counter[date] = Counter()
        for level, days in self._valid_dates.items():
            planned.update(dict.fromkeys(days, self._planned[level]))
        return max(sorted(planned), key=planned.__getitem__, default=self._first_date)


_LEVEL_COLUMNS = {"DataOwnerCode", "LocalServiceLevelCode"}
_SUFFIXES = (".ctx", ".ctx.gz", ".jsonl", ".jsonl.gz")
_MAX_BYTES = 256 << 20
"""Bytes of a line, or of a file of CTX."""
_READ_ERRORS = (OSError, EOFError, ValueError, zlib.error)


def _read_file(path: Path, report: Callable[[str], object]) -> Iterator[tuple[float | None, Message]]:
    """Yield the messages of a file with their times (epoch seconds; None in a file of CTX).

    report: called with the reason for each skipped line, or for skipping the rest of the file.
    """
    number = 0
    try:
        with gzip.open(path) if path.name.endswith(".gz") else path.open("rb") as file:
            if ".jsonl" not in path.suffixes:
                yield None, _parse_ctx(file.read(_MAX_BYTES))
                return
            while line := file.readline(_MAX_BYTES):
                number += 1
                try:
                    yield _parse_line(line)
                except ValueError as error:
                    report(f"line {number} skipped: {error}")
    except _READ_ERRORS as error:
        report(f"{'rest of the file' if number else 'file'} skipped: {error or 'truncated'}")


def _parse_line(line: bytes) -> tuple[float, Message]:
    """Parse a line of a recording. Raises ValueError."""
    record = read_record(line)
    time = datetime.fromisoformat(record.time).timestamp()
    if record.ctx is not None:
        return time, Message(record.envelope, record.ctx.encode())
    return time, Message(record.envelope, b"", b64decode(record.base64 or "", validate=True))


def _parse_ctx(data: bytes) -> Message:
    """Parse a message of CTX; derive its envelope from its group. Raises ValueError if it is not KV78turbo."""
    label, subscription, _ = ctx.read_group(data)
    match = re.fullmatch(r"(KV7|KV8)turbo_(\w+)", label)
    if match is None:
        raise ValueError("not CTX of KV78turbo")
    return Message(f"/GOVI/{match[1]}{match[2]}/{subscription}", data)
