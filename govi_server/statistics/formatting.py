"""How reports write numbers and moments, and read moments."""

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
"""How the begin of a period is written, by the width of the period (strftime)."""

_AGO = re.compile(r"([0-9]{1,6})([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def read_moment(text: str, now: datetime) -> datetime:
    """Parse a moment: ISO 8601, in Dutch time if it has no offset, a date being its midnight; or an age such as 2h.

    Raises ValueError.
    """
    ago = _AGO.fullmatch(text)
    try:
        if ago:
            return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        moment = datetime.fromisoformat(text)
        moment = moment if moment.tzinfo else moment.replace(tzinfo=LOCAL_ZONE)
        moment.timestamp()
    except (ValueError, OverflowError):
        expected = "expected such as 2026-11-22, 2026-11-22T15:30, 2h or 3d"
        raise ValueError(f"invalid moment {text!r} ({expected})") from None
    return moment


def milliseconds(time: float | None) -> str:
    """Format a time in milliseconds with at least three significant digits; "-" for None."""
    if time is None:
        return "-"
    decimals = 3 if time < 1 else 2 if time < 10 else 1 if time < 100 else 0
    return f"{time:,.{decimals}f}"


def share(part: int, total: int) -> str:
    """Format part of total as a percentage: 0.0% and 100.0% only if exact; "-" if the total is 0."""
    if not total:
        return "-"
    percent = 100 * part / total
    return f"{percent:.1f}%" if part in (0, total) else f"{min(99.9, max(0.1, percent)):.1f}%"
