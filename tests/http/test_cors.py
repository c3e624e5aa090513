"""Tests of govi_server.http.cors: what scripts of other sites may send and read."""

import ast
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import govi_server
from govi_server.http.cors import REQUEST_FIELDS
from govi_server.modules.docs import ALL_HEADER_FIELDS
from tests.examples import SOURCES, Program

# The request fields of HTTP (IANA's registry), and those of browsers.
REGISTERED = {
    "accept", "accept-charset", "accept-encoding", "accept-language", "authorization", "cache-control", "connection",
    "content-encoding", "content-length", "content-type", "cookie", "date", "expect", "forwarded", "host",
    "if-match", "if-modified-since", "if-none-match", "if-range", "if-unmodified-since", "keep-alive",
    "last-event-id", "origin", "pragma", "prefer", "priority", "range", "referer", "te", "trailer",
    "transfer-encoding", "upgrade", "user-agent", "via", "x-forwarded-for", "x-forwarded-proto", "x-real-ip",
    "x-requested-with", "access-control-request-headers", "access-control-request-method",
}  # fmt: skip

# Those that only the browser (Fetch standard, forbidden request-headers) or a proxy sets.
NOT_OF_SCRIPTS = {
    "access-control-request-headers", "access-control-request-method", "connection", "content-length", "cookie",
    "date", "expect", "forwarded", "host", "keep-alive", "origin", "referer", "te", "trailer", "transfer-encoding",
    "upgrade", "via", "x-forwarded-for", "x-forwarded-proto", "x-real-ip",
}  # fmt: skip

# Fetch standard, CORS-safelisted response-header names.
ALWAYS_READABLE = {"cache-control", "content-language", "content-length", "content-type", "expires", "last-modified"}


def fields_in_code() -> set[str]:
    """Return the request fields whose lower-case names, with which an environ is searched, are in the code."""
    names: set[str] = set()
    for path in Path(govi_server.__file__).parent.rglob("*.py"):
        nodes = ast.walk(ast.parse(path.read_text()))
        names |= {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    return names & REGISTERED


class CorsTests(SynchronousTestCase):
    """All modules with every source."""

    def members(self, value: str) -> set[str]:
        """Return the members of a field's list, in lower case."""
        return {member.strip().lower() for member in value.split(",")}

    def test_scripts_may_send_every_field_that_is_read(self) -> None:
        """Each request field that the program reads may be sent by scripts, unless browsers or proxies set it."""
        read = fields_in_code()
        self.assertLessEqual({"last-event-id", "if-none-match", "accept", "accept-language"}, read)
        self.assertEqual(read - NOT_OF_SCRIPTS - {name.lower() for name in REQUEST_FIELDS}, set())

    def test_preflight_of_every_path(self) -> None:
        """A preflight request of any path, also of an unknown one, permits GET with all request fields."""
        for source in SOURCES:
            program = Program(source, has_data=False)
            paths = [example.url for operation in program.operations for example in operation.examples]
            self.assertGreater(len(paths), 5)
            for path in (*paths, "/", "/absent", "/kv55/%00", "//", "/kv55/?limit=x"):
                more = "Origin: http://a.example\r\nAccess-Control-Request-Method: GET\r\n"
                more += f"Access-Control-Request-Headers: {','.join(sorted(REQUEST_FIELDS)).lower()}\r\n"
                response = program.request(path, method="OPTIONS", more=more)
                self.assertEqual((response.status, response.body), (204, b""), path)
                self.assertEqual(response.headers["Access-Control-Allow-Origin"], "*")
                self.assertIn("get", self.members(response.headers["Access-Control-Allow-Methods"]), path)
                allowed = self.members(response.headers["Access-Control-Allow-Headers"])
                self.assertEqual(allowed, {name.lower() for name in REQUEST_FIELDS}, path)
                self.assertGreater(int(response.headers["Access-Control-Max-Age"]), 0)

    def test_scripts_may_read_every_response(self) -> None:
        """Each response, also of an error, may be read by scripts with all its documented fields."""
        program = Program("demo")
        statuses = set()
        for method, path, more in (
            ("GET", "/kv55/57330430", ""), ("GET", "/absent", ""), ("GET", "/kv55/x", ""), ("PUT", "/kv55/1", ""),
            ("GET", "/board/57330430?limit=x", ""), ("BREW", "/", ""), ("GET", "/x", "Host: y\r\n"),
            ("GET", "/x", "Expect: x\r\n"), ("GET", f"/{'x' * 20000}", ""), ("GET", "/x", f"A: {'x' * 40000}\r\n"),
            ("GET", "/openapi.json", 'If-Match: "x"\r\n'), ("OPTIONS", "/kv55/1", ""), ("OPTIONS", "/absent", ""),
            ("POST", "/kv55/1", f"Content-Length: {1 << 40}\r\n"),
        ):  # fmt: skip
            response = program.request(path, method=method, more=f"Origin: http://a.example\r\n{more}")
            statuses.add(response.status)
            self.assertEqual(response.headers["Access-Control-Allow-Origin"], "*", response)
            readable = self.members(response.headers["Access-Control-Expose-Headers"]) | ALWAYS_READABLE
            self.assertLessEqual({name.lower() for name in ALL_HEADER_FIELDS}, readable)
        self.assertEqual(statuses, {200, 204, 400, 404, 405, 412, 413, 414, 417, 431, 501})
