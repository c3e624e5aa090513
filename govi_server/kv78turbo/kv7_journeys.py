"""Planned passtimes by journey, so that a journey or a line is looked up without those of others."""

from collections.abc import Iterable, Iterator

from govi_server.kv78turbo.kv7_reader import Group, UserStop

Journey = bytes
"""The first five columns of a planned passtime's key, each with its separator."""


class JourneyIndex:
    """The keys of planned passtimes by group and journey: 20 bytes for each, besides the keys, which are shared."""

    def __init__(self) -> None:
        self._journeys: dict[Group, dict[Journey, list[bytes]]] = {}
        self._groups: dict[tuple[str, str], dict[Group, int]] = {}
        """The number of passtimes by DataOwnerCode and LinePlanningNumber, and by group."""

    def add(self, group: Group, keys: Iterable[bytes]) -> None:
        """Add passtimes of a group that are not in the index."""
        journeys = self._journeys.setdefault(group, {})
        n = 0
        for key in keys:
            journeys.setdefault(journey_of(key), []).append(key)
            n += 1
        groups = self._groups.setdefault(_line_of(group), {})
        groups[group] = groups.get(group, 0) + n

    def remove(self, group: Group) -> None:
        """Remove a group."""
        if self._journeys.pop(group, None) is not None:
            line = _line_of(group)
            groups = self._groups[line]
            del groups[group]
            if not groups:
                del self._groups[line]

    def of_journey(self, journey: Journey) -> list[bytes]:
        """Return the keys of a journey."""
        return self._journeys.get(group_of(journey), {}).get(journey, [])

    def of_line(self, operator: str, line: str) -> Iterator[tuple[Group, list[bytes]]]:
        """Yield the keys of each journey of a line, with its group, even if groups are removed meanwhile."""
        for group in list(self._groups.get((operator, line), ())):
            for keys in list(self._journeys.get(group, {}).values()):
                yield group, keys

    def line_size(self, operator: str, line: str) -> int:
        """Return the number of passtimes of a line, of all service levels."""
        return sum(self._groups.get((operator, line), {}).values())


def group_of(key: bytes) -> Group:
    """Return the group of a planned passtime's key, or of a journey."""
    return b"|".join(key.split(b"|", 3)[:3])


def journey_of(key: bytes) -> Journey:
    """Return the journey of a planned passtime's key."""
    return b"|".join((*key.split(b"|", 5)[:5], b""))


def user_stop_of(key: bytes) -> UserStop:
    """Return the user stop of a planned passtime's key."""
    return key.partition(b"|")[0] + b"|" + key.rpartition(b"|")[2]


def _line_of(group: Group) -> tuple[str, str]:
    operator, _, line = group.decode().split("|")
    return operator, line
