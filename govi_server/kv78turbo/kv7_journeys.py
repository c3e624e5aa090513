"""Planned passtimes by journey, so that a journey or a line is looked up without those of others."""

from collections.abc import Generator, Iterable, Mapping

from govi_server.kv78turbo.kv7_reader import Group, UserStop
from govi_server.runtime.cooperative import STEP_ITEMS

Journey = bytes
"""The first five columns of a planned passtime's key, each with its separator."""

Journeys = dict[Journey, tuple[bytes, ...]]
"""The keys of planned passtimes by journey: 20 bytes for each, besides the keys, which are shared."""


def journeys_of(stops: Mapping[UserStop, Iterable[bytes]]) -> Generator[None, None, Journeys]:
    """Return the keys of a group by journey, in steps. stops: the keys by stop."""
    journeys: dict[Journey, list[bytes]] = {}
    n = 0
    for keys in stops.values():
        for key in keys:
            journeys.setdefault(journey_of(key), []).append(key)
            n += 1
            if n % STEP_ITEMS == 0:
                yield
    return {journey: tuple(keys) for journey, keys in journeys.items()}


def group_of(key: bytes) -> Group:
    """Return the group of a planned passtime's key, or of a journey."""
    return b"|".join(key.split(b"|", 3)[:3])


def journey_of(key: bytes) -> Journey:
    """Return the journey of a planned passtime's key."""
    return b"|".join((*key.split(b"|", 5)[:5], b""))


def user_stop_of(key: bytes) -> UserStop:
    """Return the user stop of a planned passtime's key."""
    return key.partition(b"|")[0] + b"|" + key.rpartition(b"|")[2]
