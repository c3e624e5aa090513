"""Format numbers, and parse moments, for reports."""

import re
from datetime import datetime, timedelta

from govi_server.runtime.clock import LOCAL_ZONE
from govi_server.statistics.summary import Width

MOMENT_FORMATS: dict[Width, str] = {
    "minute": "%Y-%m-%d %H:%M %Z",
    "hour": "%Y-%m-%d %H:%M %Z",
    "day": "%a %Y-%m-%d",
    "month": "%Y-%m",
    "year": "%Y",
}
"""strftime formats of the start of a period, by its width."""

_AGE = re.compile(r"([0-9]{1,6})([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def read_moment(text: str, now: datetime) -> datetime:
    """Parse a moment in ISO 8601, or an age such as 2h. Raises ValueError.

    Without an offset it is in Dutch time; a date is its midnight.
    """
    age = _AGE.fullmatch(text)
    try:
        if age:
            return now - timedelta(**{_UNITS[age[2]]: int(age[1])})
        moment = datetime.fromisoformat(text)
        moment = moment if moment.tzinfo else moment.replace(tzinfo=LOCAL_ZONE)
        moment.timestamp()
    except (ValueError, OverflowError):
        expected = "expected, for example, 2026-11-22, 2026-11-22T15:30, 2h or 3d"
        raise ValueError(f"invalid moment {text!r} ({expected})") from None
    return moment


def milliseconds(time: float | None) -> str:
    """Format a time in milliseconds with at least three significant digits; "-" for None."""
    if time is None:
        return "-"
    decimals = 3 if time < 1 else 2 if time < 10 else 1 if time < 100 else 0
    return f"{time:,.{decimals}f}"


def share(part: int, total: int) -> str:
    """Format part/total as a percentage, 0.0% and 100.0% only if exact; "-" if the total is 0."""
    if not total:
        return "-"
    percent = 100 * part / total
    return f"{percent:.1f}%" if part in (0, total) else f"{min(99.9, max(0.1, percent)):.1f}%"
