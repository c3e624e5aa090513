"""GET /events/<stop or place>[,...]: a departure board as it changes, as server-sent events (WHATWG HTML 9.2).

Events are `board`, with a fragment of the page or JSON as data, `beat` after a time without events, and `bye` when
the server stops. Requests for the same board share a channel, which checks for changes and renders the board once.
"""

from collections.abc import Collection, Generator, Sequence
from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType
from twisted.application.service import MultiService
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from govi_server.departures.query import Query
from govi_server.documents import board as board_documents
from govi_server.http.event_listeners import RETRY_RANGE, bye
from govi_server.http.parameters import Enum, Parameter, parse_query
from govi_server.http.request import Environ
from govi_server.http.response import NO_STORE
from govi_server.modules.display_source import IDisplaySource
from govi_server.modules.event_channel import Channel
from govi_server.modules.feed_responses import INVALID_PARAMETER
from govi_server.modules.query_parameters import LANG, LOOKS, read_codes, read_page, require_stops, stop_of
from govi_server.openapi.description import Example, IDocumented, Operation, ResponseSpec
from govi_server.openapi.schema import reference
from govi_server.runtime.cooperative import is_background
from govi_server.runtime.repeated_call import RepeatedCall
from govi_server.web_handler import IWebModule, ResponseSender, WebHandler

CONTENT_TYPE = "text/event-stream"

CHECK_INTERVAL = 0.5
"""Seconds between checks for changes of a board."""

CHANNELS_AT_ONCE = 20
"""Channels that are checked together. More are checked in groups over the interval: otherwise the boards of hundreds
that have changed meanwhile are rendered in a row, and other requests wait."""

BEAT_INTERVAL = 10.0
"""Seconds without an event before a beat: proxies close connections that are silent for 15 s."""

AS = Parameter(
    "as",
    Enum(("html", "json")),
    "The format of the data: a fragment of the board's page (html, the default), or JSON.",
    "json",
)

EXAMPLES = (
    Example("A stream", "/events/57330430?as=json&limit=1", CONTENT_TYPE),
    Example("An invalid TimingPointCode", "/events/station", CONTENT_TYPE, 404),
)


_Retry = Annotated[int, Meta(ge=RETRY_RANGE[0], le=RETRY_RANGE[1])] | UnsetType


class BoardEvent(Struct, tag_field="event", tag="board"):
    """The complete board, on connecting and after every change: JSON or a fragment of the board's page."""

    id: str
    data: Annotated[
        str,
        Meta(
            extra_json_schema={
                "anyOf": [
                    {"contentMediaType": "application/json", "contentSchema": reference(board_documents.Board)},
                    {"contentMediaType": "text/html"},
                ]
            }
        ),
    ]
    retry: _Retry = UNSET
    """Milliseconds until a client reconnects: in the first event and in a bye."""


_NoData = Annotated[str, Meta(max_length=0)]


class Beat(Struct, tag_field="event", tag="beat"):
    """A heartbeat: after some seconds without events, or instead of a first board that the client has."""

    data: _NoData
    retry: _Retry = UNSET


class Bye(Struct, tag_field="event", tag="bye"):
    """The last event before the server stops."""

    data: _NoData
    retry: _Retry = UNSET


Event = BoardEvent | Beat | Bye
"""An event of the stream. OpenAPI 3.1 cannot describe streams; by convention the schema is that of each event."""

_HEADERS = (
    ("Content-Type", f"{CONTENT_TYPE}; charset=utf-8"),
    NO_STORE,
    ("X-Accel-Buffering", "no"),  # otherwise nginx buffers events
)


@implementer(IWebModule, IDocumented)
class Events(MultiService):
    """Serves streams of the displays of a source."""

    name = "events"
    log = Logger()

    def __init__(self, source: IDisplaySource, clock: IReactorTime) -> None:
        super().__init__()
        self._source = source
        self._clock = clock
        self._runner = source.runner
        self.channels: dict[object, Channel] = {}
        RepeatedCall(
            "Checking event streams", clock, CHECK_INTERVAL, lambda: Deferred.fromCoroutine(self._check_all())
        ).setServiceParent(self)

    def web_handler(self, request_handler: ResponseSender, env: Environ) -> "EventsHandler":
        """Return the handler of one request."""
        return EventsHandler(self, request_handler, env)

    def describe(self) -> list[Operation]:
        """Return the operation of its path."""
        responses = (
            ResponseSpec(200, "Events, until either side closes.", CONTENT_TYPE, Event, ("Cache-Control",)),
            INVALID_PARAMETER,
            ResponseSpec(404, "The path is not a list of TimingPointCodes.", headers=("Cache-Control",)),
        )
        return [
            Operation(
                "/events/{TimingPointCodes}",
                "Departure boards as they change, as server-sent events",
                responses,
                (self._source.stops, *self._source.filters, LANG, *LOOKS, AS),
                "A board event with the complete board is sent immediately and after every change; with as=json, it "
                "is the JSON of /board on one line of data. A client that has the board gets a beat first. "
                f"After {BEAT_INTERVAL:.0f} seconds without events a beat "
                "is sent, so a connection that has been silent for a minute is lost. bye is the last event before "
                "the server stops. Reconnect after the milliseconds of retry, with the last id in Last-Event-ID: "
                "a board is sent only if it differs. Ignore events with other names.",
                EXAMPLES,
                noun="Events",
            )
        ]

    def are_stops(self, codes: Collection[str]) -> bool:
        """Return whether these are valid stops of a path."""
        return bool(self._source.are_stops(codes))

    def cost(self, codes: Sequence[str], query: Query) -> int:
        """Return the cost of a first event; see web_handler.Responder."""
        return self._source.cost(codes, query)

    async def channel(self, codes: tuple[str, ...], query: Query, lang: str, as_json: bool) -> Channel:
        """Return the channel of a board, with a first event. Raises InvalidParameter."""
        key = (codes, query, lang, as_json)
        channel = self.channels.get(key)
        if channel is None:
            channel = self.channels[key] = Channel(self._runner.cooperator, key, *key)
            channel.last_event_at = self._clock.seconds()
        if not channel.listeners.event:
            first_event = channel.first_event()
            self._render_if_due(channel)
            await first_event
        return self.channels.setdefault(key, channel)

    async def _check_all(self) -> None:
        channels = list(self.channels.values())
        groups = [channels[start : start + CHANNELS_AT_ONCE] for start in range(0, len(channels), CHANNELS_AT_ONCE)]
        for number, group in enumerate(groups):
            if number:
                await deferLater(self._clock, CHECK_INTERVAL / (len(groups) + 1))
            await self._runner.run(self._check_in_steps(group))

    def _check_in_steps(self, channels: Sequence[Channel]) -> Generator[None, None, None]:
        for channel in channels:
            if channel.listeners or channel.waiters:
                self._check(channel)
            elif self.channels.get(channel.key) is channel:  # it was not removed since the first step
                del self.channels[channel.key]
                if channel.rendering is not None:
                    channel.rendering.cancel()
            yield

    def _render_if_due(self, channel: Channel) -> None:
        """Begin to render a board that may have changed."""
        now = self._clock.seconds()
        version, age = self._source.version(channel.codes, channel.query), now - channel.rendered_at
        is_due = not 0 <= age < (channel.pause if version != channel.version else channel.render_interval)
        if channel.rendering is None and is_due:
            channel.version, channel.rendered_at = version, now
            channel.rendering = Deferred.fromCoroutine(self._render(channel))
            channel.rendering.addBoth(self._rendered, channel)

    def _check(self, channel: Channel) -> None:
        """Render a board if it may have changed, and send its events."""
        self._render_if_due(channel)
        now = self._clock.seconds()
        if not 0 <= now - channel.last_event_at < BEAT_INTERVAL:
            channel.last_event_at = now
            channel.listeners.send_beat()
        channel.listeners.send_latest()

    async def _render(self, channel: Channel) -> None:
        # Hundreds are due together after a restart, and other requests would wait for all of them.
        is_background.set(bool(channel.listeners.event))
        displays = await self._source.display(list(channel.codes), channel.query)
        last_id, now = channel.listeners.id, self._clock.seconds()
        await channel.update(displays.display, now, self._runner)
        if channel.listeners.id != last_id:
            channel.last_event_at = now

    def _rendered(self, result: object, channel: Channel) -> None:
        channel.rendering = None
        if isinstance(result, Failure) and not channel.listeners.event:
            self.channels.pop(channel.key, None)
            self._runner.resume(channel.waiters, result)
        else:
            self._log_failure(result)
            channel.listeners.send_latest()

    def _log_failure(self, result: object) -> None:
        if isinstance(result, Failure) and not result.check(CancelledError):
            self.log.failure("Updating an event stream failed", result)


class EventsHandler(WebHandler):
    """Streams the events of a board to a client."""

    def __init__(self, module: Events, request_handler: ResponseSender, env: Environ) -> None:
        super().__init__(request_handler, env)
        self._module = module

    async def get(self) -> None:
        """Stream events until either side closes."""
        module = self._module
        text = self.env["path_info"].removeprefix("/events").removeprefix("/").removesuffix("/")
        codes = read_codes(text, module.are_stops)
        if not codes:
            require_stops(text, "/events/57330430")
            self.mark("lookup")
            self.send_response("Invalid TimingPointCode\n", "404 Not Found", [NO_STORE])
            return
        self.request_handler.set_stop(stop_of(codes))
        query, lang = read_page(self.env, len(codes))
        as_json = AS.parse(parse_query(self.env.get("query_string", ""))) == "json"
        self.request_handler.charge(module.cost(codes, query))
        channel = await module.channel(codes, query, lang, as_json)
        self.mark("lookup")
        stream = self.stream(_HEADERS, bye())
        channel.listeners.join(stream, self.env.get("last-event-id", ""))
        try:
            await stream.ended
        finally:
            channel.listeners.leave(stream)
