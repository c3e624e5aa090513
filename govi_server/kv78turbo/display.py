"""Signs of the live feed: its boards, with the names of KV7, as a traveller is told them."""

from govi_server.departures.colors import read_color
from govi_server.departures.display import (
    DisplayRow,
    StopDisplay,
    badge,
    clean,
    place,
    platform,
    row_state,
    stop_state,
)
from govi_server.kv78turbo.feed import Feed
from govi_server.kv78turbo.freshness import SERVABLE
from govi_server.kv78turbo.passtime import Passtime
from govi_server.kv78turbo.stop_departures import StopDepartures


def stop_display(feed: Feed, board: StopDepartures, passes: list[Passtime]) -> StopDisplay:
    """Make the sign of a board of the feed. passes: those of it that are wanted."""
    condition, age = feed.freshness(board)
    point = feed.timetable.timing_points.get(board.code)
    name, town = place(point.name, point.town) if point is not None else ("", "")
    if condition not in SERVABLE:
        return StopDisplay(board.code, "unknown" if condition == "unknown" else "down", name=name, town=town)
    rows = tuple(row for a_pass in passes if a_pass.is_departure and (row := _row(feed, a_pass)) is not None)
    said = (clean(dict(message.fields).get("MessageContent")) for message in board.messages)
    stale = condition == "stale"
    return StopDisplay(
        board.code,
        stop_state(rows, stale),
        rows,
        name,
        town,
        tuple(dict.fromkeys(text for text in said if text)),
        feed.clock.seconds() - age if stale else None,
        age,
    )


def _row(feed: Feed, a_pass: Passtime) -> DisplayRow | None:
    planned, expected = a_pass.target_departure, a_pass.expected_departure
    best = expected if expected is not None else a_pass.expected
    silent = feed.operator_freshness(a_pass.data_owner_code)[0] != "fresh"
    state = row_state(a_pass.trip_stop_status, planned, expected, silent)
    if state is None:
        return None
    timetable = feed.timetable
    line = timetable.lines.get((a_pass.data_owner_code, a_pass.line_planning_number))
    color, text_color = (line.color, line.text_color) if line is not None else (None, None)
    note = next((text for label, text in a_pass.remarks if label == "MessageContent"), "")
    return DisplayRow(
        clean(timetable.public_number(a_pass)),
        clean(timetable.destination(a_pass)),
        best if planned is None else planned,
        best,
        state,
        platform(a_pass.side_code),
        *badge(read_color(color), read_color(text_color)),
        clean(note),
    )
