"""Tests of reading, checking and compiling GTFS files, and of the look-ups in what was compiled."""

import contextlib
import random
import resource
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from datetime import date, timedelta
from io import BytesIO
from pathlib import Path
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from govi_server.departures.timing_point import TimingPoint
from govi_server.planning import gtfs, layout
from govi_server.planning.gtfs import Gtfs, InvalidGtfs
from govi_server.planning.planning import PlannedLine, Planning, StopUsage, transport_type
from tests.planning.files import (
    TODAY,
    Row,
    call,
    compiled,
    dates,
    planning,
    tables,
    temporary_directory,
    week,
    zipped,
)

TRIP = "LIN|L004|77|1001|0"
STOPS: list[Row] = [
    {"stop_id": "30000001", "parent_station": "area:1"},
    {"stop_id": "30000002", "stop_name": "Station"},
    {"stop_id": "area:1", "location_type": "1", "stop_name": "Lindedorp, Brug"},
]
CALLS = [call(TRIP, "30000001", "23:58:00", 3, "23:59:30"), call(TRIP, "30000002", "24:10:00", 7)]


def points(file: Planning) -> list[TimingPoint]:
    """Return all stops."""
    return [point for code in file.codes() if (point := file.timing_point(code)) is not None]


class CompilerTests(SynchronousTestCase):
    """compile_file() and Planning."""

    def setUp(self) -> None:
        self.directory = temporary_directory(self)

    def refusal(self, contents: Mapping[str, str | bytes], previous: Path | None = None) -> str:
        """Return why a file is refused."""
        return str(self.assertRaises(InvalidGtfs, compiled, self.directory, contents, previous))

    def test_stops(self) -> None:
        """A stop has its name, town, area and position, and what serves it."""
        file = planning(self.directory, stops=STOPS, stop_times=CALLS, calendar_dates=week())
        point = file.timing_point("30000001")
        assert point is not None
        self.assertEqual((point.name, point.town, point.stop_area), ("Lindedorp, Brug", "Lindedorp", "area:1"))
        self.assertEqual((point.x, point.y), (155_000, 463_000))
        self.assertEqual((list(file.areas()), file.area_name("area:1")), (["area:1"], "Lindedorp, Brug"))
        self.assertEqual(file.usage("30000001"), StopUsage(("BUS",), 7))
        self.assertEqual(file.usage("30000002"), StopUsage(("BUS",), 0))
        self.assertEqual(list(file.codes()), ["30000001", "30000002"])
        for code in ("30000003", "", "x", "²", "area:1", "0030000001", "9" * 40):
            self.assertNotIn(code, file)
            self.assertIsNone(file.timing_point(code))
            self.assertEqual(file.usage(code).n_departures, 0)

    def test_leading_zeros(self) -> None:
        """Leading zeros of a TimingPointCode are significant; stop_code is one if stop_id is not."""
        rows = ("031102,,A,,", "31102,,B,x,y", "NL:7,0,C,1e999,0", "NL:8,,D,0,0")
        stops = "\n".join(("stop_id,stop_code,stop_name,stop_lat,stop_lon", *rows))
        result, path = compiled(
            self.directory, {**tables(), "stops.txt": stops, "stop_times.txt": _calls("031102", "NL:7")}
        )
        file = Planning.open(path)
        self.assertEqual([point.name for point in points(file)], ["C", "B", "A"])
        self.assertEqual(list(file.codes()), ["0", "31102", "031102"])
        self.assertEqual(result.rejected, {"stop without a TimingPointCode": 1})
        self.assertFalse(any(point.has_position for point in points(file)))

    def test_neighbours(self) -> None:
        """The nearest codes of as many digits are neighbours."""
        stops = [{"stop_id": code} for code in ("9", "031102", "31100", "31101", "31105", "31109", "311000")]
        file = planning(self.directory, stops=stops, stop_times=[call(TRIP, "9", "10:00:00")])
        self.assertEqual(file.neighbours("31104", 3), ["31105", "31101", "31100"])
        self.assertEqual(file.neighbours("99999", 3), ["31109", "31105", "31101"])

    def test_lines(self) -> None:
        """A line has the names and colours of its route."""
        file = planning(self.directory)
        line = PlannedLine("LIN", "L004", "4", "Lindedorp - Station", 3, "e00713", "ffffff")
        self.assertEqual(file.find_line("LIN", "L004"), line)
        self.assertIsNone(file.find_line("LIN", "L005"))
        self.assertEqual(file.line_stops("LIN", "L004"), ["30000001"])
        self.assertEqual((file.n_lines_on("LIN", TODAY), file.n_lines_on("LIN", TODAY + timedelta(1))), (1, 0))
        self.assertEqual(file.n_lines_on("BUS", TODAY), 0)

    def test_calls(self) -> None:
        """Calls of an operating date are found by stop and time, whose hours continue after midnight."""
        file = planning(self.directory, stops=STOPS, stop_times=list(reversed(CALLS)))
        (first,) = file.calls("30000001", 0, 90_000, TODAY)
        (last,) = file.calls("30000002", 87_000, 87_000, TODAY)
        assert first is not None
        assert last is not None
        self.assertEqual((first.order, first.arrival, first.departure, first.is_last), (1, 86_280, 86_370, False))
        self.assertEqual((last.order, last.arrival, last.is_last), (2, 87_000, True))
        self.assertEqual(list(file.calls("30000001", 0, 86_369, TODAY)), [])
        self.assertEqual(list(file.calls("30000001", 0, 90_000, TODAY + timedelta(1))), [None])
        self.assertEqual(list(file.calls("30000001", 0, 90_000, TODAY + timedelta(400))), [])
        self.assertEqual(file.codes_of(first.trip), ["30000001", "30000002"])
        self.assertEqual(list(file.find_trips("LIN", "L004", "1001")), [first.trip])
        self.assertEqual(list(file.find_trips("LIN", "L004", "1002")), [])
        self.assertEqual(file.trip(first.trip).headsign, "Lindedorp via Brug")
        self.assertTrue(file.is_valid(first.trip, TODAY))

    def test_fifth_part(self) -> None:
        """The fifth part of trip_id is the FortifyOrderNumber only of operators of which it is 0 for some trips."""
        trips = ["LIN|L004|77|1|0", "LIN|L004|77|1|1", "BUS|L1|77|1|2", "BUS|L1|77|2|1"]
        rows = [{"trip_id": trip} for trip in trips]
        file = planning(self.directory, trips=rows, stop_times=[call(trip, "30000001", "9:00:00") for trip in trips])
        fortify = {(trip.operator, trip.journey, trip.fortify) for trip in map(file.trip, range(file.n_trips))}
        self.assertEqual(fortify, {("LIN", "1", "0"), ("LIN", "1", "1"), ("BUS", "1", "0"), ("BUS", "2", "0")})

    def test_calendar(self) -> None:
        """Dates are those of calendar.txt, with the exceptions of calendar_dates.txt."""
        calendar = (
            "service_id,monday,tuesday,wednesday,thursday,friday,saturday,sunday,start_date,end_date\n"
            "1,0,0,0,1,1,0,0,20260101,20260115\n2,1,1,1,1,1,1,1,x,20260115\n"
        )
        exceptions = [*dates(TODAY + timedelta(3)), {"date": "20260102", "exception_type": "2"}, {"date": "20261301"}]
        contents = {**tables(calendar_dates=exceptions), "calendar.txt": calendar}
        result, path = compiled(self.directory, contents)
        days = [n for n in range(-2, 20) if Planning.open(path).is_valid(0, TODAY + timedelta(n))]
        self.assertEqual(days, [0, 3, 7, 8, 14])
        self.assertEqual(result.rejected, {"invalid date": 2})

    def test_rejected_rows(self) -> None:
        """What is not of the documented form is rejected and counted, and nothing else."""
        trips: list[Row] = [
            {}, {"trip_id": "LIN|L004|77|1001"}, {"trip_id": "LIN||77|1|0"}, {"trip_id": "a b|L|7|1|0"},
            {"trip_id": "LIN|L004|77|1002|0", "route_id": "x"}, {"trip_id": "LIN|L004|77|1003|0"},
        ]  # fmt: skip
        calls = [
            call(TRIP, "30000001", "01:00:00", 1), call(TRIP, "x", "01:00:00", 2), call(TRIP, "30000001", "48:00:00"),
            call(TRIP, "30000001", "1:00", 3), {**call(TRIP, "30000001", "01:00:00"), "stop_sequence": "²"},
            {"trip_id": "unknown"}, call(TRIP, "30000002", "", 9, "01:10:00"),
            call("LIN|L004|77|1003|0", "x", "02:00:00"),
        ]  # fmt: skip
        stops: list[Row] = [{}, {"stop_id": "30000002"}]
        result, path = compiled(self.directory, tables(stops=stops, trips=trips, stop_times=calls))
        self.assertEqual(
            result.rejected,
            {
                "trip_id of another form": 3, "trip of an unknown route": 1, "trip without calls": 1,
                "call without a stop, time or sequence": 5,
            },
        )  # fmt: skip
        self.assertEqual((result.n_calls, Planning.open(path).n_trips), (2, 1))

    def test_scattered_calls(self) -> None:
        """The calls of a trip may be anywhere in stop_times.txt, and in any order."""
        trips = [f"LIN|L004|77|{n}|0" for n in range(5)]
        stops = [{"stop_id": str(n)} for n in range(1, 8)]
        calls = [call(trip, str(n), f"{10 + m:02}:{n:02}:00", n) for m, trip in enumerate(trips) for n in range(1, 8)]
        random.Random(1).shuffle(calls)
        file = planning(self.directory, stops=stops, trips=[{"trip_id": trip} for trip in trips], stop_times=calls)
        for number in range(5):
            self.assertEqual(file.codes_of(number), [str(n) for n in range(1, 8)])
            hour = 10 + int(file.trip(number).journey)
            self.assertEqual(
                [c.departure for c in file.calls_of(number)], [hour * 3600 + n * 60 for n in range(1, 8)]
            )

    def test_quotes_and_line_ends(self) -> None:
        """Fields may be quoted; columns are in any order; there may be a BOM, CRLF and a last row that is short."""
        stops = '\ufeffx,stop_lon,stop_lat,"stop_name",stop_id\r\n1,5,52,"A ""b"", c",30000001\r\n,,,"D\nE",30000002'
        _, path = compiled(self.directory, {**tables(), "stops.txt": stops})
        names = [point.name for point in points(Planning.open(path))]
        self.assertEqual(names[0], 'A "b", c')
        self.assertEqual(len(names), 2)

    def test_directory(self) -> None:
        """An unpacked file is read as well."""
        for name, content in tables().items():
            (self.directory / name).write_text(content)
        labels = ("stop_id",)
        self.assertEqual(list(Gtfs(self.directory).rows("stops.txt", labels, ("absent",))), [("30000001", "")])

    def test_refused_files(self) -> None:
        """A file that is damaged, incomplete or not of these days is refused with a reason."""
        complete = tables()
        tomorrow = tables(calendar_dates=dates(TODAY + timedelta(1), TODAY + timedelta(2)))
        yesterday = tables(calendar_dates=dates(TODAY - timedelta(2), TODAY - timedelta(1)))
        cases: tuple[tuple[Mapping[str, str | bytes], str], ...] = (
            ({name: text for name, text in complete.items() if name != "trips.txt"}, "trips.txt is missing"),
            ({**complete, "stop_times.txt": "trip_id,stop_id\n"}, "stop_times.txt: column stop_sequence is missing"),
            ({**complete, "stops.txt": b"\xff\xfe"}, "stops.txt: not UTF-8"),
            ({**complete, "stops.txt": ""}, "stops.txt: column stop_id is missing"),
            ({**complete, "stops.txt": "x" * 70_000}, "stops.txt: line longer than 65536 bytes"),
            ({**complete, "stops.txt": "stop_id,stop_name,stop_lat,stop_lon\nx,,,\n"}, "stops.txt: no stop has a "),
            (tables(calendar_dates=[]), "no trip has calls on a date of the next weeks"),
            (tables(stop_times=[]), "no trip has calls on a date of the next weeks"),
            (tomorrow, "it is for 2026-01-02 to 2026-01-03, not for 2026-01-01"),
            (yesterday, "it is for 2025-12-30 to 2025-12-31, not for 2026-01-01"),
        )
        for contents, reason in cases:
            self.assertIn(reason, self.refusal(contents))

    def test_lower_limits_of_its_environment(self) -> None:
        """The process runs under limits that are lower than its own."""
        limit = resource.RLIMIT_CPU, (50, 50)
        command = [
            sys.executable,
            "-m",
            "govi_server.planning.compiler",
            "/dev/null",
            "x",
            "",
            "y",
            "2026-01-01",
            "9",
            "9",
        ]
        result = subprocess.run(command, preexec_fn=lambda: resource.setrlimit(*limit), capture_output=True)
        self.assertIn(b"not a zip file", result.stdout, result.stderr)

    def test_damaged_zip(self) -> None:
        """A truncated or changed zip is refused, also if only its content is damaged, and other packings are."""
        content = zipped(tables())
        middle = content.index(b"stop_times.txt") + 40
        damaged = content[:middle] + bytes(20) + content[middle + 20 :]
        other = BytesIO()
        with zipfile.ZipFile(other, "w", zipfile.ZIP_BZIP2) as archive:
            archive.writestr("stops.txt", "stop_id")
        for data in (b"", b"<html>", content[:-30], content[: len(content) // 2], damaged, other.getvalue()):
            path = self.directory / "x.zip"
            path.write_bytes(data)
            with self.assertRaises(InvalidGtfs):
                list(Gtfs(path).rows("stops.txt", ("stop_id",)))
                list(Gtfs(path).rows("stop_times.txt", ("stop_id",)))

    def test_bounds(self) -> None:
        """A file that unpacks to more than its tables may have, in bytes or rows, is refused."""
        self.patch(gtfs, "MAX_TABLE_BYTES", 1000)
        self.assertEqual(self.refusal({**tables(), "routes.txt": "\n" * 1001}), "routes.txt: larger than 1000 bytes")
        (self.directory / "stops.txt").write_bytes(b"stop_id" + b"\n" * 1001)  # a directory states no sizes
        rows = Gtfs(self.directory).rows("stops.txt", ("stop_id",))
        self.assertEqual(str(self.assertRaises(InvalidGtfs, list, rows)), "stops.txt: larger than 1000 bytes")
        self.patch(gtfs, "MAX_TABLE_BYTES", 1 << 20)
        many = tables(routes=[{}] * 1001)
        self.assertEqual(self.refusal(many), "routes.txt: more than 1000 rows")
        many = tables(stop_times=[call(TRIP, "30000001", "01:00:00", n) for n in range(1001)])
        self.assertEqual(self.refusal(many), "stop_times.txt: more than 1000 calls")

    @settings(max_examples=100, deadline=None)
    @given(
        st.binary(max_size=200), st.sampled_from(("stops.txt", "trips.txt", "stop_times.txt", "calendar_dates.txt"))
    )
    def test_any_content(self, content: bytes, table: str) -> None:
        """Any bytes in a table are read or refused."""
        complete = tables()
        first, _, _ = complete[table].partition("\n")
        with mock.patch("govi_server.planning.compiler.layout.write"), contextlib.suppress(InvalidGtfs):
            compiled(self.directory, {**complete, table: f"{first}\n".encode() + content})


def _calls(*stops: str) -> str:
    return "trip_id,stop_id,stop_sequence,arrival_time,departure_time\n" + "".join(
        f"{TRIP},{stop},{n},10:00:00,10:00:00\n" for n, stop in enumerate(stops)
    )


class MergeTests(SynchronousTestCase):
    """What a smaller file does not replace."""

    def setUp(self) -> None:
        self.directory = temporary_directory(self)
        _, self.full = compiled(self.directory, self.contents({"LIN": 10, "BUS": 4}), name="gtfs-kv7-20260101.zip")

    @staticmethod
    def contents(operators: Mapping[str, int], first: date = TODAY) -> dict[str, str]:
        """Return a file with operators, each with a line that calls at a number of stops, for a week."""
        stops = [{"stop_id": f"{len(name)}{n}", "stop_name": name} for name, m in operators.items() for n in range(m)]
        trips = [{"trip_id": f"{name}|L|{first:%d}|1|0"} for name in operators]
        calls = [
            call(f"{name}|L|{first:%d}|1|0", f"{len(name)}{n}", "10:00:00", n)
            for name, m in operators.items()
            for n in range(m)
        ]
        return tables(stops=stops, trips=trips, stop_times=calls, calendar_dates=week(first))

    def compiled(self, operators: Mapping[str, int], day: date) -> tuple[list[str], list[str], Planning]:
        contents = self.contents(operators, day)
        result, path = compiled(self.directory, contents, self.full, f"gtfs-kv7-{day:%Y%m%d}.zip", day)
        return result.kept, result.fewer, Planning.open(path)

    def test_operator_that_is_missing_stays(self) -> None:
        """An operator that a file does not have keeps the earlier planning, with its stops and dates."""
        kept, fewer, file = self.compiled({"LIN": 10}, TODAY + timedelta(1))
        self.assertEqual((kept, fewer), (["BUS"], []))
        self.assertEqual(
            {name: operator.source for name, operator in file.header.operators.items()},
            {"LIN": "gtfs-kv7-20260102.zip", "BUS": "gtfs-kv7-20260101.zip"},
        )
        (trip,) = file.find_trips("BUS", "L", "1")
        self.assertEqual(file.level_of(trip), "01")
        days = [n for n in range(12) if file.is_valid(trip, TODAY + timedelta(n))]
        self.assertEqual(days, [*range(7)])
        self.assertEqual(len(file.codes_of(trip)), 4)
        self.assertEqual(file.timing_point("33"), Planning.open(self.full).timing_point("33"))

    def test_half_the_stops(self) -> None:
        """An operator with half of its stops keeps the earlier planning; with less than 80 %, it is reported."""
        kept, fewer, file = self.compiled({"LIN": 5, "BUS": 3}, TODAY)
        self.assertEqual((kept, fewer), (["LIN"], ["BUS"]))
        self.assertEqual(
            {name: operator.n_stops for name, operator in file.header.operators.items()}, {"LIN": 10, "BUS": 3}
        )

    def test_file_with_half_of_all(self) -> None:
        """A file with half of the stops of each of its operators is refused."""
        error = self.assertRaises(InvalidGtfs, self.compiled, {"LIN": 5, "BUS": 1}, TODAY)
        self.assertEqual(str(error), "it has half or less of the stops of BUS, LIN")

    def test_planning_without_further_dates_is_dropped(self) -> None:
        """What an earlier file had of an operator is kept for as long as it has dates."""
        kept, _, file = self.compiled({"LIN": 5}, TODAY + timedelta(7))
        self.assertEqual((kept, list(file.header.operators)), ([], ["LIN"]))

    def test_damaged_previous_planning(self) -> None:
        """A previous planning that cannot be read is ignored."""
        self.full.write_bytes(self.full.read_bytes()[:-100])
        kept, _, _ = self.compiled({"LIN": 1}, TODAY)
        self.assertEqual(kept, [])


class LayoutTests(SynchronousTestCase):
    """The file of compiled planning."""

    def test_incomplete_file(self) -> None:
        """A file that is cut off anywhere, or of another version, is not used."""
        directory = temporary_directory(self)
        _, path = compiled(directory, tables())
        content = path.read_bytes()
        Planning(memoryview(content))
        for size in (*range(0, 200, 7), len(content) // 2, len(content) - 9):
            self.assertRaises(layout.BrokenFile, Planning, memoryview(content[:size]))
        self.assertRaises(layout.BrokenFile, Planning, memoryview(b"govi-planning 1\n" + content[16:]))
        path.write_bytes(b"")
        self.assertRaises(layout.BrokenFile, Planning.open, path)

    def test_transport_types(self) -> None:
        """Route types and extended ones have the TransportTypes of KV7."""
        types = {0: "TRAM", 1: "METRO", 2: "TRAIN", 3: "BUS", 4: "BOAT", 7: None, 11: "BUS", 12: "METRO"}
        types |= {
            106: "TRAIN",
            204: "BUS",
            401: "METRO",
            715: "BUS",
            900: "TRAM",
            1000: "BOAT",
            1200: "BOAT",
            1300: None,
        }
        self.assertEqual({number: transport_type(number) for number in types}, types)
