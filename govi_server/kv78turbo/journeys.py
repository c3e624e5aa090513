"""The passtimes of journeys, joined from KV8, KV7 and GTFS."""

from collections.abc import Callable, Generator, Iterable, Mapping
from math import ceil

from msgspec import structs

from govi_server.kv78turbo.joined_stop import completed
from govi_server.kv78turbo.kv7_timetable import Timetable
from govi_server.kv78turbo.kv8_columns import is_planned_at, parse_passtime
from govi_server.kv78turbo.kv8_passtimes import Passtimes
from govi_server.kv78turbo.passtime import Passtime, PlannedCall
from govi_server.kv78turbo.passtime_index import StoredPasstime
from govi_server.kv78turbo.stop_departures import COST_PASSTIMES


class JourneyPasstimes:
    """Joins KV8, KV7 and GTFS for journeys, which few clients request: nothing is remembered.

    now: returns the time in epoch seconds. stale: seconds after which an overdue passtime is last known.
    """

    def __init__(self, live: Passtimes, timetable: Timetable, now: Callable[[], float], stale: float) -> None:
        self._live = live
        self._timetable = timetable
        self._now = now
        self._stale = stale

    def passtimes(self, key: str) -> Generator[None, None, list[Passtime]]:
        """Return the passtimes of a journey, GVB_20260421_7_7189_0, on the date nearest to now, in steps."""
        prefix = _journey_prefix(key)
        now = self._now()
        live: list[Passtime] = []
        joined: dict[bytes, Passtime] = {}
        """The live passtimes by the keys of the planned ones."""
        unplanned: list[tuple[Passtime, bytes]] = []
        """The live passtimes that are not planned, or not at their stop, with their values."""
        for passtime_key, stored in list(self._live.journeys.get(self._live_journey(prefix), {}).items()):
            passtime = self._parse(passtime_key, stored, now)
            planned = yield from self._timetable.find(passtime_key, passtime)
            joined[passtime_key] = joined[passtime_key if planned is None else planned.key] = passtime
            live.append(passtime if planned is None else completed(passtime, planned.make()))
            if planned is None:
                unplanned.append((passtime, stored.values))
            yield
        calls: list[PlannedCall] = []
        for call in self._timetable.journey(prefix, now) if prefix else ():
            if call.key not in joined:
                calls.append(call)
            yield
        moments = [(abs(passtime.expected - now), passtime.operation_date) for passtime in live]
        moments.extend((abs(call.time - now), call.day) for call in calls)
        nearest = min(moments, default=(0.0, None))[1]
        remaining = []
        for call in calls:
            if call.day == nearest:
                elsewhere = _find_elsewhere(call, unplanned)
                if elsewhere is None:
                    remaining.append(call)
                else:
                    joined[call.key] = elsewhere
                yield
        passtimes = []
        for call in remaining:
            passtimes.append(_renumbered(call, joined))
            yield
        passtimes.extend(passtime for passtime in live if passtime.operation_date == nearest)
        return passtimes

    def _live_journey(self, prefix: bytes) -> bytes:
        """Return the key of a journey in KV8, whose service level may be another one than in GTFS."""
        journey = prefix[:-1]
        if journey in self._live.journeys or self._timetable.gtfs is None or not journey:
            return journey
        operator, _, line, *numbers = journey.split(b"|")
        for direction in ("1", "2", ""):
            for other in self._live.lines.get((operator.decode(), line.decode(), direction), ()):
                if other.split(b"|")[3:] == numbers:
                    return other
        return journey

    def cost(self, key: str) -> int:
        """Return the cost of a journey for its client: one for every 20 passtimes."""
        prefix = _journey_prefix(key)
        live = len(self._live.journeys.get(prefix[:-1], ()))
        return max(ceil((live + self._timetable.journey_size(prefix)) / COST_PASSTIMES), 1)

    def _parse(self, key: bytes, stored: StoredPasstime, now: float) -> Passtime:
        """Return a passtime of KV8 with its reliability."""
        passtime = parse_passtime(key, stored.values, stored.code, stored.updated_by)
        repetition = self._live.repetitions.get(passtime.data_owner_code)
        if repetition is None:
            return passtime
        reliability, _ = repetition.reliability(stored.last_heard, now, self._stale)
        if reliability == "current":
            return passtime
        return structs.replace(passtime, reliability=reliability, last_heard=stored.last_heard)


def _find_elsewhere(call: PlannedCall, unplanned: Iterable[tuple[Passtime, bytes]]) -> Passtime | None:
    """Return the live passtime to which KV8 has moved a planned one of GTFS; those of KV7 have the keys of KV8."""
    if b"|gtfs " not in call.key:
        return None
    same_day = (pair for pair in unplanned if pair[0].operation_date == call.day)
    return next((passtime for passtime, values in same_day if is_planned_at(values, call.make())), None)


def _renumbered(call: PlannedCall, live: Mapping[bytes, Passtime]) -> Passtime:
    """Return a planned passtime; one of GTFS with a number between those of its journey's live ones before and after.

    live: the live passtimes by the keys of the planned ones. They have UserStopOrderNumbers, and GTFS counts calls.
    """
    passtime = call.make()
    journey, separator, text = call.key.rpartition(b"|gtfs ")
    if not separator:
        return passtime
    calls = [
        (int(key.rpartition(b" ")[2]), int(other.user_stop_order_number))
        for key, other in live.items()
        if key.startswith(journey + separator)
    ]
    if not calls:
        return passtime
    order = int(text)
    nearest, number = max([pair for pair in calls if pair[0] < order], default=min(calls))
    return structs.replace(passtime, user_stop_order_number=str(max(number + order - nearest, 0)))


def _journey_prefix(key: str) -> bytes:
    """Return what the keys of a journey's passtimes begin with; empty if its key is invalid."""
    parts = [] if "|" in key else key.split("_")
    # Only the number of a line may contain the separator of the parts.
    return "|".join((*parts[:2], "_".join(parts[2:-2]), *parts[-2:], "")).encode() if len(parts) >= 5 else b""


def stop_order(passtime: Passtime) -> tuple[int, str]:
    """Return the sort key of a stop in its journey: the order of its number, without parsing it."""
    return len(passtime.user_stop_order_number), passtime.user_stop_order_number
