"""The corpus of tests/wire: requests, the expected responses, and the clauses that require them.

A case has ``name``, ``clause``, ``send`` (latin-1) and ``status`` (of the responses, in order). Optional are
``closed`` (whether the connection is closed after the last response), ``methods`` (of the requests, if any is HEAD),
and for the first response ``header`` (names and values), ``absent`` (the name of a field) and ``body``.
"""

import tomllib
from pathlib import Path
from typing import Any

from tests.client import WireTestCase, read_responses

CASES: list[tuple[str, dict[str, Any]]] = [
    (path.stem, case)
    for path in sorted((Path(__file__).parent / "wire").glob("*.toml"))
    for case in tomllib.loads(path.read_text("utf-8"))["case"]
]


class WireTests(WireTestCase):
    """Every case, sent at once and in pieces."""

    def differences(self, case: dict[str, Any], size: int) -> list[str]:
        """Send a case in pieces of a size; return the differences from the expected responses."""
        client = self.client()
        data = case["send"].encode("latin-1")
        for i in range(0, len(data), size):
            client.send(data[i : i + size])
        received = client.received()
        responses = read_responses(received, case.get("methods", "").split())  # skips the 100s
        client.leave()
        statuses = [100] * received.count(b"HTTP/1.1 100 Continue\r\n\r\n") + [
            response.status for response in responses
        ]
        if statuses != case["status"]:
            return [f"status {statuses}, not {case['status']}"]
        first, last = responses[0], responses[-1]
        body = first.body.decode("latin-1")
        pairs = [("closed", client.closed, case.get("closed", False)), ("body", body, case.get("body", body))]
        pairs += [(name, first.headers[name], value) for name, value in case.get("header", {}).items()]
        pairs += [(name, first.headers[name], None) for name in [case.get("absent", "X-Absent")]]
        pairs += [("Connection: close", last.headers["Connection"] == "close", client.closed)]
        for response in responses:
            pairs += [("Date", response.headers["Date"], "Thu, 01 Jan 2026 00:00:00 GMT")]
            pairs += [("CORS", response.headers["Access-Control-Allow-Origin"], "*")]
        return [f"{name} {actual!r}, not {expected!r}" for name, actual, expected in pairs if actual != expected]

    def test_every_case_for_any_division(self) -> None:
        """Every case gets the expected responses for any division of its bytes."""
        self.assertGreater(len(CASES), 150)
        differences = [
            f"{file}: {case['name']} ({case['clause']}), {size} bytes at a time: {difference}"
            for file, case in CASES
            for size in (len(case["send"]), 7, 1)
            for difference in self.differences(case, size)
        ]
        self.assertEqual(differences, [])
