"""The live feed: takes its messages in, and tells how far what it says can be relied upon."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from twisted.application.internet import TimerService
from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from govi_server.departures.timing_point import TimingPoint
from govi_server.kv78turbo import ctx
from govi_server.kv78turbo.freshness import Freshness
from govi_server.kv78turbo.kv7_timetable import Timetable
from govi_server.kv78turbo.kv8_passtimes import Passtimes
from govi_server.kv78turbo.stop_departures import StopDepartures, StopDeparturesCache
from govi_server.kv78turbo.subscriber import State, Subscriber
from govi_server.kv78turbo.timetable_directory import TimetableDirectory
from govi_server.runtime.cooperative import CooperativeRunner, make_cooperator
from govi_server.runtime.gunzip import gunzip
from govi_server.runtime.throttled_warnings import ThrottledWarnings
from govi_server.settings import FeedLimitSettings, PasstimeSettings, PlanningSettings, SubscriberSettings

PREFIXES = ("/GOVI/KV8", "/GOVI/KV7")
"""What is subscribed to; the old and the new names of the envelopes all begin so (docs/protocols.md 2.2)."""

SWEEP_EVERY = 60.0
"""Seconds between two rounds in which what is over is forgotten."""

SUBSCRIPTIONS = 1000
"""Subscriptions of which the last timestamp is remembered: there are some dozens."""

AT_ONCE = 1 << 18
"""Bytes of a message that is taken in at one go; a larger one piece by piece, with others having their turns."""

REFUSED = {
    "length": "its line is too long",
    "labels": "its table has no labels yet",
    "columns": "it has more or fewer columns than its table",
    "encoding": "it is no UTF-8",
    "escape": "there is an escape in it that is none",
    "key column": "its table lacks a column of the key",
    "key": "a part of its key is missing or wrong",
    "time": "a time in it cannot be read",
    "date": "its date cannot be read, or is not near",
    "future": "it was made in the future",
    "older": "what is known is newer",
    "TimingPointCode": "its TimingPointCode is none",
    "too many owners": "there are too many data owners",
    "too many passes": "there are too many passes",
    "too many stops": "there are too many stops",
    "too many messages": "there are too many general messages",
    "too many planned passes": "there are too many planned passes",
    "too many names": "there are too many names",
}
"""Why a record is refused, by kind of incident."""


class Feed(MultiService):
    """Keeps the boards of a country up to date.

    reactor: for time, and for ZeroMQ's file descriptor. addresses: of the feed, tried in turn; none is no feed, only
    a timetable, until subscribe() says where there is one. folder: of recorded KV7, "" for none. kept: the most bytes
    of rendered boards.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        addresses: Sequence[str],
        folder: str,
        limits: FeedLimitSettings,
        *,
        subscriber: SubscriberSettings,
        passtimes: PasstimeSettings,
        timetable: PlanningSettings,
        kept: int,
    ) -> None:
        super().__init__()
        self.clock = reactor
        self.limits = limits
        self.incidents = ThrottledWarnings(self.log, reactor)
        self.passtimes = Passtimes(reactor.seconds, self._refused, passtimes)
        self.timetable = Timetable(reactor.seconds, self._refused, timetable)
        self.boards = StopDeparturesCache(self.passtimes, self.timetable, reactor.seconds, kept, limits.stale)
        self.subscriptions: dict[str, str] = {}
        """The timestamp of the last KV8 message of each subscription."""
        self.n_records = 0
        self._owner = ""
        self._cooperator = make_cooperator(reactor)
        self.turns = CooperativeRunner(reactor)
        """Of who asks for much."""
        sweeper = TimerService(SWEEP_EVERY, self._sweep)
        sweeper.clock = reactor
        sweeper.setServiceParent(self)
        if folder:
            TimetableDirectory(folder, reactor, self._cooperator, self._read).setServiceParent(self)
        self._subscriber_limits = subscriber
        self.subscriber: Subscriber | None = None
        if addresses:
            self.subscribe(addresses)

    def subscribe(self, addresses: Sequence[str]) -> None:
        """Take what is said at these addresses, tried in turn. Raises CannotStart for what is none."""
        self.subscriber = Subscriber(self.clock, addresses, PREFIXES, self.received, self._subscriber_limits)
        self.subscriber.setServiceParent(self)

    @property
    def state(self) -> State:
        """How the feed is doing."""
        return "UNKNOWN" if self.subscriber is None else self.subscriber.state

    @property
    def reconnects(self) -> int:
        """How often it was connected to again."""
        return 0 if self.subscriber is None else max(self.subscriber.attempts - 1, 0)

    @property
    def age(self) -> float | None:
        """Seconds since there was any data; None if there never was."""
        last = None if self.subscriber is None else self.subscriber.last
        return None if last is None else max(self.clock.seconds() - last, 0.0)

    @property
    def is_complete(self) -> bool:
        """Whether what it does not tell is not there: it is UP, or there is but the timetable."""
        return self.subscriber is None or self.subscriber.state == "UP"

    @property
    def stops_version(self) -> tuple[int, int]:
        """A token that changes whenever the known stops may have changed."""
        return self.timetable.version, len(self.passtimes.stops)

    @property
    def timing_points(self) -> Mapping[str, TimingPoint]:
        """The stops of KV7, by TimingPointCode."""
        return self.timetable.timing_points

    @property
    def stop_codes(self) -> Collection[str]:
        """The TimingPointCodes of KV8."""
        return self.passtimes.stops

    # Taking in.

    def received(self, envelope: str, payload: bytes) -> Deferred[None] | None:
        """Take a message in; the Deferred, if there is one, fires when that is done."""
        try:
            message = gunzip(payload, self.limits.message)
        except ValueError as error:
            self.incidents.add(
                "broken message", "A message of {envelope!r} is dropped: {error}", envelope=envelope, error=str(error)
            )
            return None
        self._owner = envelope.rpartition("/")[2]
        bits = self._read(ctx.pieces(message))
        if len(message) > AT_ONCE:
            done: Deferred[None] = self._cooperator.coiterate(bits).addCallback(lambda _: None)
            return done
        for _ in bits:
            pass
        return None

    def _read(self, chunks: Iterator[bytes]) -> Iterator[None]:
        """Read CTX bit by bit: what is of KV8 at once, what is of KV7 when its group is whole."""
        for update in self.timetable.read(self._live(ctx.read(chunks, self._refused))):
            if update is not None:
                self.timetable.apply(update)
            yield

    def _live(self, message: Iterator[ctx.Records]) -> Iterator[ctx.Records | None]:
        """Take KV8 out of a message, and leave the rest; None where nothing is left: others have their turn then."""
        for records in message:
            self.n_records += len(records.lines)
            if self.passtimes.ingest(records):
                _, subscription, timestamp = records.group
                if subscription in self.subscriptions or len(self.subscriptions) < SUBSCRIPTIONS:
                    self.subscriptions[subscription] = timestamp
                yield None
            else:
                yield records if records.lines else None

    def _refused(self, kind: str) -> None:
        text = "A record of {owner!r} is refused: {why} ({counted_as})"
        self.incidents.add(kind, text, owner=self._owner, why=REFUSED[kind], counted_as=kind)

    def _sweep(self) -> Deferred[None]:
        def bits() -> Iterator[None]:
            yield from self.passtimes.sweep()
            self.timetable.sweep()

        done: Deferred[None] = self._cooperator.coiterate(bits()).addCallback(lambda _: None)
        return done

    # Telling.

    def operator_freshness(self, owner: str) -> tuple[Freshness, float]:
        """Tell how far what a data owner said last can be relied upon, and its age in seconds."""
        heard = self.passtimes.heard.get(owner)
        age = 0.0 if heard is None else max(self.clock.seconds() - heard, 0.0)
        if age > self.limits.stale:
            return "old", age
        fresh = self.is_complete if heard is None else age <= self.limits.fresh
        return ("fresh" if fresh else "stale"), age

    def freshness(self, board: StopDepartures) -> tuple[Freshness, float]:
        """Tell how far a board can be relied upon, and the age in seconds of the oldest word that it rests on."""
        now = self.clock.seconds()
        # Of whom nothing is known but what was planned nothing more was to be heard; who has fallen silent is missed.
        heard = self.passtimes.heard
        age = max((now - heard[owner] for owner in board.speakers if owner in heard), default=0.0)
        if board.silent and not board.shows:
            return "old", age
        if age > self.limits.fresh:
            return "stale", age
        if board.owners or self.is_complete:
            known = board.shows or self.boards.knows(board.code)
            return ("fresh" if known else "unknown"), max(age, 0.0)
        # What is planned may be late or cancelled, and nobody would say so.
        return ("stale" if board.planned else "down"), self.age or 0.0
