"""govi-stats: what is counted, and how it is told."""

import gzip
import io
import itertools
import json
import os
import random
import sys
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from datetime import UTC, datetime, timedelta
from math import ceil
from pathlib import Path
from typing import Any, get_args
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from govi_server.runtime.clock import LOCAL_ZONE
from govi_server.statistics import summary
from govi_server.statistics.log import format_line
from govi_server.statistics.records import ConnectionStatistics, Phase, RequestStatistics
from govi_server.statistics.report import Progress, as_json, as_text, plain, run
from govi_server.statistics.summary import (
    ACCURACY,
    LogSummary,
    Phases,
    QuantileSketch,
    lines,
    milliseconds,
    parts,
    read_moment,
    share,
)

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
HIT = {"receive": 50.0, "parse": 0.1, "lookup": 0.2, "render": 0.1, "send": 0.1}


def request(
    path: str | None = "/kv55/1", status: int | None = 200, cache: str = "hit", **phases: float
) -> dict[str, Any]:
    """Make a request as a line has it."""
    return {"method": "GET", "path": path, "status": status, "bytes": 100, "cache": cache, "phases": phases or HIT}


def line(*requests: dict[str, Any], time: str = "2026-11-23T12:30:00.000+00:00", end: str = "client") -> bytes:
    """Make a line of the log, with one request if none is given."""
    about = {"time": time, "client": "192.0.2.0/24", "duration": 5.0, "end": end, "requests": requests or [request()]}
    return json.dumps(about).encode()


def figures(*of: bytes, since: datetime | None = None, until: datetime | None = None) -> LogSummary:
    """Read lines."""
    made = LogSummary(since, until)
    for each in of:
        made.read(each)
    return made


class DistributionTests(SynchronousTestCase):
    """Times in constant memory."""

    @given(st.lists(st.floats(0.001, 1e6), min_size=1, max_size=200), st.sampled_from([0.5, 0.9, 0.99]))
    def test_quantile(self, times: list[float], fraction: float) -> None:
        """A quantile is as near to the true one as is promised, and the longest is exact."""
        distribution = QuantileSketch()
        for time in times:
            distribution.add(time)
        true = sorted(times)[ceil(fraction * len(times)) - 1]
        found = distribution.quantile(fraction)
        assert found is not None
        self.assertLessEqual(abs(found - true), true * ACCURACY * 1.001)
        self.assertLessEqual(found, distribution.longest)
        self.assertEqual((distribution.count, distribution.longest), (len(times), max(times)))

    @given(st.lists(st.floats(-5, 1e5)), st.lists(st.floats(-5, 1e5)))
    def test_merge(self, some: list[float], others: list[float]) -> None:
        """Two that are merged are as one that has counted all; a negative time is nothing."""
        one, two, both = QuantileSketch(), QuantileSketch(), QuantileSketch()
        for time in some:
            one.add(time)
        for time in others:
            two.add(time)
        for time in some + others:
            both.add(max(0.0, time))
        one.merge(two)
        bounds = [0.1, 1.0, 1000.0]
        self.assertEqual(one.within(bounds), both.within(bounds))
        self.assertEqual((one.quantile(0.5), one.longest), (both.quantile(0.5), both.longest))

    def test_within(self) -> None:
        """Times are counted between bounds, nothing and what is over the last included."""
        distribution = QuantileSketch()
        for time in (0.0, 0.5, 5.0, 6.0, 5000.0):
            distribution.add(time)
        self.assertEqual(distribution.within([1.0, 10.0, 100.0]), [2, 2, 0, 1])

    def test_none(self) -> None:
        """No times have no quantile."""
        self.assertIsNone(QuantileSketch().quantile(0.5))


class FiguresTests(SynchronousTestCase):
    """What lines are counted as."""

    def test_phases_of_the_log(self) -> None:
        """The phases are those that the server writes: one that is new there is missed here."""
        self.assertEqual(Phases.__struct_fields__, get_args(Phase))

    def test_line_of_the_server(self) -> None:
        """A line as the server writes it is read."""
        made = RequestStatistics(1e9, "GET", "/kv55/57330430", 200, 4321, "miss")
        made.mark("receive", 1e9 + 1)
        made.mark("wait", 1e9 + 1.25)
        text = format_line({"statistics": ConnectionStatistics("x", "local", 1e9, 1e9 + 2, "client", [made])}, "x")
        assert text is not None
        told = as_json(figures(text.encode()))
        self.assertEqual((told["lines"]["bad"], told["bytes"]), (0, 4321))
        self.assertEqual((told["phases"]["receive"]["max"], told["answers"]["max"]), (1000.0, 250.0))
        self.assertEqual(told["slowest"][0]["stop"], "57330430")

    def test_answer(self) -> None:
        """An answer's time is that of its phases but receive; a request without answer has none."""
        told = as_json(figures(line(request(), request(status=None, cache="miss", wait=9000.0))))
        self.assertEqual((told["requests"], told["answers"]["count"], told["answers"]["max"]), (2, 1, 0.5))
        self.assertEqual(told["phases"]["wait"]["max"], 9000.0)
        self.assertEqual(told["statuses"]["none"]["requests"], 1)

    def test_open(self) -> None:
        """Reports of a connection that goes on are none of their own, but their requests count."""
        told = as_json(figures(line(end="open"), line(end="open"), line(end="server")))
        self.assertEqual((told["connections"], told["requests"]), (1, 3))
        self.assertEqual((told["ends"]["open"], told["ends"]["server"]), (2, 1))

    def test_failed(self) -> None:
        """5xx and 406 are failures, other refusals are not."""
        answered = [request(status=status) for status in (200, 304, 404, 429, 406, 502, 504)]
        told = as_json(figures(line(*answered)))
        self.assertEqual(told["failed"], 3)
        self.assertEqual(told["periods"][0]["statuses"], {"2xx": 1, "3xx": 1, "4xx": 3, "5xx": 2})

    def test_memory(self) -> None:
        """Hit and stale are from memory; what asked no cache is not part of the ratio."""
        asked = [request(cache=cache) for cache in ("hit", "stale", "miss", "joined", "none", "none")]
        self.assertEqual(as_json(figures(line(*asked)))["memory_ratio"], 0.5)
        self.assertIsNone(as_json(figures(line(request(cache="none"))))["memory_ratio"])

    def test_bad(self) -> None:
        """Broken lines and those of other programs are counted and passed over."""
        good = line()
        for bad in (
            good[:-10],
            b"\x00\xff",
            b"2026-11-22T17:29:05+0000 [-] hello",
            b"{}",
            b"[]",
            b"null",
            good.replace(b'"client", "requests"', b'"nobody", "requests"'),
            good.replace(b'"hit"', b'"hits"'),
            good.replace(b"50.0", b'"50"'),
            good.replace(b"50.0", b"1e300"),
            good.replace(b"50.0", b"1e999"),
            good.replace(b": 200", b": 99999"),
            good.replace(b"+00:00", b""),
            good.replace(b"2026", b"1969"),
            good.replace(b"2026", b"9999"),
            good.replace(b"2026-11-23T12:30:00.000+00:00", b"0001-01-01T00:00:00+10:00"),
            b"[" * 100_000,
        ):
            self.assertNotEqual(bad, good)
            read = figures(good, bad, good)
            self.assertEqual((read.bad, read.lines), (1, 2), bad[:200])

    @given(st.binary(max_size=300))
    def test_anything(self, text: bytes) -> None:
        """Nothing that is in a line raises."""
        read = figures(text)
        self.assertEqual(read.bad + read.lines, 1)

    def test_newer(self) -> None:
        """Keys that are not known are passed over, phases among them."""
        text = line().replace(b'"end"', b'"a": {"b": 1}, "end"').replace(b'"parse"', b'"new": 1, "parse"')
        self.assertEqual((figures(text).lines, figures(text).bad), (1, 0))

    def test_times(self) -> None:
        """Since is the first moment that counts, until the first that does not."""
        texts = [line(time=f"2026-11-23T1{hour}:00:00+00:00") for hour in range(5)]
        read = figures(
            *texts, since=datetime(2026, 11, 23, 11, tzinfo=UTC), until=datetime(2026, 11, 23, 13, tzinfo=UTC)
        )
        self.assertEqual((read.lines, read.outside), (2, 3))
        self.assertEqual(as_json(read)["to"], "2026-11-23T13:00:00.000+01:00")

    @settings(max_examples=20, deadline=None)
    @given(st.randoms(use_true_random=False))
    def test_order(self, chance: random.Random) -> None:
        """The order of lines does not matter, also where periods become longer."""
        texts = [
            line(
                request(f"/kv55/{hour % 7}", cache="miss", wait=hour * 1.1),
                request("/guess", 404),
                time=(NOW - timedelta(hours=hour * 5)).isoformat(),
            )
            for hour in range(30)
        ]
        shuffled = chance.sample(texts, len(texts))
        with patch.object(summary, "MOST_PERIODS", 10):
            first, second = as_json(figures(*texts)), as_json(figures(*shuffled))
        self.assertEqual(first, second)
        self.assertEqual(first["width"], "day")

    def test_longer_periods(self) -> None:
        """Too many hours become days, too many days months, too many months years; no request is lost."""
        for hours, width in ((1, "day"), (24, "month"), (24 * 31, "year")):
            with patch.object(summary, "MOST_PERIODS", 10):
                read = figures(
                    *(line(time=(NOW - timedelta(hours=hours * index)).isoformat()) for index in range(11))
                )
            told = as_json(read)
            self.assertEqual(sum(period["requests"] for period in told["periods"]), 11)
            self.assertEqual(told["width"], width)
            self.assertLessEqual(len(told["periods"]), 10)

    def test_summer_time(self) -> None:
        """The Dutch hour that comes twice in October is two hours."""
        read = figures(line(time="2026-10-25T00:30:00+00:00"), line(time="2026-10-25T01:30:00+00:00"))
        begins = [period["begin"] for period in as_json(read)["periods"]]
        self.assertEqual(begins, ["2026-10-25T02:00:00+02:00", "2026-10-25T02:00:00+01:00"])
        self.assertEqual(len(read.periods("day")), 1)

    def test_modules(self) -> None:
        """A first segment that ever gave an answer is a module; guesses are counted together."""
        read = figures(
            line(request("/kv55/1", 504), request("/admin", 404), request(None, 400)), line(request("/kv55/2"))
        )
        told = as_json(read)
        self.assertEqual({name: group["requests"] for name, group in told["modules"].items()}, {"kv55": 2})
        self.assertEqual((told["modules"]["kv55"]["failed"], told["elsewhere"]["requests"]), (1, 2))

    def test_many_guesses(self) -> None:
        """However many guesses there were, a module finds room, and little is kept."""
        with patch.object(summary, "MOST_SEGMENTS", 5):
            read = figures(*(line(request(f"/guess{index}", 404)) for index in range(20)), line(request("/kv55/1")))
        told = as_json(read)
        self.assertEqual((list(told["modules"]), told["elsewhere"]["requests"]), (["kv55"], 20))
        self.assertLessEqual(len(read._segments), 6)

    def test_stops(self) -> None:
        """The slowest stops are those whose answers from the source took longest on average."""
        read = figures(
            line(request("/kv55/1", cache="miss", wait=100.0), request("/kv55/1")),
            line(request("/tpc/2", 504, "joined", wait=300.0), request("/tpc/2", cache="miss", wait=200.0)),
            line(request("/kv55/3", wait=9999.0)),
        )
        slowest = as_json(read)["slowest"]
        self.assertEqual(
            slowest,
            [
                {"stop": "2", "requests": 2, "failed": 1, "timed": 2, "mean": 250.0, "max": 300.0},
                {"stop": "1", "requests": 2, "failed": 0, "timed": 1, "mean": 100.0, "max": 100.0},
            ],
        )

    def test_accident(self) -> None:
        """A stop with few timed answers comes after those with more, however slow they were."""
        often = [request("/kv55/1", cache="miss", wait=100.0)] * 5
        read = figures(line(*often, *[request("/kv55/2", 504, "miss", wait=10_000.0)] * 4))
        self.assertEqual([code for code, _ in read.slowest(9)], ["1", "2"])

    def test_many_stops(self) -> None:
        """Stops beyond what is kept are counted together, and the text says so."""
        with patch.object(summary, "MOST_STOPS", 2):
            read = figures(*(line(request(f"/kv55/{code}", cache="miss", wait=1.0)) for code in (1, 2, 3, 4, 1)))
        self.assertEqual(as_json(read)["stops"], {"distinct": 2, "others": 2})
        self.assertIn("2 requests about stops beyond the first 2", as_text(read))

    def test_parts(self) -> None:
        """A path has a module and perhaps a stop."""
        for path, expected in (
            ("/kv55/57330430", ("kv55", "57330430")),
            ("/tpc/0001", ("tpc", "0001")),
            ("/tpc/1,2/departures", ("tpc", "several")),
            ("/tpc/1/departures?x=/", ("tpc", "1")),
            ("/kv55/12345678901", ("kv55", None)),
            ("/kv55/\u0661", ("kv55", None)),
            ("/arriva/1", ("arriva", "1")),
            ("/kv55/", ("kv55", None)),
            ("/kv55", ("kv55", None)),
            ("/line/1", ("line", None)),
            ("/", ("", None)),
            ("/" + "x" * 99, ("x" * 40, None)),
            ("*", (None, None)),
            (None, (None, None)),
        ):
            self.assertEqual(parts(path), expected, path)


class LinesTests(SynchronousTestCase):
    """How text is cut."""

    @given(st.binary(max_size=60), st.lists(st.integers(0, 60)))
    def test_anywhere(self, text: bytes, cuts: list[int]) -> None:
        """It does not matter how text comes; empty lines are none."""
        marks = [0, *sorted(cuts), len(text)]
        chunks = [text[begin:end] for begin, end in itertools.pairwise(marks)]
        self.assertEqual(list(lines(chunks)), [each for each in text.split(b"\n") if each.strip()])

    def test_long(self) -> None:
        """A line that never ends takes bounded memory, and is one line."""
        with patch.object(summary, "MOST_OF_LINE", 10):
            found = list(lines([b"a\n", *[b"xxxxxx"] * 9, b"x\nb\nc"]))
        self.assertEqual(found, [b"a", b"x" * 10, b"b", b"c"])


class MomentTests(SynchronousTestCase):
    """--since and --until."""

    def test_moments(self) -> None:
        """ISO is Dutch time unless it says otherwise; a date is its midnight; ago is before now."""
        for text, expected in (
            ("2026-11-22", datetime(2026, 11, 21, 23, tzinfo=UTC)),
            ("2026-07-01T12:00", datetime(2026, 7, 1, 10, tzinfo=UTC)),
            ("2026-11-22T12:00:00+00:00", datetime(2026, 11, 22, 12, tzinfo=UTC)),
            ("2026-11-22T12:00:00Z", datetime(2026, 11, 22, 12, tzinfo=UTC)),
            ("2h", NOW - timedelta(hours=2)),
            ("3d", NOW - timedelta(days=3)),
            ("90s", NOW - timedelta(seconds=90)),
        ):
            self.assertEqual(read_moment(text, NOW).timestamp(), expected.timestamp(), text)

    def test_wrong(self) -> None:
        """Anything else is a ValueError."""
        for text in ("", "2x", "-2h", "h", "yesterday", "2026-13-01", "999999w", "\u0662h"):
            self.assertRaises(ValueError, read_moment, text, NOW)


class TextTests(SynchronousTestCase):
    """How figures are told."""

    def test_text(self) -> None:
        """The text has what it should, in ASCII and 80 columns."""
        hours = [
            line(
                request(f"/kv55/{hour}", cache="miss", wait=10_000.0 + hour),
                request("/" + "y" * 50),
                request("/\x1b[31mred\u00e9", 200),
                time=(NOW - timedelta(hours=hour)).isoformat(),
            )
            for hour in range(48)
        ]
        text = as_text(figures(*hours, b"broken"))
        self.assertTrue(text.isascii())
        self.assertNotIn("\x1b", text)
        self.assertLessEqual(max(map(len, text.splitlines())), 80)
        self.assertIn("Bad lines    1 of 49", text)
        self.assertIn("2026-11-24 13:00 CET          3    66.7%        0    9,999    9,999   10,000\n", text)
        self.assertRegex(text, r"\n47 +1 +0 +1 +10,047 +10,047\n")

    def test_many_hours(self) -> None:
        """More than two days are told by day."""
        text = as_text(figures(*(line(time=(NOW - timedelta(hours=hour)).isoformat()) for hour in range(49))))
        self.assertIn("Answers by day", text)
        self.assertRegex(text, r"\nMon 2026-11-23 +24 ")

    def test_numbers(self) -> None:
        """Times have three digits, and no part is told as none or all."""
        self.assertEqual(
            [milliseconds(time) for time in (None, 0.0, 0.0314, 3.14159, 31.4, 314.2, 12345.6)],
            ["-", "0.000", "0.031", "3.14", "31.4", "314", "12,346"],
        )
        told = [
            share(part, whole) for part, whole in ((0, 0), (0, 9), (1, 10**6), (1, 3), (10**6 - 1, 10**6), (9, 9))
        ]
        self.assertEqual(told, ["-", "0.0%", "0.1%", "33.3%", "99.9%", "100.0%"])
        self.assertEqual(plain("x" * 23), "x" * 19 + "...")


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class ProgressTests(SynchronousTestCase):
    """The bar."""

    def test_bar(self) -> None:
        """It shows after a second, at most five times a second, and is taken away at the end."""
        now = [0.0]
        terminal = _Terminal()
        progress = Progress(terminal, 10_000_000, lambda: now[0])
        for moment in (0.5, 0.9, 2.0, 2.1):
            now[0] = moment
            progress.at(2_500_000)
        self.assertEqual(terminal.getvalue(), f"\r[{'#' * 8}{' ' * 22}]  25% of 10 MB, 6 s left\x1b[K")
        progress.clear()
        self.assertTrue(terminal.getvalue().endswith("\r\x1b[K"))

    def test_unknown_total(self) -> None:
        """Of stdin it says how much is read."""
        now = [0.0]
        terminal = _Terminal()
        progress = Progress(terminal, None, lambda: now[0])
        now[0] = 2.0
        progress.at(2_500_000)
        self.assertIn("2 MB read", terminal.getvalue())

    def test_no_terminal(self) -> None:
        """Elsewhere than on a terminal there is none."""
        now = [0.0]
        file = io.StringIO()
        progress = Progress(file, 1, lambda: now[0])
        now[0] = 9.0
        progress.at(1)
        progress.clear()
        self.assertEqual(file.getvalue(), "")


class RunTests(SynchronousTestCase):
    """The command, in this process."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def run_it(self, *arguments: object) -> tuple[int, str, str]:
        """Run it. Returns exit status, stdout and stderr."""
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            status = run([str(each) for each in arguments], NOW)
        return status, out.getvalue(), err.getvalue()

    def write(self, name: str, data: bytes) -> Path:
        """Make a file."""
        path = self.folder / name
        path.write_bytes(data)
        return path

    def test_files(self) -> None:
        """Files may be gzip under any name, of several members, and need no end of line."""
        text = line() + b"\n"
        files = [
            self.write("statistics.log", text * 2 + line()),
            self.write("statistics.log.1", gzip.compress(text) + gzip.compress(text)),
            self.write("other", b""),
        ]
        status, out, err = self.run_it("--json", *files)
        self.assertEqual((status, err, json.loads(out)["requests"]), (0, "", 5))

    def test_unreadable(self) -> None:
        """What cannot be read is named in a line each; the others count, and so does what came before."""
        text = b"".join(line(request(f"/tpc/{random.random()}")) + b"\n" for _ in range(20_000))
        whole = gzip.compress(text)
        cut = self.write("cut.gz", whole[: len(whole) // 2])
        garbled = self.write("garbled.gz", whole[:20] + b"\xff" * 50)
        good = self.write("good", line())
        status, out, err = self.run_it("--json", self.folder / "absent", cut, garbled, self.folder, "a\0b", good)
        self.assertEqual((status, err.count("\n")), (1, 5))
        self.assertIn(f"cannot read {cut}: its gzip ends too early\n", err)
        self.assertIn("absent: No such file or directory\n", err)
        told = json.loads(out)
        self.assertGreater(told["lines"]["counted"], 5000)
        self.assertEqual(told["modules"]["kv55"]["requests"], 1)

    def test_stdin(self) -> None:
        """- is stdin, gzip or not."""
        for data in (line(), gzip.compress(line())):
            with patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(data))):
                status, out, _ = self.run_it("--json", "-")
            self.assertEqual((status, json.loads(out)["requests"]), (0, 1))

    def test_nothing(self) -> None:
        """When no line matched, that is said."""
        log = self.write("log", line() + b"\nbroken\n")
        status, out, err = self.run_it("--since", "1h", log)
        self.assertEqual((status, err), (0, "govi-stats: no line matched: 1 bad, 1 of other times\n"))
        self.assertIn("Requests     0", out)

    def test_wrong_moment(self) -> None:
        """A wrong moment is one line that names the option, and status 2."""
        for option in ("--since", "--until"):
            status, out, err = self.run_it(option, "soon", self.write("log", line()))
            self.assertEqual((status, out, err.count("\n")), (2, "", 1))
            self.assertTrue(err.startswith(f"govi-stats: {option}: 'soon' is no moment"), err)

    def test_page(self) -> None:
        """The page is written beside the text, and a page that cannot be written is status 1."""
        log = self.write("log", line())
        page = self.folder / "page.html"
        status, out, err = self.run_it("--html", page, log)
        self.assertEqual((status, err), (0, ""))
        self.assertIn("Phases, in ms", out)
        self.assertTrue(page.read_text().startswith("<!DOCTYPE html>"))
        status, _, err = self.run_it("--html", self.folder / "absent" / "page.html", log)
        self.assertEqual((status, err.count("\n")), (1, 1))
        self.assertEqual(sorted(os.listdir(self.folder)), ["log", "page.html"])

    def test_local_time(self) -> None:
        """The period is told in Dutch time."""
        _, out, _ = self.run_it(self.write("log", line()))
        self.assertIn("2026-11-23 13:30:00 to 2026-11-23 13:30:00 CET", out)
        self.assertEqual(NOW.astimezone(LOCAL_ZONE).hour, 13)
