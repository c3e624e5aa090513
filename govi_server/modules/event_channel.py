"""A board of event streams: its listeners, and what its last event was rendered from."""

from collections.abc import Generator
from hashlib import blake2b

from msgspec import structs
from twisted.internet.defer import Deferred
from twisted.internet.task import Cooperator

from govi_server.departures.display import DepartureDisplay
from govi_server.departures.query import Query
from govi_server.departures.times import MINUTE, local_timestamp
from govi_server.documents import board as board_documents
from govi_server.http.event_listeners import EventListeners
from govi_server.http.event_stream import data_field
from govi_server.pages import board_page
from govi_server.runtime.cooperative import CooperativeRunner

RENDER_INTERVAL = 10.0
"""Seconds after which an unchanged board is rendered again, since time passes. Clients that join in between receive
the same rendering, so its remaining times are reduced by this."""

RENDER_PAUSE_PER_STOP = 0.1
"""Seconds for each stop of a board after which it is rendered again, even if it changes all the time: half a percent
of the processor for each board with listeners. This matters for boards of more than five stops."""

AGE_TOLERANCE = 5.0
"""Seconds by which data may be older than in the last event before a new event is sent, with less remaining time.
Ages are compared when the board is rendered, so pages overstate the remaining time by at most RENDER_INTERVAL plus
this."""

DIGEST_STEP_BYTES = 256 << 10
"""What a step hashes, in a third of a millisecond; the board of a thousand stops has megabytes."""


class Channel:
    """The listeners of one board: stops with a query, a language and a format.

    cooperator: see EventListeners.
    """

    def __init__(
        self, cooperator: Cooperator, key: object, codes: tuple[str, ...], query: Query, lang: str, as_json: bool
    ) -> None:
        self.key = key
        self.codes = codes
        self.query = query
        self.lang = lang
        self.as_json = as_json
        self.listeners = EventListeners(cooperator)
        self.waiters: dict[Deferred[None], None] = {}
        """Requests that wait for the first event."""
        self.version: object = None
        self.rendered_at = 0.0
        self.pause = RENDER_PAUSE_PER_STOP * len(codes)
        """Seconds after which a changed board is rendered again."""
        self.render_interval = max(RENDER_INTERVAL, self.pause)
        """Seconds after which an unchanged board is rendered again."""
        self.content = b""
        """The digest of the last rendered content, without ages."""
        self.ages: list[float] = []
        """The age of each stop as stated in the last event, or used for its minutes."""
        self.last_event_at = 0.0
        self.rendering: Deferred[None] | None = None

    async def update(self, display: DepartureDisplay, now: float, runner: CooperativeRunner) -> None:
        """Render a display, with a new id if clients have to show something else.

        A page shows the age of the data and counts down by itself: it changes with the content, or with data that
        is older than in the last event. JSON has minutes, but no age: it changes with its bytes. Newer data with the
        same content is not a change: otherwise every repetition of the feed would be an event.
        """
        zone = local_timestamp(now)[19:]  # a change of it sets the clock on the page
        content = await runner.run(_digest(display, zone))
        ages = [stop.age if any(row.state != "planned" for row in stop.rows) else 0.0 for stop in display.stops]
        is_older = any(map(lambda age, stated: age > stated + AGE_TOLERANCE, ages, self.ages))
        if content == self.content and not is_older:
            ages = self.ages
        # Clients that join later receive the same ages, so that the next event is due for all listeners together.
        stops = (structs.replace(stop, age=max(stop.age, age)) for stop, age in zip(display.stops, ages, strict=True))
        write = board_documents.document if self.as_json else board_page.fragment
        pieces = write(structs.replace(display, stops=tuple(stops)).delayed(self.render_interval), self.lang, now)
        data = await runner.run(data_field(pieces))
        digest = await runner.run(_digest_of_bytes(data)) if self.as_json else content + repr(ages).encode()
        number = blake2b(digest, digest_size=6).hexdigest()
        self.content, self.ages, self.listeners.id = content, ages, number
        self.listeners.event = b"id: %b\nevent: board\n%b\n" % (number.encode(), data)
        runner.resume(self.waiters, None)

    def first_event(self) -> Deferred[None]:
        """Return a Deferred that fires when the board has been rendered for the first time."""
        waiter: Deferred[None] = Deferred(lambda cancelled: self.waiters.pop(cancelled, None))
        self.waiters[waiter] = None
        return waiter


def _digest(display: DepartureDisplay, zone: str) -> Generator[None, None, bytes]:
    """Return a digest of a display's content, without ages, in steps."""
    digest = blake2b(zone.encode(), digest_size=16)
    for stop in display.stops:
        as_of = None if stop.as_of is None else stop.as_of // MINUTE
        rows = (structs.replace(row, age_difference=0.0) if row.age_difference else row for row in stop.rows)
        for part in (structs.replace(stop, age=0.0, as_of=as_of, rows=()), *rows):
            digest.update(repr(part).encode("utf-8", "replace"))
            yield
    return digest.digest()


def _digest_of_bytes(data: bytes) -> Generator[None, None, bytes]:
    """Return a digest of data, in steps."""
    digest = blake2b(digest_size=16)
    for begin in range(0, len(data), DIGEST_STEP_BYTES):
        digest.update(data[begin : begin + DIGEST_STEP_BYTES])
        yield
    return digest.digest()
