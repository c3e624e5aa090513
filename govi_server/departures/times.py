"""Timetable times, HH:MM:SS on an operating date, and their moments in epoch seconds. Pure."""

import re
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple

from govi_server.runtime.clock import LOCAL_ZONE

MINUTE = 60
HOUR = 60 * MINUTE
DAY = 24 * HOUR
HALF_DAY = 12 * HOUR

MAX_EARLY_SECONDS = 10 * MINUTE
"""How early a vehicle may be, to select one of the two moments of a planned time in the repeated hour."""

# The moments that a datetime can represent both in UTC and in local time, whose offset in winter is an hour.
_FIRST_MOMENT = datetime.min.replace(tzinfo=UTC).timestamp()
_LAST_MOMENT = (datetime.max - timedelta(hours=1)).replace(microsecond=0, tzinfo=UTC).timestamp()

_SECONDS_LENGTH = len("2012-01-22T22:45:49")

_TIME = re.compile(r"([0-3][0-9]|4[0-7]):([0-5][0-9]):([0-5][0-9])")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def read_time(text: str) -> int | None:
    """Parse HH:MM:SS, up to 47:59:59, into seconds; return None if it is invalid."""
    match = _TIME.fullmatch(text)
    return int(match[1]) * HOUR + int(match[2]) * MINUTE + int(match[3]) if match else None


def write_time(seconds: int) -> str:
    """Format seconds as HH:MM:SS, which may exceed 24:00:00; with a minus sign before midnight: -00:02:00."""
    if seconds < 0:
        return f"-{write_time(-seconds)}"
    return f"{seconds // HOUR:02}:{seconds // MINUTE % 60:02}:{seconds % 60:02}"


def parse_resolved(time: str) -> int:
    """Parse a time that write_time() has formatted, of any day, into seconds."""
    hours, minutes, seconds = map(int, time.removeprefix("-").split(":"))
    total = hours * HOUR + minutes * MINUTE + seconds
    return -total if time.startswith("-") else total


class PassingTimes(NamedTuple):
    """The times of a vehicle at a stop, in seconds on an operating date; None if unknown."""

    target_arrival: int | None = None
    target_departure: int | None = None
    expected_arrival: int | None = None
    expected_departure: int | None = None

    def at_stop(self, journey_stop_type: str) -> "PassingTimes":
        """Return the times as they apply to a JourneyStopType.

        Nothing departs at a LAST stop: what is published as a departure can only be the arrival. 00:00:00 stands for
        none there (docs/protocols.md, section 2.5), and for an arrival at a FIRST stop.
        """
        target_arrival, target_departure, expected_arrival, expected_departure = self
        if journey_stop_type == "LAST":
            return PassingTimes(
                target_arrival=(target_departure or None) if target_arrival is None else target_arrival,
                expected_arrival=(expected_departure or None) if expected_arrival is None else expected_arrival,
            )
        if journey_stop_type == "FIRST" and (target_arrival == 0 or expected_arrival == 0):
            return self._replace(
                target_arrival=(target_arrival or None) if target_departure else target_arrival,
                expected_arrival=(expected_arrival or None) if expected_departure else expected_arrival,
            )
        return self


def nearest_days(times: PassingTimes) -> PassingTimes:
    """Return times on the days on which no event's target and expected time are more than twelve hours apart.

    Some publishers count the hours past midnight from 0 again: a target of 23:58 is expected at 00:03. A time from
    24:00 on is certain; without one, the first known time is of the operating date.
    """
    known = [time for time in times if time is not None]
    if not known or max(known) - min(known) <= HALF_DAY:
        return times
    certain = next((time for time in known if time >= DAY), known[0])
    arrival, departure = (_nearest(time, certain) for time in times[:2])
    return PassingTimes(
        arrival,
        departure,
        _nearest(times.expected_arrival, certain if arrival is None else arrival),
        _nearest(times.expected_departure, certain if departure is None else departure),
    )


def resolve(
    operating_date: date, times: PassingTimes, updated: float | None, is_recorded: bool = False
) -> PassingTimes:
    """Return times on the days that make sense, near each other and to their update.

    If all are more than twelve hours before the update, and planned before noon, they belong to the next day: their
    publisher does not count hours past 24.

    updated: when the times were sent (epoch seconds), None if unknown. is_recorded: whether the event has happened;
    without a target, its time is then of the day nearest to the update.
    """
    times = nearest_days(times)
    known = [time for time in times if time is not None]
    if updated is None or not known or max(known) >= DAY:
        return times
    days = 0
    if is_recorded and times.target_arrival is None and times.target_departure is None:
        days = round((updated - moment(operating_date, max(known))) / DAY)
    elif known[0] < HALF_DAY and updated - moment(operating_date, max(known)) > HALF_DAY:
        days = 1
    return PassingTimes(*(None if time is None else time + days * DAY for time in times)) if days else times


def _nearest(time: int | None, reference: int) -> int | None:
    """Return a time of day, in seconds, on the day on which it is nearest to a reference."""
    return None if time is None else time - DAY * round((time - reference) / DAY)


def read_date(text: str) -> date | None:
    """Parse YYYY-MM-DD; return None if it is invalid, or its year is not from 1971 to 2999."""
    return _read_date(text) if len(text) == len("YYYY-MM-DD") else None  # a longer text would stay in the cache


@lru_cache(maxsize=1024)
def _read_date(text: str) -> date | None:
    try:
        day = date.fromisoformat(text) if _DATE.fullmatch(text) else None
    except ValueError:
        return None
    return day if day is not None and 1971 <= day.year <= 2999 else None


def local_date(moment: float) -> date:
    """Return the local date in the Netherlands at a moment (epoch seconds)."""
    return local_datetime(moment).date()


def moment(operating_date: date, seconds: int, after: float = 0.0) -> float:
    """Return the epoch seconds of a time on an operating date.

    Times are local, hours past 24 are on the next day (docs/protocols.md, sections 2.5 and 3.2). after: a moment
    (epoch seconds) before the event. A time in the hour that is repeated in autumn is the first of the two, unless
    that is before ``after``. A time in the hour that is skipped in spring is read from a clock not yet changed.
    """
    days, of_day = divmod(seconds, DAY)
    day = operating_date + timedelta(days) if days else operating_date
    midnight, changes = _day(day)
    if not changes:
        return midnight + of_day
    local = datetime(day.year, day.month, day.day, tzinfo=LOCAL_ZONE) + timedelta(seconds=of_day)
    first, second = local.timestamp(), local.replace(fold=1).timestamp()
    return second if first < second and first < after else first


def moments(
    operating_date: date, planned: int | None, expected: int | None, after: float
) -> tuple[float | None, float | None]:
    """Return the moments of the planned and the expected time of one event; None if unknown.

    after: as in moment(), for the expected time. In the repeated hour, the planned moment is the later one, unless
    that would make the vehicle more than MAX_EARLY_SECONDS early.
    """
    expected_moment = None if expected is None else moment(operating_date, expected, after)
    if planned is None:
        return None, expected_moment
    planned_after = after if expected_moment is None else expected_moment + MAX_EARLY_SECONDS - HOUR
    return moment(operating_date, planned, planned_after), expected_moment


@lru_cache(maxsize=256)
def _day(day: date) -> tuple[float, bool]:
    """Return when a day begins (epoch seconds), and whether the clocks change on it."""
    begins = datetime(day.year, day.month, day.day, tzinfo=LOCAL_ZONE)
    ends = begins + timedelta(days=1)
    return begins.timestamp(), begins.utcoffset() != ends.utcoffset()


def read_timestamp(text: str) -> float | None:
    """Parse an ISO 8601 timestamp, 2021-06-06T18:26:05+02:00, into epoch seconds; return None if it is invalid.

    A timestamp without an offset is local time of the Netherlands. All years from 1 to 9999 are valid: messages
    without an end may last until 9999-12-31.
    """
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    if not text.isascii():
        return None
    return (time if time.tzinfo else time.replace(tzinfo=LOCAL_ZONE)).timestamp()


def local_datetime(moment: float) -> datetime:
    """Return a moment as local time of the Netherlands; the nearest possible one before the year 1 or after 9999."""
    return datetime.fromtimestamp(min(max(moment, _FIRST_MOMENT), _LAST_MOMENT), LOCAL_ZONE)


def local_timestamp(moment: float) -> str:
    """Format a moment as local time of the Netherlands with its offset: 2012-01-22T23:45:49+01:00."""
    return local_datetime(moment).isoformat(timespec="seconds")


def utc_timestamp(moment: float) -> str:
    """Format a moment in UTC without an offset, like KV55's RequestTimestamp: 2012-01-22T22:45:49."""
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="seconds")[:_SECONDS_LENGTH]
