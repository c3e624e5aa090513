"""Tests of runtime.outage."""

from twisted.internet.task import Clock
from twisted.internet.testing import EventLoggingObserver
from twisted.logger import Logger, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from govi_server.runtime.outage import Outage
from govi_server.runtime.throttled_warnings import WARNING_INTERVAL


class OutageTests(SynchronousTestCase):
    """The log lines of outages."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.events = EventLoggingObserver()
        self.outage = Outage(Logger(observer=self.events), self.clock)

    def lines(self) -> list[str]:
        return [formatEvent(event) for event in self.events]

    def test_one_line_each_way(self) -> None:
        """An outage is one line at its start and one at its end, however often it is noted."""
        self.outage.end("over")
        for _ in range(3):
            self.outage.begin("down")
            self.clock.advance(50)
        self.outage.end("over after {seconds} s")
        self.outage.end("over")
        self.assertEqual(self.lines(), ["down", "over after 150.0 s"])

    def test_frequent_outages(self) -> None:
        """Outages within a minute of each other are not logged, unless one lasts for longer."""
        for _ in range(5):
            self.outage.begin("down")
            self.clock.advance(1)
            self.outage.end("over after {seconds} s")
            self.clock.advance(1)
        self.assertEqual(self.lines(), ["down", "over after 1.0 s"])
        self.outage.begin("down")
        self.clock.advance(WARNING_INTERVAL)
        self.outage.begin("still down")
        self.outage.end("over after {seconds} s")
        self.assertEqual(self.lines()[2:], ["still down", "over after 60.0 s"])

    def test_several_outages(self) -> None:
        """Several outages in a minute may be logged; of more, only those that last are."""
        self.outage = Outage(Logger(observer=self.events), self.clock, 2)
        for _ in range(4):
            self.outage.begin("down")
            self.clock.advance(1)
            self.outage.end("over after {seconds} s")
        self.assertEqual(self.lines(), ["down", "over after 1.0 s"] * 2)
        self.outage.begin("down")
        self.clock.advance(WARNING_INTERVAL)
        self.outage.begin("still down")
        self.assertEqual(self.lines()[4:], ["still down"])
