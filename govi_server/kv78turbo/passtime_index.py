"""The live passtimes of KV8 in memory, by stop, by journey and by line.

A passtime is identified by its journey, operating date and UserStopOrderNumber (the key columns of kv8_columns): the
same passtime may move to another UserStopCode or TimingPointCode. Each operation costs the same, however many
passtimes a stop or a journey has.
"""

import math
from collections.abc import Mapping

from msgspec import Struct

from govi_server.kv78turbo.general_message import GeneralMessage
from govi_server.kv78turbo.kv8_columns import EMPTY, STATUS, WHEELCHAIR, journey_of, line_of
from govi_server.kv78turbo.stamps import TICKS, Stamp, is_older

LineKey = tuple[str, str, str]
"""DataOwnerCode, LinePlanningNumber and LineDirection."""

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
    """Stops, journeys and lines with their passtimes."""

    def __init__(self) -> None:
        self._version = 0
        self._line_of: dict[bytes, LineKey] = {}
        self.stops: dict[str, LiveStop] = {}
        """By TimingPointCode. Stops are never removed; at night they have no passtimes."""
        self.journeys: dict[bytes, dict[bytes, StoredPasstime]] = {}
        """The passtimes of each journey by their keys; the journeys by journey_of() these."""
        self.lines: dict[LineKey, dict[bytes, None]] = {}
        """The journeys of each line."""
        self.n_passtimes = 0

    def find(self, key: bytes) -> StoredPasstime | None:
        """Return the passtime with a key, at whichever stop it is; None if there is none."""
        return self.journeys.get(journey_of(key), _NO_PASSTIMES).get(key)

    def add(self, key: bytes, passtime: StoredPasstime) -> None:
        """Add a passtime whose key is not in the index, and whose stop is."""
        journey = journey_of(key)
        passtimes = self.journeys.get(journey)
        if passtimes is None:
            passtimes = self.journeys[journey] = {}
            line = self._line_of[journey] = line_of(key, passtime.values)
            self.lines.setdefault(line, {})[journey] = None
        passtimes[key] = passtime
        self.n_passtimes += 1
        stop = self.stops[passtime.code]
        stop.passtimes[key] = passtime
        self.changed(stop)

    def update(self, key: bytes, passtime: StoredPasstime, latest: StoredPasstime) -> None:
        """Set a stored passtime to its latest version, whose stop is in the index and may be another one."""
        is_changed, code = passtime.values != latest.values, passtime.code
        passtime.values, passtime.stamp, passtime.access_stamp = latest.values, latest.stamp, latest.access_stamp
        passtime.last_heard, passtime.is_repeated = latest.last_heard, latest.is_repeated
        if code != latest.code:
            passtime.code = latest.code
            del self.stops[code].passtimes[key]
            self.changed(self.stops[code])
            self.stops[latest.code].passtimes[key] = passtime
        if is_changed or code != latest.code:
            self.changed(self.stops[latest.code])

    def remove(self, key: bytes, passtime: StoredPasstime) -> None:
        """Remove a passtime from its stop, journey and line."""
        stop = self.stops[passtime.code]
        del stop.passtimes[key]
        self.changed(stop)
        self.n_passtimes -= 1
        journey = journey_of(key)
        passtimes = self.journeys[journey]
        del passtimes[key]
        if not passtimes:
            del self.journeys[journey]
            line = self._line_of.pop(journey)
            del self.lines[line][journey]
            if not self.lines[line]:
                del self.lines[line]

    def changed(self, stop: LiveStop) -> None:
        """Change the version of a stop."""
        self._version = stop.version = self._version + 1
