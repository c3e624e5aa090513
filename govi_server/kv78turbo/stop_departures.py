"""What leaves from a stop, from KV7 and KV8 together; and what was made of it, kept until it changes."""

from collections import OrderedDict
from collections.abc import Callable, Generator, Iterable, Sized
from dataclasses import dataclass, replace
from typing import TypeVar

from govi_server.departures.times import HOUR, MINUTE
from govi_server.kv78turbo.kv7_timetable import Timetable
from govi_server.kv78turbo.kv8_passtimes import Passtimes, parse_passtime
from govi_server.kv78turbo.passtime import GeneralMessage, Passtime

LOOKED_BACK = HOUR / 2
"""Seconds for which planned passes are looked up that KV8 may say are late."""

LEFT_OUT = 5.0
"""Seconds after which a board is made anew that leaves somebody out: he may have been heard again."""

LOOKED_AHEAD = 10 * MINUTE
"""Seconds beyond the horizon that are looked at, too; a board is made anew after them at the latest."""

_Made = TypeVar("_Made", bound=Sized)


@dataclass(frozen=True, slots=True)
class StopDepartures:
    """The passes of a stop within a horizon, in order of expected time, and its messages, at one moment."""

    code: str
    passtimes: tuple[Passtime, ...]
    messages: tuple[GeneralMessage, ...]
    shows: bool
    """Whether there are passes."""
    owners: frozenset[str]
    """The data owners of the passes that KV8 tells of."""
    speakers: frozenset[str]
    """The data owners of everything that is shown, planned or not, and of what is left out."""
    silent: frozenset[str]
    """The data owners who said something of this stop, but so long ago that it is left out."""
    planned: bool
    """Whether KV7 tells of this stop at all."""
    until: float
    """Epoch seconds until which nothing comes or goes by itself."""


class StopDeparturesCache:
    """Makes boards. now: gives the moment in epoch seconds. size: the most bytes that are kept of what was made.

    stale: seconds for which the word of a data owner counts who says no more.
    """

    def __init__(
        self, passtimes: Passtimes, timetable: Timetable, now: Callable[[], float], size: int, stale: float
    ) -> None:
        self.passtimes = passtimes
        self.timetable = timetable
        self._now = now
        self._size = size
        self._stale = stale
        self._kept: OrderedDict[tuple[str, object], tuple[tuple[int, int], StopDepartures, Sized]] = OrderedDict()
        self.bytes = 0
        """Of all that is kept of what was made."""
        self.evicted = 0
        """What went to make room."""

    @property
    def entries(self) -> int:
        """How much of what was made is kept."""
        return len(self._kept)

    def knows(self, code: str) -> bool:
        """Tell whether there is such a TimingPointCode, as far as KV7 or KV8 tells."""
        return code in self.passtimes.stops or self.timetable.knows(code)

    def version(self, code: str) -> tuple[int, int]:
        """Give what is another thing when something is said of a stop."""
        stop = self.passtimes.stops.get(code)
        return (stop.version if stop is not None else 0, self.timetable.version)

    def board(self, code: str, horizon: float) -> StopDepartures:
        """Make a stop's board: what is expected within so many seconds and not gone."""
        now = self._now()
        stop = self.passtimes.stops.get(code)
        ahead = now + horizon + LOOKED_AHEAD
        planned = dict(self.timetable.passes(code, now - LOOKED_BACK, ahead))
        until = now + LOOKED_AHEAD
        known: list[tuple[Passtime, bool]] = []
        silent: set[str] = set()
        for key, values in stop.passes.items() if stop is not None else ():
            kv8 = parse_passtime(key, values, code)
            kv7 = planned.pop(key, None)
            too_old = min(self.passtimes.heard.get(kv8.data_owner_code, 0.0), now) + self._stale
            if now > too_old and kv8.hidden_after > now:
                silent.add(kv8.data_owner_code)
                until = min(until, now + LEFT_OUT)
            else:
                until = min(until, max(too_old, now))
                known.append((kv8 if kv7 is None else _filled(kv8, kv7), True))
        known.extend((kv7, False) for key, kv7 in planned.items() if not self.passtimes.tells(key))
        shown: list[tuple[float, str, Passtime, bool]] = []
        for a_pass, live in known:
            if a_pass.hidden_after <= now:
                continue
            if a_pass.expected > now + horizon:
                until = min(until, a_pass.expected - horizon)
                continue
            until = min(until, a_pass.hidden_after)
            shown.append((a_pass.expected, a_pass.journey, a_pass, live))
        messages = tuple(stop.messages.values()) if stop is not None and stop.messages else ()
        for message in messages:
            until = min([until, *(m for m in (message.starts, message.ends) if m is not None and m > now)])
        shown.sort(key=lambda one: one[:2])
        return StopDepartures(
            code,
            tuple(a_pass for _, _, a_pass, _ in shown),
            tuple(message for message in messages if message.shown(now)),
            bool(shown),
            frozenset(a_pass.data_owner_code for _, _, a_pass, live in shown if live),
            frozenset(silent.union(a_pass.data_owner_code for _, _, a_pass, _ in shown)),
            frozenset(silent),
            self.timetable.plans(code),
            until,
        )

    def boards(self, codes: Iterable[str], horizon: float) -> Generator[None, None, list[StopDepartures]]:
        """Make the boards of some stops, bit by bit."""
        made = []
        for code in codes:
            made.append(self.board(code, horizon))
            yield
        return made

    def made(
        self, code: str, horizon: float, form: object, make: Callable[[StopDepartures], _Made]
    ) -> tuple[StopDepartures, _Made]:
        """Give a stop's board and what is made of it, which is kept until either changes.

        Of a board that was made before, passes and messages are not given again.
        form: what it is known by, always made by the same function.
        """
        key = (code, form)
        version = self.version(code)
        kept = self._kept.get(key)
        # One that would last longer than any was made before the clock was set back.
        if kept is not None and kept[0] == version and 0 < kept[1].until - self._now() <= LOOKED_AHEAD:
            self._kept.move_to_end(key)
            return kept[1], kept[2]  # type: ignore[return-value]  # the form tells the type
        board = self.board(code, horizon)
        made = make(board)
        self._forget(key)
        if not self.knows(code):  # or those who make codes up would push the boards of stops out
            return board, made
        # What it was made of is not needed any more, and several times as large.
        self._kept[key] = (version, replace(board, passtimes=(), messages=()), made)
        self.bytes += len(made)
        while self.bytes > self._size:
            self.evicted += 1
            self._forget(next(iter(self._kept)))
        return board, made

    def _forget(self, key: tuple[str, object]) -> None:
        kept = self._kept.pop(key, None)
        if kept is not None:
            self.bytes -= len(kept[2])

    def journey(self, key: str) -> list[Passtime]:
        """List the passes of a journey, GVB_20260421_7_7189_0, on the operating date that is nearest to now."""
        parts = key.split("_")
        if len(parts) < 5:
            return []
        now = self._now()
        # The number of a line is the only one that may have the separator in it.
        prefix = "|".join((*parts[:2], "_".join(parts[2:-2]), *parts[-2:], "")).encode()
        by_key: dict[bytes, Passtime] = self.timetable.journey(prefix, now)
        for code in self.passtimes.journeys.get(prefix[:-1], ()):
            for pass_key, values in self.passtimes.stops[code].passes.items():
                if pass_key.startswith(prefix):
                    kv8, kv7 = parse_passtime(pass_key, values, code), by_key.get(pass_key)
                    by_key[pass_key] = kv8 if kv7 is None else _filled(kv8, kv7)
        if not by_key:
            return []
        day = min(by_key.values(), key=lambda one: abs(one.expected - now)).operation_date
        return [one for one in by_key.values() if one.operation_date == day]


def _filled(kv8: Passtime, kv7: Passtime) -> Passtime:
    """Fill what only the planning knows into what KV8 says (docs/protocols.md 5.7)."""
    wheelchair = kv7.wheelchair if kv8.wheelchair == "UNKNOWN" else kv8.wheelchair
    return replace(kv8, wheelchair=wheelchair, product_formula_type=kv7.product_formula_type)
