"""The live feed: ingests the messages of KV7 and KV8, and stores their data.

Longer than other modules: the feed is one class, which owns all of its tables.
"""

from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from govi_server.departures.display import Provenance
from govi_server.departures.place_index_cache import PlaceIndexCache
from govi_server.departures.places import StopRecord, code_of, is_place_id
from govi_server.kv78turbo import ctx
from govi_server.kv78turbo.bounded_table import BoundedTable
from govi_server.kv78turbo.freshness import Freshness, freshness, operator_freshness, outdated_operators
from govi_server.kv78turbo.journeys import JourneyPasstimes
from govi_server.kv78turbo.kv7_timetable import Timetable
from govi_server.kv78turbo.kv8_passtimes import Passtimes
from govi_server.kv78turbo.restoration import Restoration
from govi_server.kv78turbo.stamps import latest_timestamp
from govi_server.kv78turbo.stop_departures import Rendered, StopDepartures, StopDeparturesCache
from govi_server.kv78turbo.subscriber import PLANNING_PREFIX, PREFIXES, State, Subscriber
from govi_server.kv78turbo.timetable_directory import TimetableDirectory
from govi_server.planning.planning import Planning
from govi_server.runtime.cooperative import CooperativeRunner, is_background, named
from govi_server.runtime.gunzip import decompress
from govi_server.runtime.repeated_call import RepeatedCall
from govi_server.runtime.throttled_warnings import ThrottledWarnings
from govi_server.settings import FeedLimitSettings, PasstimeSettings, PlanningSettings, SubscriberSettings

SWEEP_INTERVAL = 60.0
"""Seconds between sweeps, which remove expired data."""

SWEPT_PASSTIMES = 4000
"""Passtimes that are examined per second in the long run, 2 % of the time. More than 240,000 are not swept every
minute; boards hide what has expired anyway."""

MAX_SUBSCRIPTIONS = 1000
"""Subscriptions whose latest timestamp is stored; the feed has some dozens."""

SUBSCRIPTION_RETENTION_SECONDS = 86400.0
"""How long a subscription without messages is stored."""

MAX_BUFFERED_BYTES = 1 << 18
"""Larger messages are decompressed a second time while they are ingested, so that they need no memory."""

REJECT_REASONS = {
    "length": "line too long",
    "labels": "no preceding labels",
    "columns": "more or fewer columns than labels",
    "encoding": "not UTF-8",
    "escape": "unknown escape sequence",
    "key column": "required column missing in its table",
    "key": "missing or invalid key",
    "time": "no valid time",
    "value": "invalid time or timestamp",
    "date": "invalid or distant date",
    "older": "older than the stored record",
    "TimingPointCode": "invalid TimingPointCode",
    "long value": "longer than its column permits",
    "too many owners": "too many operators",
    "too many passes": "too many passtimes",
    "stop full": "too many passtimes at its stop",
    "journey full": "too many passtimes of its journey",
    "too many stops": "too many stops",
    "too many messages": "too many general messages",
    "too many planned passes": "too many planned passtimes",
    "too many names": "too many lines, destinations or stops",
}
"""Reasons for which records, or single values of them, are rejected, by kind of incident."""

VALUE_KINDS = frozenset({"encoding", "escape", "long value", "value"})
"""Kinds that cost only the invalid value: the record is stored without it."""


class Feed(MultiService):
    """Stores and updates the departures of a country.

    reactor: provides time, and watches ZeroMQ's file descriptor. addresses: the feed's addresses, tried in turn;
    without any, only the timetable is available until subscribe() is called. folder: the timetable directory, ""
    for none. cache_bytes: maximum memory of what is remembered of requested stops.
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
        cache_bytes: int,
        runner: CooperativeRunner | None = None,
    ) -> None:
        super().__init__()
        self.clock = reactor
        self.limits = limits
        self.incidents = ThrottledWarnings(self.log, reactor)
        self.passtimes = Passtimes(reactor.seconds, passtimes)
        self.timetable = Timetable(reactor.seconds, timetable)
        self.boards = StopDeparturesCache(self.passtimes, self.timetable, reactor.seconds, cache_bytes, limits.stale)
        self.journeys = JourneyPasstimes(self.passtimes, self.timetable, reactor.seconds, limits.stale)
        self.subscriptions: BoundedTable[str, str] = BoundedTable(MAX_SUBSCRIPTIONS, SUBSCRIPTION_RETENTION_SECONDS)
        """The timestamp of the last KV8 message of each subscription."""
        self.is_fictional = False
        """Whether it has sent data that is marked as fictional; then no page or response may pass for real."""
        self.on_fictional: Callable[[], object] = lambda: None
        """Called when the first of such data arrives."""
        self.n_records = 0
        self._reported_evictions: dict[str, int] = {}
        self._swept_at = 0.0
        self.runner = runner or CooperativeRunner(reactor)
        """Runs the work of requests."""
        self.restoration = Restoration(reactor, self.runner, self._has_data)
        """Of the snapshot, if there is one."""
        self.places = PlaceIndexCache(self, reactor)
        self._ingester = CooperativeRunner(reactor, self.runner)
        """Runs the work of ingesting, which must not wait for requests; large messages and files leave them most of
        the time."""
        self._cooperator = self._ingester.cooperator
        RepeatedCall("Removing expired data", reactor, SWEEP_INTERVAL, self._sweep).setServiceParent(self)
        if folder:
            ingest = partial(self.ingest, is_confirmed=True)
            TimetableDirectory(folder, reactor, self._cooperator, ingest).setServiceParent(self)
        self._subscriber_limits = subscriber
        self.subscriber: Subscriber | None = None
        if addresses:
            self.subscribe(addresses)

    def subscribe(self, addresses: Sequence[str]) -> None:
        """Subscribe to a feed at these addresses, tried in turn. Raises StartupError for an invalid one."""
        self.subscriber = Subscriber(
            self.clock,
            addresses,
            PREFIXES,
            self.received,
            self._subscriber_limits,
            setting="feed.addresses (--feed)",
            recovered=self.passtimes.add_outage,
        )
        self.subscriber.setServiceParent(self)

    @property
    def state(self) -> State:
        """The state of the feed."""
        return "UNKNOWN" if self.subscriber is None else self.subscriber.state

    @property
    def reconnects(self) -> int:
        """The number of connections after the first."""
        return 0 if self.subscriber is None else max(self.subscriber.attempts - 1, 0)

    @property
    def age(self) -> float | None:
        """Seconds since the latest data; None before the first."""
        last = None if self.subscriber is None else self.subscriber.last
        return None if last is None else max(self.clock.seconds() - last, 0.0)

    @property
    def has_live_data(self) -> bool:
        """Whether the feed has sent data, or a snapshot had some."""
        return self.age is not None or bool(self.passtimes.last_heard)

    @property
    def is_complete(self) -> bool:
        """Whether all changes are reported: the feed is UP, or only the timetable is used."""
        return self.subscriber is None or self.subscriber.state == "UP"

    @property
    def has_all_stops(self) -> bool:
        """Whether planning from GTFS is used: what it does not have, and KV7 and KV8 neither, is no stop."""
        return self.timetable.gtfs is not None

    @property
    def stops_version(self) -> tuple[int, int]:
        """A token that changes whenever the known stops may have changed."""
        return self.timetable.version, self.passtimes.stops.generation

    @property
    def provenance(self) -> dict[str, tuple[Provenance, ...]]:
        """Which sources have departures of each operator, by DataOwnerCode."""
        gtfs = self.timetable.gtfs
        sources: tuple[tuple[Provenance, Collection[str]], ...] = (
            ("kv8", self.passtimes.last_heard),
            ("kv7", self.timetable.planned_operators),
            ("gtfs", () if gtfs is None else gtfs.planning.header.operators),
        )
        operators = {operator for _, of_source in sources for operator in of_source}
        return {
            operator: tuple(name for name, of_source in sources if operator in of_source) for operator in operators
        }

    @property
    def stop_codes(self) -> Iterator[str]:
        """All TimingPointCodes, of KV7, GTFS and KV8."""
        yield from self.timetable.stop_codes()
        yield from (code for code in list(self.passtimes.stops) if not self.timetable.is_named_stop(code))

    def stop_record(self, code: str) -> StopRecord:
        """Return what is known of a TimingPointCode."""
        point = self.timetable.timing_point(code)
        area = None if point is None or point.stop_area is None else self.timetable.area_name(point.stop_area)
        modes, n_departures = self.timetable.usage(code)
        stop = self.passtimes.stops.get(code)
        if stop is not None and not n_departures:
            lines = {tuple(key.decode().split("|", 3)[0:3:2]) for key in stop.passtimes}
            modes = frozenset(mode for mode in (self.timetable.mode(*line) for line in lines) if mode is not None)
            n_departures = len(stop.passtimes)
        return StopRecord(code, point, area, modes, n_departures)

    @property
    def evictions(self) -> dict[str, int]:
        """The number of entries evicted to make room, by table; planned passtimes count by line."""
        return {
            **self.passtimes.evictions,
            **self.timetable.evictions,
            "subscriptions": self.subscriptions.n_evicted,
        }

    # Ingesting.

    def use_planning(self, planning: Planning) -> None:
        """Use the planning of a GTFS file instead of any earlier one."""
        self.timetable.use_planning(planning)

    def received(self, envelope: str, payload: bytes) -> Deferred[None] | None:
        """Ingest a message of the feed; return a Deferred that fires when it is done, if it needs several turns."""
        done = Deferred.fromCoroutine(self._receive(envelope, payload))
        return None if done.called and not isinstance(done.result, Failure) else done

    async def _receive(self, envelope: str, payload: bytes) -> None:
        is_background.set(envelope.startswith(PLANNING_PREFIX))
        await self._ingester.run(named(self._ingest_message(envelope, payload), envelope))

    def _ingest_message(self, envelope: str, payload: bytes) -> Generator[None, None, None]:
        """Ingest a message in steps, after all of it was decompressed once: a broken message has no effect."""
        chunks: list[bytes] = []
        size = 0
        try:
            for chunk in decompress(payload, self.limits.message):
                size += len(chunk)
                chunks = [*chunks, chunk] if size <= MAX_BUFFERED_BYTES else []
                yield
        except ValueError as error:
            self.incidents.add(
                "broken message", "Message {envelope!r} dropped: {error}", envelope=envelope, error=str(error)
            )
            return
        content = iter(chunks) if size <= MAX_BUFFERED_BYTES else decompress(payload, self.limits.message)
        yield from self.ingest(content, envelope.rpartition("/")[2])

    def ingest(self, chunks: Iterator[bytes], sender: str, is_confirmed: bool = False) -> Iterator[None]:
        """Ingest CTX in steps: KV8 records immediately, KV7 records when their group is complete.

        sender: the source of the records, for the log. is_confirmed: whether it is known to be real.
        """
        reject = partial(self.reject, sender)
        records = self._planning(ctx.read(chunks, reject), reject)
        for update in self.timetable.read(records, reject, is_confirmed):
            if update is not None:
                yield from self.timetable.apply(update, reject)
            yield

    def _planning(self, message: Iterator[ctx.Records], reject: ctx.Reject) -> Iterator[ctx.Records | None]:
        """Ingest the records of KV8, and yield all others; yield None for a step without any."""
        for records in message:
            self.n_records += len(records.lines)
            if (yield from self.passtimes.ingest(records, reject)):
                _, subscription, timestamp, is_fictional = records.group
                if is_fictional and not self.is_fictional:
                    self.is_fictional = True
                    self.on_fictional()
                now = self.clock.seconds()
                latest = latest_timestamp(self.subscriptions.get(subscription), timestamp, now)
                self.subscriptions.put(subscription, latest or "", now)
                yield None
            else:
                yield records if records.lines else None

    def reject(self, sender: str, kind: str) -> None:
        """Count a rejected record or value, and log it. kind: a key of REJECT_REASONS."""
        rejected = "Value in a record" if kind in VALUE_KINDS else "Record"
        text = rejected + " of {sender!r} rejected: {reason} ({counted_as})"
        self.incidents.add(kind, text, sender=sender, reason=REJECT_REASONS[kind], counted_as=kind)

    def _sweep(self) -> Deferred[Any] | None:
        """Remove expired data, unless the last sweep was too recent for its cost."""
        now = self.clock.seconds()
        if 0 <= now - self._swept_at < self.passtimes.n_passtimes / SWEPT_PASSTIMES:
            return None
        self._swept_at = now

        def steps() -> Iterator[None]:
            yield from self.passtimes.sweep()
            yield from self.timetable.sweep(self.passtimes.last_heard.__contains__, self.passtimes.stops.__contains__)
            yield from self.subscriptions.sweep(self.clock.seconds(), lambda subscription: False)
            self._report_evictions()

        return self._cooperator.coiterate(steps())

    def _report_evictions(self) -> None:
        evictions = self.evictions
        for table, number in evictions.items():
            if number != self._reported_evictions.get(table, 0):
                text = "Table of {table} is full: entries that were received only once are evicted"
                self.incidents.add("evicted", text, table=table)
        self._reported_evictions = evictions

    # Requests.

    async def rendered(
        self,
        code: str,
        horizon: float,
        form: object,
        render: Callable[[StopDepartures], Generator[None, None, Rendered]],
    ) -> tuple[StopDepartures, Rendered]:
        """Return a stop's departures and a rendering of them; see StopDeparturesCache.render().

        Requests at the same time share it.
        """
        steps = partial(self.boards.render, code, horizon, form, render)
        return await self.runner.run_shared((code, form), steps)

    # Freshness.

    def ages(self, operators: Iterable[str]) -> list[tuple[float | None, float]]:
        """Return the age of each operator's latest data, None without any, and the age up to which it is fresh.

        Ages are in seconds. An operator may repeat its data slowly.
        """
        now, last_heard, repetitions = self.clock.seconds(), self.passtimes.last_heard, self.passtimes.repetitions
        fresh, stale = self.limits.fresh, self.limits.stale
        ages: list[tuple[float | None, float]] = []
        for operator in operators:
            time, repetition = last_heard.get(operator), repetitions.get(operator)
            age = None if time is None else max(now - time, 0.0)
            ages.append((age, fresh if repetition is None else repetition.fresh_seconds(fresh, stale)))
        return ages

    def _has_data(self, stop: str) -> bool:
        """Return whether departures of a stop, or of any stop of a place, are known on any date."""
        code = code_of(stop) if is_place_id(stop) else stop
        live = self.passtimes.stops.get(code)
        return (live is not None and bool(live.passtimes)) or self.timetable.has_planning(code)

    def is_known(self, stop: str) -> bool:
        """Return whether the stop of a request exists: a TimingPointCode, or any stop of a place."""
        return self.is_known_stop(code_of(stop) if is_place_id(stop) else stop)

    def is_known_stop(self, code: str) -> bool:
        """Return whether KV7 or KV8 has a TimingPointCode."""
        return self.boards.is_known_stop(code)

    def operator_freshness(self, operator: str) -> tuple[Freshness, float]:
        """Return how fresh an operator's latest data is, and its age in seconds."""
        return operator_freshness(self, operator)

    def outdated_operators(self, departures: StopDepartures) -> frozenset[str]:
        """Return the operators of a stop's departures whose latest data is not fresh."""
        return outdated_operators(self, departures)

    def freshness(self, departures: StopDepartures) -> tuple[Freshness, float]:
        """Return how fresh a stop's departures are, and the age in seconds of the oldest data among them."""
        return freshness(self, departures)
