"""Parsing a header section: the documented example, valid requests and rejected ones."""

import string
from urllib.parse import unquote

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from govi_server.http.request import CHUNKED, Environ, RequestError, parse

REFERENCE = """GET /kv55/57330430 HTTP/1.1
Host: cache.govi.openov.nl
User-Agent: Mozilla/5.0 (X11; Linux i686; rv:2.0) Firefox/4.0
Accept: text/html,application/xml;q=0.9,*/*;q=0.8
Accept-Language: en-us,en;q=0.5
Accept-Encoding: gzip, deflate
Accept-Charset: ISO-8859-1,utf-8;q=0.7,*;q=0.7
Keep-Alive: 115
DNT: 1
Connection: keep-alive
Cache-Control: max-age=0

"""

REFERENCE_ITEMS = [
    ("accept", "text/html,application/xml;q=0.9,*/*;q=0.8"),
    ("accept-charset", "ISO-8859-1,utf-8;q=0.7,*;q=0.7"),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", "en-us,en;q=0.5"),
    ("cache-control", "max-age=0"),
    ("connection", "keep-alive"),
    ("dnt", "1"),
    ("host", "cache.govi.openov.nl"),
    ("http_host", "cache.govi.openov.nl"),
    ("keep-alive", "115"),
    ("path_info", "/kv55/57330430"),
    ("request_method", "GET"),
    ("user-agent", "Mozilla/5.0 (X11; Linux i686; rv:2.0) Firefox/4.0"),
]

BAD = "400 Bad Request"
NOT_IMPLEMENTED = "501 Not Implemented"
VERSION_NOT_SUPPORTED = "505 HTTP Version Not Supported"
EXPECTATION_FAILED = "417 Expectation Failed"
ACCEPTED = "accepted"

# Parts of valid and invalid requests.
FRAGMENTS = (
    *(b"GET", b"OPTIONS", b" ", b"/", b"*", b"?", b"#", b"%41", b"%", b"http://", b"[::1]", b"a", b"5", b",", b":"),
    *(b" HTTP/1.1", b" HTTP/1.0", b" HTTP/2.0", b"\r\n", b"\n", b"\r", b"\t", b"\0", b"\xff", b"_"),
    *(b"Host: a", b"Content-Length:", b"Transfer-Encoding:", b"chunked", b"Connection:", b"close", b"path_info"),
    *(b"Expect:", b"100-continue"),
)

TOKENS = st.text(
    st.sampled_from("!#$%&'*+-.^`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"), min_size=1
)
VISIBLE = [chr(code) for code in (*range(0x21, 0x7F), *range(0x80, 0x100))]
VALUES = st.text(st.sampled_from([*VISIBLE, " ", "\t"])).map(lambda text: text.strip(" \t"))
URI = string.ascii_letters + string.digits + "-._~:/?[]@!$&'()*+,;="
PATHS = st.text(st.sampled_from(URI.replace("?", ""))).map("/".__add__)


def request(*fields: str, line: str = "GET / HTTP/1.1", host: str = "Host: a\n") -> Environ:
    """Return the environ of a request with these parts, and valid ones otherwise."""
    return parse(f"{line}\n{host}{''.join(field + chr(10) for field in fields)}\n")


def status(blob: str | bytes) -> str:
    """Return the status of a request's rejection, or ACCEPTED."""
    try:
        parse(blob)
    except RequestError as error:
        return error.status
    return ACCEPTED


def field_status(field: str) -> str:
    """Return the status of the rejection of a request with this field line, or ACCEPTED."""
    return status(f"GET / HTTP/1.1\nHost: a\n{field}\nAccept: b\n\n")


class ReferenceTests(SynchronousTestCase):
    """The documented request."""

    def test_items_of_documented_request(self) -> None:
        """The documented request has exactly the documented items, with either line end."""
        crlf = REFERENCE.replace("\n", "\r\n")
        for blob in (REFERENCE, crlf, REFERENCE.encode(), crlf.encode()):
            self.assertEqual(sorted(parse(blob).items()), REFERENCE_ITEMS)

    def test_final_empty_line_is_optional(self) -> None:
        """The empty line after the fields is optional."""
        for blob in (REFERENCE.rstrip("\n"), REFERENCE.rstrip("\n") + "\n", REFERENCE + "\n"):
            self.assertEqual(sorted(parse(blob).items()), REFERENCE_ITEMS)

    def test_parsed_request_has_empty_body(self) -> None:
        """A parsed request has an empty body until its body is received."""
        self.assertEqual(parse(REFERENCE).body, b"")


class RequestLineTests(SynchronousTestCase):
    """The request line."""

    def test_parts_of_request_line(self) -> None:
        """A request line has the method as sent, the path decoded once, and the query as sent."""
        table = {
            "GET / HTTP/1.1": ("GET", "/", None),
            "HEAD /kv55/031102 HTTP/1.1": ("HEAD", "/kv55/031102", None),
            "get /Kv55 HTTP/1.1": ("get", "/Kv55", None),
            "M-SEARCH / HTTP/1.1": ("M-SEARCH", "/", None),
            "GET //a//b/ HTTP/1.1": ("GET", "//a//b/", None),
            "GET /a/../b HTTP/1.1": ("GET", "/a/../b", None),
            "GET /a%20b%2Fc HTTP/1.1": ("GET", "/a b/c", None),
            "GET /%6b%6B HTTP/1.1": ("GET", "/kk", None),
            "GET /%2541 HTTP/1.1": ("GET", "/%41", None),
            "GET /%0D%0A%00 HTTP/1.1": ("GET", "/\r\n\0", None),
            "GET /%C3%A9 HTTP/1.1": ("GET", "/\xc3\xa9", None),
            "GET /a+b HTTP/1.1": ("GET", "/a+b", None),
            "GET /a? HTTP/1.1": ("GET", "/a", None),
            "GET /a?b HTTP/1.1": ("GET", "/a", "b"),
            "GET /a?b=%41&c?d HTTP/1.1": ("GET", "/a", "b=%41&c?d"),
            "GET /a%3Fb HTTP/1.1": ("GET", "/a?b", None),
            "OPTIONS * HTTP/1.1": ("OPTIONS", "*", None),
            "GET / HTTP/1.0": ("GET", "/", None),
            "GET / HTTP/1.7": ("GET", "/", None),
        }
        for line, expected in table.items():
            env = request(line=line)
            parts = env["request_method"], env["path_info"], env.get("query_string")
            self.assertEqual(parts, expected, line)

    def test_invalid_request_line_is_rejected(self) -> None:
        """An invalid request line is rejected, an unsupported version with 505."""
        table = {
            "": BAD,
            "GET": BAD,
            "GET /": BAD,
            "GET  / HTTP/1.1": BAD,
            "GET /  HTTP/1.1": BAD,
            " GET / HTTP/1.1": BAD,
            "GET / HTTP/1.1 ": BAD,
            "GET\t/ HTTP/1.1": BAD,
            "GET / b HTTP/1.1": BAD,
            "GET /\0 HTTP/1.1": BAD,
            "GET /\xe9 HTTP/1.1": BAD,
            "GET /%%34%31 HTTP/1.1": BAD,
            "GET /%zz HTTP/1.1": BAD,
            "GET /%4 HTTP/1.1": BAD,
            **dict.fromkeys((f"GET /{char} HTTP/1.1" for char in '"<>\\^`{|}'), BAD),
            **dict.fromkeys((f"GET /?{char} HTTP/1.1" for char in '"<>\\^`{|}#\xff'), BAD),
            "GET /\r HTTP/1.1": BAD,
            "GET /\x7f HTTP/1.1": BAD,
            "GET / HTTP/1.1\r": BAD,
            "G(T / HTTP/1.1": BAD,
            "G\xcbT / HTTP/1.1": BAD,
            "GET / HTTP/11": BAD,
            "GET / HTTP/1.10": BAD,
            "GET / HTTP/1.": BAD,
            "GET / HTTP/1.x": BAD,
            "GET / HTTP/\xb9.1": BAD,
            "GET / http/1.1": BAD,
            "GET / HTTPS/1.1": BAD,
            "GET kv55 HTTP/1.1": BAD,
            "GET * HTTP/1.1": BAD,
            "GET ?a HTTP/1.1": BAD,
            "OPTIONS ** HTTP/1.1": BAD,
            "CONNECT a/b HTTP/1.1": BAD,
            "GET ftp://a/ HTTP/1.1": BAD,
            "GET http:/a HTTP/1.1": BAD,
            "GET http:// HTTP/1.1": BAD,
            "GET http:///a HTTP/1.1": BAD,
            "GET http://user@a/ HTTP/1.1": BAD,
            "GET http://a/b#c HTTP/1.1": BAD,
            "GET http://a b/ HTTP/1.1": BAD,
            "GET / HTTP/2.0": VERSION_NOT_SUPPORTED,
            "GET / HTTP/0.9": VERSION_NOT_SUPPORTED,
            "PRI * HTTP/2.0": VERSION_NOT_SUPPORTED,
        }
        self.assertEqual({line: status(f"{line}\r\nHost: a\r\n\r\n") for line in table}, table)

    def test_http_1_0_is_distinguished(self) -> None:
        """The environ distinguishes HTTP/1.0 from HTTP/1.1 and later."""
        for version, http_1_0 in (("1.0", True), ("1.1", False), ("1.2", False)):
            self.assertEqual(request(line=f"GET / HTTP/{version}").http_1_0, http_1_0)

    def test_absolute_form_replaces_host(self) -> None:
        """A target in absolute form has a path, a query, and a host that replaces the Host field."""
        table = {
            "http://b": ("b", "/", None),
            "http://b/": ("b", "/", None),
            "http://b:8080/c?d": ("b:8080", "/c", "d"),
            "http://b?d": ("b", "/", "d"),
            "HTTPS://[::1]/%41": ("[::1]", "/A", None),
            "http://b//c": ("b", "//c", None),
        }
        for target, (host, path, query) in table.items():
            env = request(line=f"GET {target} HTTP/1.1")
            self.assertEqual((env["path_info"], env.get("query_string")), (path, query), target)
            self.assertEqual((env["http_host"], env.get_all("host")), (host, [host]), target)

    def test_absolute_form_requires_host(self) -> None:
        """HTTP/1.1 requires one Host field even with a target in absolute form."""
        self.assertEqual(status("GET http://b/ HTTP/1.1\n\n"), BAD)
        self.assertEqual(status("GET http://b/ HTTP/1.1\nHost: b\nHost: b\n\n"), BAD)
        self.assertEqual(parse("GET http://b/ HTTP/1.0\n\n")["http_host"], "b")


class HostTests(SynchronousTestCase):
    """The host of a request."""

    def test_valid_and_invalid_hosts(self) -> None:
        """A host is a name or an address, with or without a port."""
        table = {
            "cache.govi.openov.nl": ACCEPTED,
            "Cache.Govi:8080": ACCEPTED,
            "a:": ACCEPTED,
            "127.0.0.1:80": ACCEPTED,
            "[::1]": ACCEPTED,
            "[2001:db8::1]:443": ACCEPTED,
            "[::ffff:127.0.0.1]": ACCEPTED,
            "a_b-c~d": ACCEPTED,
            "a%20z": ACCEPTED,
            "a!$&'()*+,;=b": ACCEPTED,
            "a b": BAD,
            "a, b": BAD,
            "a/b": BAD,
            "a?b": BAD,
            "a#b": BAD,
            "user@a": BAD,
            "http://a": BAD,
            "a:b": BAD,
            "a:80:90": BAD,
            "a:123456": BAD,
            "a:-1": BAD,
            "a:\xb9": BAD,
            "::1": BAD,
            "[::1": BAD,
            "[]": BAD,
            "[::g]": BAD,
            "[::1]a": BAD,
            "a%2": BAD,
            "a%zz": BAD,
            "\xe9": BAD,
            '"a"': BAD,
            "a\\b": BAD,
        }
        self.assertEqual({host: status(f"GET / HTTP/1.1\nHost: {host}\n\n") for host in table}, table)

    def test_number_of_host_fields(self) -> None:
        """HTTP/1.1 requires exactly one Host field; HTTP/1.0 allows none."""
        table = {
            "GET / HTTP/1.1\n\n": BAD,
            "GET / HTTP/1.1\nHost: a\nHost: a\n\n": BAD,
            "GET / HTTP/1.1\nHost: a\nhOST: b\n\n": BAD,
            "GET / HTTP/1.0\nHost: a\nHost: b\n\n": BAD,
            "GET / HTTP/1.0\nHost: a b\n\n": BAD,
            "GET / HTTP/1.0\nHost: a\n\n": ACCEPTED,
            "GET / HTTP/1.0\n\n": ACCEPTED,
        }
        self.assertEqual({blob: status(blob) for blob in table}, table)

    def test_http_host_is_the_host_as_sent(self) -> None:
        """http_host is the host as sent, and absent without a Host field."""
        self.assertEqual(request(host="Host:  A.example:80 \n")["http_host"], "A.example:80")
        self.assertNotIn("http_host", request(line="GET / HTTP/1.0", host=""))


class FieldTests(SynchronousTestCase):
    """The header fields."""

    def test_names_and_values(self) -> None:
        """Names are in lower case, values without surrounding whitespace."""
        table = {
            "X-A: b": ("x-a", "b"),
            "X-A:b": ("x-a", "b"),
            "x-a: \t b c\t ": ("x-a", "b c"),
            "X-A:": ("x-a", ""),
            "X-A: \t ": ("x-a", ""),
            "X-A: b:c": ("x-a", "b:c"),
            "X-A: b\t\tc": ("x-a", "b\t\tc"),
            "X-A: \xe9\xff": ("x-a", "\xe9\xff"),
            "X-A: \xa0b\xa0": ("x-a", "\xa0b\xa0"),
            "!#$%&'*+-.^`|~09Az: b": ("!#$%&'*+-.^`|~09az", "b"),
        }
        for field, (name, value) in table.items():
            self.assertEqual(request(field).get_all(name), [value], field)

    def test_ambiguous_line_is_rejected(self) -> None:
        """A line that parsers interpret differently is rejected."""
        table = [
            "X-A : b",
            "X-A\t: b",
            " X-A: b",
            "X-A: b\n c",
            "X-A: b\n\tc",
            "X-A: b\r\n c",
            "X-A: b\n\nX-C: d",
            "X-A: b\n ",
            "X-A",
            ": b",
            "X A: b",
            "X-A\0: b",
            "X-A: b\0c",
            "X-A: \0",
            "X-A: b\rc",
            "X-A: b\r\r",
            "X-A: \rb",
            "X\r-A: b",
            "X-A: b\x0bc",
            "X-A: b\x1bc",
            "X-A: b\x7f",
            "X(A): b",
            '"X-A": b',
            "X-\xe9: b",
            "X-\x80: b",
        ]
        self.assertEqual({field: field_status(field) for field in table}, dict.fromkeys(table, BAD))

    def test_folded_first_line_is_rejected(self) -> None:
        """A first field line that begins with whitespace is rejected."""
        self.assertEqual(status("GET / HTTP/1.1\n Host: a\n\n"), BAD)

    def test_repeated_field_has_all_values(self) -> None:
        """A repeated field has all its values, in order."""
        env = request("Accept: a", "X-B: c", "ACCEPT: d")
        self.assertEqual(env.get_all("accept"), ["a", "d"])

    def test_names_with_underscore_are_dropped(self) -> None:
        """A field with an underscore in its name is dropped: it could forge an item of the request line."""
        forged = ("path_info: /b", "request_method: DELETE", "Query_String: c", "HTTP_HOST: d", "X_Y: e")
        env = request(*forged, line="GET /a HTTP/1.1")
        self.assertEqual(
            sorted(env.items()),
            [("host", "a"), ("http_host", "a"), ("path_info", "/a"), ("request_method", "GET")],
        )

    def test_framing_with_underscore_has_no_effect(self) -> None:
        """Content_Length and Transfer_Encoding do not frame a body."""
        self.assertEqual(request("Content_Length: 5", "Transfer_Encoding: chunked").body_length(), 0)

    def test_text_is_latin_1(self) -> None:
        """Each byte is one character; text outside latin-1 is rejected."""
        blob = "GET / HTTP/1.1\nHost: a\nX-A: \xe9\xff\n\n"
        self.assertEqual(parse(blob).items(), parse(blob.encode("latin-1")).items())
        self.assertEqual(status("GET / HTTP/1.1\nHost: a\nX-A: \u20ac\n\n"), BAD)

    def test_values_are_text(self) -> None:
        """A value with any bytes is a str, not a header object of the email package."""
        for value in ("\xe9\xff", "=?utf-8?q?a?=", "\x80\x81"):
            self.assertIs(type(request(f"X-A: {value}")["x-a"]), str)


class TokensTests(SynchronousTestCase):
    """Comma-separated fields."""

    def test_tokens_of_all_lines(self) -> None:
        """The members of all lines are returned in lower case, without whitespace and empty members."""
        env = request("Connection: Keep-Alive ,, \tTE", "connection:", "CONNECTION: Upgrade,")
        self.assertEqual(env.tokens("connection"), ["keep-alive", "te", "upgrade"])
        self.assertEqual(env.tokens("te"), [])

    def test_only_ascii_is_lowered(self) -> None:
        """A character outside ASCII never becomes an ASCII one, unlike the Kelvin sign in str.lower()."""
        env = Environ()
        env.http_1_0 = True
        env["connection"] = "\u212aeep-alive"
        env["transfer-encoding"] = "chun\u212aed"
        self.assertEqual("\u212a".lower(), "k")
        self.assertEqual(env.tokens("connection"), ["\u212aeep-alive"])
        self.assertFalse(env.keeps_alive())
        env.http_1_0 = False
        self.assertEqual(self.assertRaises(RequestError, env.body_length).status, BAD)
        self.assertEqual(status("GET / HTTP/1.0\nConnection: \u212aeep-alive\n\n"), BAD)

    def test_latin_1_is_not_lowered(self) -> None:
        """Letters outside ASCII do not change, nor do the neighbours of A and Z."""
        self.assertEqual(request("Connection: \xc9AZ@[").tokens("connection"), ["\xc9az@["])


class KeepsAliveTests(SynchronousTestCase):
    """Whether the connection persists."""

    def test_persistence_by_version_and_field(self) -> None:
        """HTTP/1.1 persists without close, HTTP/1.0 only with keep-alive; close takes precedence."""
        table: dict[tuple[str, tuple[str, ...]], bool] = {
            ("1.1", ()): True,
            ("1.1", ("keep-alive",)): True,
            ("1.1", ("close",)): False,
            ("1.1", ("CLOSE",)): False,
            ("1.1", ("TE, close",)): False,
            ("1.1", ("keep-alive", "close")): False,
            ("1.1", ("closed",)): True,
            ("1.1", ("",)): True,
            ("1.0", ()): False,
            ("1.0", ("Keep-Alive",)): True,
            ("1.0", ("TE,keep-alive",)): True,
            ("1.0", ("keep-alive, close",)): False,
            ("1.0", ("keep alive",)): False,
        }
        for (version, lines), expected in table.items():
            env = request(*(f"Connection: {line}" for line in lines), line=f"GET / HTTP/{version}")
            self.assertEqual(env.keeps_alive(), expected, (version, lines))


class ExpectsContinueTests(SynchronousTestCase):
    """Whether the client waits for 100 Continue."""

    def outcome(self, version: str, lines: tuple[str, ...]) -> bool | str:
        """Return the result of expects_continue(), or the status of the rejection."""
        env = request(*(f"Expect: {line}" for line in lines), line=f"POST / HTTP/{version}")
        try:
            return env.expects_continue()
        except RequestError as error:
            return error.status

    def test_only_100_continue_is_supported(self) -> None:
        """Only 100-continue is supported, and HTTP/1.0 has no expectations."""
        table: dict[tuple[str, tuple[str, ...]], bool | str] = {
            ("1.1", ()): False,
            ("1.1", ("",)): False,
            ("1.1", ("100-continue",)): True,
            ("1.1", ("100-Continue",)): True,
            ("1.1", ("100-continue", "100-continue")): True,
            ("1.1", ("200-ok",)): EXPECTATION_FAILED,
            ("1.1", ("100-continue, 200-ok",)): EXPECTATION_FAILED,
            ("1.1", ("100-continue;a=b",)): EXPECTATION_FAILED,
            ("1.0", ("100-continue",)): False,
            ("1.0", ("200-ok",)): False,
        }
        self.assertEqual({key: self.outcome(*key) for key in table}, table)


class BodyLengthTests(SynchronousTestCase):
    """The length of the body."""

    def outcome(self, fields: tuple[str, ...], version: str = "1.1") -> int | str:
        """Return the length of the body, or the status of the rejection."""
        try:
            return request(*fields, line=f"POST / HTTP/{version}").body_length()
        except RequestError as error:
            return error.status

    def test_content_length_consists_of_digits(self) -> None:
        """A length consists of ASCII digits; int() accepts more."""
        table: dict[str, int | str] = {
            "0": 0,
            "5": 5,
            "  5\t": 5,
            "0005": 5,
            "9" * 18: 10**18 - 1,
            "0" * 5000 + "9" * 5000: 10**18 - 1,
            "": BAD,
            "+5": BAD,
            "-5": BAD,
            "0x5": BAD,
            "1_000": BAD,
            "5.0": BAD,
            "5,5": BAD,
            "5, 5": BAD,
            "5 5": BAD,
            "5;": BAD,
            "five": BAD,
            "\xa05": BAD,
            "5\x85": BAD,
            "\xb2": BAD,
            "\u0665".encode().decode("latin-1"): BAD,
            "\uff15".encode().decode("latin-1"): BAD,
        }
        self.assertEqual({value: self.outcome((f"Content-Length: {value}",)) for value in table}, table)

    def test_untrimmed_content_length(self) -> None:
        """A length with leading whitespace, which a parsed request cannot have, is rejected as well."""
        env = Environ()
        env["content-length"] = " 5"
        self.assertEqual(self.assertRaises(RequestError, env.body_length).status, BAD)

    def test_repeated_content_length(self) -> None:
        """Repeated equal lengths are one length; different ones are rejected."""
        table: dict[tuple[str, ...], int | str] = {
            (): 0,
            ("5", "5"): 5,
            ("5", "6"): BAD,
            ("5", "05"): BAD,
            ("5", ""): BAD,
            ("+5", "+5"): BAD,
        }
        lengths = {values: self.outcome(tuple(f"Content-Length: {value}" for value in values)) for values in table}
        self.assertEqual(lengths, table)

    def test_only_chunked_is_supported(self) -> None:
        """The only transfer coding is chunked."""
        table: dict[tuple[str, ...], int | str] = {
            ("chunked",): CHUNKED,
            ("Chunked",): CHUNKED,
            (", chunked ,",): CHUNKED,
            ("", "chunked"): CHUNKED,
            ("gzip, chunked",): NOT_IMPLEMENTED,
            ("gzip", "chunked"): NOT_IMPLEMENTED,
            ("identity, chunked",): NOT_IMPLEMENTED,
            ("",): BAD,
            (",",): BAD,
            ("gzip",): BAD,
            ("identity",): BAD,
            ("chunked, gzip",): BAD,
            ("chunked", "gzip"): BAD,
            ("chunked, chunked",): BAD,
            ("chunked", "chunked"): BAD,
            ("chunked, gzip, chunked",): BAD,
            ("chunked;a=b",): BAD,
            ("xchunked",): BAD,
            ('"chunked"',): BAD,
            ("\xa0chunked",): BAD,
        }
        lengths = {values: self.outcome(tuple(f"Transfer-Encoding: {value}" for value in values)) for values in table}
        self.assertEqual(lengths, table)

    def test_length_and_transfer_coding_are_rejected(self) -> None:
        """A length together with a transfer coding is rejected, in either order."""
        length, chunked = "Content-Length: 5", "Transfer-Encoding: chunked"
        self.assertEqual(self.outcome((length, chunked)), BAD)
        self.assertEqual(self.outcome((chunked, length)), BAD)
        self.assertEqual(self.outcome(("Content-Length: 0", "transfer-encoding:")), BAD)

    def test_http_1_0_has_no_transfer_coding(self) -> None:
        """HTTP/1.0 has lengths, but no transfer codings."""
        self.assertEqual(self.outcome(("Content-Length: 5",), "1.0"), 5)
        self.assertEqual(self.outcome(("Transfer-Encoding: chunked",), "1.0"), BAD)
        self.assertEqual(self.outcome(("Transfer-Encoding: gzip",), "1.0"), BAD)


class SlowRequestTests(SynchronousTestCase):
    """Requests that are crafted to be slow to parse."""

    def test_whitespace_is_parsed_in_linear_time(self) -> None:
        """Much whitespace before an invalid character is rejected; a quadratic parser would run for minutes."""
        self.assertRaises(RequestError, parse, b"GET / HTTP/1.1\r\nHost: x\r\nA:" + b" \t" * 500_000 + b"\0\r\n\r\n")


class AnyRequestTests(SynchronousTestCase):
    """Properties of every request."""

    @settings(deadline=None)
    @given(st.binary() | st.lists(st.sampled_from(FRAGMENTS)).map(b"".join))
    @example(b"")
    @example(b"\r\n\r\n")
    def test_any_bytes_are_parsed_or_rejected(self, blob: bytes) -> None:
        """Any bytes are a request or rejected with a status; the same holds for its framing and expectations."""
        for data in (blob, b"GET / HTTP/1.1\r\nHost: a\r\n" + blob):
            try:
                env = parse(data)
                self.assertEqual({type(value) for value in env.values()}, {str})
                self.assertEqual({"request_method", "path_info"} - set(env), set())
                env.keeps_alive()
                env.expects_continue()
                self.assertGreaterEqual(env.body_length(), CHUNKED)
            except RequestError as error:
                self.assertRegex(error.status, r"\A[45][0-9]{2} [A-Za-z ]+\Z")

    @settings(deadline=None)
    @given(
        method=TOKENS,
        path=PATHS,
        query=st.text(st.sampled_from(URI)),
        fields=st.lists(st.tuples(TOKENS.filter(lambda name: name.lower() != "host"), VALUES)),
    )
    def test_all_parts_are_parsed(self, method: str, path: str, query: str, fields: list[tuple[str, str]]) -> None:
        """All parts of a request are in its environ, with either line end."""
        target = f"{path}?{query}" if query else path
        lines = [f"{method} {target} HTTP/1.1", "Host: a", *(f"{name}: {value}" for name, value in fields), "", ""]
        env = parse("\n".join(lines).encode("latin-1"))
        self.assertEqual(env.items(), parse("\r\n".join(lines).encode("latin-1")).items())
        self.assertEqual(env["request_method"], method)
        self.assertEqual(env["path_info"], unquote(path, "latin-1"))
        self.assertEqual(env.get("query_string", ""), query)
        expected: dict[str, list[str]] = {"host": ["a"]}
        for name, value in fields:
            expected.setdefault(name.lower(), []).append(value)
        self.assertEqual({name: env.get_all(name) for name in env if "_" not in name}, expected)
