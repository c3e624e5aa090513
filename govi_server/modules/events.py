"""GET /events/<TimingPointCode>[,...]: a departure board as it changes, as server-sent events (WHATWG HTML 9.2).

Events are `board`, whose data is what the page shows or JSON, and `bye` when the server ends. A silence is broken by
a comment, which is a `beat` as well. All who ask for the same share a channel: one look whether anything changed, and
one rendering.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import blake2b
from random import Random
from typing import Annotated

from msgspec import Meta, Struct
from twisted.application.internet import TimerService
from twisted.application.service import MultiService
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Cooperator
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from govi_server.departures.display import DepartureDisplay
from govi_server.departures.query import Query
from govi_server.departures.times import MINUTE, local_timestamp
from govi_server.documents import board as plain
from govi_server.http.parameters import Enum, Parameter, parse_query
from govi_server.http.request import Environ
from govi_server.http.stream import Stream
from govi_server.modules.display_source import IDisplaySource
from govi_server.modules.feed_handler import INVALID_PARAMETER
from govi_server.modules.query_parameters import CODES, LANG, VIEW, read_codes, read_page, stop_of
from govi_server.openapi.description import Example, IDocumented, Operation, ResponseSpec
from govi_server.openapi.schema import reference
from govi_server.pages import board_page
from govi_server.runtime.cooperative import CooperativeRunner
from govi_server.web_handler import IWebModule, ResponseSender, WebHandler

CONTENT_TYPE = "text/event-stream"

LOOK_EVERY = 0.5
"""Seconds between two looks whether a board has changed."""

MAKE_EVERY = 10.0
"""Seconds after which a board is made anew though nobody said that it changed: departures leave by themselves. It is
for whoever comes meanwhile, and so takes off as much from what is left."""

OLDER = 5.0
"""Seconds by which what is known may be older than was told before it is told again: there is less time left. It is
looked at when it is made anew, so nobody is more hopeful than the server by more than MAKE_EVERY and this."""

BEAT_EVERY = 15.0
"""Seconds of silence after which there is a sign of life."""

RETRY = (2000, 8000)
"""Milliseconds after which clients come back, each after a time of its own: not all at once to a new server."""

AS = Parameter(
    "as",
    Enum(("html", "json")),
    "The form of the data: a part of the board's page (html, the default), or JSON.",
    "json",
)

EXAMPLES = (
    Example("A stream", "/events/57330430?as=json&limit=1", CONTENT_TYPE),
    Example("An invalid TimingPointCode", "/events/station", CONTENT_TYPE, 404),
)


class BoardEvent(Struct, tag_field="event", tag="board"):
    """The whole board, at once and after every change: JSON or a part of the board's page."""

    id: str
    data: Annotated[
        str,
        Meta(
            extra_json_schema={
                "anyOf": [
                    {"contentMediaType": "application/json", "contentSchema": reference(plain.Board)},
                    {"contentMediaType": "text/html"},
                ]
            }
        ),
    ]


_NoData = Annotated[str, Meta(max_length=0)]


class Beat(Struct, tag_field="event", tag="beat"):
    """A sign of life after some seconds without events."""

    data: _NoData


class Bye(Struct, tag_field="event", tag="bye"):
    """The last event of a server that stops."""

    data: _NoData


Event = BoardEvent | Beat | Bye
"""An event of the stream. OpenAPI 3.1 cannot describe streams: readers take the schema as that of each event."""

_HEADERS = (
    ("Content-Type", f"{CONTENT_TYPE}; charset=utf-8"),
    ("Cache-Control", "no-store"),
    ("X-Accel-Buffering", "no"),  # nginx would keep events back
)
# A comment, for what is between, and for clients that need nothing more. A browser hears none, and would take a
# connection that is lost without a word for a quiet one: for scripts it is an event as well.
_BEAT = b":\nevent: beat\ndata:\n\n"


class Channel:
    """Those who listen for the same board: some stops, what is wanted of them, and in what form."""

    def __init__(self, key: object, codes: tuple[str, ...], query: Query, lang: str, as_json: bool) -> None:
        self.key = key
        self.codes = codes
        self.query = query
        self.lang = lang
        self.as_json = as_json
        self.listeners: dict[Stream, str] = {}
        """Each with the id of the board that it has."""
        self.version: object = None
        self.made = 0.0
        self.said: object = None
        self.ages: list[float] = []
        """Of each stop, as they were told."""
        self.id = ""
        self.event = b""
        self.spoke = 0.0
        self.asking: Deferred[None] | None = None
        self.telling: Deferred[None] | None = None

    async def take(self, sign: DepartureDisplay, now: float, turns: CooperativeRunner) -> None:
        """Take a sign: it has another id if there is anything new in it, or it is as old as nobody was told.

        That it is younger than that is no news: a feed that repeats itself would wake everybody.
        """
        zone = local_timestamp(now)[19:]  # its change sets the clock on the page
        said = (
            zone,
            [
                replace(stop, age=0.0, as_of=None if stop.as_of is None else stop.as_of // MINUTE)
                for stop in sign.stops
            ],
        )
        ages = [stop.age if any(row.state != "planned" for row in stop.rows) else 0.0 for stop in sign.stops]
        if said != self.said or any(map(lambda age, told: age > told + OLDER, ages, self.ages)):
            number = blake2b(repr((said, ages)).encode("utf-8", "replace"), digest_size=6).hexdigest()
        else:
            ages, number = self.ages, self.id
        # Who comes now is told no less, for he will not be told again before the others are.
        stops = (replace(stop, age=max(stop.age, told)) for stop, told in zip(sign.stops, ages, strict=True))
        write = plain.document if self.as_json else board_page.fragment
        writing = write(replace(sign, stops=tuple(stops)).delayed(MAKE_EVERY), self.lang, now)
        text = (await turns.run(writing)).rstrip("\n")
        lines = "".join(f"data: {line}\n" for line in text.split("\n"))
        self.said, self.ages, self.id = said, ages, number
        self.event = f"id: {self.id}\nevent: board\n{lines}\n".encode()

    @property
    def behind(self) -> list[Stream]:
        """Those who do not have the newest."""
        return [stream for stream, has in self.listeners.items() if has != self.id]

    def tell(self, stream: Stream) -> None:
        """Give a listener the newest, unless it has it, has left, or does not take what there is."""
        if self.listeners.get(stream, self.id) != self.id and stream.write(self.event):
            self.listeners[stream] = self.id


@implementer(IWebModule, IDocumented)
class Events(MultiService):
    """Answers under its name with streams of what a source says."""

    name = "events"
    log = Logger()

    def __init__(self, signs: IDisplaySource, clock: IReactorTime, cooperator: Cooperator) -> None:
        super().__init__()
        self._signs = signs
        self._clock = clock
        self._cooperator = cooperator
        self._turns = CooperativeRunner(clock)
        self._chance = Random()
        self.channels: dict[object, Channel] = {}
        timer = TimerService(LOOK_EVERY, self._look)
        timer.clock = clock
        timer.setServiceParent(self)

    def web_handler(self, request_handler: ResponseSender, env: Environ) -> "EventsHandler":
        """Make the handler of one request."""
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
                (CODES, *self._signs.filters, LANG, VIEW, AS),
                "A board event is sent at once and after every change. It is the whole board: with as=json, the JSON "
                f"of /board on one line of data. After {BEAT_EVERY:.0f} seconds without events a beat is sent, so a "
                "connection that has been silent for a minute is lost. bye is the last event of a server that stops. "
                "Reconnect after the milliseconds of retry, with the last id in Last-Event-ID: a board is sent only "
                "if it differs. Ignore events with other names.",
                EXAMPLES,
            )
        ]

    @property
    def retry(self) -> str:
        """The field that says when a client is to come back."""
        return f"retry: {self._chance.randint(*RETRY)}\n"

    async def channel(self, codes: tuple[str, ...], query: Query, lang: str, as_json: bool) -> Channel:
        """Give the channel of a board, with a first event. Raises BadQuery."""
        key = (codes, query, lang, as_json)
        channel = self.channels.get(key)
        if channel is None:
            version, now = self._signs.version(codes), self._clock.seconds()
            told = await self._signs.display(list(codes), query)
            if key in self.channels:  # somebody else who waited was sooner
                return self.channels[key]
            channel = self.channels[key] = Channel(key, *key)
            channel.spoke = now
            await channel.take(told.display, self._clock.seconds(), self._turns)
            channel.version, channel.made = version, now  # if who asked has left before, the next look asks
        return self.channels.setdefault(key, channel)

    def join(self, channel: Channel, stream: Stream, last: str) -> None:
        """Have a stream listen. last: the id of the board that it has."""
        channel.listeners[stream] = last
        stream.write(f"{self.retry}\n".encode())
        channel.tell(stream)

    def leave(self, channel: Channel, stream: Stream) -> None:
        """Have it listen no more."""
        del channel.listeners[stream]

    def _look(self) -> None:
        for channel in list(self.channels.values()):
            if channel.listeners:
                self._look_at(channel)
            else:
                del self.channels[channel.key]
                if channel.asking is not None:
                    channel.asking.cancel()

    def _look_at(self, channel: Channel) -> None:
        """See whether a board has changed, and tell it."""
        now = self._clock.seconds()
        version = self._signs.version(channel.codes)
        if channel.asking is None and (version != channel.version or not 0 <= now - channel.made < MAKE_EVERY):
            channel.version, channel.made = version, now
            channel.asking = Deferred.fromCoroutine(self._ask(channel))
            channel.asking.addBoth(self._asked, channel)
        if not 0 <= now - channel.spoke < BEAT_EVERY:
            channel.spoke = now
            beat = self._in_turn(list(channel.listeners), lambda stream: stream.write(_BEAT))
            beat.addErrback(lambda failure: self.log.failure("A beat failed", failure))
        if channel.telling is None and (behind := channel.behind):
            channel.telling = self._in_turn(behind, channel.tell).addBoth(self._told, channel)

    def _in_turn(self, streams: list[Stream], say: Callable[[Stream], object]) -> Deferred[Iterator[None]]:
        """Say something to one after the other, with others having their turns."""

        def each() -> Iterator[None]:
            for stream in streams:
                say(stream)
                yield

        return self._cooperator.coiterate(each())

    async def _ask(self, channel: Channel) -> None:
        told = await self._signs.display(list(channel.codes), channel.query)
        had, now = channel.id, self._clock.seconds()
        await channel.take(told.display, now, self._turns)
        if channel.id != had:
            channel.spoke = now

    def _asked(self, result: object, channel: Channel) -> None:
        channel.asking = None
        self._log(result)

    def _told(self, result: object, channel: Channel) -> None:
        channel.telling = None
        self._log(result)

    def _log(self, result: object) -> None:
        if isinstance(result, Failure) and not result.check(CancelledError):
            self.log.failure("A board's events failed", result)


class EventsHandler(WebHandler):
    """Keeps one client up to date."""

    def __init__(self, module: Events, request_handler: ResponseSender, env: Environ) -> None:
        super().__init__(request_handler, env)
        self._module = module

    async def get(self) -> None:
        """Stream events until either side ends."""
        codes = read_codes(self.env["path_info"].removeprefix("/events").removeprefix("/").removesuffix("/"))
        module = self._module
        if not codes:
            self.mark("lookup")
            self.send_response("This is no TimingPointCode\n", "404 Not Found", {"Cache-Control": "no-store"})
            return
        self.request_handler.set_stop(stop_of(codes))
        query, lang = read_page(self.env, len(codes))
        as_json = AS.parse(parse_query(self.env.get("query_string", ""))) == "json"
        channel = await module.channel(codes, query, lang, as_json)
        self.mark("lookup")
        if self.env["request_method"] == "HEAD":
            self.send_response(b"", headers=_HEADERS)
            return
        stream = self.stream(_HEADERS, f"{module.retry}event: bye\ndata:\n\n".encode())
        module.join(channel, stream, self.env.get("last-event-id", ""))
        try:
            await stream.ended
        finally:
            module.leave(channel, stream)
