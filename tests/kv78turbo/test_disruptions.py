"""Tests of govi_server.kv78turbo.disruptions: the messages that apply now."""

from twisted.internet.defer import CancelledError, Deferred

from govi_server.kv78turbo.disruptions import INTERVAL, CurrentDisruptions, Disruption
from govi_server.runtime.cooperative import CooperativeRunner
from tests import feed as kv
from tests.doubles import ingest
from tests.modules.test_kv55_feed import LiveTestCase


class CurrentDisruptionsTests(LiveTestCase):
    """CurrentDisruptions.latest()."""

    def latest(self, disruptions: CurrentDisruptions) -> list[Disruption]:
        waiting = Deferred.fromCoroutine(disruptions.latest())
        self.clock.pump([0.001] * 5)
        return self.successResultOf(waiting)

    def test_messages_by_number_of_stops(self) -> None:
        """Messages that apply now are counted by text; the one with most stops is first, the others are omitted."""
        rows = [{"TimingPointCode": code, "MessageContent": "Lift broken"} for code in ("11", "12")]
        rows.append({"TimingPointCode": "13", "MessageContent": "Detour"})
        rows.append(
            {"TimingPointCode": "14", "MessageContent": "Over", "MessageEndTime": "2026-01-01T00:51:00+01:00"}
        )
        ingest(self.feed, kv.general_message(*rows))
        disruptions = CurrentDisruptions(self.feed)
        expected = [Disruption("Lift broken", "LIN", "11", 2), Disruption("Detour", "LIN", "13", 1)]
        self.assertEqual(self.latest(disruptions), expected)
        ingest(self.feed, kv.general_message({"TimingPointCode": "15", "MessageContent": "Later"}))
        self.assertEqual(self.latest(disruptions), expected)
        self.clock.advance(INTERVAL)
        self.assertEqual(len(self.latest(disruptions)), 3)

    def test_caller_that_leaves(self) -> None:
        """A caller that is cancelled during an update neither ends it for another, nor prevents the next one."""
        ingest(self.feed, kv.general_message({"MessageContent": "Detour"}))
        disruptions = CurrentDisruptions(self.feed)
        self.patch(CooperativeRunner, "_fits", lambda runner, steps: False)
        for others in (0, 1):
            first, *rest = [Deferred.fromCoroutine(disruptions.latest()) for _ in range(1 + others)]
            first.addErrback(lambda failure: failure.trap(CancelledError))
            first.cancel()
            self.clock.pump([0.001] * 5)
            for other in rest:
                self.assertEqual(len(self.successResultOf(other)), 1)
        self.assertEqual(len(self.latest(disruptions)), 1)
