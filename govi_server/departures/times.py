"""Times of the timetable: HH:MM:SS on an operating date, and the moments they stand for. Pure."""

import re
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache

from govi_server.runtime.clock import LOCAL_ZONE

MINUTE = 60
HOUR = 60 * MINUTE
DAY = 24 * HOUR

MOST_EARLY = 10 * MINUTE
"""Seconds by which somebody may be early where it is asked which of two times he was to come at."""

_TIME = re.compile(r"([0-3][0-9]|4[0-7]):([0-5][0-9]):([0-5][0-9])")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def read_time(text: str) -> int | None:
    """Read HH:MM:SS, which runs on past 24:00:00 up to 47:59:59, as seconds; None for anything else."""
    found = _TIME.fullmatch(text)
    return int(found[1]) * HOUR + int(found[2]) * MINUTE + int(found[3]) if found else None


def write_time(seconds: int) -> str:
    """Write seconds as HH:MM:SS, running on past 24:00:00."""
    return f"{seconds // HOUR:02}:{seconds // MINUTE % 60:02}:{seconds % 60:02}"


@lru_cache(maxsize=1024)
def read_date(text: str) -> date | None:
    """Read YYYY-MM-DD; None for what is no date, or for one of a year in which nothing runs, like 1970."""
    try:
        read = date.fromisoformat(text) if _DATE.fullmatch(text) else None
    except ValueError:
        return None
    return read if read is not None and 1971 <= read.year <= 2999 else None


def local_date(moment: float) -> date:
    """Tell the date on the wall in the Netherlands at a moment (epoch seconds)."""
    return datetime.fromtimestamp(moment, LOCAL_ZONE).date()


def moment(operating_date: date, seconds: int, after: float = 0.0) -> float:
    """Give the epoch seconds of a time of an operating date.

    It is the time that the clocks on the wall show, with the hours beyond 24 on the day after: nothing in the feed
    says otherwise (docs/protocols.md 2.5), and who reads OVapi's JSON counts like that (docs/protocols.md 3.2). In the hour that
    comes twice in autumn it is the first, or the second if the first was not ``after`` this moment (epoch
    seconds), at which it was still to come. In the hour that is left out in spring clocks were not set yet.
    """
    days, of_day = divmod(seconds, DAY)
    day = operating_date + timedelta(days)
    midnight, changes = _day(day)
    if not changes:
        return midnight + of_day
    wall = datetime(day.year, day.month, day.day, tzinfo=LOCAL_ZONE) + timedelta(seconds=of_day)
    first, second = wall.timestamp(), wall.replace(fold=1).timestamp()
    return second if first < second and first < after else first


def moments(
    operating_date: date, planned: int | None, expected: int | None, after: float
) -> tuple[float | None, float | None]:
    """Give the moments of the planned and the expected time of one departure; None where there is none.

    after: as of moment(). That somebody is still to come is said of when he is expected: in the hour that comes
    twice he was to come at the last planned time by which he is hardly early.
    """
    comes = None if expected is None else moment(operating_date, expected, after)
    if planned is None:
        return None, comes
    return moment(operating_date, planned, after if comes is None else comes + MOST_EARLY - HOUR), comes


@lru_cache(maxsize=256)
def _day(day: date) -> tuple[float, bool]:
    """Give when a day begins (epoch seconds), and whether the clocks change on it."""
    begins = datetime(day.year, day.month, day.day, tzinfo=LOCAL_ZONE)
    ends = begins + timedelta(days=1)
    return begins.timestamp(), begins.utcoffset() != ends.utcoffset()


def read_timestamp(text: str) -> float | None:
    """Read an ISO moment with its offset, 2021-06-06T18:26:05+02:00, as epoch seconds; None for what is none.

    One without an offset is one of the Netherlands.
    """
    try:
        read = datetime.fromisoformat(text)
    except ValueError:
        return None
    if not text.isascii() or not 1971 <= read.year <= 2999:
        return None
    return (read if read.tzinfo else read.replace(tzinfo=LOCAL_ZONE)).timestamp()


def local_timestamp(moment: float) -> str:
    """Write a moment as the Netherlands' wall clock with its offset: 2012-01-22T23:45:49+01:00."""
    return datetime.fromtimestamp(moment, LOCAL_ZONE).isoformat(timespec="seconds")


def utc_timestamp(moment: float) -> str:
    """Write a moment in UTC without a zone, as KV55's RequestTimestamp is: 2012-01-22T22:45:49."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%S")
