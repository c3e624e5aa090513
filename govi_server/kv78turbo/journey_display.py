"""The display of a journey of the live feed, with names from KV7."""

from collections.abc import Generator

from govi_server.departures.colors import read_color
from govi_server.departures.display import badge, clean, place, platform, row_state
from govi_server.departures.journey import Call, JourneyDisplay
from govi_server.kv78turbo.feed import Feed
from govi_server.kv78turbo.freshness import Freshness, reliability
from govi_server.kv78turbo.journeys import stop_order
from govi_server.kv78turbo.passtime import Passtime
from govi_server.runtime.cooperative import sort_in_steps


def journey_display(
    feed: Feed, key: str, freshness: tuple[Freshness, float]
) -> Generator[None, None, JourneyDisplay | None]:
    """Return the display of a journey, in steps; None if it is unknown.

    key: as OVapi's, such as GVB_20260421_7_7189_0. freshness: of its operator's data, and its age in seconds.
    """
    passtimes = yield from sort_in_steps((yield from feed.journeys.passtimes(key)), stop_order)
    if not passtimes:
        return None
    state, age = freshness
    outdated = frozenset() if state == "fresh" else frozenset([passtimes[0].data_owner_code])
    calls = []
    for passtime in passtimes:
        calls.append(_call(feed, passtime, outdated))
        yield
    first, timetable = passtimes[0], feed.timetable
    line = timetable.line(first.data_owner_code, first.line_planning_number)
    color, text_color = (line.color, line.text_color) if line is not None else (None, None)
    return JourneyDisplay(
        clean(timetable.public_number(first)),
        clean(timetable.destination(first)),
        tuple(calls),
        first.data_owner_code,
        timetable.mode(first.data_owner_code, first.line_planning_number),
        *badge(read_color(color), read_color(text_color)),
        state != "fresh",
        age,
    )


def _call(feed: Feed, passtime: Passtime, outdated: frozenset[str]) -> Call:
    if passtime.is_departure:
        planned, reported = passtime.target_departure, passtime.expected_departure
    else:
        planned, reported = passtime.target_arrival, passtime.expected_arrival
    expected = reported if reported is not None else passtime.expected
    state = row_state(passtime.trip_stop_status, planned, reported, reliability(passtime, outdated))
    point = feed.timetable.timing_point(passtime.timing_point_code)
    return Call(
        passtime.timing_point_code,
        "" if point is None else place(point.name, point.town)[0],
        expected if planned is None else planned,
        expected,
        state or "passed",
        platform(passtime.side_code),
    )
