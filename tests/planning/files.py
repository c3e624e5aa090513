"""GTFS files of the documented form, from rows with only the relevant columns."""

import csv
import zipfile
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from io import BytesIO, StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

from twisted.trial.unittest import SynchronousTestCase

from govi_server.planning.compiler import Result, compile_file
from govi_server.planning.planning import Planning

TODAY = date(2026, 1, 1)
"""The operating date of tests.client.NOW."""

Row = Mapping[str, str]

TABLES: Mapping[str, Row] = {
    "stops.txt": {
        "stop_id": "30000001",
        "stop_name": "Lindedorp, Brug",
        "stop_lat": "52.1551744",
        "stop_lon": "5.3872038",
        "location_type": "",
        "parent_station": "",
    },
    "routes.txt": {
        "route_id": "134841",
        "agency_id": "LIN",
        "route_short_name": "4",
        "route_long_name": "Lindedorp - Station",
        "route_type": "3",
        "route_color": "e00713",
        "route_text_color": "ffffff",
    },
    "calendar_dates.txt": {"service_id": "1", "date": "20260101", "exception_type": "1"},
    "trips.txt": {
        "route_id": "134841",
        "service_id": "1",
        "trip_id": "LIN|L004|77|1001|0",
        "trip_headsign": "Lindedorp via Brug",
        "direction_id": "0",
    },
    "stop_times.txt": {
        "trip_id": "LIN|L004|77|1001|0",
        "stop_sequence": "0",
        "stop_id": "30000001",
        "arrival_time": "01:30:00",
        "departure_time": "01:30:00",
    },
}
"""A complete row of each table."""


def temporary_directory(test: SynchronousTestCase) -> Path:
    """Return a directory that is removed at the end of a test."""
    directory = TemporaryDirectory()
    test.addCleanup(directory.cleanup)
    return Path(directory.name)


def call(trip: str, stop: str, time: str, n: int = 0, departs: str = "") -> Row:
    """Return a row of stop_times.txt. departs: its departure, unless it is the arrival."""
    times = {"arrival_time": time, "departure_time": departs or time}
    return {"trip_id": trip, "stop_id": stop, "stop_sequence": str(n), **times}


def dates(*days: date, service: str = "1") -> list[Row]:
    """Return rows of calendar_dates.txt."""
    return [{"service_id": service, "date": f"{day:%Y%m%d}"} for day in days]


def tables(**rows: Sequence[Row]) -> dict[str, str]:
    """Return the content of each table. rows: of stops, routes, trips, ...; by default one complete row."""
    contents = {}
    for name, complete in TABLES.items():
        text = StringIO()
        writer = csv.DictWriter(text, list(complete))
        writer.writeheader()
        writer.writerows({**complete, **row} for row in rows.get(name.removesuffix(".txt"), ({},)))
        contents[name] = text.getvalue()
    return contents


def zipped(contents: Mapping[str, str | bytes]) -> bytes:
    """Return a zip file."""
    file = BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return file.getvalue()


def compiled(
    directory: Path,
    contents: Mapping[str, str | bytes],
    previous: Path | None = None,
    name: str = "gtfs-kv7-20260101.zip",
    today: date = TODAY,
) -> tuple[Result, Path]:
    """Compile tables; return the result and the planning. Raises InvalidGtfs."""
    source, target = directory / name, directory / f"{name}.planning"
    source.write_bytes(zipped(contents))
    return compile_file(source, name, previous, target, today, 1000, 1000), target


def planning(directory: Path, **rows: Sequence[Row]) -> Planning:
    """Return the planning of rows; see tables()."""
    return Planning.open(compiled(directory, tables(**rows))[1])


def week(first: date = TODAY) -> list[Row]:
    """Return the dates of a week."""
    return dates(*(first + timedelta(n) for n in range(7)))
