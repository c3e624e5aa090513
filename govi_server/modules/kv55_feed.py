"""GET /kv55/<TimingPointCode>[,<TimingPointCode>...] from the live feed: DRIS_55 documents without a gateway."""

from collections.abc import Callable, Generator
from functools import partial

from twisted.application.service import Service
from zope.interface import implementer

from govi_server.departures.board import Board, Trip
from govi_server.departures.query import Query
from govi_server.departures.times import HOUR
from govi_server.departures.timing_point import is_timing_point_code
from govi_server.http.caching.cached_response import CachedResponse
from govi_server.http.caching.representation import Representation, make_representation
from govi_server.http.negotiation import prefers_gzip
from govi_server.http.request import Environ
from govi_server.kv55 import messages
from govi_server.kv78turbo.feed import Feed
from govi_server.kv78turbo.freshness import SERVABLE, Freshness
from govi_server.kv78turbo.passtime import Passtime
from govi_server.kv78turbo.stop_departures import StopDepartures
from govi_server.modules import declared
from govi_server.modules.feed_handler import FeedHandler, answer, condition_of
from govi_server.modules.query_parameters import MOST_CODES, echoed, read_query, split
from govi_server.openapi.description import IDocumented, Operation
from govi_server.runtime.cooperative import run_now
from govi_server.web_handler import ICacheableModule, ResponseSender

HORIZON = 2 * HOUR
"""Seconds: GOVI's own answers went two hours and a half ahead (docs/protocols.md 1.2)."""

LICENSE = "http://creativecommons.org/publicdomain/zero/1.0/"
"""The feed is in the public domain (docs/protocols.md 2.2)."""

_REASONS: dict[Freshness, str] = {"unknown": "Unknown TimingPointCode", "old": "Too old"}


@implementer(ICacheableModule, IDocumented)
class Kv55Feed(Service):
    """Answers under its name from the live feed."""

    def __init__(self, name: str, feed: Feed, license_url: str = LICENSE) -> None:
        self.name = name
        self.feed = feed
        self.license_url = license_url

    def web_handler(self, request_handler: ResponseSender, env: Environ) -> "Kv55FeedHandler":
        """Make the handler of one request."""
        return Kv55FeedHandler(self, request_handler, env)

    def describe(self) -> list[Operation]:
        """Declare the one path."""
        return declared.kv55_feed(str(self.name))

    def ready(self, env: Environ) -> Callable[[], CachedResponse | None] | None:
        """Give what answers for a stop without a query, as long as its board can be shown."""
        text = self.codes(env)
        if "query_string" in env or not is_timing_point_code(text):
            return None
        return partial(self._hit, text, prefers_gzip(env))

    def _hit(self, code: str, compressed: bool) -> CachedResponse | None:
        board, made = self.made(code, compressed)
        condition = self.feed.freshness(board)
        return answer(self.feed, made, [condition]) if condition[0] in SERVABLE else None

    def codes(self, env: Environ) -> str:
        """Give the codes that a path asks for, whatever they are."""
        return env["path_info"].removeprefix(f"/{self.name}").removeprefix("/").removesuffix("/")

    def made(self, code: str, compressed: bool) -> tuple[StopDepartures, Representation]:
        """Give a stop's board and its DRIS_55 document, which is rendered once until it changes."""
        form = ("dris_55", self.license_url, compressed)
        return self.feed.boards.rendered(code, HORIZON, form, self._gzip if compressed else self._plain)

    def _plain(self, board: StopDepartures) -> Representation:
        return run_now(self.document([board], Query(), compressed=False))

    def _gzip(self, board: StopDepartures) -> Representation:
        return run_now(self.document([board], Query(), compressed=True))

    def document(
        self, boards: list[StopDepartures], query: Query, compressed: bool
    ) -> Generator[None, None, Representation]:
        """Render the DRIS_55 document of some boards, bit by bit: what leaves, and not what only arrives."""
        now = self.feed.clock.seconds()
        made = []
        for board in boards:
            leaving = (a_pass for a_pass in board.passtimes if a_pass.is_departure)
            made.append(
                Board(
                    board.code, tuple(map(self._trip, query.select(leaving, self.feed.timetable.public_number))), now
                )
            )
            yield
        return make_representation(messages.write_dris_55(made, self.license_url), messages.CONTENT_TYPE, compressed)

    def _trip(self, a_pass: Passtime) -> Trip:
        timetable = self.feed.timetable
        return Trip(
            operating_date=a_pass.operation_date.isoformat(),
            data_owner_code=a_pass.data_owner_code,
            line_planning_number=a_pass.line_planning_number,
            line_public_number=timetable.public_number(a_pass),
            destination_name=timetable.destination(a_pass),
            journey_number=a_pass.journey_number,
            fortify_order_number=a_pass.fortify_order_number,
            target_arrival_time=a_pass.target_arrival_time,
            expected_arrival_time=a_pass.expected_arrival_time or a_pass.target_arrival_time,
            target_departure_time=a_pass.target_departure_time,
            expected_departure_time=a_pass.expected_departure_time or a_pass.target_departure_time,
            trip_stop_status=a_pass.trip_stop_status,
        )


class Kv55FeedHandler(FeedHandler):
    """Answers one question about one stop or some."""

    def __init__(self, module: Kv55Feed, request_handler: ResponseSender, env: Environ) -> None:
        super().__init__(request_handler, env)
        self._module = module
        self.feed = module.feed

    async def get(self) -> None:
        """Send the boards of the stops that there are, or say why there are none."""
        text = self._module.codes(self.env)
        codes = split(text)
        if not codes or len(codes) > MOST_CODES or not all(map(is_timing_point_code, codes)):
            self.mark("lookup")
            self._send_error("404 Not Found", text, "Invalid TimingPointCode", {})
            return
        query = read_query(self.env.get("query_string", ""))
        compressed = prefers_gzip(self.env)
        if len(codes) == 1 and query == Query():
            board, made = self._module.made(codes[0], compressed)
            boards = [board]
        else:
            boards = await self.feed.runner.run(self.feed.boards.boards(codes, query.horizon or HORIZON))
        self.mark("lookup")
        found = [(board, self.feed.freshness(board)) for board in boards]
        shown = [(board, condition) for board, condition in found if condition[0] in SERVABLE]
        if not shown:
            reason = condition_of(self.feed, boards)
            status, headers = self.without(reason)
            self._send_error(status, text, _REASONS.get(reason, f"Feed {self.feed.state}"), headers)
            return
        if len(codes) > 1 or query != Query():
            document = self._module.document([board for board, _ in shown], query, compressed)
            made = await self.feed.runner.run(document)
        self.send_representation(answer(self.feed, made, [condition for _, condition in shown]))

    def _send_error(self, status: str, code: str, reason: str, headers: dict[str, str]) -> None:
        body = messages.write_error(echoed(code), reason)
        self.mark("render")
        headers = {"Cache-Control": "no-store", **headers, "Content-Type": messages.CONTENT_TYPE}
        self.send_response(body, status, headers)
