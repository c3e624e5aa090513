"""Tests that HEAD has exactly the status and the header fields of GET (RFC 9110 section 9.3.2), on every path."""

import re
from collections.abc import Iterator

from twisted.trial.unittest import SynchronousTestCase

from govi_server.openapi.description import Operation
from tests.client import Client
from tests.examples import SOURCES, Program

FIELDS = ("Accept-Encoding: gzip\r\n", "Accept: application/json\r\nAccept-Language: de\r\n")


def paths(operation: Operation) -> Iterator[str]:
    """Yield paths of an operation: valid ones, with invalid codes, and with invalid parameters."""
    valid, invalid = operation.template, operation.template
    for parameter in operation.parameters:
        if parameter.place == "path":
            valid = valid.replace(f"{{{parameter.name}}}", str(parameter.example))
            invalid = invalid.replace(f"{{{parameter.name}}}", "nothing")
    yield from (valid, invalid, f"{valid}/", f"{valid}?limit=x", f"{valid}?lang=fr&as=json")
    yield from (example.url for example in operation.examples)


class HeadTests(SynchronousTestCase):
    """All modules, with every source and without data."""

    def exchange(self, program: Program, method: str, target: str, fields: str, version: str) -> tuple[bytes, bytes]:
        """Send a request; return the head, without the time, and the body of the response."""
        client = Client(program.server)
        client.send(f"{method} {target} HTTP/{version}\r\nHost: x\r\n{fields}\r\n".encode())
        for pause in (*[0.01] * 30, 11):
            if client.transport.value():
                break
            program.clock.advance(pause)
        head, _, body = client.received().partition(b"\r\n\r\n")
        client.leave()
        return re.sub(rb"\r\nDate: [^\r]*", b"", head), body

    def assert_equal_heads(self, program: Program, target: str, fields: str = "", version: str = "1.1") -> bytes:
        """Compare the heads of HEAD and GET; return them."""
        self.exchange(program, "GET", target, fields, version)  # a miss, after which both are hits
        head, _ = self.exchange(program, "GET", target, fields, version)
        for _ in range(2):  # by the slow path and by the fast one
            now = program.clock.seconds()
            other, body = self.exchange(program, "HEAD", target, fields, version)
            self.assertEqual(body, b"", target)
            if program.clock.seconds() == now:
                self.assertEqual(other, head, target)
            else:  # a gateway did not respond: the next response has other times
                self.assertEqual(re.sub(b":[^\r]*", b"", other), re.sub(b":[^\r]*", b"", head), target)
        return head

    def test_every_path(self) -> None:
        """HEAD equals GET for every path of every source, found or not, with every representation."""
        statuses = set()
        for source in SOURCES:
            for has_data in (True, False):
                if source == "gateway" and not has_data:
                    continue  # no board is ever received: every request waits
                program = Program(source, has_data)
                for operation in program.operations:
                    targets = list(paths(operation))
                    for target, fields in [*((target, "") for target in targets), *((targets[0], f) for f in FIELDS)]:
                        statuses.add(self.assert_equal_heads(program, target, fields).split()[1])
                for target in ("/absent", "//", "/kv55", "/kv55/%00", "/assets/absent", "//kv55/57330430"):
                    for version in ("1.0", "1.1"):
                        head = self.assert_equal_heads(program, target, version=version)
                        self.assertIn(head.split()[1], (b"404", b"400"), target)
        self.assertLessEqual({b"200", b"400", b"404", b"503"}, statuses)

    def test_conditional_requests(self) -> None:
        """HEAD equals GET if the representation is unchanged, or a precondition fails."""
        program = Program("demo")
        for target in ("/kv55/57330430", "/tpc/57330430", "/board/57330430", "/docs", "/"):
            head = self.assert_equal_heads(program, target)
            (etag,) = [line[6:].decode() for line in head.split(b"\r\n") if line.startswith(b"ETag: ")]
            for name, value, status in (
                ("If-None-Match", etag, b"304"), ("If-Match", '"x"', b"412"), ("If-None-Match", "*", b"304"),
                ("If-Match", etag, b"200"), ("If-None-Match", '"x"', b"200"),
            ):  # fmt: skip
                head = self.assert_equal_heads(program, target, f"{name}: {value}\r\n")
                self.assertEqual(head.split()[1], status, (target, name))

    def test_rejected_requests(self) -> None:
        """HEAD equals GET for requests that no module receives."""
        program = Program("demo", has_data=False)
        for target, fields, version in (
            ("*", "", "1.1"), ("/x", "Host: y\r\n", "1.1"), ("/x", "", "2.0"), ("/x", "Expect: x\r\n", "1.1"),
            ("/x", "a b: c\r\n", "1.1"), (f"/{'x' * 30000}", "", "1.1"), ("/x", f"A: {'x' * 40000}\r\n", "1.1"),
            ("/x", "Content-Length: x\r\n", "1.1"), ("/x", f"Content-Length: {1 << 40}\r\n", "1.1"),
            ("/x", "Transfer-Encoding: gzip, chunked\r\n", "1.1"), ("https://x/kv55/1", "", "1.1"),
        ):  # fmt: skip
            head = self.assert_equal_heads(program, target, fields, version)
            self.assertIn(head.split()[1][:1], (b"4", b"5"), target[:20])
