"""Tests of govi_server.operations.log_levels."""

import io

from twisted.logger import LogEvent, Logger, LogPublisher, textFileLogObserver
from twisted.trial.unittest import SynchronousTestCase

from govi_server.operations.log_levels import LogLevels


class LogLevelsTests(SynchronousTestCase):
    """Which events are written to the log."""

    def test_levels_filter_the_file_only(self) -> None:
        """The file has the events that the levels admit; other observers see all; stopping removes the filters."""
        file = io.StringIO()
        seen: list[LogEvent] = []
        publisher = LogPublisher(textFileLogObserver(file), seen.append)  # type: ignore[arg-type]
        levels, logger = LogLevels(publisher), Logger("a.b", observer=publisher)
        levels.startService()
        seen.clear()
        logger.debug("one")
        levels.set("a", "debug")
        logger.debug("two")
        levels.set("a.b", "error")
        logger.warn("three")
        self.assertEqual(("one" in file.getvalue(), "two" in file.getvalue()), (False, True))
        self.assertNotIn("three", file.getvalue())
        self.assertEqual(len(seen), 3)
        levels.stopService()
        logger.debug("four")
        self.assertIn("four", file.getvalue())
