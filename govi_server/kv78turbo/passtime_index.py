"""The live passtimes of KV8 in memory, by stop, by journey and by line.

A passtime is identified by its journey, operating date and UserStopOrderNumber (the key columns of kv8_columns): the
same passtime may move to another UserStopCode or TimingPointCode. Each operation costs the same, however many
passtimes a stop or a journey has.
"""

import math
from collections.abc import Callable, Mapping

from msgspec import Struct

from govi_server.kv78turbo.bounded_table import BoundedTable, Probation, largest_cohort
from govi_server.kv78turbo.ctx import Reject
from govi_server.kv78turbo.general_message import GeneralMessage
from govi_server.kv78turbo.kv8_columns import EMPTY, STATUS, WHEELCHAIR, journey_of, line_of
from govi_server.kv78turbo.stamps import TICKS, Stamp, is_older
from govi_server.settings import PasstimeSettings

LineKey = tuple[str, str, str]
"""DataOwnerCode, LinePlanningNumber and LineDirection."""

MAX_STOP_PASSTIMES = 1000
"""Passtimes of a stop: the busiest one in the captures has 105 a day, a busy station ten times as many."""

MAX_JOURNEY_PASSTIMES = 400
"""Passtimes of a journey: 200 stops on two operating dates."""

OVERHEAD_BYTES = 340
"""Bytes of a passtime besides its values: its key, the object, and its entries in three tables."""

MAX_STEP_EVICTIONS = 32
"""Passtimes evicted at once to make room at a stop or in a journey; later ones have room as well."""

RETENTION_SECONDS = 86400.0
"""How long stops without passtimes are retained, and passtimes that the feed has not repeated."""

_NO_PASSTIMES: Mapping[bytes, "StoredPasstime"] = {}
_UNKNOWN = EMPTY | {b"UNKNOWN"}


class StoredPasstime(Struct, gc=False, eq=False):
    """The latest values of a passtime. Without gc, it is smaller than other objects; it refers to no containers."""

    code: str
    """Its TimingPointCode."""
    values: bytes
    """Its row's values, parsed by kv8_columns.parse_passtime() when its stop is requested."""
    stamp: Stamp | None
    """When the values were true; None if unknown."""
    access_stamp: Stamp | None
    """When its wheelchair accessibility was true, which a newer row may not know; ignored if that is unknown."""
    last_heard: float
    """When the feed last sent it (epoch seconds); one object for all rows of a message."""
    is_repeated: bool
    """Whether the feed sent it more than once."""
    cohort: int = 0
    """Until it is confirmed, the number of its cohort (see bounded_table)."""

    @property
    def updated_by(self) -> float:
        """The moment of its stamp (epoch seconds), which its LastUpdateTimeStamp may be after."""
        return math.inf if self.stamp is None else self.stamp / TICKS


def merge(first: StoredPasstime, second: StoredPasstime) -> StoredPasstime:
    """Return a passtime from two versions of it, in order of arrival (docs/protocols.md, section 5.7).

    The newer one supersedes the other, wherever it is, but unknown wheelchair accessibility does not replace known
    accessibility. Only a newer version revokes a cancellation.
    """
    before, after = first.values.split(b"|", WHEELCHAIR + 1), second.values.split(b"|", WHEELCHAIR + 1)
    if (
        second.stamp is not None
        and first.stamp is not None
        and first.stamp <= second.stamp
        and before[STATUS] != b"CANCEL"
        and before[WHEELCHAIR] == after[WHEELCHAIR]
        and not is_older(second.access_stamp, first.access_stamp)
        and second.access_stamp is not None
    ):
        return second
    is_newer = is_older(first.stamp, second.stamp) or (first.stamp is None and second.stamp is not None)
    is_revoked = before[STATUS] == b"CANCEL" and after[STATUS] != b"CANCEL"
    is_kept = is_older(second.stamp, first.stamp) or (is_revoked and not is_newer)
    latest, fields = (first, before) if is_kept else (second, after)
    stamp, access, access_stamp = latest.stamp, fields[WHEELCHAIR], latest.access_stamp
    is_known, was_known = after[WHEELCHAIR] not in _UNKNOWN, before[WHEELCHAIR] not in _UNKNOWN
    if is_known and not (was_known and is_older(second.access_stamp, first.access_stamp)):
        access = after[WHEELCHAIR]
        access_stamp = first.stamp if second.access_stamp is None else second.access_stamp
    elif was_known:
        access, access_stamp = before[WHEELCHAIR], first.access_stamp
    values = latest.values
    if stamp is None and first.stamp is not None:  # otherwise, an older version could supersede it
        stamp, fields[0] = first.stamp, before[0]
    if fields[0] != values.partition(b"|")[0] or fields[WHEELCHAIR] != access:
        fields[WHEELCHAIR] = access
        values = b"|".join(fields)
    return StoredPasstime(latest.code, values, stamp, access_stamp, second.last_heard, second.is_repeated)


class LiveStop:
    """The live passtimes and messages of one stop."""

    __slots__ = ("code", "messages", "passtimes", "version")

    def __init__(self, code: str) -> None:
        self.code = code
        self.passtimes: dict[bytes, StoredPasstime] = {}
        """By key."""
        self.messages: dict[str, GeneralMessage] | None = None
        self.version = 0
        """Changes with each update."""


class PasstimeIndex:
    """Stops, journeys and lines with their passtimes.

    remove_messages: called with a stop that is evicted, to remove its messages.
    """

    def __init__(self, limits: PasstimeSettings, remove_messages: Callable[[LiveStop], object]) -> None:
        self._version = 0
        self._max_bytes = limits.bytes
        self._min_size = limits.bytes // limits.passes  # so that the limit in bytes limits the number as well
        self._remove_messages = remove_messages
        self._probation: Probation[bytes] = Probation(limits.bytes, self._cohort_of)
        self._line_of: dict[bytes, LineKey] = {}
        self.stops: BoundedTable[str, LiveStop] = BoundedTable(
            limits.stops, RETENTION_SECONDS, remove=self._remove_stop
        )
        """By TimingPointCode. At night they have no passtimes."""
        self.key_changed: Callable[[bytes, str], object] = lambda key, code: None
        """Called with the key of a passtime that is added, moved or removed, and its TimingPointCode; if it is moved,
        with both."""
        self.journeys: dict[bytes, dict[bytes, StoredPasstime]] = {}
        """The passtimes of each journey by their keys; the journeys by journey_of() these."""
        self.lines: dict[LineKey, dict[bytes, None]] = {}
        """The journeys of each line."""
        self.n_passtimes = 0
        self.n_removed = 0
        """The number of passtimes removed until now."""
        self.n_evicted = 0
        """The number of passtimes evicted to make room for others."""
        self.n_bytes = 0
        """The sum of the passtimes' sizes."""

    def _size(self, passtime: StoredPasstime) -> int:
        """Return the bytes of a passtime and of the tables that refer to it."""
        size = len(passtime.values) + OVERHEAD_BYTES
        return size if size > self._min_size else self._min_size

    def find(self, key: bytes) -> StoredPasstime | None:
        """Return the passtime with a key, at whichever stop it is; None if there is none."""
        return self.journeys.get(journey_of(key), _NO_PASSTIMES).get(key)

    def _cohort_of(self, key: bytes) -> int:
        passtime = self.find(key)
        return 0 if passtime is None else passtime.cohort

    def make_room(self, key: bytes, passtime: StoredPasstime, reject: Reject) -> bool:
        """Make room for a new passtime by evicting unconfirmed ones; reject it and return False if there is none."""
        stop, passtimes = self.stops.get(passtime.code), self.journeys.get(journey_of(key), _NO_PASSTIMES)
        if (
            stop is not None
            and len(stop.passtimes) >= MAX_STOP_PASSTIMES
            and not self._make_room_in(stop.passtimes, MAX_STOP_PASSTIMES)
        ):
            reject("stop full")
            return False
        if len(passtimes) >= MAX_JOURNEY_PASSTIMES and not self._make_room_in(passtimes, MAX_JOURNEY_PASSTIMES):
            reject("journey full")
            return False
        size = self._size(passtime)
        while self.n_bytes + size > self._max_bytes:
            victim = self._probation.victim()
            if victim is None:
                reject("too many passes")
                return False
            self._evict(victim, self.journeys[journey_of(victim)][victim])
        return True

    def _make_room_in(self, passtimes: Mapping[bytes, StoredPasstime], limit: int) -> bool:
        """Evict some passtimes of a stop or a journey if it has the maximum; return whether there is room."""
        if len(passtimes) >= limit:
            cohort = largest_cohort((key, passtime.cohort) for key, passtime in passtimes.items())
            for key in cohort[: min(MAX_STEP_EVICTIONS, (len(cohort) + 1) // 2)]:
                self._evict(key, passtimes[key])
        return len(passtimes) < limit

    def _evict(self, key: bytes, passtime: StoredPasstime) -> None:
        self.remove(key, passtime)
        self.n_evicted += 1

    def repeat(self, key: bytes, passtime: StoredPasstime, now: float) -> None:
        """Confirm a passtime that is received again, if it is time."""
        passtime.cohort = self._probation.repeat(key, passtime.cohort, self._size(passtime), now, self.n_bytes)

    def add(self, key: bytes, passtime: StoredPasstime, now: float) -> None:
        """Add a passtime whose key is not in the index, and whose stop is. There must be room for it."""
        journey = journey_of(key)
        size = self._size(passtime)
        passtime.cohort = self._probation.add(key, size, now)
        self.n_bytes += size
        passtimes = self.journeys.get(journey)
        if passtimes is None:
            passtimes = self.journeys[journey] = {}
            line = self._line_of[journey] = line_of(key, passtime.values)
            self.lines.setdefault(line, {})[journey] = None
        passtimes[key] = passtime
        self.n_passtimes += 1
        stop = self.stops[passtime.code]
        passtime.code = stop.code  # one object for all
        stop.passtimes[key] = passtime
        self.changed(stop)
        self.key_changed(key, stop.code)

    def update(self, key: bytes, passtime: StoredPasstime, latest: StoredPasstime) -> None:
        """Set a stored passtime to its latest version, whose stop is in the index and may be another one."""
        code = passtime.code
        is_changed = passtime.stamp != latest.stamp
        if passtime.values != latest.values:
            is_changed = True  # otherwise, the values stay the same object, by which parsed ones are cached
            if len(latest.values) != len(passtime.values):
                growth = self._size(latest) - self._size(passtime)
                self.n_bytes += growth
                self._probation.resize(passtime.cohort, growth)
            passtime.values = latest.values
        passtime.stamp, passtime.access_stamp = latest.stamp, latest.access_stamp
        passtime.last_heard, passtime.is_repeated = latest.last_heard, latest.is_repeated
        stop = self.stops[latest.code]
        if code != latest.code:
            passtime.code = stop.code
            del self.stops[code].passtimes[key]
            self.changed(self.stops[code])
            stop.passtimes[key] = passtime
            self.key_changed(key, code)
            self.key_changed(key, stop.code)
        if is_changed or code != latest.code:
            self.changed(stop)

    def remove(self, key: bytes, passtime: StoredPasstime) -> None:
        """Remove a passtime from its stop, journey and line."""
        stop = self.stops[passtime.code]
        del stop.passtimes[key]
        self.changed(stop)
        self.key_changed(key, stop.code)
        self.n_passtimes -= 1
        self.n_removed += 1
        size = self._size(passtime)
        self.n_bytes -= size
        self._probation.discard(passtime.cohort, size)
        journey = journey_of(key)
        passtimes = self.journeys[journey]
        del passtimes[key]
        if not passtimes:
            del self.journeys[journey]
            line = self._line_of.pop(journey)
            del self.lines[line][journey]
            if not self.lines[line]:
                del self.lines[line]

    def _remove_stop(self, code: str) -> None:
        """Remove a stop with its passtimes and messages."""
        stop = self.stops[code]
        for key, passtime in list(stop.passtimes.items()):
            self.remove(key, passtime)
        self._remove_messages(stop)
        self.stops.discard(code)

    def changed(self, stop: LiveStop) -> None:
        """Change the version of a stop."""
        self._version = stop.version = self._version + 1
