"""Tests of govi_server.statistics.summary, by the JSON of its report."""

import json
import random
from datetime import UTC, datetime, timedelta
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from govi_server.statistics import summary as summary_module
from govi_server.statistics.log import format_line
from govi_server.statistics.records import ConnectionStatistics, Exchange, RequestStatistics
from govi_server.statistics.report import as_json, as_text
from tests.statistics.logs import NOW, line, request, summarize


class LogSummaryTests(SynchronousTestCase):
    """The counts of a summary."""

    def test_line_of_the_server_is_valid(self) -> None:
        """A line that the server wrote is valid, with all its values."""
        exchange = Exchange("GET", "/kv55/57330430", 200, 4321, "miss", "kv55", "57330430")
        recorded = RequestStatistics(exchange, 1e9)
        recorded.mark("receive", 1e9 + 1)
        recorded.mark("wait", 1e9 + 1.25)
        connection = ConnectionStatistics("x", "local", 1e9, 1e9 + 2, "client", [recorded])
        line_text = format_line({"statistics": connection}, "x")
        assert line_text is not None
        report = as_json(summarize(line_text.encode()))
        self.assertEqual((report["lines"]["bad"], report["bytes"]), (0, 4321))
        self.assertEqual((report["phases"]["receive"]["max"], report["answers"]["max"]), (1000.0, 250.0))
        self.assertEqual((list(report["modules"]), report["slowest"][0]["stop"]), (["kv55"], "57330430"))

    def test_line_of_an_older_version_has_no_module_or_stop(self) -> None:
        """Requests of an older version, whose lines lack the fields, count as without a module and a stop."""
        older = json.loads(line())
        del older["requests"][0]["module"], older["requests"][0]["stop"]
        report = as_json(summarize(json.dumps(older).encode()))
        self.assertEqual((report["requests"], report["modules"], report["elsewhere"]["requests"]), (1, {}, 1))
        self.assertEqual(report["stops"], {"distinct": 0, "others": 0})

    def test_response_time_excludes_receive(self) -> None:
        """A response time is the sum of all phases except receive; without a response there is none."""
        report = as_json(summarize(line(request(), request(status=None, cache="miss", wait=9000.0))))
        self.assertEqual((report["requests"], report["answers"]["count"], report["answers"]["max"]), (2, 1, 0.5))
        self.assertEqual(report["phases"]["wait"]["max"], 9000.0)
        self.assertEqual(report["statuses"]["none"]["requests"], 1)

    def test_interim_lines_are_not_connections(self) -> None:
        """Interim lines of an open connection count as requests, not as connections."""
        report = as_json(summarize(line(end="open"), line(end="open"), line(end="server")))
        self.assertEqual((report["connections"], report["requests"]), (1, 3))
        self.assertEqual((report["ends"]["open"], report["ends"]["server"]), (2, 1))

    def test_5xx_and_406_are_failures(self) -> None:
        """5xx and 406 are failures; other statuses are not."""
        requests = [request(status=status) for status in (200, 304, 404, 429, 406, 502, 504)]
        report = as_json(summarize(line(*requests)))
        self.assertEqual(report["failed"], 3)
        self.assertEqual(report["periods"][0]["statuses"], {"2xx": 1, "3xx": 1, "4xx": 3, "5xx": 2})

    def test_memory_ratio_excludes_other_requests(self) -> None:
        """Hit and stale count as from memory; requests without a cache result are excluded."""
        requests = [request(cache=cache) for cache in ("hit", "stale", "miss", "joined", "none", "none")]
        self.assertEqual(as_json(summarize(line(*requests)))["memory_ratio"], 0.5)
        self.assertIsNone(as_json(summarize(line(request(cache="none"))))["memory_ratio"])

    def test_bad_lines_are_counted_and_skipped(self) -> None:
        """Invalid lines count only as bad lines."""
        summary = summarize(line(), b"broken", line())
        self.assertEqual((summary.bad, summary.lines, summary.total.total.requests), (1, 2, 2))

    def test_since_is_inclusive_and_until_exclusive(self) -> None:
        """A line at the moment of --since is counted, one at the moment of --until is not."""
        lines = [line(time=f"2026-11-23T1{hour}:00:00+00:00") for hour in range(5)]
        since, until = datetime(2026, 11, 23, 11, tzinfo=UTC), datetime(2026, 11, 23, 13, tzinfo=UTC)
        summary = summarize(*lines, since=since, until=until)
        self.assertEqual((summary.lines, summary.outside), (2, 3))
        self.assertEqual(as_json(summary)["to"], "2026-11-23T13:00:00.000+01:00")

    @settings(max_examples=20, deadline=None)
    @given(st.randoms(use_true_random=False))
    def test_order_of_lines_does_not_matter(self, rng: random.Random) -> None:
        """The order of lines does not matter, even when periods become longer."""
        lines = [
            line(
                request(stop=str(hour % 7), cache="miss", wait=hour * 1.1),
                request(None, "", 404),
                time=(NOW - timedelta(hours=hour * 5)).isoformat(),
            )
            for hour in range(30)
        ]
        shuffled = rng.sample(lines, len(lines))
        with patch.object(summary_module, "MAX_PERIODS", 10):
            first, second = as_json(summarize(*lines)), as_json(summarize(*shuffled))
        self.assertEqual(first, second)
        self.assertEqual(first["width"], "day")

    def test_periods_become_longer(self) -> None:
        """Too many hours become days, then months, then years; no request is lost."""
        for hours, width in ((1, "day"), (24, "month"), (24 * 31, "year")):
            with patch.object(summary_module, "MAX_PERIODS", 10):
                summary = summarize(
                    *(line(time=(NOW - timedelta(hours=hours * index)).isoformat()) for index in range(11))
                )
            report = as_json(summary)
            self.assertEqual(sum(period["requests"] for period in report["periods"]), 11)
            self.assertEqual(report["width"], width)
            self.assertLessEqual(len(report["periods"]), 10)

    def test_repeated_hour_is_two_periods(self) -> None:
        """The hour that is repeated at the end of summer time is two periods."""
        summary = summarize(line(time="2026-10-25T00:30:00+00:00"), line(time="2026-10-25T01:30:00+00:00"))
        begins = [period["begin"] for period in as_json(summary)["periods"]]
        self.assertEqual(begins, ["2026-10-25T02:00:00+02:00", "2026-10-25T02:00:00+01:00"])
        self.assertEqual(len(summary.periods("day")), 1)

    def test_requests_are_counted_by_module(self) -> None:
        """Requests are counted by module, with the empty name for the front page; the others together."""
        summary = summarize(
            line(request(status=504), request(None, "", 404), request(None, "", 400)),
            line(request(), request("", "")),
        )
        report = as_json(summary)
        self.assertEqual({name: group["requests"] for name, group in report["modules"].items()}, {"kv55": 2, "": 1})
        self.assertEqual((report["modules"]["kv55"]["failed"], report["elsewhere"]["requests"]), (1, 2))

    def test_modules_are_bounded(self) -> None:
        """Modules beyond the bound are counted together."""
        with patch.object(summary_module, "MAX_MODULES", 5):
            report = as_json(summarize(*(line(request(f"module{index}")) for index in range(20))))
        self.assertEqual((len(report["modules"]), report["elsewhere"]["requests"]), (5, 15))

    def test_slowest_stops_have_the_longest_mean(self) -> None:
        """The slowest stops have the longest mean response time, without responses from memory."""
        summary = summarize(
            line(request(stop="1", cache="miss", wait=100.0), request(stop="1")),
            line(request("tpc", "2", 504, "joined", wait=300.0), request("tpc", "2", cache="miss", wait=200.0)),
            line(request(stop="3", wait=9999.0)),
        )
        self.assertEqual(
            as_json(summary)["slowest"],
            [
                {"stop": "2", "requests": 2, "failed": 1, "timed": 2, "mean": 250.0, "max": 300.0},
                {"stop": "1", "requests": 2, "failed": 0, "timed": 1, "mean": 100.0, "max": 100.0},
            ],
        )

    def test_stop_with_few_timed_responses_is_last(self) -> None:
        """A stop with few timed responses ranks after those with more, even if it is slower."""
        timed = [request(stop="1", cache="miss", wait=100.0)] * 5
        summary = summarize(line(*timed, *[request("kv55", "2", 504, "miss", wait=10_000.0)] * 4))
        self.assertEqual([code for code, _ in summary.slowest(9)], ["1", "2"])

    def test_stops_are_bounded(self) -> None:
        """Stops beyond the bound are counted together, as the text mentions."""
        with patch.object(summary_module, "MAX_STOPS", 2):
            codes = ("1", "2", "3", "4", "1")
            summary = summarize(*(line(request(stop=code, cache="miss", wait=1.0)) for code in codes))
        self.assertEqual(as_json(summary)["stops"], {"distinct": 2, "others": 2})
        self.assertIn("2 requests for stops beyond the first 2", as_text(summary))
