"""What a path of a request asks about, for those who count requests. Pure."""

import re
from functools import lru_cache

SEVERAL = "several"
"""The stop of a request about more than one."""

# Paths of OVapi whose second segment is something else (docs/protocols.md 3); modules with stops may have any name.
_NOT_OF_STOPS = frozenset(("generalmessage", "journey", "lastupdate", "line", "stopareacode"))

_CODE = re.compile("[0-9]{1,10}")


@lru_cache(maxsize=10_000)
def stop_of(path: str | None) -> str | None:
    """Give the stop that a path asks for: /kv55/57330430, /tpc/57330430/departures; None if it asks for none.

    A comma at the end is nothing, as to those who answer.
    """
    segments = (path or "").partition("?")[0].split("/", 3)
    if len(segments) < 3 or segments[0] or segments[1] in _NOT_OF_STOPS:
        return None
    codes = [code for code in segments[2].split(",") if code]
    if not codes or not all(_CODE.fullmatch(code) for code in codes):
        return None
    return codes[0] if len(codes) == 1 else SEVERAL
