"""Tests that records of the feed lead to the same state in whatever order, and however often, they arrive.

The state is compared with that of the same records in the order of their stamps.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from govi_server.kv78turbo.feed import Feed
from govi_server.operations.snapshot import records_of, restore
from tests import feed as kv
from tests.client import NOW
from tests.doubles import ingest, live_feed

STOPS = ("30000001", "30000002")
Change = Callable[[Feed], None]


def stamp(tenths: int) -> str:
    """Return a timestamp after 00:50, in one of the forms that publishers use for it."""
    seconds, tenth = divmod(tenths, 10)
    minutes, second = divmod(seconds, 60)
    hour, offset = (("00", "+01:00"), ("23", "Z"), ("01", "+0200"))[tenths % 3]
    day = "2025-12-31" if hour == "23" else "2026-01-01"
    fraction = (f".{tenth}", f".{tenth}00", f".{tenth}000000")[tenths % 3] if tenth or tenths % 2 else ""
    return f"{day}T{hour}:{50 + minutes}:{second:02}{fraction}{offset}"


class Record(NamedTuple):
    """A message of the feed, or another event, with its order."""

    order: int
    change: Change


def passtime(tenths: int, row: kv.Row) -> Record:
    """Return a row of DATEDPASSTIME."""
    message = kv.passtimes({**row, "LastUpdateTimeStamp": stamp(tenths), "NumberOfCoaches": str(tenths)})
    return Record(tenths, lambda feed: ingest(feed, message))


def general_message(tenths: int, row: kv.Row) -> Record:
    """Return a row of GENERALMESSAGEUPDATE, published when the test runs."""
    row = {**row, "MessageTimeStamp": stamp(tenths), "MessageContent": str(tenths)}
    message = kv.general_message(row, published="2026-01-01T01:00:00+01:00")
    return Record(tenths, lambda feed: ingest(feed, message))


def deletion(tenths: int, row: kv.Row) -> Record:
    """Return a row of GENERALMESSAGEDELETE."""
    message = kv.general_message_delete(row, published=stamp(tenths))
    return Record(tenths, lambda feed: ingest(feed, message))


def sweep(feed: Feed) -> None:
    """Remove what has expired."""
    for _ in feed.passtimes.sweep():
        pass


KEYS = {"JourneyNumber": st.sampled_from("112"), "UserStopOrderNumber": st.sampled_from("334")}
PLACES = {"TimingPointCode": st.sampled_from(STOPS), "UserStopCode": st.sampled_from(("u1", "u2"))}
TIMES = ("ExpectedArrivalTime", "ExpectedDepartureTime", "TargetArrivalTime", "TargetDepartureTime")

PASSTIMES = st.fixed_dictionaries(
    {
        **KEYS,
        **PLACES,
        "TripStopStatus": st.sampled_from(("DRIVING", "CANCEL", "PASSED", "UNKNOWN")),
        "WheelChairAccessible": st.sampled_from(("ACCESSIBLE", "NOTACCESSIBLE", "UNKNOWN", None)),
    }
)
EXPIRING_PASSTIMES = st.builds(
    lambda row, time: {**row, **dict.fromkeys(TIMES, time)},
    st.fixed_dictionaries({**KEYS, **PLACES, "JourneyNumber": st.just("9")}),
    st.sampled_from(("00:30:00", "01:30:00")),
)
MESSAGES = st.fixed_dictionaries(
    {
        "MessageCodeNumber": st.sampled_from("112"),
        "TimingPointCode": st.sampled_from((STOPS[0], *STOPS)),
        "MessageEndTime": st.sampled_from((None, "2026-01-01T00:55:00+01:00", "2026-01-01T03:00:00+01:00")),
    }
)


def stamped(make: Callable[[int, kv.Row], Record], rows: st.SearchStrategy[kv.Row]) -> st.SearchStrategy[Record]:
    """Return a strategy for records of these rows, more than two seconds apart: see MAX_LEAD_SECONDS."""
    tenths = st.builds(lambda n, tenth: 30 * n + tenth, st.integers(0, 9), st.integers(0, 7))
    return st.builds(make, tenths, rows)


KINDS = {
    "passtimes": stamped(passtime, PASSTIMES),
    "expiring passtimes": stamped(passtime, EXPIRING_PASSTIMES),
    "messages": st.one_of(stamped(general_message, MESSAGES), stamped(deletion, MESSAGES)),
}


@st.composite
def arrivals(draw: st.DrawFn, kinds: Sequence[str]) -> tuple[list[Record], list[Record]]:
    """Return records, and the same in an order of arrival, some of them twice."""
    records = draw(
        st.lists(st.one_of(*(KINDS[kind] for kind in kinds)), max_size=6, unique_by=lambda record: record.order // 30)
    )
    repeated = draw(st.lists(st.sampled_from(records), max_size=3)) if records else []
    return records, draw(st.permutations([*records, *repeated]))


class OrderTests(SynchronousTestCase):
    """The order of arrival."""

    def make_feed(self) -> Feed:
        clock = Clock()
        clock.advance(NOW)
        return live_feed(clock)

    def state(self, feed: Feed) -> object:
        """Return what is stored, after removing what has expired."""
        sweep(feed)
        stops = feed.passtimes.stops.items()
        stored = {(code, key, passtime.values) for code, stop in stops for key, passtime in stop.passtimes.items()}
        messages = {(code, message.fields) for code, stop in stops for message in (stop.messages or {}).values()}
        self.assertEqual((feed.passtimes.n_passtimes, feed.passtimes.n_messages), (len(stored), len(messages)))
        return stored, messages

    def in_order(self, records: Iterable[Record]) -> object:
        """Return the state after records in the order of their stamps."""
        feed = self.make_feed()
        for record in sorted(records, key=lambda record: record.order):
            record.change(feed)
        return self.state(feed)

    @settings(deadline=None, max_examples=100)
    @given(arrivals(["passtimes"]))
    def test_passtimes(self, case: tuple[list[Record], list[Record]]) -> None:
        """The newest row determines stop and status of a passtime; the newest known accessibility stays."""
        records, arrived = case
        feed = self.make_feed()
        for record in arrived:
            record.change(feed)
        self.assertEqual(self.state(feed), self.in_order(records))

    def test_older_row_confirms_accessibility(self) -> None:
        """An older row confirms the accessibility, which a newer one does not know, against still older ones."""
        feed = self.make_feed()
        for minute, access in ((0, "ACCESSIBLE"), (4, "UNKNOWN"), (3, "ACCESSIBLE"), (2, "NOTACCESSIBLE")):
            passtime(30 * minute, {"WheelChairAccessible": access}).change(feed)
        ((_, stored),) = feed.passtimes.stops["30000001"].passtimes.items()
        self.assertIn(b"|ACCESSIBLE|", stored.values)

    @settings(deadline=None, max_examples=100)
    @given(arrivals(["expiring passtimes", "messages"]))
    def test_removed_records(self, case: tuple[list[Record], list[Record]]) -> None:
        """What was removed, because it ended or was deleted, is not brought back by older records."""
        records, arrived = case
        feed = self.make_feed()
        for record in arrived:
            record.change(feed)
            sweep(feed)
        self.assertEqual(self.state(feed), self.in_order(records))

    @settings(deadline=None, max_examples=100)
    @given(st.one_of([arrivals([kind]) for kind in KINDS]), st.integers(0, 7), st.integers(0, 7))
    def test_restart(self, case: tuple[list[Record], list[Record]], before: int, restored: int) -> None:
        """A restart changes nothing, whether the snapshot is restored before, between or after new records."""
        records, arrived = case
        old, feed = self.make_feed(), self.make_feed()
        for record in arrived[:before]:
            record.change(old)
        sweep(old)
        saved = list(records_of({}, old))
        further = arrived[before:]
        for n in range(len(further) + 1):
            if n == min(restored, len(further)):
                for part in saved:
                    for _ in restore(part, {}, feed, NOW, lambda kind: None):
                        pass
            if n < len(further):
                further[n].change(feed)
                sweep(feed)
        self.assertEqual(self.state(feed), self.in_order(records))
