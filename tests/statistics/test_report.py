"""Tests of govi_server.statistics.report."""

import re
from datetime import timedelta

from twisted.trial.unittest import SynchronousTestCase

from govi_server.statistics.records import CACHE_RESULTS, PHASES
from govi_server.statistics.report import as_json, as_text, plain
from tests.statistics.logs import NOW, line, request, summarize


class TextTests(SynchronousTestCase):
    """The report as text."""

    def test_text_is_ascii_in_80_columns(self) -> None:
        """The text is ASCII in 80 columns for any log, and has all figures."""
        lines = [
            line(
                request(stop=str(hour), cache="miss", wait=10_000.0 + hour),
                request("y" * 50, ""),
                request("\x1b[31mred\u00e9", "", 200),
                time=(NOW - timedelta(hours=hour)).isoformat(),
            )
            for hour in range(48)
        ]
        text = as_text(summarize(*lines, b"broken"))
        self.assertTrue(text.isascii())
        self.assertNotIn("\x1b", text)
        self.assertLessEqual(max(map(len, text.splitlines())), 80)
        self.assertIn("Bad lines    1 of 49", text)
        self.assertIn("2026-11-24 13:00 CET          3    66.7%        0    9,999    9,999   10,000\n", text)
        self.assertRegex(text, r"\n47 +1 +0 +1 +10,047 +10,047\n")

    def test_long_log_is_listed_by_day(self) -> None:
        """A log of more than two days is listed by day."""
        text = as_text(summarize(*(line(time=(NOW - timedelta(hours=hour)).isoformat()) for hour in range(49))))
        self.assertIn("Responses by day", text)
        self.assertRegex(text, r"\nMon 2026-11-23 +24 ")

    def test_verdict_comes_first(self) -> None:
        """The first sentences say how many requests failed, and if these are many, where and when."""
        for lines, expected in [
            ([b"broken"], "No requests.\n\n"),
            ([line()] * 3, "No failures: all of 3 requests were served. Half of the responses took"),
            ([line(*[request()] * 199, request(status=504))], "Few failures: 1 of 200 requests failed (0.5%). Half"),
            (
                [line(request(status=504), request(status=504), request("tpc", status=500), request("tpc"))],
                "Many failures: 3 of 4 requests failed (75.0%). Most by module: /kv55 (2); by "
                "status: 504 (2); by hour: 2026-11-23 13:00 CET (3). Half of the responses took",
            ),
        ]:
            text = as_text(summarize(*lines))
            self.assertTrue(" ".join(text.split()).startswith(" ".join(expected.split())), text[:300])
            self.assertTrue(" ".join(text.split()).startswith(as_json(summarize(*lines))["verdict"]))

    def test_columns_are_explained(self) -> None:
        """The last section explains every column, phase and cache result of the tables."""
        text, _, explanations = as_text(summarize(line(request(cache="miss", wait=5.0)))).partition("\nColumns\n")
        heads = " ".join(re.findall(r"^ {22}(.*)$", text, re.MULTILINE))
        names = set(re.findall(r"(?<= )(?:[a-z]+|p\d+|not mem\.)(?= |$)", heads))
        self.assertGreater(len(names), 5)
        self.assertEqual({name for name in names if name not in explanations}, set())
        for name in (*PHASES, *CACHE_RESULTS, "response"):
            self.assertRegex(explanations, rf"(?m)^(\w+, )?{name}\b")

    def test_period_is_in_dutch_time(self) -> None:
        """The period is shown in Dutch time."""
        self.assertIn("2026-11-23 13:30:00 to 2026-11-23 13:30:00 CET", as_text(summarize(line())))

    def test_long_name_is_truncated(self) -> None:
        """A name that is wider than its column is truncated."""
        self.assertEqual(plain("x" * 23), "x" * 19 + "...")
