"""Recorded messages of a feed, said again with their dates shifted to today."""

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
from govi_server.simulator.town_feed import Message

_DATED = re.compile(rb"(?<=\|)\d{4}-\d\d-\d\d(?:T\d\d:\d\d:\d\d[0-9.]*(?:Z|[+-]\d\d:?\d\d)?)?(?=[|\r\n]|\Z)")


def shift(data: bytes, days: int) -> bytes:
    """Put all dates of a message so many days later, and its moments, with the offset of their new date.

    A field that is no date, or one beyond all calendars, stays as it is; so does the rest, unread.
    """
    return _DATED.sub(lambda field: _shifted(field[0], days), data) if days else data


@lru_cache(maxsize=4096)
def _shifted(field: bytes, days: int) -> bytes:
    text, later = field.decode(), timedelta(days=days)
    try:
        if "T" not in text:
            return (date.fromisoformat(text) + later).isoformat().encode()
        read = datetime.fromisoformat(text)
        wall = (read.astimezone(LOCAL_ZONE) if read.tzinfo else read).replace(tzinfo=None) + later
        return (wall.replace(tzinfo=LOCAL_ZONE) if read.tzinfo else wall).isoformat().encode()
    except (ValueError, OverflowError):
        return field


class Replay:
    """Says again what is in the files of a directory, in the order of their names, once and with its dates shifted.

    Read are .jsonl and .jsonl.gz of govi-record, at the pace at which they were recorded, and .ctx and .ctx.gz, which
    are a message each, one a second. speed: how many times faster than that.

    One shift, of whole days, is for all. If there is KV8, the day on which the earliest of it was sent becomes today.
    If there is only KV7, the day on which most is planned does, as the calendar is meant for weeks, and somebody
    wants to see buses today. Without a calendar it is the day on which the first message was sent.

    today: a date in the Netherlands. Raises CannotStart when there is nothing to say.
    """

    log = Logger()
    waits = True  # what is said only once should be heard

    def __init__(self, directory: Path, today: date, speed: float) -> None:
        self._directory = directory
        self._speed = speed
        try:
            names = sorted(path for path in directory.iterdir() if path.name.endswith(_ENDS))
        except OSError as error:
            raise StartupError(f"cannot read {directory}: {error.strerror}") from None
        survey = _Survey()
        self._files = [path for path in names if self._surveyed(path, survey)]
        if not self._files:
            raise StartupError(f"there is no recording in {directory}: no {', '.join(_ENDS)} that can be read")
        self._messages = survey.messages
        self.day = survey.day()
        self.days = 0 if self.day is None else (today - self.day).days

    def __str__(self) -> str:
        told = f"{self._messages} messages in {len(self._files)} files of {self._directory}"
        return told if self.day is None else f"{told}, with {self.day} as today (dates {self.days:+} days)"

    def __iter__(self) -> Iterator[tuple[list[Message], float]]:
        """Give what is to be said, and how many seconds there are until the next."""
        held: list[Message] = []
        for pause, message in chain.from_iterable(map(self._paced, self._files)):
            if held:
                yield held, pause / self._speed
            held = [message._replace(ctx=shift(message.ctx, self.days))]
        yield held, 0.0

    def _surveyed(self, path: Path, survey: "_Survey") -> bool:
        """Look a file through; tell whether there is anything in it."""
        before = survey.messages
        for _, message in _recorded(path, lambda why: self.log.warn("{path}: {why}", path=path, why=why)):
            survey.see(message)
        return survey.messages > before

    def _paced(self, path: Path) -> Iterator[tuple[float, Message]]:
        """Give the messages of a file with the seconds from the one before."""
        before: float | None = None
        for time, message in _recorded(path, lambda why: None):
            yield 1.0 if time is None or before is None else max(0.0, time - before), message
            before = time


class _Survey:
    """What the messages of recordings say of the days that they are of."""

    def __init__(self) -> None:
        self.messages = 0
        self._first: date | None = None
        self._kv8: set[date] = set()
        self._valid: dict[tuple[bytes, ...], set[date]] = {}
        self._passes: Counter[tuple[bytes, ...]] = Counter()

    def see(self, message: Message) -> None:
        """Take a message into account."""
        self.messages += 1
        label, _, stamp = ctx.read_group(message.ctx)
        sent = read_timestamp(stamp)
        if sent is not None:
            self._first = self._first or local_date(sent)
            if label.startswith("KV8"):
                self._kv8.add(local_date(sent))
        if label.startswith("KV7") and not self._kv8:  # which goes before
            for records in ctx.read(ctx.chunked(message.ctx), lambda why: None):
                self._see_timetable(records)

    def _see_timetable(self, records: ctx.Records) -> None:
        if not _LEVEL.issubset(records.labels):
            return
        owner, level = map(records.labels.index, ("DataOwnerCode", "LocalServiceLevelCode"))
        rows = (line.split(b"|") for line in records.lines)
        if records.table == "LOCALSERVICEGROUPPASSTIME":
            self._passes.update((row[owner], row[level]) for row in rows)
        elif records.table == "LOCALSERVICEGROUPVALIDITY" and "OperationDate" in records.labels:
            at = records.labels.index("OperationDate")
            for row in rows:
                day = read_date(row[at].decode())
                if day is not None:
                    self._valid.setdefault((row[owner], row[level]), set()).add(day)

    def day(self) -> date | None:
        """Tell which day is to be today."""
        if self._kv8:
            return min(self._kv8)
        planned: Counter[date] = Counter()
        for group, days in self._valid.items():
            planned.update(dict.fromkeys(days, self._passes[group]))
        return max(sorted(planned), key=planned.__getitem__, default=self._first)


_LEVEL = {"DataOwnerCode", "LocalServiceLevelCode"}
_ENDS = (".ctx", ".ctx.gz", ".jsonl", ".jsonl.gz")
_LARGEST = 256 << 20
"""Bytes of a line or file of CTX that are read at once."""
_UNREADABLE = (OSError, EOFError, ValueError, zlib.error)


def _recorded(path: Path, bad: Callable[[str], object]) -> Iterator[tuple[float | None, Message]]:
    """Read the messages of a file with their times (epoch seconds), if they have any.

    bad: told of what is passed over.
    """
    number = 0
    try:
        with gzip.open(path) if path.name.endswith(".gz") else path.open("rb") as file:
            if ".jsonl" not in path.suffixes:
                yield None, _captured(file.read(_LARGEST))
                return
            while line := file.readline(_LARGEST):
                number += 1
                try:
                    yield _recorded_line(line)
                except ValueError as error:
                    bad(f"line {number} is passed over: {error}")
    except _UNREADABLE as error:
        bad(f"{'ends' if number else 'is passed over'}: {error or 'it is cut off'}")


def _recorded_line(line: bytes) -> tuple[float, Message]:
    record = read_record(line)
    time = datetime.fromisoformat(record.time).timestamp()
    if record.ctx is not None:
        return time, Message(record.envelope, record.ctx.encode())
    return time, Message(record.envelope, b"", b64decode(record.base64 or "", validate=True))


def _captured(data: bytes) -> Message:
    """Make a message of CTX whose envelope is not known. Raises ValueError for what is none of KV78turbo."""
    label, subscription, _ = ctx.read_group(data)
    what = re.fullmatch(r"(KV7|KV8)turbo_(\w+)", label)
    if what is None:
        raise ValueError("it is no CTX of KV78turbo")
    return Message(f"/GOVI/{what[1]}{what[2]}/{subscription}", data)
