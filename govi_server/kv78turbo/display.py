"""Displays of the live feed's departures, with names from KV7."""

from collections.abc import Generator, Iterable

from govi_server.departures.colors import read_color
from govi_server.departures.display import (
    DisplayRow,
    Reliability,
    StopDisplay,
    badge,
    clean,
    place,
    platform,
    row_state,
    stop_state,
)
from govi_server.departures.fragments import STEP_PARTS
from govi_server.departures.similar_codes import MAX_SIMILAR, similar_codes
from govi_server.kv78turbo.feed import Feed
from govi_server.kv78turbo.freshness import SERVABLE, reliability
from govi_server.kv78turbo.joined_stop import JoinedPasstime
from govi_server.kv78turbo.passtime import Passtime
from govi_server.kv78turbo.stop_departures import StopDepartures


def stop_display(
    feed: Feed, departures: StopDepartures, selected: Iterable[JoinedPasstime | None]
) -> Generator[None, None, StopDisplay]:
    """Return the display of a stop, in steps. selected: the passtimes to show; None for a step without one."""
    freshness, age = feed.freshness(departures)
    point = feed.timetable.timing_point(departures.code)
    name, town = place(point.name, point.town) if point is not None else ("", "")
    if freshness not in SERVABLE:
        if freshness == "unknown":
            yield  # a list may have a thousand such codes
            return StopDisplay(departures.code, "unknown", similar=similar_stops(feed, departures.code))
        awaits_data = freshness == "down" and not feed.has_live_data
        return StopDisplay(departures.code, "down", name=name, town=town, awaits_data=awaits_data)
    outdated = feed.outdated_operators(departures)
    rows: list[DisplayRow] = []
    live: list[Passtime] = []
    has_current = False
    for n, entry in enumerate(selected, 1):
        if entry is None:
            yield
            continue
        passtime = entry.passtime
        reliable = reliability(passtime, outdated) if outdated else passtime.reliability
        stored = entry.row
        if stored is None or stored[0] != reliable:
            stored = entry.row = reliable, _row(feed, entry, reliable)
            yield
        elif n % STEP_PARTS == 0:
            yield
        row = stored[1]
        if row is not None:
            rows.append(row)
            if not has_current and row.state != "planned":
                live.append(passtime)
                has_current = passtime.reliability == "current"
    texts = (clean(dict(message.fields).get("MessageContent")) for message in departures.messages)
    is_stale = freshness == "stale"
    if live and not has_current:  # none is repeated any more
        is_stale = True
        now = feed.clock.seconds()
        age = max(age, *(now - (passtime.last_heard or now) for passtime in live))
    has_live_data = feed.age is not None or bool(departures.realtime_operators)
    return StopDisplay(
        departures.code,
        stop_state(rows, is_stale),
        tuple(rows),
        name,
        town,
        tuple(dict.fromkeys(text for text in texts if text)),
        feed.clock.seconds() - age if is_stale and has_live_data else None,
        age,
    )


def similar_stops(feed: Feed, code: str) -> tuple[str, ...]:
    """Return codes that may be meant by an unknown one, with their names."""
    gtfs = feed.timetable.gtfs
    neighbours = [] if gtfs is None else gtfs.planning.neighbours(code, MAX_SIMILAR)
    points = {
        other: feed.timetable.timing_point(other) for other in similar_codes(code, feed.is_known_stop, neighbours)
    }
    return tuple(
        other if point is None else f"{other} {clean(point.name)}".rstrip() for other, point in points.items()
    )


def _row(feed: Feed, entry: JoinedPasstime, reliable: Reliability) -> DisplayRow | None:
    """Return the row of a passtime; None if it has departed, or only arrives."""
    passtime = entry.passtime
    planned, reported = passtime.target_departure, passtime.expected_departure
    expected = reported if reported is not None else passtime.expected
    state = row_state(passtime.trip_stop_status, planned, reported, reliable)
    if state is None or not passtime.is_departure:
        return None
    timetable = feed.timetable
    line = timetable.line(passtime.data_owner_code, passtime.line_planning_number)
    color, text_color = (line.color, line.text_color) if line is not None else (None, None)
    return DisplayRow(
        clean(timetable.public_number(passtime)),
        clean(timetable.destination(passtime)),
        expected if planned is None else planned,
        expected,
        state,
        platform(passtime.side_code),
        *badge(read_color(color), read_color(text_color)),
        clean(dict(passtime.extra).get("MessageContent")),
        timetable.mode(passtime.data_owner_code, passtime.line_planning_number),
        passtime.line_direction,
        passtime.data_owner_code,
        journey=passtime.journey,
        provenance=passtime.provenance,
        fragments=entry.fragments,
    )
