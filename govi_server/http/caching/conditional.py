"""What a client says it can take, and what it has: content negotiation and conditional requests (RFC 9110). Pure."""

import re

from govi_server.http.dates import parse_http_date
from govi_server.http.request import Environ

_ENTITY_TAG = re.compile(r'(?:W/)?("[!#-~\x80-\xff]*")')
_STRONG_TAG = re.compile(r'(?:^|[ \t,])("[!#-~\x80-\xff]*")')


def precondition_failed(env: Environ, etag: str, modified: float | None) -> bool:
    """Tell whether a client wants the representation only as it was, and it is another now (RFC 9110 section 13.2.2).

    etag, modified: as for not_modified(). A weak tag is never sure to be the same (section 13.1.1).
    """
    if_match = env.get_all("if-match")
    if if_match is not None:
        given = ",".join(if_match)
        return given.strip(" \t") != "*" and etag not in _STRONG_TAG.findall(given)
    if modified is None:
        return False
    since = parse_http_date(",".join(env.get_all("if-unmodified-since", [])), modified)
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
    since = parse_http_date(",".join(env.get_all("if-modified-since", [])), modified)
    return since is not None and int(modified) <= since
