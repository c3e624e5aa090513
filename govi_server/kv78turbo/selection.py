"""Which of a stop's departures a board shows, by what the feed knows of their lines and journeys."""

from collections.abc import Collection, Generator, Iterable, Iterator, Sequence

from msgspec import structs

from govi_server.departures.fragments import Fragments
from govi_server.departures.query import Query
from govi_server.kv78turbo.feed import Feed
from govi_server.kv78turbo.joined_stop import JoinedPasstime
from govi_server.kv78turbo.kv7_journeys import journey_of
from govi_server.kv78turbo.kv8_columns import parse_passtime
from govi_server.kv78turbo.stop_departures import StopDepartures
from govi_server.runtime.cooperative import STEP_ITEMS


class Selection:
    """The departures that a query selects, besides its limit and its times.

    destination: the TimingPointCodes of the place at which they must call later; None for any place.
    """

    def __init__(self, feed: Feed, query: Query, destination: Collection[str] | None) -> None:
        self._feed = feed
        self._query = structs.replace(query, limit=None)
        self._destination = destination

    def select(self, entries: Iterable[JoinedPasstime]) -> Iterator[JoinedPasstime | None]:
        """Yield the selected departures, in order, and None for each that is not."""
        selected = self._query.select(entries, self._public_number)
        if self._query.modes or self._query.operators or self._destination is not None:
            return map(self._selected, selected)
        return selected

    def _public_number(self, entry: JoinedPasstime) -> str:
        return self._feed.timetable.public_number(entry.passtime)

    def _selected(self, entry: JoinedPasstime | None) -> JoinedPasstime | None:
        """Return a departure if it is selected, as cancelled if it does not call at the destination as planned."""
        query = self._query
        if entry is None or (query.operators and entry.operator not in query.operators):
            return None
        if query.modes and self._feed.timetable.mode(entry.operator, entry.line_planning_number) not in query.modes:
            return None
        if self._destination is None:
            return entry
        live = self._live_calls(entry, self._destination)
        if not live:
            return entry if self._feed.timetable.calls_later(entry.key, entry.passtime, self._destination) else None
        if entry.passtime.trip_stop_status == "CANCEL" or not all(status == "CANCEL" for status in live):
            return entry
        passtime = structs.replace(entry.passtime, trip_stop_status="CANCEL")
        return structs.replace(entry, passtime=passtime, fragments=Fragments({}), row=None)

    def _live_calls(self, entry: JoinedPasstime, codes: Collection[str]) -> list[str]:
        """Return the TripStopStatuses of the journey's later calls at these stops in KV8."""
        _, date, order = entry.key.rsplit(b"|", 2)
        statuses = []
        for key, stored in self._feed.passtimes.journeys.get(journey_of(entry.key)[:-1], {}).items():
            if stored.code in codes:
                _, of_date, of_order = key.rsplit(b"|", 2)
                if of_date != date:
                    continue
                call = parse_passtime(key, stored.values, stored.code, stored.updated_by)
                # The order of a call in GTFS is not that of KV8.
                is_planned = entry.passtime.provenance == "gtfs"
                if call.expected > entry.expected if is_planned else int(of_order) > int(order):
                    statuses.append(call.trip_stop_status)
        return statuses


def calls_before_others(boards: Sequence[StopDepartures]) -> Generator[None, None, set[bytes]]:
    """Return the keys of the departures after which their journey calls at the same place next, in steps.

    Such a vehicle leaves the place, or ends, at another of its platforms. A journey that returns after calls
    elsewhere departs twice. boards: of all stops of the place.
    """
    keys = set()
    for n, entry in enumerate((entry for board in boards for entry in board.entries), 1):
        if entry.passtime.trip_stop_status != "CANCEL":
            keys.add(_key_before(entry.key))
        if not n % STEP_ITEMS:
            yield
    return keys


def _key_before(key: bytes) -> bytes:
    """Return the key that the call before one has; stops are numbered by KV8 and KV7 (7), or by GTFS (gtfs 7)."""
    number = key.replace(b" ", b"|").rpartition(b"|")[2]
    return b"%b%d" % (key.removesuffix(number), int(number) - 1)
