"""Parse the header section of a request strictly (RFC 9112) into its environ. Pure: no transport, no clock.

Bytes are decoded as latin-1, one character per byte, as in WSGI (PEP 3333). A line ends in CRLF or a bare LF
(RFC 9112 section 2.2 allows both); any other CR is rejected.
"""

import re
from http.client import HTTPMessage
from ipaddress import IPv6Address
from typing import Any

TOKEN_CHARACTER = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
TOKEN = TOKEN_CHARACTER + rb"+"
"""A method, a field name or a coding, as a regular expression (RFC 9110 section 5.6.2)."""

# The characters of a URI (RFC 3986 section 2), but no fragment (RFC 9112 section 3.2).
# Possessive quantifiers (++) never backtrack: a target of 9 kB takes microseconds.
_TARGET = rb"(?:[A-Za-z0-9\-._~:/?\[\]@!$&'()*+,;=]++|%[0-9A-Fa-f]{2})++"
_REQUEST_LINE = re.compile(rb"(%b) (%b) HTTP/([0-9])\.([0-9])" % (TOKEN, _TARGET))
# A value consists of visible characters, obs-text, spaces and tabs. Surrounding spaces and tabs are stripped later,
# because an expression that excludes them needs quadratic time.
_FIELD = re.compile(rb"(%b):([\t -~\x80-\xff]*)" % TOKEN)

_ABSOLUTE = re.compile(r"[Hh][Tt][Tt][Pp]([Ss]?)://([^/?]*)(.*)")
# uri-host [":" port]: a registered name, an IPv4 address or an address in brackets (RFC 3986 section 3.2.2), not
# empty (RFC 9110 section 4.2.1).
_CHARACTER = r"[A-Za-z0-9\-._~!$&'()*+,;=]"
_HOST = re.compile(
    rf"(?:\[(?:(?P<ipv6>[0-9A-Fa-f:.]{{2,45}})|[Vv][0-9A-Fa-f]+\.(?:{_CHARACTER}|:)+)\]"
    rf"|(?:{_CHARACTER}|%[0-9A-Fa-f]{{2}}){{1,255}})(?::(?P<port>[0-9]{{0,5}}))?"
)
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_LENGTH = re.compile(r"0*([0-9]+)")

CHUNKED = -1
"""The result of body_length() for a chunked body."""


class RequestError(Exception):
    """A request that is rejected.

    status: the status of the response, such as '400 Bad Request'. reason: the text of its body.
    """

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def _bad_request(reason: str) -> RequestError:
    return RequestError("400 Bad Request", reason)


class Environ(HTTPMessage):
    """The environ of one request.

    Items, with lower-case names: the header fields as sent, and ``request_method``, ``http_host`` (if the request
    has a host), ``path_info`` (percent-decoded), ``query_string`` (if there is one). Attributes: ``http_1_0``,
    ``is_https`` (whether the request target is an https URL), ``target`` (the path and query as sent), ``body``.
    """

    http_1_0 = False
    is_https = False
    target = "*"
    body = b""

    def __init__(self) -> None:
        super().__init__()
        # HTTPMessage searches all its fields at each look-up, and a board needs 29 look-ups.
        self._values: dict[str, list[str]] = {}

    def __setitem__(self, name: str, value: str) -> None:
        super().__setitem__(name, value)
        self._values.setdefault(name.lower(), []).append(value)

    def __delitem__(self, name: str) -> None:
        super().__delitem__(name)
        self._values.pop(name.lower(), None)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._values

    def __getitem__(self, name: str) -> str:
        value: str = self.get(name)  # None if it is missing, as in any HTTPMessage
        return value

    def get(self, name: str, failobj: Any = None) -> Any:
        """Return the first value of a name, or failobj."""
        values = self._values.get(name.lower())
        return values[0] if values else failobj

    def get_all(self, name: str, failobj: Any = None) -> Any:
        """Return all values of a name, or failobj."""
        values = self._values.get(name.lower())
        return list(values) if values else failobj

    @property
    def segment(self) -> str:
        """The first segment of the path, which names a module; "" for the front page."""
        return self["path_info"][1:].partition("/")[0]

    def tokens(self, name: str) -> list[str]:
        """Return the members of a comma-separated field from all its lines, in ASCII lower case."""
        members = ",".join(self.get_all(name, [])).split(",")
        return [member for member in (ascii_lower(m.strip(" \t")) for m in members) if member]

    def keeps_alive(self) -> bool:
        """Return whether the connection persists after the response (RFC 9112 section 9.3)."""
        options = self.tokens("connection")
        if "close" in options:
            return False
        return not self.http_1_0 or "keep-alive" in options

    def expects_continue(self) -> bool:
        """Return whether the client waits for 100 Continue (RFC 9110 section 10.1.1). Raises RequestError."""
        expectations = [] if self.http_1_0 else self.tokens("expect")
        if any(expectation != "100-continue" for expectation in expectations):
            raise RequestError("417 Expectation Failed", "The only supported expectation is 100-continue")
        return bool(expectations)

    def body_length(self) -> int:
        """Return the number of bytes in the body, or CHUNKED (RFC 9112 section 6.3). Raises RequestError.

        A request whose end is ambiguous is rejected, since it could smuggle another request.
        """
        codings = self.tokens("transfer-encoding")
        lengths = self.get_all("content-length", [])
        if "transfer-encoding" in self:
            if self.http_1_0:
                raise _bad_request("Transfer-Encoding is not allowed in HTTP/1.0")
            if lengths:
                raise _bad_request("Content-Length and Transfer-Encoding are mutually exclusive")
            if codings[-1:] != ["chunked"] or codings.count("chunked") > 1:
                raise _bad_request("The final transfer coding is not chunked")
            if len(codings) > 1:
                raise RequestError("501 Not Implemented", "The only supported transfer coding is chunked")
            return CHUNKED
        if not lengths:
            return 0
        match = _LENGTH.fullmatch(lengths[0])
        if len(set(lengths)) > 1 or not match:
            raise _bad_request("Invalid Content-Length (expected one number)")
        return int(match[1][:18])  # 18 digits exceed any limit; int() rejects thousands of digits


def parse(http_blob: str | bytes) -> Environ:
    """Parse a request line and header fields, each ended by LF or CRLF, with or without the empty line after them.

    A str is encoded as latin-1. Raises RequestError.
    """
    if isinstance(http_blob, str):
        try:
            http_blob = http_blob.encode("latin-1")
        except UnicodeEncodeError:
            raise _bad_request("Invalid characters (expected latin-1)") from None
    request_line, *lines = http_blob.replace(b"\r\n", b"\n").split(b"\n")
    while lines and not lines[-1]:
        lines.pop()
    env = Environ()
    fields = [_parse_field(line) for line in lines]
    for name, value in fields:
        if "_" not in name:  # or else a client could set path_info
            env[name] = value
    _set_request_line(env, request_line)
    return env


def _parse_field(line: bytes) -> tuple[str, str]:
    match = _FIELD.fullmatch(line)
    if match is None:
        raise _bad_request("Invalid header field (expected 'name: value')")
    return ascii_lower(match[1].decode("ascii")), match[2].strip(b" \t").decode("latin-1")


def _set_request_line(env: Environ, line: bytes) -> None:
    """Set the items of the request line, and the effective host."""
    match = _REQUEST_LINE.fullmatch(line)
    if match is None:
        raise _bad_request("Invalid request line (expected 'METHOD target HTTP/1.1')")
    method, target, major = match[1].decode("ascii"), match[2].decode("ascii"), match[3]
    if major != b"1":
        raise RequestError("505 HTTP Version Not Supported", "The supported versions are HTTP/1.1 and HTTP/1.0")
    env.http_1_0 = match[4] == b"0"
    hosts = env.get_all("host", [])
    if len(hosts) > 1 or not (hosts or env.http_1_0):
        raise _bad_request("Exactly one Host field is required")
    if hosts and not _is_host(hosts[0]):
        raise _bad_request("Invalid Host")
    if absolute := _ABSOLUTE.fullmatch(target):
        # The host in the target replaces Host (RFC 9112 section 3.2.2).
        scheme_s, host, target = absolute.groups()
        if not _is_host(host):
            raise _bad_request("Invalid host in the request target")
        hosts = [host]
        del env["host"]
        env["host"] = host
        env.is_https = bool(scheme_s)
        target = target if target.startswith("/") else "/" + target
    elif method == "CONNECT" and _is_host(target):
        target = "*"  # without a path, like a request about the entire server
    elif not target.startswith("/") and (method, target) != ("OPTIONS", "*"):
        raise _bad_request("Invalid request target (expected a path or an http URL)")
    env.target = target
    path, _, query = target.partition("?")
    env["request_method"] = method
    if hosts:
        env["http_host"] = hosts[0]
    env["path_info"] = _ESCAPE.sub(lambda escape: chr(int(escape[1], 16)), path)
    if query:
        env["query_string"] = query


def _is_host(text: str) -> bool:
    match = _HOST.fullmatch(text)
    if match is None or int(match["port"] or 0) > 65535:
        return False
    try:
        if match["ipv6"] is not None:
            IPv6Address(match["ipv6"])
    except ValueError:
        return False
    return True


def ascii_lower(text: str) -> str:
    """Return the text with A to Z in lower case; str.lower() would convert other letters, such as the Kelvin sign."""
    return text.translate(_LOWER)


_LOWER = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}
