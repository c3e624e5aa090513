"""What a client says it can take, and what it has: content negotiation and conditional requests (RFC 9110). Pure."""

import re
from datetime import UTC, datetime

from govi_server.environ import Environ, ascii_lower

_ENTITY_TAG = re.compile(r'(?:W/)?("[!#-~\x80-\xff]*")')
_STRONG_TAG = re.compile(r'(?:^|[ \t,])("[!#-~\x80-\xff]*")')
_CODING = re.compile(
    r"[ \t]*([!#$%&'*+\-.^_`|~0-9A-Za-z]+)[ \t]*(?:;[ \t]*[Qq]=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)[ \t]*)?"
)

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_DAY = "(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
_WEEKDAY = "(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day"
_TIME = r"(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-5][0-9]|60)"
_MONTH = rf"(?P<month>{'|'.join(_MONTHS)})"
# The three forms that a recipient must take (RFC 9110 section 5.6.7).
_DATES = (
    re.compile(rf"{_DAY}, (?P<day>[0-9]{{2}}) {_MONTH} (?P<year>[0-9]{{4}}) {_TIME} GMT"),
    re.compile(rf"{_WEEKDAY}, (?P<day>[0-9]{{2}})-{_MONTH}-(?P<year>[0-9]{{2}}) {_TIME} GMT"),
    re.compile(rf"{_DAY} {_MONTH} (?P<day>[ 0-9][0-9]) {_TIME} (?P<year>[0-9]{{4}})"),
)


def prefers_gzip(env: Environ) -> bool:
    """Tell whether a client would rather have gzip than the plain bytes (RFC 9110 section 12.5.3).

    Only one that names it, or *, does; with a weight of 0, or below that of identity, it does not.
    """
    weights: dict[str, float] = {}
    for member in ",".join(env.get_all("accept-encoding", [])).split(","):
        if found := _CODING.fullmatch(member):
            weights[ascii_lower(found[1])] = float(found[2] or 1)
    gzip = weights.get("gzip", weights.get("x-gzip", weights.get("*", 0.0)))
    return gzip > 0 and gzip >= weights.get("identity", 0.0)


def has_changed(env: Environ, etag: str, modified: float | None) -> bool:
    """Tell whether a client wants the representation only as it was, and it is another now (RFC 9110 section 13.2.2).

    etag, modified: as for not_modified(). A weak tag is never sure to be the same (section 13.1.1).
    """
    if_match = env.get_all("if-match")
    if if_match is not None:
        given = ",".join(if_match)
        return given.strip(" \t") != "*" and etag not in _STRONG_TAG.findall(given)
    if modified is None:
        return False
    since = http_date(",".join(env.get_all("if-unmodified-since", [])), modified)
    return since is not None and int(modified) > since


def conditions(env: Environ) -> Environ | None:
    """Give the fields of a request that not_modified() looks at; None if there are none."""
    asked = Environ()
    for name in ("if-none-match", "if-modified-since"):
        if name in env:
            asked[name] = ",".join(env.get_all(name, []))
    return asked if asked.keys() else None


def not_modified(env: Environ, etag: str, modified: float | None) -> bool:
    """Tell whether a client has the representation it asks for (RFC 9110 section 13.2.2).

    etag: its entity tag. modified: when it was made, in epoch seconds; None if that is not told.
    """
    if_none_match = env.get_all("if-none-match")
    if if_none_match is not None:
        given = ",".join(if_none_match)
        return given.strip(" \t") == "*" or etag in _ENTITY_TAG.findall(given)
    if modified is None:
        return False
    since = http_date(",".join(env.get_all("if-modified-since", [])), modified)
    return since is not None and int(modified) <= since


def http_date(text: str, today: float) -> int | None:
    """Read an HTTP date, in any of its three forms, as epoch seconds; None for what is none.

    today: any moment of about now, for a year of two digits: more than 50 years ahead of it is the past.
    """
    for form in _DATES if text else ():
        found = form.fullmatch(text)
        if found is None:
            continue
        year, day = int(found["year"]), int(found["day"])
        if len(found["year"]) == 2:
            this_year = datetime.fromtimestamp(today, UTC).year
            year += this_year - this_year % 100
            year -= 100 if year > this_year + 50 else 0
        month = _MONTHS.index(found["month"]) + 1
        try:
            moment = datetime(year, month, day, int(found["hour"]), int(found["minute"]), tzinfo=UTC)
        except ValueError:
            return None
        return int(moment.timestamp()) + int(found["second"])  # which may be 60
    return None
