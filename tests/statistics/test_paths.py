"""What paths ask about."""

from twisted.trial.unittest import SynchronousTestCase

from govi_server.modules.ovapi import PATHS
from govi_server.statistics.paths import _NOT_OF_STOPS, SEVERAL, stop_of


class StopTests(SynchronousTestCase):
    """The stop of a path."""

    def test_stop_of(self) -> None:
        """A stop is what looks like one, under whatever name a module answers."""
        for path, stop in {
            "/kv55/57330430": "57330430", "/tpc/1/departures": "1", "/tpc/1/departures?x=/": "1",
            "/arriva/0001": "0001", "/kv55/1,2": SEVERAL, "/kv55/1,": "1", "/kv55/,": None, "/kv55/1,a": None,
            "/kv55/": None, "/kv55": None, "/kv55/a": None, "/kv55/\u0661": None, "/kv55/12345678901": None,
            "/line/1": None, "/stopareacode/1": None, "/": None, "*": None, "x/kv55/1": None, None: None,
        }.items():  # fmt: skip
            self.assertEqual(stop_of(path), stop, path)

    def test_ovapi(self) -> None:
        """Of OVapi's paths one is about stops."""
        self.assertEqual(set(PATHS) - _NOT_OF_STOPS, {"tpc"})
        self.assertLessEqual(_NOT_OF_STOPS, set(PATHS))
