"""Tests of where a journey is."""

from twisted.trial.unittest import SynchronousTestCase

from govi_server.departures.journey import Call, CallState, JourneyDisplay, Progress

NOW = 1_000_000.0


def journey(*states: CallState, is_stale: bool = False, first: float = NOW) -> JourneyDisplay:
    """Return a journey that calls every minute, in these states. first: the time of its first departure."""
    calls = (Call(f"{n}", "", first + 60 * n, first + 60 * n, state) for n, state in enumerate(states))
    return JourneyDisplay("4", "Campus", tuple(calls), is_stale=is_stale)


class ProgressTests(SynchronousTestCase):
    """Where the vehicle is, by the states of its calls."""

    def test_progress(self) -> None:
        """The vehicle is at the stop that reports it, or on its way to the first stop after those it has left."""
        cases: list[tuple[tuple[CallState, ...], tuple[Progress, int | None]]] = [
            (("passed", "stopped", "on_time"), ("at", 1)),
            (("passed", "late", "late"), ("towards", 1)),
            (("passed", "cancelled", "late"), ("towards", 2)),
            (("unknown", "passed", "late"), ("towards", 2)),
            (("on_time", "on_time"), ("towards", 0)),
            (("cancelled", "on_time"), ("towards", 1)),
            (("passed", "passed"), ("ended", None)),
            (("passed", "cancelled"), ("ended", None)),
            (("cancelled", "cancelled"), ("cancelled", None)),
            (("unknown", "planned"), ("unknown", None)),
            (("last_known", "last_known"), ("unknown", None)),
        ]
        for states, expected in cases:
            self.assertEqual(journey(*states).progress(NOW), expected, states)

    def test_begin(self) -> None:
        """A planned journey has not begun; once it should have, without a report, that is unknown."""
        self.assertEqual(journey("planned", first=NOW + 1).progress(NOW), ("before", None))
        self.assertEqual(journey("planned", first=NOW).progress(NOW), ("unknown", None))

    def test_stale_data_has_no_position(self) -> None:
        """Data that is not fresh does not tell where a vehicle is, but that a journey is cancelled."""
        self.assertEqual(journey("passed", "late", is_stale=True).progress(NOW), ("unknown", None))
        self.assertEqual(journey("cancelled", is_stale=True).progress(NOW), ("cancelled", None))
