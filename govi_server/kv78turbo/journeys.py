"""The passtimes of journeys, joined from KV7 and KV8."""

from collections.abc import Callable, Generator
from math import ceil

from msgspec import structs

from govi_server.kv78turbo.joined_stop import completed
from govi_server.kv78turbo.kv7_timetable import PlannedCall, Timetable
from govi_server.kv78turbo.kv8_columns import parse_passtime
from govi_server.kv78turbo.kv8_passtimes import Passtimes
from govi_server.kv78turbo.passtime import Passtime
from govi_server.kv78turbo.passtime_index import StoredPasstime
from govi_server.kv78turbo.stop_departures import COST_PASSTIMES


class JourneyPasstimes:
    """Joins KV7 and KV8 for journeys, which few clients request: nothing is remembered.

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
        live: dict[bytes, Passtime] = {}
        for passtime_key, stored in list(self._live.journeys.get(prefix[:-1], {}).items()):
            live[passtime_key] = self._parse(passtime_key, stored, now)
            yield
        planned: dict[bytes, PlannedCall] = {}
        for call in self._timetable.journey(prefix, now) if prefix else ():
            planned[call.key] = call
            yield
        moments = [(abs(passtime.expected - now), passtime.operation_date) for passtime in live.values()]
        moments.extend((abs(call.time - now), call.day) for call in planned.values() if call.key not in live)
        nearest = min(moments, default=(0.0, None))[1]
        passtimes = []
        for passtime_key, call in planned.items():
            if call.day == nearest:
                kv8, kv7 = live.get(passtime_key), call.make()
                passtimes.append(kv7 if kv8 is None else completed(kv8, kv7))
                yield
        passtimes.extend(
            passtime for key, passtime in live.items() if passtime.operation_date == nearest and key not in planned
        )
        return passtimes

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


def _journey_prefix(key: str) -> bytes:
    """Return what the keys of a journey's passtimes begin with; empty if its key is invalid."""
    parts = key.split("_")
    # Only the number of a line may contain the separator.
    return "|".join((*parts[:2], "_".join(parts[2:-2]), *parts[-2:], "")).encode() if len(parts) >= 5 else b""


def stop_order(passtime: Passtime) -> tuple[int, str]:
    """Return the sort key of a stop in its journey: the order of its number, without parsing it."""
    return len(passtime.user_stop_order_number), passtime.user_stop_order_number
