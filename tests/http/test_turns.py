"""Connections with pipelined requests are resumed in rotation."""

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from govi_server.http.turns import MAX_RESUMED, Turns


class Connection:
    """A connection that yields some more times."""

    def __init__(self, turns: Turns, times: int) -> None:
        self.turns = turns
        self.times = times

    def resume(self) -> None:
        self.times -= 1
        if self.times:
            self.turns.add(self)


class TurnsTests(SynchronousTestCase):
    """Turns of the reactor."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.turns = Turns(self.clock)

    def add(self, n: int, times: int = 1) -> list[Connection]:
        connections = [Connection(self.turns, times) for _ in range(n)]
        for connection in connections:
            self.turns.add(connection)
        return connections

    def test_few_are_resumed_in_a_turn(self) -> None:
        """At most MAX_RESUMED connections are resumed in a turn of the reactor, in their order."""
        connections = self.add(2 * MAX_RESUMED + 1, 2)
        (turn,) = self.clock.calls
        self.clock.calls.clear()
        turn.func()
        times = [connection.times for connection in connections]
        self.assertEqual(times, [1] * MAX_RESUMED + [2] * (MAX_RESUMED + 1))
        self.clock.advance(0)
        self.assertEqual({connection.times for connection in connections}, {0})
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_removed_connection_is_not_resumed(self) -> None:
        """A connection that has ended is not resumed; without any, no call is pending."""
        first, second = self.add(2)
        self.turns.remove(first)
        self.clock.advance(0)
        self.assertEqual((first.times, second.times), (1, 0))
        (third,) = self.add(1)
        self.turns.remove(third)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_connection_that_ends_another(self) -> None:
        """A connection that is resumed may end others of the same turn."""
        first, second = self.add(2)
        first.resume = lambda: self.turns.remove(second)  # type: ignore[method-assign]
        self.clock.advance(0)
        self.assertEqual(second.times, 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])
