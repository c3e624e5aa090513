"""Measures compiling and looking up a GTFS file of national size: 60,000 stops, 4 million stop times.

    python bench/gtfs.py [--stops 60000] [--calls 4000000]

Prints the processor time and the memory of the compiling process, the size of the compiled file, and the processor
time of opening it and of looking up the calls of random stops within two hours.
"""

import argparse
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from datetime import date, timedelta
from io import TextIOWrapper
from pathlib import Path

from govi_server.departures.times import write_time
from govi_server.planning.planning import Planning

OPERATORS, STOPS_PER_LINE, LEVELS = 10, 40, 5
FIRST_CODE = 40_000_000


def write_national_gtfs(path: Path, n_stops: int, n_calls: int, today: date) -> None:
    """Write a GTFS file of the documented form (docs/protocols.md, section 6): lines of 40 stops, five levels."""
    n_lines = n_stops // STOPS_PER_LINE
    n_trips = max(n_calls // (n_lines * STOPS_PER_LINE), 1)

    def services() -> Iterator[str]:
        for operator in range(OPERATORS):
            for n in range(-1, 30):
                yield f"{operator}-{n % LEVELS},{today + timedelta(n):%Y%m%d},1"

    def trips() -> Iterator[tuple[int, int, str]]:
        for line in range(n_lines):
            for trip in range(n_trips):
                level = trip % LEVELS
                yield line, trip, f"OP{line % OPERATORS}|F{line:04}|{685000 + level}|{7001 + trip}|{1 + trip % 2}"

    def stop_times() -> Iterator[str]:
        times = [write_time(seconds) for seconds in range(30 * 3600)]
        for line, trip, trip_id in trips():
            start = 5 * 3600 + trip * 68400 // n_trips + line % 60 * 60
            first = FIRST_CODE + line * STOPS_PER_LINE
            for n in range(STOPS_PER_LINE):
                time_of = times[start + n * 90]
                yield f"{trip_id},{first + (n if trip % 2 else STOPS_PER_LINE - n - 1)},{n},{time_of},{time_of}"

    tables = {
        "stops.txt": (
            "stop_id,stop_code,stop_name,stop_lat,stop_lon",
            (
                f'{FIRST_CODE + n},{FIRST_CODE + n},"Lindedorp {n // 400}, Halte {n}",'
                f"{51.3 + n % 300 / 150},{4.2 + n // 300 / 100}"
                for n in range(n_lines * STOPS_PER_LINE)
            ),
        ),
        "routes.txt": (
            "route_id,agency_id,route_short_name,route_long_name,route_type,route_color,route_text_color",
            (f"{line},OP{line % OPERATORS},{line},Lijn {line},3,e00713,ffffff" for line in range(n_lines)),
        ),
        "calendar_dates.txt": ("service_id,date,exception_type", services()),
        "trips.txt": (
            "route_id,service_id,trip_id,trip_headsign,direction_id",
            (
                f"{line},{line % OPERATORS}-{trip % LEVELS},{trip_id},Lindedorp {line},{trip % 2}"
                for line, trip, trip_id in trips()
            ),
        ),
        "stop_times.txt": ("trip_id,stop_id,stop_sequence,arrival_time,departure_time", stop_times()),
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, (labels, rows) in tables.items():
            with archive.open(name, "w") as file, TextIOWrapper(file, "utf-8") as text:
                text.write(f"{labels}\n")
                text.writelines(f"{row}\n" for row in rows)


def main() -> None:
    """Compile and look up."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--stops", type=int, default=60_000, help="number of stops")
    parser.add_argument("--calls", type=int, default=4_000_000, help="number of stop times")
    options = parser.parse_args()
    today = date.today()
    with tempfile.TemporaryDirectory() as directory:
        source, target = Path(directory) / "gtfs-kv7-national.zip", Path(directory) / "planning"
        write_national_gtfs(source, options.stops, options.calls, today)
        print(f"file: {source.stat().st_size / 1e6:.1f} MB")
        command = [sys.executable, "-m", "govi_server.planning.compiler", str(source), source.name, "", str(target)]
        result = subprocess.run([*command, str(today), "20000000", "500000"], check=True, capture_output=True)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        print(f"compiled: {used.ru_utime + used.ru_stime:.1f} s of processor time, {used.ru_maxrss / 1e3:.0f} MB")
        print(result.stdout.decode())
        began = time.process_time()
        planning = Planning.open(target)
        seconds = time.process_time() - began
        print(f"opened: {planning.size / 1e6:.0f} MB in {seconds * 1000:.1f} ms")
        codes = random.Random(1).sample(list(planning.codes()), 1000)
        durations, n_found, n_examined = [], 0, 0
        for code in codes:
            began = time.process_time()
            calls = list(planning.calls(code, 12 * 3600, 14 * 3600, today))
            durations.append(time.process_time() - began)
            n_examined += len(calls)
            n_found += sum(call is not None for call in calls)
        print(
            f"calls of a stop within two hours: median {statistics.median(durations) * 1e6:.0f} us, "
            f"{n_found / len(codes):.1f} of {n_examined / len(codes):.1f} examined"
        )


if __name__ == "__main__":
    main()
