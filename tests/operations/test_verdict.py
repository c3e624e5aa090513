"""Tests of govi_server.operations.verdict."""

from collections.abc import Sequence

from twisted.trial.unittest import SynchronousTestCase

from govi_server.operations.health import HealthStatus
from govi_server.operations.history import BoardResult, Minute
from govi_server.operations.verdict import Verdict, verdict
from tests.client import NOW


class VerdictTests(SynchronousTestCase):
    """The sentence agrees with the counts of the chart."""

    def verdict(
        self, *results: tuple[int, BoardResult, int], status: HealthStatus = "UP", stops: Sequence[str] = ("1",)
    ) -> Verdict:
        """Return the verdict of results: minutes ago, result and number; failures are for these stops."""
        minutes = []
        for minutes_ago, result, n in results:
            minute = Minute(int(NOW) // 60 * 60 - 60 * minutes_ago)
            minute.modules["kv55"].results[result, 200] += n
            if result in ("timeout", "failed"):
                minute.modules["kv55"].stops["failed"].update(stops)
            minutes.append(minute)
        return verdict(status, minutes, NOW)

    def test_no_failures(self) -> None:
        """Without failures the sentence has the number of requests, if there were any."""
        self.assertEqual(self.verdict(), Verdict("No board was requested in the last 5 minutes.", has_failures=False))
        sentence = "All sources work: all 1,200 board requests of the last 5 minutes were answered."
        self.assertEqual(self.verdict((1, "hit", 1000), (0, "miss", 200)), Verdict(sentence, has_failures=False))
        self.assertIn("Boards in memory are served: all 2", self.verdict((0, "stale", 2), status="DOWN")[0])
        self.assertIn("Clients are served: the only board request", self.verdict((0, "hit", 1), status="DEGRADED")[0])

    def test_failures_of_a_service_that_is_up(self) -> None:
        """A large share of failures is named also if the sources work, and is not shown as healthy."""
        sentence, has_failures = self.verdict((0, "timeout", 3), (0, "hit", 1))
        self.assertTrue(has_failures)
        self.assertIn("3 of 4 board requests (75.0%) failed in the last 5 minutes, for stop 1. The sources", sentence)

    def test_few_failures(self) -> None:
        """A small share of failures is named, but the service is healthy."""
        sentence, has_failures = self.verdict((0, "failed", 1), (0, "hit", 999))
        self.assertFalse(has_failures)
        self.assertEqual(sentence, "1 of 1,000 board requests (0.1%) failed in the last 5 minutes, for stop 1.")

    def test_outage_names_some_stops(self) -> None:
        """The sentence of an outage names some stops, and says nothing about working sources."""
        sentence, _ = self.verdict((0, "timeout", 9), status="DOWN", stops=("1", "2", "3", "4", "5"))
        self.assertEqual(
            sentence,
            "9 of 9 board requests (100.0%) failed in the last 5 minutes, for stops 1, 2, 3 and 2 more.",
        )

    def test_earlier_failures(self) -> None:
        """Failures earlier in the hour, which the chart shows, are named with the time of the last."""
        sentence, has_failures = self.verdict((40, "timeout", 90), (30, "timeout", 10), (0, "hit", 100))
        self.assertFalse(has_failures)
        self.assertRegex(
            sentence,
            r"were answered\. Earlier in this hour 100 of 200 \(50\.0%\) failed, the last at \d\d:\d\d UTC\.$",
        )
