"""Parse and format HTTP dates (RFC 9110 section 5.6.7). Pure."""

import re
from datetime import UTC, datetime
from email.utils import formatdate
from functools import lru_cache

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_DAY = "(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
_WEEKDAY = "(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day"
_TIME = r"(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-5][0-9]|60)"
_MONTH = rf"(?P<month>{'|'.join(_MONTHS)})"
# The three formats that a recipient must accept (RFC 9110 section 5.6.7).
_DATES = (
    re.compile(rf"{_DAY}, (?P<day>[0-9]{{2}}) {_MONTH} (?P<year>[0-9]{{4}}) {_TIME} GMT"),
    re.compile(rf"{_WEEKDAY}, (?P<day>[0-9]{{2}})-{_MONTH}-(?P<year>[0-9]{{2}}) {_TIME} GMT"),
    re.compile(rf"{_DAY} {_MONTH} (?P<day>[ 0-9][0-9]) {_TIME} (?P<year>[0-9]{{4}})"),
)


def parse_http_date(text: str, today: float) -> int | None:
    """Parse an HTTP date in any of its three formats; return epoch seconds, or None if it is invalid.

    today: about the current time (epoch seconds); a two-digit year more than 50 years ahead of it is in the past.
    """
    for pattern in _DATES if text else ():
        match = pattern.fullmatch(text)
        if match is None:
            continue
        year, day = int(match["year"]), int(match["day"])
        if len(match["year"]) == 2:
            this_year = datetime.fromtimestamp(today, UTC).year
            year += this_year - this_year % 100
            year -= 100 if year > this_year + 50 else 0
        month = _MONTHS.index(match["month"]) + 1
        try:
            minute = datetime(year, month, day, int(match["hour"]), int(match["minute"]), tzinfo=UTC)
        except ValueError:
            return None
        return int(minute.timestamp()) + int(match["second"])  # a leap second is 60
    return None


def format_http_date(time: float) -> str:
    """Return a time (epoch seconds) as an HTTP date."""
    return _date(int(time))


def http_date_bytes(time: float) -> bytes:
    """Return a time (epoch seconds) as an HTTP date in ASCII."""
    return _date_bytes(int(time))


@lru_cache(maxsize=64)
def _date_bytes(second: int) -> bytes:
    return _date(second).encode()


@lru_cache(maxsize=64)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)
