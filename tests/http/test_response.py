"""The bytes of responses, and representations with their entity tags."""

import gzip

from twisted.trial.unittest import SynchronousTestCase

from govi_server.http.caching.representation import make_representation, represent
from govi_server.http.parameters import InvalidParameter
from govi_server.http.response import CONTINUE, Headers, format_response, pairs
from govi_server.runtime.cooperative import run_now

# 6 November 1994, 08:49:37 UTC: the date of RFC 9110's examples.
NOW = 784111777.0
DATE = b"Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
SAFETY = b"X-Content-Type-Options: nosniff\r\nContent-Security-Policy: default-src 'none'; sandbox\r\n"


class FormatTests(SynchronousTestCase):
    """Serializing a response."""

    def test_parts_of_response(self) -> None:
        """A response is the status line, Date, the fields, Content-Length, an empty line and the body."""
        self.assertEqual(
            format_response("200 Ok", {"Content-Type": "text/plain", "X-A": "b"}, b"hello\n", now=NOW),
            b"HTTP/1.1 200 Ok\r\n"
            + DATE
            + b"Content-Type: text/plain\r\nX-A: b\r\n"
            + SAFETY
            + b"Content-Length: 6\r\n\r\nhello\n",
        )

    def test_empty_body_has_length(self) -> None:
        """A response with an empty body has a Content-Length of 0."""
        self.assertEqual(
            format_response("200 Ok", (), b"", now=NOW),
            b"HTTP/1.1 200 Ok\r\n" + DATE + SAFETY + b"Content-Length: 0\r\n\r\n",
        )

    def test_body_is_unchanged(self) -> None:
        """A body of any bytes is unchanged."""
        body = bytes(range(256)) + b"\r\n\r\n"
        self.assertEqual(
            format_response("200 Ok", (), body, now=NOW),
            b"HTTP/1.1 200 Ok\r\n" + DATE + SAFETY + b"Content-Length: 260\r\n\r\n" + body,
        )

    def test_head_has_no_body(self) -> None:
        """The response to HEAD is that to GET without the body, and has its length."""
        headers = {"Content-Type": "text/plain"}
        response = format_response("200 Ok", headers, b"hello\n", now=NOW)
        self.assertEqual(
            format_response("200 Ok", headers, b"hello\n", now=NOW, without_body=True) + b"hello\n", response
        )

    def test_connection_field_is_last(self) -> None:
        """The Connection field, if any, is the last."""
        self.assertEqual(
            format_response("404 Not Found", (), b"", now=NOW, connection="close"),
            b"HTTP/1.1 404 Not Found\r\n" + DATE + SAFETY + b"Content-Length: 0\r\nConnection: close\r\n\r\n",
        )

    def test_status_without_body(self) -> None:
        """A status without a body has neither body nor length, with HEAD and with GET."""
        for status in ("304 Not Modified", "204 No Content", "103 Early Hints"):
            for without_body in (False, True):
                self.assertEqual(
                    format_response(status, {"ETag": '"a"'}, b"hello", now=NOW, without_body=without_body),
                    b"HTTP/1.1 " + status.encode() + b"\r\n" + DATE + b'ETag: "a"\r\n' + SAFETY + b"\r\n",
                )

    def test_date_is_the_current_second(self) -> None:
        """Date is the current second."""
        for now in (NOW, NOW + 0.25, NOW + 0.75):
            self.assertIn(DATE, format_response("200 Ok", (), b"", now=now))
        self.assertIn(b"Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n", format_response("200 Ok", (), b"", now=0))

    def test_order_of_fields(self) -> None:
        """Fields are a mapping or pairs; their order and repetitions are preserved."""
        table: list[tuple[Headers, bytes]] = [
            ({}, b""),
            ({"A": "b", "C": "d"}, b"A: b\r\nC: d\r\n"),
            ([("C", "d"), ("A", "b"), ("C", "e")], b"C: d\r\nA: b\r\nC: e\r\n"),
            ((pair for pair in [("A", "b")]), b"A: b\r\n"),
            ({"A": ""}, b"A: \r\n"),
            ({"A": "b\tc d"}, b"A: b\tc d\r\n"),
            ({"A": "\xe9\xff"}, b"A: \xe9\xff\r\n"),
            ({"!#$%&'*+-.^_`|~09Az": "b"}, b"!#$%&'*+-.^_`|~09Az: b\r\n"),
        ]
        for headers, expected in table:
            self.assertEqual(
                format_response("200 Ok", headers, b"", now=NOW),
                b"HTTP/1.1 200 Ok\r\n" + DATE + expected + SAFETY + b"Content-Length: 0\r\n\r\n",
            )

    def test_page_has_its_own_policy(self) -> None:
        """The policy of a page replaces that of other responses, whatever the case of its name."""
        for name in ("Content-Security-Policy", "content-security-policy"):
            response = format_response("200 Ok", {name: "default-src 'self'"}, b"", now=NOW).lower()
            self.assertEqual(response.count(b"content-security-policy"), 1)
            self.assertIn(b"\r\ncontent-security-policy: default-src 'self'\r\n", response)
            self.assertIn(b"\r\nx-content-type-options: nosniff\r\n", response)

    def test_header_injection_is_rejected(self) -> None:
        """A field with a line end is rejected."""
        table = [
            ("A", "b\r\nC: d"),
            ("A", "b\nC: d"),
            ("A", "b\rC: d"),
            ("A", "b\n"),
            ("A", "b\r\n\r\n<html>"),
            ("A", "b\0"),
            ("A", "b\x0b"),
            ("A", "b\x1b[m"),
            ("A", "b\x7f"),
            ("A", "\u20ac"),
            ("A", "\u010a"),  # its low byte is a line feed
            ("A", "\u2028"),
            ("A", "\ud800"),
            ("A\r\nC", "d"),
            ("A\n", "b"),
            ("A: b\r\nC", "d"),
            ("A ", "b"),
            (" A", "b"),
            ("A:", "b"),
            ("", "b"),
            ("\xe9", "b"),
        ]
        for name, value in table:
            self.assertRaises(ValueError, format_response, "200 Ok", {name: value}, b"", now=NOW)
            self.assertRaises(ValueError, format_response, "200 Ok", [("X", "y"), (name, value)], b"", now=NOW)

    def test_form_of_status(self) -> None:
        """A status is three digits, a space and a reason, which may be empty."""
        for status in ("200 Ok", "200 ", "413 Content Too Large", "599 a\tb"):
            self.assertTrue(format_response(status, (), b"", now=NOW).startswith(f"HTTP/1.1 {status}\r\n".encode()))
        invalid = ("", "200", "Ok", "20 Ok", "2000 Ok", "600 Ok", "099 Ok", " 200 Ok", "200  Ok\r\nA: b", "200 Ok\n")
        for status in (*invalid, "200 Ok\r", "200 \xe9", "200 \0", "\u0662\u0660\u0660 Ok", "2\xb20 Ok"):
            self.assertRaises(ValueError, format_response, status, (), b"", now=NOW)

    def test_continue_has_no_fields(self) -> None:
        """100 Continue is a status line without fields."""
        self.assertEqual(CONTINUE, b"HTTP/1.1 100 Continue\r\n\r\n")


class PairsTests(SynchronousTestCase):
    """Header fields as pairs."""

    def test_pairs_are_a_new_list(self) -> None:
        """The pairs of a mapping or of other pairs are a new list, which may be extended."""
        headers = [("A", "b"), ("A", "c")]
        listed = pairs(headers)
        self.assertEqual(listed, headers)
        self.assertIsNot(listed, headers)
        self.assertEqual(pairs({"A": "b"}), [("A", "b")])
        self.assertEqual(pairs(()), [])


class RepresentationTests(SynchronousTestCase):
    """Bodies with their entity tags."""

    def test_parts_of_representation(self) -> None:
        """A representation has the body, its header fields, and its size."""
        representation = make_representation(b"hello", "text/plain", compressed=False)
        self.assertEqual((representation.body, len(representation)), (b"hello", 5))
        headers = (("Content-Type", "text/plain"), ("ETag", representation.etag), ("Vary", "Accept-Encoding"))
        self.assertEqual(representation.headers, headers)

    def test_compressed_representation_has_its_own_tag(self) -> None:
        """A compressed representation has Content-Encoding and its own, reproducible entity tag."""
        first, second = (make_representation(b"hello" * 99, "text/plain", compressed=True) for _ in range(2))
        self.assertEqual(gzip.decompress(first.body), b"hello" * 99)
        self.assertIn(("Content-Encoding", "gzip"), first.headers)
        self.assertNotEqual(first.etag, make_representation(b"hello" * 99, "text/plain", compressed=False).etag)
        self.assertEqual(first, second)

    def test_etag_differs_by_body(self) -> None:
        """An entity tag is strong, valid in a field, and different for different bodies."""
        bodies = [b"", b"\0", b"hello", b"hello\n", b"Hello", b"x" * 100_000]
        etags = [make_representation(body, "text/plain", compressed=False).etag for body in bodies]
        self.assertEqual(len(set(etags)), len(bodies))
        for etag in etags:
            self.assertRegex(etag, r'\A"[!#-~]+"\Z')

    def test_etag_survives_a_restart(self) -> None:
        """An entity tag depends on the bytes alone, so that clients can revalidate after a restart."""
        self.assertEqual(make_representation(b"hello", "text/plain", compressed=False).etag, '"2cf24dba5fb0a30e"')

    def test_pieces_are_one_body(self) -> None:
        """A body in pieces of any size has the same representation, made in steps."""
        body = bytes(range(256)) * 400
        for compressed in (False, True):
            whole = make_representation(body, "text/plain", compressed)
            for size in (1000, 20_000, len(body)):
                pieces = [body[start : start + size] for start in range(0, len(body), size)]
                self.assertGreaterEqual(sum(1 for _ in represent(pieces, "text/plain", compressed)), 5)
                representation = run_now(represent(pieces, "text/plain", compressed))
                content = gzip.decompress(representation.body) if compressed else representation.body
                self.assertEqual(content, body)
                if not compressed:
                    self.assertEqual(representation, whole)

    def test_size_is_bounded(self) -> None:
        """A body that is too large is not made."""
        pieces = (b"x" * (1 << 20) for _ in range(1000))
        self.assertRaises(InvalidParameter, run_now, represent(pieces, "text/plain", compressed=False))
        self.assertGreater(sum(1 for _ in pieces), 900)
