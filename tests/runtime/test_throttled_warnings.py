"""Incidents: all are counted, few are logged."""

from twisted.internet.task import Clock
from twisted.internet.testing import EventLoggingObserver
from twisted.logger import Logger, LogLevel, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from govi_server.runtime.throttled_warnings import WARNING_INTERVAL, ThrottledWarnings


class ThrottledWarningsTests(SynchronousTestCase):
    """Counts and log lines of incidents."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_000_000.0)
        self.events = EventLoggingObserver()
        self.incidents = ThrottledWarnings(Logger("incidents", observer=self.events), self.clock)

    def tearDown(self) -> None:
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def add(self, kind: str, n: int) -> None:
        self.incidents.add(kind, "{name} went wrong", name=f"number {n}")

    def lines(self) -> list[str]:
        """Return the lines logged since the last call."""
        lines = [formatEvent(event) for event in self.events]
        self.events._events.clear()
        return lines

    def test_first_incident_is_logged(self) -> None:
        """The first incident of a kind is logged immediately, as a warning with its fields."""
        self.add("late", 1)
        self.assertEqual(self.incidents.counts, {"late": 1})
        self.assertEqual([event["log_level"] for event in self.events], [LogLevel.warn])
        self.assertEqual(self.events[0]["name"], "number 1")
        self.assertEqual(self.lines(), ["number 1 went wrong"])

    def test_incidents_within_the_interval_are_counted(self) -> None:
        """Further incidents of the kind are only counted for a minute."""
        self.add("late", 1)
        self.lines()
        for n, seconds in enumerate((0, 0, 30, WARNING_INTERVAL - 30.5), 2):
            self.clock.advance(seconds)
            self.add("late", n)
        self.assertEqual(self.lines(), [])
        self.assertEqual(self.incidents.counts, {"late": 5})

    def test_incident_after_the_interval_is_logged(self) -> None:
        """After a minute the next incident is logged, with the number of those not logged."""
        for n in range(1, 5):
            self.add("late", n)
        self.lines()
        self.clock.advance(WARNING_INTERVAL)
        self.add("late", 5)
        self.assertEqual(self.lines(), ["number 5 went wrong (and 3 more of this kind since the last such line)"])
        self.add("late", 6)
        self.clock.advance(WARNING_INTERVAL)
        self.add("late", 7)
        self.assertEqual(self.lines(), ["number 7 went wrong (and 1 more of this kind since the last such line)"])
        self.assertEqual(self.incidents.counts, {"late": 7})

    def test_line_without_number(self) -> None:
        """If all previous incidents were logged, the line has no number."""
        for n in (1, 2):
            self.add("late", n)
            self.assertEqual(self.lines(), [f"number {n} went wrong"])
            self.clock.advance(WARNING_INTERVAL)

    def test_kinds_are_separate(self) -> None:
        """Each kind is counted and logged separately."""
        for n, kind in enumerate(("late", "broken", "late", "silent", "broken")):
            self.add(kind, n)
        self.assertEqual(self.lines(), [f"number {n} went wrong" for n in (0, 1, 3)])
        self.assertEqual(self.incidents.counts, {"late": 2, "broken": 2, "silent": 1})

    def test_interval_begins_at_the_line(self) -> None:
        """The interval begins at the line, not at the last incident."""
        for n in range(13):
            self.add("late", n)
            self.clock.advance(10)
        self.assertEqual([line.split(" went")[0] for line in self.lines()], ["number 0", "number 6", "number 12"])

    def test_clock_set_back(self) -> None:
        """The interval does not become longer when the clock is set back."""
        self.add("late", 1)
        self.add("late", 2)
        self.lines()
        self.clock.advance(-3600)
        self.add("late", 3)
        self.assertEqual(self.lines(), ["number 3 went wrong (and 1 more of this kind since the last such line)"])
        self.add("late", 4)
        self.assertEqual(self.lines(), [])

    def test_braces_in_values(self) -> None:
        """The value of a field is logged unchanged, even with braces."""
        self.incidents.add("broken", "cannot read: {reason}", reason="{missed} {0} %s")
        self.assertEqual(self.lines(), ["cannot read: {missed} {0} %s"])
