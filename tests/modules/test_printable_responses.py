"""Texts from clients, feeds and gateways reach pages and texts without control characters."""

import gzip
from collections.abc import Iterator
from datetime import datetime

from twisted.trial.unittest import SynchronousTestCase

from govi_server.departures.board import Board, Trip
from govi_server.departures.times import local_date
from govi_server.openapi.description import Operation
from tests import feed as kv
from tests.client import Response
from tests.examples import MORNING, SOURCES, Program
from tests.runtime.test_text import is_safe

HOSTILE = "A\x1b[31m\x9b\x7f\x85\u2028\u202eZ"
QUOTED = "".join(f"%{byte:02x}" for byte in HOSTILE.encode())
CODE = "30000001"


class PrintableResponseTests(SynchronousTestCase):
    """Responses for people: HTML, plain text and the XML of errors."""

    def check(self, response: Response, request: object) -> None:
        """Check a response that is text for people."""
        if response.headers.get_content_maintype() == "text":
            text = response.body.decode()
            self.assertTrue(is_safe(text.replace("\n", "").replace("\t", "")), request)

    def requests(self, operation: Operation) -> Iterator[str]:
        """Yield URLs of a path with the text in each parameter, as UTF-8 and as single bytes."""
        for text in (QUOTED, "%1b%9b%7f"):
            path = operation.template
            for parameter in operation.parameters:
                if parameter.place == "path":
                    path = path.replace(f"{{{parameter.name}}}", text)
            yield path
            yield f"/{text}{path}"
            query = [f"{parameter.name}={parameter.example or 1}" for parameter in operation.query]
            for n, parameter in enumerate(operation.query):
                yield f"{operation.template}?{'&'.join([*query[:n], f'{parameter.name}={text}', *query[n + 1 :]])}"

    def test_texts_of_clients(self) -> None:
        """No path and no parameter is echoed with control characters."""
        for source in SOURCES:
            program = Program(source)
            for operation in program.operations:
                for url in self.requests(operation):
                    for accept in ("text/html", "text/plain"):
                        self.check(program.request(url, accept), (source, url, accept))

    def test_texts_of_gateways(self) -> None:
        """No element of a gateway's board is shown with control characters."""
        program = Program("gateway")
        day = str(local_date(MORNING))
        trip = Trip(
            day, HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE,
            target_departure_time="06:30:00", expected_departure_time="06:30:00", trip_stop_status=HOSTILE,
        )  # fmt: skip
        (gateway,) = program.components.gateways.values()
        gateway.cache.put(Board(CODE, (trip,), MORNING))
        for path in (f"/board/{CODE}", f"/events/{CODE}", f"/events/{CODE}?as=json"):
            for accept in ("text/html", "text/plain", "text/event-stream"):
                response = program.request(path, accept)
                self.check(response, (path, accept))
                self.assertIn(b"06:30", response.body)

    def test_texts_of_the_feed(self) -> None:
        """No column of the feed is shown with control characters."""
        program = Program("feed")
        assert program.components.feed is not None
        now = datetime.fromtimestamp(MORNING).astimezone()
        published = now.isoformat(timespec="seconds")
        times = dict.fromkeys(("TargetDepartureTime", "ExpectedDepartureTime"), "06:30:00")
        row = {"OperationDate": str(local_date(MORNING)), "LastUpdateTimeStamp": published, **times}
        for column in ("DataOwnerCode", "LinePlanningNumber", "DestinationCode", "SideCode", "MessageContent"):
            message = kv.passtimes({**row, column: HOSTILE}, published=published)
            program.components.feed.received("/GOVI/KV8passtimes/LIN", gzip.compress(message))
        message = kv.general_message({"MessageContent": HOSTILE}, published=published)
        program.components.feed.received("/GOVI/KV8generalmessages/LIN", gzip.compress(message))
        shown = b""
        for path in ("/", f"/board/{CODE}", f"/board/{CODE}?view=wall", f"/events/{CODE}", f"/kv55/{CODE}"):
            for accept in ("text/html", "text/plain"):
                response = program.request(path, accept)
                if response.headers.get_content_subtype() != "xml":  # data, in which XML allows C1
                    self.check(response, (path, accept))
                shown += response.body
        self.assertIn(b"06:30", shown)
