"""Compiles a GTFS file in a process of its own: python -m govi_server.planning.compiler SOURCE PREVIOUS TARGET ...

It would take the event loop's process half a minute, in which another thread would hold the interpreter as well.
Writes its result as JSON to standard output.
"""

import os
import resource
import sys
from contextlib import suppress
from datetime import date, timedelta
from pathlib import Path

import msgspec
from msgspec import Struct

from govi_server.planning import layout
from govi_server.planning.builder import Builder
from govi_server.planning.gtfs import Gtfs, InvalidGtfs
from govi_server.planning.planning import Planning
from govi_server.planning.reading import Reading

DAYS_BACK = 2
"""Operating dates before today that are kept: after midnight, yesterday's journeys still run."""

MAX_MEMORY_BYTES = 4 << 30
MAX_SECONDS = 600
"""Memory and processor time of the process; 4 million calls need 0.5 GB and half a minute."""

NICE = 10
"""It runs when the server does not need the processor."""

MIN_SHARE, WARN_SHARE = 0.5, 0.8
"""Of the stops that an operator had. With at most half of them, the operator keeps what it had; with less than the
other share, the log has a warning: the size of the files varies (docs/protocols.md, section 6)."""


class Result(Struct):
    """The result of compiling a file."""

    error: str = ""
    """Why it was refused; "" if it was not."""
    failure: str = ""
    """Why it could not be compiled, though another attempt may succeed: a full disk, for example."""
    n_stops: int = 0
    n_calls: int = 0
    kept: list[str] = []
    """Operators that keep what an earlier file had, since the new one does not have them, or half of their stops."""
    fewer: list[str] = []
    """Operators with notably fewer stops than before."""
    rejected: dict[str, int] = {}
    """The number of rejected rows by reason."""


def compile_file(
    source: Path, name: str, previous: Path | None, target: Path, today: date, max_calls: int, max_names: int
) -> Result:
    """Compile a GTFS file, with the operators that only the previous planning has. Raises InvalidGtfs.

    source: its path; the time of its modification is that of its publication. today: the local date.
    """
    builder = Builder(today - timedelta(DAYS_BACK))
    reading = Reading(Gtfs(source), builder, max_calls, max_names)
    first, last = (n - DAYS_BACK for n in _bounds(reading.days))
    if not first <= 0 <= last:
        raise InvalidGtfs(f"it is for {today + timedelta(first)} to {today + timedelta(last)}, not for {today}")
    result = Result(rejected=dict(reading.rejected))
    known = _known_operators(previous, today)
    for operator, (_, n_stops) in known.items():
        share = len(reading.stops_of.get(operator, ())) / max(n_stops, 1)
        if share <= MIN_SHARE:
            result.kept.append(operator)
        elif share < WARN_SHARE:
            result.fewer.append(operator)
    accepted = reading.stops_of.keys() - result.kept
    if not accepted:
        raise InvalidGtfs(f"it has half or less of the stops of {', '.join(sorted(result.kept))}")
    reading.build(accepted, name)
    for operator in result.kept:
        builder.add_operator(known[operator][0], operator)
    header, columns = builder.columns()
    header.name, header.published = name, source.stat().st_mtime
    layout.write(target, header, columns)
    result.n_stops, result.n_calls = len(columns["stop_key"]), len(columns["call_stop"])
    result.rejected = dict(reading.rejected)
    return result


def _bounds(days: int) -> tuple[int, int]:
    """Return the numbers of the first and last bits. Raises InvalidGtfs without any."""
    if not days:
        raise InvalidGtfs("no trip has calls on a date of the next weeks")
    return (days & -days).bit_length() - 1, days.bit_length() - 1


def _known_operators(previous: Path | None, today: date) -> dict[str, tuple[Planning, int]]:
    """Return the operators of the previous planning that has dates from today on, with their numbers of stops."""
    try:
        planning = None if previous is None else Planning.open(previous)
    except (OSError, layout.BrokenFile):
        return {}
    if planning is None:
        return {}
    shift = max(today.toordinal() - planning.header.first_day, 0)
    lines = ((planning.line(n).operator, planning.trips_of(n)) for n in range(planning.n_lines))
    days = planning.columns["trip_days"]
    current = {operator for operator, trips in lines if any(days[trip] >> shift for trip in trips)}
    operators = planning.header.operators
    return {name: (planning, operators[name].n_stops) for name in operators if name in current}


def _limit(kind: int, value: int) -> None:
    """Set a limit of the process, unless it has a lower one, as from systemd."""
    _, most = resource.getrlimit(kind)
    value = value if most == resource.RLIM_INFINITY else min(value, most)
    resource.setrlimit(kind, (value, value))


def main(arguments: list[str]) -> None:
    """Compile a file. arguments: its path, its name, previous planning ("" for none), target, today, limits."""
    source, name, previous, target, today, max_calls, max_names = arguments
    with suppress(OSError):  # a sandbox may not permit it
        os.nice(NICE)
    _limit(resource.RLIMIT_AS, MAX_MEMORY_BYTES)
    _limit(resource.RLIMIT_CPU, MAX_SECONDS)
    try:
        result = compile_file(
            Path(source),
            name,
            Path(previous) if previous else None,
            Path(target),
            date.fromisoformat(today),
            int(max_calls),
            int(max_names),
        )
    except InvalidGtfs as error:
        result = Result(str(error))
    except MemoryError:
        result = Result(f"it needs more than {MAX_MEMORY_BYTES >> 30} GB of memory")
    except OSError as error:
        result = Result(failure=f"{error.filename or target}: {error.strerror}")
    sys.stdout.buffer.write(msgspec.json.encode(result))


if __name__ == "__main__":
    main(sys.argv[1:])
