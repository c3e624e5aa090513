"""The live feed: takes its messages in, and tells how far what it says can be relied upon."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

from msgspec import Struct
from twisted.application.internet import TimerService
from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from govi_server.gunzip import gunzip
from govi_server.incidents import Incidents
from govi_server.kv78turbo import ctx
from govi_server.kv78turbo import passtimes as kv8
from govi_server.kv78turbo import timetable as kv7
from govi_server.kv78turbo.boards import Boards, StopBoard
from govi_server.kv78turbo.folder import Folder
from govi_server.kv78turbo.passtimes import Passtimes
from govi_server.kv78turbo.subscriber import Limits as SubscriberLimits
from govi_server.kv78turbo.subscriber import State, Subscriber
from govi_server.kv78turbo.timetable import Timetable
from govi_server.slices import Turns, in_slices
from govi_server.units import Bytes, Seconds

PREFIXES = ("/GOVI/KV8", "/GOVI/KV7")
"""What is subscribed to; the old and the new names of the envelopes all begin so (DOMAIN.md 2.2)."""

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

Condition = Literal["fresh", "stale", "old", "unknown", "down"]
"""How far a board can be relied upon: "fresh" and "stale" are shown; "old", "unknown" (no such stop) and "down" (no
feed, and so nobody knows) are three kinds of having none."""

SHOWN: tuple[Condition, ...] = ("fresh", "stale")
"""The conditions of a board in which it is shown."""


class Limits(Struct, frozen=True, forbid_unknown_fields=True):
    """What the feed may take, and how long its word counts."""

    message: Bytes = 64 << 20
    """Of one message, after gunzip: a night's planning of the largest operator fits."""
    fresh: Seconds = 60.0
    """Age in seconds up to which what a data owner said is fresh: the feed repeats it every half minute."""
    stale: Seconds = 300.0
    """Age in seconds up to which it is shown, and said to be stale."""


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
        limits: Limits,
        *,
        subscriber: SubscriberLimits,
        passtimes: kv8.Limits,
        timetable: kv7.Limits,
        kept: int,
    ) -> None:
        super().__init__()
        self.clock = reactor
        self.limits = limits
        self.incidents = Incidents(self.log, reactor)
        self.passtimes = Passtimes(reactor.seconds, self._refused, passtimes)
        self.timetable = Timetable(reactor.seconds, self._refused, timetable)
        self.boards = Boards(self.passtimes, self.timetable, reactor.seconds, kept, limits.stale)
        self.subscriptions: dict[str, str] = {}
        """The timestamp of the last KV8 message of each subscription."""
        self.n_records = 0
        self._owner = ""
        self._cooperator = in_slices(reactor)
        self.turns = Turns(reactor)
        """Of who asks for much."""
        sweeper = TimerService(SWEEP_EVERY, self._sweep)
        sweeper.clock = reactor
        sweeper.setServiceParent(self)
        if folder:
            Folder(folder, reactor, self._cooperator, self._read).setServiceParent(self)
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
    def tells_all(self) -> bool:
        """Whether what it does not tell is not there: it is UP, or there is but the timetable."""
        return self.subscriber is None or self.subscriber.state == "UP"

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
            if self.passtimes.take(records):
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

    def word_of(self, owner: str) -> tuple[Condition, float]:
        """Tell how far what a data owner said last can be relied upon, and its age in seconds."""
        heard = self.passtimes.heard.get(owner)
        age = 0.0 if heard is None else max(self.clock.seconds() - heard, 0.0)
        if age > self.limits.stale:
            return "old", age
        fresh = self.tells_all if heard is None else age <= self.limits.fresh
        return ("fresh" if fresh else "stale"), age

    def condition(self, board: StopBoard) -> tuple[Condition, float]:
        """Tell how far a board can be relied upon, and the age in seconds of the oldest word that it rests on."""
        now = self.clock.seconds()
        # Of whom nothing is known but what was planned nothing more was to be heard; who has fallen silent is missed.
        heard = self.passtimes.heard
        age = max((now - heard[owner] for owner in board.speakers if owner in heard), default=0.0)
        if board.silent and not board.shows:
            return "old", age
        if age > self.limits.fresh:
            return "stale", age
        if board.owners or self.tells_all:
            known = board.shows or self.boards.knows(board.code)
            return ("fresh" if known else "unknown"), max(age, 0.0)
        # What is planned may be late or cancelled, and nobody would say so.
        return ("stale" if board.planned else "down"), self.age or 0.0
