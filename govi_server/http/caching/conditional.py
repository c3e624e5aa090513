"""Conditional requests (RFC 9110 section 13): entity tags and dates. Pure."""

import re

from govi_server.http.dates import parse_http_date
from govi_server.http.request import Environ

_ENTITY_TAG = re.compile(r'(?:W/)?("[!#-~\x80-\xff]*")')
_STRONG_TAG = re.compile(r'(?:^|[ \t,])("[!#-~\x80-\xff]*")')


def precondition_failed(env: Environ, etag: str, modified: float | None) -> bool:
    """Return whether If-Match or If-Unmodified-Since fails for a representation (RFC 9110 section 13.2.2).

    etag, modified: see not_modified(). A weak tag never matches (section 13.1.1).
    """
    if_match = env.get_all("if-match")
    if if_match is not None:
        value = ",".join(if_match)
        return value.strip(" \t") != "*" and etag not in _STRONG_TAG.findall(value)
    if modified is None:
        return False
    since = parse_http_date(",".join(env.get_all("if-unmodified-since", [])), modified)
    return since is not None and int(modified) > since


def conditions(env: Environ) -> Environ | None:
    """Return the fields of a request that not_modified() reads; None if the request has none of them."""
    fields = Environ()
    for name in ("if-none-match", "if-modified-since"):
        if name in env:
            fields[name] = ",".join(env.get_all(name, []))
    return fields if fields.keys() else None


def not_modified(env: Environ, etag: str, modified: float | None, now: float) -> bool:
    """Return whether the client has a representation already (RFC 9110 section 13.2.2).

    etag: its entity tag. modified: its Last-Modified, or None; now: both in epoch seconds. A date in the future is
    ignored: after the clock was set back, it is that of an older representation.
    """
    if_none_match = env.get_all("if-none-match")
    if if_none_match is not None:
        value = ",".join(if_none_match)
        return value.strip(" \t") == "*" or etag in _ENTITY_TAG.findall(value)
    if modified is None:
        return False
    since = parse_http_date(",".join(env.get_all("if-modified-since", [])), modified)
    return since is not None and int(modified) <= since <= now
